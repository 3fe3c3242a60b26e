"""A small DNS server on loopback: UDP and TCP on one port, with the records of a headless Service in cluster DNS.

with Nameserver(Zone(pods=(Pod(name="redis-app-0", addresses=("127.1.2.3",)),))) as nameserver:
    nameserver.address                                 # "127.0.0.1:40123", as BOOTSTRAP_NAMESERVER takes it
    nameserver.publish(replace(nameserver.zone, pods=()))
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from bootstrap.errors import Misconfigured
from bootstrap.local.zone import Pod, Zone

__all__ = ["Behaviour", "Nameserver", "Pod", "Question", "Zone"]

_HEADER_BYTES = 12
_PLAIN_UDP_BYTES = 512
"""The limit of a UDP response (RFC 1035) for a client that does not announce a larger one by EDNS."""
_UDP_BYTES_MAX = 4096
_TCP_BYTES_MAX = 65535
_CONNECTIONS_MAX = 100
_SEND_TIMEOUT_S = 1.0
_QUESTIONS_KEPT = 10_000
_BIND_TRIES = 20


class Behaviour(Enum):
    """How the server treats every query."""

    ANSWER = "answer"
    SILENT = "silent"
    """Read queries and send no response."""
    FAIL = "fail"
    """Respond with SERVFAIL."""
    NO_TCP = "no tcp"
    """Answer by UDP alone: close every TCP connection."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question as it arrived: the name in its original spelling, the record type's name, and `udp` or `tcp`."""

    name: str
    kind: str
    transport: str


class Nameserver:
    """Serves one zone from a thread of its own until `stop`. Every method may be called from any thread."""

    def __init__(self, zone: Zone, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Bind UDP and TCP to the same `port` (0: a free one). Raises Misconfigured when that is not possible."""
        self._zone = zone
        self._behaviour = Behaviour.ANSWER
        self._questions: deque[Question] = deque(maxlen=_QUESTIONS_KEPT)
        self._lock = threading.Lock()
        self._udp, self._tcp = _bind(host, port)
        # Kept apart from the sockets: the address of a stopped server can still be read.
        self._host, self._port = host, int(self._udp.getsockname()[1])
        self._wake, self._woken = socket.socketpair()
        # Ordered by last use: at the limit, the connection that was idle longest is closed.
        self._connections: OrderedDict[socket.socket, bytearray] = OrderedDict()
        self._selector = selectors.DefaultSelector()
        for listening in (self._udp, self._tcp, self._woken):
            self._selector.register(listening, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="nameserver", daemon=True)

    def start(self) -> Self:
        """Begin to respond, also to queries that arrived since the constructor bound the sockets."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread and close every socket. A second call does nothing."""
        if self._thread.is_alive():
            self._wake.send(b"x")
            self._thread.join()
        self._selector.close()
        for each in (self._udp, self._tcp, self._wake, self._woken, *self._connections):
            each.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`ip:port`, the form of BOOTSTRAP_NAMESERVER."""
        return f"{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """The IP address that the server is bound to."""
        return self._host

    @property
    def port(self) -> int:
        """The port, the same for UDP and TCP."""
        return self._port

    @property
    def zone(self) -> Zone:
        """The zone that is served now."""
        return self._zone

    def publish(self, zone: Zone) -> None:
        """Serve `zone` from the next query on. A response never mixes two zones."""
        self._zone = zone

    def behave(self, behaviour: Behaviour) -> None:
        """Treat every query this way, from the next one on."""
        self._behaviour = behaviour

    @property
    def questions(self) -> tuple[Question, ...]:
        """The last ten thousand questions, oldest first."""
        with self._lock:
            return tuple(self._questions)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                ready = key.fileobj
                if ready is self._woken:
                    return
                # A client that disconnected must not end the service for the others.
                with contextlib.suppress(OSError):
                    if ready is self._udp:
                        self._serve_udp()
                    elif ready is self._tcp:
                        self._accept()
                    elif isinstance(ready, socket.socket):
                        self._serve_connection(ready)

    def _serve_udp(self) -> None:
        wire, client = self._udp.recvfrom(_TCP_BYTES_MAX)
        reply = self._reply(wire, "udp")
        if reply is not None:
            self._udp.sendto(reply, client)

    def _accept(self) -> None:
        connection, _ = self._tcp.accept()
        if self._behaviour is Behaviour.NO_TCP:
            connection.close()
            return
        connection.settimeout(_SEND_TIMEOUT_S)
        self._connections[connection] = bytearray()
        self._selector.register(connection, selectors.EVENT_READ)
        if len(self._connections) > _CONNECTIONS_MAX:
            self._drop(next(iter(self._connections)))

    def _serve_connection(self, connection: socket.socket) -> None:
        if connection not in self._connections:
            return  # closed at the limit after `select` had reported it as readable
        self._connections.move_to_end(connection)
        try:
            received = connection.recv(_TCP_BYTES_MAX)
            if not received:
                self._drop(connection)
                return
            self._connections[connection] += received
            for wire in _frames(self._connections[connection]):
                reply = self._reply(wire, "tcp")
                if reply is not None:
                    connection.sendall(struct.pack("!H", len(reply)) + reply)
        except OSError:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        del self._connections[connection]
        self._selector.unregister(connection)
        connection.close()

    def _reply(self, wire: bytes, transport: str) -> bytes | None:
        """The response to one query; None when there is none to send."""
        zone, behaviour = self._zone, self._behaviour
        # Too short for a question, or a response: two servers that answer responses would never stop.
        if len(wire) < _HEADER_BYTES or wire[2] & 0x80:
            return None
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            return None if behaviour is Behaviour.SILENT else _format_error(wire)
        with self._lock:
            for each in query.question:
                self._questions.append(Question(each.name.to_text(), dns.rdatatype.to_text(each.rdtype), transport))
        if behaviour is Behaviour.SILENT:
            return None
        if behaviour is Behaviour.FAIL:
            response = dns.message.make_response(query, recursion_available=True)
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        return _fitted(zone.answer(query), query, transport)


def _bind(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on one port. Several tries: a free TCP port may be in use for UDP."""
    last: OSError | None = None
    for _ in range(_BIND_TRIES if port == 0 else 1):
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, port))
            udp.bind((host, tcp.getsockname()[1]))
            tcp.listen(_CONNECTIONS_MAX)
        except OSError as error:
            last = error
            tcp.close()
            udp.close()
        else:
            return udp, tcp
    raise Misconfigured(
        f"the DNS server cannot use {host}:{port}: {last.strerror if last else 'no free port'}"
    ) from last


