"""Failovers that spread masters: an improvement of a cluster that is whole, so a run does not fail because of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bootstrap.model.desired import Desired
from bootstrap.model.plan import Phase
from bootstrap.model.steps import Leave, ManualFailover, Step
from bootstrap.model.view import ClusterView

FAILED_MAX = 2
"""Failovers of one run that may fail. Each of them has paused the writes of a shard for some seconds."""
FAILOVER_S = 6.0
"""Seconds after which a failover has succeeded or failed: servers give it up after 5 s. A second command before would
begin it anew, and the pause with it.
"""


@dataclass(slots=True)
class Spreading:
    """How many such failovers a run has tried, and how many have failed. Beyond a limit it tries no more.

    Each failover brings the cluster nearer to the best choice, so more of them than shards mean that something else
    moves masters at the same time.
    """

    tried: int = 0
    failed: int = 0
    trying: bool = False
    """True while one is under way."""
    failing_over: bool = False
    """True while a failover of any kind is under way."""

    def attainable(self, desired: Desired) -> Desired:
        """The desired shape, without spreading once it has failed too often."""
        given_up = self.failed >= FAILED_MAX or self.tried > desired.shards
        return replace(desired, spread_masters="off") if given_up else desired

    def begin(self, phase: Phase) -> None:
        """Notes that a phase begins."""
        self.trying = phase.name == "spread masters"
        self.failing_over = any(isinstance(step, ManualFailover) for step in phase.steps)
        self.tried += self.trying

    def limit_s(self, seconds: float) -> float:
        """In how many seconds the phase has to settle; `seconds` for every other phase."""
        return max(seconds, FAILOVER_S) if self.failing_over else seconds

    def end(self, unsettled: Iterable[Step]) -> None:
        """Notes that the phase has ended. The copy of the former master may take longer than the failover."""
        self.failed += self.trying and any(isinstance(step, ManualFailover) for step in unsettled)
        self.trying = False


def resizes(steps: Iterable[Step], view: ClusterView, desired: Desired) -> bool:
    """True where the steps take a pod out of the cluster, or a master off a pod that leaves."""
    return any(
        isinstance(step, Leave)
        or (isinstance(step, ManualFailover) and view.by_id[step.master].ordinal >= desired.nodes)
        for step in steps
    )
