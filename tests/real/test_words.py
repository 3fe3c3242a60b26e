"""Faults that no wait mends: named soon, once, in the servers' own words."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from redis.cluster import ClusterNode, RedisCluster

from bootstrap.local.nameserver import Behaviour
from bootstrap.local.programs import Program
from bootstrap.model import bus
from bootstrap.run import patience
from bootstrap.verify import violations
from tests.real.network import Network, missing_requirement, send_from_own_address
from tests.real.testbed import StartTestbed
from tests.waiting import wait_until


def test_a_password_that_every_pod_rejects_ends_the_run_soon(
    redis_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Exit 4 long before the deadline, with one reason that quotes the servers."""
    three = start_testbed(redis_program, 3, 0, config=("requirepass rightone", "masterauth rightone"))
    secret = tmp_path / "password"
    secret.write_text("wrongone")
    result = three.run("apply", BOOTSTRAP_DEADLINE_S="40", BOOTSTRAP_PASSWORD_FILE=str(secret))
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"]) == (4, "wrong-password")
    assert "WRONGPASS" in reason["message"] or "invalid" in reason["message"]
    assert "redis-app-0, redis-app-1, redis-app-2" in reason["message"]
    assert result.outcome["took_s"] < 40


def test_a_renamed_command_is_named(redis_program: Program, start_testbed: StartTestbed) -> None:
    """`rename-command CLUSTER ""` on every pod: exit 4 long before the deadline; it is not said to be no Redis."""
    three = start_testbed(redis_program, 3, 0, config=('rename-command CLUSTER ""',))
    result = three.run("apply", BOOTSTRAP_DEADLINE_S="40")
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"]) == (4, "unknown-command")
    assert "unknown command" in reason["message"]
    assert "CLUSTER" in reason["message"]
    assert "rename-command" in reason["remedy"]
    assert result.outcome["took_s"] < 40


def test_servers_without_a_free_connection_are_named_once(redis_program: Program, start_testbed: StartTestbed) -> None:
    """`maxclients` reached on every server: one reason with a code of its own, exit 1, since clients may leave."""
    three = start_testbed(redis_program, 3, 0, config=("maxclients 5",))
    crowd = []
    try:
        for server in three.cluster.servers:
            for _ in range(5):
                crowd.append(socket.create_connection((server.address.host, server.address.port)))
                with contextlib.suppress(OSError):
                    crowd[-1].sendall(b"PING\r\n")
                    crowd[-1].recv(100)
        result = three.run("apply", BOOTSTRAP_DEADLINE_S="3")
    finally:
        for each in crowd:
            each.close()
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"]) == (1, "too-many-clients")
    assert "max number of clients" in reason["message"]
    assert "maxclients" in reason["remedy"]


def test_a_service_name_that_does_not_match_is_named_once(redis_program: Program, start_testbed: StartTestbed) -> None:
    """The pods of a StatefulSet with another serviceName are listed under their addresses: exit 4, once the DNS's
    caches cannot be the cause.
    """
    six = start_testbed(redis_program)
    zone = six.cluster.nameserver.zone
    pods = tuple(replace(pod, name=pod.addresses[0].replace(".", "-")) for pod in zone.pods)
    six.cluster.nameserver.publish(replace(zone, pods=pods))
    result = six.run("apply")
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"]) == (4, "service-name")
    assert "redis-app-5: the Service lists its pods without their names" in reason["message"]
    assert "kubectl get statefulset redis-app -o yaml | grep serviceName" in reason["remedy"]
    assert 30 < result.outcome["took_s"] < 50


def test_names_of_another_stateful_set_are_named_once(redis_program: Program, start_testbed: StartTestbed) -> None:
    """Its pods may be there before ours, so the run waits; the remedy names the setting."""
    six = start_testbed(redis_program)
    zone = six.cluster.nameserver.zone
    pods = tuple(replace(pod, name=pod.name.replace("redis-app", "other")) for pod in zone.pods)
    six.cluster.nameserver.publish(replace(zone, pods=pods))
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="2")
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"]) == (1, "no-record")
    assert "lists other names: other-0, other-1, other-2, and 3 more" in reason["message"]
    assert "BOOTSTRAP_STATEFULSET" in reason["remedy"]


def test_a_truncated_dns_answer_is_named_once(redis_program: Program, start_testbed: StartTestbed) -> None:
    """UDP answers and TCP is closed: not "the DNS does not run"."""
    three = start_testbed(redis_program, 3, 0)
    zone = three.cluster.nameserver.zone
    more = tuple(replace(zone.pods[0], name=f"redis-app-{ordinal}") for ordinal in range(3, 60))
    three.cluster.nameserver.publish(replace(zone, pods=(*zone.pods, *more)))
    three.cluster.nameserver.behave(Behaviour.NO_TCP)
    result = three.run("apply", BOOTSTRAP_DEADLINE_S="2")
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"]) == (4, "dns-truncated")
    assert "does not fit into UDP" in reason["message"]
    assert "allow TCP port 53" in reason["remedy"]


