"""Fixtures for tests on real servers: every server program of this machine, and a separate cluster per test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bootstrap.kube import client as kube
from bootstrap.local.cluster import LocalCluster
from bootstrap.local.programs import Program, find_program
from tests.available_servers import SERVERS, SERVERS_SINCE_6
from tests.kube.api import KubeApi, kube_api, pod
from tests.real.testbed import StartTestbed, Testbed


@pytest.fixture
def start_testbed(tmp_path: Path) -> Iterator[StartTestbed]:
    """Starts testbeds. They are removed after the test."""
    clusters: list[LocalCluster] = []

    def start(
        program: Program, shards: int = 3, replicas: int = 1, *, config: Sequence[str] = (), servers: int | None = None
    ) -> Testbed:
        count = shards * (1 + replicas) if servers is None else servers
        directory = tmp_path / f"testbed{len(clusters)}"
        cluster = LocalCluster(program, directory, nodes=count, config=config)
        clusters.append(cluster)
        cluster.start()
        return Testbed(cluster, shards, replicas)

    yield start
    for cluster in clusters:
        cluster.stop(keep_data=False)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeApi]:
    """An API server that knows six pods; this process is inside of its cluster."""
    with kube_api(tmp_path / "account") as server:
        for number in range(6):
            server.put("pods", f"redis-app-{number}", pod(f"redis-app-{number}"))
        monkeypatch.setattr(kube, "ACCOUNT", server.folder)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        yield server


@pytest.fixture(params=SERVERS)
def program(request: pytest.FixtureRequest) -> Program:
    """Each server program of this machine in turn."""
    return find_program(str(SERVERS[request.param]))


@pytest.fixture
def any_program() -> Program:
    """One server program, for tests that do not depend on the kind."""
    return find_program()


@pytest.fixture(params=SERVERS_SINCE_6)
def acl_program(request: pytest.FixtureRequest) -> Program:
    """Each server program that has ACL users."""
    return find_program(str(SERVERS_SINCE_6[request.param]))


@pytest.fixture
def any_program_since_6() -> Program:
    """One server program that is newer than Redis 5: it has ACL users, and settings that slow it down."""
    return first_program(lambda _, version: version >= (6, 0), "any since Redis 6.0")


@pytest.fixture
def any_program_since_7() -> Program:
    """One server program that knows rights for single subcommands."""
    return first_program(lambda _, version: version >= (7, 0), "any since Redis 7.0")


@pytest.fixture
def migrating_program() -> Program:
    """One server program that moves slots key by key."""
    return first_program(
        lambda name, version: version < ((8, 4) if name == "Redis" else (9, 0)),
        "Redis before 8.4 or Valkey before 9.0, which move slots with MIGRATE",
    )


@pytest.fixture
def redis_program() -> Program:
    """One server program that is Redis."""
    return first_program(lambda name, _: name == "Redis", "Redis")


@pytest.fixture
def valkey_program() -> Program:
    """One server program that is Valkey, of a version whose replicas copy the open slots of their master."""
    return first_program(lambda name, version: name == "Valkey" and version >= (8, 0), "Valkey since 8.0")


def first_program(wanted: Callable[[str, tuple[int, ...]], bool], kind: str) -> Program:
    """The first server program of that kind, beginning with the default one. Without any, the test is skipped."""
    for program in (find_program(), *(find_program(str(path)) for path in SERVERS.values())):
        if wanted(program.name, tuple(int(number) for number in re.findall(r"\d+", program.version)[:2])):
            return program
    pytest.skip(f"no server of this kind on this machine: {kind}")
