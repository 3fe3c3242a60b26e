"""`make bench`: copying all keys of a standalone server into an empty cluster, by this program and by `redis-cli
--cluster import --cluster-copy`, from and to the same servers in one run.

Each figure counts from the start of the tool's process until it has ended and the masters hold every key. The tools
take turns, and the tool that begins alternates; the cluster is emptied between two turns. This program's figure
includes the start-up of Python, the check of every key after the copy, and the comparison of values, which the other
tool does not do. The copy alone, as the program reports it, has a column of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis

from bootstrap.local.cluster import LocalCluster, settings
from bootstrap.local.programs import find_program
from bootstrap.local.servers import Server
from bootstrap.model.node import Address
from bootstrap.model.slots import ALL_SLOTS
from bootstrap.run.report import aligned
from tests.available_servers import CLIENTS, SERVERS
from tests.bench.filling import fill
from tests.bench.looking import start, start_apply, start_import
from tests.bench.moving import OWN_CLIENT
from tests.bench.results import facts, ratio, seconds, store, version_of

LIMIT_S = 600.0
SOURCE_PORT = 7001
ON_PATH = "redis-cli-on-path"
TOOLS = ("redis-cli", "import", "the copy itself")


class Bench:
    """A formed cluster without keys, and a standalone server with all of them."""

    def __init__(self, cluster: LocalCluster, source: Server, cli: Path, keys: int) -> None:
        self._cluster, self._source, self._cli, self._keys = cluster, source, cli, keys
        self._settings = {
            **settings(nameserver=cluster.nameserver.address, shards=3, replicas=0),
            "BOOTSTRAP_LOG": "json",
        }
        if start_apply(self._settings).wait(LIMIT_S) != 0:
            raise SystemExit("the cluster was not formed")
        fill([(source.address, ALL_SLOTS)], keys)

    def cli(self) -> tuple[float, float]:
        """The tool of the servers, as a person types it; seconds, twice."""
        endpoint, source = str(self._cluster.servers[0].address), str(self._source.address)
        began = time.monotonic()
        process = start(self._cli, "--cluster", "import", endpoint, "--cluster-from", source, "--cluster-copy")
        self._wait(process)
        took_s = time.monotonic() - began
        return took_s, took_s

    def own(self) -> tuple[float, float]:
        """This program: the whole process, and the copy itself; seconds."""
        began = time.monotonic()
        process = start_import(self._settings, str(self._source.address), out=subprocess.PIPE)
        assert process.stdout is not None
        lines = [json.loads(line) for line in process.stdout if line.startswith(b"{")]
        self._wait(process)
        took_s = time.monotonic() - began
        return took_s, next(line["took_s"] for line in lines if line["event"] == "keys_copied")

    def empty(self) -> None:
        """Empties the cluster."""
        for server in self._cluster.servers:
            with Redis(server.address.host, server.address.port) as client:
                client.flushall()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until it has ended and every key is there."""
        if process.wait(LIMIT_S) != 0:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        found = 0
        for server in self._cluster.servers:
            with Redis(server.address.host, server.address.port) as client:
                found += int(client.dbsize())
        if found != self._keys:
            raise SystemExit(f"{process.args!r} copied {found} of {self._keys} keys")


def measure(server: str, keys: int, rounds: int, json_path: Path | None) -> tuple[str, ...]:
    """Measures one row."""
    program, now = find_program(str(SERVERS[server])), facts()
    client = client_of(server)
    times: dict[str, list[float]] = {tool: [] for tool in TOOLS}
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(program, Path(directory), nodes=3, config=('save ""', "auto-aof-rewrite-percentage 0")) as cluster,
    ):
        address = Address(cluster.servers[0].address.host, SOURCE_PORT)
        source = Server(program, Path(directory) / "source", address, config=("cluster-enabled no", "appendonly no"))
        source.start()
        try:
            bench = Bench(cluster, source, client, keys)
            tools: list[Callable[[], tuple[float, float]]] = [bench.cli, bench.own]
            for number in range(rounds):
                for tool in tools if number % 2 == 0 else reversed(tools):
                    bench.empty()
                    took_s, copy_s = tool()
                    if tool == bench.cli:
                        times["redis-cli"].append(took_s)
                    else:
                        times["import"].append(took_s)
                        times["the copy itself"].append(copy_s)
        finally:
            source.kill()
    figures = {tool: seconds(took) for tool, took in times.items()}
    row: dict[str, Any] = {
        "server": f"{program.name} {program.version}",
        "tool": version_of(client),
        "keys": keys,
        "rounds": rounds,
        "figures": figures,
        "ratios": {tool: ratio(figures, tool, "redis-cli") for tool in TOOLS[1:]},
    }
    store(json_path, "importing", row | now)
    medians = [figures[tool]["median_s"] for tool in TOOLS]
    return (server, f"{keys}", *(f"{each:.2f}" for each in medians), f"{medians[0] / medians[1]:.1f}")


def client_of(server: str) -> Path:
    """The tool that comes with a server; where this machine lacks it, the one on PATH does the same."""
    own = OWN_CLIENT.get(server, ON_PATH)
    if found := CLIENTS.get(own) or CLIENTS.get(ON_PATH):
        return found
    raise SystemExit(f"neither {own} nor redis-cli is on this machine")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.importing", description=__doc__)
    parser.add_argument("--servers", nargs="+", default=sorted(SERVERS), choices=sorted(SERVERS))
    parser.add_argument("--keys", nargs="+", type=int, default=[200_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file that the results are stored in")
    options = parser.parse_args(arguments)
    rows: list[tuple[str, ...]] = [("SERVER", "keys", "redis-cli s", "import s", "copy s", "times as fast")]
    for keys in options.keys:
        for server in options.servers:
            rows.append(measure(server, keys, options.rounds, options.json))
            print(aligned(rows), flush=True)


if __name__ == "__main__":
    main()
