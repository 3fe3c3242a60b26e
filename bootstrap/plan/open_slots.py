"""Slots whose move to another node was begun and not finished, and slots that lost their owner while all nodes stayed.

A slot's keys say where it belongs. While its owner is about to hand it over, a key is either with the owner or with the
new one; so whoever else holds keys of it is who it was on its way to, and the move is finished. With no key elsewhere
nothing has been moved yet, and the marks are taken away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.plan import Phase
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import (
    CloseSlot,
    MoveKeys,
    SetSlotOwner,
    SetSlotState,
    Step,
    TakeSlot,
)
from bootstrap.model.view import ClusterView


def name_owners(view: ClusterView) -> Iterator[Step]:
    """Who imports slots hears of their new owner from nobody else; see `deaf`."""
    for node, owner, slots in stale_importers(view):
        yield SetSlotOwner(node=node.node_id, owner=owner.node_id, slots=slots)


def finish_moves(moves: tuple[OpenSlot, ...]) -> Iterator[Phase]:
    """Slot by slot the servers' own protocol, from wherever it was left. The keys are counted anew before a slot is
    taken: an owner that hears of its successor drops what it still holds of it. What nobody has begun or what is over
    comes first: the rest may wait for a server that has no room.
    """
    whys = {
        "shut": "no key may slip in after the keys were counted",
        "clear": "no mark is left where nothing is on its way",
        "open": "both sides have to know of a move before a key moves",
        "move": "a slot is handed over only when its old owner holds nothing of it",
        "take": "the new owner says so itself, with a new epoch",
        "close": "no mark is left of a move that is over",
    }
    for name, why in whys.items():
        if steps := tuple(step for move in moves for step in _finish_move(name, move)):
            yield Phase(name=name, why=why, steps=steps)


def _finish_move(phase: str, move: OpenSlot) -> Iterator[Step]:
    slot, owner, target = move.slot, move.owner, move.target
    match phase:
        case "open" if target:
            if (slot, owner.node_id) not in target.myself.importing:
                yield SetSlotState(node=target.node_id, slot=slot, other=owner.node_id, importing=True)
            if (slot, target.node_id) not in owner.myself.migrating:
                yield SetSlotState(node=owner.node_id, slot=slot, other=target.node_id, importing=False)
        case "move" if target and owner.keys_in.get(slot):
            yield MoveKeys(
                source=owner.node_id,
                target=target.node_id,
                slot=slot,
                address=target.address,
                databases=owner.databases,
            )
        case "take" if target:
            yield TakeSlot(node=target.node_id, slot=slot)
        case "shut" if not move.holders:
            # While the owner marks it, clients that name a new key are sent to the other side. Only when that one takes
            # none any more does its number of keys mean anything, so the owner's mark stays until they are counted.
            yield from (CloseSlot(node=node.node_id, slot=slot) for node in move.marked if node != owner)
        case "clear" if not move.holders and owner in move.marked:
            yield CloseSlot(node=owner.node_id, slot=slot)
        case "close" if target:
            closing = {owner.node_id} | {node.node_id for node in move.marked if node != target}
            yield from (CloseSlot(node=node_id, slot=slot) for node_id in sorted(closing))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSlot:
    """One slot that some node marks as migrating or importing."""

    slot: int
    owner: Node
    """The one node that claims it."""
    holders: tuple[Node, ...]
    """Other masters that hold keys of it, in ordinal order."""
    marked: tuple[Node, ...]
    """Masters that mark it or have a replica that does, in ordinal order. Valkey's replicas copy their master's marks,
    may keep one that their master has not, and take SETSLOT from their master alone.
    """

    @property
    def target(self) -> Node | None:
        """Who is to own it; None where it stays where it is, or where several could."""
        return self.holders[0] if len(self.holders) == 1 else None


def open_slots(view: ClusterView) -> Iterator[OpenSlot]:
    """Every slot that is marked and has one owner, in ascending order. Without one, or with several, that comes first:
    nobody can say whose the keys are.
    """
    holding = _holders(view)
    for slot in view.open_slots():
        owners = [node for node in view.nodes if slot in node.slots]
        if len(owners) == 1:
            yield OpenSlot(
                slot=slot,
                owner=owners[0],
                holders=tuple(node for node in holding.get(slot, ()) if node is not owners[0]),
                marked=tuple(_marking(slot, view)),
            )


def stale_importers(view: ClusterView) -> Iterator[tuple[Node, Node, SlotSet]]:
    """Masters that import slots and do not know who owns them now, with the one that does, by ordinals. A slot that a
    node imports it leaves as it is whatever gossip says, so a failover of the owner goes past it (*measured*, 7.0).
    """
    for node in view.nodes:
        if node.role is not Role.MASTER or not node.myself.importing:
            continue
        imported = SlotSet.of(*((slot, slot) for slot, _ in node.myself.importing)) - node.slots
        for owner in view.nodes:
            known = node.others.get(owner.node_id)
            if owner is node or known is None or owner.role is not Role.MASTER:
                continue
            others = SlotSet.union_of(other.slots for other in view.nodes if other is not owner)
            if unknown := (owner.slots & imported) - known.slots - others:
                yield node, owner, unknown


def uncovered_slots_with_keys(view: ClusterView) -> Mapping[int, tuple[Node, ...]]:
    """Slots that nobody claims and whose keys some masters hold, with these masters."""
    free = view.claimed().complement()
    return {slot: tuple(holders) for slot, holders in sorted(_holders(view).items()) if slot in free}


def uncovered_slots_by_holder(view: ClusterView) -> Mapping[NodeId, SlotSet]:
    """Slots that nobody claims, by the one master that holds keys of them."""
    found: dict[NodeId, list[tuple[int, int]]] = {}
    for slot, holders in uncovered_slots_with_keys(view).items():
        if len(holders) == 1:
            found.setdefault(holders[0].node_id, []).append((slot, slot))
    return {node_id: SlotSet.of(*slots) for node_id, slots in found.items()}


def incoming_slots(view: ClusterView) -> Mapping[NodeId, SlotSet]:
    """Half-moved slots of which one other master than the owner holds keys and that it imports, by that master: they
    are about to be its own.
    """
    found: dict[NodeId, list[tuple[int, int]]] = {}
    for move in open_slots(view):
        if move.target and move.slot in {slot for slot, _ in move.target.myself.importing}:
            found.setdefault(move.target.node_id, []).append((move.slot, move.slot))
    return {node_id: SlotSet.of(*slots) for node_id, slots in found.items()}


def _holders(view: ClusterView) -> Mapping[int, list[Node]]:
    """Masters with keys by slot, in ordinal order, for the slots that the view has in question."""
    found: dict[int, list[Node]] = {}
    for node in view.nodes:
        if node.role is Role.MASTER:
            for slot, keys in node.keys_in.items():
                if keys:
                    found.setdefault(slot, []).append(node)
    return found


def _marking(slot: int, view: ClusterView) -> Iterator[Node]:
    told = {node.myself.master_id or node.node_id for node in view.nodes if slot in node.open_slots}
    return (node for node in view.nodes if node.node_id in told)
