"""Keys of other servers are copied into a cluster: every type, from every kind of source, and where it is disturbed."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, RedisCluster
from redis.cluster import ClusterNode

from bootstrap.local.programs import Program, find_program
from bootstrap.local.servers import Server
from bootstrap.model.copying import Source
from bootstrap.model.node import Address, Role
from bootstrap.nodes.copying.source import SourceFinder
from bootstrap.run.import_reasons import RIGHTS
from tests.available_servers import SERVERS
from tests.kube.api import KubeApi
from tests.real.killed_run import Killed
from tests.real.processes import MEASURE
from tests.real.sources import STANDALONE, HookedClock, client_of, content, sentinel, standalone, write_every_type
from tests.real.strangers import free_port
from tests.real.testbed import RunResult, StartTestbed, Testbed
from tests.waiting import wait_until

TIMEOUT_MS = 2000
UPWARD = [("redis-6.2", "redis-on-path"), ("redis-on-path", "redis-8.2"), ("redis-6.2", "valkey-9.1")]
"""From an older server to a newer one."""
PASSWORD = "correct horse"


def target(program: Program, start_testbed: StartTestbed, *config: str, replicas: int = 0) -> Testbed:
    """A formed cluster without keys."""
    testbed = start_testbed(program, 3, replicas, config=(f"cluster-node-timeout {TIMEOUT_MS}", *config))
    testbed.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = str(TIMEOUT_MS)
    result = testbed.run("apply")
    assert result.exit_code == 0, result.text
    return testbed


def binary_client(testbed: Testbed) -> RedisCluster:
    """A client that reads bytes."""
    nodes = [ClusterNode(server.address.host, server.address.port) for server in testbed.cluster.servers]
    return RedisCluster(startup_nodes=nodes, socket_timeout=5, protocol=2)


def imported(result: RunResult) -> dict[str, Any]:
    """The report of an import that has succeeded."""
    assert (result.exit_code, result.outcome["outcome"]) == (0, "imported"), result.text
    report: dict[str, Any] = result.outcome["imported"]
    return report


def codes(result: RunResult) -> list[str]:
    return [reason["code"] for reason in result.outcome["reasons"]]


def keys_of(testbed: Testbed) -> int:
    return sum(node.keys for node in testbed.whole_view().nodes if node.role is Role.MASTER)


def empty(server: Server) -> None:
    client_of(server).flushall()


def fill(source: Redis, keys: int, name: str = "key") -> None:
    pipeline = source.pipeline(transaction=False)
    for number in range(keys):
        pipeline.set(f"{name}:{number}", f"value:{number}")
    pipeline.execute()


def check_copy(testbed: Testbed, source: Redis) -> None:
    """A client of the cluster reads what a client of the source reads; what has to expire, expires at that time."""
    keys = sorted(name for name in source.scan_iter(count=1000) if isinstance(name, bytes))
    with binary_client(testbed) as reader:
        assert content(reader, keys) == content(source, keys)
        for key in keys:
            here, there = source.pttl(key), reader.pttl(key)
            assert (here < 0) == (there < 0), key
            assert abs(here - there) < 2000, key


def test_every_type_arrives_with_its_time_to_live(
    program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Also names and values of any bytes, large values, and groups of streams. A second run copies nothing."""
    testbed = target(program, start_testbed)
    with standalone(program, testbed, tmp_path) as server:
        source = client_of(server)
        write_every_type(source)
        count = source.dbsize()
        report = imported(testbed.run("import", "--from", str(server.address)))
        assert (report["keys"], report["copied"], report["existing"], report["missing"]) == (count, count, 0, 0)
        assert report["compared"] == count - 2, "all but the two of more than 64 KiB"
        assert (report["differing"], report["source_writes"], report["target_keys"]) == (0, 0, count)
        check_copy(testbed, source)
        again = imported(testbed.run("import", "--from", str(server.address)))
        assert (again["copied"], again["existing"], again["existing_differing"]) == (0, count, 0)
    assert testbed.run("verify").exit_code == 0


