"""A resize is killed, stopped or out of time while clients work. The next run continues, and nothing is lost.

By default it is killed twice on each kind of server. `RESIZE_KILLS=50` in the environment kills fifty times on each.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count

import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import ResponseError

from bootstrap.clock import SystemClock
from bootstrap.local.programs import Program
from bootstrap.model.slots import SLOT_COUNT
from bootstrap.nodes.migration import transfer
from tests.real.checker import Checker
from tests.real.clusters import client
from tests.real.processes import start_apply
from tests.real.sizes import assert_good, declared, listed, started
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until

KILLS = int(os.environ.get("RESIZE_KILLS", "2"))
FILLING = 10
"""Keys of 100 bytes in each slot. Moving a quarter of all slots then takes at least some tenths of a second."""


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of the program. Those that still run after the test are killed."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for program in running:
        if program.poll() is None:
            program.kill()
            program.wait()


def fill(testbed: Testbed, each: int = FILLING, *, part: int = 1) -> int:
    """Adds `each` keys to every slot, or to one in `part` of each master's slots, the lowest. The servers write them.
    Returns the number of all keys.
    """
    slots_per_script = max(1, KEYS_PER_SCRIPT // each)
    for node in testbed.view().nodes:
        slots = list(node.slots.lowest(-(-len(node.slots) // part)))
        for first in range(0, len(slots), slots_per_script):
            batch = slots[first : first + slots_per_script]
            wait_until(partial(filled, testbed, each, batch), f"slots from {batch[0]} are filled")
    return sum(node.keys for node in testbed.view().nodes if node.slots)


def filled(testbed: Testbed, each: int, slots: Sequence[int]) -> bool:
    """Fills slots of one shard. False if their master changes meanwhile, as on a machine that is too busy."""
    master = next((node for node in testbed.view().nodes if slots[0] in node.slots), None)
    if master is None:
        return False
    with Redis(master.address.host, master.address.port, protocol=2) as server, suppress(ResponseError):
        server.eval(FILL, 0, each, *(tags()[slot] for slot in slots))
        return True
    return False


@cache
def tags() -> Mapping[int, str]:
    """A hash tag for each slot."""
    found: dict[int, str] = {}
    numbers = count()
    while len(found) < SLOT_COUNT:
        tag = str(next(numbers))
        found.setdefault(key_slot(tag.encode()), tag)
    return found


KEYS_PER_SCRIPT = 10_000
"""The limit per call: a script that runs longer than the node timeout would cause a failover."""
FILL = """
for place = 2, #ARGV do
  for number = 1, ARGV[1] do
    redis.call('SET', 'filling:{' .. ARGV[place] .. '}:' .. number, string.rep('x', 100))
  end
