"""Servers and networks fail while a client writes. A run repairs the cluster, or reports correctly what it waits for.

No write is lost that must survive. A key that a master and its replica have must survive the loss of either one. A key
that a master has written to its disk (`appendfsync always`) must survive the end of the master's process, as long as no
replica is elected in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from bootstrap.local.programs import Program
from bootstrap.local.servers import Server
from bootstrap.model.node import NodeId
from bootstrap.model.slots import SlotSet
from bootstrap.model.view import ClusterView
from tests.real.clusters import another_address, client, replace_pods
from tests.real.network import Network, missing_requirement, send_from_own_address
from tests.real.testbed import RunResult, StartTestbed, Testbed
from tests.real.writer import Writer
from tests.waiting import wait_until

TIMEOUT_MS = 1000
"""The servers detect a fault within a second or two. This is most of the time that these tests take."""
ON_DISK = "appendfsync always"
WRITES = 30
"""The number of replicated keys that shows that a client was writing."""


def formed(program: Program, start_testbed: StartTestbed, *config: str) -> Testbed:
    """A formed cluster of six servers."""
    six = start_testbed(program, config=(f"cluster-node-timeout {TIMEOUT_MS}", *config))
    six.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = str(TIMEOUT_MS)
    result = six.run("apply")
    assert result.exit_code == 0, result.text
    return six


@contextmanager
def no_lost_writes(six: Testbed, *, disk_lost: bool = False) -> Iterator[Writer]:
    """A client writes during the block. At the end the cluster still serves it, and every key that must survive is
    there.
    """
    before = owners(six.view())
    with Writer(six.cluster.servers) as writer:
        wait_for_writes(writer)
        yield writer
        wait_for_writes(writer)
    elected = owners(six.view()) != before
    surviving = writer.copied if disk_lost or elected else writer.acknowledged
    with client(six) as reader:
        found = dict(zip(surviving, reader.mget_nonatomic(list(surviving)), strict=True))
    assert found == surviving


def wait_for_writes(writer: Writer) -> None:
    enough = len(writer.copied) + WRITES
    wait_until(lambda: len(writer.copied) > enough)


def owners(view: ClusterView) -> Mapping[NodeId, tuple[SlotSet, int]]:
    """The slots of each master, and the epoch of its last election."""
    return {node.node_id: (node.slots, node.myself.config_epoch) for node in view.nodes if node.slots}


def assert_waits(six: Testbed, result: RunResult, pod: str, why: str) -> None:
    """The run names the pod and the reason, and has written nothing: no node is promoted, no node is forgotten."""
    assert (result.exit_code, result.outcome["steps"]) == (1, 0), result.text
    assert [(reason["node"], why in reason["message"]) for reason in result.outcome["reasons"]] == [(pod, True)]


DONE = ("phase_done", "phase_not_settled", "slots_moved")
"""Log events that show that a run has done or tried something."""


def assert_good_again(six: Testbed, *, deadline_s: int = 60) -> None:
    """A run succeeds, every invariant holds, and the next run does nothing or only introduces nodes.

    With a node timeout of one second, a busy machine breaks a link now and then.
    """
    result = six.run("apply", BOOTSTRAP_DEADLINE_S=str(deadline_s))
    assert result.exit_code == 0, result.text
    verified = six.run("verify")
    assert verified.exit_code == 0, verified.text
    again = six.run("apply")
    done = {line.get("phase", line["event"]) for line in again.lines if line["event"] in DONE}
    assert (again.exit_code, done - {"meet"}) == (0, set()), again.text
    assert done or (again.outcome["outcome"], again.outcome["steps"]) == ("unchanged", 0), again.text


def members(view: ClusterView) -> set[frozenset[NodeId]]:
    """The members of the cluster as each node reports them: one set, as long as all nodes agree."""
    return {frozenset({node.node_id, *node.others}) for node in view.nodes}


def owns_slots(six: Testbed, server: Server) -> bool:
    return any(node.slots for node in six.view(server).nodes)


def test_a_killed_master_is_waited_for(program: Program, start_testbed: StartTestbed) -> None:
    """SIGKILL: the run waits for it by name. Back at the same address, it has every key that it had written."""
    six = formed(program, start_testbed, ON_DISK)
    master = six.cluster.servers[1]
    with no_lost_writes(six):
        master.kill()
        assert_waits(six, six.run("apply", BOOTSTRAP_DEADLINE_S="1"), master.name, "connection refused")
        master.start()
        assert_good_again(six)


def test_a_hung_master_is_waited_for(program: Program, start_testbed: StartTestbed) -> None:
    """SIGSTOP: the servers elect its replica, and the run only names the pod that it waits for. Resumed, it follows."""
    six = formed(program, start_testbed)
    _, hung, _, _, candidate, _ = six.cluster.servers
    running = [server for server in six.cluster.servers if server is not hung]
    with no_lost_writes(six):
        before = members(six.view())
        hung.pause()
        try:
            assert_waits(six, six.run("apply", BOOTSTRAP_DEADLINE_S="1"), hung.name, "no answer in time")
            wait_until(lambda: owns_slots(six, candidate))
            assert members(six.view(*running)) == before
        finally:
            hung.resume()
        assert_good_again(six)


def test_a_master_without_its_disk_is_replaced(program: Program, start_testbed: StartTestbed) -> None:
    """It returns blank at another address while a client writes. Its replica takes over, and it becomes a replica."""
    six = formed(program, start_testbed)
    with no_lost_writes(six, disk_lost=True):
        replace_pods(six, 1, wiped=True)
        assert_good_again(six)
        assert owns_slots(six, six.cluster.servers[4])


def test_pods_at_other_addresses_are_found_again(program: Program, start_testbed: StartTestbed) -> None:
    """First one master, then all six at the same time, each with its disk."""
    six = formed(program, start_testbed, ON_DISK)
    with no_lost_writes(six):
        replace_pods(six, 1, wiped=False)
        assert_good_again(six)
        replace_pods(six, *range(6), wiped=False)
        assert_good_again(six)


@pytest.fixture
def network() -> Iterator[Network]:
    """A private network for the test. Without the means for one, the test is skipped."""
    if reason := missing_requirement():
        pytest.skip(reason)
    with Network() as network:
        yield network


def with_own_addresses(program: Program, start_testbed: StartTestbed) -> Testbed:
    """Six servers that the rules of a network can distinguish."""
    six = start_testbed(program, config=(f"cluster-node-timeout {TIMEOUT_MS}",))
    for server in six.cluster.servers:
        send_from_own_address(server)
    six.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = str(TIMEOUT_MS)
    return six


def test_a_cut_bus_is_named(network: Network, program: Program, start_testbed: StartTestbed) -> None:
    """A master answers clients but no other server. Its replica is elected, and the run waits for the links."""
    six = with_own_addresses(program, start_testbed)
    assert six.run("apply").exit_code == 0
    _, isolated, _, _, candidate, _ = six.cluster.servers
    with no_lost_writes(six):
        before = members(six.view())
        network.cut_bus(isolated)
        wait_until(lambda: owns_slots(six, candidate))
        result = six.run("apply", BOOTSTRAP_DEADLINE_S="1")
        assert result.exit_code == 1, result.text
        assert any(isolated.name in reason["message"] for reason in result.outcome["reasons"]), result.text
        assert members(six.view()) == before
        network.heal()
        assert_good_again(six)


def test_two_masters_that_cannot_reach_each_other_are_named(
    network: Network, program: Program, start_testbed: StartTestbed
) -> None:
    """All other nodes reach both, so no replica is elected. The run names the two masters."""
    six = with_own_addresses(program, start_testbed)
    assert six.run("apply").exit_code == 0
    one, other, *_ = six.cluster.servers
    with no_lost_writes(six):
        network.cut(one, other)
        wait_until(lambda: any(member.suspected for node in six.view().nodes for member in node.members))
        result = six.run("apply", BOOTSTRAP_DEADLINE_S="1")
        assert result.exit_code == 1, result.text
        assert any({one.name, other.name} <= set(reason["message"].split()) for reason in result.outcome["reasons"])
        network.heal()
        assert_good_again(six)


def test_pods_whose_old_addresses_drop_packets_are_found_again(
    network: Network, any_program: Program, start_testbed: StartTestbed
) -> None:
    """As on Kubernetes, packets to the old address of a pod are dropped, not refused. For a whole node timeout such a
    link looks connected, and every node reports cluster_state:ok.
    """
    three = start_testbed(any_program, 3, 0, config=("cluster-node-timeout 15000",))
    three.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = ""
    assert three.run("apply").exit_code == 0
    network.swallow(*(server.address.host for server in three.cluster.servers))
    replace_pods(three, 0, 1, 2, wiped=False)
    assert_good_again(three)
    here = {server.address for server in three.cluster.servers}
    assert {known.address for node in three.view().nodes for known in node.others.values()} == here


def test_a_replica_that_knows_its_moved_master_only_by_gossip_follows_it_again(
    network: Network, any_program: Program, start_testbed: StartTestbed
) -> None:
    """Gossip gives a replica the new address of its master, but its replication keeps using the old one."""
    six = with_own_addresses(any_program, start_testbed)
    assert six.run("apply").exit_code == 0
    master, _, _, replica, *_ = six.cluster.servers
    (before,) = six.view(master).nodes
    with no_lost_writes(six):
        master.kill()
        master.address = another_address(master.address)
        send_from_own_address(master)
        network.cut(master, replica)
        master.start()
        six.cluster.publish()
        wait_until(lambda: all(n.others[before.node_id].address == master.address for n in six.view(replica).nodes))
        network.heal()
        assert_good_again(six, deadline_s=15)


def test_a_cluster_forms_and_stays_healthy_despite_packet_loss(
    network: Network, program: Program, start_testbed: StartTestbed
) -> None:
    """Between two masters every fourth packet is lost, in both directions. TCP and one retry deliver the rest."""
    six = with_own_addresses(program, start_testbed)
    one, other, *_ = six.cluster.servers
    network.lose(one, other, share=0.25)
    result = six.run("apply")
    assert result.exit_code == 0, result.text
    with no_lost_writes(six):
        assert_good_again(six)
        network.heal()
        assert_good_again(six)
