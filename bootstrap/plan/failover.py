"""Phases for lost members: a replica takes over from an absent master, then the other nodes forget the lost members."""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.node import DEFAULT_TIMEOUT_MS, Node, NodeId
from bootstrap.model.plan import Phase
from bootstrap.model.steps import BumpEpoch, Failover, Forget, Step
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import AwaitElection
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.epochs import would_vote
from bootstrap.plan.lost_members import LostMember, takeover_fingerprint
from bootstrap.plan.membership import announce

ELECTION_S = 10
"""Seconds. An election is overdue when the replica's link has been down for twice the node timeout, within which the
other masters notice the loss, and for this long on top."""


def elect(found: Assessment) -> Iterator[Step]:
    """An absent master's replicas start an election by themselves once the other masters agree that it failed. Where
    that cannot happen, its best replica is promoted by command: a majority of masters is absent, has forgotten the
    absent one (a master votes only for the replica of a master that it knows) or would deny its vote (`epochs`), the
    absent master has no known address (it is never pinged, so it never fails), or the election is overdue.

    TAKEOVER is safe for a lost master: no pod has its id, and no server answers at its address. While pods are missing,
    `contradictors` decides.
    """
    owners = sum(1 for node in found.view.nodes if node.slots)
    quorum = (owners + sum(1 for absent in found.absent_members if absent.slots)) // 2 + 1
    for absent in found.absent_members:
        if absent.candidate is None:
            continue
        candidate, known_by = absent.candidate, absent.known_by
        votes = sum(1 for node in known_by if node.slots and would_vote(node, absent, candidate))
        if votes >= quorum and _will_be_elected(absent, candidate, found.view):
            yield AwaitElection(lost=absent.node_id, slots=absent.slots)
        else:
            takeover = votes < quorum
            yield Failover(candidate=candidate.node_id, lost=absent.node_id, slots=absent.slots, takeover=takeover)


def bump_epochs(found: Assessment) -> Iterator[Phase]:
    """One phase for each master, which announces its new epoch: two masters that take a new one at the same moment take
    the same. *Measured* (7.0.15): twelve masters then need five seconds to make them different.
    """
    why = "a voter that holds a higher config epoch for a master than its own would elect no replica of it"
    for node_id in found.outranked:
        step = BumpEpoch(node=node_id)
        yield Phase(name="bump epoch", why=why, steps=(step, *announce(found, (step,))))


def overdue(candidate: Node, view: ClusterView) -> bool:
    """True where an election is overdue. A server that was started again and has had no link since then starts none: it
    does not know how old its copy is. The run itself has watched such a link (`view.stuck`).
    """
    if candidate.replication.down_s:
        timeout_s = (candidate.timeout_ms or DEFAULT_TIMEOUT_MS) / 1000
        return candidate.replication.down_s > 2 * timeout_s + ELECTION_S
    return candidate.node_id in view.stuck


def confirmed_takeovers(found: Assessment) -> frozenset[NodeId]:
    """The absent masters of which a person has confirmed, now or earlier in this run, that they do not run."""
    confirmed, desired = found.desired.may_take_over, found.desired
    if desired.accept_takeover and desired.accept_takeover == takeover_fingerprint(found.absent_members):
        confirmed |= {absent.node_id for absent in found.absent_members if absent.slots}
    return confirmed


def _will_be_elected(absent: LostMember, candidate: Node, view: ClusterView) -> bool:
    never_pinged = all("noaddr" in node.others[absent.node_id].flags for node in absent.known_by)
    return not never_pinged and not overdue(candidate, view)


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
