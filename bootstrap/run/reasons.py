"""Reasons that arise while a run goes on: unreachable peers, rejected writes, steps that did not settle."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from bootstrap.errors import AGAIN, RUN_AGAIN, BootstrapError, NotYet, Reason
from bootstrap.model import bus
from bootstrap.model.plan import Plan, Refusal
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import Failover, Meet, Reattach, Rejected, Replicate, Step, Write, recipient
from bootstrap.model.unreachable import UnreachablePeer, in_groups
from bootstrap.model.unreachable import in_words as group_in_words
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import AwaitMesh, AwaitReplication
from bootstrap.plan.describe import describe
from bootstrap.plan.lost_members import absent, takeover_fingerprint
from bootstrap.run import links

REASONS_SHOWN = 8
"""Reasons in one log line."""
LISTED_MAX = 3
"""Steps, pairs of nodes, or ports in one reason."""


def in_words(reasons: Sequence[Reason]) -> str:
    """The messages of the reasons on one line, cut to the first eight."""
    return "; ".join(_first([reason.message for reason in reasons], REASONS_SHOWN))


def plan_summary(plan: Plan) -> Mapping[str, list[str]]:
    """The fields of a log line: what was found, cut to the first eight, and the phases."""
    found = _first([finding.message for finding in plan.findings], REASONS_SHOWN)
    return {"found": found, "phases": [phase.name for phase in plan.phases]}


def of_unreachable(peers: Iterable[UnreachablePeer]) -> list[Reason]:
    """One reason per peer, with the remedy for its kind of failure; peers that one setting keeps from answering
    have one reason together, without a node.
    """
    return [
        Reason(
            code=group[0].why.code,
            message=group_in_words(group),
            remedy=group[0].remedy,
            node=group[0].pod if len(group) == 1 else None,
        )
        for group in in_groups(peers)
    ]


def of_machines(view: ClusterView) -> list[Reason]:
    """One reason per machine that is not Ready and holds missing pods: how to let them start elsewhere, once it is
    certain that nothing is lost with its disks.
    """
    return [_of_machine(machine, view) for machine in sorted({peer.machine for peer in view.unreachable} - {""})]


def _of_machine(machine: str, view: ClusterView) -> Reason:
    peers = [peer for peer in view.unreachable if peer.machine == machine]
    pods = " ".join(peer.pod for peer in peers)
    message = f"{', '.join(peer.pod for peer in peers)} wait for the machine {machine}, which is not Ready"
    if not _whole_without_missing(view):
        remedy = f"bring {machine} back, and delete no claim: its disks may have the only copy, or the newest one, of "
        remedy += "some slots; docs/operations.md, A dead machine"
    else:
        claims = " ".join(claim for peer in peers for claim in peer.claims)
        commands = [f"kubectl delete pvc {claims} --wait=false"] if claims else []
        commands += [f"kubectl delete pod {pods} --force --grace-period=0"]
        remedy = f"wait for {machine}; or, if it never returns: {'; '.join(commands)}. Pods that answer serve every "
        remedy += "slot, so no key is lost; the deleted pods start blank elsewhere, and a run makes them replicas"
    return Reason(code="machine-not-ready", message=message, remedy=remedy)


def _whole_without_missing(view: ClusterView) -> bool:
    """True where nothing depends on the missing pods: those that answer serve every slot, and none of them knows of a
    slot that a missing pod owns.
    """
    owned_elsewhere = any(node.others[node_id].slots for node_id, nodes in view.unlisted().items() for node in nodes)
    return view.serves and view.agreed and not owned_elsewhere


def held_takeovers(decision: Plan | Refusal) -> list[Failover]:
    """The failovers without votes that wait for proof."""
    if isinstance(decision, Refusal):
        return []
    steps = (step for held in decision.held_back for step in held.steps)
    return [step for step in steps if isinstance(step, Failover) and step.takeover]


def of_takeovers(decision: Plan | Refusal, view: ClusterView) -> list[Reason]:
    """The reason where a majority of the masters is missing, and nothing proves that they do not run."""
    takeovers = held_takeovers(decision)
    if not takeovers:
        return []
    slots = SlotSet.union_of(step.slots for step in takeovers)
    unproven = ", ".join(peer.pod for peer in view.unreachable if not peer.not_running) or "no pod"
    message = (
        f"too few masters are left to elect one for the slots {slots.listed()}: "
        f"{', '.join(view.name(step.candidate) for step in takeovers)} could take over without votes, which is safe "
        f"only if the missing masters do not run; not known to be stopped: {unproven}"
    )
    remedy = (
        "bring the pods back, or delete those that cannot run; or, if you are certain that no server of theirs runs: "
        f"python -m bootstrap apply --accept-takeover {takeover_fingerprint(absent(view))}, or "
        "BOOTSTRAP_ACCEPT_TAKEOVER in the settings"
    )
    return [Reason(code="takeover-unproven", message=message, remedy=remedy)]


def of_rejected(rejected: Iterable[Rejected], view: ClusterView) -> tuple[Reason, ...]:
    """One reason for each write that a server did not accept."""
    return tuple(of_rejection(describe(no.write, view), view.name(recipient(no.write)), no.why) for no in rejected)


def of_rejection(step: str, pod: str, why: str) -> Reason:
    """The reason for a write that a server did not accept: `step` in words, sent to `pod`, and the server's answer."""
    message = f"not accepted: {step}: {why}"
    if "OOM command not allowed" in why:
        remedy = (
            "raise maxmemory of the server that receives the keys: kubectl exec RECEIVING_POD -- redis-cli CONFIG SET "
            f"maxmemory BYTES, and the same in its redis.conf; then {AGAIN}"
        )
        return Reason(code="no-room", message=message, remedy=remedy)
    denied = why.startswith("NOPERM") or "unknown command" in why.lower()
    remedy = denied_remedy(pod, why) if denied else f"kubectl logs {pod}; then {AGAIN}"
    return Reason(code="step-rejected", message=message, remedy=remedy)


