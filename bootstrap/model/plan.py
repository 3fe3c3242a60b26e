"""TODO"""

from __future__ import annotations

from dataclasses import dataclass

from bootstrap.errors import Reason
from bootstrap.model.steps import (
    Step,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Steps that may be done in any order, all at once; the next phase waits until all of them are settled."""

    name: str
    why: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was found and what is to be done about it, in order. No phases is health."""

    findings: tuple[Finding, ...] = ()
    phases: tuple[Phase, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why nothing may be done, every reason at once."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as declared, in words for a person."""

    code: str
    message: str
    node: str | None = None
