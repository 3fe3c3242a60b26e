"""Reasons that arise while a run goes on: unreachable peers, rejected writes, steps that did not settle."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from bootstrap.errors import AGAIN, Reason
from bootstrap.model.steps import AwaitMesh, AwaitReplication, Meet, Reattach, Replicate, Step
from bootstrap.model.unreachable import UnreachablePeer
from bootstrap.model.view import ClusterView
from bootstrap.plan.describe import describe

REASONS_SHOWN = 8
"""Reasons in one log line."""
LISTED_MAX = 3
"""Steps, pairs of nodes, or ports in one reason."""


def in_words(reasons: Sequence[Reason]) -> str:
    """The messages of the reasons on one line, cut to the first eight."""
    return "; ".join(_first([reason.message for reason in reasons], REASONS_SHOWN))


def of_unreachable(peers: Iterable[UnreachablePeer]) -> list[Reason]:
    """One reason per peer, with the remedy for its kind of failure."""
    return [Reason(code=peer.why.code, message=str(peer), remedy=peer.remedy, node=peer.pod) for peer in peers]


def of_rejection(step: str, pod: str, why: str) -> Reason:
    """The reason for a write that a server did not accept: `step` in words, sent to `pod`, and the server's answer."""
    message = f"not accepted: {step}: {why}"
    if "OOM command not allowed" in why:
        remedy = (
            "raise maxmemory of the server that receives the keys: kubectl exec RECEIVING_POD -- redis-cli CONFIG SET "
            f"maxmemory BYTES, and the same in its redis.conf; then {AGAIN}"
        )
        return Reason(code="no-room", message=message, remedy=remedy)
    remedy = _grant(pod, why) if why.startswith("NOPERM") else f"kubectl logs {pod}; then {AGAIN}"
    return Reason(code="step-rejected", message=message, remedy=remedy)


def _grant(pod: str, why: str) -> str:
    """The remedy for a NOPERM reply. Redis 7 and newer name the user, Redis 6 does not."""
    user = re.search(r"\bUser (\S+) has no permissions", why)
    command = re.search(r"run the '([^']+)' command", why)
    right = f"+{command[1]}" if command else "~*" if "key" in why else "+COMMAND"
    rule = shlex.join([user[1] if user else "USER", right])
    return (
        f"grant the right to the Redis user: kubectl exec {pod} -- redis-cli ACL SETUSER {rule}; with the "
        "component auth the rights are in k8s/components/auth/auth.sh and the key users.acl of the Secret redis-auth"
    )


def of_unsettled(steps: Sequence[Step], view: ClusterView) -> Reason:
    """The reason for steps that were sent, or waited for, and did not settle before the deadline."""
    listed = "; ".join(_first([describe(step, view) for step in steps], LISTED_MAX))
    if not view.unreachable and any(isinstance(step, Meet | AwaitMesh) for step in steps):
        return _blocked_bus(listed, view)
    if any(isinstance(step, Replicate | Reattach | AwaitReplication) for step in steps):
        remedy = (
            f"a first copy takes time: kubectl logs of the replica shows it; raise BOOTSTRAP_DEADLINE_S, or {AGAIN}"
        )
    else:
        remedy = AGAIN
    return Reason(code="not-settled", message=f"not done in time: {listed}", remedy=remedy)


def _blocked_bus(listed: str, view: ClusterView) -> Reason:
    """The reason where all nodes answer on their data ports, but not all links between nodes come up."""
    pairs = list(view.unlinked())
    everywhere = len(pairs) == len(view.nodes) * (len(view.nodes) - 1) // 2
    names = ", ".join(_first([f"{one.pod} and {other.pod}" for one, other in pairs], LISTED_MAX))
    who = "no node can reach another" if everywhere else f"{names} cannot reach each other"
    numbers = sorted({str(node.bus_port) for pair in pairs for node in pair}, key=int)
    ports = f"port{'s' if len(numbers) > 1 else ''} {', '.join(_first(numbers, LISTED_MAX))}"
    message = (
        f"{who} on the cluster bus ({ports}), data ports answer: a NetworkPolicy, firewall or mesh blocks the bus; "
        f"not done in time: {listed}"
    )
    remedy = f"allow TCP {ports} between the pods: kubectl get networkpolicy lists the policies; then {AGAIN}"
    return Reason(code="not-settled", message=message, remedy=remedy)


def _first(texts: Sequence[str], count: int) -> list[str]:
    return [*texts] if len(texts) <= count else [*texts[:count], f"and {len(texts) - count} more"]
