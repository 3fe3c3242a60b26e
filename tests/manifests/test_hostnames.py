"""The component `hostnames`: the scripts of the build, run against real servers, and its place in every build."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.available_servers import CLIENTS, SERVERS
from tests.waiting import wait_until

from .kustomize import BASE_SERVERS, COMPONENTS, OVERLAYS, build, combine
from .servers import SHELLS, Server, a_cli, cluster_text, knows, running

HOSTNAMES = COMPONENTS / "hostnames"
every_server = pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS.keys())
every_shell = pytest.mark.parametrize("shell", SHELLS)
with_a_client = pytest.mark.skipif(not CLIENTS, reason="no redis-cli on this machine")
POD = "redis-app-0.redis-service.shop.svc.cluster.local"
INCLUDE = ["--include", "/run/redis/hostnames.conf"]
PEER = "1" * 40
MYSELF = "2" * 40


def knows_host_names(program: Path) -> bool:
    """Whether that server has the settings."""
    text = subprocess.check_output([program, "--version"], text=True)
    return " v=6." not in text and " v=5." not in text


a_server = next(filter(knows_host_names, SERVERS.values()), None)
with_a_server = pytest.mark.skipif(a_server is None, reason="no server on this machine knows host names")


@dataclass(frozen=True, slots=True)
class Pod:
    """The scripts of a pod, its server's program, and its name. `hostname` prints it as in a pod."""

    directory: Path
    program: Path
    shell: str = "sh"
    name: str = POD

    @property
    def written(self) -> Path:
        return self.directory / "hostnames.conf"

    @property
    def log(self) -> list[str]:
        file = self.directory / "log"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def run(self, script: str, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a script with the server's program in its PATH."""
        programs = self.directory / "bin"
        programs.mkdir(exist_ok=True)
        (programs / "hostname").write_text(
            f'#!/bin/sh\n[ "${{1-}}" = -f ] && echo {self.name} || echo redis-app-0\n', encoding="utf-8"
        )
        (programs / "hostname").chmod(0o755)
        server = programs / self.program.name
        server.unlink(missing_ok=True)
        server.symlink_to(self.program)
        return subprocess.run(
            [*self.shell.split(), str(self.directory / script), *map(str, arguments)],
            env={
                "PATH": f"{programs}:{a_cli.parent}:{os.defpath}",
                "REDIS_NODES_CONF": str(self.directory / "nodes.conf"),
                "REDIS_HOSTNAMES": str(self.written),
                "REDIS_SCRIPT_LOG": str(self.directory / "log"),
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def start(self, **variables: str) -> dict[str, str]:
        """What the init container writes for the server, by setting."""
        ended = self.run("hostnames.sh", self.written, **variables)
        assert (ended.returncode, ended.stderr) == (0, "")
        lines = self.written.read_text(encoding="utf-8").splitlines()
        return dict(line.split(" ", 1) for line in lines)


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """The directory with the scripts of the build."""
    for name, text in build(HOSTNAMES).one("ConfigMap", "redis-config")["data"].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@every_server
@every_shell
def test_every_server_starts_and_announces_the_name_if_it_can(shell: str, program: Path, scripts: Path) -> None:
    """Redis 7.0 and newer and Valkey announce the name of the pod. Older servers start, and announce none."""
    pod = Pod(scripts, program, shell)
    written = pod.start()
    with running(program, scripts / "data", "--include", str(pod.written)) as server:
        settings = server.client.config_get("cluster-announce-hostname") | server.client.config_get(
            "cluster-preferred-endpoint-type"
        )
    assert settings == written
    if knows_host_names(program):
        assert written == {"cluster-announce-hostname": POD, "cluster-preferred-endpoint-type": "hostname"}
    else:
        assert written == {}


@with_a_server
def test_a_domain_of_ones_own_replaces_that_of_the_cluster(scripts: Path) -> None:
    """The pod's name in that domain."""
    assert a_server
    written = Pod(scripts, a_server).start(REDIS_ANNOUNCED_DOMAIN="redis.example.com")
    assert written["cluster-announce-hostname"] == "redis-app-0.redis.example.com"


@with_a_server
def test_a_pod_without_a_domain_does_not_start(scripts: Path) -> None:
    """Clients could not resolve its name. The message names the cause."""
    assert a_server
    pod = Pod(scripts, a_server, name="redis-app-0")
    ended = pod.run("hostnames.sh", pod.written)
    assert ended.returncode == 1
    assert "serviceName" in ended.stderr


@with_a_server
@pytest.mark.parametrize(
    ("lines", "endpoint"),
    [
        ([f"{MYSELF} 10.0.0.2:6379@16379 myself,master - 0 0 1 connected"], "hostname"),
        ([f"{PEER} 10.0.0.1:6379@16379 master - 0 0 1 connected"], "ip"),
        ([f"{PEER} 10.0.0.1:6379@16379,,tls-port=0,shard-id=ab slave - 0 0 1 connected"], "ip"),
        ([f"{PEER} fd00::1:6379@16379,,tls-port=0,shard-id=ab master - 0 0 1 connected"], "ip"),
        ([f"{PEER} 10.0.0.1:6379@16379,a.example.com master - 0 0 1 connected"], "hostname"),
        (
            [f"{PEER} 10.0.0.1:6379@16379,a.example.com,tls-port=0,shard-id=ab master,fail - 0 0 1 -"],
            "hostname",
        ),
        (
            [
                f"{PEER} 10.0.0.1:6379@16379,a.example.com master - 0 0 1 connected",
                f"{MYSELF} 10.0.0.2:6379@16379,, myself,slave {PEER} 0 0 1 connected",
                f"{'3' * 40} 10.0.0.3:6379@16379 master - 0 0 2 connected",
            ],
            "ip",
        ),
    ],
    ids=["alone", "no names", "7.2 without a name", "IPv6", "names", "7.2 with a name", "one is missing"],
)
def test_clients_are_sent_to_names_only_if_all_members_have_one(scripts: Path, lines: list[str], endpoint: str) -> None:
    """A server would send clients to the host `?` for the others. Its own name does not count: it has one now."""
    assert a_server
    (scripts / "nodes.conf").write_text(
        "\n".join([*lines, "vars currentEpoch 6 lastVoteEpoch 0", ""]), encoding="utf-8"
    )
    assert Pod(scripts, a_server).start()["cluster-preferred-endpoint-type"] == endpoint


@with_a_server
@with_a_client
@every_shell
def test_names_are_used_as_soon_as_all_members_have_one(shell: str, scripts: Path) -> None:
    """One pod of a running cluster starts with its name while the other has none. Clients never get the host `?`."""
    assert a_server
    pod, data = Pod(scripts, a_server, shell), scripts / "data"
    with running(a_server, scripts / "other") as other:
        with running(a_server, data) as before:
            address = before.address
            before.client.execute_command("CLUSTER", "ADDSLOTS", "1")
            other.client.execute_command("CLUSTER", "ADDSLOTS", "0")
            before.client.execute_command("CLUSTER", "MEET", other.address, "6379")
            wait_until(partial(knows, before, f"{other.address}.* 0$"), "both know each other")
            wait_until(partial(knows, other, f"{address}.* 1$"), "both know each other")
        assert pod.start(REDIS_NODES_CONF=str(data / "nodes.conf"))["cluster-preferred-endpoint-type"] == "ip"
        with running(a_server, data, "--include", str(pod.written), address=address) as server:
            wait_until(partial(knows, server, f"{other.address}.* connected 0$"), "it is back")
            cli = {"REDIS_CLI_OPTIONS": f"-h {address}"}
            assert pod.run("renew-hostnames.sh", **cli).returncode == 0
            assert endpoint_of_slot_0(server) == other.address
            other.client.config_set("cluster-announce-hostname", "other.example.com")
            wait_until(lambda: ",other.example.com" in cluster_text(server, "NODES"), "the name has arrived")
            for _ in range(2):
                ended = pod.run("renew-hostnames.sh", **cli)
                assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
                assert endpoint_of_slot_0(server) == "other.example.com"
    assert pod.log == ["renew-hostnames.sh: all members announce host names, so clients are sent to them"]
    # A container that starts again in this pod reads the same file.
    assert "cluster-preferred-endpoint-type hostname\n" in pod.written.read_text(encoding="utf-8")


def endpoint_of_slot_0(server: Server) -> str:
    """The host to which the server sends clients for that slot."""
    ranges = server.client.execute_command("CLUSTER SLOTS")
    return next(str(master[0]) for first, _, master, *_ in ranges if first == 0)


@pytest.mark.parametrize(
    "order",
    [("hostnames",), ("tls",), ("hostnames", "tls"), ("tls", "hostnames"), ("hostnames", "auth", "hostnames", "tls")],
    ids="-".join,
)
def test_it_takes_effect_once_however_often_it_is_included(order: tuple[str, ...]) -> None:
    """One argument, one init container with the image of the server, and one volume."""
    built = combine(*(COMPONENTS / name for name in order))
    pod = built.one("StatefulSet", "redis-app")["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    places = [number for number, word in enumerate(server["args"]) if word == INCLUDE[1]]
    assert [server["args"][number - 1 : number + 1] for number in places] == [INCLUDE]
    (init,) = [each for each in pod["initContainers"] if each["name"] == "hostnames"]
    assert init["image"] == server["image"]
    assert [volume["name"] for volume in pod["volumes"]].count("run") == 1
    assert (init["command"][-1], {"name": "run", "mountPath": "/run/redis"} in server["volumeMounts"]) == (
        INCLUDE[1],
        True,
    )


def test_production_announces_names_and_the_base_does_not() -> None:
    """Through the component tls."""
    assert (
        INCLUDE[1]
        in build(OVERLAYS / "production").one("StatefulSet", "redis-app")["spec"]["template"]["spec"]["containers"][0][
            "args"
        ]
    )
    assert "hostname" not in (BASE_SERVERS / "redis.conf").read_text(encoding="utf-8")
