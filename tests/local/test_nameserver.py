"""The DNS server responds like cluster DNS, over real sockets, to dnspython's own resolver."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace

import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver
import pytest

from bootstrap.errors import Misconfigured
from bootstrap.local.nameserver import Behaviour, Nameserver, Question
from bootstrap.local.zone import Pod, Zone

SRV = "_redis-port._tcp.redis-service.default.svc.cluster.local."
SERVICE = "redis-service.default.svc.cluster.local."
FIRST = f"redis-app-0.{SERVICE}"


def pods(count: int, third: int = 1) -> tuple[Pod, ...]:
    """`count` pods with names and addresses by number."""
    return tuple(Pod(name=f"redis-app-{each}", addresses=(f"127.9.{third}.{each + 1}",)) for each in range(count))


@pytest.fixture
def served() -> Iterator[Nameserver]:
    """Two pods. The second one has an IPv6 address, too, and another port."""
    two = (pods(1)[0], Pod(name="redis-app-1", addresses=("127.9.1.2", "fd00::2"), port=7001))
    with Nameserver(Zone(pods=two)) as nameserver:
        yield nameserver


def resolver(nameserver: Nameserver) -> dns.resolver.Resolver:
    """A resolver that queries only this server."""
    made = dns.resolver.Resolver(configure=False)
    made.nameservers = [nameserver.host]
    made.port = nameserver.port
    made.lifetime = 10
    return made


def lookup(nameserver: Nameserver, name: str, kind: str) -> set[str]:
    """The records of an answer, as text."""
    return {record.to_text() for record in resolver(nameserver).resolve(name, kind)}


def udp(nameserver: Nameserver, query: dns.message.Message) -> dns.message.Message:
    """The response to one query by UDP."""
    return dns.query.udp(query, nameserver.host, port=nameserver.port, timeout=10)


def test_srv_names_every_pod_with_its_port(served: Nameserver) -> None:
    """Clients find the peers and their ports in the SRV records."""
    assert lookup(served, SRV, "SRV") == {f"0 50 6379 {FIRST}", f"0 50 7001 redis-app-1.{SERVICE}"}


def test_srv_response_carries_the_addresses_of_its_targets(served: Nameserver) -> None:
    """The additional section saves a lookup for each pod."""
    response = udp(served, dns.message.make_query(SRV, "SRV"))
    brought = {(str(rrset.name), record.to_text()) for rrset in response.additional for record in rrset}
    assert brought == {
        (FIRST, "127.9.1.1"),
        (f"redis-app-1.{SERVICE}", "127.9.1.2"),
        (f"redis-app-1.{SERVICE}", "fd00::2"),
    }


def test_pod_name_has_its_own_addresses(served: Nameserver) -> None:
    """In both address families."""
    assert lookup(served, f"redis-app-1.{SERVICE}", "A") == {"127.9.1.2"}
    assert lookup(served, f"redis-app-1.{SERVICE}", "AAAA") == {"fd00::2"}


def test_service_name_has_the_addresses_of_all_pods(served: Nameserver) -> None:
    """The name of a headless Service has one record per pod."""
    assert lookup(served, SERVICE, "A") == {"127.9.1.1", "127.9.1.2"}


def test_names_are_found_in_any_case(served: Nameserver) -> None:
    """DNS names are not case-sensitive."""
    assert lookup(served, FIRST.upper(), "A") == {"127.9.1.1"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(FIRST, "AAAA"), (FIRST, "SRV"), (f"_tcp.{SERVICE}", "A"), ("default.svc.cluster.local.", "A")],
)
def test_existing_name_without_such_a_record_is_no_data(served: Nameserver, name: str, kind: str) -> None:
    """Another type, or a name with only names below it: NOERROR, no answer, an SOA record for negative caching."""
    response = udp(served, dns.message.make_query(name, kind))
    assert response.rcode() == dns.rcode.NOERROR
    assert not response.answer
    assert [rrset.rdtype for rrset in response.authority] == [dns.rdatatype.SOA]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        (f"redis-app-9.{SERVICE}", "cluster.local."),
        ("other.default.svc.cluster.local.", "cluster.local."),
        (f"_other._tcp.{SERVICE}", "cluster.local."),
        (f"below.{FIRST}", "cluster.local."),
        ("redis-service.default.svc.elsewhere.", "."),
    ],
)
def test_unknown_name_does_not_exist(served: Nameserver, name: str, owner: str) -> None:
    """NXDOMAIN, with the SOA record of the domain, or of the root for names outside of it."""
    response = udp(served, dns.message.make_query(name, "A"))
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert [(str(rrset.name), rrset.rdtype) for rrset in response.authority] == [(owner, dns.rdatatype.SOA)]


def test_service_without_pods_does_not_exist() -> None:
    """As in CoreDNS: a headless Service consists of its endpoints."""
    with Nameserver(Zone()) as nameserver:
        for name, kind in ((SRV, "SRV"), (SERVICE, "A")):
            with pytest.raises(dns.resolver.NXDOMAIN):
                lookup(nameserver, name, kind)


def test_response_with_a_hundred_pods_is_truncated_in_udp_and_complete_in_tcp() -> None:
    """The UDP response has the TC flag and no record; the resolver retries by TCP."""
    with Nameserver(Zone(pods=pods(100))) as nameserver:
        truncated = udp(nameserver, dns.message.make_query(SRV, "SRV"))
        assert truncated.flags & dns.flags.TC
        assert not truncated.answer
        assert len(lookup(nameserver, SRV, "SRV")) == 100
        assert len(lookup(nameserver, SERVICE, "A")) == 100
        assert {question.transport for question in nameserver.questions} == {"udp", "tcp"}


def test_client_that_accepts_large_packets_gets_one() -> None:
    """EDNS announces the size that a client accepts. A response within it needs no TCP."""
    query = dns.message.make_query(SRV, "SRV", use_edns=0, payload=4096)
    with Nameserver(Zone(pods=pods(12))) as nameserver:
        response = udp(nameserver, query)
        assert not response.flags & dns.flags.TC
        assert len(response.answer[0]) == 12
        assert udp(nameserver, dns.message.make_query(SRV, "SRV")).flags & dns.flags.TC


def test_response_too_large_for_tcp_is_truncated() -> None:
    """A DNS message has at most 65535 bytes: first the additional section is left out, then every record."""
    with Nameserver(Zone(pods=pods(250))) as nameserver:

        def answered(count: int) -> tuple[int, int, bool]:
            nameserver.publish(Zone(pods=tuple(replace(pods(1)[0], name=f"redis-app-{each}") for each in range(count))))
            query = dns.message.make_query(SRV, "SRV")
            response = dns.query.tcp(query, nameserver.host, port=nameserver.port, timeout=20)
            truncated = bool(response.flags & dns.flags.TC)
            return sum(len(rrset) for rrset in response.answer), len(response.additional), truncated

        assert answered(600) == (600, 600, False)
        assert answered(800) == (800, 0, False)
        assert answered(1000) == (0, 0, True)


def test_published_records_are_in_the_next_answer(served: Nameserver) -> None:
    """Pods appear, move and disappear while the server runs."""
    served.publish(replace(served.zone, pods=pods(3, third=7)))
    assert lookup(served, SERVICE, "A") == {"127.9.7.1", "127.9.7.2", "127.9.7.3"}


def test_answer_never_mixes_two_zones(served: Nameserver) -> None:
    """While another thread publishes, each answer is from one zone or the other."""
    zones = [replace(served.zone, pods=pods(8, third=third)) for third in (1, 2)]
    served.publish(zones[0])
    done = threading.Event()

    def publish() -> None:
        while not done.is_set():
            for zone in zones:
                served.publish(replace(zone))

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        seen = [lookup(served, SERVICE, "A") for _ in range(50)]
    finally:
        done.set()
        publisher.join()
    assert all(len({address.split(".")[2] for address in addresses}) == 1 for addresses in seen)
    assert all(len(addresses) == 8 for addresses in seen)


def test_pod_that_is_moving_has_two_addresses(served: Nameserver) -> None:
    """DNS may list the old and the new address of a pod; the equal SRV records are one."""
    served.publish(replace(served.zone, pods=(*pods(1, third=1), *pods(1, third=2))))
    assert lookup(served, FIRST, "A") == {"127.9.1.1", "127.9.2.1"}
    assert lookup(served, SRV, "SRV") == {f"0 50 6379 {FIRST}"}


def test_pod_without_an_address_is_only_a_target(served: Nameserver) -> None:
    """SRV records may appear before A records."""
    served.publish(replace(served.zone, pods=(Pod(name="redis-app-0", addresses=()),)))
    assert lookup(served, SRV, "SRV") == {f"0 100 6379 {FIRST}"}
    with pytest.raises(dns.resolver.NoAnswer):
        lookup(served, FIRST, "A")


def test_additional_section_can_be_left_out(served: Nameserver) -> None:
    """Not every DNS server sends one; separate queries still find the addresses."""
    served.publish(replace(served.zone, additional=False))
    assert not udp(served, dns.message.make_query(SRV, "SRV")).additional
    assert lookup(served, FIRST, "A") == {"127.9.1.1"}


def test_srv_records_can_be_left_out(served: Nameserver) -> None:
    """A Service whose port has no name has no SRV records, but its pods have addresses."""
    served.publish(replace(served.zone, srv=False))
    with pytest.raises(dns.resolver.NXDOMAIN):
        lookup(served, SRV, "SRV")
    assert lookup(served, FIRST, "A") == {"127.9.1.1"}


def test_silent_server_does_not_respond_until_its_behaviour_changes(served: Nameserver) -> None:
    """Like a DNS server that hangs and recovers."""
    served.behave(Behaviour.SILENT)
    with pytest.raises(dns.exception.Timeout):
        dns.query.udp(dns.message.make_query(FIRST, "A"), served.host, port=served.port, timeout=0.2)
    with pytest.raises(dns.exception.Timeout):
        dns.query.tcp(dns.message.make_query(FIRST, "A"), served.host, port=served.port, timeout=0.2)
    served.behave(Behaviour.ANSWER)
    assert lookup(served, FIRST, "A") == {"127.9.1.1"}


def test_failing_server_responds_with_servfail(served: Nameserver) -> None:
    """The response has no record."""
    served.behave(Behaviour.FAIL)
    response = udp(served, dns.message.make_query(FIRST, "A"))
    assert (response.rcode(), response.answer) == (dns.rcode.SERVFAIL, [])


def test_questions_are_recorded_in_their_original_spelling(served: Nameserver) -> None:
    """A test can check the exact queries of a client."""
    lookup(served, FIRST, "A")
    udp(served, dns.message.make_query("Relative", "SRV"))
    assert served.questions == (Question(FIRST, "A", "udp"), Question("Relative.", "SRV", "udp"))


def test_query_with_two_questions_is_a_format_error(served: Nameserver) -> None:
    """No client sends such a query, and no server answers one."""
    query = dns.message.make_query(FIRST, "A")
    query.question.extend(dns.message.make_query(FIRST, "AAAA").question)
    assert udp(served, query).rcode() == dns.rcode.FORMERR


def test_other_operation_than_a_query_is_not_implemented(served: Nameserver) -> None:
    """Only `publish` changes the zone."""
    query = dns.message.make_query(FIRST, "A")
    query.set_opcode(dns.opcode.NOTIFY)
    assert udp(served, query).rcode() == dns.rcode.NOTIMP


def test_garbage_by_udp_does_not_end_the_server(served: Nameserver) -> None:
    """Random bytes, and queries with a changed byte or without their end."""
    chance = random.Random(7)
    good = dns.message.make_query(SRV, "SRV", use_edns=0).to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(500):
            changed = bytearray(good)
            changed[chance.randrange(len(good))] = chance.randrange(256)
            for packet in (chance.randbytes(chance.randrange(80)), bytes(changed), good[: chance.randrange(len(good))]):
                client.sendto(packet, (served.host, served.port))
    assert lookup(served, FIRST, "A") == {"127.9.1.1"}


def test_unreadable_query_is_a_format_error(served: Nameserver) -> None:
    """The header announces one question and none follows. The client gets a response and need not wait."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, 0), (served.host, served.port))
        response = dns.message.from_wire(client.recv(512))
    assert (response.id, response.rcode()) == (0x1234, dns.rcode.FORMERR)


