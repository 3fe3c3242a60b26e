"""Which masters hand over to a replica, so that no single machine can stop the cluster, and no single zone.

A manual failover moves the role of a master to another copy of its shard, and no key. A machine or zone stops the
cluster when the masters elsewhere are no majority: when half of all masters run there. The choice has, in this order:

1. the fewest machines that stop the cluster;
2. no zone that stops it, where that is possible;
3. the fewest failovers;
4. the fewest replicas on the machine of their master, then in its zone; then the lowest ordinals.

No machine that stops the cluster gets another master, and none begins to stop it. So the choice for the result of a
choice is to do nothing: its limits are as tight or tighter, and staying meets them without a failover. At most two
machines stop the cluster at the same time, each with half of the masters, so all sets of them are tried; `flow` finds
the best choice for one set. The tests compare with every choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from bootstrap.model.memory import mebibytes
from bootstrap.model.node import Node, NodeId
from bootstrap.model.steps import ManualFailover
from bootstrap.model.view import ClusterView
from bootstrap.plan.flow import Option, cheapest
from bootstrap.plan.placement import UNKNOWN, FailureDomain, FailureDomains, colocation

LAG_MAX_BYTES = 8 << 20
"""By how much a replica's offset may be behind that of its master. A manual failover pauses the writes of the shard
until the replica has caught up. Both offsets are read within some milliseconds, in which a busy master moves on."""
_PAIR_COSTS = (0, 10**6, 10**10)
"""The cost of a replica apart from its master, in its zone, on its machine. Ordinals make the difference below."""
_FAILOVER_COST = 10**15


@dataclass(frozen=True, slots=True)
class _Shard:
    """A master and the replicas that may take over, in ordinal order, with their domains in the same order."""

    copies: tuple[Node, ...]
    domains: tuple[FailureDomain, ...]


def failovers(view: ClusterView, where: FailureDomains, late: Collection[NodeId]) -> tuple[ManualFailover, ...]:
    """The failovers in the order in which they are to be done, one after the other; none where the place of any node is
    unknown. Zones count where all of them are known. Replicas in `late` do not take over.
    """
    if any(domain.node.startswith(UNKNOWN) for domain in where.values()):
        return ()
    shards = tuple(_shards(view, where, late))
    zones_known = not any(domain.zone.startswith(UNKNOWN) for domain in where.values())
    chosen = _best(shards, zones_known=zones_known)
    moves = [(shard, index) for shard, index in zip(shards, chosen, strict=True) if index]
    ordered = _ordered(shards, moves, zones_known=zones_known)
    return tuple(
        ManualFailover(candidate=shard.copies[index].node_id, master=shard.copies[0].node_id)
        for shard, index in ordered
    )


def lagging(view: ClusterView) -> Iterator[tuple[Node, int]]:
    """Linked replicas that lag too far behind their masters for a failover, and by how many bytes."""
    for node in view.nodes:
        master = view.by_id.get(node.myself.master_id or "")
        if master and node.replication.link_up:
            behind = master.replication.offset - node.replication.offset
            if behind > LAG_MAX_BYTES:
                yield node, behind


def obstacle(view: ClusterView, wanted: str) -> str:
    """Why no master hands over now, whatever the places; "" where nothing prevents it. `wanted` is the setting."""
    if wanted == "off":
        return "BOOTSTRAP_SPREAD_MASTERS is off"
    if view.unreachable:
        return "not all pods answer"
    return view.rollout


def lag_in_words(view: ClusterView) -> str:
    """`redis-app-4 is 12 MiB behind its master`."""
    return ", ".join(f"{node.pod} is {mebibytes(behind)} behind its master" for node, behind in lagging(view))


def _shards(view: ClusterView, where: FailureDomains, late: Collection[NodeId]) -> Iterator[_Shard]:
    for master in view.nodes:
        if master.slots:
            replicas = (n for n in view.nodes if n.myself.master_id == master.node_id and n.replication.link_up)
            copies = (master, *(node for node in replicas if node.node_id not in late))
            yield _Shard(copies, tuple(where[node.node_id] for node in copies))


def _best(shards: Sequence[_Shard], *, zones_known: bool) -> Sequence[int]:
    """The index of the master-to-be of each shard among its copies."""
    most = (len(shards) - 1) // 2
    machines = Counter(shard.domains[0].node for shard in shards)
    zones = Counter(shard.domains[0].zone for shard in shards if zones_known)
    crowded = [name for name, count in sorted(machines.items()) if count > most]
    if not crowded and all(count <= most for count in zones.values()):
        return [0] * len(shards)
    options = [[_option(shard, index) for index in range(len(shard.copies))] for shard in shards]
    domains = {domain for shard in shards for domain in shard.domains}
    no_machine = dict.fromkeys((domain.node for domain in domains), most)
    no_zone = dict.fromkeys((domain.zone for domain in domains if zones_known), most)
    for count in range(len(crowded) + 1):
        kept = [no_machine | {name: machines[name] for name in names} for names in combinations(crowded, count)]
        for zone_limits in (no_zone, {}):
            found = [cheapest(options, machine_limits, zone_limits) for machine_limits in kept]
            if possible := [choice for choice in found if choice is not None]:
                return min(possible, key=lambda choice: _total(options, choice))
    raise AssertionError("the present masters meet the limits of the last round")


def _option(shard: _Shard, index: int) -> Option:
    domain = shard.domains[index]
    pairs = sum(_PAIR_COSTS[colocation(domain, other)] for i, other in enumerate(shard.domains) if i != index)
    failover = _FAILOVER_COST + shard.copies[index].ordinal if index else 0
    return Option(machine=domain.node, zone=domain.zone, cost=failover + pairs)


def _total(options: Sequence[Sequence[Option]], choice: Iterable[int]) -> int:
    return sum(choices[index].cost for choices, index in zip(options, choice, strict=True))


def _ordered(
    shards: Sequence[_Shard], moves: Iterable[tuple[_Shard, int]], *, zones_known: bool
) -> Iterator[tuple[_Shard, int]]:
    """Each time the move after which the fewest machines, then zones, stop the cluster: a run that is killed in between
    leaves the cluster no worse than it was.
    """
    most = (len(shards) - 1) // 2
    machines = Counter(shard.domains[0].node for shard in shards)
    zones = Counter(shard.domains[0].zone for shard in shards)

    def more(counts: Counter[str], old: str, new: str) -> int:
        """How many more places stop the cluster after a master has moved."""
        return 0 if old == new else (counts[new] == most) - (counts[old] == most + 1)

    def effect(move: tuple[_Shard, int]) -> tuple[int, int]:
        old, new = move[0].domains[0], move[0].domains[move[1]]
        return (more(machines, old.node, new.node), more(zones, old.zone, new.zone) if zones_known else 0)

    left = list(moves)
    while left:
        shard, index = move = min(left, key=effect)
        left.remove(move)
        machines.subtract([shard.domains[0].node])
        machines.update([shard.domains[index].node])
        zones.subtract([shard.domains[0].zone])
        zones.update([shard.domains[index].zone])
        yield move
