"""Real servers on loopback addresses of their own, each started with the base's redis.conf as a pod starts it."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.available_servers import CLIENTS
from tests.waiting import wait_until

from .kustomize import BASE_SERVERS

DEADLINE_S = 15
a_cli = next(iter(CLIENTS.values()), Path("redis-cli"))
SHELLS = [shell for shell in ("sh", "bash", "busybox sh") if shutil.which(shell.split()[0])]
"""The shells of images: dash or bash of Debian, and busybox of Alpine."""
_counter = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Server:
    """One running server and a client of it."""

    address: str
    process: subprocess.Popen[bytes]
    client: redis.Redis


@contextmanager
def running(program: Path, directory: Path, *options: str, address: str = "") -> Iterator[Server]:
    """The server, started with the base's redis.conf and killed at the end. By default at an address of its own."""
    address = address or own_address()
    configuration = (BASE_SERVERS / "redis.conf").read_text(encoding="utf-8")
    # The server changes into `dir` as soon as it reads that line, so a later option cannot replace a missing /data.
    assert configuration.count("dir /data\n") == 1
    directory.mkdir(exist_ok=True)
    file = directory / "redis.conf"
    file.write_text(configuration.replace("dir /data\n", f"dir {directory}\n"), encoding="utf-8")
    log = (directory / "log").open("wb")
    arguments = [str(program), str(file), "--cluster-announce-ip", address, "--bind", address, *options]
    process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        client = client_of(address)
        server = Server(address, process, client)
        wait_until(lambda: answers(server), f"{program} answers: {file}")
        yield server
        client.close()
    finally:
        process.kill()
        process.wait()
        log.close()


def client_of(address: str) -> redis.Redis:
    """A client of the server at that address."""
    once = Retry(NoBackoff(), 0)  # only `wait_until` waits
    return redis.Redis(address, protocol=2, socket_timeout=DEADLINE_S, retry=once, decode_responses=True)


def answers(server: Server) -> bool:
    """Whether the server answers at all. Errors are answers."""
    assert server.process.poll() is None, "the server has ended"
    try:
        server.client.ping()
    except redis.ConnectionError as error:
        # redis-py raises subclasses of ConnectionError for a server that loads, and for wrong passwords.
        return type(error) is not redis.ConnectionError
    return True


def own_address() -> str:
    """A loopback address that no other test, worker or run uses, so that each server can have its usual port."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    address = f"127.{100 + worker % 100}.{os.getpid() % 250 + 1}.{next(_counter)}"
    with socket.socket() as probe:
        probe.bind((address, 0))
    return address


def join(replica: Server, master: Server) -> None:
    """Makes the first a linked replica of the second, and waits until both know each other."""
    replica.client.execute_command("CLUSTER", "MEET", master.address, "6379")
    master_id = str(master.client.execute_command("CLUSTER", "MYID"))
    replica_id = str(replica.client.execute_command("CLUSTER", "MYID"))
    wait_until(partial(knows, replica, master_id), "the replica knows the master")
    replica.client.execute_command("CLUSTER", "REPLICATE", master_id)
    wait_until(lambda: link_of(replica) == "up", "the link is up")
    wait_until(partial(knows, master, f"{replica_id} .* slave {master_id}"), "the master knows its replica")
    for server in (master, replica):
        wait_until(partial(serves, server), "the cluster is served")


def serves(server: Server) -> bool:
    """Whether the server reports the cluster as ok."""
    return "cluster_state:ok" in cluster_text(server, "INFO")


def knows(server: Server, pattern: str) -> bool:
    """Whether a line of its CLUSTER NODES matches the pattern and is not a handshake."""
    lines = cluster_text(server, "NODES").splitlines()
    return any(re.search(pattern, line) and "handshake" not in line for line in lines)


def cluster_text(server: Server, subcommand: str) -> str:
    """The output of CLUSTER NODES or CLUSTER INFO."""
    return subprocess.check_output([a_cli, "-h", server.address, "CLUSTER", subcommand], text=True)


def link_of(replica: Server) -> str:
    """`up` or `down`; `None` on a master."""
    return str(replica.client.info("replication").get("master_link_status"))


def role_of(server: Server) -> str:
    """`master` or `slave`."""
    return str(server.client.info("replication")["role"])
