"""What the planner returns: a plan of phases with its findings, or a refusal with its reasons."""

from __future__ import annotations

from dataclasses import dataclass

from bootstrap.errors import Reason
from bootstrap.model.steps import Step, Write


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

    def __bool__(self) -> bool:
        return bool(self.phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why no step may be taken: every reason, not only the first."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that differs from the declared shape, in words for a person."""

    code: str
    message: str
    node: str | None = None
