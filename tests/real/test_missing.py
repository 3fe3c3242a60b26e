"""Pods that do not answer, dead or hung, while the others are where they were or have all moved: the others serve as
far as a majority of the masters and a copy of every slot are left; back again, they are members, and no key is lost.

A few cases are the default. `EVERY_MISSING=1` in the environment takes every single pod and every pair of six and nine
servers, killed and hung, moved and not moved, on every kind of server: some hours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations, cycle, product

import pytest
from redis import RedisCluster
from redis.cluster import ClusterNode

from bootstrap.errors import NotYet
from bootstrap.local.programs import Program, find_program
from bootstrap.local.servers import Server
from bootstrap.model.steps import Failover, Meet
from bootstrap.verify import violations
from tests.available_servers import SERVERS
from tests.real.clusters import TIMEOUT_MS, client, replace_pods, written
from tests.real.killed_run import Moment, apply_until_killed
from tests.real.testbed import RunResult, StartTestbed, Testbed
from tests.waiting import wait_until

EVERY_MISSING = os.environ.get("EVERY_MISSING") == "1"
ELECTED_S, FORCED_S = "12", "30"
"""Deadlines of a run, seconds: the servers elect by themselves, or the run has to watch a link before it asks."""


@dataclass(frozen=True)
class Case:
    """Which pods of how many are missing, and what happened to the others."""

    nodes: int
    missing: tuple[int, ...]
    hung: bool
    moved: bool

    def __str__(self) -> str:
        how = "hung" if self.hung else "dead"
        return f"{','.join(map(str, self.missing))} of {self.nodes} {how}{' and the others moved' * self.moved}"

    @property
    def serves(self) -> bool:
        """True where a majority of the three masters is left, and a node of every shard."""
        left = {ordinal % 3 for ordinal in range(self.nodes) if ordinal not in self.missing}
        return sum(ordinal < 3 for ordinal in self.missing) < 2 and left == {0, 1, 2}

    @property
    def deadline_s(self) -> str:
        """A replica that was started again starts no election."""
        return FORCED_S if self.moved and min(self.missing) < 3 else ELECTED_S


SAMPLE = (
    Case(6, (4,), hung=False, moved=True),
    Case(6, (1,), hung=False, moved=True),
    Case(6, (1,), hung=True, moved=True),
    Case(6, (1,), hung=True, moved=False),
    Case(6, (0, 1), hung=False, moved=True),
    Case(9, (0, 4), hung=False, moved=True),
)


def cases() -> Iterator[object]:
    if not EVERY_MISSING:
        for case, name in zip(SAMPLE, cycle(SERVERS), strict=False):
            yield pytest.param(case, name, id=f"{case}-{name}")
        return
    for name, nodes, hung, moved in product(SERVERS, (6, 9), (False, True), (False, True)):
        for missing in [*combinations(range(nodes), 1), *combinations(range(nodes), 2)]:
            case = Case(nodes, missing, hung=hung, moved=moved)
            yield pytest.param(case, name, id=f"{case}-{name}")


@pytest.mark.parametrize(("case", "name"), tuple(cases()))
def test_the_others_serve_and_the_missing_ones_return(case: Case, name: str, start_testbed: StartTestbed) -> None:
    """Exit code 1 names who is missing and whether clients are served; then a run makes it whole, with every key."""
    fleet, keys = formed(find_program(str(SERVERS[name])), start_testbed, replicas=case.nodes // 3 - 1)
    missing = [fleet.cluster.servers[ordinal] for ordinal in case.missing]
    others = [server for server in fleet.cluster.servers if server not in missing]
    for server in missing:
        server.pause() if case.hung else server.kill()
    try:
        if case.moved:
            replace_pods(fleet, *(n for n in range(case.nodes) if n not in case.missing), wiped=False)
        said = fleet.run("apply", BOOTSTRAP_DEADLINE_S=case.deadline_s)
        assert_says_who_is_missing(said, missing)
        assert said.outcome["serving"] is case.serves, said.text
        if case.serves:
            assert found_keys(others, keys) == keys
    finally:
        for server in missing:
            server.resume() if case.hung else server.start()
    whole = fleet.run("apply")
    assert whole.exit_code == 0, whole.text
    wait_until(lambda: not violations(fleet.view(), replace(fleet.desired, timeout_ms=TIMEOUT_MS)))
    with client(fleet) as reader:
        assert {key: reader.get(key) for key in keys} == keys
    again = fleet.run("apply")
    assert (again.outcome["outcome"], again.outcome["steps"]) == ("unchanged", 0), again.text


def formed(program: Program, start_testbed: StartTestbed, *, replicas: int) -> tuple[Testbed, Mapping[str, str]]:
    """Servers that serve, with keys on every shard that each replica has, on every disk."""
    fleet = start_testbed(program, 3, replicas, config=(f"cluster-node-timeout {TIMEOUT_MS}",))
    fleet.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = str(TIMEOUT_MS)
    assert fleet.run("apply").exit_code == 0
    keys = {f"key:{number}": f"value:{number}" for number in range(200)}
    with client(fleet) as writer:
        for key, value in keys.items():
            writer.set(key, value)
        for node in writer.get_primaries():
            assert writer.execute_command("WAIT", replicas, 5000, target_nodes=node) == replicas
    wait_until(lambda: all(written(server.address) for server in fleet.cluster.servers))
    return fleet, keys


def assert_says_who_is_missing(said: RunResult, missing: Sequence[Server]) -> None:
    assert (said.exit_code, said.outcome["outcome"]) == (1, "failed"), said.text
    assert [reason["node"] for reason in said.outcome["reasons"] if "node" in reason] == [s.name for s in missing]


def found_keys(servers: Sequence[Server], keys: Mapping[str, str]) -> Mapping[str, str | None]:
    """What a client finds that knows these servers."""
    endpoints = [ClusterNode(server.address.host, server.address.port) for server in servers]
    with RedisCluster(startup_nodes=endpoints, decode_responses=True, socket_timeout=5, protocol=2) as reader:
        return {key: reader.get(key) for key in keys}


def kills() -> Iterator[object]:
    """A replica or a master is missing and the others have moved: the run is killed at some write, or at every one."""
    moments = [(missing, moment) for missing, moment in (SAMPLED_KILLS if not EVERY_MISSING else every_kill())]
    names = list(SERVERS)
    for number, (missing, moment) in enumerate(moments):
        for name in names if EVERY_MISSING else [names[number % len(names)]]:
            yield pytest.param(missing, moment, name, id=f"{missing} of 6-{moment}-{name}")


SAMPLED_KILLS = (
    (4, Moment(2, before=False, kind=Meet)),
    (1, Moment(0, before=True, kind=Failover)),
    (1, Moment(0, before=False, kind=Failover)),
)
MEETS = 10
"""Five servers that have moved are introduced in pairs."""


def every_kill() -> Iterator[tuple[int, Moment]]:
    for missing, before in product((1, 4), (True, False)):
        yield from ((missing, Moment(number, before=before, kind=Meet)) for number in range(MEETS))
    yield from ((1, Moment(0, before=before, kind=Failover)) for before in (True, False))


@pytest.mark.parametrize(("missing", "moment", "name"), tuple(kills()))
def test_a_repair_without_a_pod_that_is_killed_is_finished_by_the_next(
    missing: int, moment: Moment, name: str, start_testbed: StartTestbed
) -> None:
    """The next run serves without the pod; once it is back, another one makes the cluster whole, with every key."""
    fleet, keys = formed(find_program(str(SERVERS[name])), start_testbed, replicas=1)
    dead = fleet.cluster.servers[missing]
    dead.kill()
    replace_pods(fleet, *(ordinal for ordinal in range(6) if ordinal != missing), wiped=False)
    fleet.environment["BOOTSTRAP_DEADLINE_S"] = FORCED_S
    with suppress(NotYet):  # with EVERY_MISSING the last introductions may not happen: nodes find each other
        assert apply_until_killed(fleet, moment).dead
    said = fleet.run("apply")
    assert_says_who_is_missing(said, [dead])
    assert said.outcome["serving"] is True, said.text
    assert found_keys([server for server in fleet.cluster.servers if server is not dead], keys) == keys
    dead.start()
    whole = fleet.run("apply")
    assert whole.exit_code == 0, whole.text
    with client(fleet) as reader:
        assert {key: reader.get(key) for key in keys} == keys


def test_a_takeover_is_confirmed_by_a_person(any_program: Program, start_testbed: StartTestbed) -> None:
    """Two of three masters are dead, and nothing proves it: the run names what confirms it, and then serves."""
    fleet, keys = formed(any_program, start_testbed, replicas=1)
    dead, others = fleet.cluster.servers[:2], fleet.cluster.servers[2:]
    for server in dead:
        server.kill()
    said = fleet.run("apply", BOOTSTRAP_DEADLINE_S=FORCED_S)
    assert_says_who_is_missing(said, dead)
    reason = said.outcome["reasons"][-1]
    assert (reason["code"], said.outcome["serving"], said.outcome["steps"]) == ("takeover-unproven", False, 0)
    fingerprint = reason["remedy"].partition("--accept-takeover ")[2][:12]
    confirmed = fleet.run("apply", "--accept-takeover", fingerprint, BOOTSTRAP_DEADLINE_S=ELECTED_S)
    assert (confirmed.exit_code, confirmed.outcome["serving"]) == (1, True), confirmed.text
    assert found_keys(others, keys) == keys
    for server in dead:
        server.start()
    whole = fleet.run("apply")
    assert whole.exit_code == 0, whole.text
    with client(fleet) as reader:
        assert {key: reader.get(key) for key in keys} == keys


def test_a_plan_shows_what_is_done_and_what_waits(any_program: Program, start_testbed: StartTestbed) -> None:
    """A replica is dead and another pod blank: `plan` shows both, exits with 1, and writes nothing."""
    fleet, _ = formed(any_program, start_testbed, replicas=1)
    dead = fleet.cluster.servers[3]
    dead.kill()
    replace_pods(fleet, 4, wiped=True)
    said = fleet.run("plan", BOOTSTRAP_DEADLINE_S="3")
    assert_says_who_is_missing(said, [dead])
    (shown,) = (line for line in said.lines if line["event"] == "plan")
    assert shown["phases"][0]["phase"] == "meet"
    assert [(held["phase"], held["until"]) for held in shown["held_back"]] == [("assign", [dead.name])]
    assert (said.outcome["steps"], said.outcome["serving"]) == (0, True), "a blank pod is no member"
    assert fleet.view(fleet.cluster.servers[4]).nodes[0].blank
