"""What a run reports: the outcome as the last line, the table of nodes, the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from bootstrap.errors import Reason
from bootstrap.log import Log
from bootstrap.model.desired import Desired
from bootstrap.model.memory import mebibytes
from bootstrap.model.node import Node, Place, Role
from bootstrap.model.outcome import EVEN, Outcome, Skew
from bootstrap.model.plan import Plan
from bootstrap.model.unreachable import UnreachablePeer
from bootstrap.model.view import ClusterView, shard_numbers
from bootstrap.model.waits import Wait
from bootstrap.plan.describe import describe
from bootstrap.plan.rebalance import skew
from bootstrap.plan.upgrade import versions
from bootstrap.plan.verdict import judge


def outcome_of(
    outcome: str,
    view: ClusterView,
    *,
    exit_code: int,
    steps: int,
    took_s: float,
    reasons: Sequence[Reason] = (),
    off: Skew = EVEN,
    then: str = "",
    imported: Mapping[str, Any] | None = None,
) -> Outcome:
    """An outcome with the state of the cluster in `view`; `off` is its skew, `then` what a person can do next."""
    return Outcome(
        outcome=outcome,
        exit_code=exit_code,
        cluster=view.fingerprint(),
        shards=sum(1 for node in view.nodes if node.slots),
        nodes=len(view.nodes),
        slots_covered=len(view.claimed()),
        serving=view.serves,
        steps=steps,
        took_s=round(took_s, 2),
        placement=judge(view),
        skew=off,
        versions={version: len(pods) for version, pods in versions(view).items()},
        next=then,
        reasons=tuple(reasons),
        imported=imported or {},
    )


def print_outcome(outcome: Outcome, *, console: bool, log: Log, out: TextIO) -> None:
    """Prints the outcome as the last line: JSON for machines, or on a console text with every reason. Reasons with
    the same remedy are printed together, with the remedy once.
    """
    if not console:
        (log.info if outcome.exit_code == 0 else log.warning)("outcome", **outcome.as_fields())
        return
    by_remedy: dict[str, list[Reason]] = {}
    for reason in outcome.reasons:
        by_remedy.setdefault(reason.remedy, []).append(reason)
    for remedy, reasons in by_remedy.items():
        print(*(f"{reason.code}: {reason.message}" for reason in reasons), f"    → {remedy}", sep="\n", file=out)
    print(
        f"{outcome.outcome}: {outcome.shards} shards on {outcome.nodes} nodes, {outcome.slots_covered} slots covered, "
        + ("" if outcome.exit_code == 0 else "clients are served, " if outcome.serving else "clients are NOT served, ")
        + f"{outcome.steps} steps in {outcome.took_s} s, cluster {outcome.cluster or '-'} (exit {outcome.exit_code})"
        + (f"\n{outcome.next}" if outcome.next else ""),
        file=out,
        flush=True,
    )


def table(view: ClusterView) -> str:
    """The nodes as a table: a row per pod, shard by shard, each master before its replicas."""
    shard_of = shard_numbers(view)

    def order(node: Node) -> tuple[int, bool, int]:
        number = shard_of.get(node.node_id, len(view.nodes))
        return (number, node.role is Role.REPLICA, node.ordinal)

    rows: list[tuple[str, ...]] = [
        ("POD", "ROLE", "SHARD", "SLOTS", "KEYS", "MEMORY", "STATE", "LINK", "ADDRESS", "VERSION")
    ]
    rows += [_row(node, shard_of.get(node.node_id), view) for node in sorted(view.nodes, key=order)]
    rows += [_unreachable_row(peer) for peer in (*view.unreachable, *view.silent_spares)]
    rows += [(n.pod, "-", "-", "-", "-", "-", "spare", "-", str(n.address), n.version) for n in view.spares]
    if view.places:
        rows[0] += ("NODE", "ZONE")
        for number, row in enumerate(rows[1:], 1):
            place = view.places.get(row[0], Place())
            rows[number] = (*row, place.node or "-", place.zone or "-")
    return aligned(rows)


def plan_text(plan: Plan, view: ClusterView) -> str:
    """The plan for a person: findings, then each phase with its reason and at most twelve of its steps."""
    lines = [f"found: {finding.message}" for finding in plan.findings] or ["found: nothing to repair"]
    for number, phase in enumerate(plan.phases, 1):
        lines.append(f"{number}. {phase.name}: {phase.why}")
        words = [("wait: " if isinstance(step, Wait) else "") + describe(step, view) for step in phase.steps]
        lines += [f"   - {word.removeprefix('wait: ')}" for word in _shortened(words)]
    for held in plan.held_back:
        lines.append(f"held back until an answer from {', '.join(held.pods)}, {held.phase}:")
        lines += [f"   - {word}" for word in _shortened([describe(step, view) for step in held.steps])]
    return "\n".join(lines)


def skew_text(view: ClusterView, desired: Desired) -> str:
    """How far the shards are from their shares, as a sentence."""
    off = skew(view, desired)
    return (
        f"skew: a shard is up to {off.slots_percent:g} % off its share of slots, {off.memory_percent:g} % of memory; "
        f"the threshold is {desired.threshold_percent:g} % of slots"
    )


def plan_fields(plan: Plan, view: ClusterView) -> Mapping[str, Any]:
    """The plan for a log line: findings, and phases with all their steps as sentences."""
    return {
        "findings": [
            {"code": f.code, "message": f.message} | ({"node": f.node} if f.node else {}) for f in plan.findings
        ],
        "phases": [
            {"phase": phase.name, "why": phase.why, "steps": [describe(step, view) for step in phase.steps]}
            for phase in plan.phases
        ],
        "held_back": [
            {"phase": held.phase, "until": list(held.pods), "steps": [describe(step, view) for step in held.steps]}
            for held in plan.held_back
        ],
    }


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows as lines with aligned columns, two blanks apart."""
    rows = [tuple(row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(node: Node, shard: int | None, view: ClusterView) -> tuple[str, ...]:
    if node.role is Role.REPLICA:
        master = view.name(node.myself.master_id or "")
        link = f"{master} {'up' if node.replication.link_up else 'DOWN'}"
    else:
        link = "-"
    return (
        node.pod,
        node.role.value,
        "-" if shard is None else str(shard),
        node.slots.listed() or "-",
        str(node.keys),
        mebibytes(node.memory.used_bytes) if node.memory.used_bytes else "-",
        "ok" if node.serving else "FAIL",
        link,
        str(node.address),
        node.version,
    )


def _unreachable_row(peer: UnreachablePeer) -> tuple[str, ...]:
    return (peer.pod, "-", "-", "-", "-", "-", peer.why.value, "-", str(peer.address or "-"), "-")


def _shortened(words: list[str]) -> list[str]:
    shown = 12
    return words if len(words) <= shown + 1 else [*words[:shown], f"… and {len(words) - shown} more"]
