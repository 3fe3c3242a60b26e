"""Slots whose move to another node was begun and not finished, and slots that lost their owner while all nodes stayed.

A slot's keys say where it belongs. While its owner is about to hand it over, a key is either with the owner or with the
new one; so whoever else holds keys of it is who it was on its way to, and the move is finished. With no key elsewhere
nothing has been moved yet, and the marks are taken away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bootstrap.model import ClusterView, Node, NodeId, Role
from bootstrap.slots import SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfMove:
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


def half_moves(view: ClusterView) -> Iterator[HalfMove]:
    """Every slot that is marked and has one owner, in ascending order. Without one, or with several, that comes first:
    nobody can say whose the keys are.
    """
    holding = _holders(view)
    for slot in view.half_moved():
        owners = [node for node in view.nodes if slot in node.slots]
        if len(owners) == 1:
            yield HalfMove(
                slot=slot,
                owner=owners[0],
                holders=tuple(node for node in holding.get(slot, ()) if node is not owners[0]),
                marked=tuple(_marking(slot, view)),
            )


def deaf(view: ClusterView) -> Iterator[tuple[Node, Node, SlotSet]]:
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


def orphans(view: ClusterView) -> Mapping[int, tuple[Node, ...]]:
    """Slots that nobody claims and whose keys some masters hold, with these masters."""
    free = view.claimed().complement()
    return {slot: tuple(holders) for slot, holders in sorted(_holders(view).items()) if slot in free}


def homes(view: ClusterView) -> Mapping[NodeId, SlotSet]:
    """Slots that nobody claims, by the one master that holds keys of them."""
    found: dict[NodeId, list[tuple[int, int]]] = {}
    for slot, holders in orphans(view).items():
        if len(holders) == 1:
            found.setdefault(holders[0].node_id, []).append((slot, slot))
    return {node_id: SlotSet.of(*slots) for node_id, slots in found.items()}


def arriving(view: ClusterView) -> Mapping[NodeId, SlotSet]:
    """Half-moved slots of which one other master than the owner holds keys and that it imports, by that master: they
    are about to be its own.
    """
    found: dict[NodeId, list[tuple[int, int]]] = {}
    for move in half_moves(view):
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
    told = {node.myself.master_id or node.node_id for node in view.nodes if slot in node.half_moved}
    return (node for node in view.nodes if node.node_id in told)
