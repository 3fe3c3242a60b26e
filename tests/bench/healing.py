"""`make bench`: healing a cluster with keys after all pods moved.

Each figure counts from the moment when the last server answers at its new address until every node reports
`cluster_state:ok`, all nodes agree, and every replica is linked. At the start every nodes.conf holds only stale
addresses. Servers wait 2 s after a start before they serve, so 2 s is the minimum.

Two cases are measured. In the first, the run is already waiting for the pods, like a Job that was started too early. In
the second, the run starts at that moment, so its figure includes the start-up of Python.

With `--delays 0,3,8` the run starts so many seconds after the last server answered, and the time counts from its own
start. The roles are compared as well, because a failover would not have been necessary.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis import Redis, RedisCluster
from redis.cluster import ClusterNode

from bootstrap.local.cluster import LocalCluster, settings
from bootstrap.local.programs import find_program
from bootstrap.local.servers import start_all
from bootstrap.model.desired import Desired
from bootstrap.model.node import Address, NodeId
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from bootstrap.run.report import aligned
from bootstrap.verify import violations
from tests.available_servers import SERVERS
from tests.bench.looking import start_apply, view_of
from tests.bench.results import facts, seconds, store

LIMIT_S = 60.0
OWN_DELAY_S = 2.0
KEYS = 1000
DESIRED = Desired(shards=3, replicas_per_shard=1, timeout_ms=5000)


def apply(cluster: LocalCluster) -> subprocess.Popen[bytes]:
    """`apply` as a separate process, as a Job runs it."""
    environment = settings(nameserver=cluster.nameserver.address, shards=3, replicas=1)
    environment |= {"BOOTSTRAP_NODE_TIMEOUT_MS": "5000", "BOOTSTRAP_LOG": "json"}
    return start_apply(environment)


def until_good(cluster: LocalCluster, began: float) -> float:
    """Seconds since `began` until no invariant is violated."""
    nodes = Nodes(Credentials())
    try:
        while time.monotonic() - began < LIMIT_S:
            if not violations(view_of(cluster, nodes), DESIRED):
                return time.monotonic() - began
            time.sleep(0.02)
    finally:
        nodes.close()
    raise SystemExit("the cluster did not heal")


def fill(cluster: LocalCluster) -> None:
    """Writes keys to every shard, and waits until they are replicated."""
    endpoint = ClusterNode(cluster.servers[0].address.host, cluster.servers[0].address.port)
    with RedisCluster(startup_nodes=[endpoint]) as client:
        for number in range(KEYS):
            client.set(f"key:{number}", number)
        for node in client.get_primaries():
            client.execute_command("WAIT", 1, 5000, target_nodes=node)


def move_all(cluster: LocalCluster, number: int) -> None:
    """Kills every server and starts it at another address. Returns when the last one answers there."""
    for server in cluster.servers:
        server.kill()
        *block, last = server.address.host.split(".")
        server.address = Address(".".join([*block, str((int(last) + 20 * number) % 250 + 1)]), server.address.port)
    start_all(cluster.servers)
    for server in cluster.servers:
        with Redis(server.address.host, server.address.port, socket_timeout=5) as node:
            node.ping()


def measure(server: str, rounds: int) -> tuple[list[float], list[float]]:
    """The seconds of each round: with a run that is already waiting, and with a run that starts at that moment."""
    waiting: list[float] = []
    starting: list[float] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(find_program(server), Path(directory), nodes=6) as cluster,
    ):
        if apply(cluster).wait(LIMIT_S) != 0:
            raise SystemExit("the cluster was not formed")
        fill(cluster)
        for number in range(1, 2 * rounds + 1):
            early = number % 2 == 0
            # DNS lists no pods while they are down, so that a waiting run has something to wait for.
            zone = cluster.nameserver.zone
            cluster.nameserver.publish(replace(zone, pods=()))
            process = apply(cluster) if early else None
            move_all(cluster, number)
            began = time.monotonic()
            cluster.publish()
            process = process or apply(cluster)
            (waiting if early else starting).append(until_good(cluster, began))
            if process.wait(LIMIT_S) != 0:
                raise SystemExit("apply failed")
    return waiting, starting


def masters_of(cluster: LocalCluster) -> frozenset[NodeId]:
    """The nodes that own slots now."""
    nodes = Nodes(Credentials())
    try:
        return frozenset(node.node_id for node in view_of(cluster, nodes).nodes if node.slots)
    finally:
        nodes.close()


def measure_late(server: str, rounds: int, delays_s: Sequence[float]) -> dict[float, list[tuple[float, bool]]]:
    """By delay and round: seconds from the start of the run, and whether the masters are those from before."""
    found: dict[float, list[tuple[float, bool]]] = {delay_s: [] for delay_s in delays_s}
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(find_program(server), Path(directory), nodes=6) as cluster,
    ):
        if apply(cluster).wait(LIMIT_S) != 0:
            raise SystemExit("the cluster was not formed")
        fill(cluster)
        for number, delay_s in enumerate(delay_s for _ in range(rounds) for delay_s in delays_s):
            masters = masters_of(cluster)
            move_all(cluster, number + 1)
            cluster.publish()
            time.sleep(delay_s)
            began = time.monotonic()
            process = apply(cluster)
            took_s = until_good(cluster, began)
            if process.wait(LIMIT_S) != 0:
                raise SystemExit("apply failed")
            found[delay_s].append((took_s, masters_of(cluster) == masters))
    return found


def report_late(rounds: int, delays_s: Sequence[float]) -> None:
    """Prints a table: a row per server, a column per delay."""
    rows: list[tuple[str, ...]] = [("SERVER", *(f"{delay_s:g} s late" for delay_s in delays_s), "FAILOVERS")]
    for name, path in SERVERS.items():
        found = measure_late(str(path), rounds, delays_s)
        medians = (statistics.median(took_s for took_s, _ in found[delay_s]) for delay_s in delays_s)
        failovers = sum(not same for each in found.values() for _, same in each)
        rows.append((name, *(f"{median:.2f}" for median in medians), str(failovers)))
        print(aligned(rows), flush=True)


def stored(server: str, waiting: Sequence[float], starting: Sequence[float]) -> dict[str, Any]:
    """The row as it is stored."""
    program = find_program(server)
    return {
        "server": f"{program.name} {program.version}",
        "nodes": 6,
        "keys": KEYS,
        "rounds": len(waiting),
        "figures": {"apply was waiting": seconds(waiting), "apply starts then": seconds(starting)},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="PATH", help="store the results in this file, beside other rows")
    parser.add_argument("--delays", metavar="S,S,…", help="start the run so many seconds later, and measure from there")
    options = parser.parse_args(arguments)
    if options.delays:
        report_late(options.rounds, [float(word) for word in options.delays.split(",")])
        return
    rows: list[tuple[str, ...]] = [
        ("SERVER", "apply was waiting s", "over the servers' 2 s", "apply starts then s", "over the servers' 2 s")
    ]
    for name, path in SERVERS.items():
        now = facts()
        rounds = measure(str(path), options.rounds)
        waiting, starting = (statistics.median(each) for each in rounds)
        store(options.json, "healing", stored(str(path), *rounds) | now)
        times = (waiting, waiting - OWN_DELAY_S, starting, starting - OWN_DELAY_S)
        rows.append((name, *(f"{seconds:.2f}" for seconds in times)))
        print(aligned(rows), flush=True)


if __name__ == "__main__":
    main()
