"""The layout that the cluster should have: which nodes are masters of which slots, and which replicas follow them.

Existing roles and slots are kept. Missing ones are assigned by failure domain and, among equals, by pod ordinal. On
fresh pods of equal place the ordinals 0…S-1 become masters and the others their replicas in order: with three shards
3→0, 4→1, 5→2.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.slots import SlotSet, even_split
from bootstrap.model.view import ClusterView
from bootstrap.plan.placement import FailureDomains, choose_masters, colocation, give_replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One master, the slots that it should own, and the replicas that should follow it, in ordinal order."""

    master: NodeId
    slots: SlotSet
    replicas: tuple[NodeId, ...]


def layout(
    view: ClusterView,
    desired: Desired,
    *,
    shards: int,
    owned: Mapping[NodeId, SlotSet],
    owners: AbstractSet[NodeId],
    unassignable: SlotSet,
    replaced: AbstractSet[NodeId],
    to_drain: AbstractSet[NodeId],
    domains: FailureDomains,
) -> tuple[Shard, ...]:
    """The shards, sorted by the ordinal of their master. The keyword arguments are facts of an `Assessment`: `owned` is
    its `slots_after_repair`, `owners` its `future_owners`; `unassignable` are slots that get no new owner, and `shards`
    is the number of masters.

    Where more masters than `shards` own slots, all of them stay masters until their slots have been moved. A
    node that fits nowhere is left out; the planner decides what that means. A pod beyond the shape gets no new role: it
    keeps its role until nothing depends on it any more.
    """
    masters = _masters(view, desired, shards, owners, domains)
    slots = _slots(masters, owned, unassignable)
    replicas = _replicas(masters, view, desired, replaced=replaced, to_drain=to_drain, domains=domains)
    return tuple(
        Shard(master=master.node_id, slots=slots[master.node_id], replicas=replicas[master.node_id])
        for master in masters
    )


def surplus(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> tuple[Node, ...]:
    """Linked replicas on pods of the shape that no shard has a place for, in ordinal order."""
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


def _masters(
    view: ClusterView, desired: Desired, shards: int, owners: AbstractSet[NodeId], domains: FailureDomains
) -> tuple[Node, ...]:
    """All future owners of slots; then masters that have replicas; then the best placed of the other masters, the
    lowest ordinals first.
    """
    followed = {node.myself.master_id for node in view.nodes}
    owning = [node for node in view.nodes if node.node_id in owners]
    others = [
        node
        for node in view.nodes
        if node.node_id not in owners and node.role is Role.MASTER and node.ordinal < desired.nodes
    ]
    others.sort(key=lambda node: (node.node_id not in followed, node.ordinal))
    with_replicas = [node for node in others if node.node_id in followed]
    kept = [*owning, *with_replicas[: max(0, shards - len(owning))]]
    kept_ids = {node.node_id for node in kept}
    free = [node for node in others if node.node_id not in kept_ids]
    masters = choose_masters(free, kept, shards, desired.replicas_per_shard, domains)
    return tuple(sorted(masters, key=lambda node: node.ordinal))


def _slots(
    masters: tuple[Node, ...], owned: Mapping[NodeId, SlotSet], unassignable: SlotSet
) -> Mapping[NodeId, SlotSet]:
    """Each master keeps what it owns. A slot without an owner goes to the master whose even share it is, where that
    master owns nothing yet; else to the master with the fewest slots.
    """
    target = {master.node_id: owned[master.node_id] for master in masters}
    free = SlotSet.union_of([*owned.values(), unassignable]).complement()
    if not masters:
        return target
    for master, share in zip(masters, even_split(len(masters)), strict=True):
        if not owned[master.node_id]:
            target[master.node_id] = share & free
            free -= share
    size = {node_id: len(slots) for node_id, slots in target.items()}
    pieces: dict[NodeId, list[tuple[int, int]]] = {node_id: [] for node_id in target}
    for first, last in free.ranges:
        smallest = min(masters, key=lambda master: (size[master.node_id], master.ordinal)).node_id
        pieces[smallest].append((first, last))
        size[smallest] += last - first + 1
    return {node_id: SlotSet.of(*slots.ranges, *pieces[node_id]) for node_id, slots in target.items()}


def _replicas(
    masters: tuple[Node, ...],
    view: ClusterView,
    desired: Desired,
    *,
    replaced: AbstractSet[NodeId],
    to_drain: AbstractSet[NodeId],
    domains: FailureDomains,
) -> Mapping[NodeId, tuple[NodeId, ...]]:
    """A replica stays where its shard needs it. The others fill the gaps, one shard after the other.

    A replica that may hold the last copy of its keys stays in any case; see `_last_copy`.
    """
    following: dict[NodeId, list[Node]] = {master.node_id: [] for master in masters}
    wanted = _wanted_replicas(masters, desired, to_drain)
    spare: list[Node] = []
    for node in view.nodes:
        if node.ordinal >= desired.nodes or node.node_id in following:
            continue
        if (master_id := node.myself.master_id) in following:
            following[master_id].append(node)
        elif not _last_copy(node, replaced):
            spare.append(node)
    poor = [master for master, replicas in following.items() if len(replicas) < wanted[master]]
    for master, replicas in following.items():
        movable = [replica for replica in replicas if not _last_copy(replica, replaced)]
        most = max(wanted[master], desired.replicas_per_shard)  # a master keeps its copies until it has been drained
        if len(movable) > most:
            movable.sort(key=lambda node: _movable_first(node, master, poor, domains))
            moving = movable[: len(movable) - most]
            spare += moving
            following[master] = [replica for replica in replicas if replica not in moving]
    lacking = {master: max(0, wanted[master] - len(replicas)) for master, replicas in following.items()}
    present = {master: [replica.node_id for replica in replicas] for master, replicas in following.items()}
    spare.sort(key=lambda node: node.ordinal)
    given = give_replicas(lacking, (node.node_id for node in spare), domains, present)
    ordinal = {node.node_id: node.ordinal for node in view.nodes}
    return {
        master: tuple(sorted((*replicas, *given[master]), key=ordinal.__getitem__))
        for master, replicas in present.items()
    }


def _wanted_replicas(
    masters: tuple[Node, ...], desired: Desired, to_drain: AbstractSet[NodeId]
) -> Mapping[NodeId, int]:
    """How many replicas, on pods of the shape, each master should have: none where it is to be drained, and one more
    where its own pod leaves, because that replica takes over.
    """
    return {
        master.node_id: 0
        if master.node_id in to_drain
        else desired.replicas_per_shard + (master.ordinal >= desired.nodes)
        for master in masters
    }


def _last_copy(node: Node, replaced: AbstractSet[NodeId]) -> bool:
    """True for a replica that holds keys and has no link: only its master may have them, too. False where another node
    has already replaced its lost master.
    """
    cut_off = node.role is Role.REPLICA and node.keys > 0 and not node.replication.link_up
    return cut_off and node.myself.master_id not in replaced


def _movable_first(node: Node, master: NodeId, poor: list[NodeId], domains: FailureDomains) -> tuple[int, int, int]:
    """Sorts surplus replicas: first the best placed for a shard that lacks one, then the worst placed for their present
    master, then the highest ordinals.
    """
    best = min((colocation(domains[node.node_id], domains[other]) for other in poor), default=0)
    return (best, -colocation(domains[node.node_id], domains[master]), -node.ordinal)