def _frames(buffer: bytearray) -> list[bytes]:
    """Remove every complete length-prefixed message (RFC 1035 4.2.2) from `buffer`; an incomplete one stays in it."""
    frames: list[bytes] = []
    while len(buffer) >= 2 and len(buffer) >= 2 + (size := int.from_bytes(buffer[:2], "big")):
        frames.append(bytes(buffer[2 : 2 + size]))
        del buffer[: 2 + size]
    return frames


def _fitted(response: dns.message.Message, query: dns.message.Message, transport: str) -> bytes:
    """The response within the client's limit. A larger one is marked truncated in UDP; the client retries by TCP."""
    limit = _TCP_BYTES_MAX
    if transport == "udp":
        limit = min(max(_PLAIN_UDP_BYTES, query.payload if query.edns >= 0 else 0), _UDP_BYTES_MAX)
    with contextlib.suppress(dns.exception.TooBig):
        return response.to_wire(max_size=limit)
    if transport == "tcp":
        response.additional.clear()
        with contextlib.suppress(dns.exception.TooBig):
            return response.to_wire(max_size=limit)
    # Without any record: a client that ignores the mark then finds no pods, not a part of them.
    empty = dns.message.make_response(query, recursion_available=True)
    empty.flags |= dns.flags.AA | dns.flags.TC
    return empty.to_wire()


def _format_error(wire: bytes) -> bytes:
    """A FORMERR response to a query of which only the header can be parsed."""
    response = dns.message.QueryMessage(id=int.from_bytes(wire[:2], "big"))
    response.flags = dns.flags.Flag(dns.flags.QR)
    response.set_rcode(dns.rcode.FORMERR)
    return response.to_wire()
