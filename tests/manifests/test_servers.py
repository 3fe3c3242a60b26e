"""The base's redis.conf and its probes, against every real server at hand."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.at_hand import CLIENTS, SERVERS

from .kustomize import BASE, BASE_SERVERS, build
from .servers import Server, eventually, running

every_server = pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS.keys())
every_client = pytest.mark.parametrize("cli", CLIENTS.values(), ids=CLIENTS.keys())
a_server = next(iter(SERVERS.values()), Path("redis-server"))
with_a_client = pytest.mark.skipif(not CLIENTS, reason="no redis-cli on this machine")
a_cli = next(iter(CLIENTS.values()), Path("redis-cli"))
REDIS_5_0 = {
    "appendonly",
    "cluster-config-file",
    "cluster-enabled",
    "cluster-node-timeout",
    "dir",
    "port",
    "protected-mode",
    "repl-diskless-sync-delay",
}
"""Directives that are in the redis.conf of Redis 5.0, the oldest server that is promised and none that is at hand."""
KEYS = 40_000
KEY_LOAD_DELAY_US = "50"
"""A node that loads for some 4 s, and answers every 0.1 s meanwhile."""


@every_server
def test_redis_conf_means_to_every_server_what_it_says(program: Path, tmp_path: Path) -> None:
    """The server starts with it and gives back each line as its own configuration."""
    wanted = {**directives(), "dir": str(tmp_path)}
    nodes_conf = wanted.pop("cluster-config-file")  # Redis 6.2 obeys this one, but CONFIG GET does not show it
    with running(program, tmp_path) as server:
        assert {name: server.client.config_get(name)[name] for name in wanted} == wanted
        assert (tmp_path / nodes_conf).exists()
        # Said by the StatefulSet, not by the file.
        assert server.client.config_get("cluster-announce-ip") == {"cluster-announce-ip": server.address}


def test_redis_conf_has_no_word_that_is_newer_than_redis_5_0() -> None:
    """One unknown word keeps a server from starting; whoever adds one looks it up first, and then adds it here."""
    assert directives().keys() <= REDIS_5_0


@with_a_client
@every_server
def test_an_unformed_node_is_alive_but_not_ready(program: Path, tmp_path: Path) -> None:
    """Else the kubelet would kill it before the Job comes, or clients would be sent to a cluster that is none."""
    with running(program, tmp_path) as server:
        assert probe(server, "alive") == (0, "")
        assert probe(server, "ready") == (1, "cluster_state is not ok")


@with_a_client
def test_a_master_of_a_whole_cluster_is_ready(tmp_path: Path) -> None:
    """A cluster of one will do: all slots, state ok. All servers at a time, for each needs 2 s to become ok."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(program, tmp_path / name)) for name, program in SERVERS.items()}
        for server in servers.values():
            take_all_slots(server)
        for server in servers.values():
            eventually(partial(cluster_is_ok, server), "the cluster of one is ok")
        assert {name: probe(server, "ready") for name, server in servers.items()} == dict.fromkeys(servers, (0, ""))


@every_client
def test_each_client_program_tells_the_same(cli: Path, tmp_path: Path) -> None:
    """The probes rest on what redis-cli prints, and on no exit code, for these differ between its versions."""
    with running(a_server, tmp_path, "--requirepass", "secret") as server:
        assert probe(server, "alive", cli) == (0, "")
        assert probe(server, "ready", cli) == (1, "no answer to INFO, or the data is still loading")
        assert probe(server, "ready", cli, REDISCLI_AUTH="secret") == (1, "cluster_state is not ok")
        server.process.kill()
        server.process.wait()
        assert probe(server, "alive", cli, REDISCLI_AUTH="secret") == (1, "no answer to PING")


