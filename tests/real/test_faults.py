"""Servers and networks fail while a client writes: a run repairs, or says truly what it waits for; promises are kept.

What a client was promised: a key that a master and its replica have outlives the loss of either, and a key that a
master has written to its disk (`appendfsync always`) outlives its process, as long as nobody is elected in its place.
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
from tests.real.network import Network, send_from_own_address, why_not
from tests.real.testbed import RunResult, StartTestbed, Testbed
from tests.real.writer import Writer
from tests.waiting import wait_until

TIMEOUT_MS = 1000
"""The servers notice within a second or two: that is most of the time that these tests take."""
ON_DISK = "appendfsync always"
WRITES = 30
"""Keys in two places that make sure that a client was at work."""


def formed(program: Program, start_testbed: StartTestbed, *config: str) -> Testbed:
    """Six servers that serve."""
    six = start_testbed(program, config=(f"cluster-node-timeout {TIMEOUT_MS}", *config))
    six.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = str(TIMEOUT_MS)
    said = six.run("apply")
    assert said.exit_code == 0, said.text
    return six


@contextmanager
def kept_promises(six: Testbed, *, disk_lost: bool = False) -> Iterator[Writer]:
    """A client writes as long as the block lasts. At its end the cluster serves it, and all that it was promised is
    there.
    """
    before = owners(six.view())
    with Writer(six.cluster.servers) as writer:
        wait_for_writes(writer)
        yield writer
        wait_for_writes(writer)
    elected = owners(six.view()) != before
    promised = writer.copied if disk_lost or elected else writer.acknowledged
    with client(six) as reader:
        found = dict(zip(promised, reader.mget_nonatomic(list(promised)), strict=True))
    assert found == promised


def wait_for_writes(writer: Writer) -> None:
    enough = len(writer.copied) + WRITES
    wait_until(lambda: len(writer.copied) > enough)


def owners(view: ClusterView) -> Mapping[NodeId, tuple[SlotSet, int]]:
    """Whose slots are whose, and since which election."""
    return {node.node_id: (node.slots, node.myself.config_epoch) for node in view.nodes if node.slots}


def assert_waits(six: Testbed, said: RunResult, pod: str, why: str) -> None:
    """It names the pod and the reason, and has written nothing: nobody is promoted, nobody forgotten."""
    assert (said.exit_code, said.outcome["steps"]) == (1, 0), said.text
    assert [(reason["node"], why in reason["message"]) for reason in said.outcome["reasons"]] == [(pod, True)]


DONE = ("phase_done", "phase_not_settled", "slots_moved")
"""Lines of a log that say what a run has done, or tried."""


def assert_good_again(six: Testbed, *, deadline_s: int = 60) -> None:
    """A run ends well, every invariant holds, and the next one has nothing to do but, at most, to introduce nodes: a
    busy machine breaks a link now and then, where the node timeout is one second.
    """
    said = six.run("apply", BOOTSTRAP_DEADLINE_S=str(deadline_s))
    assert said.exit_code == 0, said.text
    verified = six.run("verify")
    assert verified.exit_code == 0, verified.text
    again = six.run("apply")
    done = {line.get("phase", line["event"]) for line in again.lines if line["event"] in DONE}
    assert (again.exit_code, done - {"meet"}) == (0, set()), again.text
    assert done or (again.outcome["outcome"], again.outcome["steps"]) == ("unchanged", 0), again.text


def members(view: ClusterView) -> set[frozenset[NodeId]]:
    """Who is a member, as each node tells it: one answer, as long as all know the same."""
    return {frozenset({node.node_id, *node.others}) for node in view.nodes}


def owns_slots(six: Testbed, server: Server) -> bool:
    return any(node.slots for node in six.view(server).nodes)


def test_a_killed_master_is_waited_for(program: Program, start_testbed: StartTestbed) -> None:
    """SIGKILL: the run waits for it by name; back at the same address it has all that it had written."""
    six = formed(program, start_testbed, ON_DISK)
    master = six.cluster.servers[1]
    with kept_promises(six):
        master.kill()
        assert_waits(six, six.run("apply", BOOTSTRAP_DEADLINE_S="1"), master.name, "connection refused")
        master.start()
        assert_good_again(six)


def test_a_hung_master_is_waited_for(program: Program, start_testbed: StartTestbed) -> None:
    """SIGSTOP: the servers elect its replica, the run does nothing but say whom it waits for; awake, it follows."""
    six = formed(program, start_testbed)
    _, hung, _, _, candidate, _ = six.cluster.servers
    awake = [server for server in six.cluster.servers if server is not hung]
    with kept_promises(six):
        before = members(six.view())
        hung.pause()
        try:
            assert_waits(six, six.run("apply", BOOTSTRAP_DEADLINE_S="1"), hung.name, "no answer in time")
            wait_until(lambda: owns_slots(six, candidate))
            assert members(six.view(*awake)) == before
        finally:
            hung.resume()
        assert_good_again(six)


def test_a_master_without_its_disk_is_replaced(program: Program, start_testbed: StartTestbed) -> None:
    """Back elsewhere and blank, while a client writes: its replica takes over, and it follows that one."""
    six = formed(program, start_testbed)
    with kept_promises(six, disk_lost=True):
        replace_pods(six, 1, wiped=True)
        assert_good_again(six)
        assert owns_slots(six, six.cluster.servers[4])


def test_pods_at_other_addresses_are_found_again(program: Program, start_testbed: StartTestbed) -> None:
    """One master, then all six at once, each with its disk."""
    six = formed(program, start_testbed, ON_DISK)
    with kept_promises(six):
        replace_pods(six, 1, wiped=False)
        assert_good_again(six)
        replace_pods(six, *range(6), wiped=False)
        assert_good_again(six)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of the test's own, where this machine has such."""
    if reason := why_not():
        pytest.skip(reason)
    with Network() as network:
        yield network


