"""Real faults on real servers: moved addresses, wiped disks, lost majorities. No acknowledged key is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis import Redis, RedisCluster

from bootstrap.local.programs import Program
from tests.real.clusters import another_address, assert_healed, client, formed, replace_pods
from tests.real.testbed import StartTestbed
from tests.waiting import wait_until


def test_all_pods_moved(program: Program, start_testbed: StartTestbed) -> None:
    """Every nodes.conf holds only stale addresses, so the nodes would never find each other again."""
    six, keys = formed(program, start_testbed)
    replace_pods(six, *range(6), wiped=False)
    assert_healed(six, six.run("apply"), keys)


def test_a_replica_lost_its_disk(program: Program, start_testbed: StartTestbed) -> None:
    """The blank pod follows the same master, and all nodes forget the old id."""
    six, keys = formed(program, start_testbed)
    replace_pods(six, 4, wiped=True)
    assert_healed(six, six.run("apply"), keys)


def test_a_master_lost_its_disk(program: Program, start_testbed: StartTestbed) -> None:
    """The other masters elect its replica, and the blank pod becomes the new replica."""
    six, keys = formed(program, start_testbed)
    replace_pods(six, 1, wiped=True)
    result = six.run("apply")
    assert_healed(six, result, keys)
    assert "promote" not in result.text
    assert six.view().nodes[4].slots


def test_a_lost_master_that_others_have_forgotten_is_replaced(program: Program, start_testbed: StartTestbed) -> None:
    """FORGET by hand on every node but its replica, which refuses it: no master votes for that replica any more."""
    six, keys = formed(program, start_testbed)
    lost, master = six.view().nodes[1].node_id, six.cluster.servers[1]
    master.kill()
    for server in six.cluster.servers:
        if server is not master and server is not six.cluster.servers[4]:
            with Redis(server.address.host, server.address.port, protocol=2) as node:
                node.execute_command("CLUSTER", "FORGET", lost)
    replace_pods(six, 1, wiped=True)
    assert_healed(six, six.run("apply"), keys)
    assert six.view().nodes[4].slots


def test_two_of_three_masters_lost_their_disks(program: Program, start_testbed: StartTestbed) -> None:
    """No majority is left to vote. The replicas take over, and no key is lost."""
    six, keys = formed(program, start_testbed)
    replace_pods(six, 0, 2, wiped=True)
    assert_healed(six, six.run("apply"), keys)
    assert [bool(node.slots) for node in six.view().nodes] == [False, True, False, True, False, True]


def test_a_shard_without_a_copy_is_given_up_only_with_confirmation(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """Master and replica are wiped: exit 3, nothing written. With the fingerprint the cluster serves again."""
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


def test_a_cluster_that_lost_all_disks_is_formed_again(any_program: Program, start_testbed: StartTestbed) -> None:
    """emptyDir and a new node pool: there is no data to lose, so no confirmation is needed."""
    six, _ = formed(any_program, start_testbed)
    replace_pods(six, *range(6), wiped=True)
    result = six.run("apply")
    assert (result.exit_code, result.outcome["outcome"]) == (0, "formed"), result.text


def test_a_member_that_the_service_does_not_list_is_not_forgotten(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """A fourth master is alive, but the Service does not list it: exit 3, nothing written."""
    three = start_testbed(any_program, 3, 0, servers=4)
    stranger = three.cluster.servers[3]
    assert three.run("apply").exit_code == 3, "the Service lists four pods for a shape of three"
    zone = three.cluster.nameserver.zone
    three.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert three.run("apply").exit_code == 0
    with client(three) as introducer:
        host, port = stranger.address.host, stranger.address.port
        introducer.execute_command("CLUSTER MEET", host, port, target_nodes=RedisCluster.ALL_NODES)
    wait_until(lambda: all(len(node.others) == 3 for node in three.view().nodes))
    result = three.run("apply")
    assert (result.exit_code, [r["code"] for r in result.outcome["reasons"]]) == (3, ["member-elsewhere"]), result.text


def test_a_member_elsewhere_that_cannot_be_identified_counts_as_alive(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """The server now requires a password. It may be the member, so the member is neither replaced nor forgotten."""
    three = start_testbed(any_program, 3, 0, servers=4)
    zone = three.cluster.nameserver.zone
    three.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert three.run("apply").exit_code == 0
    stranger = three.cluster.servers[3].address
    with client(three) as introducer:
        introducer.execute_command("CLUSTER MEET", stranger.host, stranger.port, target_nodes=RedisCluster.ALL_NODES)
        wait_until(lambda: all(len(node.others) == 3 for node in three.view().nodes))
    with Redis(stranger.host, stranger.port, protocol=2) as locked:
        locked.config_set("requirepass", "secret")
    result = three.run("apply", BOOTSTRAP_DEADLINE_S="12")  # a run waits longer for a stale DNS record: the test above
    assert (result.exit_code, [r["code"] for r in result.outcome["reasons"]]) == (3, ["member-elsewhere"]), result.text


def test_an_unreachable_pod_beyond_the_shape_is_not_considered_lost(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """Seven pods for a shape of six, and the seventh does not answer: nothing is forgotten, promoted or waited for."""
    six, _ = formed(any_program, start_testbed)
    zone = six.cluster.nameserver.zone
    extra = replace(zone.pods[5], name="redis-app-6", addresses=(another_address(six.cluster.servers[5].address).host,))
    six.cluster.nameserver.publish(replace(zone, pods=(*zone.pods, extra)))
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="2")
    assert (result.outcome["outcome"], result.outcome["steps"]) == ("unchanged", 0), result.text
    assert "redis-app-6" in result.text


@pytest.mark.parametrize("verb", ["plan", "verify"])
def test_plan_and_verify_on_a_damaged_cluster_write_nothing(
    any_program: Program, start_testbed: StartTestbed, verb: str
) -> None:
    """`plan` names the lost node and the steps, and `verify` names the violations. Neither repairs anything."""
    six, _ = formed(any_program, start_testbed)
    replace_pods(six, 4, wiped=True)
    result = six.run(verb)
    assert result.exit_code == (0 if verb == "plan" else 1)
    assert "forget the lost" in result.text or verb == "verify"
    assert six.view().nodes[4].blank
