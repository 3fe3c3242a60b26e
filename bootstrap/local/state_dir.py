"""The directory of a local cluster: its files, and the lock that shows whether the cluster is running.

    DIR/lock            locked (flock) by the process that runs the cluster; the kernel unlocks it when the process ends
    DIR/cluster.json    the shape and the address of each pod, so that a later start finds the same cluster
    DIR/up.json         the process that runs the cluster, its start time, and the address of the DNS server
    DIR/daemon.log      the output of a cluster in the background
    DIR/redis-app-0/…   one directory per server, like its persistent volume

A cluster is running exactly while DIR/lock is locked. The process id only serves to send a signal. The process's start
time is stored with it, so that another process that got the same id later is never signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bootstrap.errors import Misconfigured, WrongUsage
from bootstrap.model.node import Address

_FORMAT = 1
_PROBED_TIMEOUT_S = 1.0
_REMOVED_TIMEOUT_S = 10.0
_POLL_S = 0.01
_OWN_FILES = frozenset({"lock", "cluster.json", "up.json", "daemon.log", "keeper.log"})
"""`keeper.log` is what earlier versions wrote in place of `daemon.log`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord:
    """What `cluster.json` records of a cluster."""

    shards: int
    replicas: int
    addresses: tuple[Address, ...]
    """One per pod, by ordinal."""
    temporary: bool
    """The directory is removed at the end; if the run is killed, the next one removes its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningInfo:
    """What `up.json` records of the process that runs the cluster."""

    pid: int
    started: str
    """The start time of the process in the format of `started_at`; only compared, never parsed."""
    nameserver: str = ""
    """`ip:port` of the DNS server; empty until all servers answer."""


def default_directory() -> Path:
    """The directory of a cluster that was started without `--dir`: one per user, where `down` and `status` find it."""
    return Path(tempfile.gettempdir()) / f"redis-cluster-local-{os.getuid()}"


def command_line(*words: str) -> str:
    """A command of this program as a person can type it: with this interpreter, also outside its environment."""
    return shlex.join([sys.executable, "-m", "bootstrap", *words])


class ClusterDirectory:
    """A directory that this process has locked. No other process runs a cluster in it until `leave`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def claim(cls, path: Path) -> Self:
        """Create and lock the directory. Raises WrongUsage when a cluster is running in it, and Misconfigured when it
        cannot be used: other files, another owner, no access.
        """
        try:
            lock = _lock_directory(path)
        except OSError as error:
            raise Misconfigured(f"{path} cannot be used as the directory of a cluster: {error.strerror}") from error
        if lock is None:
            raise WrongUsage(
                f"a local cluster is already running in {path}{_by(read_running(path))}; stop it with:"
                f" {command_line('local', 'down', '--dir', str(path))}"
            )
        directory = cls(path, lock)
        try:
            directory._remove_temporary_leftovers()
            directory.announce("")
        except BaseException:
            directory.leave(remove=False)
            raise
        return directory

    def record(self) -> ClusterRecord | None:
        """What the last run recorded; None in a new directory. Raises Misconfigured when the record is damaged."""
        return read_record(self.path)

    def save(self, record: ClusterRecord) -> None:
        """Record the cluster for the next start."""
        _write(self.path / "cluster.json", {"format": _FORMAT, **asdict(record)})

    def announce(self, nameserver: str) -> None:
        """Record this process as the one that runs the cluster, with the address of its DNS server."""
        own = RunningInfo(pid=os.getpid(), started=started_at(os.getpid()) or "", nameserver=nameserver)
        _write(self.path / "up.json", asdict(own))

    def leave(self, *, remove: bool) -> None:
        """Unlock the directory; with `remove`, delete it and everything in it first."""
        # Unlock last: a process that waits for the lock then finds everything done.
        if remove:
            _empty(self.path)
            (self.path / "lock").unlink()
            # Another process may have claimed the directory since the lock file was removed.
            with contextlib.suppress(OSError):
                self.path.rmdir()
        else:
            (self.path / "up.json").unlink(missing_ok=True)
        os.close(self._lock)

    def _remove_temporary_leftovers(self) -> None:
        """Delete the files of a temporary cluster whose run was killed."""
        record = self.record()
        if record is not None and record.temporary:
            _empty(self.path)


