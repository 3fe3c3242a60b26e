"""Phases that finish or undo the moves of open slots, slot by slot with the servers' own protocol, from any state that
an interrupted move can leave.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.plan import Phase
from bootstrap.model.steps import CloseSlot, MoveKeys, SetSlotOwner, SetSlotState, Step, TakeSlot
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.open_slots import OpenSlot, stale_importers

PHASES = {
    "close elsewhere": "no other node may receive a key after the keys were counted",
    "close on owners": "no other node holds a key, so the slot stays with its owner",
    "open slots": "both nodes need the state of the slot before a key moves",
    "move keys": "a slot gets its new owner only when the old owner has no key of it left",
    "take slots": "the new owner claims the slot with a new config epoch",
    "close slots": "the move is complete, so its state is removed",
}
"""The phases in order, with their reasons. Moves that were not begun, or that are complete, come first: the others may
have to wait for a server without memory."""


def set_owners(found: Assessment) -> Iterator[Step]:
    """Corrects the owner of imported slots on the importing node, which ignores gossip about it."""
    for node, owner, slots in stale_importers(found.view):
        yield SetSlotOwner(node=node.node_id, owner=owner.node_id, slots=slots)


def finish_moves(found: Assessment) -> Iterator[Phase]:
    """The keys are counted again before a slot is taken: an owner that learns of its successor deletes the keys of the
    slot that it still has.
    """
    for name, why in PHASES.items():
        if steps := tuple(step for move in found.open_slots for step in _steps(name, move)):
            yield Phase(name=name, why=why, steps=steps)


def _steps(phase: str, move: OpenSlot) -> Iterator[Step]:
    slot, owner, target = move.slot, move.owner, move.target
    match phase:
        case "close elsewhere" if not move.key_holders:
            # While the owner has the slot as migrating, it redirects clients with a new key to the target. The number
            # of keys on the target is final only when the target accepts no more of them; so the owner's state stays
            # until the keys have been counted again.
            yield from (CloseSlot(node=node.node_id, slot=slot) for node in move.open_on if node != owner)
        case "close on owners" if not move.key_holders and owner in move.open_on:
            yield CloseSlot(node=owner.node_id, slot=slot)
        case "open slots" if target:
            if (slot, owner.node_id) not in target.myself.importing:
                yield SetSlotState(node=target.node_id, slot=slot, other=owner.node_id, importing=True)
            if (slot, target.node_id) not in owner.myself.migrating:
                yield SetSlotState(node=owner.node_id, slot=slot, other=target.node_id, importing=False)
        case "move keys" if target and owner.keys_in.get(slot):
            yield MoveKeys(
                source=owner.node_id,
                target=target.node_id,
                slot=slot,
                address=target.address,
                databases=owner.databases,
            )
        case "take slots" if target:
            yield TakeSlot(node=target.node_id, slot=slot)
        case "close slots" if target:
            closing = {owner.node_id} | {node.node_id for node in move.open_on if node != target}
            yield from (CloseSlot(node=node_id, slot=slot) for node_id in sorted(closing))
