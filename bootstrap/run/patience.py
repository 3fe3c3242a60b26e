"""How long a run waits for what only a person can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bootstrap.clock import Deadline
from bootstrap.errors import Reason
from bootstrap.model import bus
from bootstrap.model.view import ClusterView

PERSON_S = 15.0
"""Seconds. A server repeats a failed save after 5 s, so a disk that has room again is noticed in time."""
FOR_A_PERSON = frozenset({"writes-refused", "bus-blocked"})
"""Violations that no write of this program ends, where nothing else is left."""
BUS_S = 90.0
"""Seconds for which servers that answer may not find each other at all. The rules of a NetworkPolicy that is created
with the pods take some seconds to arrive; temporary settings that do not help are given up after a while."""


@dataclass(slots=True)
class Patience:
    """Notes since when nothing but such violations is left, and since when a blocked bus holds up the run: servers
    report a link that is blocked in one direction now as up, now as down, so both may alternate.
    """

    _until: Deadline | None = None
    _bus_until: Deadline | None = None

    def limit(self, bad: Sequence[Reason], deadline: Deadline) -> Deadline:
        """The deadline for what is wrong now: a sooner one where only a person can help."""
        if not {reason.code for reason in bad} <= FOR_A_PERSON:
            self._until = None
            return deadline
        self._until = self._until or deadline.sooner(PERSON_S)
        return self._until

    def exhausted(self, reasons: Sequence[Reason], view: ClusterView, deadline: Deadline) -> bool:
        """Whether a phase has not settled for these reasons for so long that only a person can help: sooner where the
        nodes without a link know each other at their present addresses.
        """
        if {reason.code for reason in reasons} != {"bus-blocked"}:
            self._until = self._bus_until = None
            return False
        self._bus_until = self._bus_until or deadline.sooner(BUS_S)
        return (self.limit(reasons, deadline) if bus.blocked(view) else self._bus_until).passed
