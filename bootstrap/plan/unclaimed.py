"""Slots that their owner does not claim, while the other nodes name it as the owner: it was told DELSLOTS, or came
back with an older nodes.conf. Gossip never clears an owner, so this does not change by itself, and no other node can be
given the slots. Their owner is told to claim them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bootstrap.model.node import Member, Node, NodeId, Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import AddSlots, SetSlotOwner, Step
from bootstrap.model.view import ClusterView
from bootstrap.plan.lost_members import stale_masters


def find(view: ClusterView, key_holders: Mapping[int, tuple[Node, ...]]) -> Mapping[NodeId, SlotSet]:
    """The slots that nobody claims and that the others name as a master's, by that master. Left out are slots that are
    named as several nodes', slots of which another master holds keys, slots that are just moving, and slots of a master
    whose replica has keys while it has none: the replica would drop them.
    """
    uncovered = view.claimed().complement()
    if not uncovered:
        return {}
    stale, found = stale_masters(view), {}
    for node in view.nodes:
        named = SlotSet.union_of(
            other.others[node.node_id].slots for other in view.nodes if node.node_id in other.others
        )
        slots = (named & uncovered) - _named_as_of_others(view, node) - _moving(view, node)
        if not slots or node.role is not Role.MASTER or node.node_id in stale or _copy_has_more(view, node):
            continue
        held = SlotSet.of(
            *((slot, slot) for slot, nodes in key_holders.items() if any(other is not node for other in nodes))
        )
        if slots := slots - held:
            found[node.node_id] = slots
    return found


def claim_again(view: ClusterView, unclaimed: Mapping[NodeId, SlotSet]) -> Iterator[Step]:
    """ADDSLOTS for slots of which the node itself knows no owner. The others it believes to be another one's, which an
    older nodes.conf says: SETSLOT replaces that.
    """
    for node_id, slots in unclaimed.items():
        believed = SlotSet.union_of(line.slots for line in view.by_id[node_id].others.values())
        if free := slots - believed:
            yield AddSlots(node=node_id, slots=free)
        if taken := slots & believed:
            yield SetSlotOwner(node=node_id, owner=node_id, slots=taken)


def _named_as_of_others(view: ClusterView, owner: Node) -> SlotSet:
    """Slots that some other node names as the slots of another one than `owner`."""
    return SlotSet.union_of(
        line.slots
        for node in view.nodes
        if node is not owner
        for node_id, line in node.others.items()
        if node_id != owner.node_id
    )


def _moving(view: ClusterView, owner: Node) -> SlotSet:
    """Slots that another node has open, or that the owner believes to be a node's whose epoch has grown since that node
    was asked: it may have taken them between two answers of this look.
    """
    taken = [line.slots for node_id, line in owner.others.items() if _has_grown(view.by_id.get(node_id), line)]
    return SlotSet.union_of([*taken, *(node.open_slots for node in view.nodes if node is not owner)])


def _has_grown(node: Node | None, line: Member) -> bool:
    return node is None or line.config_epoch > node.myself.config_epoch


def _copy_has_more(view: ClusterView, master: Node) -> bool:
    return not master.keys and any(node.keys for node in view.nodes if node.myself.master_id == master.node_id)
