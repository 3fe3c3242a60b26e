"""Real servers on loopback addresses of their own, each started with the base's redis.conf as a pod would start it."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .kustomize import BASE_SERVERS

DEADLINE_S = 15
_counter = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Server:
    """One running server, and how to reach it."""

    address: str
    process: subprocess.Popen[bytes]
    client: redis.Redis


@contextmanager
def running(program: Path, directory: Path, *options: str) -> Iterator[Server]:
    """The server, started with the base's redis.conf; killed at the end, since there is nothing of it to keep."""
    address = own_address()
    configuration = (BASE_SERVERS / "redis.conf").read_text(encoding="utf-8")
    # The server changes into `dir` as soon as it reads that line, so no later option can spare it a missing /data.
    assert configuration.count("dir /data\n") == 1
    directory.mkdir(exist_ok=True)
    file = directory / "redis.conf"
    file.write_text(configuration.replace("dir /data\n", f"dir {directory}\n"), encoding="utf-8")
    log = (directory / "log").open("wb")
    arguments = [str(program), str(file), "--cluster-announce-ip", address, "--bind", address, *options]
    process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        once = Retry(NoBackoff(), 0)  # what is waited for here is waited for in `eventually`
        client = redis.Redis(address, protocol=2, socket_timeout=DEADLINE_S, retry=once, decode_responses=True)
        server = Server(address, process, client)
        eventually(lambda: answers(server), f"{program} answers: {file}")
        yield server
        client.close()
    finally:
        process.kill()
        process.wait()
        log.close()


def answers(server: Server) -> bool:
    """Whether the server answers at all; errors are answers."""
    assert server.process.poll() is None, "the server has ended"
    try:
        server.client.ping()
    except redis.ConnectionError as error:
        # Loading and wrong passwords are ConnectionErrors too, in redis-py's eyes.
        return type(error) is not redis.ConnectionError
    return True


def eventually(condition: Callable[[], Any], what: str) -> None:
    """Waits until the condition holds, at most DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)


def own_address() -> str:
    """A loopback address that no other test, worker or run uses, so that each server can have its usual port."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    address = f"127.{100 + worker % 100}.{os.getpid() % 250 + 1}.{next(_counter)}"
    with socket.socket() as probe:
        probe.bind((address, 0))
    return address