def test_a_command_for_moving_slots_that_every_pod_denies_ends_the_run_soon(
    migrating_program: Program, start_testbed: StartTestbed
) -> None:
    """`rename-command MIGRATE ""`: exit 4 with the setting to change, long before the deadline."""
    four = start_testbed(migrating_program, 3, 0, servers=4, config=('rename-command MIGRATE ""',))
    zone = four.cluster.nameserver.zone
    four.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert four.run("apply").exit_code == 0
    endpoints = [ClusterNode(server.address.host, server.address.port) for server in four.cluster.servers[:3]]
    with RedisCluster(startup_nodes=endpoints, protocol=2) as client:
        for number in range(50):
            client.set(f"key:{number}", number)
    four.cluster.nameserver.publish(zone)
    result = replace(four, shards=4).run("apply")
    assert {reason["code"] for reason in result.outcome["reasons"]} == {"step-rejected"}, result.text
    assert result.exit_code == 4
    assert all("rename-command" in reason["remedy"] for reason in result.outcome["reasons"])
    assert result.outcome["took_s"] < 40


@pytest.fixture
def network() -> Iterator[Network]:
    if missing := missing_requirement():
        pytest.skip(missing)
    with Network() as network:
        yield network


def test_a_blocked_bus_has_one_reason_in_every_verb(
    network: Network, redis_program: Program, start_testbed: StartTestbed
) -> None:
    """Port 16379 of every pod is blocked, before the cluster is formed and afterwards."""
    three = start_testbed(redis_program, 3, 0)
    for server in three.cluster.servers:
        send_from_own_address(server)
        network.cut_bus(server)
    (reason,) = three.run("apply", BOOTSTRAP_DEADLINE_S="5").outcome["reasons"]
    assert reason["code"] == "bus-blocked"
    assert reason["message"].startswith("no node can reach another on the cluster bus (port 16379)")
    assert "allow TCP port 16379" in reason["remedy"]
    network.heal()
    assert three.run("apply").exit_code == 0
    last = three.cluster.servers[2]
    network.cut_bus(last)
    wait_until(lambda: len(bus.blocked(three.view())) == 4 and not three.view().nodes[2].serving, "links are down")
    verified = three.run("verify")
    (reason,) = [reason for reason in verified.outcome["reasons"] if reason["code"] == "bus-blocked"]
    assert "redis-app-2" in reason["message"]
    assert "port 16379" in reason["message"]
    assert not [reason for reason in verified.outcome["reasons"] if reason["code"] == "link-down"]
    (line,) = [line for line in three.run("plan").lines if line["event"] == "bus_blocked"]
    assert line["why"] == reason["message"]


def test_a_bus_that_is_blocked_in_one_direction_is_no_health(
    network: Network, redis_program: Program, start_testbed: StartTestbed
) -> None:
    """Nothing reaches the bus of redis-app-5, and its own packets reach all others. No server suspects another one, and
    if its master fails, no vote reaches it: it is not elected.
    """
    six = start_testbed(redis_program)
    for server in six.cluster.servers:
        send_from_own_address(server)
    assert six.run("apply").exit_code == 0
    assert six.run("verify").exit_code == 0
    network.close_bus(six.cluster.servers[5])
    wait_until(lambda: len(bus.blocked(six.view())) == 5, "the pings of all others are overdue")
    assert all(node.serving for node in six.view().nodes)
    for verb in ("verify", "apply"):
        result = six.run(verb)
        (reason,) = result.outcome["reasons"]
        assert (result.exit_code, reason["code"]) == (1, "bus-blocked")
        assert "redis-app-0, redis-app-1, redis-app-2, and 2 more cannot reach redis-app-5 on" in reason["message"]
        assert result.outcome["took_s"] < 30
    assert [line for line in six.run("plan").lines if line["event"] == "bus_blocked"]
    network.heal()
    wait_until(lambda: not (bus.blocked(view := six.view()) or violations(view, six.desired)), "all links are up again")
    assert six.run("apply").outcome["outcome"] == "unchanged"


