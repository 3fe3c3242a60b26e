"""`python -m bootstrap local`: the command line of a cluster on this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from bootstrap.errors import Misconfigured, NotYet, WrongUsage
from bootstrap.local.addresses import NODES_MAX
from bootstrap.local.arguments import REPLICAS, SHARDS, SHARDS_MIN, add_arguments
from bootstrap.local.daemon import Daemon
from bootstrap.local.host import Host, Hosted, Request, differing
from bootstrap.local.programs import Program
from bootstrap.local.servers import Server
from bootstrap.local.signals import Stopped, Stops
from bootstrap.local.state_dir import default_directory, is_up, read_remembered, read_up

__all__ = ["Apply", "add_arguments", "run"]

Apply = Callable[[Mapping[str, str]], int]
"""Runs `apply` with these variables laid over the environment; the result is its exit code."""

_DOWN_TIMEOUT_S = 60.0
_POLL_S = 0.02


def run(arguments: argparse.Namespace, *, apply: Apply, out: TextIO, last: bool = False) -> int:
    """Do what the command line says; the result is the exit code. Raises BootstrapError with one line to show.

    `last`: the process ends after it (see `Stops`).
    """
    if arguments.action == "down":
        return _down(_directory(arguments), out)
    if arguments.action == "status":
        return _status(_directory(arguments), out)
    _check(arguments)
    with Stops(last=last) as stops:
        if arguments.detach:
            return _up_detached(_request(arguments), apply, stops, out)
        return _up(_request(arguments), apply, stops, out, once=arguments.once)


def _check(arguments: argparse.Namespace) -> None:
    """Raises WrongUsage for what no machine could do."""
    shards = SHARDS if arguments.shards is None else arguments.shards
    replicas = REPLICAS if arguments.replicas is None else arguments.replicas
    if shards < SHARDS_MIN:
        raise WrongUsage(f"--shards {shards}: a Redis Cluster has {SHARDS_MIN} masters or more")
    if replicas < 0:
        raise WrongUsage(f"--replicas {replicas}: must be 0 or more")
    if shards * (1 + replicas) > NODES_MAX:
        raise WrongUsage(f"--shards {shards} --replicas {replicas}: more than {NODES_MAX} servers on one machine")
    if arguments.detach and arguments.once:
        raise WrongUsage("--detach and --once exclude each other: one leaves the cluster running, the other does not")


def _directory(arguments: argparse.Namespace) -> Path:
    return default_directory() if arguments.dir is None else Path(arguments.dir).absolute()


def _request(arguments: argparse.Namespace) -> Request:
    """The claim of a directory follows later: nothing is made yet."""
    directory = _directory(arguments)
    if arguments.once and arguments.dir is None:
        # Never the place of a cluster that stays up: `make demo` works beside one.
        directory = directory.with_name(f"{directory.name}-once-{os.getpid()}-{time.monotonic_ns():x}")
    return Request(
        directory=str(directory),
        temporary=arguments.dir is None,
        server=arguments.server,
        shards=arguments.shards,
        replicas=arguments.replicas,
        one_address=arguments.one_address,
    )


def _up(request: Request, apply: Apply, stops: Stops, out: TextIO, *, once: bool) -> int:
    host = Host(request)
    hosted: Hosted | None = None
    formed = False
    try:
        hosted = host.start(stops.pause)
        code = _form(hosted, apply, stops, out)
        if code != 0:
            return code
        formed = True
        host.formed()
        if not once:
            _show(hosted, out, stop="Ctrl-C")
            stops.wait()
    except Stopped:
        _say(out, "Stopping." if formed else "Stopped before the cluster was formed.")
    finally:
        host.end()
        if hosted is not None and not hosted.temporary:
            _say(out, f"The data stays in {hosted.directory}.")
    return 0 if formed else NotYet.exit_code


def _up_detached(request: Request, apply: Apply, stops: Stops, out: TextIO) -> int:
    kept = Daemon(request, stops)
    try:
        hosted = kept.start()
        code = _form(hosted, apply, stops, out)
        if code == 0:
            kept.keep()
            _show(hosted, out, stop=_command("down", hosted))
    except Stopped:
        _say(out, "Stopped before the cluster was formed.")
        code = NotYet.exit_code
    finally:
        kept.end()
    return code


def _form(hosted: Hosted, apply: Apply, stops: Stops, out: TextIO) -> int:
    """Run the very same apply as the Job, on the very same kind of peers."""
    _say(out, f"{len(hosted.addresses)} servers answer, {hosted.program}; DNS on {hosted.nameserver} lists them.")
    with stops.interruptible():
        code = apply(hosted.settings)
    if code != 0:
        _say(out, f"The cluster was not formed (exit code {code}); its servers are being stopped.")
    return code


def _show(hosted: Hosted, out: TextIO, *, stop: str) -> None:
    first = hosted.addresses[0]
    by_hand = " ".join(f"{name}={shlex.quote(value)}" for name, value in differing(os.environ, hosted).items())
    python = (
        f"from redis import RedisCluster; print(RedisCluster(host='{first.host}', port={first.port}).cluster_info())"
    )
    data = f"{hosted.directory} ({'removed at the end' if hosted.temporary else 'kept'})"
    for line in (
        f"The cluster is up: {hosted.shards} shards, replicas of each: {hosted.replicas}.",
        f"  connect     redis-cli -c -h {first.host} -p {first.port}",
        f'  or          python -c "{python}"',
        f"  data        {data}",
        f"  nameserver  {hosted.nameserver}",
        f"  check       {by_hand} python -m bootstrap verify",
        f"  stop        {stop}",
    ):
        _say(out, line)


def _down(directory: Path, out: TextIO) -> int:
    """End the cluster of a directory, whichever process runs it, and wait until all of it is gone."""
    if not is_up(directory):
        _say(out, f"Nothing is up in {directory}.")
        return 0
    deadline = time.monotonic() + _DOWN_TIMEOUT_S
    told: int | None = None
    with Stops() as stops:
        try:
            while is_up(directory):
                # Who just began to start has not yet said who it is: look again.
                up = read_up(directory)
                if up is not None and up.pid != told:
                    os.kill(up.pid, signal.SIGTERM)
                    told = up.pid
                if time.monotonic() > deadline:
                    raise NotYet(f"the cluster in {directory} was still up after {_DOWN_TIMEOUT_S:g} s")
                stops.pause(_POLL_S)
        except Stopped:
            raise NotYet(f"interrupted; the cluster in {directory} may still be going down") from None
        except ProcessLookupError:
            pass  # it ended by itself just now
        except PermissionError as error:
            raise Misconfigured(f"the cluster in {directory} belongs to another user") from error
    _say(
        out,
        f"Stopped the cluster in {directory}" + (", data kept." if directory.exists() else ", nothing is left of it."),
    )
    return 0


def _status(directory: Path, out: TextIO) -> int:
    """Say what is up; exit code 0 when every server answers, 1 otherwise."""
    up = read_up(directory) if is_up(directory) else None
    remembered = read_remembered(directory) if up is not None else None
    if up is None or remembered is None or not up.nameserver:
        _say(out, f"Nothing is up in {directory}." if up is None else f"The cluster in {directory} is still starting.")
        return NotYet.exit_code
    _say(out, f"Up in {directory}: process {up.pid}, nameserver {up.nameserver}.")
    healthy = True
    for ordinal, address in enumerate(remembered.addresses):
        server = Server(Program(path=Path(), name="", version=""), directory / f"redis-app-{ordinal}", address)
        answers = server.answers()
        healthy = healthy and answers
        _say(out, f"  {server.name:<14}{address!s:<24}{'answers' if answers else 'does not answer'}")
    return 0 if healthy else NotYet.exit_code


def _command(action: str, hosted: Hosted) -> str:
    told = [] if hosted.temporary else ["--dir", shlex.quote(hosted.directory)]
    return " ".join(["python", "-m", "bootstrap", "local", action, *told])


def _say(out: TextIO, line: str) -> None:
    print(line, file=out, flush=True)
