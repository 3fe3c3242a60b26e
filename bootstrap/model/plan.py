"""What the planner returns: a plan of phases with its findings, or a refusal with its reasons."""

from __future__ import annotations

from dataclasses import dataclass

from bootstrap.errors import Reason
from bootstrap.model.left_over import known
from bootstrap.model.steps import AddSlots, MoveSlots, SetSlotState, Step, Write
from bootstrap.model.view import ClusterView


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Steps that may be done in any order and at the same time. The next phase waits until all of them are settled."""

    name: str
    why: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """Writes of one phase that wait, because pods that do not answer could show that they are wrong."""

    phase: str
    steps: tuple[Write, ...]
    pods: tuple[str, ...]
    """The pods that have to answer first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was found, and the phases that repair it, in order. Where every pod answers, a plan without phases means a
    healthy cluster.
    """

    findings: tuple[Finding, ...] = ()
    phases: tuple[Phase, ...] = ()
    held_back: tuple[HeldBack, ...] = ()
    """Only while pods do not answer."""
    then_refused: tuple[Reason, ...] = ()
    """Why a run will refuse once these phases are done, as far as that is known."""

    def __bool__(self) -> bool:
        return bool(self.phases)

    def premature(self, view: ClusterView) -> bool:
        """True where it ends a run, or gives slots to a master or begins to, and the view does not show which keys are
        left over: these contradict some moves.
        """
        next_steps = self.phases[0].steps if self.phases else ()
        giving = any(isinstance(step, AddSlots | MoveSlots | SetSlotState) for step in next_steps)
        return (giving or not self.phases) and not known(view)


REFUSAL_LIMIT_S = 3.0
STALE_RECORD_S = 35.0
"""Longer than the cluster's DNS caches, 30 s."""
_OF_STALE_RECORDS = frozenset({"two-clusters", "keys-outside", "member-elsewhere", "data-without-cluster"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why no step may be taken: every reason, not only the first."""

    reasons: tuple[Reason, ...]

    @property
    def lasts_s(self) -> float:
        """Seconds for which it has to last before a run refuses: looks at many nodes may show a state that never
        existed, and a stale DNS record may have an address that is another pod's by now.
        """
        return STALE_RECORD_S if any(each.code in _OF_STALE_RECORDS for each in self.reasons) else REFUSAL_LIMIT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that differs from the declared shape, in words for a person."""

    code: str
    message: str
    node: str | None = None
