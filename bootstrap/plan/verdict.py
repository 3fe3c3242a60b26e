"""How good the present roles are for where the pods run: the verdict of every outcome, and its single points of
failure. Nothing here decides what is done about it; `placement` and `spread` do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter

from bootstrap.model.node import Node
from bootstrap.model.outcome import SinglePoint, Verdict
from bootstrap.model.slots import ALL_SLOTS
from bootstrap.model.view import ClusterView, shard_numbers
from bootstrap.plan.placement import (
    UNKNOWN,
    FailureDomain,
    FailureDomains,
    choose_masters,
    failure_domains,
    fewest_pairs,
)

Key = Callable[[FailureDomain], str]
_KEYS: tuple[tuple[str, str, Key], ...] = (
    ("node", "on", attrgetter("node")),
    ("zone", "in zone", attrgetter("zone")),
)
LISTED_MAX = 3
"""Shards in the words of one single point of failure."""


def judge(view: ClusterView) -> Verdict:
    """Compares the present roles with the best ones that the same pods in the same places could have."""
    places = [view.places[node.pod] for node in view.nodes if node.pod in view.places]
    if not any(place.node for place in places):
        return Verdict(verdict="unknown", why=("it is not known where the pods run",))
    where = failure_domains(view)
    masters = [node for node in view.nodes if node.slots]
    replicas = [node for node in view.nodes if node.myself.master_id in {master.node_id for master in masters}]
    pairs = [(view.by_id[replica.myself.master_id or ""], replica) for replica in replicas]
    close = tuple(_colocation(pairs, where))
    actual = (*_forced(pairs, where), *_unevenness(masters, where))
    per_shard = round(len(replicas) / len(masters)) if masters else 0
    ideal = choose_masters([*masters, *replicas], (), len(masters), per_shard, where)
    best = (*fewest_pairs(ideal, [*masters, *replicas], where), *_unevenness(ideal, where))
    notes = tuple(_notes(view))
    points = tuple(sorted(single_points(view), key=lambda point: not point.stops))
    if actual > best:
        why = (*close, *_crowded_domains(masters, ideal, where))
        return Verdict(
            verdict="improvable", why=(*(why or _uneven(masters, ideal, where)), *notes), single_points=points
        )
    if close:
        why = tuple(_obstacles(where)) or close
        return Verdict(verdict="best possible here", why=(*why, *notes), single_points=points)
    return Verdict(verdict="optimal", why=notes, single_points=points)


def _notes(view: ClusterView) -> Iterator[str]:
    if view.unreachable:
        yield f"not counted, because they do not answer: {', '.join(peer.pod for peer in view.unreachable)}"
    if not all(view.places[node.pod].zone for node in view.nodes if node.pod in view.places):
        yield "the zones of the pods are not known"


def single_points(view: ClusterView) -> Iterator[SinglePoint]:
    """Nodes, then zones, whose failure leaves no majority of masters, or no linked copy of a shard; by their names.

    Replicas are elected by a majority of all masters, those that failed included. So half of the masters in one place
    are too many already: four masters need three votes.
    """
    where, numbers = failure_domains(view), shard_numbers(view)
    masters = [node for node in view.nodes if node.slots]
    copies = [node for node in view.nodes if node.slots or (node.node_id in numbers and node.replication.link_up)]
    lost = sum(
        any(node.others[node_id].slots - view.claimed() for node in known_by)
        for node_id, known_by in view.unlisted().items()
    )
    total = len(masters) + lost
    quorum = total // 2 + 1
    for domain, _, key in _KEYS:
        here = Counter(key(where[master.node_id]) for master in masters)
        homes: dict[int, set[str]] = {}
        for copy in copies:
            homes.setdefault(numbers[copy.node_id], set()).add(key(where[copy.node_id]))
        alone: dict[str, list[int]] = {}
        for number, names in sorted(homes.items()):
            if len(names) == 1:
                alone.setdefault(min(names), []).append(number)
        for name in sorted(here.keys() | alone.keys()):
            stops = len(masters) >= quorum > len(masters) - here[name]
            loses = tuple(alone.get(name, ()))
            if not name.startswith(UNKNOWN) and (stops or loses):
                why = _why(f"{here[name]} of {total} masters" if stops else "", loses)
                yield SinglePoint(domain=domain, name=name, stops=stops, loses=loses, why=why)


def _why(masters: str, loses: Sequence[int]) -> str:
    """`2 of 3 masters and all copies of shard 1 run there`."""
    numbers = ", ".join(map(str, loses))
    shards = f"shard{'s' if len(loses) > 1 else ''} {numbers}" if len(loses) <= LISTED_MAX else f"{len(loses)} shards"
    copies = f"all copies of {shards}" if loses else ""
    return f"{' and '.join(filter(None, (masters, copies)))} run there"


def survival(view: ClusterView, verdict: Verdict) -> str:
    """One line for a person: which machine or zone may not fail, or that any may; "" where that is not known."""
    if verdict.verdict == "unknown" or view.claimed() != ALL_SLOTS:
        return ""
    if verdict.single_points:
        return f"single points of failure: {'; '.join(map(str, without_repetition(view, verdict.single_points)))}"
    if view.unreachable:
        return ""
    zones = all(view.places[node.pod].zone for node in view.nodes if node.pod in view.places)
    return f"survives the failure of any one machine{', and of any one zone' if zones else ''}"


def without_repetition(view: ClusterView, points: Sequence[SinglePoint]) -> Iterator[SinglePoint]:
    """The single points of failure, without the zones of which every machine is one of them."""
    machines: dict[str, set[str]] = {}
    for place in view.places.values():
        machines.setdefault(place.zone, set()).add(place.node)
    named = {point.name for point in points if point.domain == "node"}
    return (point for point in points if point.domain == "node" or not machines[point.name] <= named)


def _colocation(pairs: Iterable[tuple[Node, Node]], where: FailureDomains) -> Iterable[str]:
    for master, replica in pairs:
        domain, masters = where[replica.node_id], where[master.node_id]
        if domain.node == masters.node:
            yield f"{replica.pod} runs on {domain.node}, like its master {master.pod}"
        elif domain.zone == masters.zone:
            yield f"{replica.pod} runs in zone {domain.zone}, like its master {master.pod}"


def _forced(pairs: Sequence[tuple[Node, Node]], where: FailureDomains) -> tuple[int, int]:
    """How many pairs share a node, and how many a zone."""
    domains = [(where[master.node_id], where[replica.node_id]) for master, replica in pairs]
    return (sum(one.node == other.node for one, other in domains), sum(a.zone == b.zone for a, b in domains))


def _unevenness(masters: Iterable[Node], where: FailureDomains) -> tuple[int, int]:
    """Sums of squares of the masters in each zone, and on each node: lowest where they are spread evenly."""
    domains = [where[master.node_id] for master in masters]
    zones, nodes = Counter(domain.zone for domain in domains), Counter(domain.node for domain in domains)
    return (sum(count**2 for count in zones.values()), sum(count**2 for count in nodes.values()))


def _crowded_domains(masters: Sequence[Node], ideal: Sequence[Node], where: FailureDomains) -> Iterable[str]:
    """Nodes and zones in which more masters run than the ideal choice needs."""
    for _, words, key in _KEYS:
        now = Counter(key(where[master.node_id]) for master in masters)
        most = max(Counter(key(where[master.node_id]) for master in ideal).values(), default=0)
        for name, count in sorted(now.items()):
            if count > most and not name.startswith(UNKNOWN):
                yield f"{count} of {len(masters)} masters run {words} {name}"


def _uneven(masters: Sequence[Node], ideal: Sequence[Node], where: FailureDomains) -> Iterable[str]:
    """Nodes or zones of which none has more masters than the ideal choice needs, while others have too few: 2, 2, 0
    where 2, 1, 1 is possible.
    """
    for _, words, key in _KEYS:
        now = Counter(key(where[master.node_id]) for master in masters)
        best = Counter(key(where[master.node_id]) for master in ideal)
        counts = [f"{n} {words} {name}" for name, n in sorted(now.items()) if not name.startswith(UNKNOWN)]
        if counts and sum(count**2 for count in now.values()) > sum(count**2 for count in best.values()):
            even = ", ".join(str(count) for count in sorted(best.values(), reverse=True))
            yield f"the masters run unevenly: {', '.join(counts)}; {even} is possible"


def _obstacles(where: FailureDomains) -> Iterable[str]:
    """Nodes, or else zones, in which more than half of all pods run, so that some pairs have to share them."""
    for _, words, key in _KEYS:
        found = Counter(key(domain) for domain in where.values())
        crowded = [(name, count) for name, count in found.most_common(1) if 2 * count > len(where)]
        for name, count in crowded:
            yield f"{'all' if count == len(where) else f'{count} of'} {len(where)} pods run {words} {name}"
        if crowded:
            return
