"""Lost members: ids that some node knows and that no pod has any more, because their disks went with their pods.

Such an id never returns. A StatefulSet runs one pod per ordinal, every pod has answered, and none of them has the id.
A member that answers outside the Service is not lost (`view.alive_elsewhere`): it is a reason to refuse.

While pods do not answer, no member is lost: each of them may have any of the ids. Such members are absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.view import ClusterView, fingerprint_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LostMember:
    """One lost or absent member, as the nodes that know it report it."""

    node_id: NodeId
    known_by: tuple[Node, ...]
    slots: SlotSet
    """Slots that it owned and no other node has taken over. Empty for a lost replica, and after an election."""
    candidates: tuple[Node, ...]
    """Reachable replicas that still follow it, best first: greatest replication offset, then lowest ordinal. Those in
    `overwritten` are left out, unless a person has accepted that the keys are lost: then they come last.
    """
    overwritten: tuple[tuple[Node, Node], ...] = ()
    """Replicas that still follow it and have copied from another node since, each with that node: a server that came
    back at the master's address without its disk, whose empty data set replaced the copy.
    """

    @property
    def candidate(self) -> Node | None:
        """The replica that should take over its slots; None where no replica is left, or no slot to take over."""
        return self.candidates[0] if self.candidates and self.slots else None

    @property
    def no_copy_left(self) -> bool:
        """True for a master with slots of which no replica is left."""
        return bool(self.slots) and not self.candidates


def absent(view: ClusterView, given_up: AbstractSet[NodeId] = frozenset()) -> tuple[LostMember, ...]:
    """Every member that some node knows and no reachable pod has, in the order of ids: lost, or on a missing pod.
    `given_up`: those whose keys a person has accepted to be lost.
    """
    claimed = view.claimed()
    found = []
    for node_id, known_by in view.unlisted().items():
        # The report with the highest epoch counts: an older one may name slots that have moved since.
        newest = max(known_by, key=lambda node: (node.others[node_id].config_epoch, -node.ordinal))
        followers = [node for node in view.nodes if node.role is Role.REPLICA and node.myself.master_id == node_id]
        overwritten = tuple(_overwritten(followers, newest.others[node_id].slots, view))
        empty = {replica.node_id for replica, _ in overwritten}
        candidates = [node for node in followers if node_id in given_up or node.node_id not in empty]
        candidates.sort(key=lambda node: (node.node_id in empty, -node.replication.offset, node.ordinal))
        found.append(
            LostMember(
                node_id=node_id,
                known_by=known_by,
                slots=newest.others[node_id].slots - claimed,
                candidates=tuple(candidates),
                overwritten=overwritten,
            )
        )
    return tuple(found)


def _overwritten(followers: list[Node], slots: SlotSet, view: ClusterView) -> Iterator[tuple[Node, Node]]:
    """The followers of a lost master that have copied from another node, and that node. A replica connects to an
    address, not to a node id, so it copies whatever server answers there (*measured*, 7.0.15): the master's own without
    its disk, or one of another shard, which has its address now. Where the master has lost its nodes.conf alone, it
    still has the keys, of `slots` only, and the copy is whole.
    """
    places = {node.myself.address: node for node in view.nodes if node.myself.address}
    places |= {node.address: node for node in view.nodes}
    for replica in followers:
        source = places.get(replica.replication.master) if replica.replication.master else None
        if source is None:
            continue
        foreign = replica.replication.link_up and (source.role is Role.REPLICA or bool(source.slots - slots))
        emptied = not replica.keys and (replica.replication.link_up or replica.replication.syncing)
        if foreign or emptied:
            yield replica, source


def stale_masters(view: ClusterView) -> frozenset[NodeId]:
    """Masters that have been replaced and do not know it yet: for each of their slots another node with a higher config
    epoch is the owner. A master that its peers cannot reach looks like that, while it answers clients and this program.
    """
    if sum(len(node.slots) for node in view.nodes) == len(view.claimed()):
        return frozenset()  # no slot has two owners
    found: set[NodeId] = set()
    for node in view.nodes:
        newer = (n.slots for n in view.nodes if n.slots and n.myself.config_epoch > node.myself.config_epoch)
        if node.slots and not node.slots - SlotSet.union_of(newer):
            found.add(node.node_id)
    return frozenset(found)


def slots_after_failover(view: ClusterView, lost_members: tuple[LostMember, ...]) -> Mapping[NodeId, SlotSet]:
    """What each node owns once every lost, absent or stale master has been replaced, by node."""
    stale = stale_masters(view)
    owned = {node.node_id: SlotSet() if node.node_id in stale else node.slots for node in view.nodes}
    for lost in lost_members:
        if lost.candidate is not None:
            owned[lost.candidate.node_id] |= lost.slots
    return owned


def loss_accepted(view: ClusterView, desired: Desired) -> bool:
    """True when a person has accepted the loss of slots for the cluster exactly as it is."""
    return bool(desired.accept_loss) and desired.accept_loss == loss_fingerprint(view)


def loss_fingerprint(view: ClusterView) -> str:
    """What a person accepts a loss with: the fingerprint of the cluster or, where every master is lost, that of the
    lost ones.
    """
    return view.fingerprint() or takeover_fingerprint(absent(view))


def given_up(view: ClusterView, desired: Desired) -> frozenset[NodeId]:
    """The members whose keys a person has accepted to be lost, now or earlier in this run: a replica that takes over
    from one of them changes the fingerprint.
    """
    return desired.given_up | (frozenset(view.unlisted()) if loss_accepted(view, desired) else frozenset())


def takeover_fingerprint(absent_members: tuple[LostMember, ...]) -> str:
    """A short name for the masters that are missing now, and their slots; "" where none is."""
    return fingerprint_of({each.node_id: each.slots for each in absent_members if each.slots})


def unrecoverable_slots(lost_members: tuple[LostMember, ...]) -> SlotSet:
    """Slots of lost members of which no copy is left on any node that answers."""
    return SlotSet.union_of(lost.slots for lost in lost_members if lost.no_copy_left)
