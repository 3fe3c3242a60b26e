"""Half-moved and unowned slots on real servers: their keys are found again, each once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from redis import Redis
from redis.crc import key_slot

from bootstrap.local.programs import Program, find_program
from bootstrap.model.node import Role
from bootstrap.model.slots import SlotSet
from tests.available_servers import SERVERS
from tests.real.clusters import assert_healed, client, formed, written
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until

SLOT = 93
KEYS = 40


@contextmanager
def servers(testbed: Testbed, *, database: int = 0) -> Iterator[list[Redis]]:
    """A plain connection to each server."""
    endpoints = [
        Redis(s.address.host, s.address.port, db=database, decode_responses=True) for s in testbed.cluster.servers
    ]
    yield endpoints
    for door in endpoints:
        door.close()


def ids(endpoints: list[Redis]) -> list[str]:
    return [str(door.execute_command("CLUSTER MYID")) for door in endpoints]


def keys_of(slot: int, number: int) -> list[str]:
    """Names whose slot it is."""
    tag = next(f"t{i}" for i in count() if key_slot(f"t{i}".encode()) == slot)
    return [f"{{{tag}}}:{i}" for i in range(number)]


def half_move(testbed: Testbed, *, moved: int) -> dict[str, str]:
    """Slot 93 is open between redis-app-0 and redis-app-1, and some of its keys have gone over."""
    values = {name: f"v{name}" for name in keys_of(SLOT, KEYS)}
    with client(testbed) as writer:
        for name, value in values.items():
            writer.set(name, value)
    with servers(testbed) as endpoints:
        source, target, *_ = ids(endpoints)
        endpoints[1].execute_command("CLUSTER SETSLOT", SLOT, "IMPORTING", source)
        endpoints[0].execute_command("CLUSTER SETSLOT", SLOT, "MIGRATING", target)
        there = testbed.cluster.servers[1].address
        for name in list(values)[:moved]:
            endpoints[0].execute_command("MIGRATE", there.host, there.port, name, 0, 1000)
    return values


@pytest.mark.parametrize("moved", [0, 15, KEYS], ids=["none moved", "some moved", "all moved"])
def test_a_half_moved_slot_is_finished_or_taken_back(program: Program, start_testbed: StartTestbed, moved: int) -> None:
    """It stays with its owner if nothing had moved, and else goes where it was going; every key is found."""
    six, keys = formed(program, start_testbed)
    values = half_move(six, moved=moved)
    assert_healed(six, six.run("apply"), {**keys, **values})
    assert (SLOT in six.view().nodes[1].slots) == (moved > 0)


@pytest.mark.parametrize("crash", [False, True], ids=["handed over", "crashed"])
@pytest.mark.parametrize("moved", [0, 15, KEYS], ids=["none moved", "some moved", "all moved"])
def test_the_owner_of_a_half_moved_slot_fails_over(
    program: Program, start_testbed: StartTestbed, moved: int, crash: bool
) -> None:
    """Who imports a slot hears nothing of its new owner from gossip, and may hold it for unowned: down, for ever."""
    six, keys = formed(program, start_testbed)
    values = half_move(six, moved=moved)
    wait_until(lambda: all(written(server.address) for server in six.cluster.servers))
    if crash:
        six.cluster.servers[0].kill()
    else:
        with servers(six) as endpoints:
            endpoints[3].execute_command("CLUSTER FAILOVER")
    candidate = six.cluster.servers[3]
    wait_until(lambda: six.view(candidate).nodes[0].role is Role.MASTER)
    if crash:
        six.cluster.servers[0].start()
    wait_until(lambda: six.view(six.cluster.servers[0]).nodes[0].role is Role.REPLICA)
    assert_healed(six, six.run("apply"), {**keys, **values})


def test_a_move_that_one_side_forgot_is_finished(program: Program, start_testbed: StartTestbed) -> None:
    """The owner does not know any more that it was handing the slot over: the moved keys were lost to clients."""
    six, keys = formed(program, start_testbed)
    values = half_move(six, moved=15)
    with servers(six) as endpoints:
        endpoints[0].execute_command("CLUSTER SETSLOT", SLOT, "STABLE")
    assert_healed(six, six.run("apply"), {**keys, **values})


def test_a_key_on_both_sides_keeps_the_value_that_clients_see(program: Program, start_testbed: StartTestbed) -> None:
    """A MIGRATE that died in between leaves a copy with the new owner; the old one has served clients since."""
    six, keys = formed(program, start_testbed)
    values = half_move(six, moved=0)
    name = next(iter(values))
    with servers(six) as endpoints:
        there = six.cluster.servers[1].address
        endpoints[0].execute_command("MIGRATE", there.host, there.port, name, 0, 1000, "COPY")
        endpoints[0].set(name, "newer")
    assert_healed(six, six.run("apply"), {**keys, **values, name: "newer"})


@pytest.mark.skipif("valkey-9.1" not in SERVERS, reason="only Valkey 9 has several databases in a cluster")
def test_keys_of_every_database_move(start_testbed: StartTestbed) -> None:
    """Each is counted and moved for itself."""
    six, _ = formed(find_program(str(SERVERS["valkey-9.1"])), start_testbed, "cluster-databases 4")
    names = keys_of(SLOT, 3)
    with servers(six, database=0) as zero, servers(six, database=2) as two:
        source, target, *_ = ids(zero)
        for door, word in ((zero[0], "zero"), (two[0], "two")):
            for name in names:
                door.set(name, word)
        zero[1].execute_command("CLUSTER SETSLOT", SLOT, "IMPORTING", source)
        zero[0].execute_command("CLUSTER SETSLOT", SLOT, "MIGRATING", target)
        there = six.cluster.servers[1].address
        two[0].execute_command("MIGRATE", there.host, there.port, names[0], 2, 1000)
        said = six.run("apply")
        assert said.exit_code == 0, said.text
        assert [zero[1].get(name) for name in names] == ["zero"] * 3
        assert [two[1].get(name) for name in names] == ["two"] * 3


def test_slots_without_an_owner_go_home_to_their_keys(program: Program, start_testbed: StartTestbed) -> None:
    """Somebody took them from their owners; all pods are there, so no disk can come back with them."""
    six, keys = formed(program, start_testbed)
    with servers(six) as endpoints:
        for door in endpoints:
            door.execute_command("CLUSTER DELSLOTS", *range(5461, 8000), *range(100, 110))
        wait_until(lambda: all(len(node.others) == 5 for node in six.view().nodes))
    refused_or_healed = six.run("apply")
    assert_healed(six, refused_or_healed, keys)
    assert SlotSet.of((5461, 7999)) - six.view().nodes[1].slots == SlotSet()


def test_declared_settings_that_drifted_are_set(program: Program, start_testbed: StartTestbed) -> None:
    """And what is declared nowhere is told where nodes differ, and left alone."""
    six, keys = formed(program, start_testbed)
    with servers(six) as endpoints:
        endpoints[2].config_set("cluster-require-full-coverage", "no")
        endpoints[4].config_set("cluster-allow-replica-migration", "no")
    told = six.run("plan")
    assert (told.exit_code, told.outcome["outcome"]) == (0, "unchanged")
    assert "cluster-require-full-coverage is not the same on all nodes: no, yes" in told.text
    six.environment["BOOTSTRAP_REQUIRE_FULL_COVERAGE"] = "yes"
    assert six.run("verify").exit_code == 1
    assert_healed(six, six.run("apply"), keys)
    with servers(six) as endpoints:
        assert endpoints[2].config_get("cluster-require-full-coverage")["cluster-require-full-coverage"] == "yes"
        assert endpoints[4].config_get("cluster-allow-replica-migration")["cluster-allow-replica-migration"] == "no"


def test_slots_go_home_also_where_something_else_comes_first(any_program: Program, start_testbed: StartTestbed) -> None:
    """The drifted timeout is set first; what is seen after that must know whose the keys are."""
    six, keys = formed(any_program, start_testbed)
    values = dict.fromkeys(keys_of(100, 3), "mine")
    with client(six) as writer:
        for name, value in values.items():
            writer.set(name, value)
    with servers(six) as endpoints:
        for door in endpoints:
            door.execute_command("CLUSTER DELSLOTS", *range(5461, 8000), *range(100, 110))
        endpoints[2].config_set("cluster-node-timeout", 3000)
    assert_healed(six, six.run("apply"), {**keys, **values})


@pytest.mark.skipif("valkey-9.1" not in SERVERS, reason="only Valkey's replicas copy the marks of their masters")
def test_a_mark_that_only_a_replica_kept_is_taken_away(start_testbed: StartTestbed) -> None:
    """It was away while the move ended, and came back with a whole new copy, which has no marks in it."""
    six, keys = formed(find_program(str(SERVERS["valkey-9.1"])), start_testbed, "repl-backlog-size 16384")
    with servers(six) as endpoints:
        source, target, *_ = ids(endpoints)
        endpoints[1].execute_command("CLUSTER SETSLOT", SLOT, "IMPORTING", source)
        endpoints[0].execute_command("CLUSTER SETSLOT", SLOT, "MIGRATING", target)
        wait_until(lambda: bool(six.view().nodes[3].open_slots))
        six.cluster.servers[3].kill()
        for door in endpoints[:2]:
            door.execute_command("CLUSTER SETSLOT", SLOT, "STABLE")
        for name in keys_of(50, 100):
            endpoints[0].set(name, "x" * 5000)
    six.cluster.servers[3].start()
    wait_until(lambda: len(six.view().nodes) == 6 and six.view().nodes[3].replication.link_up)
    assert six.view().nodes[3].open_slots
    assert_healed(six, six.run("apply"), keys)
