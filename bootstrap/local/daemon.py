"""A local cluster that outlives its command: the background process that runs it, and the command's hold on it.

The command starts the keeper, hears that the servers answer, runs `apply`, and only then lets go. Until then the
keeper's standard input is the rope between them: should the command end, however that happens, the keeper sees the end
of its input and ends too.
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
from bootstrap.local.host import Host, Hosted, Request
from bootstrap.local.signals import Stopped, Stops

_READY_TIMEOUT_S = 90.0
_END_TIMEOUT_S = 30.0
_KEEP = b"keep\n"
_LINE_BYTES_MAX = 1 << 20
_BY_EXIT_CODE: dict[int, type[BootstrapError]] = {
    each.exit_code: each for each in (NotYet, WrongUsage, Refused, Misconfigured)
}


class Daemon:
    """The command's hold on a keeper; the same verbs as a `Host`."""

    def __init__(self, request: Request, stops: Stops) -> None:
        self._request = request
        self._stops = stops
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Hosted:
        """Start the keeper and wait until its servers answer. Raises what the keeper met, or Stopped."""
        # The package may have been found by the current directory alone; the keeper has to find the same one.
        path = os.pathsep.join(filter(None, (str(Path(bootstrap.__file__).parents[1]), os.environ.get("PYTHONPATH"))))
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "bootstrap.local.daemon", json.dumps(asdict(self._request))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            # A session of its own: neither the terminal's Ctrl-C nor its end is meant for the keeper.
            start_new_session=True,
        )
        _, hearing = _rope(process)
        if not self._stops.wait_for(hearing.fileno(), _READY_TIMEOUT_S):
            raise NotYet(f"the background process was not ready within {_READY_TIMEOUT_S:g} s")
        line = hearing.readline(_LINE_BYTES_MAX).decode(errors="replace")
        if not line.startswith("{"):
            raise NotYet("the background process ended before it was ready")
        said = json.loads(line)
        if "error" in said:
            raise _BY_EXIT_CODE.get(said["exit_code"], NotYet)(said["error"])
        return Hosted.from_json(line)

    def keep(self) -> None:
        """Let go: from now on only `local down` ends the cluster. Raises NotYet when the keeper is no longer there."""
        if self._process is None:
            raise NotYet("the background process was not started")
        speaking, hearing = _rope(self._process)
        try:
            speaking.write(_KEEP)
            speaking.flush()
        except BrokenPipeError:
            raise NotYet("the background process ended") from None
        # The keeper closes its side when it has let go: that is how it says that it heard.
        hearing.read()
        if self._process.poll() is not None:
            raise NotYet("the background process ended")
        speaking.close()
        hearing.close()
        # Never waited for: it outlives this process, and whoever adopts it then does that.
        self._process.returncode = 0
        self._process = None

    def end(self) -> None:
        """End the keeper and all it runs. Harmless after `keep`, or when nothing was started."""
        process, self._process = self._process, None
        if process is None:
            return
        speaking, hearing = _rope(process)
        with contextlib.suppress(BrokenPipeError):
            speaking.close()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its leash ends the servers
            process.wait()
        hearing.close()


def _rope(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """The keeper's standard input and output, which are always pipes here."""
    if process.stdin is None or process.stdout is None:
        raise NotYet("the background process has no pipes")
    return process.stdin, process.stdout


def main(arguments: list[str]) -> int:
    """The keeper's life: start, say so, wait to be let go, run until a signal. The result is the exit code."""
    with Stops(last=True) as stops:
        host = Host(Request(**json.loads(arguments[0])))
        try:
            hosted = host.start(lambda timeout_s: _watch_rope(stops, timeout_s))
            print(hosted.to_json(), flush=True)
            stops.wait_for(0, None)
            if os.read(0, len(_KEEP)) != _KEEP:
                return 0
            host.formed()
            _let_go(Path(hosted.directory))
            stops.wait()
        except Stopped:
            return 0
        except BootstrapError as error:
            print(json.dumps({"error": str(error), "exit_code": error.exit_code}), flush=True)
            return error.exit_code
        finally:
            host.end()
    return 0


def _watch_rope(stops: Stops, timeout_s: float) -> None:
    # Nothing is said down the rope before the keeper is ready: what can be read then is its end.
    if stops.wait_for(0, timeout_s):
        raise Stopped


def _let_go(directory: Path) -> None:
    """Leave the command's terminal and directory alone; what there is to say later goes into the cluster's own."""
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
