"""How long a run waits for what only a person can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bootstrap.clock import Deadline
from bootstrap.errors import Reason

PERSON_S = 15.0
"""Seconds. A server repeats a failed save after 5 s, so a disk that has room again is noticed in time."""
FOR_A_PERSON = frozenset({"writes-refused", "bus-blocked"})
"""Violations that no write of this program ends, where nothing else is left."""


@dataclass(slots=True)
class Patience:
    """Notes since when nothing but such violations is left."""

    _until: Deadline | None = None

    def limit(self, bad: Sequence[Reason], deadline: Deadline) -> Deadline:
        """The deadline for what is wrong now: a sooner one where only a person can help."""
        if not {reason.code for reason in bad} <= FOR_A_PERSON:
            self._until = None
            return deadline
        self._until = self._until or deadline.sooner(PERSON_S)
        return self._until
