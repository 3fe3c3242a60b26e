"""What the cluster should be: who is master of which slots, and who copies whom.

What exists is kept; what is missing is filled in by pod ordinal. With nothing there, ordinals 0…S-1 become masters and
the rest their replicas in order: with three shards 3→0, 4→1, 5→2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.slots import SlotSet, even_split
from bootstrap.model.steps import (
    AddSlots,
    Reattach,
    Replicate,
    Step,
)
from bootstrap.model.view import ClusterView
from bootstrap.plan.lost_members import loss_accepted, lost_members, slots_after_failover, unrecoverable_slots
from bootstrap.plan.open_slots import incoming_slots, uncovered_slots_by_holder
from bootstrap.plan.placement import FailureDomains, choose_masters, colocation, failure_domains, give_replicas
from bootstrap.plan.rebalance import leaving, to_drain


def shape(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Step]:
    owned = slots_after_failover(view)
    for shard in shards:
        if missing := shard.slots - owned[shard.master]:
            yield AddSlots(node=shard.master, slots=missing)
    for shard in shards:
        for replica in shard.replicas:
            if view.by_id[replica].myself.master_id != shard.master:
                yield Replicate(replica=replica, master=shard.master)
            elif replica in view.stuck or _asks_elsewhere(view.by_id[replica], view.by_id[shard.master]):
                yield Reattach(replica=replica, master=shard.master)
    for node in leaving(view, desired):
        yield from _mend_until_it_leaves(node, view, shards)


def _mend_until_it_leaves(node: Node, view: ClusterView, shards: tuple[Shard, ...]) -> Iterator[Step]:
    """A replica on a pod that leaves is given nothing new, and must not be in the way: with its link stuck, or behind a
    master that is lost and cannot be forgotten while it has a replica.
    """
    master = node.myself.master_id
    succeeded = {loss.node_id for loss in lost_members(view) if not loss.slots}
    if master and master in view.by_id and node.node_id in view.stuck:
        yield Reattach(replica=node.node_id, master=master)
    elif master in succeeded and shards:
        yield Replicate(replica=node.node_id, master=shards[0].master)


def _asks_elsewhere(replica: Node, master: Node) -> bool:
    """True for a replica whose link is down because it looks for its master where that was: gossip has brought it the
    new address, but not to its replication.
    """
    link = replica.replication
    here = (None, master.address, master.myself.address)
    return not (link.link_up or link.syncing) and link.master not in here


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One master, the slots it should own, and the replicas that should follow it, in ordinal order."""

    master: NodeId
    slots: SlotSet
    replicas: tuple[NodeId, ...]


def layout(view: ClusterView, desired: Desired) -> tuple[Shard, ...]:
    """The shards, sorted by their master's ordinal.

    More masters that own slots than `desired.shards` are all masters until their slots have been moved. A node that
    fits nowhere is left out; the planner says what that means. A pod that the shape has no place for becomes nothing
    new: it stays what it is until nothing hangs on it any more.
    """
    masters = _masters(view, desired)
    slots = _slots(masters, view, desired)
    replicas = _replicas(masters, view, desired)
    return tuple(
        Shard(master=master.node_id, slots=slots[master.node_id], replicas=replicas[master.node_id])
        for master in masters
    )


def _masters(view: ClusterView, desired: Desired) -> tuple[Node, ...]:
    """Every owner of slots, every heir of a lost one, who alone holds keys of a slot without an owner, and who holds
    keys of a slot that is half moved to it; then nodes that others follow; then the lowest ordinals that follow nobody.
    """
    followed = {node.myself.master_id for node in view.nodes}
    home, coming = uncovered_slots_by_holder(view), incoming_slots(view)
    claims = {
        node_id: slots | home.get(node_id, SlotSet()) | coming.get(node_id, SlotSet())
        for node_id, slots in slots_after_failover(view).items()
    }

    def preference(node: Node) -> tuple[bool, bool, int]:
        return (not claims[node.node_id], node.node_id not in followed, node.ordinal)

    may_be = [
        node
        for node in view.nodes
        if claims[node.node_id] or (node.role is Role.MASTER and node.ordinal < desired.nodes)
    ]
    owners = [node for node in may_be if claims[node.node_id]]
    others = sorted((node for node in may_be if not claims[node.node_id]), key=preference)
    followed_ones = [node for node in others if node.node_id in followed]
    kept = [*owners, *followed_ones[: max(0, desired.shards - len(owners))]]
    free = [node for node in others if node not in kept]
    masters = choose_masters(free, kept, desired.shards, desired.replicas_per_shard, failure_domains(view))
    return tuple(sorted(masters, key=lambda node: node.ordinal))