def denied_remedy(pod: str, why: str) -> str:
    """The remedy where a server refuses a command as such: its user lacks a right, or it does not know the command."""
    if "unknown command" in why.lower():
        return (
            "a rename-command in the redis.conf of the pods hides it, or a proxy answers: remove that line and restart "
            f"the pods, one after the other: kubectl delete pod {pod}; then {RUN_AGAIN}"
        )
    return _grant(pod, why)


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


def not_settled(steps: Sequence[Step], view: ClusterView, rejected: Sequence[Reason]) -> BootstrapError:
    """Why a run ends at its deadline: writes that were rejected, and steps that did not settle. Where nothing is left
    but to wait for links of replicas, these are named with their likely causes instead.
    """
    waiting = all(isinstance(step, Reattach | AwaitReplication) for step in steps)
    if waiting and view.link_troubles:
        error = links.error(view)
        return type(error).because([*rejected, *error.reasons])
    return NotYet.because([*rejected, of_unsettled(steps, view)])


def of_unsettled(steps: Sequence[Step], view: ClusterView) -> Reason:
    """The reason for steps that were sent, or waited for, and did not settle before the deadline."""
    listed = "; ".join(_first([describe(step, view) for step in steps], LISTED_MAX))
    if not view.unreachable and any(view.unlinked()) and any(isinstance(step, Meet | AwaitMesh) for step in steps):
        return _blocked_bus(listed, view)
    if any(isinstance(step, Replicate | Reattach | AwaitReplication) for step in steps):
        remedy = (
            f"a first copy takes time: kubectl logs of the replica shows it; raise BOOTSTRAP_DEADLINE_S, or {AGAIN}"
        )
    else:
        pods = sorted({view.name(recipient(step)) for step in steps if isinstance(step, Write)})
        look = f"kubectl logs {pods[0]}" if pods else "python -m bootstrap verify"
        remedy = f"{AGAIN}; if the same steps remain then, {look} shows why"
    return Reason(code="not-settled", message=f"not done in time: {listed}", remedy=remedy)


def _blocked_bus(listed: str, view: ClusterView) -> Reason:
    """The reason where all nodes answer on their data ports, but not all links between nodes come up."""
    missing = max(bus.without_link(view), bus.blocked(view), key=len)
    message = f"{bus.message(missing, view)}; not done in time: {listed}"
    return Reason(code="bus-blocked", message=message, remedy=bus.remedy(missing))


def _first(texts: Sequence[str], count: int) -> list[str]:
    return [*texts] if len(texts) <= count else [*texts[:count], f"and {len(texts) - count} more"]
