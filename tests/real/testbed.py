"""A cluster of real servers, and methods that run the program on it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bootstrap.__main__ import main
from bootstrap.clock import SystemClock
from bootstrap.local.cluster import LocalCluster, settings
from bootstrap.local.servers import Server
from bootstrap.model.desired import Desired
from bootstrap.model.node import Node
from bootstrap.model.view import ClusterView
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from tests.waiting import wait_until


@dataclass
class RunResult:
    """The exit code and the output of one run of the program."""

    exit_code: int
    text: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the output."""
        return [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]

    @property
    def outcome(self) -> dict[str, Any]:
        """The last line, which is the outcome."""
        last: dict[str, Any] = json.loads(self.text.splitlines()[-1])
        assert last["event"] == "outcome"
        return last


@dataclass
class Testbed:
    """A local cluster, and methods that run the program on it."""

    __test__ = False  # pytest collects classes whose names begin with Test

    cluster: LocalCluster
    shards: int = 3
    replicas: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    clock: SystemClock | None = None
    """The clock of all runs. Without it, each run has its own."""

    @property
    def desired(self) -> Desired:
        return Desired(shards=self.shards, replicas_per_shard=self.replicas, timeout_ms=5000)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of the program."""
        defaults = settings(nameserver=self.cluster.nameserver.address, shards=self.shards, replicas=self.replicas)
        return {**defaults, "BOOTSTRAP_DEADLINE_S": "60", "BOOTSTRAP_LOG": "json", **self.environment}

    def run(self, *words: str, **variables: str) -> RunResult:
        """Runs the program in this process: `run("apply", BOOTSTRAP_DEADLINE_S="5")`."""
        out = io.StringIO()
        return RunResult(main(list(words), {**self.variables, **variables}, out, self.clock), out.getvalue())

    def view(self, *servers: Server) -> ClusterView:
        """The current state of these servers, or of all. A server that hangs delays it: name the others then."""
        chosen = servers or self.cluster.servers
        places = [(s.name, ordinal, s.address) for ordinal, s in enumerate(self.cluster.servers) if s in chosen]
        nodes = Nodes(Credentials())
        try:
            answers = nodes.look(places)
        finally:
            nodes.close()
        found = (answers[pod, address] for pod, _, address in places)
        return ClusterView(nodes=tuple(node for node in found if isinstance(node, Node)))

    def whole_view(self) -> ClusterView:
        """The current state of all servers, once each of them has answered: on a busy machine one may answer late."""

        def whole() -> ClusterView | None:
            view = self.view()
            return view if len(view.nodes) == len(self.cluster.servers) else None

        return wait_until(whole, "every server answers")


StartTestbed = Callable[..., Testbed]
"""Starts a testbed: `start_testbed(program, shards, replicas, config=…, servers=…)`. It is removed after the test."""
