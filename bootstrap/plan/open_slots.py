"""Open slots, whose move to another node was begun and not finished, and uncovered slots, which lost their owner while
no node is missing.

While the owner of a slot migrates it to a node that imports it, each of its keys is on one of the two, and clients find
it there. Such a move is finished. Keys of a slot on another node prove no move by themselves: an interrupted resharding
leaves copies, and Redis 7.0 marks their slots as importing when it starts. No client could see those keys, and as keys
of the owner they would replace newer values, or bring back deleted ones. So keys beside the owner count as moved only

- while the slot is open on both sides, or
- where one side has lost that state by a failover since (replicas of older servers do not have it), no key is on both,
  and nothing else shows that the other node holds left-over keys.

Where no other node holds a key, nothing has been moved yet, and the slot is closed. The rest is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bootstrap.model import left_over
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

    proven: bool = False
    """One other master holds keys of it, and these have moved there from the owner."""

    @property
    def target(self) -> Node | None:
        """The future owner; None where the slot stays with its owner, or where that is not known."""
        return self.key_holders[0] if self.proven else None


def find(view: ClusterView) -> Iterator[OpenSlot]:
    """Every open slot with one owner, in ascending order. A slot without an owner, or with several, has to get one
    owner first: until then it is not known which keys are valid.
    """
    holding, doubtful = _key_holders(view), _with_left_over_keys(view)
    for slot in view.open_slots():
        owners = [node for node in view.nodes if slot in node.slots]
        if len(owners) == 1:
            others = tuple(node for node in holding.get(slot, ()) if node is not owners[0])
            yield OpenSlot(
                slot=slot,
                owner=owners[0],
                key_holders=others,
                open_on=tuple(_open_on(slot, view)),
                proven=len(others) == 1 and _moved(slot, owners[0], others[0], view, doubtful),
            )


def _with_left_over_keys(view: ClusterView) -> frozenset[NodeId]:
    """Masters that hold keys which have not moved there: of slots that another one owns, or that both hold."""
    copied = (other for slot, (_, other) in left_over.half_open(view).items() if slot not in view.apart)
    return frozenset(node.node_id for node in (*copied, *(each.holder for each in left_over.find(view))))


def _moved(slot: int, owner: Node, holder: Node, view: ClusterView, doubtful: frozenset[NodeId]) -> bool:
    """True where the keys that the holder has of a slot have moved there from its owner: the slot is open on both, or
    on one, and names a former master of the other. That one is a replica now, or is gone.
    """
    if owner.migrates(slot, holder):
        return True
    if holder.node_id in doubtful:
        return False
    if targets := [target for number, target in owner.myself.migrating if number == slot]:
        former = view.by_id.get(targets[0])
        return former is None or former.myself.master_id == holder.node_id
    source = holder.imports(slot)
    former = view.by_id.get(source or "")
    return source is not None and (former is None or former.role is Role.REPLICA)


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


def uncovered_by_holder(key_holders: Mapping[int, tuple[Node, ...]], view: ClusterView) -> Mapping[NodeId, SlotSet]:
    """Slots without an owner of which exactly one master holds keys, by that master: it owned them. Left out are slots
    of which a node names another owner, and all slots of a master that also holds keys of slots which others own: there
    it is not known which of its keys clients could see.
    """
    by_node = _by_node((nodes[0].node_id, slot) for slot, nodes in key_holders.items() if len(nodes) == 1)
    unclear = {each.holder.node_id for each in left_over.find(view)} if by_node else set()
    held = {node: slots - _named(view, node) for node, slots in by_node.items() if node not in unclear}
    return {node: slots for node, slots in held.items() if slots}


def _named(view: ClusterView, but: NodeId) -> SlotSet:
    """Slots of which some node names an owner other than `but`."""
    return SlotSet.union_of(line.slots for node in view.nodes for each, line in node.others.items() if each != but)


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
