"""Pods take over a living cluster, give it back, take it over again, and go on without it; clients work throughout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

import pytest

from bootstrap.local.programs import Program, find_program
from bootstrap.local.servers import start_all, stop_all
from bootstrap.model.node import Role
from bootstrap.model.steps import Forget, ManualFailover, Meet, Replicate, Retire, Write
from tests.available_servers import SERVERS
from tests.real.checker import Checker
from tests.real.clusters import client
from tests.real.killed_run import Moment, apply_until_killed
from tests.real.testbed import RunResult, StartTestbed, Testbed
from tests.waiting import wait_until

TIMEOUT = "cluster-node-timeout 5000"
RELAXED = "rdb-version-check relaxed"
PAUSE_MAX_S = 2.0
PAIRS = [
    pair
    for pair in (
        ("redis-on-path", "valkey-9.1"),
        ("redis-6.2", "valkey-9.1"),
        ("redis-6.2", "redis-8.2"),
        ("redis-on-path", "redis-8.2"),
        ("redis-8.2", "redis-8.10"),
    )
    if set(pair) <= SERVERS.keys()
]


def program_of(name: str) -> Program:
    return find_program(str(SERVERS[name]))


def settings_for(program: Program) -> tuple[str, ...]:
    """Valkey 9 reads the copies of Redis 7.4 and newer only where it is told to."""
    relaxed = program.name == "Valkey" and program.version.startswith("9.")
    return (TIMEOUT, RELAXED) if relaxed else (TIMEOUT,)


def both_sides(
    start_testbed: StartTestbed, old: str, new: str, *, keys: int = 300, config: tuple[str, ...] = ()
) -> tuple[Testbed, Testbed]:
    """An old cluster with keys of several types, and six blank pods that know its address."""
    theirs = start_testbed(program_of(old), config=(TIMEOUT, *config))
    assert theirs.run("apply").exit_code == 0
    with client(theirs) as writer:
        for number in range(keys):
            writer.set(f"text:{number}", f"value:{number}")
        writer.rpush("list", *range(100))
        writer.hset("hash", mapping={f"field:{n}": n for n in range(100)})
        writer.zadd("zset", {f"member:{n}": n for n in range(100)})
        writer.xadd("stream", {"field": "value"})
    ours = start_testbed(program_of(new), config=(*settings_for(program_of(new)), *config))
    ours.environment["BOOTSTRAP_ADOPT"] = str(theirs.cluster.servers[0].address)
    return theirs, ours


def contents(bed: Testbed, keys: int = 300) -> dict[str, object]:
    """What clients read."""
    with client(bed) as reader:
        found: dict[str, object] = {f"text:{number}": reader.get(f"text:{number}") for number in range(keys)}
        found["list"] = reader.lrange("list", 0, -1)
        found["hash"] = reader.hgetall("hash")
        found["zset"] = reader.zrange("zset", 0, -1, withscores=True)
        found["stream"] = reader.xlen("stream")
    return found


def fingerprint(ours: Testbed) -> str:
    planned = ours.run("plan")
    assert (planned.exit_code, planned.outcome["outcome"]) == (0, "planned"), planned.text
    found: str = planned.outcome["cluster"]
    assert found in planned.outcome["next"]
    return found


@contextmanager
def clients_at_work(bed: Testbed, *more: Testbed) -> Iterator[Checker]:
    """Clients that began at these nodes, and that lost no write, read no old value and were answered soon."""
    with Checker([server.address for each in (bed, *more) for server in each.cluster.servers]) as checker:
        checker.wait_for(100)
        yield checker
        checker.wait_for(100)
    assert checker.lost() == []
    assert checker.stale == []
    assert checker.worst_pause_s < PAUSE_MAX_S


def ended(result: RunResult) -> tuple[int, str]:
    return result.exit_code, result.outcome["outcome"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_there_and_back_and_there_again(start_testbed: StartTestbed, old: str, new: str) -> None:
    """No acknowledged write is lost, the longest pause is below two seconds, and the old disks keep the data."""
    theirs, ours = both_sides(start_testbed, old, new)
    before = contents(theirs)
    confirmed = fingerprint(ours)
    with clients_at_work(theirs, ours):
        adopted = ours.run("apply", "--adopt", confirmed)
        assert ended(adopted) == (0, "adopted"), adopted.text
        assert "6 of 6 old nodes follow" in adopted.outcome["next"]
        assert {node.role for node in theirs.view().nodes} == {Role.REPLICA}
        assert ended(ours.run("verify")) == (0, "unchanged")
        returned = ours.run("apply", "--adopt-back", "on")
        assert ended(returned) == (0, "returned"), returned.text
        assert not any(node.slots for node in ours.view().nodes)
        again = ours.run("apply")
        assert ended(again) == (0, "adopted"), again.text
    assert contents(ours) == before
    with clients_at_work(ours):
        finished = ours.run("apply", "--adopt-finish", "on")
        assert ended(finished) == (0, "finished"), finished.text
        for _ in range(2):
            plain = ours.run("apply", BOOTSTRAP_ADOPT="")
            assert (plain.outcome["outcome"], plain.outcome["steps"]) == ("unchanged", 0)
    assert contents(ours) == before
    assert all(node.blank for node in theirs.view().nodes)
    assert ended(ours.run("apply")) == (0, "unchanged"), "the setting may stay"
    stop_all(theirs.cluster.servers)
    start_all(theirs.cluster.servers)
    wait_until(lambda: kept(theirs), "the old disks have every key")


def kept(theirs: Testbed) -> bool:
    """Whether each half of the old servers, masters and replicas, has all keys on its disk."""
    nodes = theirs.view().nodes
    return len(nodes) == len(theirs.cluster.servers) and sum(node.keys for node in nodes) >= 2 * 304


def test_without_the_persons_word_nothing_is_joined(start_testbed: StartTestbed) -> None:
    """Neither without a fingerprint nor with another one. The reason names what would be joined, and the command."""
    theirs, ours = both_sides(start_testbed, *PAIRS[0])
    confirmed = fingerprint(ours)
    for words in ((), ("--adopt", "0123456789ab")):
        refused = ours.run("apply", *words)
        assert ended(refused) == (3, "refused")
        assert refused.outcome["steps"] == 0
        (reason,) = refused.outcome["reasons"]
        assert reason["code"] == "adoption-not-confirmed"
        assert confirmed in reason["message"]
        assert f"--adopt {confirmed}" in reason["remedy"]
    assert all(node.blank for node in ours.view().nodes)
    assert all(len(node.others) == 5 for node in theirs.view().nodes)


WAY = {"adopted": {}, "returned": {"BOOTSTRAP_ADOPT_BACK": "on"}, "finished": {"BOOTSTRAP_ADOPT_FINISH": "on"}}


@pytest.mark.skipif(not {"redis-8.2", "valkey-9.1"} <= SERVERS.keys(), reason="needs Redis 8 and Valkey 9")
def test_servers_that_misread_each_other_are_not_joined(start_testbed: StartTestbed) -> None:
    """Valkey would redirect clients to what Redis 8 sends in the place of an address. The way is an import."""
    _, ours = both_sides(start_testbed, "redis-8.2", "valkey-9.1")
    for words in (("plan",), ("apply", "--adopt", "0123456789ab")):
        refused = ours.run(*words)
        assert ended(refused) == (3, "refused")
        assert {reason["code"] for reason in refused.outcome["reasons"]} == {"version-path", "adoption-not-confirmed"}
        assert "python -m bootstrap import" in str(refused.outcome["reasons"])
    assert all(node.blank for node in ours.view().nodes)


MOMENTS: tuple[tuple[str, type[Write], int], ...] = (
    ("adopted", Meet, 0),
    ("adopted", Meet, 20),
    ("adopted", Replicate, 0),
    ("adopted", Replicate, 4),
    ("adopted", ManualFailover, 0),
    ("adopted", ManualFailover, 2),
    ("returned", ManualFailover, 1),
    ("finished", Forget, 0),
    ("finished", Forget, 17),
    ("finished", Retire, 0),
    ("finished", Retire, 3),
    ("finished", Retire, 5),
)
EVERY_KILL = os.environ.get("EVERY_KILL") == "1"
SAMPLE = [(state, Moment(number, before, kind)) for state, kind, number in MOMENTS for before in (True, False)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("state", "moment", "pair"),
    [
        (state, moment, pair)
        for (state, moment), one in zip(SAMPLE, cycle(PAIRS), strict=False)
        for pair in (PAIRS if EVERY_KILL else [one])
    ],
    ids=str,
)
def test_killed_at_a_write_the_next_run_finishes(
    start_testbed: StartTestbed, state: str, moment: Moment, pair: tuple[str, str]
) -> None:
    """A client loses no write, and the state that was declared is reached by the same command."""
    theirs, ours = both_sides(start_testbed, *pair)
    before = contents(theirs)
    ours.environment["BOOTSTRAP_ADOPT_FINGERPRINT"] = fingerprint(ours)
    if state != "adopted":
        assert ended(ours.run("apply")) == (0, "adopted")
    ours.environment |= WAY[state]
    with Checker([server.address for bed in (theirs, ours) for server in bed.cluster.servers]) as checker:
        checker.wait_for(50)
        assert apply_until_killed(ours, moment).dead
        result = ours.run("apply")
        checker.wait_for(50)
    assert checker.lost() == []
    assert checker.stale == []
    expected = (state, "unchanged", "repaired") if state == "finished" else (state,)
    assert result.exit_code == 0, result.text
    assert result.outcome["outcome"] in expected, result.text
    assert contents(ours) == before
    if state == "finished":
        plain = ours.run("apply", BOOTSTRAP_ADOPT="", BOOTSTRAP_ADOPT_FINGERPRINT="", BOOTSTRAP_ADOPT_FINISH="")
        assert ended(plain) == (0, "unchanged"), plain.text
        assert all(node.blank for node in theirs.view().nodes)