def test_response_is_not_answered(served: Nameserver) -> None:
    """Two servers that answer each other's responses would never stop."""
    response = dns.message.make_response(dns.message.make_query(FIRST, "A"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(response.to_wire(), (served.host, served.port))
        query = dns.message.make_query(SERVICE, "A")
        client.sendto(query.to_wire(), (served.host, served.port))
        assert dns.message.from_wire(client.recv(512)).id == query.id


def test_connection_answers_queries_in_pieces_and_in_a_row(served: Nameserver) -> None:
    """TCP has no message boundaries: a query may arrive byte by byte, or two together."""
    wire = dns.message.make_query(FIRST, "A").to_wire()
    framed = struct.pack("!H", len(wire)) + wire
    with socket.create_connection((served.host, served.port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed:
            client.sendall(bytes([byte]))
        client.sendall(framed + framed)
        stream = client.makefile("rb")
        for _ in range(3):
            (size,) = struct.unpack("!H", stream.read(2))
            assert dns.message.from_wire(stream.read(size)).answer


def test_idle_and_broken_connections_do_not_block_others(served: Nameserver) -> None:
    """More connections than the limit, half of them with garbage: it still responds by TCP."""
    clients = [socket.create_connection((served.host, served.port), timeout=10) for _ in range(150)]
    try:
        for client in clients[::2]:
            client.sendall(b"\x00\x05hello\xff\xff")
        answer = dns.query.tcp(dns.message.make_query(FIRST, "A"), served.host, port=served.port, timeout=10)
        assert answer.answer
    finally:
        for client in clients:
            client.close()


def test_stopped_server_frees_its_port() -> None:
    """The port is free immediately for UDP and TCP, and a second stop does nothing."""
    with Nameserver(Zone()) as nameserver:
        port = nameserver.port
        with pytest.raises(Misconfigured, match=f"127.0.0.1:{port}"):
            Nameserver(Zone(), port=port)
    nameserver.stop()
    with Nameserver(Zone(), port=port) as again:
        assert again.address == f"127.0.0.1:{port}"