def apart(program: Program, start_testbed: StartTestbed) -> Testbed:
    """Six servers that serve, and that a network can tell from one another."""
    six = start_testbed(program, config=(f"cluster-node-timeout {TIMEOUT_MS}",))
    for server in six.cluster.servers:
        send_from_own_address(server)
    six.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = str(TIMEOUT_MS)
    return six


def test_a_cut_bus_is_named(network: Network, program: Program, start_testbed: StartTestbed) -> None:
    """A master answers clients, and no other server: its replica is elected, and the run waits for the links."""
    six = apart(program, start_testbed)
    assert six.run("apply").exit_code == 0
    _, alone, _, _, candidate, _ = six.cluster.servers
    with kept_promises(six):
        before = members(six.view())
        network.cut_bus(alone)
        wait_until(lambda: owns_slots(six, candidate))
        said = six.run("apply", BOOTSTRAP_DEADLINE_S="1")
        assert said.exit_code == 1, said.text
        assert any(alone.name in reason["message"] for reason in said.outcome["reasons"]), said.text
        assert members(six.view()) == before
        network.heal()
        assert_good_again(six)


def test_two_masters_that_do_not_reach_each_other_are_named(
    network: Network, program: Program, start_testbed: StartTestbed
) -> None:
    """All others reach both, so nobody is elected: the run says which two."""
    six = apart(program, start_testbed)
    assert six.run("apply").exit_code == 0
    one, other, *_ = six.cluster.servers
    with kept_promises(six):
        network.cut(one, other)
        wait_until(lambda: any(member.suspected for node in six.view().nodes for member in node.members))
        said = six.run("apply", BOOTSTRAP_DEADLINE_S="1")
        assert said.exit_code == 1, said.text
        assert any({one.name, other.name} <= set(reason["message"].split()) for reason in said.outcome["reasons"])
        network.heal()
        assert_good_again(six)


def test_pods_whose_old_addresses_swallow_packets_are_found_again(
    network: Network, any_program: Program, start_testbed: StartTestbed
) -> None:
    """As on Kubernetes, nobody refuses what is sent to where a pod was: for a whole node timeout, such a link looks
    connected, and every node says cluster_state:ok.
    """
    three = start_testbed(any_program, 3, 0, config=("cluster-node-timeout 15000",))
    three.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = ""
    assert three.run("apply").exit_code == 0
    network.swallow(*(server.address.host for server in three.cluster.servers))
    replace_pods(three, 0, 1, 2, wiped=False)
    assert_good_again(three)
    here = {server.address for server in three.cluster.servers}
    assert {known.address for node in three.view().nodes for known in node.others.values()} == here


def test_a_replica_that_knows_its_moved_master_by_hearsay_follows_it_again(
    network: Network, any_program: Program, start_testbed: StartTestbed
) -> None:
    """Gossip brings a replica its master's new address, but not its replication: that goes on asking the old one."""
    six = apart(any_program, start_testbed)
    assert six.run("apply").exit_code == 0
    master, _, _, replica, *_ = six.cluster.servers
    (before,) = six.view(master).nodes
    with kept_promises(six):
        master.kill()
        master.address = another_address(master.address)
        send_from_own_address(master)
        network.cut(master, replica)
        master.start()
        six.cluster.publish()
        wait_until(lambda: all(n.others[before.node_id].address == master.address for n in six.view(replica).nodes))
        network.heal()
        assert_good_again(six, deadline_s=15)


def test_a_cluster_forms_and_stays_though_packets_are_lost(
    network: Network, program: Program, start_testbed: StartTestbed
) -> None:
    """Between two masters every fourth packet is lost, each way: TCP and one more try bring the rest."""
    six = apart(program, start_testbed)
    one, other, *_ = six.cluster.servers
    network.lose(one, other, share=0.25)
    said = six.run("apply")
    assert said.exit_code == 0, said.text
    with kept_promises(six):
        assert_good_again(six)
        network.heal()
        assert_good_again(six)
