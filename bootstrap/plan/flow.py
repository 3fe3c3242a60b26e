"""The cheapest way to give every shard one of its copies as master, with limits on the masters of a machine and a zone.

This is an assignment by augmenting paths: shards are placed one by one, each along the cheapest path from the shard to
a place with room, which may move shards that were placed before. Machines lie within zones, so the places are a flow
network from shards over machines and zones to one sink. The placed shards have the lowest total cost at every moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

UNLIMITED = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One copy of a shard: where it runs, and what it costs to make it the master."""

    machine: str
    zone: str
    cost: int


def cheapest(
    options: Sequence[Sequence[Option]], machine_limits: Mapping[str, int], zone_limits: Mapping[str, int]
) -> tuple[int, ...] | None:
    """The index of the chosen option of each shard; None where the limits cannot be met. Places without a limit take
    any number. The first option of a shard has to be its cheapest.
    """
    network = _Network()
    shards = [network.node() for _ in options]
    sink, zones, machines = network.node(), dict[str, int](), dict[str, int]()
    for option in (option for shard in options for option in shard):
        if option.zone not in zones:
            zones[option.zone] = network.node()
            network.edge(zones[option.zone], sink, zone_limits.get(option.zone, UNLIMITED), 0)
        if option.machine not in machines:
            machines[option.machine] = network.node()
            limit = machine_limits.get(option.machine, UNLIMITED)
            network.edge(machines[option.machine], zones[option.zone], limit, 0)
    edges = [
        [network.edge(shard, machines[option.machine], 1, option.cost) for option in choices]
        for shard, choices in zip(shards, options, strict=True)
    ]
    if not all(network.augment(shard, sink) for shard in shards):
        return None
    return tuple(next(index for index, edge in enumerate(choice) if not network.room[edge]) for choice in edges)


@dataclass(slots=True)
class _Network:
    """Edges with room and cost. The reverse of edge `n` is `n ^ 1`."""

    starting: list[list[int]] = field(default_factory=list)
    """The edges that start at each node."""
    end: list[int] = field(default_factory=list)
    room: list[int] = field(default_factory=list)
    cost: list[int] = field(default_factory=list)

    def node(self) -> int:
        self.starting.append([])
        return len(self.starting) - 1

    def edge(self, one: int, other: int, room: int, cost: int) -> int:
        for start, end, free, price in ((one, other, room, cost), (other, one, 0, -cost)):
            self.starting[start].append(len(self.end))
            self.end.append(end)
            self.room.append(free)
            self.cost.append(price)
        return len(self.end) - 2

    def augment(self, start: int, sink: int) -> bool:
        """Sends one unit along the cheapest path, by Bellman and Ford; False where there is no path."""
        price, reached_by = {start: 0}, dict[int, int]()
        waiting = deque([start])
        queued = {start}
        while waiting:
            node = waiting.popleft()
            queued.discard(node)
            for edge in self.starting[node]:
                end, total = self.end[edge], price[node] + self.cost[edge]
                if self.room[edge] and (end not in price or total < price[end]):
                    price[end], reached_by[end] = total, edge
                    if end not in queued and end != sink:
                        waiting.append(end)
                        queued.add(end)
        if sink not in price:
            return False
        node = sink
        while node != start:
            edge = reached_by[node]
            self.room[edge] -= 1
            self.room[edge ^ 1] += 1
            node = self.end[edge ^ 1]
        return True
