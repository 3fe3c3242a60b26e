"""The base's redis.conf and its probes, against every available server."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.available_servers import CLIENTS, SERVERS, SERVERS_SINCE_6
from tests.waiting import wait_until

from .kustomize import BASE, BASE_SERVERS, build
from .servers import Server, a_cli, running, serves

every_server = pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS.keys())
every_client = pytest.mark.parametrize("cli", CLIENTS.values(), ids=CLIENTS.keys())
a_server = next(iter(SERVERS.values()), Path("redis-server"))
with_a_client = pytest.mark.skipif(not CLIENTS, reason="no redis-cli on this machine")
REDIS_5_0 = {
    "appendonly",
    "cluster-config-file",
    "cluster-enabled",
    "cluster-node-timeout",
    "dir",
    "port",
    "protected-mode",
    "repl-diskless-sync-delay",
    "save",
}
"""Directives in the redis.conf of Redis 5.0, the oldest supported server, which not every machine has for the tests."""
KEYS = 40_000
KEY_LOAD_DELAY_US = "50"
"""The node loads its data for about 4 s, and answers every 0.1 s meanwhile."""


@every_server
def test_every_server_accepts_each_setting_of_redis_conf(program: Path, tmp_path: Path) -> None:
    """The server starts with it, and CONFIG GET returns each of its settings."""
    wanted = {**directives(), "dir": str(tmp_path)}
    nodes_conf = wanted.pop("cluster-config-file")  # Redis 6.2 uses this setting, but CONFIG GET does not return it
    with running(program, tmp_path) as server:
        if program not in SERVERS_SINCE_6.values():  # the same holds for this one on Redis 5
            del wanted["cluster-enabled"]
            assert server.client.info("cluster") == {"cluster_enabled": 1}
        assert {name: server.client.config_get(name)[name] for name in wanted} == wanted
        assert (tmp_path / nodes_conf).exists()
        # The StatefulSet sets this one, not the file.
        assert server.client.config_get("cluster-announce-ip") == {"cluster-announce-ip": server.address}


def test_redis_conf_has_no_setting_that_is_newer_than_redis_5_0() -> None:
    """A server does not start with an unknown setting, so a new setting is looked up first and then added here."""
    assert directives().keys() <= REDIS_5_0


@with_a_client
@every_server
def test_an_unformed_node_is_alive_but_not_ready(program: Path, tmp_path: Path) -> None:
    """Otherwise the kubelet would kill it before the Job runs, or clients would reach a cluster that is not formed."""
    with running(program, tmp_path) as server:
        assert probe(server, "alive") == (0, "")
        assert probe(server, "ready") == (1, "cluster_state is not ok")


@with_a_client
def test_a_master_of_a_complete_cluster_is_ready(tmp_path: Path) -> None:
    """One node with all slots is enough. All servers start at the same time, because each needs 2 s to become ok."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(program, tmp_path / name)) for name, program in SERVERS.items()}
        for server in servers.values():
            take_all_slots(server)
        for server in servers.values():
            wait_until(partial(serves, server), "the cluster of one is ok")
        assert {name: probe(server, "ready") for name, server in servers.items()} == dict.fromkeys(servers, (0, ""))


@every_client
def test_each_client_program_gives_the_same_results(cli: Path, tmp_path: Path) -> None:
    """The probes depend on the output of redis-cli, not on its exit code, which differs between versions."""
    with running(a_server, tmp_path, "--requirepass", "secret") as server:
        assert probe(server, "alive", cli) == (0, "")
        assert probe(server, "ready", cli) == (1, "no answer to INFO, or the data is still loading")
        assert probe(server, "ready", cli, REDISCLI_AUTH="secret") == (1, "cluster_state is not ok")
        server.process.kill()
        server.process.wait()
        assert probe(server, "alive", cli, REDISCLI_AUTH="secret") == (1, "no answer to PING")


