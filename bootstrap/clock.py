"""Time, as a thing that is handed in: the tests bring a clock of their own. Here is the only `sleep` of the package."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Seconds since some moment, and a way to let them pass."""

    def now(self) -> float:
        """Seconds; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Returns when `seconds` have passed."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Seconds since the machine started, or so."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleeps; a signal whose handler raises ends it."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment after which a wait is given up."""

    clock: Clock
    at: float

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        """The moment that is `seconds` from now."""
        return cls(clock, clock.now() + seconds)

    @property
    def left_s(self) -> float:
        """Seconds that are left, never negative."""
        return max(0.0, self.at - self.clock.now())

    @property
    def passed(self) -> bool:
        """True once it is too late."""
        return self.clock.now() >= self.at

    def sooner(self, seconds: float) -> Deadline:
        """The same deadline, or `seconds` from now if that comes first."""
        return Deadline(self.clock, min(self.at, self.clock.now() + seconds))
