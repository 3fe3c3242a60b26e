"""The preStop hook: a master's place is taken before it goes, and nobody waits where there is nothing to hand over."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.at_hand import CLIENTS, SERVERS

from .kustomize import BASE, BASE_SERVERS, build
from .servers import Server, eventually, running

pytestmark = pytest.mark.skipif(not CLIENTS, reason="no redis-cli on this machine")
every_server = pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS.keys())
a_server = next(iter(SERVERS.values()), Path("redis-server"))
a_cli = next(iter(CLIENTS.values()), Path("redis-cli"))
SOON_S = 8.0
"""Far less than the script's own limit, and than the node timeout after which the others would elect a replica."""


@every_server
def test_a_replica_takes_over_before_the_master_goes(program: Path, tmp_path: Path) -> None:
    """When the hook ends, the other is the master, and a key that was written just before is there."""
    with shard(program, tmp_path) as (master, replica):
        master.client.set("written", "just before")
        took_s, words = stop(master, tmp_path)
        assert role_of(master) == "slave"
        assert role_of(replica) == "master"
        assert took_s < SOON_S
        assert words == [
            f"prestop.sh: asked {replica.address} 6379 to take over: OK",
            f"prestop.sh: {replica.address} 6379 has taken over",
        ]
        eventually(partial(serves, replica), "the new master serves")
        assert replica.client.get("written") == "just before"


def test_a_replica_just_goes(tmp_path: Path) -> None:
    """It has nothing to hand over; its master stays what it is."""
    with shard(a_server, tmp_path) as (master, replica):
        took_s, words = stop(replica, tmp_path)
        assert took_s < SOON_S
        assert words == []
        assert role_of(master) == "master"


@every_server
def test_a_master_that_nobody_follows_just_goes(program: Path, tmp_path: Path) -> None:
    """A node before it was formed, or one whose replicas are gone."""
    with running(program, tmp_path) as alone:
        took_s, words = stop(alone, tmp_path)
        assert took_s < SOON_S
        assert words == []


def test_a_server_that_hangs_or_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    """It cannot be asked for its role, so there is nothing that the hook could do for it."""
    with running(a_server, tmp_path) as server:
        server.process.send_signal(signal.SIGSTOP)
        took_s, _ = stop(server, tmp_path)
        assert took_s < 3 + SOON_S, "one question's own limit"
        server.process.kill()
        server.process.wait()
        took_s, _ = stop(server, tmp_path)
        assert took_s < SOON_S


def test_a_replica_that_hangs_holds_the_master_up_for_a_while_only(tmp_path: Path) -> None:
    """The machine keeps its connection open, so it still counts as linked; the limit ends that."""
    with shard(a_server, tmp_path) as (master, replica):
        replica.process.send_signal(signal.SIGSTOP)
        took_s, words = stop(master, tmp_path, PRESTOP_LIMIT_S="2")
        assert took_s < 2 + 3 + SOON_S, "the limit, and the question that was on its way"
        assert words == ["prestop.sh: no replica has taken over in time"]
        assert role_of(master) == "master"


def test_when_all_go_at_once_all_are_soon_gone(tmp_path: Path) -> None:
    """Scaled to 0: each runs its hook and then gets the signal, and nobody waits for another who has gone too."""
    with shard(a_server, tmp_path) as (master, replica):
        began = time.monotonic()
        hooks = {server.address: start(server, tmp_path) for server in (master, replica)}
        for server in (replica, master):
            hooks[server.address].wait(20)
            server.process.terminate()
        for server in (replica, master):
            server.process.wait(20)
        assert time.monotonic() - began < 2 * SOON_S


def test_of_two_replicas_the_linked_one_takes_over(tmp_path: Path) -> None:
    """One has lost its way to the master: its copy is old, so it is not asked."""
    with (
        shard(a_server, tmp_path) as (master, linked),
        running(a_server, tmp_path / "second") as other,
    ):
        join(other, master)
        other.client.config_set("masterauth", "wrong")
        master.client.config_set("requirepass", "secret")
        linked.client.config_set("masterauth", "secret")
        master.client.execute_command("AUTH", "secret")
        master.client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        eventually(lambda: link_of(other) == "down" and link_of(linked) == "up", "one is linked, the other is not")
        stop(master, tmp_path, REDISCLI_AUTH="secret")
        assert role_of(linked) == "master"


def test_the_kubelet_leaves_the_hook_its_time() -> None:
    """The hook's limit, two questions on their way, and the 10 s that a server gives its replicas before it ends."""
    pod = build(BASE).one("StatefulSet", "redis-app")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sh", "/etc/redis/prestop.sh"]
    assert "${PRESTOP_LIMIT_S:-12}" in (BASE_SERVERS / "prestop.sh").read_text(encoding="utf-8")
    assert pod["terminationGracePeriodSeconds"] >= 12 + 2 * 3 + 10


@contextmanager
def shard(program: Path, directory: Path) -> Iterator[tuple[Server, Server]]:
    """A cluster of one shard: a master with all slots, and its linked replica."""
    with running(program, directory / "master") as master, running(program, directory / "replica") as replica:
        master.client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        join(replica, master)
        yield master, replica


def join(replica: Server, master: Server) -> None:
    """Makes the one a linked replica of the other, known to both."""
    replica.client.execute_command("CLUSTER", "MEET", master.address, "6379")
    master_id = str(master.client.execute_command("CLUSTER", "MYID"))
    replica_id = str(replica.client.execute_command("CLUSTER", "MYID"))
    eventually(partial(knows, replica, master_id), "the replica knows the master")
    replica.client.execute_command("CLUSTER", "REPLICATE", master_id)
    eventually(lambda: link_of(replica) == "up", "the link is up")
    eventually(partial(knows, master, f"{replica_id} .* slave {master_id}"), "the master knows its replica")
    for server in (master, replica):
        eventually(partial(serves, server), "the cluster is served")


def serves(server: Server) -> bool:
    return "cluster_state:ok" in told(server, "INFO")


def knows(server: Server, words: str) -> bool:
    """Whether a line of its CLUSTER NODES has these words, and it is no handshake."""
    lines = told(server, "NODES").splitlines()
    return any(re.search(words, line) and "handshake" not in line for line in lines)


def told(server: Server, question: str) -> str:
    """The text of CLUSTER NODES or CLUSTER INFO, as redis-cli shows it."""
    return subprocess.check_output([a_cli, "-h", server.address, "CLUSTER", question], text=True)


def link_of(replica: Server) -> str:
    return str(replica.client.info("replication").get("master_link_status"))


def role_of(server: Server) -> str:
    return str(server.client.info("replication")["role"])


def start(server: Server, directory: Path, **environment: str) -> subprocess.Popen[str]:
    """The hook of that server, as the kubelet would run it."""
    return subprocess.Popen(
        ["sh", str(BASE_SERVERS / "prestop.sh")],
        env={
            "PATH": f"{a_cli.parent}:{os.defpath}",
            "REDIS_CLI_OPTIONS": f"-h {server.address}",
            "REDIS_SCRIPT_LOG": str(directory / f"hook-{server.address}"),
            **environment,
        },
        text=True,
    )


def stop(server: Server, directory: Path, **environment: str) -> tuple[float, list[str]]:
    """Runs the hook to its end: how long that took, seconds, and what stands in the container's log."""
    began = time.monotonic()
    assert start(server, directory, **environment).wait(30) == 0
    took_s = time.monotonic() - began
    log = directory / f"hook-{server.address}"
    return took_s, log.read_text(encoding="utf-8").splitlines() if log.exists() else []