def test_a_wrong_announced_address_is_named_soon(
    any_program: Program, start_testbed: StartTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others connect to an address at which nobody listens: no NetworkPolicy is blamed, no deadline waited for."""
    monkeypatch.setattr(patience, "BUS_S", 5.0)
    six = start_testbed(any_program)
    assert six.run("apply").exit_code == 0
    with Redis(six.cluster.servers[1].address.host, protocol=2) as server:
        server.config_set("cluster-announce-ip", "127.255.9.9")
        wait_until(lambda: len(bus.blocked(six.view())) >= 5, "the others have lost it")
        for verb in ("apply", "verify"):
            result = six.run(verb, BOOTSTRAP_DEADLINE_S="100")
            (reason,) = [each for each in result.outcome["reasons"] if each["code"] == "bus-blocked"]
            assert "redis-app-1 announces 127.255.9.9:6379 and answers at" in reason["message"], result.text
            assert "NetworkPolicy" not in reason["message"] + reason["remedy"]
            assert "CONFIG GET 'cluster-announce-*'" in reason["remedy"]
            assert result.outcome["took_s"] < 60
        server.config_set("cluster-announce-ip", six.cluster.servers[1].address.host)
        mended = six.run("apply")
        assert mended.exit_code == 0, mended.text


def test_a_wrong_announced_port_is_named_soon(any_program: Program, start_testbed: StartTestbed) -> None:
    """The bus has a port of its own, so only the replica's link is down: exit 4, long before the deadline."""
    six = start_testbed(any_program)
    assert six.run("apply").exit_code == 0
    with Redis(six.cluster.servers[1].address.host, protocol=2) as server:
        server.config_set("cluster-announce-port", 7777)
        wait_until(lambda: not six.view().nodes[4].replication.link_up, "the replica follows the announced port")
        result = six.run("apply", BOOTSTRAP_DEADLINE_S="100")
        (reason,) = result.outcome["reasons"]
        assert (result.exit_code, reason["code"]) == (4, "replica-not-linked"), result.text
        assert "the master announces another address than the one at which it answers" in reason["message"]
        assert ":7777, not " in reason["message"]
        assert result.outcome["took_s"] < 60
        server.config_set("cluster-announce-port", 0)
        assert six.run("apply").exit_code == 0


def test_a_wrong_bus_port_is_named_with_the_setting(redis_program: Program, start_testbed: StartTestbed) -> None:
    """`cluster-announce-bus-port` with a port on which nobody listens: not only a NetworkPolicy explains that."""
    three = start_testbed(redis_program, 3, 0, config=("cluster-announce-bus-port 17000",))
    (reason,) = three.run("apply", BOOTSTRAP_DEADLINE_S="4").outcome["reasons"]
    assert reason["code"] == "bus-blocked"
    assert "(port 17000)" in reason["message"]
    assert "correct cluster-announce-bus-port" in reason["remedy"]


def test_a_stale_record_that_is_corrected_in_time_is_not_refused(
    redis_program: Program, start_testbed: StartTestbed
) -> None:
    """The address of redis-app-2 is that of another cluster's pod for some seconds, as a DNS cache may say."""
    ours, theirs = start_testbed(redis_program, 3, 0), start_testbed(redis_program, 3, 0)
    assert ours.run("apply").exit_code == theirs.run("apply").exit_code == 0
    zone, before = ours.cluster.nameserver.zone, theirs.view()
    other = theirs.cluster.servers[2].address
    stale = replace(zone.pods[2], addresses=(other.host,), port=other.port)
    ours.cluster.nameserver.publish(replace(zone, pods=(*zone.pods[:2], stale)))
    correction = threading.Timer(6, ours.cluster.nameserver.publish, (zone,))
    correction.start()
    applied = ours.run("apply")
    correction.join()
    assert (applied.exit_code, applied.outcome["outcome"]) == (0, "unchanged"), applied.text
    assert [line for line in applied.lines if line["event"] == "looking_again"]
    assert theirs.view().fingerprint() == before.fingerprint()
    assert all(len(node.others) == 2 for node in theirs.view().nodes)


def test_no_remedy_empties_what_another_service_may_own(redis_program: Program, start_testbed: StartTestbed) -> None:
    """The stale record stays: refused, and nobody is told to delete a pod or a volume."""
    ours, theirs = start_testbed(redis_program, 3, 0), start_testbed(redis_program, 3, 0)
    assert ours.run("apply").exit_code == theirs.run("apply").exit_code == 0
    zone, other = ours.cluster.nameserver.zone, theirs.cluster.servers[2].address
    stale = replace(zone.pods[2], addresses=(other.host,), port=other.port)
    ours.cluster.nameserver.publish(replace(zone, pods=(*zone.pods[:2], stale)))
    refused = ours.run("apply", BOOTSTRAP_DEADLINE_S="4")
    assert refused.exit_code == 3, refused.text
    for reason in refused.outcome["reasons"]:
        assert "delete" not in reason["remedy"]
    assert any("stale DNS record, or a pod of another cluster" in r["remedy"] for r in refused.outcome["reasons"])
