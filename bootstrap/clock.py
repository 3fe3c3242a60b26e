"""Time as a dependency: clocks, deadlines and waits. Tests pass a clock of their own.

Only here and in `local`, which shares no clock with the rest, does the program sleep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bootstrap.errors import BootstrapError, Interrupted
from bootstrap.log import Log


class Clock(Protocol):
    """A monotonic clock that can sleep and can be stopped."""

    def now(self) -> float:
        """Seconds since an unspecified moment; never decreases."""
        ...

    def sleep(self, seconds: float) -> None:
        """Returns after `seconds`, or raises as `check` does as soon as `check` would raise."""
        ...

    def check(self) -> None:
        """Raises Interrupted after a signal; called only where no write is under way."""
        ...


class SystemClock:
    """The machine's monotonic clock. A signal handler calls `stop`, which ends every wait.

    `stop` only sets a flag: an exception raised in a signal handler could surface anywhere, also where a library
    swallows it or in the middle of a write.
    """

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._signal_name = ""

    def stop(self, signal_name: str) -> None:
        """Makes every later `sleep` and `check` raise Interrupted."""
        self._signal_name = signal_name
        self._stopped.set()

    def now(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleeps, in seconds. Raises Interrupted once stopped."""
        self._stopped.wait(seconds)
        self.check()

    def check(self) -> None:
        """Raises Interrupted once stopped."""
        if self._stopped.is_set():
            raise Interrupted(self._signal_name)


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment at which a wait ends without success."""

    clock: Clock
    at: float

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(clock, clock.now() + seconds)

    @property
    def left_s(self) -> float:
        """Remaining seconds, never negative."""
        return max(0.0, self.at - self.clock.now())

    @property
    def passed(self) -> bool:
        """True from that moment on."""
        return self.clock.now() >= self.at

    def sooner(self, seconds: float) -> Deadline:
        """The same deadline, or the one `seconds` from now, whichever comes first."""
        return Deadline(self.clock, min(self.at, self.clock.now() + seconds))

    def later(self, seconds: float) -> Deadline:
        """The same deadline, postponed by `seconds`."""
        return Deadline(self.clock, self.at + seconds)


REPORT_EVERY_S = 5.0
"""Seconds between two log lines about one wait."""


class Backoff:
    """Pauses between attempts, each pause half as long again as the one before, up to `longest_s` seconds."""

    def __init__(self, clock: Clock, log: Log, *, longest_s: float = 1.0) -> None:
        self._clock, self._log = clock, log
        self._pause_s, self._longest_s = 0.05, longest_s
        self._log_at = clock.now() + 1.0

    def wait(
        self, event: str, describe: Callable[[], str], give_up: Callable[[], BootstrapError], *, deadline: Deadline
    ) -> None:
        """Sleeps once; raises `give_up()` after the deadline. Every few seconds logs `event` with the first remedy of
        `give_up()`, and with `describe()`, which is called after it.
        """
        if deadline.passed:
            raise give_up()
        if self._clock.now() >= self._log_at:
            remedy = give_up().remedy_field
            self._log.info(event, why=describe(), left_s=round(deadline.left_s), **remedy)
            self._log_at = self._clock.now() + REPORT_EVERY_S
        self._clock.sleep(min(self._pause_s, deadline.left_s))
        self._pause_s = min(self._longest_s, self._pause_s * 1.5)


class Ticker:
    """Something that is due once every `every_s` seconds, for the first time after `every_s` seconds."""

    def __init__(self, clock: Clock, every_s: float) -> None:
        self._clock, self._every_s = clock, every_s
        self._at = clock.now() + every_s

    def due(self) -> bool:
        """True once per interval."""
        if self._clock.now() < self._at:
            return False
        self._at = self._clock.now() + self._every_s
        return True