def _slots(masters: tuple[Node, ...], view: ClusterView, desired: Desired) -> Mapping[NodeId, SlotSet]:
    """Each master keeps what it has. A slot without an owner goes to the master that holds its keys; else to the one
    whose even share it is, if that one has none yet; and else to the master that has least.
    """
    home = uncovered_slots_by_holder(view)
    claims = {node_id: slots | home.get(node_id, SlotSet()) for node_id, slots in slots_after_failover(view).items()}
    target = {master.node_id: claims[master.node_id] for master in masters}
    kept = SlotSet() if loss_accepted(view, desired) else unrecoverable_slots(view)
    free = SlotSet.union_of([*claims.values(), kept]).complement()
    if not masters:
        return target
    for master, share in zip(masters, even_split(len(masters)), strict=True):
        if not claims[master.node_id]:
            target[master.node_id] = share & free
            free -= share
    while free:
        smallest = min(masters, key=lambda master: (len(target[master.node_id]), master.ordinal))
        piece = free.lowest(free.ranges[0][1] - free.ranges[0][0] + 1)
        target[smallest.node_id] |= piece
        free -= piece
    return target


def _replicas(masters: tuple[Node, ...], view: ClusterView, desired: Desired) -> Mapping[NodeId, tuple[NodeId, ...]]:
    """A replica stays where it is while its shard wants it; the others fill the gaps, one for each shard in turn.

    A replica that holds keys and has no link to its master may hold the last copy of them: it stays, wanted or not,
    unless its master is lost and somebody else has taken over the slots.
    """
    where = failure_domains(view)
    succeeded = {loss.node_id for loss in lost_members(view) if not loss.slots}
    following: dict[NodeId, list[Node]] = {master.node_id: [] for master in masters}
    room = _room(masters, view, desired)
    spare: list[Node] = []
    gone = leaving(view, desired)
    for node in view.nodes:
        if node in gone:
            continue
        master = node.myself.master_id
        if master in following and node.node_id not in following:
            following[master].append(node)
        elif node.node_id not in following and not _last_copy(node, succeeded):
            spare.append(node)
    poor = [master for master, replicas in following.items() if len(replicas) < room[master]]
    for master, replicas in following.items():
        may_go = [replica for replica in replicas if not _last_copy(replica, succeeded)]
        most = max(room[master], desired.replicas_per_shard)  # one that is drained needs its copies till then
        if len(may_go) <= most:
            continue
        # Of too many goes whoever would do best where one is missing, then who does worst here, then the last one.
        may_go.sort(key=partial(_ties, master=master, poor=poor, where=where))
        going = may_go[: len(may_go) - most]
        spare += going
        following[master] = [replica for replica in replicas if replica not in going]
    wants = {master: max(0, room[master] - len(replicas)) for master, replicas in following.items()}
    here = {master: [replica.node_id for replica in replicas] for master, replicas in following.items()}
    spare.sort(key=lambda node: node.ordinal)
    given = give_replicas(wants, (node.node_id for node in spare), where, here)
    ordinal = {node.node_id: node.ordinal for node in view.nodes}
    return {
        master: tuple(sorted((*replicas, *given[master]), key=ordinal.__getitem__)) for master, replicas in here.items()
    }


def surplus(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> tuple[Node, ...]:
    """Linked replicas, on pods that stay, that no shard has a place for, in ordinal order."""
    placed = {replica for shard in shards for replica in shard.replicas}
    return tuple(
        node
        for node in view.nodes
        if node.role is Role.REPLICA
        and node.ordinal < desired.nodes
        and node.node_id not in placed
        and node.myself.master_id in view.by_id
        and node.replication.link_up
    )


def _room(masters: tuple[Node, ...], view: ClusterView, desired: Desired) -> Mapping[NodeId, int]:
    """How many replicas, on pods that stay, each master is to have: none that is to be drained, and one more whose own
    pod leaves, for that one takes over.
    """
    out = to_drain(view, desired)
    return {
        master.node_id: 0 if master.node_id in out else desired.replicas_per_shard + (master.ordinal >= desired.nodes)
        for master in masters
    }


def _last_copy(node: Node, succeeded: set[NodeId]) -> bool:
    """True for a replica that holds keys and has no link: its master may be the only other one that had them. Not where
    the master was lost and somebody else has `succeeded` it.
    """
    cut_off = node.role is Role.REPLICA and node.keys > 0 and not node.replication.link_up
    return cut_off and node.myself.master_id not in succeeded


def _ties(node: Node, *, master: NodeId, poor: list[NodeId], where: FailureDomains) -> tuple[int, int, int]:
    return (_best(node, poor, where), -colocation(where[node.node_id], where[master]), -node.ordinal)


def _best(node: Node, masters: list[NodeId], where: FailureDomains) -> int:
    return min((colocation(where[node.node_id], where[master]) for master in masters), default=0)
