"""A leash for child processes: they end when the process that holds it ends, however that happens, SIGKILL included.

A guard process leads a process group of its own and reads a pipe whose only writing end is here. All servers join that
group. When the pipe ends, so has its holder, and the guard kills the group. Compared with Linux's PR_SET_PDEATHSIG this
needs no code between fork and exec, does not mistake the end of the starting *thread* for that of the process, and
works wherever there are process groups. The group also keeps a terminal's Ctrl-C away from the servers: whoever started
them ends them in the right order.

SIGKILL loses nothing that was acknowledged: a server with `appendonly yes` has handed it to the kernel before it
answers.

This file is also the guard's program, run by itself without the package: it imports the standard library only.
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
        # It is there once it says so. Before, a signal would still end it: when a group with a stopped process in it
        # loses its holder, the kernel sends SIGHUP to all of it.
        if self._guard.stdout is not None:
            with self._guard.stdout as says:
                says.readline()

    @property
    def group(self) -> int:
        """The process group for `subprocess.Popen(process_group=…)`."""
        return self._guard.pid

    @property
    def holds(self) -> bool:
        """Whether the guard is there; its group cannot be joined without it."""
        return self._guard.poll() is None

    def remove_at_end(self, directory: Path) -> None:
        """Let the guard also remove `directory` (absolute), once its last process is gone."""
        self._tell(b"+", directory)

    def keep_at_end(self, directory: Path) -> None:
        """Take `remove_at_end` back."""
        self._tell(b"-", directory)

    def release(self) -> None:
        """End whoever is still in the group, and the guard."""
        os.close(self._writing)
        self._guard.wait(_GUARD_END_TIMEOUT_S)

    def _tell(self, sign: bytes, directory: Path) -> None:
        os.write(self._writing, sign + os.fsencode(directory) + b"\0")


_lock = threading.Lock()
_own: ProcessGuard | None = None


def own_process_guard() -> ProcessGuard:
    """The leash of this process, made at its first use and released at its end."""
    global _own  # noqa: PLW0603 - one a process is the point: it stands for the process's life
    with _lock:
        if _own is None or not _own.holds:
            _own = ProcessGuard()
            atexit.register(_own.release)
        return _own


def _guard() -> None:
    """The guard's life: wait for the end of standard input, then end the group, then remove what was asked for."""
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    os.write(1, b"ready\n")
    told = sys.stdin.buffer.read().split(b"\0")[:-1]
    group = os.getpgrp()
    # The killer must stand outside the group that it kills. The leader stays inside until then: while it lives, no
    # other group can get this number.
    if os.fork() == 0:
        os.setpgid(0, 0)
        _end_group(group)
        for directory in _to_remove(told):
            shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)
    signal.pause()


def _to_remove(told: list[bytes]) -> list[bytes]:
    wanted: dict[bytes, bool] = {entry[1:]: entry[:1] == b"+" for entry in told}
    return [directory for directory, remove in wanted.items() if remove]


def _end_group(group: int) -> None:
    deadline = time.monotonic() + _GROUP_END_TIMEOUT_S
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
        while time.monotonic() < deadline:
            select.select((), (), (), _POLL_S)
            os.killpg(group, 0)  # raises when the last one is gone


if __name__ == "__main__":
    _guard()