@with_a_client
@every_server
def test_a_loading_node_is_alive_but_not_ready(program: Path, tmp_path: Path) -> None:
    """However long the data takes to load, killing the node would only start it over."""
    commands = (f"*3\r\n$3\r\nSET\r\n$5\r\n{number:05}\r\n$1\r\n1\r\n" for number in range(KEYS))
    (tmp_path / "appendonly.aof").write_text("".join(commands), encoding="ascii")
    with running(program, tmp_path, "--key-load-delay", KEY_LOAD_DELAY_US) as server:
        alive, ready = probe(server, "alive"), probe(server, "ready")
        assert server.client.info("persistence")["loading"] == 1
        assert alive == (0, "")
        assert ready == (1, "no answer to INFO, or the data is still loading")


@with_a_client
def test_a_hung_node_is_neither_alive_nor_ready(tmp_path: Path) -> None:
    """The connection is taken by the machine, the answer never comes: the probe ends by itself and says so."""
    with running(a_server, tmp_path) as server:
        server.process.send_signal(signal.SIGSTOP)
        alive, ready = start_probe(server, "alive", a_cli), start_probe(server, "ready", a_cli)
        assert finish(alive) == (1, "no answer to PING")
        assert finish(ready) == (1, "no answer to INFO, or the data is still loading")


@with_a_client
def test_a_replica_is_ready_only_while_its_link_is_up(tmp_path: Path) -> None:
    """A rolling update waits for this: the next pod goes only when the data has arrived in this one."""
    at_once = ("--repl-diskless-sync-delay", "0")
    with (
        running(a_server, tmp_path / "master", *at_once) as master,
        running(a_server, tmp_path / "replica", *at_once) as replica,
    ):
        replica.client.execute_command("CLUSTER", "MEET", master.address, "6379")
        take_all_slots(master)
        master_id = str(master.client.execute_command("CLUSTER", "MYID"))
        eventually(lambda: cluster_is_ok(replica), "the replica knows the cluster")
        replica.client.execute_command("CLUSTER", "REPLICATE", master_id)
        eventually(lambda: probe(replica, "ready") == (0, ""), "the replica is ready")
        master.process.kill()
        eventually(lambda: probe(replica, "ready") == (1, "the link to the master is down"), "the replica saw it go")
        assert probe(replica, "alive") == (0, "")


def test_the_kubelet_waits_longer_than_the_probe_takes() -> None:
    """The probe gives up by itself and says why; cut off by the kubelet, it would leave no word."""
    (container,) = build(BASE).one("StatefulSet", "redis-app")["spec"]["template"]["spec"]["containers"]
    assert "timeout 3 " in (BASE_SERVERS / "ask.sh").read_text(encoding="utf-8")
    for name, question in {"startupProbe": "alive", "livenessProbe": "alive", "readinessProbe": "ready"}.items():
        assert container[name]["exec"]["command"] == ["sh", "/etc/redis/probe.sh", question]
        assert container[name]["timeoutSeconds"] > 3


def directives() -> dict[str, str]:
    """The base's redis.conf, as names and values."""
    lines = (BASE_SERVERS / "redis.conf").read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def cluster_is_ok(server: Server) -> bool:
    """What the server says of the cluster's state."""
    return "cluster_state:ok" in subprocess.check_output([a_cli, "-h", server.address, "CLUSTER", "INFO"], text=True)


def take_all_slots(server: Server) -> None:
    """Makes the server the master of everything."""
    server.client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))


def probe(server: Server, question: str, cli: Path = a_cli, **environment: str) -> tuple[int, str]:
    """Exit code and words of the probe script, asked as the kubelet would."""
    return finish(start_probe(server, question, cli, **environment))


def start_probe(server: Server, question: str, cli: Path, **environment: str) -> subprocess.Popen[str]:
    """The probe script, with nothing but this server and this redis-cli in its world."""
    return subprocess.Popen(
        ["sh", str(BASE_SERVERS / "probe.sh"), question],
        env={"PATH": f"{cli.parent}:{os.defpath}", "REDIS_CLI_OPTIONS": f"-h {server.address}", **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(script: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it said."""
    words, _ = script.communicate(timeout=10)
    return script.returncode, words.strip()
