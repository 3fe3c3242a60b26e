"""TODO"""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.desired import Desired
from bootstrap.model.node import DEFAULT_TIMEOUT_MS, Node
from bootstrap.model.steps import (
    AwaitElection,
    Failover,
    Forget,
    Step,
)
from bootstrap.model.view import ClusterView
from bootstrap.plan.lost_members import LostMember, loss_accepted, lost_members

ELECTION_S = 10
"""An election takes the node timeout, until the others notice, and some seconds; this much later it is overdue."""


def elect(view: ClusterView) -> Iterator[Step]:
    """A lost master's replicas stand for election by themselves once the other masters agree that it failed. Where
    that cannot happen, the best of them is told to: a majority of masters is lost, the lost one has no address any more
    (it is never pinged, so it never fails), or the election is overdue.

    TAKEOVER is safe here, since no pod carries the lost id and it does not answer where it was.
    """
    lost = lost_members(view)
    owners = sum(1 for node in view.nodes if node.slots)
    quorum = (owners + sum(1 for loss in lost if loss.slots)) // 2 + 1
    for loss in lost:
        if loss.candidate is None:
            continue
        if owners >= quorum and _will_be_elected(loss, loss.candidate):
            yield AwaitElection(lost=loss.node_id, slots=loss.slots)
        else:
            candidate, takeover = loss.candidate.node_id, owners < quorum
            yield Failover(candidate=candidate, lost=loss.node_id, slots=loss.slots, takeover=takeover)


def _will_be_elected(loss: LostMember, candidate: Node) -> bool:
    unpinged = all("noaddr" in teller.others[loss.node_id].flags for teller in loss.known_by)
    timeout_s = (candidate.timeout_ms or DEFAULT_TIMEOUT_MS) / 1000
    return not unpinged and candidate.replication.down_s <= 2 * timeout_s + ELECTION_S


def let_go(view: ClusterView, desired: Desired) -> Iterator[Step]:
    """Members that took the last copy of their slots with them, once a person has accepted that."""
    if loss_accepted(view, desired):
        for loss in lost_members(view):
            if loss.gone:
                yield from _forgetting(loss)


def forget(view: ClusterView) -> Iterator[Step]:
    """All other lost members. Promote before forgetting, re-home before forgetting: both need the old id."""
    for loss in lost_members(view):
        if not loss.gone:
            yield from _forgetting(loss)


def _forgetting(loss: LostMember) -> Iterator[Step]:
    return (Forget(node=teller.node_id, lost=loss.node_id) for teller in loss.known_by)
