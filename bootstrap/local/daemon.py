"""A local cluster that outlives its command: the daemon (background process) that runs it, and the command's handle.

The command starts the daemon, waits until the servers answer, runs `apply`, and then releases the daemon. Until the
release, the daemon's standard input is a pipe from the command. If the command ends before, for whatever reason, the
daemon reads the end of that pipe and ends too.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

import bootstrap
from bootstrap.errors import BootstrapError, Misconfigured, NotYet, Refused, WrongUsage
from bootstrap.local.host import Host, Request, StartedCluster
from bootstrap.local.signals import Stopped, StopSignals

_READY_TIMEOUT_S = 90.0
_END_TIMEOUT_S = 30.0
_RELEASE = b"keep\n"
_LINE_BYTES_MAX = 1 << 20
_BY_EXIT_CODE: dict[int, type[BootstrapError]] = {
    each.exit_code: each for each in (NotYet, WrongUsage, Refused, Misconfigured)
}


class Daemon:
    """The command's handle on the background process. `start` and `end` are those of a `Host`."""

    def __init__(self, request: Request, stops: StopSignals) -> None:
        self._request = request
        self._stops = stops
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> StartedCluster:
        """Start the daemon and wait until its servers answer. Raises the daemon's own error, NotYet or Stopped."""
        # The current directory may be the only reason why this package was found; the daemon must find the same one.
        path = os.pathsep.join(filter(None, (str(Path(bootstrap.__file__).parents[1]), os.environ.get("PYTHONPATH"))))
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "bootstrap.local.daemon", json.dumps(asdict(self._request))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            # In a session of its own, the daemon gets neither the terminal's Ctrl-C nor its hangup.
            start_new_session=True,
        )
        _, output = _pipes(process)
        if not self._stops.wait_for(output.fileno(), _READY_TIMEOUT_S):
            raise NotYet(f"the background process was not ready within {_READY_TIMEOUT_S:g} s; run the command again")
        line = output.readline(_LINE_BYTES_MAX).decode(errors="replace")
        if not line.startswith("{"):
            raise NotYet("the background process ended before it was ready; run the command again")
        message = json.loads(line)
        if "error" in message:
            raise _BY_EXIT_CODE.get(message["exit_code"], NotYet)(message["error"])
        return StartedCluster.from_json(line)

    def release(self) -> None:
        """Leave the daemon running without this process; `local down` stops it. Raises NotYet when it has ended."""
        if self._process is None:
            raise NotYet("the background process has not been started")
        control, output = _pipes(self._process)
        try:
            control.write(_RELEASE)
            control.flush()
        except BrokenPipeError:
            raise NotYet("the background process ended; run the command again") from None
        # The daemon confirms the release by closing its standard output.
        output.read()
        if self._process.poll() is not None:
            raise NotYet("the background process ended; run the command again")
        control.close()
        output.close()
        # The daemon outlives this process, so nothing here waits for it; its next parent does. Without a return code,
        # Popen would warn about a process that is still running.
        self._process.returncode = 0
        self._process = None

    def end(self) -> None:
        """Stop the daemon and everything that it runs. Does nothing after `release` or before `start`."""
        process, self._process = self._process, None
        if process is None:
            return
        control, output = _pipes(process)
        with contextlib.suppress(BrokenPipeError):
            control.close()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its process guard ends the servers
            process.wait()
        output.close()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """The daemon's standard input and output, which are always pipes here."""
    if process.stdin is None or process.stdout is None:
        raise NotYet("the background process has no pipes")
    return process.stdin, process.stdout


def main(arguments: list[str]) -> int:
    """The daemon's program: start, report it, wait for the release, run until a signal. Returns the exit code."""
    with StopSignals(last=True) as stops:
        host = Host(Request(**json.loads(arguments[0])))
        try:
            started = host.start(lambda timeout_s: _pause(stops, timeout_s))
            print(started.to_json(), flush=True)
            stops.wait_for(0, None)
            if os.read(0, len(_RELEASE)) != _RELEASE:
                return 0
            host.formed()
            _detach(Path(started.directory))
            stops.wait()
        except Stopped:
            return 0
        except BootstrapError as error:
            print(json.dumps({"error": str(error), "exit_code": error.exit_code}), flush=True)
            return error.exit_code
        finally:
            host.end()
    return 0


def _pause(stops: StopSignals, timeout_s: float) -> None:
    """Wait `timeout_s`. Raises Stopped on a signal or when the command has ended."""
    # The command sends nothing before the daemon is ready: a readable standard input is at its end.
    if stops.wait_for(0, timeout_s):
        raise Stopped


def _detach(directory: Path) -> None:
    """Give up the command's terminal and working directory; from now on all output goes to DIR/daemon.log."""
    log = os.open(directory / "daemon.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 2)
    os.dup2(log, 1)
    os.close(log)
    os.close(null)
    os.chdir("/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
