"""A healthy cluster with keys, the damages that repairs have to undo, and an uneven cluster."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

from bootstrap.model.node import Address
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from tests.builders import formed, gossip, shape
from tests.fake_cluster import FakeCluster, FakeNode, Known


def healthy() -> FakeCluster:
    """Six nodes, formed, with keys on every shard: the copies of a shard hold the same number."""
    cluster = formed(shape(3, 1, 5000))
    for node in cluster.nodes:
        node.keys, node.offset = 10 + node.ordinal % 3, 100
    return cluster


def wipe(cluster: FakeCluster, ordinal: int) -> FakeNode:
    """The pod comes back at another address without its disk: a new id that knows no other node."""
    old = cluster[ordinal]
    new = cluster._blank(ordinal)
    new.address = Address(f"10.0.1.{ordinal + 1}", 6379)
    cluster.nodes[ordinal] = new
    for node in cluster.nodes:
        if old.node_id in node.known:
            node.known[old.node_id].connected = False
    return new


def wipe_in_place(cluster: FakeCluster, *ordinals: int) -> None:
    """Masters come back at their addresses without their disks. A replica connects to an address, and copies whatever
    answers there: nobody holds a key of these slots any more.
    """
    for ordinal in ordinals:
        old = cluster[ordinal]
        new = cluster.nodes[ordinal] = cluster._blank(ordinal)
        new.address = old.address
        for node in cluster.nodes:
            if old.node_id in node.known:
                node.known[old.node_id].connected, node.known[old.node_id].flags = False, frozenset({"noaddr"})
            if node.master == old.node_id:
                node.keys, node.in_slot, node.offset, node.source = 0, {}, 0, new.address


def wipe_a_master_in_place(cluster: FakeCluster) -> None:
    wipe_in_place(cluster, 1)


def wipe_all_masters_in_place(cluster: FakeCluster) -> None:
    wipe_in_place(cluster, 0, 1, 2)


def clone_a_master(cluster: FakeCluster) -> None:
    """The pod of another shard's replica gets a copy of a master's disk."""
    clone(cluster, 1, 3)


def clone_a_replica(cluster: FakeCluster) -> None:
    clone(cluster, 3, 5)


def clone(cluster: FakeCluster, original: int, into: int) -> None:
    """Another pod comes back with a copy of a pod's disk."""
    old = cluster[into]
    new = deepcopy(cluster[original])
    new.pod, new.ordinal, new.address = old.pod, old.ordinal, Address(f"10.0.1.{into + 1}", 6379)
    cluster.nodes[into] = new


def clone_all_beside_the_original(cluster: FakeCluster) -> None:
    """These pods are the copy: the servers that the disks come from still run, where the copy believes its own."""
    cluster.outside = deepcopy(cluster.nodes)
    start_elsewhere(cluster)


def clone_some_beside_the_original(cluster: FakeCluster) -> None:
    """Only some of the servers that the disks come from still run."""
    cluster.outside = deepcopy(cluster.nodes[1:3])
    start_elsewhere(cluster)


def start_elsewhere(cluster: FakeCluster) -> None:
    """All pods at addresses where no server has been."""
    move_all(cluster)
    for node in cluster.nodes:
        node.address = Address(f"10.0.3.{node.ordinal + 1}", 6379)


def move(cluster: FakeCluster, *ordinals: int) -> None:
    """The pods come back at other addresses, with their disks."""
    for ordinal in ordinals:
        node = cluster[ordinal]
        node.address = Address(f"10.0.2.{ordinal + 1}", 6379)
        node.restarted = node.master is not None
        for other in cluster.nodes:
            if node.node_id in other.known:
                other.known[node.node_id].connected = False
        for known in node.known.values():
            known.connected = False
    for node in cluster.nodes:
        node.link_up = node.link_up and node.master is None


def move_all(cluster: FakeCluster) -> None:
    move(cluster, *range(6))


def move_all_long_ago(cluster: FakeCluster) -> None:
    """Nobody has introduced them for longer than a node timeout."""
    move_all(cluster)
    cluster.sleep(6.0)


def move_one(cluster: FakeCluster) -> None:
    move(cluster, 1)


def lose_a_replica(cluster: FakeCluster) -> None:
    wipe(cluster, 4)


def lose_a_master(cluster: FakeCluster) -> None:
    wipe(cluster, 1)


