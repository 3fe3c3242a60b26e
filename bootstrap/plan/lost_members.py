"""Members that are known and that no pod carries any more: their disks went with their pods.

Such an id comes back never: a StatefulSet runs one pod an ordinal, every pod has answered, and none of them carries it.
(A member that is alive outside the Service is another matter: `view.elsewhere`, and a reason to refuse.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.view import ClusterView


@dataclass(frozen=True, slots=True, kw_only=True)
class LostMember:
    """One lost member, as those who know it tell of it."""

    node_id: NodeId
    known_by: tuple[Node, ...]
    slots: SlotSet
    """What it owned and nobody has taken over yet. Empty for a lost replica, or after an election."""
    candidates: tuple[Node, ...]
    """Reachable replicas that still follow it, the best first: greatest replication offset, then lowest ordinal."""

    @property
    def candidate(self) -> Node | None:
        """Who is to take over its slots; None where no copy is left, or nothing is to be taken over."""
        return self.candidates[0] if self.candidates and self.slots else None

    @property
    def gone(self) -> bool:
        """True for a shard of which no copy is left."""
        return bool(self.slots) and not self.candidates


def lost_members(view: ClusterView) -> tuple[LostMember, ...]:
    """Every lost member, in the order of ids; none in a view where pods are absent, since any of them may carry it."""
    if view.unreachable:
        return ()
    claimed = view.claimed()
    found = []
    for node_id, known_by in view.unlisted().items():
        # The newest belief counts: an old one may name slots that have long moved on.
        newest = max(known_by, key=lambda teller: (teller.others[node_id].config_epoch, -teller.ordinal))
        candidates = [node for node in view.nodes if node.role is Role.REPLICA and node.myself.master_id == node_id]
        found.append(
            LostMember(
                node_id=node_id,
                known_by=known_by,
                slots=newest.others[node_id].slots - claimed,
                candidates=tuple(sorted(candidates, key=lambda node: (-node.replication.offset, node.ordinal))),
            )
        )
    return tuple(found)


def stale_masters(view: ClusterView) -> frozenset[NodeId]:
    """Masters that others have replaced and that have not heard of it: each of their slots has an owner with a greater
    config epoch. So looks one that the others do not reach, while it answers clients and this program.
    """
    found: set[NodeId] = set()
    if sum(len(node.slots) for node in view.nodes) == len(view.claimed()):
        return frozenset()  # nobody claims what another one does
    for node in view.nodes:
        newer = (n.slots for n in view.nodes if n.slots and n.myself.config_epoch > node.myself.config_epoch)
        if node.slots and not node.slots - SlotSet.union_of(newer):
            found.add(node.node_id)
    return frozenset(found)


def slots_after_failover(view: ClusterView) -> Mapping[NodeId, SlotSet]:
    """What each node owns or is about to take over from a lost master."""
    replaced = stale_masters(view)
    claims = {node.node_id: SlotSet() if node.node_id in replaced else node.slots for node in view.nodes}
    for loss in lost_members(view):
        if loss.candidate is not None:
            claims[loss.candidate.node_id] |= loss.slots
    return claims


def loss_accepted(view: ClusterView, desired: Desired) -> bool:
    """True when a person has accepted the loss of slots for the cluster exactly as it stands."""
    return bool(desired.accept_loss) and desired.accept_loss == view.fingerprint()


def unrecoverable_slots(view: ClusterView) -> SlotSet:
    """Slots of which no copy is left on any node that answers, though some node remembers their owner."""
    return SlotSet.union_of(loss.slots for loss in lost_members(view) if loss.gone)
