"""Real faults on real servers: moved addresses, wiped disks, lost majorities; no acknowledged key is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from redis import Redis, RedisCluster
from redis.cluster import ClusterNode

from bootstrap.local.programs import Program
from bootstrap.local.servers import start_all
from bootstrap.model.node import Address
from bootstrap.verify import violations
from tests.real.conftest import RunResult, Testbed, until

Labs = Callable[..., Testbed]
TIMEOUT_MS = 2000
"""Elections take the node timeout and some seconds: a short one keeps the tests short."""


def formed(program: Program, lab: Labs, *config: str) -> tuple[Testbed, Mapping[str, str]]:
    """Six servers, formed, with keys on every shard; and what was acknowledged, copied and written to files."""
    six = lab(program, config=(f"cluster-node-timeout {TIMEOUT_MS}", *config))
    six.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = str(TIMEOUT_MS)
    assert six.run("apply").exit_code == 0
    keys = {f"key:{number}": f"value:{number}" for number in range(200)}
    with client(six) as writer:
        for name, value in keys.items():
            writer.set(name, value)
        for node in writer.get_primaries():
            assert writer.execute_command("WAIT", 1, 5000, target_nodes=node) == 1
    until(lambda: all(written(server.address) for server in six.cluster.servers))
    return six, keys


def written(address: Address) -> bool:
    """Whether a server could be killed now and come back with every key.

    With `appendfsync everysec` a server holds its writes back while an earlier fsync goes on, for up to two seconds:
    acknowledged and copied, they are in no file yet. Killed with every copy at once they are gone, whoever repairs.
    """
    with Redis(address.host, address.port) as node:
        about = node.info("persistence")
    return not any(
        about.get(what) for what in ("aof_buffer_length", "aof_rewrite_scheduled", "aof_rewrite_in_progress")
    )


def client(six: Testbed) -> RedisCluster:
    """A cluster client that knows where the servers are now."""
    endpoints = [ClusterNode(server.address.host, server.address.port) for server in six.cluster.servers]
    return RedisCluster(startup_nodes=endpoints, decode_responses=True, socket_timeout=5)


def assert_healed(six: Testbed, said: RunResult, keys: Mapping[str, str]) -> None:
    """Repaired and verified, every key is there, and a second run changes nothing."""
    assert (said.exit_code, said.outcome["outcome"]) == (0, "repaired"), said.text
    assert violations(six.view(), replace(six.desired, timeout_ms=TIMEOUT_MS)) == ()
    with client(six) as reader:
        assert {name: reader.get(name) for name in keys} == keys
    again = six.run("apply")
    assert (again.outcome["outcome"], again.outcome["steps"]) == ("unchanged", 0)


def alive_elsewhere(address: Address) -> Address:
    """Another address, as a pod gets one each time it is made anew."""
    *block, last = address.host.split(".")
    return Address(".".join([*block, str((int(last) + 100) % 250 + 1)]), address.port)


def replace_pods(six: Testbed, *ordinals: int, wiped: bool) -> None:
    """The pods are killed and come back at other addresses, with or without their disks; then DNS knows it."""
    servers = [six.cluster.servers[ordinal] for ordinal in ordinals]
    for server in servers:
        server.kill()
        if wiped:
            shutil.rmtree(server.directory)
            server.directory.mkdir()
        server.address = alive_elsewhere(server.address)
    start_all(servers)
    six.cluster.publish()


def test_all_pods_moved(program: Program, lab: Labs) -> None:
    """Every nodes.conf holds only dead addresses: nobody would ever find anybody again."""
    six, keys = formed(program, lab)
    replace_pods(six, *range(6), wiped=False)
    assert_healed(six, six.run("apply"), keys)


def test_a_replica_lost_its_disk(program: Program, lab: Labs) -> None:
    """The blank pod follows the same master, and the old id is forgotten everywhere."""
    six, keys = formed(program, lab)
    replace_pods(six, 4, wiped=True)
    assert_healed(six, six.run("apply"), keys)


def test_a_master_lost_its_disk(program: Program, lab: Labs) -> None:
    """Its replica is elected by the other masters, the blank pod becomes the new replica."""
    six, keys = formed(program, lab)
    replace_pods(six, 1, wiped=True)
    said = six.run("apply")
    assert_healed(six, said, keys)
    assert "promote" not in said.text
    assert six.view().nodes[4].slots


def test_two_of_three_masters_lost_their_disks(program: Program, lab: Labs) -> None:
    """No majority is left to vote: the replicas take over, and no key is lost."""
    six, keys = formed(program, lab)
    replace_pods(six, 0, 2, wiped=True)
    assert_healed(six, six.run("apply"), keys)
    assert [bool(node.slots) for node in six.view().nodes] == [False, True, False, True, False, True]


def test_a_shard_without_a_copy_is_refused_and_given_up_only_when_told(any_program: Program, lab: Labs) -> None:
    """Master and replica wiped: exit 3 and nothing written; with the fingerprint the cluster serves again."""
    six, keys = formed(any_program, lab)
    replace_pods(six, 1, 4, wiped=True)
    refused = six.run("apply")
    assert (refused.exit_code, refused.outcome["outcome"], refused.outcome["steps"]) == (3, "refused", 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert "5461-10922" in reason["message"]
    assert all(node.blank for node in six.view().nodes if node.ordinal in (1, 4))
    accepted = six.run("apply", "--accept-loss", refused.outcome["cluster"])
    assert accepted.exit_code == 0, accepted.text
    with client(six) as reader:
        left = {name for name in keys if reader.get(name) is not None}
    assert 100 < len(left) < 200


def test_all_disks_lost_is_formed_anew(any_program: Program, lab: Labs) -> None:
    """emptyDir and a new node pool: there is nothing to lose, so nobody has to be asked."""
    six, _ = formed(any_program, lab)
    replace_pods(six, *range(6), wiped=True)
    said = six.run("apply")
    assert (said.exit_code, said.outcome["outcome"]) == (0, "formed"), said.text


def test_a_member_that_the_service_does_not_list_is_not_forgotten(any_program: Program, lab: Labs) -> None:
    """A fourth shard of somebody's, alive and outside: exit 3, nothing written."""
    three = lab(any_program, 3, 0, servers=4)
    stranger = three.cluster.servers[3]
    assert three.run("apply").exit_code == 3, "four pods are listed for three"
    zone = three.cluster.nameserver.zone
    three.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert three.run("apply").exit_code == 0
    with client(three) as meeting:
        host, port = stranger.address.host, stranger.address.port
        meeting.execute_command("CLUSTER MEET", host, port, target_nodes=RedisCluster.ALL_NODES)
    until(lambda: all(len(node.others) == 3 for node in three.view().nodes))
    said = three.run("apply")
    assert (said.exit_code, [r["code"] for r in said.outcome["reasons"]]) == (3, ["member-elsewhere"]), said.text


