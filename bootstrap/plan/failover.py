"""Phases for lost members: a replica takes over from a lost master, then the other nodes forget the lost members."""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.node import DEFAULT_TIMEOUT_MS, Node
from bootstrap.model.steps import AwaitElection, Failover, Forget, Step
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.lost_members import LostMember

ELECTION_S = 10
"""Seconds. An election is overdue when the replica's link has been down for twice the node timeout, within which the
other masters notice the loss, and for this long on top."""


def elect(found: Assessment) -> Iterator[Step]:
    """A lost master's replicas start an election by themselves once the other masters agree that it failed. Where that
    cannot happen, its best replica is promoted by command: a majority of masters is lost, the lost master has no known
    address (it is never pinged, so it never fails), or the election is overdue.

    TAKEOVER is safe here: no pod has the lost id, and no server answers at its address.
    """
    owners = sum(1 for node in found.view.nodes if node.slots)
    quorum = (owners + sum(1 for lost in found.lost_members if lost.slots)) // 2 + 1
    for lost in found.lost_members:
        if lost.candidate is None:
            continue
        if owners >= quorum and _will_be_elected(lost, lost.candidate):
            yield AwaitElection(lost=lost.node_id, slots=lost.slots)
        else:
            candidate, takeover = lost.candidate.node_id, owners < quorum
            yield Failover(candidate=candidate, lost=lost.node_id, slots=lost.slots, takeover=takeover)


def _will_be_elected(lost: LostMember, candidate: Node) -> bool:
    never_pinged = all("noaddr" in node.others[lost.node_id].flags for node in lost.known_by)
    timeout_s = (candidate.timeout_ms or DEFAULT_TIMEOUT_MS) / 1000
    return not never_pinged and candidate.replication.down_s <= 2 * timeout_s + ELECTION_S


def forget_unrecoverable(found: Assessment) -> Iterator[Step]:
    """Forgets lost masters of whose slots no copy is left, once a person has accepted that loss."""
    if found.loss_accepted:
        for lost in found.lost_members:
            if lost.no_copy_left:
                yield from _forget(lost)


def forget(found: Assessment) -> Iterator[Step]:
    """Forgets all other lost members. The election and new masters for their replicas come first: both need the id."""
    for lost in found.lost_members:
        if not lost.no_copy_left:
            yield from _forget(lost)


def _forget(lost: LostMember) -> Iterator[Step]:
    return (Forget(node=node.node_id, lost=lost.node_id) for node in lost.known_by)