@with_a_client
@pytest.mark.parametrize("program", SERVERS_SINCE_6.values(), ids=SERVERS_SINCE_6.keys())
def test_a_loading_node_is_alive_but_not_ready(program: Path, tmp_path: Path) -> None:
    """A restart would only make the node load its data again."""
    commands = (f"*3\r\n$3\r\nSET\r\n$5\r\n{number:05}\r\n$1\r\n1\r\n" for number in range(KEYS))
    (tmp_path / "appendonly.aof").write_text("".join(commands), encoding="ascii")
    with running(program, tmp_path, "--key-load-delay", KEY_LOAD_DELAY_US) as server:
        alive, ready = probe(server, "alive"), probe(server, "ready")
        assert server.client.info("persistence")["loading"] == 1
        assert alive == (0, "")
        assert ready == (1, "no answer to INFO, or the data is still loading")


@with_a_client
def test_a_hung_node_is_neither_alive_nor_ready(tmp_path: Path) -> None:
    """The connection is accepted, but no answer comes. The probe ends by itself and reports it."""
    with running(a_server, tmp_path) as server:
        server.process.send_signal(signal.SIGSTOP)
        alive, ready = start_probe(server, "alive", a_cli), start_probe(server, "ready", a_cli)
        assert finish(alive) == (1, "no answer to PING")
        assert finish(ready) == (1, "no answer to INFO, or the data is still loading")


@with_a_client
def test_a_replica_is_ready_only_while_its_link_is_up(tmp_path: Path) -> None:
    """A rolling update waits for this: the next pod is replaced only when this one has its data."""
    without_delay = ("--repl-diskless-sync-delay", "0")
    with (
        running(a_server, tmp_path / "master", *without_delay) as master,
        running(a_server, tmp_path / "replica", *without_delay) as replica,
    ):
        replica.client.execute_command("CLUSTER", "MEET", master.address, "6379")
        take_all_slots(master)
        master_id = str(master.client.execute_command("CLUSTER", "MYID"))
        wait_until(lambda: serves(replica), "the replica knows the cluster")
        replica.client.execute_command("CLUSTER", "REPLICATE", master_id)
        wait_until(lambda: probe(replica, "ready") == (0, ""), "the replica is ready")
        master.process.kill()
        wait_until(
            lambda: probe(replica, "ready") == (1, "the link to the master is down"),
            "the replica reports the lost link",
        )
        assert probe(replica, "alive") == (0, "")


def test_the_kubelet_waits_longer_than_the_probe_takes() -> None:
    """The probe reaches its own time limit first and prints the reason. The kubelet would end it without a message."""
    (container,) = build(BASE).one("StatefulSet", "redis-app")["spec"]["template"]["spec"]["containers"]
    assert 'timeout "${ASK_LIMIT_S:-3}" ' in (BASE_SERVERS / "ask.sh").read_text(encoding="utf-8")
    assert "timeout 6 sh" in (BASE_SERVERS / "probe.sh").read_text(encoding="utf-8")
    wanted = {"startupProbe": ("started", 3 + 6), "livenessProbe": ("alive", 3), "readinessProbe": ("ready", 3 + 6)}
    for name, (check, takes_s) in wanted.items():
        assert container[name]["exec"]["command"] == ["sh", "/etc/redis/probe.sh", check]
        assert container[name]["timeoutSeconds"] > takes_s


def directives() -> dict[str, str]:
    """The base's redis.conf, as names and values."""
    lines = (BASE_SERVERS / "redis.conf").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    return {name: value.strip('"') for name, value in pairs}


def take_all_slots(server: Server) -> None:
    """Assigns all slots to the server."""
    server.client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))


def probe(server: Server, check: str, cli: Path = a_cli, **environment: str) -> tuple[int, str]:
    """Runs the probe as the kubelet does. Returns its exit code and its output."""
    return finish(start_probe(server, check, cli, **environment))


def start_probe(server: Server, check: str, cli: Path, **environment: str) -> subprocess.Popen[str]:
    """Starts the probe, with only this server and this redis-cli in its environment."""
    return subprocess.Popen(
        ["sh", str(BASE_SERVERS / "probe.sh"), check],
        env={"PATH": f"{cli.parent}:{os.defpath}", "REDIS_CLI_OPTIONS": f"-h {server.address}", **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(script: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and its output."""
    output, _ = script.communicate(timeout=10)
    return script.returncode, output.strip()


def test_the_end_of_the_log_of_a_server_that_ends_is_in_the_status_of_its_pod() -> None:
    """A run tells why a server does not start without the right to read logs."""
    (container,) = build(BASE).one("StatefulSet", "redis-app")["spec"]["template"]["spec"]["containers"]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
