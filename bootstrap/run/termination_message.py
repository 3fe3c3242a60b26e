"""The container's termination message: the outcome, cut to the length that the kubelet keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bootstrap.log import Log
from bootstrap.model.outcome import Outcome, Verdict

TERMINATION_MESSAGE_MAX = 4096
"""Bytes. The kubelet cuts the message there, and a truncated JSON object cannot be parsed."""
REASON_MAX = 400
"""Characters to which each text of a reason is cut when the whole does not fit."""
SHARDS_SHOWN = 20
"""Lost shards that one single point of failure lists when the whole does not fit."""


def write_termination_message(outcome: Outcome, path: str, log: Log) -> None:
    """Writes the outcome where Kubernetes reads a container's termination message; only if that file exists."""
    try:
        if path and Path(path).is_file():
            Path(path).write_text(termination_message(outcome), encoding="utf-8")
    except OSError as error:  # the log has the outcome; nothing else depends on this copy
        log.warning("termination_message_not_written", why=error.strerror)


def termination_message(outcome: Outcome) -> str:
    """The outcome as a JSON object of at most 4096 bytes. First long texts and lists are cut, then reasons are dropped
    from the end; `reasons_dropped` counts them.
    """
    fields = {"event": "outcome", **outcome.as_fields()}
    if len(_json(fields)) > TERMINATION_MESSAGE_MAX:
        fields["placement"] = _shortened(outcome.placement).as_fields()
        fields["reasons"] = [{name: _cut(text) for name, text in reason.items()} for reason in fields["reasons"]]
    while len(_json(fields)) > TERMINATION_MESSAGE_MAX and fields["reasons"]:
        fields["reasons"] = fields["reasons"][:-1]
        fields["reasons_dropped"] = len(outcome.reasons) - len(fields["reasons"])
    return _json(fields).decode()


def _shortened(verdict: Verdict) -> Verdict:
    """The verdict with its first reason and its first single point of failure."""
    points = (replace(point, loses=point.loses[:SHARDS_SHOWN]) for point in verdict.single_points[:1])
    return replace(verdict, why=tuple(_cut(why) for why in verdict.why[:1]), single_points=tuple(points))


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _cut(text: str) -> str:
    return text if len(text) <= REASON_MAX else f"{text[: REASON_MAX - 1]}…"
