"""Which slots move where when a cluster grows or shrinks, or when its shards have become uneven: as few as possible.

A shard's fair share is its part of 16384 by weight. Slots move when a declared master has none, when a master has to
give all away, or when some share is off by more than the declared threshold. Then all shares are corrected. The
threshold also makes the next run finish an interrupted resize: a half filled master is far from its share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, NodeId
from bootstrap.model.outcome import Skew
from bootstrap.model.slots import SLOT_COUNT, SlotSet
from bootstrap.model.steps import MoveSlots
from bootstrap.model.versions import copy_path
from bootstrap.model.view import ClusterView


def to_drain(view: ClusterView, desired: Desired, owned: Mapping[NodeId, SlotSet]) -> frozenset[NodeId]:
    """Owners of slots beyond the declared number of shards. Owners on pods that leave come first where no replica on a
    pod that stays could take over. Then those of which an earlier run has drained a part: after a failover in between,
    another choice would move the slots twice. Then the other owners on pods that leave, and then the highest ordinals.
    `owned` has the slots of every node.
    """
    owners = [node for node in view.nodes if owned[node.node_id]]
    too_many = max(0, len(owners) - desired.shards)
    if not too_many:
        return frozenset()
    with_successor = {node.myself.master_id for node in view.nodes if node.ordinal < desired.nodes}
    fair = shares(view, desired, [node.node_id for node in owners], owned)

    def drained_first(node: Node) -> tuple[bool, int, bool, int]:
        leaves, have, share = node.ordinal >= desired.nodes, len(owned[node.node_id]), fair[node.node_id]
        begun = (share - have) * 100 > desired.threshold_percent * share
        return (not leaves or node.node_id in with_successor, have if begun else SLOT_COUNT, not leaves, -node.ordinal)

    return frozenset(node.node_id for node in sorted(owners, key=drained_first)[:too_many])


def slot_moves(
    view: ClusterView, desired: Desired, masters: Sequence[NodeId], *, to_drain: frozenset[NodeId]
) -> tuple[MoveSlots, ...]:
    """The moves that give all of `masters` (in ordinal order, those to drain included) their shares; none where the
    shares are even enough, or `desired.rebalance` excludes the moves. In a rollout, slots move only where they have to:
    an older server rejects the keys of a newer one.
    """
    owned = {master: view.by_id[master].slots for master in masters}
    drained = to_drain & owned.keys()
    staying = [master for master in masters if master not in drained]
    if not staying or not any(owned.values()):
        return ()
    share = shares(view, desired, staying, owned)
    needed = bool(drained) or any(not owned[master] for master in staying)
    if not needed and not _uneven(share, owned, desired):
        return ()
    if needed and desired.rebalance == "off":
        share = _least_change(share, owned, drained)
    moves = tuple(_moves(owned, share))
    return moves if needed or all(_readable(move, view) for move in moves) else ()


def _readable(move: MoveSlots, view: ClusterView) -> bool:
    """Whether the target reads what the source writes."""
    source, target = view.by_id[move.source], view.by_id[move.target]
    return copy_path(source.version, target.version).verdict.open


def shares(
    view: ClusterView, desired: Desired, masters: Sequence[NodeId], owned: Mapping[NodeId, SlotSet]
) -> Mapping[NodeId, int]:
    """How many slots each of the masters should own, at least one. Slots that remain after rounding go to masters that
    own more than their share already, so that no slot moves because of rounding.
    """
    weight = {master: Fraction(weight_of(view.by_id[master], view, desired)) for master in masters}
    total = sum(weight.values())
    exact = {master: weight[master] * SLOT_COUNT / total for master in masters}
    share = {master: max(1, int(exact[master])) for master in masters}
    left = SLOT_COUNT - sum(share.values())
    by_excess = sorted(masters, key=lambda m: (len(owned[m]) <= share[m], share[m] - exact[m], view.by_id[m].ordinal))
    for number in range(left):
        share[by_excess[number % len(by_excess)]] += 1
    for _ in range(-left):  # for shares that were raised to one slot, the greatest shares give one
        share[max(masters, key=lambda m: (share[m], -view.by_id[m].ordinal))] -= 1
    return share


def weight_of(master: Node, view: ClusterView, desired: Desired) -> float:
    """The weight of a shard: the one declared for its pod with the lowest ordinal that has one; else 1. So the weight
    stays with the shard when another of its pods becomes master.
    """
    if not desired.weights:
        return 1.0
    shard = (node for node in view.nodes if master.node_id in (node.node_id, node.myself.master_id))
    return next((desired.weights[node.pod] for node in shard if node.pod in desired.weights), 1.0)


def skew(view: ClusterView, desired: Desired) -> Skew:
    """How uneven the shards are, in slots and in the memory of their data by the servers' own estimate."""
    owners = [node for node in view.nodes if node.slots]
    if not owners:
        return Skew(slots_percent=0.0, memory_percent=0.0)
    owned = {node.node_id: node.slots for node in owners}
    share = shares(view, desired, list(owned), owned)
    total = sum(node.memory.dataset_bytes for node in owners)
    memory = [
        (node.memory.dataset_bytes, total * share[node.node_id] / SLOT_COUNT) for node in owners if share[node.node_id]
    ]
    slots = [(len(node.slots), float(share[node.node_id])) for node in owners]
    return Skew(slots_percent=_most_off(slots), memory_percent=_most_off(memory))


def _most_off(pairs: Sequence[tuple[float, float]]) -> float:
    return round(max((abs(have - fair) * 100 / fair for have, fair in pairs if fair), default=0.0), 1)


def _uneven(share: Mapping[NodeId, int], owned: Mapping[NodeId, SlotSet], desired: Desired) -> bool:
    """True where `desired.rebalance` asks for moves. A shard that is off by one slot counts as even."""
    off = [(abs(len(owned[master]) - share[master]), share[master]) for master in share]
    if desired.rebalance == "off" or all(slots <= 1 for slots, _ in off):
        return False
    return desired.rebalance == "on" or any(slots * 100 > desired.threshold_percent * fair for slots, fair in off)


def _least_change(
    share: Mapping[NodeId, int], owned: Mapping[NodeId, SlotSet], drained: frozenset[NodeId]
) -> Mapping[NodeId, int]:
    """Shares where `desired.rebalance` is off. Where masters are drained, the others keep their slots and divide the
    drained ones; where none is drained, a new master gets its full share.
    """
    if not drained:
        return share
    least = {master: len(owned[master]) for master in share}
    for _ in range(SLOT_COUNT - sum(least.values())):
        least[min(least, key=lambda master: least[master] / share[master])] += 1
    return least


def _moves(owned: Mapping[NodeId, SlotSet], share: Mapping[NodeId, int]) -> Iterator[MoveSlots]:
    """Moves surplus slots to the masters that lack some, both in the order of the masters; each slot moves once."""
    lacking = {master: share[master] - len(owned[master]) for master in share if share[master] > len(owned[master])}
    for source, slots in owned.items():
        surplus = slots.lowest(max(0, len(slots) - share.get(source, 0)))
        for target in list(lacking):
            piece = surplus.lowest(lacking[target])
            if not piece:
                break
            yield MoveSlots(source=source, target=target, slots=piece)
            surplus -= piece
            lacking[target] -= len(piece)
            if not lacking[target]:
                del lacking[target]
