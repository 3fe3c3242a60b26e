"""Where roles should be, given where the pods run. No replica should run on its master's Kubernetes node, nor in its
zone, where that is possible. Masters should be spread evenly over zones, then over nodes. Among equals the ordinals
decide.

Masters are chosen one by one, each time the one with the lowest cost. The cost of a choice is a sum of convex
functions, one for each node and zone, and nodes lie within zones. For such sums the greedy choice is optimal (the sets
are laminar, the sum is M-natural-convex). The tests compare it with every possible choice.

Replicas are then assigned to masters one by one, too. How many pairs have to share a node (or zone) is known in
advance. Let `v` be the replicas to place there plus those that the masters there still want, and `t` the number still
to be placed. Then it is the most by which any `v` exceeds `t` (Hall's theorem; no two can exceed it). A choice that
would raise that number is not made.

A pod on an unknown node counts as alone on its node; a node in an unknown zone counts as alone in its zone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, nlargest

from bootstrap.model.node import Node, NodeId
from bootstrap.model.view import ClusterView


@dataclass(frozen=True, slots=True, order=True)
class FailureDomain:
    """The zone and node of a pod. Unknown ones have unique names, so that no two pods share them."""

    zone: str
    node: str


FailureDomains = Mapping[NodeId, FailureDomain]
UNKNOWN = "?"
"""The first character of the name of an unknown node or zone."""


def failure_domains(view: ClusterView) -> FailureDomains:
    """The failure domain of each Redis node, by node id."""
    return {node.node_id: _domain(node, view) for node in view.nodes}


def colocation(one: FailureDomain, other: FailureDomain) -> int:
    """2 on the same node, 1 in the same zone, 0 apart."""
    return 2 if one.node == other.node else int(one.zone == other.zone)


def swap(view: ClusterView, *, with_a_gap: bool) -> tuple[NodeId, NodeId] | None:
    """A replica that runs too close to its master, and the master that it should follow instead; None where no swap of
    two replicas helps. The second half of the swap follows from the next view: one shard then has a surplus replica,
    another one lacks one.

    A shard with only one replica has none until both halves are done, so it takes part only `with_a_gap`.
    """
    where = failure_domains(view)
    shards = {node.node_id: [r for r in view.nodes if r.myself.master_id == node.node_id] for node in view.nodes}
    replicas = [replica for followers in shards.values() for replica in followers if with_a_gap or len(followers) > 1]

    def near(replica: Node, master: NodeId) -> int:
        """The cost of a pair: a shared node costs more than any number of shared zones."""
        return (0, 1, len(replicas) + 1)[colocation(where[replica.node_id], where[master])]

    def gain(one: Node, other: Node) -> int:
        first, second = one.myself.master_id or "", other.myself.master_id or ""
        return near(one, first) + near(other, second) - near(one, second) - near(other, first)

    for replica in sorted(replicas, key=lambda node: (-near(node, node.myself.master_id or ""), node.ordinal)):
        best = max(replicas, key=lambda other: (gain(replica, other), -other.ordinal))
        if gain(replica, best) > 0:
            return (replica.node_id, best.myself.master_id or "")
    return None


def choose_masters(
    candidates: Sequence[Node], kept: Sequence[Node], wanted: int, replicas_per_shard: int, where: FailureDomains
) -> tuple[Node, ...]:
    """`kept`, and the best choice of candidates (in order of preference) that makes it `wanted` masters.

    `where` has every pod, also those that can only be replicas.
    """
    pods = [Counter(domain.node for domain in where.values()), Counter(domain.zone for domain in where.values())]
    masters = [Counter(where[node.node_id].node for node in kept), Counter(where[node.node_id].zone for node in kept)]
    room = replicas_per_shard * wanted
    chosen = list(kept)

    def cost(node: Node) -> tuple[int, ...]:
        """What one more master there adds: forced pairs on the node, then in the zone; then unevenness."""
        domain = where[node.node_id]
        keys = (domain.node, domain.zone)
        forced = []
        for key, all_pods, mastered in zip(keys, pods, masters, strict=True):
            load = all_pods[key] + (replicas_per_shard - 1) * mastered[key] - room
            forced.append(max(0, load + replicas_per_shard - 1) - max(0, load))
        return (*forced, masters[1][domain.zone], masters[0][domain.node])

    # Costs never fall, so the first candidate whose cost has not changed since it was queued has the lowest one.
    queue = [(cost(node), index) for index, node in enumerate(candidates)]
    heapify(queue)
    while len(chosen) < wanted and queue:
        queued, index = heappop(queue)
        node = candidates[index]
        if (now := cost(node)) != queued:
            heappush(queue, (now, index))
            continue
        chosen.append(node)
        masters[0][where[node.node_id].node] += 1
        masters[1][where[node.node_id].zone] += 1
    return tuple(chosen)


def give_replicas(
    wants: Mapping[NodeId, int],
    spare: Iterable[NodeId],
    where: FailureDomains,
    following: Mapping[NodeId, Sequence[NodeId]],
) -> Mapping[NodeId, tuple[NodeId, ...]]:
    """The spare nodes that each master gets, at most `wants` of them; masters that lack most come first, in rounds.

    `wants` and `spare` are in order of preference. `following` has the present replicas of each master: among equal
    choices a further replica runs in another zone, or on another node, than those.
    """
    left = dict.fromkeys(spare)
    near = {master: [where[replica] for replica in following.get(master, ())] for master in wants}
    given: dict[NodeId, list[NodeId]] = {master: [] for master in wants}
    by_node = _DomainLoad(wants, left, lambda node_id: where[node_id].node)
    by_zone = _DomainLoad(wants, left, lambda node_id: where[node_id].zone)
    for master in _rounds(wants):
        if not left:
            break
        replica = _best_for(master, left, near[master], where, (by_node, by_zone))
        del left[replica]
        by_node.pair(master, replica)
        by_zone.pair(master, replica)
        near[master].append(where[replica])
        given[master].append(replica)
    return {master: tuple(replicas) for master, replicas in given.items()}


def _best_for(
    master: NodeId,
    left: Iterable[NodeId],
    near: Sequence[FailureDomain],
    where: FailureDomains,
    loads: tuple[_DomainLoad, _DomainLoad],
) -> NodeId:
    """The replica with which the fewest pairs in total share a node, then a zone; then the one farthest from the other
    replicas of the shard; then the first.
    """
    least = tuple(load.forced() for load in loads)
    seen: dict[FailureDomain, tuple[tuple[int, ...], tuple[int, ...], NodeId]] = {}
    for replica in left:
        domain = where[replica]
        if domain in seen:
            continue
        cost = tuple(load.forced_with(master, replica) for load in loads)
        shared = (sum(domain.zone == other.zone for other in near), sum(domain.node == other.node for other in near))
        seen[domain] = (cost, shared, replica)
        if cost == least and not any(shared):
            break  # no choice is better
    return min(seen.values(), key=lambda each: each[:2])[2]


def fewest_pairs(masters: Sequence[Node], nodes: Sequence[Node], where: FailureDomains) -> tuple[int, int]:
    """The fewest pairs that can share a node, and a zone, with these masters."""
    count = len(nodes) - len(masters)
    per_shard = count // len(masters) if masters else 0
    wants = {node.node_id: per_shard + (index < count % len(masters)) for index, node in enumerate(masters)}
    spare = [node.node_id for node in nodes if node.node_id not in wants]
    by_node = _DomainLoad(wants, spare, lambda node_id: where[node_id].node)
    by_zone = _DomainLoad(wants, spare, lambda node_id: where[node_id].zone)
    return (by_node.forced(), by_zone.forced())


class _DomainLoad:
    """The wanted and the spare replicas by node, or by zone, while masters and replicas are paired."""

    def __init__(self, wants: Mapping[NodeId, int], spare: Iterable[NodeId], key: Callable[[NodeId], str]) -> None:
        self._key = key
        self._load: Counter[str] = Counter()
        replicas = Counter(key(replica) for replica in spare)
        for master, count in wants.items():
            self._load[key(master)] += count
        self._load.update(replicas)
        self._left = max(sum(wants.values()), replicas.total())
        self._most = nlargest(3, ((load, key) for key, load in self._load.items()))

    def forced(self) -> int:
        """Pairs that have to share a node (or zone) whatever the next choices are."""
        return max(0, self._most[0][0] - self._left) if self._most else 0

    def forced_with(self, master: NodeId, replica: NodeId) -> int:
        """The same after these two have been paired, this pair included."""
        one, other = self._key(master), self._key(replica)
        rest = next((load for load, key in self._most if key not in (one, other)), 0)
        mine = self._load[one] - 2 if one == other else max(self._load[one], self._load[other]) - 1
        return (one == other) + max(0, max(rest, mine) - (self._left - 1))

    def pair(self, master: NodeId, replica: NodeId) -> None:
        """Pairs the two."""
        self._load[self._key(master)] -= 1
        self._load[self._key(replica)] -= 1
        self._left -= 1
        self._most = nlargest(3, ((load, key) for key, load in self._load.items()))


def _rounds(wants: Mapping[NodeId, int]) -> Iterable[NodeId]:
    """Masters in the order in which they get replicas: in each round one replica for every master that lacks most."""
    lacking = dict(wants)
    while poorest := max(lacking.values(), default=0):
        for master, count in wants.items():
            if lacking[master] == poorest and count:
                lacking[master] -= 1
                yield master


def _domain(node: Node, view: ClusterView) -> FailureDomain:
    place = view.places.get(node.pod)
    if place is None or not place.node:
        return FailureDomain(zone=f"{UNKNOWN}{node.pod}", node=f"{UNKNOWN}{node.pod}")
    return FailureDomain(zone=place.zone or f"{UNKNOWN}{place.node}", node=place.node)
