"""A guard that ends child processes when the process that started them ends, even by SIGKILL.

The guard is a process that leads a process group of its own and reads a pipe. Only this process holds the writing end.
All servers join the guard's group. When the pipe reaches its end, this process has ended, and the guard kills the
group. Linux's PR_SET_PDEATHSIG would need code between fork and exec, and it takes the end of the starting *thread* for
the end of the process; a process group works on every POSIX system. The group also keeps a terminal's Ctrl-C away from
the servers, so that this process can stop them in the right order.

SIGKILL loses no acknowledged write: a server with `appendonly yes` hands a write to the kernel before it replies.

This file is also the guard's program and runs by itself, without the package: it imports the standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

_GUARD_END_TIMEOUT_S: Final = 10.0
_GROUP_END_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.01


class ProcessGuard:
    """A process group whose members do not outlive this process."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=reading,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                process_group=0,
            )
        finally:
            os.close(reading)
        # Wait until the guard reports that it ignores signals. Until then a signal would end it: when this process ends
        # and the group has a stopped process in it, the kernel sends SIGHUP to the whole group.
        if self._guard.stdout is not None:
            with self._guard.stdout as output:
                output.readline()

    @property
    def group(self) -> int:
        """The process group for `subprocess.Popen(process_group=…)`."""
        return self._guard.pid

    @property
    def alive(self) -> bool:
        """Whether the guard is running; without it no process can join its group."""
        return self._guard.poll() is None

    def remove_at_end(self, directory: Path) -> None:
        """Make the guard also remove `directory` (absolute) after the last process of the group has ended."""
        self._send(b"+", directory)

    def keep_at_end(self, directory: Path) -> None:
        """Cancel `remove_at_end`."""
        self._send(b"-", directory)

    def release(self) -> None:
        """End all processes that are still in the group, and the guard."""
        os.close(self._writing)
        self._guard.wait(_GUARD_END_TIMEOUT_S)

    def _send(self, sign: bytes, directory: Path) -> None:
        os.write(self._writing, sign + os.fsencode(directory) + b"\0")


_lock = threading.Lock()
_own: ProcessGuard | None = None


def own_process_guard() -> ProcessGuard:
    """The guard of this process: started at the first call, replaced if it was killed, released at the exit."""
    global _own  # noqa: PLW0603 - there is one guard per process, for as long as the process lives
    with _lock:
        if _own is None or not _own.alive:
            _own = ProcessGuard()
            atexit.register(_own.release)
        return _own


def _guard() -> None:
    """The guard's program: wait for the end of standard input, kill the group, remove the directories."""
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    os.write(1, b"ready\n")
    entries = sys.stdin.buffer.read().split(b"\0")[:-1]
    group = os.getpgrp()
    # The process that kills the group must be outside of it. The leader stays inside until then: while the leader
    # lives, no other group can get this number.
    if os.fork() == 0:
        os.setpgid(0, 0)
        _end_group(group)
        for directory in _to_remove(entries):
            shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)
    signal.pause()


def _to_remove(entries: list[bytes]) -> list[bytes]:
    """The directories whose last entry has the sign `+`."""
    last: dict[bytes, bool] = {entry[1:]: entry[:1] == b"+" for entry in entries}
    return [directory for directory, remove in last.items() if remove]


def _end_group(group: int) -> None:
    deadline = time.monotonic() + _GROUP_END_TIMEOUT_S
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
        while time.monotonic() < deadline:
            select.select((), (), (), _POLL_S)
            os.killpg(group, 0)  # raises when the last process is gone


if __name__ == "__main__":
    _guard()
