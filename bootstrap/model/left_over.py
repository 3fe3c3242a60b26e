"""Keys on a master that does not own their slots, and what a person can do about them.

Usually no client can see such keys: an interrupted resharding leaves copies behind, and keys that have been deleted
since. They are found in a view whose nodes were asked for them. Which of them have moved there, so that a run may
finish the move, is for the planner to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.slots import LISTED_CHARACTERS, SlotSet
from bootstrap.model.view import ClusterView


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOver:
    """Keys of slots that another master owns."""

    holder: Node
    owner: Node
    slots: SlotSet
    keys: int

    def __str__(self) -> str:
        count = f"{self.keys} key{'' if self.keys == 1 else 's'} of {in_words(self.slots)}"
        return f"{self.holder.pod} holds {count}, owned by {self.owner.pod}: no client can see them there"

    @property
    def remedy(self) -> str:
        """How to look at them, and the commands for both ways out."""
        client = f"kubectl exec {self.holder.pod} -- redis-cli"
        look = f"{client} CLUSTER GETKEYSINSLOT {self.slots.ranges[0][0]} 10 shows some of them"
        return f"{look}; {both_ways(self.slots, self.owner, self.holder)}"


def find(view: ClusterView) -> Iterator[LeftOver]:
    """Keys of slots with another owner, by holder and owner in ordinal order. Open slots are left out, and slots that
    servers migrate by themselves: their keys may be on their way.
    """
    moving = SlotSet.union_of(each.slots for node in view.nodes for each in node.migrations) | view.open_slots()
    for holder in view.nodes:
        if holder.role is not Role.MASTER or not holder.left_over:
            continue
        held = SlotSet.of(*((slot, slot) for slot in holder.left_over)) - moving
        for owner in view.nodes:
            if owner is not holder and (slots := held & owner.slots):
                keys = sum(holder.left_over[slot] for slot in slots)
                yield LeftOver(holder=holder, owner=owner, slots=slots, keys=keys)


def known(view: ClusterView) -> bool:
    """Whether they were counted on every master that could hold some."""
    return all(n.left_over is not None or not n.keys or n.role is Role.REPLICA for n in view.nodes)


def half_open(view: ClusterView) -> Mapping[int, tuple[Node, Node]]:
    """Open slots with keys on their only owner and on one other master, and without the state with which clients find
    the keys of both: slot to owner and other. A key that both hold was copied, and has not moved.
    """
    found = {}
    for slot in view.open_slots():
        owners = [node for node in view.nodes if slot in node.slots]
        holders = [node for node in view.nodes if node.role is Role.MASTER and node.keys_in.get(slot)]
        others = [node for node in holders if slot not in node.slots]
        if len(owners) == len(others) == 1 and len(holders) == 2 and not owners[0].migrates(slot, others[0]):
            found[slot] = (owners[0], others[0])
    return found


def both_ways(slots: SlotSet, owner: Node, holder: Node) -> str:
    """The commands that keep or drop the keys which another master holds beside the owner of their slots."""
    return (
        "to keep them, open the slots on both sides, and the next run moves the slots there (of a key on both, the "
        f"owner's value stays): {opening(slots, owner, holder)}; to delete these copies: "
        f"{deleting(slots, owner.node_id, holder)}"
    )


def opening(slots: SlotSet, owner: Node, holder: Node) -> str:
    """Opens the slots on the target first, then on their owner."""
    return (
        f"for slot in {_each(slots)}; do "
        f"kubectl exec {holder.pod} -- redis-cli CLUSTER SETSLOT $slot IMPORTING {owner.node_id}; "
        f"kubectl exec {owner.pod} -- redis-cli CLUSTER SETSLOT $slot MIGRATING {holder.node_id}; done"
    )


def deleting(slots: SlotSet, owner: NodeId, holder: Node) -> str:
    """Deletes the keys that a master holds of slots of another one. It accepts that for a slot that it imports, where
    each command follows ASKING.
    """
    client = f"kubectl exec {holder.pod} -- redis-cli"
    escaped = r"""LC_ALL=C sed -n 's/["\\]/\\&/g; s/..*/ASKING\nDEL "&"/p'"""
    return (
        f"for slot in {_each(slots)}; do {client} CLUSTER SETSLOT $slot IMPORTING {owner}; "
        f"{client} CLUSTER GETKEYSINSLOT $slot 1000000 | {escaped} | kubectl exec -i {holder.pod} -- redis-cli; "
        f"{client} CLUSTER SETSLOT $slot STABLE; done"
    )


def giving(slots: SlotSet, node: Node) -> str:
    """Gives slots without an owner to a master, also where others believe that another one owns them."""
    client = f"kubectl exec {node.pod} -- redis-cli CLUSTER"
    return f"for slot in {_each(slots)}; do {client} DELSLOTS $slot; {client} ADDSLOTS $slot; done; {client} BUMPEPOCH"


def in_words(slots: SlotSet) -> str:
    """`slot 7`, or `the slots 7-9 11`, cut where there are many ranges."""
    if len(slots) == 1:
        return f"slot {slots}"
    return f"the slots {slots.listed()}"


def _each(slots: SlotSet) -> str:
    """The numbers of the slots for a shell, in their order, as many as a message lists. Once a command is done, the
    next run names the rest.
    """
    ranges = slots.ranges[: LISTED_CHARACTERS // 2]
    words = [f"$(seq {first} {last})" if last > first else str(first) for first, last in ranges]
    while len(text := " ".join(words)) > LISTED_CHARACTERS:
        words.pop()
    return text