def test_a_member_elsewhere_that_does_not_say_who_it_is_counts_as_alive(any_program: Program, lab: Labs) -> None:
    """It wants a password by now: whoever answers there may be the member, so it is neither replaced nor forgotten."""
    three = lab(any_program, 3, 0, servers=4)
    zone = three.cluster.nameserver.zone
    three.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert three.run("apply").exit_code == 0
    stranger = three.cluster.servers[3].address
    with client(three) as meeting:
        meeting.execute_command("CLUSTER MEET", stranger.host, stranger.port, target_nodes=RedisCluster.ALL_NODES)
        until(lambda: all(len(node.others) == 3 for node in three.view().nodes))
    with Redis(stranger.host, stranger.port) as locked:
        locked.config_set("requirepass", "secret")
    said = three.run("apply")
    assert (said.exit_code, [r["code"] for r in said.outcome["reasons"]]) == (3, ["member-elsewhere"]), said.text


def test_a_listed_pod_beyond_the_shape_that_hangs_is_not_taken_for_lost(any_program: Program, lab: Labs) -> None:
    """Seven pods for a shape of six, the seventh hung: nothing is forgotten, nobody is promoted."""
    six, _ = formed(any_program, lab)
    zone = six.cluster.nameserver.zone
    extra = replace(zone.pods[5], name="redis-app-6", addresses=(alive_elsewhere(six.cluster.servers[5].address).host,))
    six.cluster.nameserver.publish(replace(zone, pods=(*zone.pods, extra)))
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="2")
    assert (said.exit_code, said.outcome["steps"]) == (1, 0)
    assert [reason["node"] for reason in said.outcome["reasons"]] == ["redis-app-6"]


@pytest.mark.parametrize("verb", ["plan", "verify"])
def test_a_look_at_a_hurt_cluster_writes_nothing(any_program: Program, lab: Labs, verb: str) -> None:
    """`plan` says what is lost and what it would do; `verify` says what is wrong; neither heals anything."""
    six, _ = formed(any_program, lab)
    replace_pods(six, 4, wiped=True)
    said = six.run(verb)
    assert said.exit_code == (0 if verb == "plan" else 1)
    assert "forget the lost" in said.text or verb == "verify"
    assert six.view().nodes[4].blank
