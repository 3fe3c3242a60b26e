"""Which of the answers at a peer's addresses is the peer. DNS records may be stale, duplicate, missing, or another
pod's.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import dns.message

from bootstrap.model.node import Address, Node, Peer
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.nodes.choose import choose
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.discover import Names, Resolver
from bootstrap.nodes.failures import Failure
from bootstrap.nodes.observe import Observer
from tests.fake_cluster import FakeCluster

NODES = FakeCluster(4).look().nodes
A, B, C, D = NODES
REFUSED = Failure(UnreachableReason.CONNECTION_REFUSED)

Answers = dict[Address, Node | Failure]


def at(node: Node, host: str = "") -> tuple[Address, Node]:
    """The node as it answers at its own address, or at another one."""
    address = Address(host, 6379) if host else node.address
    return address, replace(node, address=address)


def peer(ordinal: int, *answers: tuple[Address, Node | Failure]) -> tuple[Peer, Answers]:
    return Peer(ordinal, f"redis-app-{ordinal}", tuple(address for address, _ in answers)), dict(answers)


def chosen(*peers: tuple[Peer, Answers]) -> dict[str, str]:
    """Pods with the node's id, or with the reason why there is none."""
    found = choose(dict(peers))
    return {p.pod: one.node_id if isinstance(one, Node) else one.why.name for p, one in found.items()}


def test_each_peer_with_one_answer_is_that_node() -> None:
    """The common case, in the order of the ordinals, whatever the order of the DNS."""
    found = choose(dict([peer(1, at(B)), peer(0, at(A))]))
    assert [p.ordinal for p in found] == [0, 1]
    assert list(found.values()) == [A, B]


def test_a_stale_address_that_is_silent_is_ignored() -> None:
    """The old address of a pod that moved."""
    assert chosen(peer(0, at(A), (Address("10.9.9.9", 6379), REFUSED))) == {"redis-app-0": A.node_id}


def test_a_stale_address_that_another_pod_has_is_that_pods() -> None:
    """The old address of one pod was given to the next one: a pod whose only answer is a node, is that node."""
    found = chosen(peer(0, at(A), at(B)), peer(1, at(B)))
    assert found == {"redis-app-0": A.node_id, "redis-app-1": B.node_id}


def test_two_pods_that_swapped_addresses_wait_for_the_dns() -> None:
    """Both records show both addresses, and the program does not guess."""
    assert set(chosen(peer(0, at(A), at(B)), peer(1, at(A), at(B))).values()) == {"AMBIGUOUS"}


def test_one_node_that_is_the_only_answer_of_two_pods_is_neither() -> None:
    """Two pods share an address, or a disk was copied with its nodes.conf."""
    assert set(chosen(peer(0, at(A)), peer(1, at(A)), peer(2, at(A, "10.0.9.9"))).values()) == {"AMBIGUOUS"}


def test_two_nodes_at_one_pods_addresses_are_ambiguous() -> None:
    """Two nodes answer, and neither is known to be another pod."""
    found = choose(dict([peer(0, at(A), at(B))]))
    (unreachable,) = found.values()
    assert isinstance(unreachable, UnreachablePeer)
    assert unreachable.why is UnreachableReason.AMBIGUOUS
    assert "stale DNS records" in unreachable.detail


def test_a_dual_stack_pod_is_one_node_at_its_announced_address() -> None:
    """Both families answer with one id; the lower address would be another."""
    assert choose(dict([peer(0, at(A), at(A, "10.0.0.0"), at(A, "fd00::1"))])) == {
        Peer(0, "redis-app-0", (A.address, Address("10.0.0.0", 6379), Address("fd00::1", 6379))): A
    }


def test_a_dual_stack_pod_that_announces_neither_is_taken_at_its_lowest_address() -> None:
    """Always the same one, so that MEET always gets the same address."""
    (node,) = choose(dict([peer(0, at(A, "fd00::1"), at(A, "10.0.5.5"))])).values()
    assert isinstance(node, Node)
    assert node.address == Address("10.0.5.5", 6379)


def test_the_most_informative_failure_is_reported() -> None:
    """A server that rejects a password explains more than an old address at which no server answers."""
    stale = (Address("10.0.0.1", 6379), REFUSED)
    own = (Address("10.0.0.7", 6379), Failure(UnreachableReason.WRONG_PASSWORD, "WRONGPASS"))
    (unreachable,) = choose(dict([peer(0, stale, own)])).values()
    assert unreachable == UnreachablePeer(
        pod="redis-app-0", ordinal=0, why=UnreachableReason.WRONG_PASSWORD, address=own[0], detail="WRONGPASS"
    )


def test_a_pod_without_an_address_has_no_record() -> None:
    """SRV may be ahead of A."""
    assert chosen(peer(0)) == {"redis-app-0": "NO_RECORD"}


def test_a_service_without_any_pod_is_named() -> None:
    """Its name or its namespace is probably wrong. Where the DNS lists another pod, it is not."""
    names = Names(
        service="nonsense",
        namespace="shop",
        cluster_domain="cluster.local",
        port_name="redis-port",
        statefulset="redis-app",
        port=6379,
    )
    with closing(Nodes(Credentials())) as nodes:
        observer = Observer(resolver=NoRecords(()), nodes=nodes, names=names, wanted=3)
        unreachable = observer.look().unreachable
    assert str(unreachable[0]) == "redis-app-0: no DNS record (the Service nonsense in the namespace shop lists no pod)"
    assert {peer.remedy.partition(" shows")[0] for peer in unreachable} == {
        "kubectl get service,endpointslices -n shop"
    }
    assert "BOOTSTRAP_SERVICE=nonsense" in unreachable[0].remedy


class NoRecords(Resolver):
    """A name server that knows no name."""

    def ask(self, name: str, kind: str) -> dns.message.Message:
        return dns.message.make_response(dns.message.make_query(name, kind))


def test_pods_that_wait_for_the_same_reason_share_a_line() -> None:
    """What a person reads while sixty pods start."""
    unreachable = tuple(
        UnreachablePeer(pod=f"redis-app-{ordinal}", ordinal=ordinal, why=why, detail=detail)
        for ordinal, why, detail in (
            (10, UnreachableReason.CONNECTION_REFUSED, ""),
            (2, UnreachableReason.CONNECTION_REFUSED, ""),
            (1, UnreachableReason.NO_RECORD, "the name server is silent"),
        )
    )
    assert ClusterView(unreachable=unreachable).describe_unreachable() == (
        "redis-app-2, redis-app-10: connection refused; redis-app-1: no DNS record (the name server is silent)"
    )


def test_four_pods_with_all_their_addresses_are_all_identified() -> None:
    """Some have a stale record, which belongs to a neighbour that has a record of its own alone."""
    found = chosen(peer(0, at(A)), peer(1, at(A), at(B)), peer(2, at(C)), peer(3, at(C), at(D)))
    assert list(found.values()) == [node.node_id for node in NODES]