end
"""
"""A node accepts a script without declared keys for the slots that it owns."""


def seen_moving(program: subprocess.Popen[str], testbed: Testbed) -> bool:
    """True if slots are moving or have moved, or if the program has ended."""
    view = testbed.view()
    moved = sum(1 for node in view.nodes if node.slots) > 3
    return program.poll() is not None or moved or any(node.migrations or node.open_slots for node in view.nodes)


@pytest.mark.timeout(60 + 30 * KILLS)
def test_a_resize_that_is_killed_at_any_moment_is_finished(
    program: Program, start_testbed: StartTestbed, programs: list[subprocess.Popen[str]]
) -> None:
    """SIGKILL at random moments of growing and of shrinking in turn. After a complete run all keys are there."""
    chance = random.Random(str(program.path))
    eight, keys = started(program, start_testbed, 3, 1, servers=8)
    fill(eight)
    listed(eight, 8)
    grown = declared(eight, 4, 1)
    shapes = (grown, replace(eight))
    with Checker([server.address for server in eight.cluster.servers[:3]]) as checker:
        for number in range(KILLS):
            shape = shapes[number % 2]
            killed = start_apply(shape, programs)
            wait_until(lambda killed=killed: seen_moving(killed, eight))  # type: ignore[misc]
            kill_after(killed, chance.uniform(0.0, 0.6))
            result = shape.run("apply") if chance.random() < 0.5 or number == KILLS - 1 else None
            assert result is None or result.exit_code == 0, result.text
    last = shapes[(KILLS - 1) % 2]
    assert (checker.stale, checker.lost()) == ([], [])
    assert_good(last, keys)
    assert len(checker.errors) < checker.operations / 50, checker.errors[:5]


def kill_after(program: subprocess.Popen[str], seconds: float) -> None:
    """Kills the program after this time, unless it has ended by itself."""
    try:
        program.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        program.kill()
        program.communicate()


def test_a_signal_ends_a_resize_cleanly(
    program: Program, start_testbed: StartTestbed, programs: list[subprocess.Popen[str]]
) -> None:
    """SIGTERM: exit 1 within seconds, no slot is left open, no server continues by itself. The next run finishes."""
    eight, keys = started(program, start_testbed, 3, 1, servers=8)
    keys_in_all = fill(eight, 4 * FILLING, part=4)  # in the slots that are to move
    listed(eight, 8)
    grown = declared(eight, 4, 1)
    running = start_apply(grown, programs)
    wait_until(lambda: seen_moving(running, eight))
    running.send_signal(signal.SIGTERM)
    text, errors = running.communicate(timeout=20)
    assert errors == ""
    if running.returncode == 0:
        pytest.skip("the move was over before the signal arrived")
    assert (running.returncode, '"interrupted"' in text) == (1, True), text
    view = eight.view()
    assert not view.open_slots()
    outcome = json.loads(text.splitlines()[-1])
    assert outcome["steps"] >= 3
    assert outcome["shards"] == sum(1 for node in view.nodes if node.slots)
    wait_until(lambda: not any(node.migrations for node in eight.view().nodes))
    assert grown.run("apply").exit_code == 0
    assert_good(grown, keys)
    assert sum(node.keys for node in grown.view().nodes if node.slots) == keys_in_all


@dataclass
class UntilArrival(SystemClock):
    """A clock that exceeds the limit for moving slots once a server owns some."""

    owns_slots: Callable[[], bool]
    limit_s: float
    arrived: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def now(self) -> float:
        return super().now() + (self.limit_s if self.arrived else 0.0)

    def check(self) -> None:
        super().check()
        self.arrived = self.arrived or self.owns_slots()


def test_moving_has_its_own_deadline_and_the_next_run_continues(
    any_program_since_6: Program, start_testbed: StartTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1 with the number of slots that were moved. Slots that have arrived stay there."""
    eight, keys = started(any_program_since_6, start_testbed, 3, 1, servers=8)
    listed(eight, 8)
    grown = declared(eight, 4, 1)
    newcomer = eight.cluster.servers[6]
    clock = UntilArrival(lambda: bool(grown.view(newcomer).nodes[0].slots), limit_s=60.0)
    # Slots must not all arrive at the same time, however fast they move. So keys move in many short moments, and where
    # servers migrate slots by themselves, one source takes a second for each key.
    monkeypatch.setattr(transfer, "MOMENT_S", 0.0)
    slow = eight.cluster.servers[2].address
    with Redis(slow.host, slow.port, protocol=2) as source:
        source.config_set("rdb-key-save-delay", 1_000_000)
        result = replace(grown, clock=clock).run("apply", BOOTSTRAP_MOVE_DEADLINE_S="60")
        source.config_set("rdb-key-save-delay", 0)
    assert (result.exit_code, [reason["code"] for reason in result.outcome["reasons"]]) == (1, ["moving-slots"]), (
        result.text
    )
    assert "of 4096 slots were moved within the limit of 60 s" in result.outcome["reasons"][0]["message"]
    arrived = len(grown.view(newcomer).nodes[0].slots)
    assert 0 < arrived < 4096
    again = grown.run("apply")
    assert again.exit_code == 0, again.text
    assert_good(grown, keys)


def test_a_new_node_receives_functions_and_users(program: Program, start_testbed: StartTestbed) -> None:
    """A library and an ACL user that were loaded at run time are on the new master, and on its replica."""
    eight, keys = started(program, start_testbed, 3, 1, servers=8)
    if eight.view().nodes[0].version.startswith(("redis 5", "redis 6")):
        pytest.skip("this server has no functions")
    code = "#!lua name=counting\nredis.register_function('count', function(keys, args) return 42 end)"
    for server in eight.cluster.servers[:6]:
        with Redis(server.address.host, server.address.port, protocol=2) as node:
            node.execute_command("ACL", "SETUSER", "alice", "on", ">secret", "~app:*", "+get", "(%R~other:* +get)")
    with client(eight) as writer:
        for node in writer.get_primaries():
            writer.execute_command("FUNCTION", "LOAD", code, target_nodes=node)
    listed(eight, 8)
    grown = declared(eight, 4, 1)
    result = grown.run("apply")
    assert result.exit_code == 0, result.text
    assert_good(grown, keys)
    for server in eight.cluster.servers[6:]:
        with Redis(server.address.host, server.address.port, decode_responses=True, protocol=2) as connection:
            assert [library[1] for library in connection.function_list()] == ["counting"]
            assert "alice" in connection.acl_users()
            assert connection.acl_getuser("alice")["keys"] == ["~app:*"]
            assert connection.execute_command("AUTH", "alice", "secret") is True
