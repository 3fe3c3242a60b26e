"""IPv6: the servers know each other only by IPv6 addresses, and DNS has only AAAA records for them."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from bootstrap.local.addresses import BUS_OFFSET
from bootstrap.local.cluster import STATEFULSET, LocalCluster, zone_of
from bootstrap.local.nameserver import Nameserver
from bootstrap.local.programs import Program
from bootstrap.local.servers import Pause, Server, start_all
from bootstrap.model.node import Address, Role
from bootstrap.verify import violations
from tests.real.testbed import Testbed

LOOPBACK = "::1"
NODES = 6


def has_ipv6() -> bool:
    with suppress(OSError), socket.create_server((LOOPBACK, 0), family=socket.AF_INET6):
        return True
    return False


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback address on this machine")


class Ipv6Cluster(LocalCluster):
    """Six servers on ::1. There is only one such address, so their ports differ, and SRV records carry them."""

    def start(self, *, pause: Pause = lambda _: None) -> None:
        places = [Address(LOOPBACK, port) for port in free_ports(NODES)]
        self.servers = tuple(
            Server(self.program, self.directory / f"{STATEFULSET}-{ordinal}", place)
            for ordinal, place in enumerate(places)
        )
        start_all(self.servers)
        self._nameserver = Nameserver(zone_of(self.servers)).start()


def free_ports(count: int) -> Iterator[int]:
    """Ports whose bus ports are free as well. All stay bound until the last is found, so that none is found twice."""
    with ExitStack() as bound:
        found: list[int] = []
        while len(found) < count:
            port = 7000 + secrets.randbelow(14_000)
            with suppress(OSError), ExitStack() as both:
                for each in (port, port + BUS_OFFSET):
                    both.enter_context(socket.create_server((LOOPBACK, each), family=socket.AF_INET6))
                bound.enter_context(both.pop_all())
                found.append(port)
    yield from found


@pytest.fixture
def six(program: Program, tmp_path: Path) -> Iterator[Testbed]:
    with Ipv6Cluster(program, tmp_path, nodes=NODES) as cluster:
        yield Testbed(cluster)


def test_a_cluster_forms_over_ipv6(six: Testbed) -> None:
    """Nodes meet, replicate and are probed over IPv6 addresses. A second run changes nothing."""
    result = six.run("apply")
    assert (result.exit_code, result.outcome["outcome"]) == (0, "formed"), result.text
    assert [line["shards"] for line in result.lines if line["event"] == "probe_done"] == [3]
    view = six.view()
    assert violations(view, six.desired) == ()
    assert {node.address.host for node in view.nodes} == {LOOPBACK}
    known = {member.address.host for node in view.nodes for member in node.others.values() if member.address}
    assert known == {LOOPBACK}
    assert f"[{LOOPBACK}]:{six.cluster.servers[0].address.port}" in result.text
    again = six.run("apply")
    assert (again.outcome["outcome"], again.outcome["steps"]) == ("unchanged", 0)


def test_moved_nodes_are_found_again_over_ipv6(six: Testbed) -> None:
    """All nodes restart at other ports, so every nodes.conf holds only stale addresses. A run introduces them again."""
    assert six.run("apply").exit_code == 0
    for server in six.cluster.servers:
        server.kill()
    for server, port in zip(six.cluster.servers, free_ports(NODES), strict=True):
        server.address = Address(LOOPBACK, port)
    start_all(six.cluster.servers)
    six.cluster.publish()
    result = six.run("apply")
    assert (result.exit_code, result.outcome["outcome"]) == (0, "repaired"), result.text
    assert sum(node.role is Role.MASTER for node in six.view().nodes) == 3
