"""Half-moved and unowned slots on real servers: all of their keys are found again, each exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import pytest
from redis import Redis
from redis.crc import key_slot

from bootstrap.local.programs import Program, find_program
from bootstrap.model.node import Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import CloseSlot
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
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
        Redis(s.address.host, s.address.port, db=database, decode_responses=True, protocol=2)
        for s in testbed.cluster.servers
    ]
    yield endpoints
    for endpoint in endpoints:
        endpoint.close()


def ids(endpoints: list[Redis]) -> list[str]:
    return [str(endpoint.execute_command("CLUSTER MYID")) for endpoint in endpoints]


def keys_of(slot: int, number: int) -> list[str]:
    """Names of keys in that slot."""
    tag = next(f"t{i}" for i in count() if key_slot(f"t{i}".encode()) == slot)
    return [f"{{{tag}}}:{i}" for i in range(number)]


def half_move(testbed: Testbed, *, moved: int) -> dict[str, str]:
    """Opens slot 93 between redis-app-0 and redis-app-1, and moves some of its keys."""
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
def test_the_move_of_an_open_slot_is_finished_or_undone(
    program: Program, start_testbed: StartTestbed, moved: int
) -> None:
    """The slot stays with its owner if no key had moved. Otherwise the target receives it. Every key is found."""
    six, keys = formed(program, start_testbed)
    values = half_move(six, moved=moved)
    assert_healed(six, six.run("apply"), {**keys, **values})
    assert (SLOT in six.view().nodes[1].slots) == (moved > 0)


@pytest.mark.parametrize("crash", [False, True], ids=["manual failover", "crashed"])
@pytest.mark.parametrize("moved", [0, 15, KEYS], ids=["none moved", "some moved", "all moved"])
def test_the_owner_of_a_half_moved_slot_fails_over(
    program: Program, start_testbed: StartTestbed, moved: int, crash: bool
) -> None:
    """A node ignores gossip about a slot that it imports. It may count the slot as unowned and stay down forever."""
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


def test_a_move_that_is_open_only_on_the_target_is_finished_once_a_person_says_so(
    program: Program, start_testbed: StartTestbed
) -> None:
    """Clients cannot find the keys that have moved, and the same state is left by keys that nobody could see. So a run
    refuses, until the slot is open on its owner again: the command is in the remedy.
    """
    six, keys = formed(program, start_testbed)
    values = half_move(six, moved=15)
    with servers(six) as endpoints:
        endpoints[0].execute_command("CLUSTER SETSLOT", SLOT, "STABLE")
        refused = six.run("apply")
        assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
        (reason,) = refused.outcome["reasons"]
        assert reason["code"] == "keys-on-several"
        command = ("CLUSTER SETSLOT", SLOT, "MIGRATING", ids(endpoints)[1])
        typed = f"kubectl exec redis-app-0 -- redis-cli CLUSTER SETSLOT $slot MIGRATING {command[-1]}"
        assert f"for slot in {SLOT}; do" in reason["remedy"]
        assert typed in reason["remedy"]
        endpoints[0].execute_command(*command)
    assert_healed(six, six.run("apply"), {**keys, **values})


@pytest.mark.parametrize("crash", [False, True], ids=["manual failover", "crashed"])
@pytest.mark.parametrize("moved", [15, KEYS], ids=["some moved", "all moved"])
def test_the_target_of_a_half_moved_slot_fails_over(
    program: Program, start_testbed: StartTestbed, moved: int, crash: bool
) -> None:
    """Its replica has the keys that had arrived. On older servers it knows of no move."""
    six, keys = formed(program, start_testbed)
    values = half_move(six, moved=moved)
    wait_until(lambda: all(written(server.address) for server in six.cluster.servers))
    if crash:
        six.cluster.servers[1].kill()
    else:
        with servers(six) as endpoints:
            endpoints[4].execute_command("CLUSTER FAILOVER")
    wait_until(lambda: six.view(six.cluster.servers[4]).nodes[0].role is Role.MASTER)
    if crash:
        six.cluster.servers[1].start()
    wait_until(lambda: six.view(six.cluster.servers[1]).nodes[0].role is Role.REPLICA)
    assert_healed(six, six.run("apply"), {**keys, **values})
    assert SLOT in six.view().nodes[4].slots


def test_a_key_on_both_sides_keeps_the_value_that_clients_see(program: Program, start_testbed: StartTestbed) -> None:
    """An interrupted MIGRATE leaves a copy on the new owner. The old owner has served clients since."""
    six, keys = formed(program, start_testbed)
    values = half_move(six, moved=0)
    name = next(iter(values))
    with servers(six) as endpoints:
        there = six.cluster.servers[1].address
        endpoints[0].execute_command("MIGRATE", there.host, there.port, name, 0, 1000, "COPY")
        endpoints[0].set(name, "newer")
    assert_healed(six, six.run("apply"), {**keys, **values, name: "newer"})


def test_a_slot_that_received_a_key_is_opened_again(program: Program, start_testbed: StartTestbed) -> None:
    """A client is redirected to the importing node after the keys were counted and before the slot is closed there: as
    long as the slot is open on both sides, the next run finds the key and finishes the move.
    """
    six, keys = formed(program, start_testbed)
    values = half_move(six, moved=0)
    view = six.view()
    late = keys_of(SLOT, KEYS + 1)[-1]
    with client(six) as writer:
        writer.set(late, "late")
    closing = CloseSlot(node=view.nodes[1].node_id, slot=SLOT, reopen_from=view.nodes[0].node_id)
    nodes = Nodes(Credentials())
    try:
        assert nodes.send({view.nodes[1].address: [closing]}) == []
        assert SLOT in six.view().nodes[1].open_slots
        assert nodes.send({view.nodes[2].address: [replace(closing, node=view.nodes[2].node_id)]}) == []
        assert SLOT not in six.view().nodes[2].open_slots
    finally:
        nodes.close()
    assert_healed(six, six.run("apply"), {**keys, **values, late: "late"})


@pytest.mark.skipif("valkey-9.1" not in SERVERS, reason="only Valkey 9 has several databases in a cluster")
def test_keys_of_every_database_move(start_testbed: StartTestbed) -> None:
    """The keys of each database are counted and moved separately."""
    six, _ = formed(find_program(str(SERVERS["valkey-9.1"])), start_testbed, "cluster-databases 4")
    names = keys_of(SLOT, 3)
    with servers(six, database=0) as zero, servers(six, database=2) as two:
        source, target, *_ = ids(zero)
        for endpoint, word in ((zero[0], "zero"), (two[0], "two")):
            for name in names:
                endpoint.set(name, word)
        zero[1].execute_command("CLUSTER SETSLOT", SLOT, "IMPORTING", source)
        zero[0].execute_command("CLUSTER SETSLOT", SLOT, "MIGRATING", target)
        there = six.cluster.servers[1].address
        two[0].execute_command("MIGRATE", there.host, there.port, names[0], 2, 1000)
        result = six.run("apply")
        assert result.exit_code == 0, result.text
        assert [zero[1].get(name) for name in names] == ["zero"] * 3
        assert [two[1].get(name) for name in names] == ["two"] * 3


def test_unowned_slots_are_assigned_to_the_holders_of_their_keys(program: Program, start_testbed: StartTestbed) -> None:
    """The slots were deleted on all nodes. All pods are there, so no disk can come back with these slots."""
    six, keys = formed(program, start_testbed)
    with servers(six) as endpoints:
        for endpoint in endpoints:
            endpoint.execute_command("CLUSTER DELSLOTS", *range(5461, 8000), *range(100, 110))
        wait_until(lambda: all(len(node.others) == 5 for node in six.view().nodes))
    result = six.run("apply")
    assert_healed(six, result, keys)
    assert SlotSet.of((5461, 7999)) - six.view().nodes[1].slots == SlotSet()


def test_declared_settings_that_drifted_are_set(program: Program, start_testbed: StartTestbed) -> None:
    """Settings that are not declared are reported if nodes differ, and left alone."""
    six, keys = formed(program, start_testbed)
    with servers(six) as endpoints:
        endpoints[2].config_set("cluster-require-full-coverage", "no")
        newer = bool(endpoints[4].config_get("cluster-allow-replica-migration"))  # unknown to Redis 5 and 6
        if newer:
            endpoints[4].config_set("cluster-allow-replica-migration", "no")
    planned = six.run("plan")
    assert (planned.exit_code, planned.outcome["outcome"]) == (0, "unchanged")
    assert "cluster-require-full-coverage is not the same on all nodes: no, yes" in planned.text
    six.environment["BOOTSTRAP_REQUIRE_FULL_COVERAGE"] = "yes"
    assert six.run("verify").exit_code == 1
    assert_healed(six, six.run("apply"), keys)
    with servers(six) as endpoints:
        assert endpoints[2].config_get("cluster-require-full-coverage")["cluster-require-full-coverage"] == "yes"
        kept = endpoints[4].config_get("cluster-allow-replica-migration")
        assert kept == ({"cluster-allow-replica-migration": "no"} if newer else {})


def test_unowned_slots_are_assigned_even_after_another_step(any_program: Program, start_testbed: StartTestbed) -> None:
    """The drifted timeout is set first. The view after that step must still show which node holds which keys."""
    six, keys = formed(any_program, start_testbed)
    values = dict.fromkeys(keys_of(100, 3), "mine")
    with client(six) as writer:
        for name, value in values.items():
            writer.set(name, value)
    with servers(six) as endpoints:
        for endpoint in endpoints:
            endpoint.execute_command("CLUSTER DELSLOTS", *range(5461, 8000), *range(100, 110))
        endpoints[2].config_set("cluster-node-timeout", 3000)
    assert_healed(six, six.run("apply"), {**keys, **values})


@pytest.mark.skipif("valkey-9.1" not in SERVERS, reason="only Valkey's replicas copy the open slots of their masters")
def test_a_slot_that_is_still_open_on_a_replica_is_closed(start_testbed: StartTestbed) -> None:
    """The replica was down when the move ended. It came back with a full resync, which does not contain open slots."""
    six, keys = formed(find_program(str(SERVERS["valkey-9.1"])), start_testbed, "repl-backlog-size 16384")
    with servers(six) as endpoints:
        source, target, *_ = ids(endpoints)
        endpoints[1].execute_command("CLUSTER SETSLOT", SLOT, "IMPORTING", source)
        endpoints[0].execute_command("CLUSTER SETSLOT", SLOT, "MIGRATING", target)
        wait_until(lambda: bool(six.view().nodes[3].open_slots))
        six.cluster.servers[3].kill()
        for endpoint in endpoints[:2]:
            endpoint.execute_command("CLUSTER SETSLOT", SLOT, "STABLE")
        for name in keys_of(50, 100):
            endpoints[0].set(name, "x" * 5000)
    six.cluster.servers[3].start()
    wait_until(lambda: len(six.view().nodes) == 6 and six.view().nodes[3].replication.link_up)
    assert six.view().nodes[3].open_slots
    assert_healed(six, six.run("apply"), keys)
