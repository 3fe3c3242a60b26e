"""The outcome of the last run as annotations of the Lease, where it stays after the Job and its log are gone.

The Lease is the one object that a run may change anyway, so this needs no further right. kube-state-metrics does not
report annotations of Leases; what Prometheus knows of a run, it knows from the Job.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from bootstrap.kube.client import Object
from bootstrap.model.outcome import Outcome

PREFIX = "redis-bootstrap/"
"""Of the annotations' names."""


def annotations_of(outcome: Outcome, ended: datetime) -> dict[str, str]:
    """Word, exit code, steps, seconds, end in UTC, and the code of each reason once, in their order."""
    codes = dict.fromkeys(reason.code for reason in outcome.reasons)
    values = {
        "outcome": outcome.outcome,
        "exit-code": str(outcome.exit_code),
        "steps": str(outcome.steps),
        "took-s": str(outcome.took_s),
        "ended-at": ended.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "reasons": ",".join(codes),
    }
    return {f"{PREFIX}{name}": value for name, value in values.items()}


def annotated(lease: Object, annotations: Mapping[str, str]) -> Object:
    """The Lease with these annotations; everything else stays."""
    metadata = lease["metadata"]
    return {**lease, "metadata": {**metadata, "annotations": {**(metadata.get("annotations") or {}), **annotations}}}
