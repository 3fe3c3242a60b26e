"""Cloned disks, which give two living servers one node id, and one address that all announce: nothing is written."""

from __future__ import annotations

import shutil
from dataclasses import replace

from redis import Redis

from bootstrap.local.programs import Program
from bootstrap.local.servers import Server, start_all
from tests.real.clusters import another_address, client, formed
from tests.real.network import send_from_own_address
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until


def clone(of: Testbed, ordinal: int, to: Testbed, into: int) -> None:
    """Gives a pod that does not run a copy of another pod's disk."""
    source, copy = of.cluster.servers[ordinal], to.cluster.servers[into]
    shutil.rmtree(copy.directory)
    shutil.copytree(source.directory, copy.directory, ignore=shutil.ignore_patterns("*.pid", "*.sock"))


def test_a_cloned_volume_is_refused(any_program: Program, start_testbed: StartTestbed) -> None:
    """Two pods with one node id: exit 3, both named."""
    six, _ = formed(any_program, start_testbed)
    copy = six.cluster.servers[4]
    copy.kill()
    clone(six, 1, six, 4)
    copy.address = another_address(copy.address)
    start_all([copy])
    six.cluster.publish()
    refused = six.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert reason["code"] == "cloned-node"
    assert "redis-app-1" in reason["message"]
    assert "redis-app-4" in reason["message"]
    assert "kubectl get pvc" in reason["remedy"]
    assert [reason["code"] for reason in six.run("verify").outcome["reasons"]] == ["cloned-node"]
    wiped = six.run("reinit", "--confirm", six.view().fingerprint(), BOOTSTRAP_DEADLINE_S="3")
    assert (wiped.exit_code, wiped.outcome["steps"]) == (3, 0), wiped.text
    assert [reason["code"] for reason in wiped.outcome["reasons"]] == ["cloned-node"]


def test_a_pod_that_runs_twice_is_refused(any_program: Program, start_testbed: StartTestbed) -> None:
    """Its former server still runs, on a machine that has lost contact, and DNS lists both addresses."""
    six, _ = formed(any_program, start_testbed)
    former = six.cluster.servers[1]
    directory = former.directory.with_name("second")
    shutil.copytree(former.directory, directory, ignore=shutil.ignore_patterns("*.pid", "*.sock"))
    second = Server(any_program, directory, another_address(former.address), config=former.config)
    try:
        start_all([second])
        zone = six.cluster.nameserver.zone
        both = replace(zone.pods[1], addresses=(former.address.host, second.address.host))
        six.cluster.nameserver.publish(replace(zone, pods=(zone.pods[0], both, *zone.pods[2:])))
        refused = six.run("apply")
    finally:
        second.kill()
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert reason["code"] == "cloned-node"
    assert "redis-app-1 runs twice" in reason["message"]


def test_a_copy_beside_its_living_original_is_refused(any_program: Program, start_testbed: StartTestbed) -> None:
    """All volumes are cloned into another cluster's pods. Their servers find the originals by themselves, at the stored
    addresses; the program introduces nobody to anybody.
    """
    six, _ = formed(any_program, start_testbed)
    other = start_testbed(any_program)
    for server in other.cluster.servers:
        server.kill()
    for ordinal in range(6):
        clone(six, ordinal, other, ordinal)
    start_all(other.cluster.servers)
    refused = other.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert reason["code"] == "copied-cluster"
    assert f"a copy of this cluster runs at {six.cluster.servers[0].address} " in reason["message"]
    assert "and 3 more" in reason["message"]
    assert other.run("plan").exit_code == 3
    for testbed in (six, other):  # the originals have learnt of the copies' addresses by now
        assert [reason["code"] for reason in testbed.run("verify").outcome["reasons"]] == ["copied-cluster"]
    original = six.run("apply")
    assert (original.exit_code, original.outcome["steps"]) == (3, 0), original.text


def test_a_copy_of_some_disks_beside_blank_pods_is_refused(any_program: Program, start_testbed: StartTestbed) -> None:
    """Only the masters' disks were cloned: no blank pod is given to them."""
    six, _ = formed(any_program, start_testbed)
    other = start_testbed(any_program)
    for server in other.cluster.servers[:3]:
        server.kill()
    for ordinal in range(3):
        clone(six, ordinal, other, ordinal)
    start_all(other.cluster.servers[:3])
    refused = other.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    assert "copied-cluster" in {reason["code"] for reason in refused.outcome["reasons"]}


def test_pods_that_announce_one_address_are_refused(any_program: Program, start_testbed: StartTestbed) -> None:
    """Before anybody is introduced."""
    six = start_testbed(any_program, config=("cluster-announce-ip 127.9.9.9",))
    refused = six.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert reason["code"] == "one-announced-address"
    assert "redis-app-0, redis-app-1" in reason["message"]
    assert "cluster-announce-ip" in reason["remedy"]
    six.cluster.servers[5].kill()  # pods that are missing change nothing about it
    assert [reason["code"] for reason in six.run("apply").outcome["reasons"]] == ["one-announced-address"]


def test_a_pod_that_announces_the_address_of_another_is_refused(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """The other one finds its own address, and does not know it yet."""
    six = start_testbed(any_program)
    one, other = six.cluster.servers[:2]
    find_own_address(one)
    other.kill()
    other.config = (*other.config, f"cluster-announce-ip {one.address.host}")
    start_all([other])
    refused = six.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert reason["code"] == "one-announced-address"
    assert f"announces the address {one.address}, at which redis-app-0 answers" in reason["message"]


def find_own_address(server: Server) -> None:
    """The server is started again without an address to announce, as outside Kubernetes."""
    server.kill()
    server.config = (*server.config, 'cluster-announce-ip ""')
    start_all([server])


def test_a_former_address_that_is_another_pods_now_is_no_announced_one(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """A server without a fixed address keeps its former one until it is introduced. The pod that has that address now
    was introduced already, by a run that was killed.
    """
    six, keys = formed(any_program, start_testbed)
    for server in six.cluster.servers:
        send_from_own_address(server)
    one, other = six.cluster.servers[:2]
    for server in (one, other):
        server.kill()
        server.config = (*server.config, 'cluster-announce-ip ""')
    one.address, other.address = other.address, another_address(other.address)
    for server in (one, other):
        send_from_own_address(server)
    start_all([one, other])
    six.cluster.publish()
    third = six.cluster.servers[2].address
    with Redis(third.host, third.port, protocol=2) as node:
        node.execute_command("CLUSTER", "MEET", one.address.host, one.address.port)
    wait_until(lambda: six.view().nodes[0].myself.address == six.view().nodes[1].myself.address == one.address)
    healed = six.run("apply")
    assert healed.exit_code == 0, healed.text
    with client(six) as reader:
        assert {name: reader.get(name) for name in keys} == keys
