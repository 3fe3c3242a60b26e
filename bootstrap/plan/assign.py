"""The phase that assigns slots to masters, and replicas to masters."""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.node import Node
from bootstrap.model.steps import AddSlots, Reattach, Replicate, Step
from bootstrap.plan.assessment import Assessment


def assign(found: Assessment) -> Iterator[Step]:
    """Slots and roles in one phase: neither depends on the other."""
    nodes, owned = found.view.by_id, found.slots_after_failover
    for shard in found.shards:
        if missing := shard.slots - owned[shard.master]:
            yield AddSlots(node=shard.master, slots=missing)
    for shard in found.shards:
        for replica in shard.replicas:
            if nodes[replica].myself.master_id != shard.master:
                yield Replicate(replica=replica, master=shard.master)
            elif replica in found.view.stuck or _connects_elsewhere(nodes[replica], nodes[shard.master]):
                yield Reattach(replica=replica, master=shard.master)
    for node in found.leaving:
        yield from _unblock_leaving_replica(node, found)


def _unblock_leaving_replica(node: Node, found: Assessment) -> Iterator[Step]:
    """A replica on a pod that leaves gets no new master unless it blocks other phases: its link is stuck, or its master
    is lost and cannot be forgotten while it has a replica.
    """
    master = node.myself.master_id
    if master and master in found.view.by_id and node.node_id in found.view.stuck:
        yield Reattach(replica=node.node_id, master=master)
    elif master in found.replaced and found.shards:
        yield Replicate(replica=node.node_id, master=found.shards[0].master)


def _connects_elsewhere(replica: Node, master: Node) -> bool:
    """True for a replica whose link is down because it still connects to its master's old address: gossip has updated
    the address in its member list, but not in its replication.
    """
    link = replica.replication
    present = (None, master.address, master.myself.address)
    return not (link.link_up or link.syncing) and link.master not in present
