"""Time, as a thing that is handed in: the tests bring a clock of their own. Here is the only `sleep` of the package."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bootstrap.errors import BootstrapError, Interrupted
from bootstrap.log import Log


class Clock(Protocol):
    """Seconds since some moment, and a way to let them pass."""

    def now(self) -> float:
        """Seconds; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Returns when `seconds` have passed, or raises what `check` raises, as soon as it would."""
        ...

    def check(self) -> None:
        """Raises what is to end the run (a signal); called only where nothing is half told."""
        ...


class SystemClock:
    """The machine's monotonic clock; `stop` ends waits. A signal handler calls it, and it only takes a note: an
    exception out of a handler could end up anywhere, also where it is swallowed or where a write is on its way.
    """

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._signal_name = ""

    def stop(self, signal_name: str) -> None:
        """From now on every wait and every check raises Interrupted."""
        self._signal_name = signal_name
        self._stopped.set()

    def now(self) -> float:
        """Seconds since the machine started, or so."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleeps. Raises Interrupted once stopped."""
        self._stopped.wait(seconds)
        self.check()

    def check(self) -> None:
        """Raises Interrupted once stopped."""
        if self._stopped.is_set():
            raise Interrupted(self._signal_name)


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


REPORT_EVERY_S = 5.0
"""Seconds between two log lines about the same wait."""


class Backoff:
    """Waits between looks, a little longer each time, and logs every few seconds what is waited for."""

    def __init__(self, clock: Clock, log: Log, *, longest_s: float = 1.0) -> None:
        self._clock, self._log = clock, log
        self._pause_s, self._longest_s = 0.05, longest_s
        self._log_at = clock.now() + 1.0

    def wait(
        self, event: str, describe: Callable[[], str], give_up: Callable[[], BootstrapError], *, deadline: Deadline
    ) -> None:
        """Lets a moment pass; every few seconds logs `event` with `describe()`. Raises `give_up()` at the deadline."""
        if deadline.passed:
            raise give_up()
        if self._clock.now() >= self._log_at:
            self._log.info(event, why=describe(), left_s=round(deadline.left_s))
            self._log_at = self._clock.now() + REPORT_EVERY_S
        self._clock.sleep(min(self._pause_s, deadline.left_s))
        self._pause_s = min(self._longest_s, self._pause_s * 1.5)


class Ticker:
    """Says when something is due that is to happen once in so many seconds, first when these have passed."""

    def __init__(self, clock: Clock, every_s: float) -> None:
        self._clock, self._every_s = clock, every_s
        self._at = clock.now() + every_s

    def due(self) -> bool:
        """True once in each interval."""
        if self._clock.now() < self._at:
            return False
        self._at = self._clock.now() + self._every_s
        return True
