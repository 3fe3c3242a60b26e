"""Servers are replaced one after the other on their disks, as a rolling update does it, while a client writes."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import pytest
from redis import Redis
from redis.crc import key_slot

from bootstrap.errors import NotYet
from bootstrap.local.programs import Program, find_program
from bootstrap.local.servers import Server
from bootstrap.model.node import Node
from bootstrap.model.versions import RELAXED, PathVerdict, upgrade_path
from tests.available_servers import CLIENTS, SERVERS
from tests.manifests.kustomize import BASE_SERVERS
from tests.real.testbed import StartTestbed, Testbed
from tests.real.writer import Writer
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not CLIENTS, reason="no redis-cli on this machine: the scripts of the pods need it")
READY_S = 60.0
PAUSE_MAX_S = 10.0
"""On a busy machine. A failover by election would take longer: docs/moving.md has the pauses of a quiet one."""
LINES = {"5.0": "Redis 5.0", "6.2": "Redis 6.2", "7.0": "Redis 7.0", "8.2": "Redis 8.2", "8.10": "Redis 8.10"}
LINES |= {"valkey": "Valkey 9.1"}


@pytest.mark.parametrize(
    "lines",
    [
        ("5.0", "7.0"),
        ("6.2", "7.0", "8.2"),
        ("8.2", "8.10"),
        ("7.0", "valkey"),
        ("6.2", "8.2"),
    ],
    ids=" → ".join,
)
def test_an_upgrade_loses_no_write(start_testbed: StartTestbed, lines: Sequence[str]) -> None:
    """Each pair whose verdict is good, or needs a setting, which the new servers then have."""
    programs = [program_of(line) for line in lines]
    testbed = start_testbed(programs[0])
    assert testbed.run("apply").outcome["outcome"] == "formed"
    for old, new in pairwise(programs):
        path = upgrade_path(as_text(old), as_text(new))
        assert path.verdict in (PathVerdict.GOOD, PathVerdict.NEEDS_SETTING)
        with writing(testbed) as writer:
            for server in reversed(testbed.cluster.servers):
                replaced(server, new, [path.setting] if path.setting else [])
                wait_until(partial(is_ready, server), f"{server.name} is ready", READY_S)
        assert writer.lost == []
        assert writer.longest_pause_s < PAUSE_MAX_S
        run = testbed.run("verify")
        assert (run.exit_code, run.outcome["outcome"]) == (0, "unchanged"), run.text
        assert {node.version for node in testbed.whole_view().nodes} == {as_text(new)}


@pytest.mark.parametrize(
    ("line", "older"), [("8.2", "7.0"), ("7.0", "6.2"), ("valkey", "7.0"), ("8.2", "valkey")], ids=str
)
def test_a_way_that_is_not_open_stops_at_a_pod_and_loses_nothing(
    start_testbed: StartTestbed, line: str, older: str
) -> None:
    """The server reads neither its files nor a copy. The others serve; with its own version again it rejoins."""
    program, wrong = program_of(line), program_of(older)
    verdict = upgrade_path(as_text(program), as_text(wrong)).verdict
    assert verdict in (PathVerdict.NO_WAY_BACK, PathVerdict.NOT_POSSIBLE)
    testbed = start_testbed(program)
    assert testbed.run("apply").outcome["outcome"] == "formed"
    last = testbed.cluster.servers[-1]
    with writing(testbed) as writer:
        words = refusal_of(last, wrong)
        assert re.search(r"Can't handle RDB format|Bad file format", words), words
        run = testbed.run("verify")
        assert (run.exit_code, run.outcome["serving"]) == (1, True), run.text
        last.terminate()
        last.program = program
        last.start()
        wait_until(partial(is_ready, last), "the server of the former version is ready", READY_S)
    assert writer.lost == []
    assert testbed.run("verify").exit_code == 0


def test_redis_8_and_valkey_misread_each_other(start_testbed: StartTestbed) -> None:
    """The reason for that verdict: as soon as one of each is in a cluster, Valkey calls members by hosts that are none.
    The setting that lets Valkey read the files of Redis changes nothing about it.
    """
    redis, valkey = program_of("8.2"), program_of("valkey")
    assert upgrade_path(as_text(redis), as_text(valkey)).verdict is PathVerdict.NOT_POSSIBLE
    testbed = start_testbed(redis)
    assert testbed.run("apply").outcome["outcome"] == "formed"
    last = testbed.cluster.servers[-1]
    replaced(last, valkey, [RELAXED])
    known = {server.address.host.encode() for server in testbed.cluster.servers}

    def misread() -> bool:
        if not last.alive:
            return True  # it has crashed of it
        with Redis(last.address.host, last.address.port, protocol=2) as client:
            hosts = {master[0] for _, _, master, *_ in client.execute_command("CLUSTER SLOTS")}
        return not hosts <= known

    wait_until(misread, "Valkey reports a host that no server has")
    if last.alive:
        run = testbed.run("verify")
        assert run.exit_code == 1
        # What lies behind that secret in Valkey's memory may make its list of members unreadable.
        garbled = [each for each in run.outcome["reasons"] if "CLUSTER NODES" in each["message"]]
        assert garbled or "versions-clash" in {reason["code"] for reason in run.outcome["reasons"]}


def test_two_versions_are_reported_with_every_verb(start_testbed: StartTestbed) -> None:
    """By pod in the table, and as a finding; nothing is to be done about them."""
    old, new = program_of("7.0"), program_of("8.2")
    testbed = start_testbed(old)
    assert testbed.run("apply").outcome["outcome"] == "formed"
    last = testbed.cluster.servers[-1]
    replaced(last, new)
    wait_until(partial(is_ready, last), "the new server is ready", READY_S)
    for verb in ("verify", "apply", "plan"):
        run = testbed.run(verb)
        assert (run.exit_code, run.outcome["outcome"]) == (0, "unchanged"), run.text
        (line,) = (each for each in run.lines if each["event"] == "mixed_versions")
        assert f"{as_text(new)} on redis-app-5" in line["why"]
        assert run.outcome["versions"] == {as_text(old): 5, as_text(new): 1}


def refusal_of(server: Server, program: Program) -> str:
    """The words with which the server of another version ends, or those about the copy that it cannot read."""
    try:
        replaced(server, program)
    except NotYet as error:
        return str(error)
    wait_until(lambda: "Can't handle RDB" in server.log_tail(), "the server rejects the copy", READY_S)
    assert not is_ready(server)
    return server.log_tail()


def replaced(server: Server, program: Program, config: Sequence[str] = ()) -> None:
    """Stops a server as the kubelet does, with its preStop hook, and starts another version on its files."""
    run_script(server, "prestop.sh")
    server.terminate()
    server.program, server.config = program, tuple(config)
    server.start()


def is_ready(server: Server) -> bool:
    """The answer of the readiness probe."""
    return run_script(server, "probe.sh", "ready") == 0


def run_script(server: Server, name: str, *arguments: str) -> int:
    place = {"REDIS_CLI_OPTIONS": f"-h {server.address.host} -p {server.address.port}", "REDIS_SCRIPT_LOG": os.devnull}
    path = f"{next(iter(CLIENTS.values())).parent}:{os.defpath}"
    command = ["sh", str(BASE_SERVERS / name), *arguments]
    return subprocess.run(command, env={"PATH": path, **place}, capture_output=True, check=False).returncode


class Ledger(Writer):
    """A writer that also knows when each shard acknowledged, and afterwards which keys are gone."""

    def __init__(self, servers: Sequence[Server], shards: int) -> None:
        super().__init__(servers)
        self.lost: list[str] = []
        self._times: dict[int, list[float]] = {shard: [] for shard in range(shards)}

    @property
    def longest_pause_s(self) -> float:
        """The longest time without an acknowledged write in one shard."""
        pairs = (pair for times in self._times.values() for pair in pairwise(times))
        return max(later - earlier for earlier, later in pairs)

    def _write(self, key: str, value: str) -> None:
        super()._write(key, value)
        if key in self.acknowledged:
            self._times[key_slot(key.encode()) * len(self._times) // 16384].append(time.monotonic())


@contextmanager
def writing(testbed: Testbed) -> Iterator[Ledger]:
    """A client that writes; afterwards every acknowledged key is read from the owner of its slot."""
    with Ledger(testbed.cluster.servers, testbed.shards) as writer:
        wait_until(lambda: len(writer.acknowledged) > 100, "the client writes")
        yield writer
        count = len(writer.acknowledged)
        wait_until(lambda: len(writer.acknowledged) > count + 100, "the client still writes")
    view = testbed.view(*(server for server in testbed.cluster.servers if server.alive))
    for node in view.nodes:
        writer.lost += missing(node, writer.acknowledged)


def missing(node: Node, acknowledged: dict[str, str]) -> list[str]:
    with Redis(node.address.host, node.address.port, protocol=2, decode_responses=True) as client:
        own = [key for key in acknowledged if key_slot(key.encode()) in node.slots]
        values = [client.get(key) for key in own]
    return [key for key, value in zip(own, values, strict=True) if value != acknowledged[key]]


def as_text(program: Program) -> str:
    """`Redis 7.0.15` as servers report it: `redis 7.0.15`."""
    return f"{program.name.lower()} {program.version}"


def program_of(line: str) -> Program:
    """A server of that line; without one, the test is skipped."""
    for path in SERVERS.values():
        program = find_program(str(path))
        if f"{program.name} {program.version}.".startswith(f"{LINES[line]}."):
            return program
    pytest.skip(f"no {LINES[line]} on this machine")


def test_a_plan_tells_the_verdict_before_the_image_changes(start_testbed: StartTestbed, any_program: Program) -> None:
    """For each version that runs, with what to do where the way is not open."""
    testbed = start_testbed(any_program)
    assert testbed.run("apply").outcome["outcome"] == "formed"
    for verb in ("plan", "verify"):
        run = testbed.run(verb, "--upgrade-to", "redis:5.0")
        assert run.exit_code == 0
        (line,) = (each for each in run.lines if each["event"] == "upgrade_path")
        assert line["why"].startswith(f"{as_text(any_program)} → redis 5.0: ")
        assert "keep the image" in line["remedy"]
    assert testbed.run("plan", "--upgrade-to", "nonsense").exit_code == 4
