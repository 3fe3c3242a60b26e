"""Real servers for the tests: every kind that this machine has, each test with a cluster of its own."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bootstrap.__main__ import main
from bootstrap.clock import SystemClock
from bootstrap.local.cluster import LocalCluster, settings
from bootstrap.local.programs import Program, find_program
from bootstrap.local.servers import Server
from bootstrap.model.desired import Desired
from bootstrap.model.node import Node
from bootstrap.model.view import ClusterView
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from tests.available_servers import SERVERS


def until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Waits on a condition with a deadline."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)


@dataclass
class RunResult:
    """What one run of the program said."""

    exit_code: int
    text: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its JSON lines."""
        return [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]

    @property
    def outcome(self) -> dict[str, Any]:
        """The last line, which is the outcome."""
        last: dict[str, Any] = json.loads(self.text.splitlines()[-1])
        assert last["event"] == "outcome"
        return last


@dataclass
class Testbed:
    """A local cluster and the ways to run the program on it."""

    __test__ = False  # pytest collects classes whose names begin with Test

    cluster: LocalCluster
    shards: int = 3
    replicas: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    clock: SystemClock | None = None
    """That of the runs; without one, each has its own."""

    @property
    def desired(self) -> Desired:
        return Desired(shards=self.shards, replicas_per_shard=self.replicas, timeout_ms=5000)

    @property
    def variables(self) -> dict[str, str]:
        """What the program is told in its environment."""
        told = settings(nameserver=self.cluster.nameserver.address, shards=self.shards, replicas=self.replicas)
        return {**told, "BOOTSTRAP_DEADLINE_S": "60", "BOOTSTRAP_LOG": "json", **self.environment}

    def run(self, *words: str, **variables: str) -> RunResult:
        """The program in this process: `run("apply", BOOTSTRAP_DEADLINE_S="5")`."""
        out = io.StringIO()
        return RunResult(main(list(words), {**self.variables, **variables}, out, self.clock), out.getvalue())

    def view(self, *servers: Server) -> ClusterView:
        """What these servers, or all, say now. One that hangs is waited for: ask the others, where one does."""
        asked = servers or self.cluster.servers
        places = [(s.name, ordinal, s.address) for ordinal, s in enumerate(self.cluster.servers) if s in asked]
        nodes = Nodes(Credentials())
        try:
            answers = nodes.look(places)
        finally:
            nodes.close()
        found = (answers[pod, address] for pod, _, address in places)
        return ClusterView(nodes=tuple(node for node in found if isinstance(node, Node)))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[..., Testbed]]:
    """Starts labs; all of them are gone after the test."""
    clusters: list[LocalCluster] = []

    def start(
        program: Program, shards: int = 3, replicas: int = 1, *, config: Sequence[str] = (), servers: int | None = None
    ) -> Testbed:
        count = shards * (1 + replicas) if servers is None else servers
        directory = tmp_path / f"lab{len(clusters)}"
        cluster = LocalCluster(program, directory, nodes=count, config=config)
        clusters.append(cluster)
        cluster.start()
        return Testbed(cluster, shards, replicas)

    yield start
    for cluster in clusters:
        cluster.stop(keep_data=False)


@pytest.fixture(params=SERVERS)
def program(request: pytest.FixtureRequest) -> Program:
    """Each server program of this machine in turn."""
    return find_program(str(SERVERS[request.param]))


@pytest.fixture
def any_program() -> Program:
    """One server program, for what does not depend on the kind."""
    return find_program()


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
    """One server program that is Valkey, of a version whose replicas copy the marks of open slots."""
    return first_program(lambda name, version: name == "Valkey" and version >= (8, 0), "Valkey since 8.0")


def first_program(wanted: Callable[[str, tuple[int, ...]], bool], kind: str) -> Program:
    """The first server program of that kind, beginning with the default one; without any, the test is skipped."""
    for program in (find_program(), *(find_program(str(path)) for path in SERVERS.values())):
        if wanted(program.name, tuple(int(number) for number in re.findall(r"\d+", program.version)[:2])):
            return program
    pytest.skip(f"no server of this kind on this machine: {kind}")
