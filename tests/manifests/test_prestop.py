"""The preStop hook: a replica takes over before its master stops, and other nodes stop immediately."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.available_servers import CLIENTS, SERVERS
from tests.waiting import wait_until

from .kustomize import BASE, BASE_SERVERS, build
from .servers import Server, a_cli, join, link_of, role_of, running, serves

pytestmark = pytest.mark.skipif(not CLIENTS, reason="no redis-cli on this machine")
every_server = pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS.keys())
a_server = next(iter(SERVERS.values()), Path("redis-server"))
ALONE = "echo role:master; echo connected_slaves:0"
STUB = """#!/bin/sh
cd {directory} || exit
case $* in
*FAILOVER*) echo OK; touch looks ;;
*NODES*)
  echo 'aa 127.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-16383'
  echo 'bb 127.0.0.2:6379@16379 slave aa 0 0 1 connected' ;;
-h*) echo master_link_status:up; echo slave_repl_offset:1 ;;
*) if [ -e looks ]; then echo >>looks; {after}; else echo role:master; echo connected_slaves:1; fi ;;
esac
"""
"""redis-cli of a master and its replica."""
SOON_S = 8.0
"""Far less than the time limit of the script, and than the node timeout after which a replica would be elected."""


@every_server
def test_a_replica_takes_over_before_the_master_stops(program: Path, tmp_path: Path) -> None:
    """When the hook ends, the replica is the master and has a key that was written just before."""
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
        wait_until(partial(serves, replica), "the new master serves")
        assert replica.client.get("written") == "just before"


@pytest.mark.parametrize("looks", [1, 4])
def test_a_master_that_has_just_lost_its_replica_waits_for_the_takeover(looks: int, tmp_path: Path) -> None:
    """A replica that takes over closes its link a moment before the master learns of it. If the master ended in that
    moment, it would close the connections of its clients instead of sending them to the replica.
    """
    words, took_s = stop_with_stub(tmp_path, f'[ "$(wc -l <looks)" -gt {looks} ] && echo role:slave || {ALONE}')
    assert words[-1] == "prestop.sh: 127.0.0.2 6379 has taken over"
    assert took_s < SOON_S


def test_a_replica_that_ends_while_it_is_asked_is_not_waited_for_long(tmp_path: Path) -> None:
    """Both pods end together: the master never becomes a replica."""
    words, took_s = stop_with_stub(tmp_path, ALONE)
    assert words == ["prestop.sh: asked 127.0.0.2 6379 to take over: OK"]
    assert took_s < SOON_S


def test_a_replica_stops_immediately(tmp_path: Path) -> None:
    """A replica stops without a failover, and its master keeps its role."""
    with shard(a_server, tmp_path) as (master, replica):
        took_s, words = stop(replica, tmp_path)
        assert took_s < SOON_S
        assert words == []
        assert role_of(master) == "master"


@every_server
def test_a_master_without_replicas_stops_immediately(program: Path, tmp_path: Path) -> None:
    """A node before the cluster is formed, or a master without replicas."""
    with running(program, tmp_path) as alone:
        took_s, words = stop(alone, tmp_path)
        assert took_s < SOON_S
        assert words == []


def test_a_server_that_hangs_or_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    """Its role is unknown, so the hook cannot do anything."""
    with running(a_server, tmp_path) as server:
        server.process.send_signal(signal.SIGSTOP)
        took_s, _ = stop(server, tmp_path)
        assert took_s < 3 + SOON_S, "the limit of one request"
        server.process.kill()
        server.process.wait()
        took_s, _ = stop(server, tmp_path)
        assert took_s < SOON_S


def test_a_replica_that_hangs_delays_the_master_by_the_limit_only(tmp_path: Path) -> None:
    """Its connection stays open, so it still counts as linked. The time limit ends the hook."""
    with shard(a_server, tmp_path) as (master, replica):
        replica.process.send_signal(signal.SIGSTOP)
        took_s, words = stop(master, tmp_path, PRESTOP_LIMIT_S="2")
        assert took_s < 2 + 3 + SOON_S, "the limit, and one request in flight"
        assert words == ["prestop.sh: no replica has taken over in time"]
        assert role_of(master) == "master"


def test_when_all_stop_at_the_same_time_none_waits(tmp_path: Path) -> None:
    """Scaled to 0: each pod runs its hook and then gets the signal. No hook waits for a pod that has stopped too."""
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
    """The other replica has lost its link to the master and has old data, so it is not a candidate."""
    with (
        shard(a_server, tmp_path) as (master, linked),
        running(a_server, tmp_path / "second") as other,
    ):
        join(other, master)
        master.client.set("written", "before")  # Redis 5 hands over nothing while the replication offset is 0
        other.client.config_set("masterauth", "wrong")
        master.client.config_set("requirepass", "secret")
        linked.client.config_set("masterauth", "secret")
        master.client.execute_command("AUTH", "secret")
        master.client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        wait_until(lambda: link_of(other) == "down" and link_of(linked) == "up", "one is linked, the other is not")
        stop(master, tmp_path, REDISCLI_AUTH="secret")
        assert role_of(linked) == "master"


def test_the_kubelet_leaves_the_hook_its_time() -> None:
    """The limit of the hook, two requests in flight, and the 10 s for which a server waits for its replicas."""
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


def stop_with_stub(directory: Path, after: str) -> tuple[list[str], float]:
    """Runs the hook of a master with one replica, with a redis-cli that answers as told once the replica was asked.
    Returns the lines in the log, and the time in seconds.
    """
    stub = directory / "redis-cli"
    stub.write_text(STUB.format(directory=directory, after=after), encoding="utf-8")
    stub.chmod(0o755)
    began, log = time.monotonic(), directory / "log"
    environment = {"PATH": f"{directory}:{os.defpath}", "REDIS_SCRIPT_LOG": str(log)}
    subprocess.run(["sh", str(BASE_SERVERS / "prestop.sh")], env=environment, timeout=30, check=True)
    return log.read_text(encoding="utf-8").splitlines(), time.monotonic() - began


def start(server: Server, directory: Path, **environment: str) -> subprocess.Popen[str]:
    """Starts the hook of that server, as the kubelet does."""
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
    """Runs the hook to its end. Returns the time in seconds and the lines in the log of the container."""
    began = time.monotonic()
    assert start(server, directory, **environment).wait(30) == 0
    took_s = time.monotonic() - began
    log = directory / f"hook-{server.address}"
    return took_s, log.read_text(encoding="utf-8").splitlines() if log.exists() else []
