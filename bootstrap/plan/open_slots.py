"""Open slots, whose move to another node was begun and not finished, and uncovered slots, which lost their owner while
no node is missing.

The keys of a slot show where it belongs. While its owner migrates the slot, each key is either on the owner or on the
new node. So a node beside the owner that holds keys of it is the target, and the move is finished. Where no other node
holds a key, nothing has been moved yet, and the slot is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.view import ClusterView
from bootstrap.plan.lost_members import stale_masters


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSlot:
    """One slot that some node marks as migrating or importing."""

    slot: int
    owner: Node
    """The only node that claims it."""
    key_holders: tuple[Node, ...]
    """Other masters that hold keys of it, in ordinal order."""
    open_on: tuple[Node, ...]
    """Masters on which it is open, or of which a replica has it open, in ordinal order. A replica on Valkey copies the
    state from its master, may keep it after its master has closed the slot, and accepts SETSLOT from its master alone.
    """

    @property
    def target(self) -> Node | None:
        """The future owner; None where the slot stays with its owner, or where several nodes could be the target."""
        return self.key_holders[0] if len(self.key_holders) == 1 else None


def find(view: ClusterView) -> Iterator[OpenSlot]:
    """Every open slot with one owner, in ascending order. A slot without an owner, or with several, has to get one
    owner first: until then it is not known which keys are valid.
    """
    holding = _key_holders(view)
    for slot in view.open_slots():
        owners = [node for node in view.nodes if slot in node.slots]
        if len(owners) == 1:
            yield OpenSlot(
                slot=slot,
                owner=owners[0],
                key_holders=tuple(node for node in holding.get(slot, ()) if node is not owners[0]),
                open_on=tuple(_open_on(slot, view)),
            )


def stale_importers(view: ClusterView) -> Iterator[tuple[Node, Node, SlotSet]]:
    """Masters that import slots and do not know their present owner: importer, owner and slots, by ordinals. A node
    ignores gossip about the owner of a slot that it imports, so it misses a failover of the owner (*measured*, 7.0).
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


def uncovered_with_keys(view: ClusterView) -> Mapping[int, tuple[Node, ...]]:
    """Masters that hold keys of slots without an owner, by slot."""
    uncovered = view.claimed().complement()
    return {slot: tuple(nodes) for slot, nodes in sorted(_key_holders(view).items()) if slot in uncovered}


def uncovered_by_holder(key_holders: Mapping[int, tuple[Node, ...]]) -> Mapping[NodeId, SlotSet]:
    """Slots without an owner of which exactly one master holds keys, by that master."""
    return _by_node((nodes[0].node_id, slot) for slot, nodes in key_holders.items() if len(nodes) == 1)


def incoming(open_slots: Iterable[OpenSlot]) -> Mapping[NodeId, SlotSet]:
    """Open slots whose target imports them, by target: the target is about to own them."""
    moves = ((move.target, move.slot) for move in open_slots)
    return _by_node(
        (target.node_id, slot)
        for target, slot in moves
        if target and any(slot == imported for imported, _ in target.myself.importing)
    )


def _by_node(pairs: Iterable[tuple[NodeId, int]]) -> Mapping[NodeId, SlotSet]:
    found: dict[NodeId, list[tuple[int, int]]] = {}
    for node_id, slot in pairs:
        found.setdefault(node_id, []).append((slot, slot))
    return {node_id: SlotSet.of(*slots) for node_id, slots in found.items()}


def _key_holders(view: ClusterView) -> Mapping[int, list[Node]]:
    """Masters with keys by slot, in ordinal order, for the slots that the view counts (`slots_to_count`). A master that
    has been replaced and does not know it yet will copy its successor: what it holds is no copy of its own.
    """
    found: dict[int, list[Node]] = {}
    stale = stale_masters(view)
    for node in view.nodes:
        if node.role is Role.MASTER and node.node_id not in stale:
            for slot, keys in node.keys_in.items():
                if keys:
                    found.setdefault(slot, []).append(node)
    return found


def _open_on(slot: int, view: ClusterView) -> Iterator[Node]:
    masters = {node.myself.master_id or node.node_id for node in view.nodes if slot in node.open_slots}
    return (node for node in view.nodes if node.node_id in masters)
