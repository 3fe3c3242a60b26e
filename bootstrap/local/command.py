"""`python -m bootstrap local`: start, show and stop a cluster on this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from bootstrap.errors import Misconfigured, NotYet, WrongUsage
from bootstrap.local.addresses import NODES_MAX
from bootstrap.local.arguments import REPLICAS, SHARDS, SHARDS_MIN, add_arguments
from bootstrap.local.daemon import Daemon
from bootstrap.local.host import Host, Request, StartedCluster, overrides
from bootstrap.local.programs import Program
from bootstrap.local.servers import Server
from bootstrap.local.signals import Stopped, StopSignals
from bootstrap.local.state_dir import command_line, default_directory, is_running, read_record, read_running

__all__ = ["Apply", "add_arguments", "run"]

Apply = Callable[[Mapping[str, str]], int]
"""Runs `apply` with these variables, which override the environment. Returns its exit code."""

_DOWN_TIMEOUT_S = 60.0
_POLL_S = 0.02


def run(arguments: argparse.Namespace, *, apply: Apply, out: TextIO, last: bool = False) -> int:
    """Run the requested action and return the exit code. Raises BootstrapError with a message of one line.

    `last`: the process ends after this call (see `StopSignals`).
    """
    if arguments.action == "down":
        return _down(_directory(arguments), out)
    if arguments.action == "status":
        return _status(_directory(arguments), out)
    _check_usage(arguments)
    with StopSignals(last=last) as stops:
        if arguments.detach:
            return _up_detached(_request(arguments), apply, stops, out)
        return _up(_request(arguments), apply, stops, out, once=arguments.once)


def _check_usage(arguments: argparse.Namespace) -> None:
    """Raise WrongUsage for a shape or a combination of arguments that is never possible."""
    shards = SHARDS if arguments.shards is None else arguments.shards
    replicas = REPLICAS if arguments.replicas is None else arguments.replicas
    if shards < SHARDS_MIN:
        raise WrongUsage(f"--shards {shards}: must be {SHARDS_MIN} or more, the fewest masters of a Redis Cluster")
    if replicas < 0:
        raise WrongUsage(f"--replicas {replicas}: must be 0 or more")
    if shards * (1 + replicas) > NODES_MAX:
        raise WrongUsage(
            f"--shards {shards} --replicas {replicas}: more than {NODES_MAX} servers on one machine are not possible"
        )
    if arguments.detach and arguments.once:
        raise WrongUsage("--detach and --once exclude each other: --detach leaves the cluster running, --once stops it")


def _directory(arguments: argparse.Namespace) -> Path:
    return default_directory() if arguments.dir is None else Path(arguments.dir).absolute()


def _request(arguments: argparse.Namespace) -> Request:
    """The requested cluster. Nothing is created or locked yet."""
    directory = _directory(arguments)
    if arguments.once and arguments.dir is None:
        # Not the default directory: `--once` then works beside a cluster that is running there.
        directory = directory.with_name(f"{directory.name}-once-{os.getpid()}-{time.monotonic_ns():x}")
    return Request(
        directory=str(directory),
        temporary=arguments.dir is None,
        server=arguments.server,
        shards=arguments.shards,
        replicas=arguments.replicas,
        one_address=arguments.one_address,
    )


def _up(request: Request, apply: Apply, stops: StopSignals, out: TextIO, *, once: bool) -> int:
    """Run the cluster in this process until a signal, or with `once` until it is formed."""
    host = Host(request)
    cluster: StartedCluster | None = None
    formed = False
    try:
        cluster = host.start(stops.pause)
        code = _form(cluster, apply, stops, out)
        if code != 0:
            return code
        formed = True
        host.formed()
        if not once:
            _show(cluster, out, stop="Ctrl-C")
            stops.wait()
    except Stopped:
        _print(out, "Stopping." if formed else "Stopped before the cluster was formed.")
    finally:
        host.end()
        if cluster is not None and not cluster.temporary:
            _print(out, f"The data is kept in {cluster.directory}.")
    return 0 if formed else NotYet.exit_code


def _up_detached(request: Request, apply: Apply, stops: StopSignals, out: TextIO) -> int:
    """Run the cluster in a background process and return once it is formed."""
    daemon = Daemon(request, stops)
    try:
        cluster = daemon.start()
        code = _form(cluster, apply, stops, out)
        if code == 0:
            daemon.release()
            _show(cluster, out, stop=_down_command(cluster))
    except Stopped:
        _print(out, "Stopped before the cluster was formed.")
        code = NotYet.exit_code
    finally:
        daemon.end()
    return code


def _form(cluster: StartedCluster, apply: Apply, stops: StopSignals, out: TextIO) -> int:
    """Run the same `apply` as the Job. Returns its exit code."""
    _print(out, f"{len(cluster.addresses)} servers answer: {cluster.program}. DNS server: {cluster.nameserver}.")
    with stops.interruptible():
        code = apply(cluster.settings)
    if code != 0:
        _print(out, f"The cluster was not formed: apply ended with exit code {code}. Its servers are being stopped.")
    return code


def _show(cluster: StartedCluster, out: TextIO, *, stop: str) -> None:
    first = cluster.addresses[0]
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in overrides(os.environ, cluster).items())
    python = (
        f"from redis import RedisCluster; print(RedisCluster(host='{first.host}', port={first.port}).cluster_info())"
    )
    data = f"{cluster.directory} ({'removed when the cluster stops' if cluster.temporary else 'kept'})"
    for line in (
        f"The cluster is running: {cluster.shards} shards, replicas per shard: {cluster.replicas}.",
        f"  connect     redis-cli -c -h {first.host} -p {first.port}",
        f'  or          {shlex.quote(sys.executable)} -c "{python}"',
        f"  data        {data}",
        f"  DNS server  {cluster.nameserver}",
        f"  check       {variables} {command_line('verify')}",
        f"  stop        {stop}",
    ):
        _print(out, line)


def _down(directory: Path, out: TextIO) -> int:
    """Stop the cluster of a directory, whichever process runs it, and wait until it has ended."""
    if not is_running(directory):
        _print(out, _nothing_running(directory))
        return 0
    deadline = time.monotonic() + _DOWN_TIMEOUT_S
    signalled: int | None = None
    with StopSignals() as stops:
        try:
            while is_running(directory):
                # A process that has just locked the directory has not yet recorded its id: read it again each time.
                running = read_running(directory)
                if running is not None and running.pid != signalled:
                    os.kill(running.pid, signal.SIGTERM)
                    signalled = running.pid
                if time.monotonic() > deadline:
                    process = f"; its process is {signalled}" if signalled is not None else ""
                    raise NotYet(
                        f"the cluster in {directory} was still running after {_DOWN_TIMEOUT_S:g} s{process}; run the"
                        " command again"
                    )
                stops.pause(_POLL_S)
        except Stopped:
            raise NotYet(f"interrupted; the cluster in {directory} may still be stopping") from None
        except ProcessLookupError:
            pass  # the process ended between the look and the signal
        except PermissionError as error:
            raise Misconfigured(f"the cluster in {directory} belongs to another user, who has to stop it") from error
    left = "The data is kept." if directory.exists() else "Its temporary data is removed."
    _print(out, f"Stopped the cluster in {directory}. {left}")
    return 0


def _status(directory: Path, out: TextIO) -> int:
    """Show the cluster of a directory. Returns 0 when every server answers, else 1."""
    running = read_running(directory) if is_running(directory) else None
    if running is None:
        _print(out, _nothing_running(directory))
        return NotYet.exit_code
    record = read_record(directory)
    if record is None or not running.nameserver:
        _print(out, f"The cluster in {directory} is still starting.")
        return NotYet.exit_code
    _print(out, f"A cluster is running in {directory}: process {running.pid}, DNS server {running.nameserver}.")
    healthy = True
    for ordinal, address in enumerate(record.addresses):
        server = Server(Program(path=Path(), name="", version=""), directory / f"redis-app-{ordinal}", address)
        answers = server.answers()
        healthy = healthy and answers
        _print(out, f"  {server.name:<14}{address!s:<24}{'answers' if answers else 'does not answer'}")
    return 0 if healthy else NotYet.exit_code


def _nothing_running(directory: Path) -> str:
    """The line for a directory without a running cluster. A forgotten `--dir` is the likely cause."""
    hint = (
        " For a cluster that was started with --dir, give the same --dir." if directory == default_directory() else ""
    )
    return f"No cluster is running in {directory}.{hint}"


def _down_command(cluster: StartedCluster) -> str:
    return command_line("local", "down", *([] if cluster.temporary else ["--dir", cluster.directory]))


def _print(out: TextIO, line: str) -> None:
    print(line, file=out, flush=True)
