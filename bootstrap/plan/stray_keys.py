"""When not to act: rules about keys on nodes that do not own their slots. `refusals` applies them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model import left_over
from bootstrap.model.left_over import LeftOver, both_ways, giving, in_words, opening
from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.slots import SlotSet
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.describe import several


def keys_on_several_nodes(found: Assessment) -> Iterator[Reason]:
    """Keys of an open slot on other nodes than its owner, where no state and no failover shows that they have moved
    there: no client could see them, and as keys of the owner they would replace newer values or bring back deleted
    ones. On several other nodes it is not known either which of two values is newer.
    """
    torn = {
        move.slot: (move.owner, *move.key_holders) for move in found.open_slots if move.key_holders and not move.target
    }
    for slots, (owner, *holders) in _grouped(torn):
        remedies = "; ".join(f"the keys on {holder.pod}: {both_ways(slots, owner, holder)}" for holder in holders)
        yield Reason(
            code="keys-on-several",
            message=f"{in_words(slots)} {_has(slots)} keys on {_counts(holders, slots)} beside the owner, "
            f"{_counts((owner,), slots)}: nothing shows that they have moved there from it",
            remedy=f"{_listing(holders[0], slots)}; {remedies}; then {RUN_AGAIN}",
            node=holders[0].pod,
        )


def keys_without_owner(found: Assessment) -> Iterator[Reason]:
    """Keys of slots without an owner that are on several nodes, or on one that may never have owned them."""
    spoken_for = SlotSet.union_of([*found.slots_after_failover.values(), *found.uncovered_slots_by_holder.values()])
    torn = {slot: nodes for slot, nodes in found.uncovered_slots_with_keys.items() if slot not in spoken_for}
    for slots, holders in _grouped(torn):
        why = f"keys on several nodes: {_counts(holders, slots)}"
        if len(holders) == 1:
            why = f"no owner, and {_counts(holders, slots)} holds keys which clients may never have seen there"
        yield Reason(
            code="keys-on-several",
            message=f"{in_words(slots)} {_has(slots)} {why}",
            remedy=f"{_listing(holders[0], slots)}; give the slots to the pod whose keys are right, or to one that "
            f"holds none of them; this gives them to {holders[0].pod}: {giving(slots, holders[0])}; then {RUN_AGAIN}, "
            "which names the command that deletes the keys elsewhere",
            node=holders[0].pod,
        )


def keys_left_over(found: Assessment) -> Iterator[Reason]:
    """Keys on masters that do not own their slots. Nothing that a run does makes them visible or deletes them."""
    for each in left_over.find(found.view):
        yield _left_over(each)


def keys_left_over_on_the_way(found: Assessment) -> Iterator[Reason]:
    """Keys that a target already holds of a slot that is to move there: with the slot they would become visible."""
    on_the_way: dict[NodeId, SlotSet] = {}
    for move in found.slot_moves:
        on_the_way[move.target] = on_the_way.get(move.target, SlotSet()) | move.slots
    for each in left_over.find(found.view):
        if each.slots & on_the_way.get(each.holder.node_id, SlotSet()):
            yield _left_over(each)


def _left_over(each: LeftOver) -> Reason:
    return Reason(
        code="keys-left-over", message=str(each), remedy=f"{each.remedy}; then {RUN_AGAIN}", node=each.holder.pod
    )


def _grouped(torn: Mapping[int, tuple[Node, ...]]) -> Iterator[tuple[SlotSet, tuple[Node, ...]]]:
    """Slots with keys on the same nodes, together."""
    groups: dict[tuple[NodeId, ...], tuple[list[int], tuple[Node, ...]]] = {}
    for slot, nodes in torn.items():
        groups.setdefault(tuple(node.node_id for node in nodes), ([], nodes))[0].append(slot)
    for slots, nodes in groups.values():
        yield SlotSet.of(*((slot, slot) for slot in slots)), nodes


def _has(slots: SlotSet) -> str:
    return "has" if len(slots) == 1 else "have"


def _counts(nodes: Iterable[Node], slots: SlotSet) -> str:
    """`redis-app-0 (3 keys), redis-app-1 (1 key)`."""
    counts = ((node.pod, sum(node.keys_in.get(slot, 0) for slot in slots)) for node in nodes)
    return ", ".join(f"{pod} ({several(keys, 'key')})" for pod, keys in counts)


def _listing(node: Node, slots: SlotSet) -> str:
    first = slots.ranges[0][0]
    return f"look at them: kubectl exec {node.pod} -- redis-cli CLUSTER GETKEYSINSLOT {first} 10"


def keys_outside_or_moving(found: Assessment) -> Iterator[Reason]:
    """Keys on masters without slots, other than keys of slots that these masters are about to own."""
    gains = (found.uncovered_slots_by_holder, found.incoming_slots, found.unclaimed_slots)
    about_to_own = {
        node: SlotSet.union_of(gained.get(node, SlotSet()) for gained in gains) for gained in gains for node in gained
    }
    return keys_outside(found, about_to_own)


def keys_outside(found: Assessment, about_to_own: Mapping[NodeId, SlotSet]) -> Iterator[Reason]:
    """Keys on masters without slots, other than keys of the slots in `about_to_own`."""
    for node in found.view.nodes:
        explained = sum(node.keys_in.get(slot, 0) for slot in about_to_own.get(node.node_id, ()))
        if node.keys > explained and node.role is Role.MASTER and not node.slots:
            client = f"kubectl exec {node.pod} -- redis-cli"
            remedy = (
                f"kubectl get pod {node.pod} -o wide: if its IP is not {node.address.host}, that is a stale DNS "
                f"record, or a pod of another cluster: leave it alone and {RUN_AGAIN}; if it is, save the keys that "
                f"are needed: {client} --scan lists them; only when nobody needs the others: {client} FLUSHALL; "
                f"then {RUN_AGAIN}"
            )
            if node.open_slots:
                remedy = (
                    "do not empty it: it imports slots, and may hold the only copy of their keys; "
                    f"{client} CLUSTER NODES shows them; open them on both sides, and the next run moves them there: "
                    f"{_opening(node, found)}; then {RUN_AGAIN}; or declare as many shards as there are masters with "
                    "this one: kubectl edit configmap redis-bootstrap-settings"
                )
            yield Reason(
                code="keys-outside",
                message=f"{node.pod} owns no slot and holds {several(node.keys, 'key')}: as a member it would hide or "
                "lose them",
                remedy=remedy,
                node=node.pod,
            )


def _opening(node: Node, found: Assessment) -> str:
    """The commands that open the slots which a node imports, on both sides."""
    owners = {move.owner.node_id: move.owner for move in found.open_slots if node in move.open_on}
    commands = []
    for owner in owners.values():
        slots = ((move.slot, move.slot) for move in found.open_slots if node in move.open_on and move.owner is owner)
        commands.append(opening(SlotSet.of(*slots), owner, node))
    return "; ".join(commands) or "first give them an owner, redis-cli CLUSTER ADDSLOTS on the pod that had them"
