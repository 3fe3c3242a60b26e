"""The outcome of a run, as the last log line and the container's termination message carry it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bootstrap.errors import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How good the roles of a formed cluster are, for where its pods run."""

    verdict: str
    """`optimal`, `best possible here`, `improvable`, or `unknown` where it is not known where the pods run."""
    why: tuple[str, ...] = ()
    """What prevents a better placement, or each replica and each group of masters that could be placed better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """How far the least balanced shard is off its share, in percent of that share; 0 is perfect."""

    slots_percent: float
    memory_percent: float


TERMINATION_MESSAGE_MAX = 4096
"""Bytes. The kubelet cuts the message there, and a truncated JSON object cannot be parsed."""
REASON_MAX = 400
"""Characters to which each text of a reason is cut when the whole does not fit."""


EVEN = Skew(slots_percent=0.0, memory_percent=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The last line of the log. `outcome` is formed, repaired, scaled, reinitialised, unchanged, planned, refused or
    failed; `cluster` is the fingerprint; `steps` counts the writes that were done.
    """

    outcome: str
    exit_code: int
    cluster: str
    shards: int
    nodes: int
    slots_covered: int
    serving: bool
    """Clients are served: every slot has an owner, and each node that answers reports cluster_state:ok."""
    steps: int
    took_s: float
    placement: Verdict = field(default_factory=lambda: Verdict(verdict="unknown"))
    skew: Skew = EVEN
    next: str = ""
    """What a person can do now, with the command for it; "" for nothing."""
    reasons: tuple[Reason, ...] = ()

    def as_fields(self) -> dict[str, Any]:
        """The fields of the JSON object, without its `event`."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        placement = {"verdict": self.placement.verdict, "why": list(self.placement.why)}
        skewed = {"slots_percent": self.skew.slots_percent, "memory_percent": self.skew.memory_percent}
        reasons = [reason.as_fields() for reason in self.reasons]
        return {**fields, "placement": placement, "skew": skewed, "reasons": reasons}

    def as_termination_message(self) -> str:
        """The JSON object in at most 4096 bytes. First long texts are cut, then reasons are dropped from the end;
        `reasons_dropped` counts them.
        """
        fields = {"event": "outcome", **self.as_fields()}
        if len(_json(fields)) > TERMINATION_MESSAGE_MAX:
            fields["placement"] = {**fields["placement"], "why": [_cut(why) for why in fields["placement"]["why"][:1]]}
            fields["reasons"] = [{name: _cut(text) for name, text in reason.items()} for reason in fields["reasons"]]
        while len(_json(fields)) > TERMINATION_MESSAGE_MAX and fields["reasons"]:
            fields["reasons"] = fields["reasons"][:-1]
            fields["reasons_dropped"] = len(self.reasons) - len(fields["reasons"])
        return _json(fields).decode()


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _cut(text: str) -> str:
    return text if len(text) <= REASON_MAX else f"{text[: REASON_MAX - 1]}…"