def lose_a_master_that_others_have_forgotten(cluster: FakeCluster) -> None:
    """By hand, before its replica was elected: only the replica cannot forget it."""
    lost = cluster[1].node_id
    wipe(cluster, 1)
    for node in cluster.nodes:
        if lost in node.known and node.master != lost:
            del node.known[lost]
            node.banned[lost] = cluster.time
            for known in node.known.values():
                if known.master == lost:
                    known.master = None


def lose_a_majority(cluster: FakeCluster) -> None:
    wipe(cluster, 0)
    wipe(cluster, 1)


def lose_a_master_and_move_the_rest(cluster: FakeCluster) -> None:
    move_all(cluster)
    wipe(cluster, 2)


def leave_a_ghost(cluster: FakeCluster) -> None:
    for ordinal in (0, 2, 5):
        cluster[ordinal].known["e" * 40] = Known(Address("10.0.9.9", 6379))


def split_the_cluster(cluster: FakeCluster) -> None:
    for node in cluster.nodes:
        mine = {0, 3} if node.ordinal in (0, 3) else {1, 2, 4, 5}
        node.known = {k: v for k, v in node.known.items() if int(k[:2], 16) in mine}


def follow_the_wrong_master(cluster: FakeCluster) -> None:
    cluster[4].master = cluster[0].node_id


def leave_a_slot_open(cluster: FakeCluster) -> None:
    one, other = cluster[0], cluster[1]
    one.migrating, other.importing = {93: other.node_id}, {93: one.node_id}
    give_keys(one, 93, 5)
    give_keys(other, 93, 4)


def leave_a_slot_open_on_one_side(cluster: FakeCluster) -> None:
    cluster[1].importing = {93: cluster[0].node_id}
    give_keys(cluster[0], 93, 2)


def fail_over_the_owner_of_an_open_slot(cluster: FakeCluster) -> None:
    """Its replica knows of no move, and has the keys that had not moved yet."""
    leave_a_slot_open(cluster)
    cluster._manual_failover(cluster[3])


def fail_over_the_target_of_an_open_slot(cluster: FakeCluster) -> None:
    """Its replica has the keys that had arrived, and does not import the slot."""
    leave_a_slot_open(cluster)
    cluster._manual_failover(cluster[4])


def remove_slots_from_their_owner(cluster: FakeCluster) -> None:
    give_keys(cluster[1], 6000, 3)
    cluster[1].slots -= SlotSet.of((5461, 7000))
    gossip(cluster)


def remove_all_slots_from_an_owner(cluster: FakeCluster) -> None:
    cluster[1].keys = 0
    give_keys(cluster[1], 6000, 14)
    cluster[1].slots = SlotSet()
    gossip(cluster)


def delete_slots_by_hand(cluster: FakeCluster) -> None:
    """Gossip clears no owner: the others go on naming it."""
    give_keys(cluster[1], 6000, 3)
    cluster[1].slots -= SlotSet.of((5461, 7000))


def delete_all_slots_by_hand(cluster: FakeCluster) -> None:
    cluster[1].keys = 0
    give_keys(cluster[1], 6000, 14)
    cluster[1].slots = SlotSet()


def restore_an_older_nodes_conf(cluster: FakeCluster) -> None:
    """The owner believes that its slots are still those of the master from which they came."""
    give_keys(cluster[1], 6000, 3)
    moved = SlotSet.of((5461, 7000))
    cluster[1].slots -= moved
    cluster[1].known[cluster[0].node_id].slots |= moved
    cluster[1].importing[6000] = cluster[0].node_id


def block_a_link(cluster: FakeCluster) -> None:
    cluster[3].link_up, cluster[3].hangs = False, True


def double_the_epochs(cluster: FakeCluster) -> None:
    cluster[1].epoch = cluster[2].epoch


def in_step(cluster: FakeCluster) -> None:
    """Each replica has what its master has: what only a missing master has is lost to every failover."""
    ids = {node.node_id: node for node in cluster.nodes}
    for node in cluster.nodes:
        if node.master in ids:
            node.keys, node.in_slot = ids[node.master].keys, dict(ids[node.master].in_slot)


def believe_a_higher_epoch(cluster: FakeCluster) -> None:
    """Two masters hold a higher config epoch for a third one than its own, as after a restart at swapped addresses."""
    for voter in (1, 2):
        if known := cluster[voter].known.get(cluster[0].node_id):
            known.epoch = 9


def give_keys(node: FakeNode, slot: int, keys: int) -> None:
    node.in_slot[slot] = keys
    node.keys += keys


def leave_keys_over(cluster: FakeCluster) -> None:
    """Another tool left a copy of a key and two keys that have been deleted since, in slots of another master."""
    give_left_over(cluster[0], 6000, dead=2, stale=1)
    give_left_over(cluster[0], 12000, dead=1)
    give_keys(cluster[1], 6000, 2)


