"""Real faults on real servers: moved addresses, wiped disks, lost majorities; no acknowledged key is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis import Redis, RedisCluster

from bootstrap.local.programs import Program
from tests.real.clusters import another_address, assert_healed, client, formed, replace_pods
from tests.real.testbed import StartTestbed
from tests.waiting import wait_until


def test_all_pods_moved(program: Program, start_testbed: StartTestbed) -> None:
    """Every nodes.conf holds only dead addresses: nobody would ever find anybody again."""
    six, keys = formed(program, start_testbed)
    replace_pods(six, *range(6), wiped=False)
    assert_healed(six, six.run("apply"), keys)


def test_a_replica_lost_its_disk(program: Program, start_testbed: StartTestbed) -> None:
    """The blank pod follows the same master, and the old id is forgotten everywhere."""
    six, keys = formed(program, start_testbed)
    replace_pods(six, 4, wiped=True)
    assert_healed(six, six.run("apply"), keys)


def test_a_master_lost_its_disk(program: Program, start_testbed: StartTestbed) -> None:
    """Its replica is elected by the other masters, the blank pod becomes the new replica."""
    six, keys = formed(program, start_testbed)
    replace_pods(six, 1, wiped=True)
    said = six.run("apply")
    assert_healed(six, said, keys)
    assert "promote" not in said.text
    assert six.view().nodes[4].slots


def test_two_of_three_masters_lost_their_disks(program: Program, start_testbed: StartTestbed) -> None:
    """No majority is left to vote: the replicas take over, and no key is lost."""
    six, keys = formed(program, start_testbed)
    replace_pods(six, 0, 2, wiped=True)
    assert_healed(six, six.run("apply"), keys)
    assert [bool(node.slots) for node in six.view().nodes] == [False, True, False, True, False, True]


def test_a_shard_without_a_copy_is_refused_and_given_up_only_when_told(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """Master and replica wiped: exit 3 and nothing written; with the fingerprint the cluster serves again."""
    six, keys = formed(any_program, start_testbed)
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


def test_all_disks_lost_is_formed_anew(any_program: Program, start_testbed: StartTestbed) -> None:
    """emptyDir and a new node pool: there is nothing to lose, so nobody has to be asked."""
    six, _ = formed(any_program, start_testbed)
    replace_pods(six, *range(6), wiped=True)
    said = six.run("apply")
    assert (said.exit_code, said.outcome["outcome"]) == (0, "formed"), said.text


def test_a_member_that_the_service_does_not_list_is_not_forgotten(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """A fourth shard of somebody's, alive and outside: exit 3, nothing written."""
    three = start_testbed(any_program, 3, 0, servers=4)
    stranger = three.cluster.servers[3]
    assert three.run("apply").exit_code == 3, "four pods are listed for three"
    zone = three.cluster.nameserver.zone
    three.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert three.run("apply").exit_code == 0
    with client(three) as meeting:
        host, port = stranger.address.host, stranger.address.port
        meeting.execute_command("CLUSTER MEET", host, port, target_nodes=RedisCluster.ALL_NODES)
    wait_until(lambda: all(len(node.others) == 3 for node in three.view().nodes))
    said = three.run("apply")
    assert (said.exit_code, [r["code"] for r in said.outcome["reasons"]]) == (3, ["member-elsewhere"]), said.text


def test_a_member_elsewhere_that_does_not_say_who_it_is_counts_as_alive(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """It wants a password by now: whoever answers there may be the member, so it is neither replaced nor forgotten."""
    three = start_testbed(any_program, 3, 0, servers=4)
    zone = three.cluster.nameserver.zone
    three.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert three.run("apply").exit_code == 0
    stranger = three.cluster.servers[3].address
    with client(three) as meeting:
        meeting.execute_command("CLUSTER MEET", stranger.host, stranger.port, target_nodes=RedisCluster.ALL_NODES)
        wait_until(lambda: all(len(node.others) == 3 for node in three.view().nodes))
    with Redis(stranger.host, stranger.port) as locked:
        locked.config_set("requirepass", "secret")
    said = three.run("apply")
    assert (said.exit_code, [r["code"] for r in said.outcome["reasons"]]) == (3, ["member-elsewhere"]), said.text


def test_a_listed_pod_beyond_the_shape_that_hangs_is_not_taken_for_lost(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """Seven pods for a shape of six, the seventh hung: nothing is forgotten, nobody is promoted."""
    six, _ = formed(any_program, start_testbed)
    zone = six.cluster.nameserver.zone
    extra = replace(zone.pods[5], name="redis-app-6", addresses=(another_address(six.cluster.servers[5].address).host,))
    six.cluster.nameserver.publish(replace(zone, pods=(*zone.pods, extra)))
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="2")
    assert (said.exit_code, said.outcome["steps"]) == (1, 0)
    assert [reason["node"] for reason in said.outcome["reasons"]] == ["redis-app-6"]


@pytest.mark.parametrize("verb", ["plan", "verify"])
def test_a_look_at_a_hurt_cluster_writes_nothing(any_program: Program, start_testbed: StartTestbed, verb: str) -> None:
    """`plan` says what is lost and what it would do; `verify` says what is wrong; neither heals anything."""
    six, _ = formed(any_program, start_testbed)
    replace_pods(six, 4, wiped=True)
    said = six.run(verb)
    assert said.exit_code == (0 if verb == "plan" else 1)
    assert "forget the lost" in said.text or verb == "verify"
    assert six.view().nodes[4].blank
