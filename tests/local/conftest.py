"""Fixtures of the tests of `bootstrap.local`: every server program, the command line, waiting for conditions."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bootstrap.local.programs import Program, find_program, identify
from bootstrap.model.node import Address
from tests.available_servers import SERVERS

ROOT = Path(__file__).parents[2]
STUB = Path(__file__).with_name("stub.py")

for number in (signal.SIGINT, signal.SIGHUP):
    # Under nohup or in the background the signals are ignored, and child processes inherit that. They do not inherit a
    # handler.
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


def eventually(condition: Callable[[], object], *, timeout_s: float = 40.0) -> None:
    """Wait until the condition holds; fail after `timeout_s`."""
    never, deadline = threading.Event(), time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        never.wait(0.02)


def ask(address: Address, command: str) -> str:
    """The last line of a server's reply to one inline command."""
    with socket.create_connection((address.host, address.port), timeout=5) as connection:
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(4096).decode().splitlines()[-1]


def processes_in(directory: Path) -> list[int]:
    """The processes whose working directory is inside `directory`, as that of a server always is."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str((entry / "cwd").readlink()).startswith(str(directory)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


PROGRAMS = {"default": find_program()} | {name: identify(path) for name, path in SERVERS.items()}


@pytest.fixture(params=list(PROGRAMS))
def program(request: pytest.FixtureRequest) -> Program:
    """Each server program in turn."""
    return PROGRAMS[request.param]


@pytest.fixture
def default_program() -> Program:
    """One server program, for tests in which all would behave alike."""
    return PROGRAMS["default"]


@dataclass
class Shell:
    """Runs the command line in processes of their own, all with the same temporary directory."""

    temporary: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of every run."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("BOOTSTRAP_", "STUB_"))}
        return {**clean, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    @property
    def record(self) -> Path:
        """The file in which the stub records the settings that its `apply` received."""
        return self.temporary.parent / "settings.json"

    def start(
        self, *arguments: str, apply: str = "0", program: tuple[str, ...] = (str(STUB),)
    ) -> subprocess.Popen[str]:
        """Start one run. `apply`: the exit code of the stub's `apply`, or `wait` to stay inside it."""
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**self.environ, "STUB_APPLY": apply, "STUB_RECORD": str(self.record)},
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, apply: str = "0", program: tuple[str, ...] = (str(STUB),)) -> tuple[int, str, str]:
        """One run to its end: exit code, standard output, standard error."""
        process = self.start(*arguments, apply=apply, program=program)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def settings(self) -> dict[str, str]:
        """The settings that the stub's `apply` received."""
        read: dict[str, str] = json.loads(self.record.read_text())
        return read

    def read_until(self, process: subprocess.Popen[str], text: str) -> str:
        """The output of a run up to the first line with `text`."""
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if text in line:
                return seen
        raise AssertionError(f"ended without {text!r}: {seen}{process.stderr.read() if process.stderr else ''}")

    def nothing_is_left(self, directory: Path | None = None) -> bool:
        """Whether neither a process nor a temporary directory is left."""
        return not processes_in(directory or self.temporary) and not any(self.temporary.iterdir())


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """The command line. Processes that a failed test leaves running are killed."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    shell = Shell(temporary)
    yield shell
    for process in shell.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)
    eventually(lambda: not processes_in(tmp_path))
