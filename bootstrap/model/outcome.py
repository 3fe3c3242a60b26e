"""The outcome of a run: what its last log line and its termination message contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bootstrap.errors import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class SinglePoint:
    """A Kubernetes node, or a zone, whose failure alone stops the cluster or loses a shard."""

    domain: str
    """`node` or `zone`."""
    name: str
    stops: bool
    """Without it no majority of masters is left, so that no replica can be elected."""
    loses: tuple[int, ...]
    """Shards of which every copy runs there, by the numbers of the table of nodes."""
    why: str
    """Both in words: `2 of 3 masters and all copies of shard 1 run there`."""

    def __str__(self) -> str:
        effect = ("stops the cluster" if self.stops else "") + (" and " if self.stops and self.loses else "")
        return f"{self.domain} {self.name} {effect}{'loses data' if self.loses else ''} ({self.why})"

    def as_fields(self) -> dict[str, Any]:
        """The object as the outcome has it."""
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "loses": list(self.loses)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How good the roles of a formed cluster are, for where its pods run."""

    verdict: str
    """`optimal`, `best possible here`, `improvable`, or `unknown` where it is not known where the pods run."""
    why: tuple[str, ...] = ()
    """What prevents a better placement, or each replica and each group of masters that could be placed better."""
    single_points: tuple[SinglePoint, ...] = ()
    """What may not fail. Empty also where the verdict is `unknown`."""

    def as_fields(self) -> dict[str, Any]:
        """The object as the outcome has it."""
        points = [point.as_fields() for point in self.single_points]
        return {"verdict": self.verdict, "why": list(self.why), "single_points": points}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """How far the least balanced shard is off its share, in percent of that share; 0 is perfect."""

    slots_percent: float
    memory_percent: float


EVEN = Skew(slots_percent=0.0, memory_percent=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The last line of the log. `outcome` is formed, repaired, scaled, reinitialised, adopted, returned, finished,
    imported, unchanged, planned, busy, refused or failed; `cluster` is the fingerprint; `steps` counts the writes that
    were done.
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
    versions: Mapping[str, int] = field(default_factory=dict)
    """How many pods run each version; more than one in a rollout."""
    next: str = ""
    """What a person can do now, with the command for it; "" for nothing."""
    reasons: tuple[Reason, ...] = ()
    imported: Mapping[str, Any] = field(default_factory=dict)
    """What `import` has copied and compared; empty for other verbs, whose outcome has no such field."""

    def as_fields(self) -> dict[str, Any]:
        """The fields of the JSON object, without its `event`."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if not self.imported:
            del fields["imported"]
        skewed = {"slots_percent": self.skew.slots_percent, "memory_percent": self.skew.memory_percent}
        reasons = [reason.as_fields() for reason in self.reasons]
        return {
            **fields,
            "placement": self.placement.as_fields(),
            "skew": skewed,
            "versions": dict(self.versions),
            "reasons": reasons,
        }
