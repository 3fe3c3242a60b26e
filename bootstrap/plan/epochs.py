"""Config epochs that keep the masters from electing a replica.

A master votes for a replica only if no slot that the replica's master owned has, in the voter's own table, an owner
with a higher config epoch than the one that the replica requests with. So a voter that holds a higher epoch for a
master than that master has itself denies every election and every manual failover of its shard, for good: an epoch
that a node holds for another never decreases.

*Measured* (7.0.15, 8.2): such an epoch remains after most restarts in which pods exchange their addresses. For one
packet these servers take the node at the end of an old link for the one that used to be there, and note its epoch
(`getNodeFromLinkAndMsg` in cluster.c). Redis 6.2 and Valkey 9.1 did not.

CLUSTER BUMPEPOCH gives the master an epoch above all that it knows. It would also return slots to a master that has
been replaced without knowing it, so it is sent only where all nodes agree about the owners of slots.
"""

from __future__ import annotations

from collections.abc import Mapping

from bootstrap.model.node import Node, NodeId
from bootstrap.model.view import ClusterView
from bootstrap.plan.lost_members import LostMember


def outranked(view: ClusterView) -> Mapping[NodeId, tuple[Node, ...]]:
    """Owners of slots for which other nodes hold a higher config epoch than their own, with these nodes, by ordinal."""
    found: dict[NodeId, tuple[Node, ...]] = {}
    for master in view.nodes:
        if master.slots:
            node_id, own = master.node_id, master.myself.config_epoch
            lines = ((node, node.others.get(node_id)) for node in view.nodes)
            holders = tuple(node for node, line in lines if line is not None and line.config_epoch > own)
            if holders:
                found[node_id] = holders
    return found


def would_vote(voter: Node, absent: LostMember, candidate: Node) -> bool:
    """Whether a master would vote for a replica of an absent one, as far as config epochs decide."""
    line = candidate.others.get(absent.node_id)
    if line is None:
        return True
    return all(member.config_epoch <= line.config_epoch or not member.slots & absent.slots for member in voter.members)
