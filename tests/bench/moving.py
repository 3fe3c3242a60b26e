"""`make bench`: moving 4096 slots to a fourth master that has joined and is empty, by this program and by the tool of
the servers (`redis-cli --cluster rebalance`, or `valkey-cli`), on the same servers in one run.

Each figure counts from the start of the tool's process until it has ended and every node reports that every master owns
4096 slots. The tools take turns, and the tool that begins alternates. Between two turns the slots move back. The next
turn starts when the servers are in their initial state: the same owners, no key lost, no key left on the fourth. The
tools are compared by the ratio of medians, because seconds differ from machine to machine. This program's figure
includes the start-up of Python and the time of the move as the program reports it. Both also have their own columns.

With `--clients` there are two more rounds of each tool, during which clients write and read one key after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from redis import Redis, RedisCluster
from redis.cluster import ClusterNode

from bootstrap.local.cluster import LocalCluster, settings
from bootstrap.local.programs import find_program
from bootstrap.model.node import NodeId, Role
from bootstrap.model.slots import SLOT_COUNT, SlotSet
from bootstrap.model.steps import Meet, MoveSlots
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import (
    AwaitAgreement,
    AwaitEpochs,
    AwaitMesh,
    AwaitMigrations,
    AwaitReplication,
    AwaitServing,
    Wait,
)
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from bootstrap.plan.settled import settled
from bootstrap.run.report import aligned
from tests.available_servers import CLIENTS, SERVERS
from tests.bench.filling import fill
from tests.bench.looking import start, start_apply, view_of
from tests.bench.results import facts, ratio, seconds, store, version_of
from tests.real.checker import Checker

LIMIT_S = 600.0
SHARE = SLOT_COUNT // 4
OWN_CLIENT = {"redis-6.2": "redis-cli-6.2", "redis-8.10": "redis-cli-8.10", "valkey-9.1": "valkey-cli"}
"""The tool that comes with a server. All other servers use the one on PATH."""
QUIET = ('save ""', "auto-aof-rewrite-percentage 0", "cluster-allow-replica-migration no")
"""No server rewrites all its data during a turn, and the fourth stays a master when it is empty."""

SETTLED: tuple[Wait, ...] = (
    AwaitMesh(),
    AwaitAgreement(),
    AwaitEpochs(),
    AwaitReplication(),
    AwaitMigrations(),
    AwaitServing(),
)
"""All of these must be settled when a tool starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One move by one tool, in seconds."""

    took_s: float
    startup_s: float = 0.0
    """The start-up of Python and its libraries, until `apply` prints its first line."""
    move_s: float = 0.0
    """The part from the first command of the move to the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStats:
    """What clients observed during one move."""

    operations: int
    errors: int
    worst_pause_s: float