def leave_marked_keys_over(cluster: FakeCluster) -> None:
    """The holder was restarted since: Redis 7.0 marks the slots of such keys as importing."""
    leave_keys_over(cluster)
    cluster[0].importing |= {6000: cluster[1].node_id, 12000: cluster[2].node_id}


def leave_only_deleted_keys_over(cluster: FakeCluster) -> None:
    """No copy of any living key is left; the owner may have no key of the slot at all."""
    give_left_over(cluster[1], 95, dead=3)
    cluster[1].importing |= {95: cluster[0].node_id}


def leave_keys_over_without_a_state(cluster: FakeCluster) -> None:
    """The owner migrates the slot to the holder, which does not import it: no client is served there."""
    give_left_over(cluster[1], 95, dead=1, stale=1)
    give_keys(cluster[0], 95, 4)
    cluster[0].migrating |= {95: cluster[1].node_id}


def give_left_over(node: FakeNode, slot: int, *, dead: int = 0, stale: int = 0) -> None:
    """Keys that no client sees on that node: some that exist nowhere else, some that the slot's owner has as well."""
    give_keys(node, slot, dead + stale)
    node.dead[slot], node.stale[slot] = dead, stale


def delete_left_over(cluster: FakeCluster) -> None:
    """A person deletes the keys that no client sees, and closes their slots."""
    for node in cluster.nodes:
        for slot in node.dead:
            gone = node.dead[slot] + node.stale[slot]
            node.keys, node.in_slot[slot] = node.keys - gone, node.in_slot[slot] - gone
            for each in cluster.nodes:
                each.importing.pop(slot, None)
                each.migrating.pop(slot, None)
        node.dead, node.stale = {}, {}


LEFT_OVER: dict[str, Callable[[FakeCluster], None]] = {
    "keys are left over": leave_keys_over,
    "keys are left over, and their slots are marked": leave_marked_keys_over,
    "deleted keys are left over, and their slot is marked": leave_only_deleted_keys_over,
    "keys are left over where the owner alone has a state": leave_keys_over_without_a_state,
}

CLONED: dict[str, Callable[[FakeCluster], None]] = {
    "a master's disk was cloned": clone_a_master,
    "a replica's disk was cloned": clone_a_replica,
    "all disks were cloned beside the original": clone_all_beside_the_original,
    "the disks were cloned beside some of the originals": clone_some_beside_the_original,
}
EMPTIED: dict[str, Callable[[FakeCluster], None]] = {
    "a master came back empty at its address": wipe_a_master_in_place,
    "all masters came back empty at their addresses": wipe_all_masters_in_place,
}

DAMAGES: dict[str, Callable[[FakeCluster], None]] = {
    "all pods moved": move_all,
    "all pods moved long ago": move_all_long_ago,
    "one pod moved": move_one,
    "a replica lost its disk": lose_a_replica,
    "a master lost its disk": lose_a_master,
    "two of three masters lost their disks": lose_a_majority,
    "a master lost its disk and was forgotten": lose_a_master_that_others_have_forgotten,
    "a master lost its disk while all moved": lose_a_master_and_move_the_rest,
    "a ghost is left": leave_a_ghost,
    "the cluster split into two": split_the_cluster,
    "a replica follows the wrong master": follow_the_wrong_master,
    "a slot is open": leave_a_slot_open,
    "a slot is open on one side": leave_a_slot_open_on_one_side,
    "the owner of an open slot failed over": fail_over_the_owner_of_an_open_slot,
    "the target of an open slot failed over": fail_over_the_target_of_an_open_slot,
    "slots were removed from their owner": remove_slots_from_their_owner,
    "a master was left without slots": remove_all_slots_from_an_owner,
    "slots were deleted by hand": delete_slots_by_hand,
    "all slots of a master were deleted by hand": delete_all_slots_by_hand,
    "an older nodes.conf came back": restore_an_older_nodes_conf,
    "a link is stuck": block_a_link,
    "two masters have one epoch": double_the_epochs,
    "voters hold a higher epoch for a master": believe_a_higher_epoch,
}


def uneven(*sizes: int) -> FakeCluster:
    """Masters that own `sizes` slots, each with a replica."""
    cluster = formed(shape(len(sizes), 1))
    free = ALL_SLOTS
    for node, size in zip(cluster.nodes, sizes, strict=False):
        node.slots = free.lowest(size)
        free -= node.slots
    gossip(cluster)
    return cluster
