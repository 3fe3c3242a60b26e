"""Ctrl-C, SIGTERM and SIGHUP as a recorded fact, and as an exception only where an exception is safe.

An exception that a signal handler raises can strike between any two instructions, also inside a `finally`, and leave a
process or a directory behind. So exceptions are raised only at the waits of this module and inside `interruptible`.
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
    """A signal has requested to stop."""


class StopSignals:
    """Records the signals that request to stop while its `with` block runs. Outside the main thread it records none."""

    def __init__(self, *, last: bool = False) -> None:
        """`last`: only the end of the process follows. After a first signal, further ones are then ignored, so that an
        impatient second Ctrl-C does not change the exit code.
        """
        self._last = last
        self._reading, self._writing = os.pipe()
        self._raises = False
        self._received = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # A signal that was ignored at the start (nohup) stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if self._last and self._received:
                signal.signal(number, signal.SIG_IGN)
                continue
            signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal.signal` gave is what it takes
        os.close(self._reading)
        os.close(self._writing)

    def pause(self, timeout_s: float) -> None:
        """Wait `timeout_s`. Raises Stopped as soon as a signal has arrived."""
        self.wait_for(None, timeout_s)

    def wait(self) -> None:
        """Wait for a signal without a time limit. Raises Stopped when it arrives."""
        self.wait_for(None, None)

    def wait_for(self, readable: int | None, timeout_s: float | None) -> bool:
        """Whether the descriptor became readable within `timeout_s` (None: no limit). Raises Stopped on a signal."""
        watched = [self._reading, *([] if readable is None else [readable])]
        ready, _, _ = select.select(watched, (), (), timeout_s)
        if self._received:
            raise Stopped
        return readable in ready

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Run code that expects KeyboardInterrupt on a signal; outside of it that becomes Stopped."""
        try:
            self._raises = True
            if self._received:
                raise Stopped
            yield
        except KeyboardInterrupt:
            raise Stopped from None
        finally:
            self._raises = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self._received:
            self._received = True
            os.write(self._writing, b"x")
        if self._raises:
            # Only once: a second signal must not interrupt the cleanup after the first.
            self._raises = False
            raise KeyboardInterrupt
