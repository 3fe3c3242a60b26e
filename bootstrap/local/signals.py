"""Being asked to stop: Ctrl-C, SIGTERM and SIGHUP become a fact to look at, and an exception only where one is safe.

An exception that a signal handler raises can strike between any two instructions, also inside a `finally`; then a
process or a directory stays behind. So nothing is raised except at the waits of this module and, on request, inside
`interruptible`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """A signal asked to stop."""


class Stops:
    """Within the `with` block, signals that ask to stop are remembered. Other threads than the main one catch none."""

    def __init__(self, *, last: bool = False) -> None:
        """`last`: nothing but the end of the process comes after, so that whoever is impatient and signals again then
        must not change how it ends.
        """
        self._last = last
        self._reading, self._writing = os.pipe()
        self._raises = False
        self._asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # Whoever started this program with a signal ignored (nohup) meant it.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if self._last and self._asked:
                signal.signal(number, signal.SIG_IGN)
                continue
            signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal.signal` gave is what it takes
        os.close(self._reading)
        os.close(self._writing)

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._asked

    def pause(self, timeout_s: float) -> None:
        """Wait so long. Raises Stopped as soon as a signal has come."""
        self.wait_for(None, timeout_s)

    def wait(self) -> None:
        """Wait for a signal, without an end. Raises Stopped then."""
        self.wait_for(None, None)

    def wait_for(self, readable: int | None, timeout_s: float | None) -> bool:
        """Whether the file descriptor became readable in time. Raises Stopped as soon as a signal has come."""
        watched = [self._reading, *([] if readable is None else [readable])]
        ready, _, _ = select.select(watched, (), (), timeout_s)
        if self._asked:
            raise Stopped
        return readable in ready

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Run foreign code in which a signal raises KeyboardInterrupt, as it expects. Raises Stopped when one did."""
        try:
            self._raises = True
            if self._asked:
                raise Stopped
            yield
        except KeyboardInterrupt:
            raise Stopped from None
        finally:
            self._raises = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            os.write(self._writing, b"x")
        if self._raises:
            # Once: a second signal must not cut short the cleaning up after the first.
            self._raises = False
            raise KeyboardInterrupt
