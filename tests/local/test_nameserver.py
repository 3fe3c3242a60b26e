"""The DNS server answers as cluster DNS does, over real sockets, to dnspython's own resolver."""

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
    """So many pods, numbered and addressed alike."""
    return tuple(Pod(name=f"redis-app-{each}", addresses=(f"127.9.{third}.{each + 1}",)) for each in range(count))


@pytest.fixture
def served() -> Iterator[Nameserver]:
    """Two pods: the second has IPv6 too and a port of its own."""
    two = (pods(1)[0], Pod(name="redis-app-1", addresses=("127.9.1.2", "fd00::2"), port=7001))
    with Nameserver(Zone(pods=two)) as nameserver:
        yield nameserver


def resolver(nameserver: Nameserver) -> dns.resolver.Resolver:
    """A resolver that asks this server and no other."""
    made = dns.resolver.Resolver(configure=False)
    made.nameservers = [nameserver.host]
    made.port = nameserver.port
    made.lifetime = 10
    return made


def lookup(nameserver: Nameserver, name: str, kind: str) -> set[str]:
    """The records of an answer, as text."""
    return {record.to_text() for record in resolver(nameserver).resolve(name, kind)}


def udp(nameserver: Nameserver, query: dns.message.Message) -> dns.message.Message:
    """The response to one query, as it comes by UDP."""
    return dns.query.udp(query, nameserver.host, port=nameserver.port, timeout=10)


def test_srv_names_every_pod_with_its_port(served: Nameserver) -> None:
    """SRV is where the peers and their ports come from."""
    assert lookup(served, SRV, "SRV") == {f"0 50 6379 {FIRST}", f"0 50 7001 redis-app-1.{SERVICE}"}


def test_srv_answer_brings_the_addresses_of_its_targets(served: Nameserver) -> None:
    """The additional section saves a lookup for each pod."""
    response = udp(served, dns.message.make_query(SRV, "SRV"))
    brought = {(str(rrset.name), record.to_text()) for rrset in response.additional for record in rrset}
    assert brought == {
        (FIRST, "127.9.1.1"),
        (f"redis-app-1.{SERVICE}", "127.9.1.2"),
        (f"redis-app-1.{SERVICE}", "fd00::2"),
    }


def test_pod_name_has_its_own_addresses(served: Nameserver) -> None:
    """A pod is found by its name, in both address families."""
    assert lookup(served, f"redis-app-1.{SERVICE}", "A") == {"127.9.1.2"}
    assert lookup(served, f"redis-app-1.{SERVICE}", "AAAA") == {"fd00::2"}


def test_service_name_has_the_addresses_of_all_pods(served: Nameserver) -> None:
    """A headless Service's own name stands for all of its pods."""
    assert lookup(served, SERVICE, "A") == {"127.9.1.1", "127.9.1.2"}


def test_names_are_found_in_any_case(served: Nameserver) -> None:
    """DNS names have no case."""
    assert lookup(served, FIRST.upper(), "A") == {"127.9.1.1"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(FIRST, "AAAA"), (FIRST, "SRV"), (f"_tcp.{SERVICE}", "A"), ("default.svc.cluster.local.", "A")],
)
def test_existing_name_without_such_a_record_is_no_data(served: Nameserver, name: str, kind: str) -> None:
    """Another type, or a name that only has names below it: NOERROR, no answer, an SOA for negative caching."""
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
    """NXDOMAIN, with the SOA of whoever knows that."""
    response = udp(served, dns.message.make_query(name, "A"))
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert [(str(rrset.name), rrset.rdtype) for rrset in response.authority] == [(owner, dns.rdatatype.SOA)]


def test_service_without_pods_does_not_exist() -> None:
    """So it is in CoreDNS: a headless Service is its endpoints."""
    with Nameserver(Zone()) as nameserver:
        for name, kind in ((SRV, "SRV"), (SERVICE, "A")):
            with pytest.raises(dns.resolver.NXDOMAIN):
                lookup(nameserver, name, kind)