@pytest.mark.parametrize(("old", "new"), UPWARD)
def test_a_newer_cluster_takes_the_keys_of_an_older_server(
    old: str, new: str, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """The samples are compared by content: the dumps of two versions differ."""
    if not {old, new} <= SERVERS.keys():
        pytest.skip(f"not on this machine: {old} or {new}")
    testbed = target(find_program(str(SERVERS[new])), start_testbed)
    with standalone(find_program(str(SERVERS[old])), testbed, tmp_path) as server:
        write_every_type(client_of(server))
        assert imported(testbed.run("import", "--from", str(server.address)))["differing"] == 0
        check_copy(testbed, client_of(server))


@pytest.mark.parametrize(("new", "old"), [("redis-8.2", "redis-on-path"), ("redis-8.2", "valkey-9.1")])
def test_dumps_that_the_cluster_cannot_read_are_refused_before_the_first_write(
    new: str, old: str, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """The refusal names both versions and a key; the cluster is as before."""
    if not {old, new} <= SERVERS.keys():
        pytest.skip(f"not on this machine: {old} or {new}")
    testbed = target(find_program(str(SERVERS[old])), start_testbed)
    with standalone(find_program(str(SERVERS[new])), testbed, tmp_path) as server:
        write_every_type(client_of(server))
        result = testbed.run("import", "--from", str(server.address))
    assert (result.exit_code, codes(result), result.outcome["steps"]) == (3, ["payload-rejected"], 0), result.text
    assert "redis 8.2" in result.outcome["reasons"][0]["message"]
    assert keys_of(testbed) == 0


def test_an_empty_source_is_no_fault(any_program: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """Nothing to copy: done."""
    testbed = target(any_program, start_testbed)
    with standalone(any_program, testbed, tmp_path) as server:
        report = imported(testbed.run("import", "--from", str(server.address)))
    assert (report["keys"], report["copied"], report["target_keys"]) == (0, 0, 0)


def test_keys_of_the_cluster_stay_unless_they_are_to_be_replaced(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """They are counted and compared, and the outcome names the way to the values of the source."""
    testbed = target(any_program, start_testbed)
    with standalone(any_program, testbed, tmp_path) as server, binary_client(testbed) as reader:
        fill(client_of(server), 50)
        for number in range(20):
            reader.set(f"key:{number}", "the cluster's own")
        kept = testbed.run("import", "--from", str(server.address))
        report = imported(kept)
        assert (report["copied"], report["existing"], report["existing_differing"]) == (30, 20, 20)
        assert "--replace" in kept.outcome["next"]
        assert reader.get("key:7") == b"the cluster's own"
        replaced = imported(testbed.run("import", "--from", str(server.address), "--replace"))
        assert (replaced["copied"], replaced["existing"]) == (50, 0)
        assert reader.get("key:7") == b"value:7"


def test_a_cluster_is_read_from_all_its_masters(program: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """One of its members is enough to find the others."""
    testbed, other = target(program, start_testbed), target(program, start_testbed, replicas=1)
    with binary_client(other) as source:
        write_every_type(source)
        for number in range(300):
            source.set(f"key:{number}", number)
        seeds = f"127.0.0.1:1,{other.cluster.servers[5].address}"
        report = imported(testbed.run("import", "--from", seeds))
        keys = sorted(source.keys(target_nodes=RedisCluster.PRIMARIES))
        with binary_client(testbed) as reader:
            assert content(reader, keys) == content(source, keys)
    assert (report["copied"], report["missing"]) == (len(keys), 0)


def test_a_sentinel_names_its_master(program: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """With several, a person names one. A Sentinel without a password may have a master with one."""
    testbed = target(program, start_testbed)
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    with (
        standalone(program, testbed, tmp_path, config=[f'requirepass "{PASSWORD}"']) as server,
        sentinel(program, server, tmp_path, "shop", "cart") as address,
    ):
        source = Redis(server.address.host, server.address.port, password=PASSWORD, protocol=2)
        fill(source, 20)
        arguments = ["import", "--from", str(address), "--from-password-file", str(secret)]
        several = testbed.run(*arguments)
        assert (several.exit_code, codes(several)) == (4, ["source-master"])
        assert "cart, shop" in several.outcome["reasons"][0]["message"]
        assert imported(testbed.run(*arguments, "--from-sentinel-name", "shop"))["copied"] == 20


def test_the_password_of_the_source_is_its_own(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """None, a wrong one and a needless one are each named; it is never shown."""
    testbed = target(any_program, start_testbed)
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(PASSWORD)
    wrong.write_text("wrong horse")
    with standalone(any_program, testbed, tmp_path, config=[f'requirepass "{PASSWORD}"']) as server:
        fill(Redis(server.address.host, server.address.port, password=PASSWORD, protocol=2), 20)
        command = ["import", "--from", str(server.address)]
        for words in ([], ["--from-password-file", str(wrong)]):
            result = testbed.run(*command, *words)
            assert (result.exit_code, codes(result)) == (4, ["source-unusable"]), result.text
            assert "--from-password-file" in result.outcome["reasons"][0]["remedy"]
            assert "wrong horse" not in result.text
        assert imported(testbed.run(*command, "--from-password-file", str(right)))["copied"] == 20


def test_several_databases_go_where_a_person_says(
    redis_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """A cluster has one database. Nothing is copied until it is said which one is meant."""
    testbed = target(redis_program, start_testbed)
    with standalone(redis_program, testbed, tmp_path) as server:
        fill(client_of(server), 10)
        fill(client_of(server, 3), 20, "other")
        refused = testbed.run("import", "--from", str(server.address))
        assert (refused.exit_code, codes(refused), keys_of(testbed)) == (3, ["source-databases"], 0)
        assert "--databases 3=0" in refused.outcome["reasons"][0]["remedy"]
        one = testbed.run("import", "--from", str(server.address), "--databases", "3=0")
        assert imported(one)["copied"] == 20
        assert "10 in database 0" in one.outcome["next"]
        assert imported(testbed.run("import", "--from", str(server.address), "--databases", "0=0"))["copied"] == 10
    assert keys_of(testbed) == 30


def test_a_cluster_with_several_databases_gets_each_of_them(start_testbed: StartTestbed, tmp_path: Path) -> None:
    """Valkey 9 has them, where `cluster-databases` says so."""
    if "valkey-9.1" not in SERVERS:
        pytest.skip("not on this machine: valkey-9.1")
    program = find_program(str(SERVERS["valkey-9.1"]))
    testbed = target(program, start_testbed, "cluster-databases 16")
    with standalone(program, testbed, tmp_path) as server:
        fill(client_of(server), 10)
        fill(client_of(server, 3), 20)
        assert imported(testbed.run("import", "--from", str(server.address)))["copied"] == 30
        found = [client_of(each, 3).dbsize() for each in testbed.cluster.servers]
    assert sum(found) == 20


def test_a_killed_import_is_continued_by_the_next(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Killed after each of its first batches: what was copied stays, and the rest follows."""
    testbed = target(any_program, start_testbed)

    def die() -> None:
        raise Killed

    with standalone(any_program, testbed, tmp_path) as server:
        fill(client_of(server), 4000)
        for moment in (3, 5, 8):
            testbed.clock = HookedClock(moment, die)
            with pytest.raises(Killed):
                testbed.run("import", "--from", str(server.address))
        half = keys_of(testbed)
        assert 0 < half < 4000
        testbed.clock = None
        report = imported(testbed.run("import", "--from", str(server.address)))
        assert (report["copied"], report["existing"], report["target_keys"]) == (4000 - half, half, 4000)
        check_copy(testbed, client_of(server))


def test_what_the_source_gains_meanwhile_is_copied_and_counted(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """New keys come with the checks after the first pass; the outcome counts the writes of the source."""
    testbed = target(any_program, start_testbed)
    with standalone(any_program, testbed, tmp_path) as server:
        source = client_of(server)
        fill(source, 3000)
        testbed.clock = HookedClock(6, lambda: fill(source, 500, "new"))
        result = testbed.run("import", "--from", str(server.address))
        report = imported(result)
        assert (report["source_keys_before"], report["source_keys_after"]) == ({"0": 3000}, {"0": 3500})
        assert (report["source_writes"], report["copied"], report["target_keys"]) == (500, 3500, 3500)
        assert "500 writes" in result.outcome["next"]


def test_values_that_changed_meanwhile_are_a_persons_decision(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """The comparison does not hold: exit code 3, and the way to the values of the source."""
    testbed = target(any_program, start_testbed)
    with standalone(any_program, testbed, tmp_path) as server:
        source = client_of(server)
        fill(source, 100)

        def change() -> None:
            if keys_of(testbed) == 100:
                source.set("key:7", "changed")

        for moment in range(1, 20):
            source.set("key:7", "value:7")
            for each in testbed.cluster.servers:
                client_of(each).flushall()
            testbed.clock = HookedClock(moment, change)
            result = testbed.run("import", "--from", str(server.address))
            if source.get("key:7") == b"changed":
                break
        assert (result.exit_code, codes(result)) == (3, ["values-differ"]), result.text
        assert "key:7" in result.outcome["reasons"][0]["message"]
        testbed.clock = None
        assert imported(testbed.run("import", "--from", str(server.address), "--replace"))["copied"] == 100
        check_copy(testbed, source)


def test_a_failover_of_the_cluster_meanwhile_loses_no_key(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Keys follow their slots to the new master; the check finds every key."""
    testbed = target(any_program, start_testbed, replicas=1)
    before = {node.node_id: node for node in testbed.whole_view().nodes}
    replica = next(node for node in before.values() if node.role is Role.REPLICA)

    def fail_over() -> None:
        with Redis(replica.address.host, replica.address.port, protocol=2) as client:
            client.execute_command("CLUSTER", "FAILOVER")
            wait_until(lambda: client.info("replication")["role"] == "master", "the failover is over")

    with standalone(any_program, testbed, tmp_path) as server:
        fill(client_of(server), 4000)
        testbed.clock = HookedClock(4, fail_over)
        assert imported(testbed.run("import", "--from", str(server.address)))["target_keys"] == 4000
        assert testbed.view().by_id[replica.node_id].role is Role.MASTER
        check_copy(testbed, client_of(server))


def test_a_master_that_dies_meanwhile_is_replaced_and_the_import_goes_on(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """The cluster is not whole afterwards, which the run reports; after a repair another one finds every key there."""
    testbed = target(any_program, start_testbed, replicas=1)
    (master, *_) = [node for node in testbed.whole_view().nodes if node.role is Role.MASTER]
    victim = next(each for each in testbed.cluster.servers if each.address == master.address)
    with standalone(any_program, testbed, tmp_path) as server:
        fill(client_of(server), 4000)
        testbed.clock = HookedClock(4, victim.kill)
        result = testbed.run("import", "--from", str(server.address))
        assert result.exit_code == 1, result.text
        assert "unreachable" in codes(result), result.text
        testbed.clock = None
        victim.start()
        assert testbed.run("apply").exit_code == 0
        report = imported(testbed.run("import", "--from", str(server.address)))
        assert report["target_keys"] == 4000
        check_copy(testbed, client_of(server))


def test_the_cluster_itself_is_no_source(any_program: Program, start_testbed: StartTestbed) -> None:
    """Each of its members is named."""
    testbed = target(any_program, start_testbed)
    result = testbed.run("import", "--from", str(testbed.cluster.servers[1].address))
    assert (result.exit_code, set(codes(result)), result.outcome["steps"]) == (3, {"source-is-target"}, 0)


def test_more_data_than_there_is_room_for_is_refused(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Before the first key is copied. What the cluster has already needs no room again."""
    testbed = target(any_program, start_testbed, "maxmemory 25mb")
    with standalone(any_program, testbed, tmp_path) as server:
        source = client_of(server)
        fill(source, 100)
        assert imported(testbed.run("import", "--from", str(server.address)))["copied"] == 100
        for number in range(80):
            source.set(f"large:{number}", "x" * 1_000_000)
        result = testbed.run("import", "--from", str(server.address))
        assert (result.exit_code, set(codes(result)), result.outcome["steps"]) == (3, {"no-room"}, 0), result.text


def test_a_replica_without_its_master_is_no_source(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Its data may be old."""
    testbed = target(any_program, start_testbed)
    with standalone(any_program, testbed, tmp_path, config=["replicaof 127.0.0.1 1"]) as server:
        result = testbed.run("import", "--from", str(server.address))
    assert (result.exit_code, codes(result)) == (3, ["source-incomplete"]), result.text


def test_function_libraries_come_along(
    any_program_since_7: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """On every master, unless it has one of that name."""
    testbed = target(any_program_since_7, start_testbed)
    with standalone(any_program_since_7, testbed, tmp_path) as server:
        code = "#!lua name=shop\nredis.register_function('price', function() return 1 end)"
        client_of(server).function_load(code)
        report = imported(testbed.run("import", "--from", str(server.address)))
        assert report["functions"] == ["shop"]
        listed = [client_of(each).function_list() for each in testbed.cluster.servers]
        assert all(re.search("shop", str(each)) for each in listed)
        assert imported(testbed.run("import", "--from", str(server.address)))["functions"] == []


@pytest.mark.parametrize("words", [[], ["--from", "127.0.0.1:1"], ["--from", "no-such-host.invalid:6379"]], ids=str)
def test_a_source_that_is_not_there_is_named(
    words: list[str], any_program: Program, start_testbed: StartTestbed
) -> None:
    """Without one, the flag is; nothing is written."""
    testbed = target(any_program, start_testbed)
    result = testbed.run("import", *words)
    assert (result.exit_code, codes(result)) == ((1, ["source-unusable"]) if words else (4, ["setting"])), result.text
    assert "--from" in result.outcome["reasons"][0]["remedy" if words else "message"] or words


def test_a_cluster_that_is_not_whole_gets_no_keys(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """What is wrong with it is reported instead."""
    testbed = start_testbed(any_program, 3, 0)
    with standalone(any_program, testbed, tmp_path) as server:
        fill(client_of(server), 10)
        result = testbed.run("import", "--from", str(server.address))
    assert (result.exit_code, result.outcome["steps"]) == (1, 0), result.text
    assert "slots-uncovered" in codes(result)


def test_an_import_holds_the_lease_and_records_an_event(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """No other run writes meanwhile, and the outcome is with the StatefulSet."""
    testbed = target(any_program, start_testbed)
    held: list[str] = []

    def note() -> None:
        (lease,) = api.of("leases")
        held.append(str(lease["spec"]["holderIdentity"]))

    with standalone(any_program, testbed, tmp_path) as server:
        fill(client_of(server), 3000)
        testbed.clock = HookedClock(4, note)
        assert imported(testbed.run("import", "--from", str(server.address), BOOTSTRAP_KUBERNETES="on"))
    assert held != [""]
    (lease,) = api.of("leases")
    assert lease["spec"]["holderIdentity"] == ""
    assert "BootstrapImported" in [event["reason"] for event in api.of("events")]


def test_a_large_value_is_in_memory_once(any_program: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """The program needs less than 100 MB beside it, however many there are."""
    testbed, size = target(any_program, start_testbed), 50_000_000
    with standalone(any_program, testbed, tmp_path) as server:
        for number in range(3):
            client_of(server).set(f"large:{number}", random.randbytes(size))
        program = [sys.executable, "-m", "bootstrap", "import", "--from", str(server.address)]
        measured = subprocess.run(
            [sys.executable, "-c", MEASURE, *program],
            env={**os.environ, **testbed.variables},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    assert keys_of(testbed) == 3
    assert int(measured.stdout) * 1024 < size + 100_000_000


def test_a_source_may_have_a_host_name(any_program: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """The system resolves it, with its search domains."""
    testbed, port = target(any_program, start_testbed), free_port()
    server = Server(any_program, tmp_path / "source", Address("127.0.0.1", port), config=STANDALONE)
    server.start()
    try:
        fill(client_of(server), 20)
        assert imported(testbed.run("import", "--from", f"localhost:{port}"))["copied"] == 20
    finally:
        server.kill()


def test_a_source_that_ends_meanwhile_is_named_and_the_next_run_continues(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Exit code 1: the Job retries."""
    testbed = target(any_program, start_testbed)
    with standalone(any_program, testbed, tmp_path, config=["appendonly yes", "appendfsync always"]) as server:
        fill(client_of(server), 4000)
        testbed.clock = HookedClock(5, server.kill)
        result = testbed.run("import", "--from", str(server.address))
        assert (result.exit_code, codes(result)) == (1, ["source-unusable"]), result.text
        assert 0 < result.outcome["imported"]["copied"] < 4000
        testbed.clock = None
        server.start()
        report = imported(testbed.run("import", "--from", str(server.address)))
        assert (report["keys"], report["target_keys"]) == (4000, 4000)


def test_the_limit_for_copying_ends_the_run(any_program: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """With what is done until then, and with the setting that raises it."""
    testbed = target(any_program, start_testbed)

    def a_day_passes() -> None:
        clock.ahead_s = 86_401

    with standalone(any_program, testbed, tmp_path) as server:
        fill(client_of(server), 4000)
        testbed.clock = clock = HookedClock(5, a_day_passes)
        result = testbed.run("import", "--from", str(server.address))
    assert (result.exit_code, codes(result)) == (1, ["import-unfinished"]), result.text
    assert "BOOTSTRAP_IMPORT_DEADLINE_S" in result.outcome["reasons"][0]["remedy"]


def test_keys_that_expire_meanwhile_are_no_fault(program: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """Each is copied, or gone; none lives on in the cluster."""
    testbed = target(program, start_testbed)
    with standalone(program, testbed, tmp_path) as server:
        source, moments = client_of(server), random.Random(7)
        pipeline = source.pipeline(transaction=False)
        for number in range(5000):
            pipeline.set(f"key:{number}", number, px=moments.randint(1, 600))
        pipeline.set("stays", 1)
        pipeline.execute()
        report = imported(testbed.run("import", "--from", str(server.address)))
        assert report["keys"] == report["copied"] + report["existing"] + report["gone"]
        with binary_client(testbed) as reader:
            wait_until(lambda: source.dbsize() == 1, "all others have expired")
            assert [reader.exists(f"key:{number}") for number in range(5000)] == [0] * 5000
            assert reader.get("stays") == b"1"


def test_a_user_with_the_rights_that_the_remedy_names_can_read(
    any_program_since_7: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """With one right less, the reason has the words of the source."""
    testbed, secret = target(any_program_since_7, start_testbed), tmp_path / "password"
    secret.write_text(PASSWORD)
    rights = re.findall(r"[~+][^ ]+", RIGHTS)
    with standalone(any_program_since_7, testbed, tmp_path) as server:
        source = client_of(server)
        fill(source, 20)
        source.execute_command("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", *rights)
        words = ["import", "--from", str(server.address), "--from-username", "reader"]
        words += ["--from-password-file", str(secret)]
        report = imported(testbed.run(*words))
        assert (report["copied"], report["compared"]) == (20, 20)
        source.execute_command("ACL", "SETUSER", "reader", "-dump")
        fill(source, 20, "more")
        denied = testbed.run(*words)
        assert (denied.exit_code, codes(denied)) == (4, ["source-rejected"]), denied.text
        assert PASSWORD not in denied.text


def test_a_user_who_may_not_write_all_keys_cannot_import(
    acl_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """As the Job of `apply` with the component auth: nothing is copied, and the remedy names the clients' user."""
    testbed, secret = target(acl_program, start_testbed, f'user job on ">{PASSWORD}" ~* +@all -restore'), tmp_path / "p"
    secret.write_text(PASSWORD)
    with standalone(acl_program, testbed, tmp_path) as server:
        fill(client_of(server), 20)
        login = {"BOOTSTRAP_USERNAME": "job", "BOOTSTRAP_PASSWORD_FILE": str(secret)}
        result = testbed.run("import", "--from", str(server.address), **login)
    assert (result.exit_code, codes(result), result.outcome["steps"]) == (4, ["import-rejected"], 0), result.text
    assert "auth" in result.outcome["reasons"][0]["remedy"]


def test_a_cluster_whose_slots_are_on_their_way_is_no_source(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Clients see all keys of such a slot, but neither master has all of them."""
    testbed, other = target(any_program, start_testbed), target(any_program, start_testbed)
    source, sink = (client_of(server) for server in other.cluster.servers[:2])
    for client, state, peer in ((sink, "IMPORTING", source), (source, "MIGRATING", sink)):
        client.execute_command("CLUSTER", "SETSLOT", 93, state, peer.execute_command("CLUSTER", "MYID").decode())
    result = testbed.run("import", "--from", str(other.cluster.servers[2].address))
    assert (result.exit_code, set(codes(result)), result.outcome["steps"]) == (3, {"source-incomplete"}, 0), result.text
    assert "93" in result.outcome["reasons"][0]["message"]


def test_what_an_empty_source_gains_meanwhile_is_copied(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """It has no key when the run begins."""
    testbed = target(any_program, start_testbed)
    with standalone(any_program, testbed, tmp_path) as server:
        source, find = client_of(server), SourceFinder.find
        looks = []

        def found(finder: SourceFinder) -> Source:
            looks.append(1)
            if len(looks) == 2:
                fill(source, 10)
            return find(finder)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SourceFinder, "find", found)
            report = imported(testbed.run("import", "--from", str(server.address)))
    assert (report["source_keys_before"], report["copied"], report["target_keys"]) == ({}, 10, 10)


def test_keys_that_the_cluster_loses_meanwhile_are_copied_again(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """A failover may lose what a master had accepted; here a master is emptied. The check of every key finds them."""
    testbed = target(any_program, start_testbed)
    with standalone(any_program, testbed, tmp_path) as server:
        fill(client_of(server), 4000)
        testbed.clock = HookedClock(6, lambda: empty(testbed.cluster.servers[1]))
        report = imported(testbed.run("import", "--from", str(server.address)))
        assert report["late"] > 0
        assert report["target_keys"] == 4000
        check_copy(testbed, client_of(server))
