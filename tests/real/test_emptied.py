"""Shards of which nobody holds a key any more, and files that were loaded into pods of no cluster: a person decides."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

from redis import Redis

from bootstrap.local.programs import Program
from bootstrap.local.servers import start_all
from bootstrap.model.node import Node
from bootstrap.model.slots import SlotSet
from bootstrap.verify import violations
from tests.real.clusters import TIMEOUT_MS, client, formed
from tests.real.testbed import RunResult, StartTestbed, Testbed
from tests.waiting import wait_until


def wipe_in_place(six: Testbed, *ordinals: int) -> None:
    """Masters come back at their addresses without their disks, and their replicas copy the emptiness."""
    servers = [six.cluster.servers[ordinal] for ordinal in ordinals]
    for server in servers:
        server.kill()
        shutil.rmtree(server.directory)
        server.directory.mkdir()
    start_all(servers)
    replicas = [ordinal + 3 for ordinal in ordinals]
    wait_until(lambda: all(not node.keys and node.replication.link_up for node in nodes(six, replicas)))


def nodes(six: Testbed, ordinals: list[int]) -> list[Node]:
    return [node for node in six.whole_view().nodes if node.ordinal in ordinals]


def fingerprint_in(refused: RunResult) -> str:
    """The one that the only reason names."""
    (reason,) = refused.outcome["reasons"]
    found = re.search(r"--accept-loss ([0-9a-f]{12})", reason["remedy"])
    assert found, reason
    return found[1]


def assert_formed_again(six: Testbed, result: RunResult) -> None:
    assert (result.exit_code, result.outcome["outcome"]) == (0, "repaired"), result.text
    assert violations(six.whole_view(), replace(six.desired, timeout_ms=TIMEOUT_MS)) == ()
    again = six.run("apply")
    assert (again.outcome["outcome"], again.outcome["steps"]) == ("unchanged", 0)


def test_a_master_that_came_back_empty_at_its_address_is_refused_until_a_person_accepts(
    redis_program: Program, start_testbed: StartTestbed
) -> None:
    """Its replica has copied the emptiness. With the fingerprint the shard is formed again; other keys are there."""
    six, keys = formed(redis_program, start_testbed)
    wipe_in_place(six, 1)
    refused = six.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert reason["code"] == "slots-lost"
    assert "5461-10922: redis-app-1 came back empty at its address, and redis-app-4" in reason["message"]
    assert six.run("plan").exit_code == 3
    assert_formed_again(six, six.run("apply", "--accept-loss", fingerprint_in(refused)))
    with client(six) as reader:
        left = {name: value for name, value in keys.items() if reader.keyslot(name) not in SlotSet.of((5461, 10922))}
        assert {name: reader.get(name) for name in left} == left
        assert len(left) > 100


def test_a_replica_on_valkey_keeps_its_copy_of_a_master_that_came_back_empty(
    valkey_program: Program, start_testbed: StartTestbed
) -> None:
    """It is elected before it copies anything: no key is lost, and the run gives the blank pod its place."""
    six, keys = formed(valkey_program, start_testbed)
    server = six.cluster.servers[1]
    server.kill()
    shutil.rmtree(server.directory)
    server.directory.mkdir()
    start_all([server])
    wait_until(lambda: bool(nodes(six, [4])[0].slots), "the replica is elected")
    assert_formed_again(six, six.run("apply"))
    with client(six) as reader:
        assert {name: reader.get(name) for name in keys} == keys


def test_a_cluster_whose_masters_all_came_back_empty_forms_again(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """No master is left to name the state, so the fingerprint is that of the lost ones."""
    six, _ = formed(any_program, start_testbed)
    wipe_in_place(six, 0, 1, 2)
    refused = six.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    assert refused.outcome["reasons"][0]["code"] == "slots-lost"
    assert_formed_again(six, six.run("apply", "--accept-loss", fingerprint_in(refused)))


def test_a_master_that_was_reset_is_refused_as_well(redis_program: Program, start_testbed: StartTestbed) -> None:
    """FLUSHALL and CLUSTER RESET HARD by hand give it a new id at its address."""
    six, _ = formed(redis_program, start_testbed)
    place = six.cluster.servers[1].address
    with Redis(place.host, place.port, protocol=2) as node:
        node.flushall()
        node.execute_command("CLUSTER", "RESET", "HARD")
    wait_until(lambda: all(not node.keys and node.replication.link_up for node in nodes(six, [4])))
    refused = six.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    assert_formed_again(six, six.run("apply", "--accept-loss", fingerprint_in(refused)))


def without_nodes_conf(six: Testbed, keep_files: int) -> None:
    """All pods start with fresh disks; those below `keep_files` have a dump.rdb on it."""
    for server in six.cluster.servers:
        with Redis(server.address.host, server.address.port, protocol=2) as node:
            node.save()
    for ordinal, server in enumerate(six.cluster.servers):
        server.kill()
        (server.directory / "nodes.conf").unlink()
        if ordinal >= keep_files:
            (server.directory / "dump.rdb").unlink()
    start_all(six.cluster.servers)


def test_files_that_were_loaded_into_blank_pods_are_not_called_lost_nodes(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """Servers take the slots of the keys that they load. The others have no key anywhere: a person says that these
    files are all there is, and the cluster is formed around them with every key.
    """
    six, keys = formed(any_program, start_testbed, "appendonly no")
    without_nodes_conf(six, 3)
    refused = six.run("apply", BOOTSTRAP_DEADLINE_S="5")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert reason["code"] == "data-without-cluster"
    assert "are gone" not in reason["message"]
    assert all(f"redis-app-{ordinal} (" in reason["message"] for ordinal in range(3))
    assert_no_long_list(refused)
    result = six.run("apply", "--accept-loss", fingerprint_in(refused))
    assert result.exit_code == 0, result.text
    assert_no_long_list(result)
    with client(six) as reader:
        assert {name: reader.get(name) for name in keys} == keys


def test_one_file_on_several_pods_is_not_called_another_cluster(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """The files of masters and replicas: one reason, which names the pods with the same slots."""
    six, keys = formed(any_program, start_testbed, "appendonly no")
    without_nodes_conf(six, 6)
    refused = six.run("apply", BOOTSTRAP_DEADLINE_S="5")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert reason["code"] == "data-without-cluster"
    for pair in ((0, 3), (1, 4), (2, 5)):
        one, other = (f"redis-app-{ordinal}" for ordinal in pair)
        assert re.search(rf"{one} \(\d+ keys\) and {other} \(\d+ keys\)", reason["message"])
    for server in six.cluster.servers[3:]:
        with Redis(server.address.host, server.address.port, protocol=2) as node:
            node.flushall()
            node.execute_command("CLUSTER", "RESET", "HARD")
    refused = six.run("apply", BOOTSTRAP_DEADLINE_S="5")
    assert six.run("apply", "--accept-loss", fingerprint_in(refused)).exit_code == 0
    with client(six) as reader:
        assert {name: reader.get(name) for name in keys} == keys


LONG_LIST = re.compile(r"\d+(?:-\d+)?(?:[ ,]+\d+(?:-\d+)?){40,}")


def assert_no_long_list(result: RunResult) -> None:
    """No line of the log lists slots over more than 200 characters."""
    assert not [found[0] for found in LONG_LIST.finditer(result.text) if len(found[0]) > 200]
