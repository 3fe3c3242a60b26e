"""The outcome of the last run, and of the last ones that wrote something or failed, as annotations of the Lease, where
they stay after the Jobs and their logs are gone.

The Lease is the one object that a run may change anyway, so this needs no further right. kube-state-metrics does not
report annotations of Leases; what Prometheus knows of a run, it knows from the Job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from bootstrap.kube.client import Object
from bootstrap.model.outcome import Outcome

PREFIX = "redis-bootstrap/"
"""Of the annotations' names."""


KEPT = 10
"""Runs in `changes`, the newest first. A run that finds nothing to do pushes none of them out."""


def annotations_of(outcome: Outcome, ended: datetime, *, pod: str, before: Mapping[str, str]) -> dict[str, str]:
    """Word, exit code, steps, seconds, end in UTC, and the code of each reason once, in their order; in `changes` the
    same of the last runs that wrote something or failed, with their pods. `before` has the annotations so far.
    """
    codes = dict.fromkeys(reason.code for reason in outcome.reasons)
    values = {
        "outcome": outcome.outcome,
        "exit-code": str(outcome.exit_code),
        "steps": str(outcome.steps),
        "took-s": str(outcome.took_s),
        "ended-at": ended.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "reasons": ",".join(codes),
    }
    if outcome.steps or outcome.exit_code:
        earlier = _changes(before.get(f"{PREFIX}changes", ""))
        values["changes"] = "\n".join([json.dumps({"pod": pod, **values}), *earlier[: KEPT - 1]])
    return {f"{PREFIX}{name}": value for name, value in values.items()}


def _changes(text: str) -> list[str]:
    """The lines so far; without what somebody else has written there."""
    return [line for line in text.splitlines() if line.startswith("{")]


def annotated(lease: Object, annotations: Mapping[str, str]) -> Object:
    """The Lease with these annotations; everything else stays."""
    metadata = lease["metadata"]
    return {**lease, "metadata": {**metadata, "annotations": {**(metadata.get("annotations") or {}), **annotations}}}