def test_hundred_pods_are_cut_in_udp_and_whole_in_tcp() -> None:
    """Too much for UDP: the mark, no record at all, and the resolver comes back by TCP."""
    with Nameserver(Zone(pods=pods(100))) as nameserver:
        cut = udp(nameserver, dns.message.make_query(SRV, "SRV"))
        assert cut.flags & dns.flags.TC
        assert not cut.answer
        assert len(lookup(nameserver, SRV, "SRV")) == 100
        assert len(lookup(nameserver, SERVICE, "A")) == 100
        assert {question.transport for question in nameserver.questions} == {"udp", "tcp"}


def test_client_that_takes_large_packets_gets_one() -> None:
    """EDNS says how much a client takes: within it, no TCP is needed."""
    query = dns.message.make_query(SRV, "SRV", use_edns=0, payload=4096)
    with Nameserver(Zone(pods=pods(12))) as nameserver:
        response = udp(nameserver, query)
        assert not response.flags & dns.flags.TC
        assert len(response.answer[0]) == 12
        assert udp(nameserver, dns.message.make_query(SRV, "SRV")).flags & dns.flags.TC


def test_more_pods_than_tcp_can_carry_are_marked_as_cut() -> None:
    """A DNS message ends at 65535 bytes, whoever carries it: the additional section goes first, then all of it."""
    with Nameserver(Zone(pods=pods(250))) as nameserver:

        def answered(count: int) -> tuple[int, int, bool]:
            nameserver.publish(Zone(pods=tuple(replace(pods(1)[0], name=f"redis-app-{each}") for each in range(count))))
            query = dns.message.make_query(SRV, "SRV")
            response = dns.query.tcp(query, nameserver.host, port=nameserver.port, timeout=20)
            cut = bool(response.flags & dns.flags.TC)
            return sum(len(rrset) for rrset in response.answer), len(response.additional), cut

        assert answered(600) == (600, 600, False)
        assert answered(800) == (800, 0, False)
        assert answered(1000) == (0, 0, True)


def test_published_records_are_in_the_next_answer(served: Nameserver) -> None:
    """Pods move, come and go while the server runs."""
    served.publish(replace(served.zone, pods=pods(3, third=7)))
    assert lookup(served, SERVICE, "A") == {"127.9.7.1", "127.9.7.2", "127.9.7.3"}


def test_answer_never_mixes_two_zones(served: Nameserver) -> None:
    """While another thread publishes, each answer is from before or from after."""
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


def test_pod_in_the_middle_of_a_move_has_two_answers(served: Nameserver) -> None:
    """DNS may show the old and the new address of a pod, and the same SRV record but once."""
    served.publish(replace(served.zone, pods=(*pods(1, third=1), *pods(1, third=2))))
    assert lookup(served, FIRST, "A") == {"127.9.1.1", "127.9.2.1"}
    assert lookup(served, SRV, "SRV") == {f"0 50 6379 {FIRST}"}


def test_pod_without_an_address_is_only_a_target(served: Nameserver) -> None:
    """SRV may be ahead of A."""
    served.publish(replace(served.zone, pods=(Pod(name="redis-app-0", addresses=()),)))
    assert lookup(served, SRV, "SRV") == {f"0 100 6379 {FIRST}"}
    with pytest.raises(dns.resolver.NoAnswer):
        lookup(served, FIRST, "A")


def test_additional_section_can_be_left_out(served: Nameserver) -> None:
    """Not every DNS server sends one; the addresses are still there to be asked for."""
    served.publish(replace(served.zone, additional=False))
    assert not udp(served, dns.message.make_query(SRV, "SRV")).additional
    assert lookup(served, FIRST, "A") == {"127.9.1.1"}


def test_srv_records_can_be_left_out(served: Nameserver) -> None:
    """A Service whose port has no name has no SRV records, and its pods still have addresses."""
    served.publish(replace(served.zone, srv=False))
    with pytest.raises(dns.resolver.NXDOMAIN):
        lookup(served, SRV, "SRV")
    assert lookup(served, FIRST, "A") == {"127.9.1.1"}


