"""Growing, shrinking and rebalancing real clusters with data, while clients write and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from redis import Redis, RedisCluster
from redis.crc import key_slot

from bootstrap.clock import SystemClock
from bootstrap.local.programs import Program
from bootstrap.model.node import Role
from bootstrap.nodes.commands import Command
from bootstrap.nodes.connection import ask_all
from bootstrap.nodes.membership import leave
from tests.real.checker import Checker
from tests.real.clusters import client, replace_pods, written
from tests.real.sizes import assert_good, assert_sized, declared, listed, started
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until


def test_a_fourth_shard_receives_its_slots_while_clients_work(program: Program, start_testbed: StartTestbed) -> None:
    """One change: 3 to 4 shards. No acknowledged write is lost, and no read is stale."""
    eight, keys = started(program, start_testbed, 3, 1, servers=8)
    listed(eight, 8)
    grown = declared(eight, 4, 1)
    with Checker([server.address for server in eight.cluster.servers[:3]]) as checker:
        checker.wait_for(100)
        result = grown.run("apply")
        checker.wait_for(100)
    assert_sized(grown, result, keys)
    assert (checker.stale, checker.lost()) == ([], [])
    # While a slot is open, a client may be redirected to a master that it does not know; see `Checker`.
    assert len(checker.errors) < checker.operations / 100, checker.errors
    assert [len(node.slots) for node in grown.view().nodes if node.slots] == [4096] * 4


def test_a_shard_is_drained_and_its_pods_can_be_removed(program: Program, start_testbed: StartTestbed) -> None:
    """4 to 3 shards with the pods still there. The run reports that 6 replicas are safe, with the command; they are."""
    eight, keys = started(program, start_testbed, 4, 1, servers=8)
    shrunk = declared(eight, 3, 1)
    with Checker([server.address for server in eight.cluster.servers[:3]]) as checker:
        checker.wait_for(100)
        result = shrunk.run("apply")
    assert result.exit_code == 0, result.text
    # If gossip reaches a drained master before the command does, it may be a replica by then, which is equally good.
    assert "SETSLOT only with" not in result.text
    command = "kubectl --namespace default scale statefulset redis-app --replicas=6"
    assert result.outcome["next"] == f"safe to set replicas to 6 now: {command}"
    assert (checker.stale, checker.lost()) == ([], [])
    assert len(checker.errors) < checker.operations / 100, checker.errors
    assert_sized(shrunk, result, keys)
    assert all(node.blank for node in shrunk.view().nodes[6:])
    for server in eight.cluster.servers[6:]:
        server.kill()
    down = [shrunk.run(verb, BOOTSTRAP_DEADLINE_S="10") for verb in ("apply", "verify")]
    assert [(run.exit_code, run.outcome["next"]) for run in down] == [(0, result.outcome["next"])] * 2, down[0].text
    listed(shrunk, 6)
    after = shrunk.run("apply")
    assert (after.outcome["outcome"], after.outcome["next"]) == ("unchanged", ""), after.text


def test_one_more_replica_for_every_shard_and_back(any_program: Program, start_testbed: StartTestbed) -> None:
    """3 x 1 to 3 x 2 to 3 x 1: no slot moves, and masters on pods that leave fail over manually."""
    nine, keys = started(any_program, start_testbed, 3, 1, servers=9)
    listed(nine, 9)
    wide = declared(nine, 3, 2)
    assert_sized(wide, wide.run("apply"), keys)
    view = wide.view()
    candidate = next(node for node in view.nodes[6:] if node.replication.link_up)
    with Redis(candidate.address.host, candidate.address.port, protocol=2) as connection:
        connection.execute_command("CLUSTER", "FAILOVER")
    wait_until(lambda: bool(wide.view().by_id[candidate.node_id].slots))
    narrow = declared(nine, 3, 1)
    result = narrow.run("apply")
    assert_sized(narrow, result, keys)
    assert [line for line in result.lines if line.get("phase") == "manual failover"]
    assert not [line for line in result.lines if line["event"] == "slots_moved"]


def test_a_statefulset_that_shrank_first_is_refused_and_recovers_from_its_disks(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """The pods of the fourth shard are gone: exit 3. Scaled up again, every key is there, and the shard is drained."""
    eight, keys = started(any_program, start_testbed, 4, 1, servers=8)
    wait_until(lambda: all(written(server.address) for server in eight.cluster.servers))
    for server in eight.cluster.servers[6:]:
        server.kill()
    listed(eight, 6)
    shrunk = declared(eight, 3, 1)
    refused = shrunk.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    for server in eight.cluster.servers[6:]:
        server.start()
    listed(eight, 8)
    back = eight.run("apply")
    assert back.exit_code == 0, back.text
    assert_good(eight, keys)
    assert_sized(shrunk, shrunk.run("apply"), keys)


def test_a_slot_that_came_back_is_not_lost_to_a_stale_claim(program: Program, start_testbed: StartTestbed) -> None:
    """Redis 7.0 may keep stale state about slots that it gave away. An old claim of the next owner would then win with
    any epoch, and the keys would be dropped. The moves of a run leave no such state.
    """
    eight, _ = started(program, start_testbed, 3, 1, servers=8)
    before = [node.slots for node in eight.view().nodes[:3]]
    listed(eight, 8)
    assert declared(eight, 4, 1).run("apply").exit_code == 0
    newcomer = next(node for node in eight.view().nodes[6:] if node.slots)
    with Redis(newcomer.address.host, newcomer.address.port, protocol=2) as there:
        for old, had in zip(eight.view().nodes[:3], before, strict=True):
            slot = list(newcomer.slots & had)[-1]
            with Redis(old.address.host, old.address.port, decode_responses=True, protocol=2) as here:
                here.execute_command("CLUSTER BUMPEPOCH")
                here.execute_command("CLUSTER", "SETSLOT", slot, "NODE", old.node_id)  # not announced yet
                there.execute_command("CLUSTER", "MEET", old.address.host, old.address.port)  # repeats the claim
                wait_until(partial(_lacks, eight, newcomer.ordinal, slot))
                assert not _lacks(eight, old.ordinal, slot)


def _lacks(testbed: Testbed, ordinal: int, slot: int) -> bool:
    (node,) = testbed.view(testbed.cluster.servers[ordinal]).nodes
    return slot not in node.slots


def test_a_weight_is_applied_and_removed_again(any_program: Program, start_testbed: StartTestbed) -> None:
    """A shard with double weight owns half of all slots. Without the weight it returns to a third."""
    six, keys = started(any_program, start_testbed, 3, 1, servers=6)
    result = six.run("apply", BOOTSTRAP_WEIGHTS="redis-app-4=2")
    assert_good(six, keys)
    assert [len(node.slots) for node in six.view().nodes[:3]] == [4096, 8192, 4096], result.text
    planned = six.run("plan")
    assert planned.outcome["skew"]["slots_percent"] == 50.0
    assert_sized(six, six.run("apply"), keys)


def test_every_type_of_key_moves_unchanged(program: Program, start_testbed: StartTestbed) -> None:
    """Binary strings, hashes, lists, sets, sorted sets and streams keep their values and their time to live."""
    eight, keys = started(program, start_testbed, 3, 1, servers=8)
    raw = b"\xff\x00\xfe{moves}"
    with RedisCluster(host=eight.cluster.servers[0].address.host, port=6379, protocol=2) as writer:
        writer.set(raw, b"\xff\xfe")
        for number in range(60):
            tag = f"{{{number}}}"
            writer.hset(f"hash{tag}", mapping={"a": 1, "b": 2})
            writer.rpush(f"list{tag}", *range(50))
            writer.sadd(f"set{tag}", *range(20))
            writer.zadd(f"zset{tag}", {"x": 1.5, "y": 2})
            writer.xadd(f"stream{tag}", {"f": "v"}, id="1-1")
            writer.set(f"big{tag}", b"\x80" * 200_000, px=10_000_000)
    listed(eight, 8)
    grown = declared(eight, 4, 1)
    assert_sized(grown, grown.run("apply"), keys)
    with RedisCluster(host=eight.cluster.servers[0].address.host, port=6379, protocol=2) as reader:
        assert reader.get(raw) == b"\xff\xfe"
        for number in range(60):
            tag = f"{{{number}}}"
            assert reader.hgetall(f"hash{tag}") == {b"a": b"1", b"b": b"2"}
            assert len(reader.lrange(f"list{tag}", 0, -1)) == 50
            assert reader.scard(f"set{tag}") == 20
            assert reader.zrange(f"zset{tag}", 0, -1, withscores=True) == [(b"x", 1.5), (b"y", 2.0)]
            assert reader.xrange(f"stream{tag}") == [(b"1-1", {b"f": b"v"})]
            assert reader.get(f"big{tag}") == b"\x80" * 200_000
            assert 0 < reader.pttl(f"big{tag}") <= 10_000_000


def test_a_pod_that_left_comes_back_blank_with_its_disk(program: Program, start_testbed: StartTestbed) -> None:
    """Its files contain nothing that could claim slots. When the cluster grows again, it joins like any new node."""
    eight, keys = started(program, start_testbed, 4, 1, servers=8)
    shrunk = declared(eight, 3, 1)
    assert_sized(shrunk, shrunk.run("apply"), keys)
    for server in eight.cluster.servers[6:]:
        server.kill()
        server.start()
    wait_until(lambda: len(shrunk.view().nodes) == 8)
    assert all(node.blank for node in shrunk.view().nodes[6:])
    assert_sized(eight, eight.run("apply"), keys)


@pytest.mark.parametrize("append_only", ["yes", "no"])
def test_a_killed_run_leaves_no_pod_with_files_that_claim_slots(
    program: Program, start_testbed: StartTestbed, append_only: str
) -> None:
    """The run ends after its first, second or third packet to a pod that leaves. Then the server restarts by itself."""
    six = start_testbed(program, 3, 1, config=(f"appendonly {append_only}",))
    assert six.run("apply").exit_code == 0
    with client(six) as writer:
        for number in range(50):
            writer.set(f"key:{number}", number)
    for packets, server in enumerate(six.cluster.servers[3:], 1):
        with Redis(server.address.host, server.address.port, decode_responses=True, protocol=2) as leaving:
            leaving.bgsave(schedule=True)  # an RDB file with keys, as a server writes now and then
            wait_until(partial(files_are_written, leaving))
            connection = leaving.connection_pool.get_connection()
            with suppress(StopIteration):
                leave(limited(partial(ask_all, connection), packets), clock=SystemClock())
            connection.disconnect()
            wait_until(partial(files_are_written, leaving))
        server.kill()
        server.start()
    wait_until(lambda: len(six.view().nodes) == 6)
    assert [node.blank for node in six.view().nodes[3:]] == [False, True, True]


def limited(ask: Callable[[Sequence[Command]], list[Any]], packets: int) -> Callable[[Sequence[Command]], list[Any]]:
    """Sends this many packets and then stops, as if the run had been killed."""
    left = iter(range(packets))

    def send(commands: Sequence[Command]) -> list[Any]:
        next(left)
        return ask(commands)

    return send


def files_are_written(server: Redis) -> bool:
    """True if the server neither writes its files nor is about to."""
    info = server.info("persistence")
    return not any(pending for name, pending in info.items() if name.endswith(("_in_progress", "_scheduled")))


@pytest.mark.parametrize("wiped", [False, True], ids=["moved", "disk lost"])
def test_a_new_master_that_dies_causes_no_lost_key(
    any_program: Program, start_testbed: StartTestbed, wiped: bool
) -> None:
    """The master is back, or a blank pod is in its place. The next run continues."""
    eight, keys = started(any_program, start_testbed, 3, 1, servers=8)
    listed(eight, 8)
    grown = declared(eight, 4, 1)
    assert grown.run("apply", BOOTSTRAP_REBALANCE="off").exit_code == 0
    wait_until(lambda: all(written(server.address) for server in eight.cluster.servers))
    newcomer = next(node for node in grown.view().nodes[6:] if node.slots)
    replace_pods(eight, newcomer.ordinal, wiped=wiped)
    result = grown.run("apply")
    assert result.exit_code == 0, result.text
    assert_good(grown, keys)


def test_a_key_that_is_too_big_to_move_in_time_is_named(
    migrating_program: Program, start_testbed: StartTestbed
) -> None:
    """A key of 18 MB moves last and alone. A key of 60 MB is named, and all others have moved. With a longer timeout
    it moves, too.

    Nearly all of the larger key is in one of many fields: by default MEMORY USAGE samples only five of them.
    """
    eight, keys = started(migrating_program, start_testbed, 3, 1, servers=8)
    with client(eight) as writer:  # both in slots that are to move
        writer.set("huge{2}", "x" * (18 << 20))
        writer.hset("huge{d}", mapping={f"small:{number}": number for number in range(2000)})
        writer.hset("huge{d}", "large", "x" * (60 << 20))
    listed(eight, 8)
    grown = declared(eight, 4, 1)
    result = grown.run("apply", BOOTSTRAP_DEADLINE_S="8")
    assert result.exit_code == 1, result.text
    assert any("huge{d}" in reason["message"] for reason in result.outcome["reasons"]), result.text
    assert len(grown.view().nodes[6].slots) == 4095
    patient = replace(grown, environment={**grown.environment, "BOOTSTRAP_NODE_TIMEOUT_MS": "10000"})
    again = patient.run("apply")
    assert again.exit_code == 0, again.text
    with client(eight) as reader:
        assert [reader.strlen("huge{2}"), reader.hstrlen("huge{d}", "large")] == [18 << 20, 60 << 20]
        assert reader.hlen("huge{d}") == 2001
        assert {name: reader.get(name) for name in keys} == keys


def test_with_a_full_target_only_slots_that_began_to_move_stay_open(
    migrating_program: Program, start_testbed: StartTestbed
) -> None:
    """All data is in one slot, more than the target has room for. Only slots with arrived keys stay open."""
    eight, keys = started(migrating_program, start_testbed, 3, 1, servers=8)
    names = [f"heavy:{number}{{2}}" for number in range(3000)]
    with client(eight) as writer:
        for name in names:
            writer.set(name, "x" * 10_000)
    listed(eight, 8)
    grown = declared(eight, 4, 1)
    with Redis(eight.cluster.servers[6].address.host, decode_responses=True, protocol=2) as full:
        full.config_set("maxmemory", int(full.info("memory")["used_memory"]) + (1 << 20))
        planned = grown.run("plan")  # the first phases introduce the new pods, and then apply would be refused
        full.config_set("maxmemory", 0)
    assert (planned.outcome["outcome"], planned.exit_code, planned.outcome["steps"]) == ("refused", 3, 0), planned.text
    assert {reason["code"] for reason in planned.outcome["reasons"]} == {"no-room"}
    assert '"phase": "meet"' in planned.text
    small = grown.run("apply", BOOTSTRAP_REBALANCE="off", BOOTSTRAP_WEIGHTS="redis-app-6=0.01")
    assert (small.exit_code, small.outcome["next"]) == (0, ""), small.text
    kept = grown.run("apply", BOOTSTRAP_REBALANCE="off")
    assert (kept.outcome["outcome"], "set it to on for one run" in kept.outcome["next"]) == ("unchanged", True)
    with Redis(eight.cluster.servers[6].address.host, decode_responses=True, protocol=2) as full:
        full.config_set("maxmemory", int(full.info("memory")["used_memory"]) + (12 << 20))
        result = grown.run("apply", BOOTSTRAP_DEADLINE_S="8")
        assert result.exit_code == 1, result.text
        assert "no-room" in {reason["code"] for reason in result.outcome["reasons"]}, result.text
        open_slots = grown.view().open_slots()
        assert key_slot(b"{2}") in open_slots
        assert all(full.execute_command("CLUSTER COUNTKEYSINSLOT", slot) for slot in open_slots)
        full.config_set("maxmemory", 0)
    again = grown.run("apply")
    assert again.exit_code == 0, again.text
    with client(eight) as reader:
        assert sum(reader.exists(name) for name in names) == len(names)
    assert_good(grown, keys)


def test_a_library_that_one_master_alone_has_is_named(
    any_program_since_7: Program, start_testbed: StartTestbed
) -> None:
    """By every verb; a new master is given what all have. Loaded on the others too, it is no finding any more."""
    eight, _ = started(any_program_since_7, start_testbed, 3, 1, servers=8)
    code = "#!lua name=counting\nredis.register_function('count', function() return 1 end)"
    masters = [Redis(server.address.host, protocol=2) for server in eight.cluster.servers[:3]]
    masters[1].function_load(code)
    for verb in ("plan", "verify", "apply"):
        said = eight.run(verb)
        (line,) = [line for line in said.lines if line["event"] == "libraries_differ"]
        assert "redis-app-0 0, redis-app-1 1, redis-app-2 0" in line["why"], said.text
        assert said.outcome["outcome"] == "unchanged", said.text
    masters[0].function_load(code)
    masters[2].function_load(code)
    assert "libraries_differ" not in eight.run("apply").text
    for master in masters:
        master.close()


HALF = key_slot(b"{2}")
ARRIVED = 5


def half_arrived_and_lost(program: Program, start_testbed: StartTestbed) -> tuple[Testbed, dict[str, str], list[Redis]]:
    """A slot was moving to a new master, which lost its disk. Its replica has the only copy of the keys that arrived.

    Returns the cluster, every key with its value, and a connection to each server.
    """
    eight, keys = started(program, start_testbed, 3, 1, servers=8)
    names = [f"half:{number}{{2}}" for number in range(10)]
    with client(eight) as writer:
        for name in names:
            writer.set(name, "v")
    endpoints = [
        Redis(server.address.host, server.address.port, decode_responses=True, protocol=2)
        for server in eight.cluster.servers
    ]
    ids = [endpoint.execute_command("CLUSTER", "MYID") for endpoint in endpoints]
    for newcomer in eight.cluster.servers[6:]:
        endpoints[1].execute_command("CLUSTER", "MEET", newcomer.address.host, newcomer.address.port)
    wait_until(lambda: all(len(node.others) == 7 for node in eight.view().nodes))
    endpoints[7].execute_command("CLUSTER", "REPLICATE", ids[6])
    wait_until(lambda: all(node.serving and node.replication.link_up for node in eight.view().nodes))
    endpoints[6].execute_command("CLUSTER", "SETSLOT", HALF, "IMPORTING", ids[1])
    endpoints[1].execute_command("CLUSTER", "SETSLOT", HALF, "MIGRATING", ids[6])
    target = eight.cluster.servers[6].address
    endpoints[1].execute_command("MIGRATE", target.host, target.port, "", 0, 5000, "KEYS", *names[:ARRIVED])
    wait_until(lambda: endpoints[7].dbsize() == ARRIVED)
    replace_pods(eight, 6, wiped=True)
    return eight, keys | dict.fromkeys(names, "v"), endpoints


def test_the_only_copy_of_arrived_keys_is_kept_and_restored(
    redis_program: Program, start_testbed: StartTestbed
) -> None:
    """A slot is half moved to a new master, which then loses its disk. The remedy of the refusal restores all keys."""
    eight, keys, endpoints = half_arrived_and_lost(redis_program, start_testbed)
    grown = declared(eight, 4, 1)
    refused = grown.run("apply")
    (reason,) = refused.outcome["reasons"]
    assert (refused.exit_code, refused.outcome["steps"], reason["code"]) == (3, 0, "moved-to-the-lost"), refused.text
    assert endpoints[7].dbsize() == ARRIVED
    endpoints[7].execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
    wait_until(lambda: grown.view().nodes[7].role is Role.MASTER)
    endpoints[7].execute_command(
        "CLUSTER", "SETSLOT", HALF, "IMPORTING", endpoints[1].execute_command("CLUSTER", "MYID")
    )
    result = grown.run("apply")
    assert result.exit_code == 0, result.text
    for endpoint in endpoints:
        endpoint.close()
    assert_good(grown, keys)


def test_valkey_elects_the_only_copy_of_arrived_keys(valkey_program: Program, start_testbed: StartTestbed) -> None:
    """Valkey replicas copy open slots and can be elected without owning a slot, so no person has to act."""
    eight, keys, endpoints = half_arrived_and_lost(valkey_program, start_testbed)
    grown = declared(eight, 4, 1)
    wait_until(lambda: grown.view().nodes[7].role is Role.MASTER)
    assert endpoints[7].dbsize() == ARRIVED
    for endpoint in endpoints:
        endpoint.close()
    result = grown.run("apply")
    assert result.exit_code == 0, result.text
    assert_good(grown, keys)
