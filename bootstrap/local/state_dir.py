"""The directory of a local cluster: what it holds, and the lock that says whether the cluster is up.

    DIR/lock            held (flock) by the process that runs the cluster; the kernel lets go of it when that ends
    DIR/cluster.json    the shape and the address of each pod, so that a later start finds the same cluster
    DIR/up.json         which process runs it now, since when, and the address of its DNS server
    DIR/redis-app-0/…   one directory a server, as its persistent volume

The lock decides whether a cluster is up; the process id is only for sending a signal, and only to the process that
wrote it: its start time stands beside it, so that a process that got the same id later is never signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bootstrap.errors import Misconfigured, WrongUsage
from bootstrap.model.node import Address

_FORMAT = 1
_LOOKED_AT_S = 1.0
_TRIES_MAX = 20
_POLL_S = 0.01
_OWN_FILES = frozenset({"lock", "cluster.json", "up.json", "daemon.log"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a directory says about its cluster."""

    shards: int
    replicas: int
    addresses: tuple[Address, ...]
    """One for each pod, by ordinal."""
    temporary: bool
    """Removed at the end; what a killed run left of it may be removed by the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningInfo:
    """Who runs the cluster of a directory now."""

    pid: int
    started: str
    """The process's start time, in the system's own words; only ever compared."""
    nameserver: str = ""
    """`ip:port`; empty while it starts."""


def default_directory() -> Path:
    """Where a cluster lives for which no directory is told: one a user, so that `down` and `status` find it."""
    return Path(tempfile.gettempdir()) / f"redis-cluster-local-{os.getuid()}"


class ClusterDirectory:
    """A directory that this process has locked: no other process runs a cluster in it until `leave`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def claim(cls, path: Path) -> Self:
        """Make and lock the directory. Raises WrongUsage when a cluster is up in it, else Misconfigured."""
        try:
            lock = _lock_directory(path)
        except OSError as error:
            raise Misconfigured(f"{path} cannot be used: {error.strerror}") from error
        if lock is None:
            raise WrongUsage(f"a local cluster is already up in {path}{_by(read_up(path))}; `local down` stops it")
        home = cls(path, lock)
        try:
            home._forget_leftovers()
            home.announce("")
        except BaseException:
            home.leave(remove=False)
            raise
        return home

    def remembered(self) -> Remembered | None:
        """What the last run here left. Raises Misconfigured when it cannot be understood."""
        return read_remembered(self.path)

    def remember(self, remembered: Remembered) -> None:
        """Note the cluster for the next start."""
        _write(self.path / "cluster.json", {"format": _FORMAT, **asdict(remembered)})

    def announce(self, nameserver: str) -> None:
        """Say who runs the cluster, and where its DNS server is."""
        own = RunningInfo(pid=os.getpid(), started=started_at(os.getpid()) or "", nameserver=nameserver)
        _write(self.path / "up.json", asdict(own))

    def leave(self, *, remove: bool) -> None:
        """Unlock; with `remove`, the directory and all in it goes first."""
        # The lock goes last: whoever waits for it finds everything done.
        if remove:
            _empty(self.path)
            (self.path / "lock").unlink()
            # Somebody who claims the directory in this very moment may have it.
            with contextlib.suppress(OSError):
                self.path.rmdir()
        else:
            (self.path / "up.json").unlink(missing_ok=True)
        os.close(self._lock)

    def _forget_leftovers(self) -> None:
        """Remove what a killed run left of a temporary cluster: nobody was promised its data."""
        remembered = self.remembered()
        if remembered is not None and remembered.temporary:
            _empty(self.path)


def is_up(path: Path) -> bool:
    """Whether some process runs a cluster in `path` now."""
    try:
        lock = _take_lock(path, make=False)
    except OSError:
        return False
    if lock is None:
        return True
    os.close(lock)
    return False


def read_up(path: Path) -> RunningInfo | None:
    """Who runs the cluster in `path`, if that process is still there."""
    try:
        up = RunningInfo(**json.loads((path / "up.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return up if up.started and up.started == started_at(up.pid) else None


def read_remembered(path: Path) -> Remembered | None:
    """The cluster of a directory; None where there is none. Raises Misconfigured when the file is damaged."""
    file = path / "cluster.json"
    try:
        read = json.loads(file.read_text())
        if read.pop("format") != _FORMAT:
            raise Misconfigured(f"{file} was written by another release of this program")
        addresses = tuple(Address(str(each["host"]), int(each["port"])) for each in read.pop("addresses"))
        return Remembered(addresses=addresses, **read)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misconfigured(f"{file} is damaged; a local cluster cannot be started from it") from error


def started_at(pid: int) -> str | None:
    """When a process started, in the system's own words; None when there is no such process."""
    try:
        # Fields after the last parenthesis: the name before it may hold anything. Field 22 of proc(5) is the start
        # time.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    asked = ["ps", "-o", "lstart=", "-p", str(pid)]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None


def _lock_directory(path: Path) -> int | None:
    """Make the directory, look whether it may be ours, and lock it; None when another process keeps the lock."""
    for remaining in reversed(range(_TRIES_MAX)):
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_uid != os.getuid():
                raise Misconfigured(f"{path} belongs to another user")
            if strange := sorted(entry.name for entry in path.iterdir() if not _is_own(entry)):
                raise Misconfigured(f"{path} holds something else than a local cluster: {', '.join(strange[:3])}")
            return _take_lock_patiently(path)
        except (FileNotFoundError, FileExistsError):
            # Another process may be removing it right now, between any two of these lines.
            if not remaining:
                raise
    return None


def _take_lock_patiently(path: Path) -> int | None:
    """As `_take_lock`, but not put off by a `status` that looks at the lock in the same moment."""
    deadline = time.monotonic() + _LOOKED_AT_S
    while (lock := _take_lock(path)) is None and read_up(path) is None and time.monotonic() < deadline:
        select.select((), (), (), _POLL_S)
    return lock


def _take_lock(path: Path, *, make: bool = True) -> int | None:
    """The locked descriptor of `path`/lock, or None when another has it. Raises FileNotFoundError without one."""
    lock = os.open(path / "lock", os.O_RDWR | (os.O_CREAT if make else 0), 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The file may have been removed, and made anew by another, between the open and the lock.
        if os.path.samestat(os.fstat(lock), (path / "lock").stat()):
            return lock
    except BlockingIOError:
        pass
    except FileNotFoundError:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _empty(path: Path) -> None:
    """Remove all that is in the directory except the lock."""
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()


def _is_own(entry: Path) -> bool:
    # By its name alone: whoever had the directory before may be removing it right now.
    return entry.name.removesuffix(".new") in _OWN_FILES or re.fullmatch(r"redis-app-\d+", entry.name) is not None


def _by(up: RunningInfo | None) -> str:
    return f" (process {up.pid})" if up is not None else ""


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write the file whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=2) + "\n")
    new.replace(path)
