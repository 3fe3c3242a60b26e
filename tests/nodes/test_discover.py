"""Discovery against a real DNS server on loopback, and against sockets that answer garbage."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from bootstrap.local.nameserver import Behaviour, Nameserver
from bootstrap.local.zone import Pod, Zone
from bootstrap.model.node import Address, Peer
from bootstrap.nodes.discover import Names, NoAnswer, Resolver, discover

NAMES = Names(
    service="redis-service",
    namespace="default",
    cluster_domain="cluster.local",
    port_name="redis-port",
    statefulset="redis-app",
    port=6379,
)
SHORT_S = 0.2


def pod(ordinal: int, *addresses: str, port: int = 6379) -> Pod:
    return Pod(name=f"redis-app-{ordinal}", addresses=addresses or (f"10.0.0.{ordinal + 1}",), port=port)


def peer(ordinal: int, *addresses: str) -> Peer:
    """A peer with its addresses as `ip` (port 6379) or as they are."""
    hosts = addresses or (f"10.0.0.{ordinal + 1}",)
    return Peer(ordinal, f"redis-app-{ordinal}", tuple(Address(host, 6379) for host in hosts))


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    """Twelve pods: more than one digit, so that text order is not ordinal order."""
    with Nameserver(Zone(pods=tuple(pod(ordinal) for ordinal in reversed(range(12))))) as running:
        yield running


def resolver_of(*servers: Address, query_limit_s: float = 5.0) -> Resolver:
    return Resolver(servers, query_limit_s=query_limit_s)


def address_of(nameserver: Nameserver) -> Address:
    return Address(nameserver.host, nameserver.port)


def resolver(nameserver: Nameserver) -> Resolver:
    return resolver_of(address_of(nameserver))


def test_srv_lists_the_pods_in_the_order_of_their_ordinals(nameserver: Nameserver) -> None:
    """10 comes after 9, not after 1; one query is enough."""
    listing = discover(resolver(nameserver), NAMES, 12)
    assert listing.peers == tuple(peer(ordinal) for ordinal in range(12))
    assert (listing.unexpected_names, listing.error) == ((), "")
    assert {question.name for question in nameserver.questions} == {
        "_redis-port._tcp.redis-service.default.svc.cluster.local."
    }


def test_every_queried_name_is_absolute(nameserver: Nameserver) -> None:
    """Otherwise `ndots:5` would put the queries for five search domains before each."""
    nameserver.publish(replace(nameserver.zone, additional=False))
    discover(resolver(nameserver), NAMES, 12)
    assert all(question.name.endswith(".svc.cluster.local.") for question in nameserver.questions)


def test_missing_addresses_are_queried(nameserver: Nameserver) -> None:
    """A server whose SRV answer holds no addresses costs two queries per pod, and changes nothing else."""
    nameserver.publish(replace(nameserver.zone, additional=False))
    assert discover(resolver(nameserver), NAMES, 12).peers == tuple(peer(ordinal) for ordinal in range(12))
    assert {question.kind for question in nameserver.questions} == {"SRV", "A", "AAAA"}


def test_pods_are_queried_by_name_without_srv_records(nameserver: Nameserver) -> None:
    """A port without a name has no SRV records; then the wanted number of pods decides."""
    nameserver.publish(replace(nameserver.zone, srv=False))
    assert discover(resolver(nameserver), NAMES, 3).peers == (peer(0), peer(1), peer(2))


def test_a_pod_that_does_not_exist_yet_is_missing_without_an_error(nameserver: Nameserver) -> None:
    """By SRV and by name alike: the other pods are listed."""
    pods = tuple(each for each in nameserver.zone.pods if each.name != "redis-app-1")
    for srv in (True, False):
        nameserver.publish(replace(nameserver.zone, pods=pods, srv=srv))
        listing = discover(resolver(nameserver), NAMES, 3)
        assert [each.ordinal for each in listing.peers][:2] == [0, 2]
        assert listing.error == ""


def test_a_service_without_pods_lists_none_without_an_error() -> None:
    """It does not exist yet: NXDOMAIN is an answer."""
    with Nameserver(Zone()) as nameserver:
        assert discover(resolver(nameserver), NAMES, 3).peers == ()


def test_a_pod_in_the_middle_of_a_move_has_both_addresses(nameserver: Nameserver) -> None:
    """The look at the nodes finds out which address is alive."""
    nameserver.publish(Zone(pods=(pod(0, "10.0.0.9"), pod(0, "10.0.0.1"), pod(0, "10.0.0.9"))))
    assert discover(resolver(nameserver), NAMES, 1).peers == (peer(0, "10.0.0.1", "10.0.0.9"),)


def test_ports_come_from_srv(nameserver: Nameserver) -> None:
    """With 127.0.0.1 alone, peers differ in their ports; two targets of one pod are two addresses to look at."""
    nameserver.publish(
        Zone(pods=(pod(0, "127.0.0.1", port=7001), pod(1, "127.0.0.1", port=7002), pod(1, "127.0.0.1", port=7003)))
    )
    found = discover(resolver(nameserver), NAMES, 2).peers
    assert [[each.port for each in one.addresses] for one in found] == [[7001], [7002, 7003]]


@pytest.mark.parametrize("additional", [True, False], ids=["with glue", "without glue"])
def test_ipv6_and_dual_stack_pods_have_all_their_addresses(nameserver: Nameserver, additional: bool) -> None:
    """A and AAAA are both queried."""
    nameserver.publish(Zone(pods=(pod(0, "fd00::1"), pod(1, "fd00::2", "10.0.0.2")), additional=additional))
    assert discover(resolver(nameserver), NAMES, 2).peers == (peer(0, "fd00::1"), peer(1, "10.0.0.2", "fd00::2"))


def test_names_of_no_pod_of_the_statefulset_are_reported(nameserver: Nameserver) -> None:
    """Another workload behind the same Service is not a peer, and it is not ignored either."""
    unexpected_names = ("redis-app-x", "redis-app-01", "other-redis-app-0", "redis-app")
    nameserver.publish(Zone(pods=(pod(0), *(Pod(name=name, addresses=("10.0.9.9",)) for name in unexpected_names))))
    listing = discover(resolver(nameserver), NAMES, 1)
    assert listing.peers == (peer(0),)
    assert listing.unexpected_names == tuple(sorted(unexpected_names))


def test_a_silent_server_is_named_in_the_error(nameserver: Nameserver) -> None:
    """No pod is listed, and a person reads which server is silent."""
    nameserver.behave(Behaviour.SILENT)
    listing = discover(resolver_of(address_of(nameserver), query_limit_s=SHORT_S), NAMES, 3)
    assert listing.peers == ()
    assert listing.error == f"the name server {nameserver.address} does not answer"


def test_a_failing_server_is_named_with_its_error(nameserver: Nameserver) -> None:
    """SERVFAIL is not an answer; NXDOMAIN is one."""
    nameserver.behave(Behaviour.FAIL)
    assert discover(resolver(nameserver), NAMES, 3).error == f"the name server {nameserver.address} answers SERVFAIL"


def test_a_server_that_is_not_running_is_an_error() -> None:
    """The port is closed; on loopback that shows immediately, or after the limit."""
    with Nameserver(Zone()) as stopped:
        where = address_of(stopped)
    listing = discover(resolver_of(where, query_limit_s=SHORT_S), NAMES, 3)
    assert listing.peers == ()
    assert f"the name server {where}" in listing.error


@contextmanager
def answering(reply: bytes) -> Iterator[Address]:
    """A UDP socket that answers everything with the same bytes."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.05)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    _, client = server.recvfrom(4096)
                except TimeoutError:
                    continue
                server.sendto(reply, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address("127.0.0.1", server.getsockname()[1])
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(
    "reply", [b"", b"\x00", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x12\x34\x81\x80" + b"\xff" * 60]
)
def test_a_server_that_does_not_speak_dns_is_an_error(reply: bytes) -> None:
    """No reply makes `discover` raise."""
    with answering(reply) as where:
        listing = discover(resolver_of(where, query_limit_s=SHORT_S), NAMES, 3)
    assert listing.peers == ()
    assert f"the name server {where}" in listing.error


def test_the_next_server_is_queried_when_one_fails(nameserver: Nameserver) -> None:
    """The first usable answer counts; when none is usable, the error names every server."""
    with answering(b"") as broken:
        found = discover(resolver_of(broken, address_of(nameserver), query_limit_s=SHORT_S), NAMES, 12)
        assert len(found.peers) == 12
        nameserver.behave(Behaviour.FAIL)
        with pytest.raises(NoAnswer, match=r"cannot be queried.*; .*SERVFAIL"):
            resolver_of(broken, address_of(nameserver), query_limit_s=SHORT_S).ask("x.", "A")


def test_ten_pods_fit_into_one_udp_answer() -> None:
    """A network that lets only UDP through serves a small cluster: the query allows 1232 bytes."""
    with Nameserver(Zone(pods=tuple(pod(ordinal) for ordinal in range(10)))) as nameserver:
        nameserver.behave(Behaviour.NO_TCP)
        listing = discover(resolver(nameserver), NAMES, 10)
        assert (len(listing.peers), listing.error) == (10, "")
        assert {question.transport for question in nameserver.questions} == {"udp"}


def test_a_truncated_answer_without_tcp_is_named(nameserver: Nameserver) -> None:
    """UDP answers, so the name server runs: the error names its TCP port."""
    nameserver.publish(Zone(pods=tuple(pod(ordinal) for ordinal in range(60))))
    nameserver.behave(Behaviour.NO_TCP)
    listing = discover(resolver(nameserver), NAMES, 60)
    assert (listing.peers, listing.truncated) == ((), True)
    assert listing.error.startswith(f"the answer of the name server {nameserver.address} does not fit into UDP")
    assert f"its TCP port {nameserver.port} gives none" in listing.error


@pytest.mark.parametrize("srv", [True, False], ids=["with SRV", "without SRV"])
def test_pods_that_are_listed_by_address_are_noticed(nameserver: Nameserver, srv: bool) -> None:
    """The DNS names a pod after its address where the serviceName of its StatefulSet is another Service: CoreDNS knows
    such a pod as `10-0-0-1.redis-service.…`.
    """
    pods = (Pod(name="10-0-0-1", addresses=("10.0.0.1",)), Pod(name="fd00--2", addresses=("fd00::2",)))
    nameserver.publish(Zone(pods=pods, srv=srv))
    listing = discover(resolver(nameserver), NAMES, 2)
    assert (listing.peers, listing.nameless, listing.unexpected_names) == ((), True, ())


def test_a_hundred_pods_are_listed_whole() -> None:
    """The answer is too big for a UDP packet and is fetched by TCP."""
    with Nameserver(Zone(pods=tuple(pod(ordinal) for ordinal in range(100)))) as nameserver:
        assert len(discover(resolver(nameserver), NAMES, 100).peers) == 100
        assert "tcp" in {question.transport for question in nameserver.questions}
