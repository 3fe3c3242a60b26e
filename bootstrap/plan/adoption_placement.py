"""Which pod follows which owner of slots while a cluster is taken over: those that shall take over run apart from each
other, and further ones apart from them.
"""

from __future__ import annotations

from collections.abc import Sequence

from bootstrap.model.node import Node, NodeId
from bootstrap.model.slots import ALL_SLOTS
from bootstrap.model.view import ClusterView
from bootstrap.plan.placement import FailureDomains, choose_masters, failure_domains, give_replicas


class SlotsOf:
    """The slots of some nodes."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.owners = tuple(sorted((node for node in nodes if node.slots), key=lambda node: node.slots.ranges[0]))

    @property
    def all(self) -> bool:
        """True where they own every slot."""
        return sum(len(node.slots) for node in self.owners) == len(ALL_SLOTS)


def followers(view: ClusterView) -> dict[NodeId, tuple[tuple[NodeId, ...], tuple[NodeId, ...]]]:
    """For each owner of slots: the pods that follow it, and the pods that shall. One for each shard first, then the
    rest in turn. Those that shall take over run apart from each other, and the further ones apart from them.
    """
    where, owners = failure_domains(view), SlotsOf(view.nodes).owners
    pods = [node for node in view.pods if not node.slots]
    follows = {o.node_id: [p.node_id for p in pods if p.myself.master_id == o.node_id] for o in owners}
    placed = {pod for each in follows.values() for pod in each}
    free = [node for node in pods if node.node_id not in placed]
    lacking = [o for o in owners if o.slots and not follows[o.node_id] and o in view.old_nodes]
    if len(free) < len(lacking):  # pods that followed a node which is gone have all gone to other shards
        spare = [view.by_id[pod] for each in follows.values() for pod in each[1:]]
        free += spare[: len(lacking) - len(free)]
    first = _first_ones(free, lacking, view, where)
    given: dict[NodeId, list[NodeId]] = {owner.node_id: [] for owner in owners}
    for owner, pod in first:
        given[owner.node_id].append(pod.node_id)
    chosen = {pod.node_id for _, pod in first}
    rest = [node.node_id for node in free if node.node_id not in chosen and node.node_id not in placed]
    leaders = {o.node_id: o.node_id if o.node_id in follows and o not in view.old_nodes else None for o in owners}
    for owner in owners:
        leader = leaders[owner.node_id] or next(iter((*follows[owner.node_id], *given[owner.node_id])), None)
        leaders[owner.node_id] = leader
    counts = _shares(len(rest), {o.node_id: len(follows[o.node_id]) + len(given[o.node_id]) for o in owners})
    by_leader = {leader: owner for owner, leader in leaders.items() if leader}
    wants = {leader: counts[owner] for leader, owner in by_leader.items()}
    near = {leader: [p for p in follows[owner] if p != leader] for leader, owner in by_leader.items()}
    for leader, more in give_replicas(wants, rest, where, near).items():
        given[by_leader[leader]] += more
    return {o.node_id: (tuple(follows[o.node_id]), tuple(given[o.node_id])) for o in owners}


def _first_ones(
    free: Sequence[Node], lacking: Sequence[Node], view: ClusterView, where: FailureDomains
) -> list[tuple[Node, Node]]:
    """The pod that shall take over from each of the owners without one: the best placed masters among the free pods."""
    pods = [node for node in view.pods if node.slots]
    domains = {node.node_id: where[node.node_id] for node in view.pods}
    per_shard = max(0, len(view.pods) // max(1, len(lacking) + len(pods)) - 1)
    chosen = choose_masters(free, pods, len(pods) + len(lacking), per_shard, domains)[len(pods) :]
    return list(zip(lacking, sorted(chosen, key=lambda node: node.ordinal), strict=False))


def _shares(count: int, have: dict[NodeId, int]) -> dict[NodeId, int]:
    """How many of `count` further pods each shard gets: always the one that has fewest."""
    given = dict.fromkeys(have, 0)
    for _ in range(count):
        poorest = min(have, key=lambda owner: have[owner] + given[owner])
        given[poorest] += 1
    return given