def is_running(path: Path) -> bool:
    """Whether a process runs a cluster in `path` now."""
    try:
        lock = _try_lock(path, create=False)
    except OSError:
        return False
    if lock is None:
        return True
    os.close(lock)
    return False


def read_running(path: Path) -> RunningInfo | None:
    """The process that runs the cluster in `path`; None when that process no longer exists."""
    try:
        running = RunningInfo(**json.loads((path / "up.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return running if running.started and running.started == started_at(running.pid) else None


def read_record(path: Path) -> ClusterRecord | None:
    """The recorded cluster of a directory; None when there is none. Raises Misconfigured when the file is damaged."""
    file = path / "cluster.json"
    try:
        read = json.loads(file.read_text())
        if read.pop("format") != _FORMAT:
            raise Misconfigured(
                f"{file} was written by another version of this program; use that version, or another --dir"
            )
        addresses = tuple(Address(str(each["host"]), int(each["port"])) for each in read.pop("addresses"))
        return ClusterRecord(addresses=addresses, **read)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misconfigured(f"{file} is damaged: this cluster cannot be started again; use another --dir") from error


def started_at(pid: int) -> str | None:
    """The start time of a process, as text in a format of the operating system; None when there is no such process."""
    try:
        # Field 22 of proc(5), counted after the last parenthesis: the name in parentheses may hold any character.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None


def _lock_directory(path: Path) -> int | None:
    """Create the directory, check that it may be used, and lock it; None when another process keeps the lock."""
    deadline = time.monotonic() + _REMOVED_TIMEOUT_S
    while True:
        _make_directory(path)
        try:
            _check_content(path)
            return _lock(path)
        except FileNotFoundError:
            # Another process removed the directory after it was created here. The limit is a time and not a number of
            # tries: two processes in step can hit each other's removals many times in a row, but not for long.
            if time.monotonic() > deadline:
                raise
        select.select((), (), (), _POLL_S)


def _make_directory(path: Path) -> None:
    """Create the directory unless it exists. Raises FileExistsError when `path` is something else."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        # `mkdir` raises it, too, when another process removes the directory during the call.
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise


def _check_content(path: Path) -> None:
    """Raise Misconfigured when the directory belongs to another user or holds files that no local cluster has."""
    if path.stat().st_uid != os.getuid():
        raise Misconfigured(f"{path} belongs to another user; use another --dir")
    if foreign := sorted(entry.name for entry in path.iterdir() if not _is_own(entry)):
        raise Misconfigured(
            f"{path} holds files that are not of a local cluster: {', '.join(foreign[:3])}; use an empty directory as"
            " --dir"
        )


def _lock(path: Path) -> int | None:
    """As `_try_lock`, but wait out a `status` or `down` that holds the lock for a moment to see whether it is free."""
    deadline = time.monotonic() + _PROBED_TIMEOUT_S
    while (lock := _try_lock(path)) is None and read_running(path) is None and time.monotonic() < deadline:
        select.select((), (), (), _POLL_S)
    return lock


def _try_lock(path: Path, *, create: bool = True) -> int | None:
    """The locked descriptor of `path`/lock; None when another process has the lock. Raises FileNotFoundError when the
    file does not exist or, with `create`, when its directory does not.
    """
    lock = os.open(path / "lock", os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have removed the file, and a third one created it again, between the open and the lock.
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
    """Delete everything in the directory except the lock."""
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()


def _is_own(entry: Path) -> bool:
    # Only the name is checked: another process may be deleting the entry at this moment.
    return entry.name.removesuffix(".new") in _OWN_FILES or re.fullmatch(r"redis-app-\d+", entry.name) is not None


def _by(running: RunningInfo | None) -> str:
    return f" (process {running.pid})" if running is not None else ""


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replace the file in one step: a reader sees the old content or the new one."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=2) + "\n")
    new.replace(path)
