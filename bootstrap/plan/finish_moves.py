"""Phases that finish or undo the moves of open slots, slot by slot with the servers' own protocol, from any state that
an interrupted move can leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bootstrap.model.plan import Phase
from bootstrap.model.steps import CloseSlot, MoveKeys, SetSlotOwner, SetSlotState, Step, TakeSlot
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.open_slots import OpenSlot, stale_importers


def set_owners(found: Assessment) -> Iterator[Step]:
    """Corrects the owner of imported slots on the importing node, which ignores gossip about it."""
    for node, owner, slots in stale_importers(found.view):
        yield SetSlotOwner(node=node.node_id, owner=owner.node_id, slots=slots)


def open_again(found: Assessment) -> Iterator[Phase]:
    """Restores the state that one side of a move has lost by a failover. It comes before roles are assigned and lost
    members are forgotten, since these show that there was a failover. The target is first: at every moment the state
    shows that keys have moved.
    """
    why = "clients find the keys of both nodes while the slot is open on both"
    for name, of_one in (("open on targets", _open_on_target), ("open on owners", _open_on_owner)):
        yield Phase(name=name, why=why, steps=tuple(step for move in found.open_slots for step in of_one(move)))


def finish_moves(found: Assessment) -> Iterator[Phase]:
    """Moves that were not begun, or that are complete, come first: the others may have to wait for a server without
    memory. The keys are counted again before a slot is taken: an owner that learns of its successor deletes the keys of
    the slot that it still has.
    """

    def steps(of_one: Callable[[OpenSlot], Iterator[Step]]) -> tuple[Step, ...]:
        return tuple(step for move in found.open_slots for step in of_one(move))

    why = "no other node may receive a key after the keys were counted"
    yield Phase(name="close elsewhere", why=why, steps=steps(_close_elsewhere))
    why = "no other node holds a key, so the slot stays with its owner"
    yield Phase(name="close on owners", why=why, steps=steps(_close_on_owner))
    why = "a slot gets its new owner only when the old owner has no key of it left"
    yield Phase(name="move keys", why=why, steps=steps(_move_keys))
    yield Phase(name="take slots", why="the new owner claims the slot with a new config epoch", steps=steps(_take))
    yield Phase(name="close slots", why="the move is complete, so its state is removed", steps=steps(_close))


def _close_elsewhere(move: OpenSlot) -> Iterator[Step]:
    """While the owner has the slot as migrating, it redirects clients with a new key to the target. The number of keys
    on the target is final only when the target accepts no more of them; so the owner's state stays until the keys have
    been counted again, and a target that has received a key is opened again.
    """
    if not move.key_holders:
        for node in move.open_on:
            if node != move.owner:
                yield CloseSlot(node=node.node_id, slot=move.slot, reopen_from=node.imports(move.slot))


def _close_on_owner(move: OpenSlot) -> Iterator[Step]:
    if not move.key_holders and move.owner in move.open_on:
        yield CloseSlot(node=move.owner.node_id, slot=move.slot)


def _open_on_target(move: OpenSlot) -> Iterator[Step]:
    if move.target and move.target.imports(move.slot) is None:
        yield SetSlotState(node=move.target.node_id, slot=move.slot, other=move.owner.node_id, importing=True)


def _open_on_owner(move: OpenSlot) -> Iterator[Step]:
    """From which node the target imports does not matter to clients. Where that is the former owner, it stays so, as
    the proof of a failover.
    """
    if move.target and (move.slot, move.target.node_id) not in move.owner.myself.migrating:
        yield SetSlotState(node=move.owner.node_id, slot=move.slot, other=move.target.node_id, importing=False)


def _move_keys(move: OpenSlot) -> Iterator[Step]:
    if move.target and move.owner.keys_in.get(move.slot):
        yield MoveKeys(
            source=move.owner.node_id,
            target=move.target.node_id,
            slot=move.slot,
            address=move.target.address,
            databases=move.owner.databases,
        )


def _take(move: OpenSlot) -> Iterator[Step]:
    if move.target:
        yield TakeSlot(node=move.target.node_id, slot=move.slot)


def _close(move: OpenSlot) -> Iterator[Step]:
    if move.target:
        closing = {move.owner.node_id} | {node.node_id for node in move.open_on if node != move.target}
        yield from (CloseSlot(node=node_id, slot=move.slot) for node_id in sorted(closing))
