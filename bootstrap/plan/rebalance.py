"""Which slots go where when a cluster grows or shrinks, or when its shards have drifted apart: as few as can be.

A shard's fair share is its part of 16384 by weight. Slots move when a declared master has none, when a master has to
give up all, or when some share is off by more than a person tolerates; and then all shares are made right. The last
rule is also what finishes a resize that was cut off: half full, a master is far from its share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, NodeId
from bootstrap.model.outcome import Skew
from bootstrap.model.slots import SLOT_COUNT, SlotSet
from bootstrap.model.steps import MoveSlots
from bootstrap.model.view import ClusterView
from bootstrap.plan.lost_members import slots_after_failover


def leaving(view: ClusterView, desired: Desired) -> tuple[Node, ...]:
    """Pods that the declared shape has no place for: the highest ordinals, in ordinal order."""
    return tuple(node for node in view.nodes if node.ordinal >= desired.nodes)


def to_drain(view: ClusterView, desired: Desired) -> frozenset[NodeId]:
    """Owners of slots that are one shard too many: first those on pods that leave, then the highest ordinals. Of those
    that leave, first the ones without a replica that stays and could take over.
    """
    claims = slots_after_failover(view)
    owners = [node for node in view.nodes if claims[node.node_id]]
    stays = {node.myself.master_id for node in view.nodes if node.ordinal < desired.nodes}

    def worst_first(node: Node) -> tuple[bool, bool, int]:
        leaves = node.ordinal >= desired.nodes
        return (not leaves, leaves and node.node_id in stays, -node.ordinal)

    too_many = max(0, len(owners) - desired.shards)
    return frozenset(node.node_id for node in sorted(owners, key=worst_first)[:too_many])


def slot_moves(view: ClusterView, desired: Desired, masters: Sequence[NodeId]) -> tuple[MoveSlots, ...]:
    """What is to move, so that `masters` (in ordinal order, those to be drained included) have their shares; none
    where that is not worth it, or not wanted.
    """
    owned = {master: view.by_id[master].slots for master in masters}
    out = to_drain(view, desired) & owned.keys()
    staying = [master for master in masters if master not in out]
    if not staying or not any(owned.values()):
        return ()
    share = shares(view, desired, staying, owned)
    must = bool(out) or any(not owned[master] for master in staying)
    if not must and not _worth_it(share, owned, desired):
        return ()
    if must and desired.rebalance == "off":
        share = _least_change(share, owned, out)
    return tuple(_flows(owned, share))


def shares(
    view: ClusterView, desired: Desired, masters: Sequence[NodeId], owned: Mapping[NodeId, SlotSet]
) -> Mapping[NodeId, int]:
    """How many of all slots each of the masters should own; never none. What rounding leaves over goes to those who own
    more already, so that nothing moves for it.
    """
    weight = {master: Fraction(weight_of(view.by_id[master], view, desired)) for master in masters}
    total = sum(weight.values())
    exact = {master: weight[master] * SLOT_COUNT / total for master in masters}
    share = {master: max(1, int(exact[master])) for master in masters}
    left = SLOT_COUNT - sum(share.values())
    by_claim = sorted(masters, key=lambda m: (len(owned[m]) <= share[m], share[m] - exact[m], view.by_id[m].ordinal))
    for number in range(left):
        share[by_claim[number % len(by_claim)]] += 1
    for _ in range(-left):  # shares that were lifted to one slot are taken from the greatest
        share[max(masters, key=lambda m: (share[m], -view.by_id[m].ordinal))] -= 1
    return share


def weight_of(master: Node, view: ClusterView, desired: Desired) -> float:
    """The weight of a shard: the one declared for any of its pods, the lowest ordinal's first; 1 where none is. So it
    stays with the shard when another of its pods becomes master.
    """
    if not desired.weights:
        return 1.0
    shard = (node for node in view.nodes if master.node_id in (node.node_id, node.myself.master_id))
    return next((desired.weights[node.pod] for node in shard if node.pod in desired.weights), 1.0)


def skew(view: ClusterView, desired: Desired) -> Skew:
    """How uneven the owners of slots are; of memory, what their data takes by the servers' own count."""
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


def _worth_it(share: Mapping[NodeId, int], owned: Mapping[NodeId, SlotSet], desired: Desired) -> bool:
    """Slots cannot be split: one off is even. `on` is for any more than that, `auto` for what is not tolerated."""
    off = [(abs(len(owned[master]) - share[master]), share[master]) for master in share]
    if desired.rebalance == "off" or all(slots <= 1 for slots, _ in off):
        return False
    return desired.rebalance == "on" or any(slots * 100 > desired.threshold_percent * fair for slots, fair in off)


def _least_change(
    share: Mapping[NodeId, int], owned: Mapping[NodeId, SlotSet], out: frozenset[NodeId]
) -> Mapping[NodeId, int]:
    """Shares where nobody is to be evened out: who has slots keeps them, as far as those without are still served."""
    if not out:
        return share
    least = {master: len(owned[master]) for master in share}
    for _ in range(SLOT_COUNT - sum(least.values())):
        least[min(least, key=lambda master: least[master] / share[master])] += 1
    return least


def _flows(owned: Mapping[NodeId, SlotSet], share: Mapping[NodeId, int]) -> Iterator[MoveSlots]:
    """Everybody's surplus to whoever lacks something, both in the order of the masters: each slot moves once."""
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