def test_silent_server_never_answers_until_it_speaks_again(served: Nameserver) -> None:
    """A DNS server that hangs, and comes back."""
    served.behave(Behaviour.SILENT)
    with pytest.raises(dns.exception.Timeout):
        dns.query.udp(dns.message.make_query(FIRST, "A"), served.host, port=served.port, timeout=0.2)
    with pytest.raises(dns.exception.Timeout):
        dns.query.tcp(dns.message.make_query(FIRST, "A"), served.host, port=served.port, timeout=0.2)
    served.behave(Behaviour.ANSWER)
    assert lookup(served, FIRST, "A") == {"127.9.1.1"}


def test_failing_server_says_so(served: Nameserver) -> None:
    """SERVFAIL, without a record."""
    served.behave(Behaviour.FAIL)
    response = udp(served, dns.message.make_query(FIRST, "A"))
    assert (response.rcode(), response.answer) == (dns.rcode.SERVFAIL, [])


def test_questions_are_remembered_as_they_were_spelled(served: Nameserver) -> None:
    """A test can see what a client really asked."""
    lookup(served, FIRST, "A")
    udp(served, dns.message.make_query("Relative", "SRV"))
    assert served.questions == (Question(FIRST, "A", "udp"), Question("Relative.", "SRV", "udp"))


def test_two_questions_at_once_are_a_format_error(served: Nameserver) -> None:
    """What no client asks and no server answers."""
    query = dns.message.make_query(FIRST, "A")
    query.question.extend(dns.message.make_query(FIRST, "AAAA").question)
    assert udp(served, query).rcode() == dns.rcode.FORMERR


def test_update_is_not_implemented(served: Nameserver) -> None:
    """The zone changes by `publish` alone."""
    query = dns.message.make_query(FIRST, "A")
    query.set_opcode(dns.opcode.NOTIFY)
    assert udp(served, query).rcode() == dns.rcode.NOTIMP


def test_garbage_by_udp_never_ends_it(served: Nameserver) -> None:
    """Random bytes, and queries with a byte changed or their end missing."""
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
    """A header that asks one question, and no question: the client hears it rather than waiting."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, 0), (served.host, served.port))
        response = dns.message.from_wire(client.recv(512))
    assert (response.id, response.rcode()) == (0x1234, dns.rcode.FORMERR)


def test_response_is_not_answered(served: Nameserver) -> None:
    """Two servers that answer each other's answers never stop."""
    response = dns.message.make_response(dns.message.make_query(FIRST, "A"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(response.to_wire(), (served.host, served.port))
        asked = dns.message.make_query(SERVICE, "A")
        client.sendto(asked.to_wire(), (served.host, served.port))
        assert dns.message.from_wire(client.recv(512)).id == asked.id


def test_connection_answers_queries_in_pieces_and_in_a_row(served: Nameserver) -> None:
    """TCP has no packets: a query may come byte by byte, or two in one."""
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


def test_idle_and_broken_connections_keep_nobody_out(served: Nameserver) -> None:
    """More open connections than it keeps, half of them with garbage, and it still answers by TCP."""
    clients = [socket.create_connection((served.host, served.port), timeout=10) for _ in range(150)]
    try:
        for client in clients[::2]:
            client.sendall(b"\x00\x05hello\xff\xff")
        answer = dns.query.tcp(dns.message.make_query(FIRST, "A"), served.host, port=served.port, timeout=10)
        assert answer.answer
    finally:
        for client in clients:
            client.close()


def test_stopped_server_gives_its_port_back() -> None:
    """The port is free for UDP and TCP at once, and stopping again does nothing."""
    with Nameserver(Zone()) as nameserver:
        port = nameserver.port
        with pytest.raises(Misconfigured, match=f"127.0.0.1:{port}"):
            Nameserver(Zone(), port=port)
    nameserver.stop()
    with Nameserver(Zone(), port=port) as again:
        assert again.address == f"127.0.0.1:{port}"
