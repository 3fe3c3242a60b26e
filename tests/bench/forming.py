"""`make bench`: forming a cluster, by this program and by `redis-cli --cluster create`, on the same servers in one run.

Each figure counts from the start of the tool's process until every node reports `cluster_state:ok`, all nodes agree,
and every replica is linked. A separate observer checks this. The tools alternate, and the servers are reset between
runs. The tools are compared by the ratio of medians, because seconds differ from machine to machine. The start-up of
Python is part of this program's figures and also has its own column.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from bootstrap.local.cluster import LocalCluster, settings
from bootstrap.local.programs import find_program
from bootstrap.model.desired import Desired
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from bootstrap.run.report import aligned
from bootstrap.verify import violations
from tests.bench.looking import start, start_apply, view_of
from tests.bench.results import facts, ratio, seconds, store, version_of

LIMIT_S = 120.0
NODE_TIMEOUT_MS = 5000


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians in seconds."""

    nodes: int
    redis_cli: float
    quick: float
    plain: float
    healthy: float
    startup: float
    """The start-up of Python and its libraries, until `apply` prints its first line. It is part of its figures."""
    rounds: Mapping[str, Sequence[float]]
    """Every figure behind the medians, by the field names of this class."""


class Bench:
    """A number of servers, and the tools that form a cluster of them."""

    def __init__(self, cluster: LocalCluster, shards: int, replicas: int) -> None:
        self._cluster = cluster
        self._shards = shards
        self._desired = Desired(shards=shards, replicas_per_shard=replicas)
        self._environment = settings(nameserver=cluster.nameserver.address, shards=shards, replicas=replicas)

    def redis_cli(self) -> subprocess.Popen[bytes]:
        """`redis-cli --cluster create`, as a person types it."""
        addresses = [str(server.address) for server in self._cluster.servers]
        replicas = str(self._desired.replicas_per_shard)
        return start("redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", replicas, "--cluster-yes")

    def quick(self) -> subprocess.Popen[bytes]:
        """`apply` with a declared node timeout."""
        return start_apply(self._environment)

    def plain(self) -> subprocess.Popen[bytes]:
        """`apply` without a declared node timeout."""
        environment = {**self._environment, "BOOTSTRAP_NODE_TIMEOUT_MS": ""}
        return start_apply(environment)

    def time(self, tool: Callable[[], subprocess.Popen[bytes]]) -> float:
        """Seconds from the start of the tool until the cluster is good."""
        self._reset()
        began = time.monotonic()
        process = tool()
        try:
            took = self._until_good(began)
            process.wait(LIMIT_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise SystemExit(f"{tool.__name__} ended with {process.returncode}")
        return took

    def startup(self) -> float:
        """Seconds until `apply` prints its first line."""
        began = time.monotonic()
        process = start_apply(self._environment, out=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        took = time.monotonic() - began
        process.communicate(timeout=LIMIT_S)
        return took

    def healthy(self) -> float:
        """Seconds of a run on the healthy cluster, from the start of its process to its end."""
        began = time.monotonic()
        process = self.quick()
        process.wait(LIMIT_S)
        return time.monotonic() - began

    def _until_good(self, began: float) -> float:
        nodes = Nodes(Credentials())
        try:
            while time.monotonic() - began < LIMIT_S:
                view = view_of(self._cluster, nodes)
                if not violations(view, self._desired):
                    return time.monotonic() - began
                time.sleep(0.03)
        finally:
            nodes.close()
        raise SystemExit(
            "the cluster did not become good: " + str(violations(view_of(self._cluster, nodes), self._desired)[:3])
        )

    def _reset(self) -> None:
        """Makes all nodes blank again, with the declared timeout."""
        for command in (("FLUSHALL",), ("CLUSTER", "RESET", "HARD"), ("CONFIG", "SET", "cluster-node-timeout", "5000")):
            for server in self._cluster.servers:
                client = Redis(server.address.host, server.address.port, socket_timeout=10)
                try:
                    client.execute_command(*command)
                except RedisError as error:  # a replica refuses FLUSHALL, and RESET empties it
                    if "READONLY" not in str(error) and command[0] == "CONFIG":
                        raise
                finally:
                    client.close()


def measure(nodes: int, rounds: int, server: str | None) -> Timing:
    """Measures one row: every tool `rounds` times on the same `nodes` servers."""
    shards = nodes // 2
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(find_program(server), Path(directory), nodes=2 * shards) as cluster,
    ):
        bench = Bench(cluster, shards, 1)
        time.sleep(2.5)  # the servers' own delay after a start must not count for the first tool
        times: dict[str, list[float]] = {"redis_cli": [], "quick": [], "plain": [], "healthy": [], "startup": []}
        for _ in range(rounds):
            for tool in (bench.redis_cli, bench.quick, bench.plain):
                times[tool.__name__].append(bench.time(tool))
                if tool == bench.quick:
                    times["healthy"].append(bench.healthy())
                    times["startup"].append(bench.startup())
    medians = {name: statistics.median(values) for name, values in times.items()}
    return Timing(nodes=2 * shards, **medians, rounds=times)


def stored(row: Timing, server: str | None) -> dict[str, Any]:
    """The row as it is stored."""
    program = find_program(server)
    names = {
        "redis_cli": "redis-cli",
        "quick": "apply",
        "plain": "apply, timeouts left alone",
        "healthy": "apply on a healthy cluster",
        "startup": "start-up of apply",
    }
    figures = {names[name]: seconds(rounds_s) for name, rounds_s in row.rounds.items()}
    return {
        "server": f"{program.name} {program.version}",
        "tool": version_of("redis-cli"),
        "nodes": row.nodes,
        "rounds": len(row.rounds["quick"]),
        "figures": figures,
        "ratios": {tool: ratio(figures, tool, "redis-cli") for tool in ("apply", "apply, timeouts left alone")},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default="6,30,60,100", help="sizes, comma-separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", help="server program; default: as `local` finds it")
    parser.add_argument("--json", type=Path, metavar="PATH", help="store the results in this file, beside other rows")
    options = parser.parse_args(arguments)
    if shutil.which("redis-cli") is None:
        raise SystemExit("redis-cli is not on PATH: there is nothing to compare with")
    print(f"servers: {find_program(options.server)}")
    rows = [
        (
            "NODES",
            "redis-cli s",
            "apply s",
            "ratio",
            "apply, timeouts left alone s",
            "ratio",
            "healthy run s",
            "start-up s",
        )
    ]
    for size in (int(text) for text in options.nodes.split(",")):
        now = facts()
        row = measure(size, options.rounds, options.server)
        store(options.json, "forming", stored(row, options.server) | now)
        ratios = (row.quick / row.redis_cli, row.plain / row.redis_cli)
        rows.append(
            (
                str(row.nodes),
                f"{row.redis_cli:.2f}",
                f"{row.quick:.2f}",
                f"{ratios[0]:.2f}",
                f"{row.plain:.2f}",
                f"{ratios[1]:.2f}",
                f"{row.healthy:.2f}",
                f"{row.startup:.2f}",
            )
        )
        print(aligned(rows), flush=True)


if __name__ == "__main__":
    main()