class Bench:
    """Four masters, three of which own all slots at the start of each turn."""

    def __init__(self, cluster: LocalCluster, cli: Path, nodes: Nodes) -> None:
        """Nothing is formed yet."""
        self._cluster, self._cli, self._nodes = cluster, cli, nodes
        self._initial_slots: dict[NodeId, SlotSet] = {}
        self._keys = 0

    def prepare(self, keys: int) -> None:
        """Forms the cluster by `apply` on three servers, lets the fourth join, and fills the slots."""
        self._keys = keys
        zone = self._cluster.nameserver.zone
        self._cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
        if self._apply(3).wait(LIMIT_S) != 0:
            raise SystemExit("the cluster was not formed")
        self._cluster.publish()
        view = view_of(self._cluster, self._nodes)
        self._initial_slots = {node.node_id: node.slots for node in view.nodes}
        self._join(view)
        fill([(node.address, node.slots) for node in view.nodes if node.slots], keys)
        self._until(self._in_initial_state)

    def cli(self) -> Turn:
        """The tool of the servers, as a person types it."""
        endpoint = str(self._cluster.servers[0].address)
        process = start(self._cli, "--cluster", "rebalance", endpoint, "--cluster-use-empty-masters", "--cluster-yes")
        return self._timed(process, time.monotonic())

    def apply(self) -> Turn:
        """This program, with a fourth shard declared."""
        began = time.monotonic()
        process = self._apply(4, out=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        startup_s = time.monotonic() - began
        lines = [json.loads(line) for line in process.stdout if line.startswith(b"{")]
        if process.wait(LIMIT_S) != 0:
            raise SystemExit(f"apply ended with {process.returncode}: {json.dumps(lines[-3:])}")
        moved = [line["took_s"] for line in lines if line["event"] == "slots_moved"]
        return replace(self._timed(process, began), startup_s=startup_s, move_s=sum(moved))

    def with_clients(self, tool: Callable[[], Turn]) -> ClientStats:
        """One turn of a tool while clients work. No acknowledged write may be lost, and no read may be stale."""
        with Checker([server.address for server in self._cluster.servers[:3]]) as checker:
            checker.wait_for(500)
            before = checker.operations
            tool()
            observed = ClientStats(
                operations=checker.operations - before,
                errors=len(checker.errors),
                worst_pause_s=checker.worst_pause_s,
            )
            checker.wait_for(100)
        if bad := [*checker.stale, *checker.lost()]:
            raise SystemExit(f"clients received wrong answers: {bad[:5]}")
        address = self._cluster.servers[0].address
        with RedisCluster(startup_nodes=[ClusterNode(address.host, address.port)]) as client:
            for key in [key for found in checker.found for key in found.tried]:
                client.delete(key)
        return observed

    def move_back(self) -> None:
        """Moves all slots back to their initial owners. Returns when that is done and no key was lost."""
        self._until(lambda view: sum(node.keys for node in view.nodes) == self._keys)
        view = view_of(self._cluster, self._nodes)
        moves = [
            MoveSlots(source=holder.node_id, target=owner, slots=away)
            for owner, slots in self._initial_slots.items()
            for holder in view.nodes
            if holder.node_id != owner and (away := slots & holder.slots)
        ]
        with closing(self._nodes.move(moves, view)) as moving:
            while not moving.done:
                moving.advance()
                time.sleep(moving.pause_s)
        if moving.rejected:
            raise SystemExit(f"the slots did not go back: {moving.rejected[:3]}")
        self._until(self._restored)

    def _restored(self, view: ClusterView) -> bool:
        """True in the initial state. Undoes that Redis 6.2 makes a master without slots a replica."""
        if view.nodes[3].role is Role.REPLICA:
            address = self._cluster.servers[3].address
            with Redis(address.host, address.port) as client:
                client.execute_command("CLUSTER", "RESET", "SOFT")
            self._join(view_of(self._cluster, self._nodes))
            return False
        return self._in_initial_state(view)

    def _in_initial_state(self, view: ClusterView) -> bool:
        alike = {node.node_id: node.slots for node in view.nodes} == self._initial_slots
        keys = [node.keys for node in view.nodes]
        whole = len(keys) == 4 and sum(keys) == self._keys and keys[3] == 0
        open_slots = any(node.open_slots for node in view.nodes)
        return alike and whole and not open_slots and all(settled(wait, view) for wait in SETTLED)

    def _timed(self, process: subprocess.Popen[bytes], began: float) -> Turn:
        """Measures until the process has ended and all nodes agree that each master has its share."""
        if process.wait(LIMIT_S) != 0:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        ended = time.monotonic()
        if _even(view_of(self._cluster, self._nodes)):
            return Turn(took_s=ended - began)
        self._until(_even)
        return Turn(took_s=time.monotonic() - began)

    def _apply(self, shards: int, *, out: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        environment = settings(nameserver=self._cluster.nameserver.address, shards=shards, replicas=0)
        environment = {**environment, "BOOTSTRAP_LOG": "json"}
        return start_apply(environment, out=out)

    def _join(self, view: ClusterView) -> None:
        """Introduces the fourth node to all others, in both directions."""
        fourth = view.nodes[3]
        pairs = [(fourth, other) for other in view.nodes[:3]] + [(other, fourth) for other in view.nodes[:3]]
        for one, other in pairs:
            meet = Meet(introducer=one.node_id, newcomer=other.node_id, address=other.address, bus_port=other.bus_port)
            if rejected := self._nodes.send({one.address: [meet]}):
                raise SystemExit(f"the fourth master did not join: {rejected}")
        self._until(lambda now: settled(AwaitMesh(), now) and all(node.serving for node in now.nodes))

    def _until(self, condition: Callable[[ClusterView], bool]) -> None:
        ends = time.monotonic() + LIMIT_S
        while not condition(view := view_of(self._cluster, self._nodes)):
            if time.monotonic() > ends:
                state = [(node.pod, node.keys, str(node.slots), node.serving) for node in view.nodes]
                raise SystemExit(f"the servers did not reach the expected state: {state}")
            time.sleep(0.01)


def _even(view: ClusterView) -> bool:
    """True if all nodes agree that each master has its share."""
    return settled(AwaitAgreement(), view) and [len(node.slots) for node in view.nodes] == [SHARE] * 4


def measure(
    server: str, keys: int, rounds: int, *, clients: bool, json_path: Path | None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Measures one row of times and, if requested, what clients observed during each tool's moves."""
    times: dict[str, list[Turn]] = {"cli": [], "apply": []}
    observed: dict[str, list[ClientStats]] = {"cli": [], "apply": []}
    now = facts()
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(find_program(str(SERVERS[server])), Path(directory), nodes=4, config=_config(server)) as cluster,
        closing(Nodes(Credentials())) as nodes,
    ):
        bench = Bench(cluster, CLIENTS[_cli_name(server)], nodes)
        bench.prepare(keys)
        tools = [bench.cli, bench.apply]
        for number in range(rounds):
            for tool in tools if number % 2 == 0 else reversed(tools):
                times[tool.__name__].append(tool())
                bench.move_back()
        for tool in tools * (2 if clients else 0):
            observed[tool.__name__].append(bench.with_clients(tool))
            bench.move_back()
    load = f"{os.getloadavg()[0]:.1f}"
    store(json_path, "moving", stored(server, keys, times, observed) | now)
    return _row(server, keys, times, load), [
        _client_row(server, keys, name, stats) for name, stats in observed.items() if stats
    ]


def _config(server: str) -> tuple[str, ...]:
    """Redis 6.2 does not have the setting of the last line."""
    return QUIET[:-1] if server == "redis-6.2" else QUIET


def _cli_name(server: str) -> str:
    return OWN_CLIENT.get(server, "redis-cli-on-path")


HEAD: tuple[str, ...] = (
    "SERVER",
    "keys",
    "cli s",
    "apply s",
    "ratio",
    "start-up s",
    "move s",
    "its ratio",
    "cli, apply from-to s",
    "load",
)


def stored(
    server: str, keys: int, times: Mapping[str, Sequence[Turn]], observed: Mapping[str, Sequence[ClientStats]]
) -> dict[str, Any]:
    """The row as it is stored. It has the observations of clients only if they were measured."""
    program = find_program(str(SERVERS[server]))
    figures = {
        "own tool": seconds([turn.took_s for turn in times["cli"]]),
        "apply": seconds([turn.took_s for turn in times["apply"]]),
        "the move itself": seconds([turn.move_s for turn in times["apply"]]),
        "start-up of apply": seconds([turn.startup_s for turn in times["apply"]]),
    }
    clients = {name: [asdict(each) for each in stats] for name, stats in observed.items() if stats}
    return {
        "server": f"{program.name} {program.version}",
        "tool": version_of(CLIENTS[_cli_name(server)]),
        "keys": keys,
        "rounds": len(times["apply"]),
        "figures": figures,
        "ratios": {name: ratio(figures, name, "own tool") for name in ("apply", "the move itself")},
    } | ({"clients": clients} if clients else {})


def _row(server: str, keys: int, times: dict[str, list[Turn]], load: str) -> tuple[str, ...]:
    cli_s, apply_s = (statistics.median(turn.took_s for turn in times[name]) for name in ("cli", "apply"))
    startup_s = statistics.median(turn.startup_s for turn in times["apply"])
    move_s = statistics.median(turn.move_s for turn in times["apply"])
    spread = f"{_range(times['cli'])}, {_range(times['apply'])}"
    return (
        server,
        f"{keys}",
        f"{cli_s:.2f}",
        f"{apply_s:.2f}",
        f"{apply_s / cli_s:.2f}",
        f"{startup_s:.2f}",
        f"{move_s:.2f}",
        f"{move_s / cli_s:.2f}",
        spread,
        load,
    )


def _range(turns: Iterable[Turn]) -> str:
    took = sorted(turn.took_s for turn in turns)
    return f"{took[0]:.2f}-{took[-1]:.2f}"


CLIENT_HEAD: tuple[str, ...] = ("SERVER", "keys", "tool", "operations", "errors", "error rate", "worst pause s")


def _client_row(server: str, keys: int, tool: str, stats: Sequence[ClientStats]) -> tuple[str, ...]:
    operations, errors = sum(each.operations for each in stats), sum(each.errors for each in stats)
    worst_s = max(each.worst_pause_s for each in stats)
    rate = f"{100 * errors / max(1, operations + errors):.2f} %"
    return (server, f"{keys}", tool, f"{operations}", f"{errors}", rate, f"{worst_s:.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of ratios and, with `--clients`, the table of client observations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, nargs="+", default=[75_000, 1_000_000])
    parser.add_argument("--server", nargs="+", choices=SERVERS, default=list(SERVERS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", action="store_true", help="also measure what clients observe")
    parser.add_argument("--quick", action="store_true", help="75,000 keys, one round")
    parser.add_argument("--json", type=Path, metavar="PATH", help="store the results in this file, beside other rows")
    options = parser.parse_args(arguments)
    sizes, rounds = ([75_000], 1) if options.quick else (options.keys, options.rounds)
    rows, client_rows = [HEAD], [CLIENT_HEAD]
    for keys in sizes:
        for server in options.server:
            if _cli_name(server) not in CLIENTS:
                print(f"{server}: not measured, because {_cli_name(server)} is not on this machine", flush=True)
                continue
            row, row_of_clients = measure(server, keys, rounds, clients=options.clients, json_path=options.json)
            rows.append(row)
            client_rows += row_of_clients
            print(aligned(rows), flush=True)
    if options.clients:
        print(aligned(client_rows), flush=True)


if __name__ == "__main__":
    main()
