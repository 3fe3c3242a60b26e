"""Ask and tell Redis nodes, many at once. Reads never fail a run: a node that does not answer is a fact about it.
A write is tried once; whether it took effect is seen by looking again.

redis-py's connections carry the protocol, AUTH and TLS; its clients are not used, since they retry and parse replies by
themselves. RESP2 is asked for, which every server from Redis 5.0 on speaks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar, assert_never

from redis.connection import Connection, SSLConnection
from redis.exceptions import ResponseError

from bootstrap import wire
from bootstrap.errors import WireError
from bootstrap.model import Absence, Address, Member, Node, Replication
from bootstrap.silence import NotANode, Silence, silence_of, words_of
from bootstrap.steps import AddSlots, Announce, Failover, Forget, Meet, Rejected, Replicate, SetEpoch, SetTimeout, Write

ANSWER_LIMIT_S = 2.0
"""How long one look at one node may take, from connecting to the last byte. A node on the same cluster answers in
milliseconds; one that drips bytes is as good as hung."""
WORKERS_MAX = 64
WORDS_MAX = 200
"""Characters of what a server or a library says that go into a log."""

Command = tuple[str | int, ...]
Answer = TypeVar("Answer")

_LOOK: tuple[Command, ...] = (
    ("CLUSTER", "NODES"),
    ("CLUSTER", "INFO"),
    ("INFO", "replication"),
    ("INFO", "keyspace"),
    ("INFO", "server"),
    ("CONFIG", "GET", "cluster-node-timeout"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to get in: user, password, TLS files. The password is never shown."""

    username: str = ""
    password: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, tls={self.ca_file is not None})"

    def hide(self, text: str) -> str:
        """The text without the password, cut to a readable length: servers and libraries quote what they were sent."""
        for form in {self.password, repr(self.password)[1:-1], ascii(self.password)[1:-1]} if self.password else ():
            text = text.replace(str(form), "…")
        return text[:WORDS_MAX]

    def connection_options(self) -> dict[str, Any]:
        """The options that redis-py takes for them, for a single connection and for a client alike.

        The certificate must be signed by the given authority; its name is not compared, since nodes are reached and
        announced by IP.
        """
        options: dict[str, Any] = {"username": self.username or None, "password": self.password, "protocol": 2}
        if self.ca_file:
            options |= {"ssl_ca_certs": str(self.ca_file), "ssl_cert_reqs": "required", "ssl_check_hostname": False}
        if self.cert_file and self.key_file:
            options |= {"ssl_certfile": str(self.cert_file), "ssl_keyfile": str(self.key_file)}
        return options


class Nodes:
    """Connections to many nodes, kept open between looks, used from a pool of threads. Close it when done."""

    def __init__(self, credentials: Credentials, *, answer_limit_s: float = ANSWER_LIMIT_S) -> None:
        self._credentials = credentials
        self._answer_limit_s = answer_limit_s
        self._open: dict[Address, Connection] = {}
        self._pool = ThreadPoolExecutor(max_workers=WORKERS_MAX, thread_name_prefix="node")

    def close(self) -> None:
        """Ends every connection and thread."""
        for connection in list(self._open.values()):
            _hang_up(connection)
        self._pool.shutdown(wait=True, cancel_futures=True)
        for connection in list(self._open.values()):
            connection.disconnect()

    def look(self, places: Iterable[tuple[str, int, Address]]) -> Mapping[tuple[str, Address], Node | Silence]:
        """One look at every (pod, ordinal, address), all at once. An address may be asked for several pods."""
        places = tuple(places)
        by_address = self._each({address: (_LOOK, _Facts.of) for _, _, address in places})
        return {
            (pod, address): found
            if isinstance(found := by_address[address], Silence)
            else found.node(pod, ordinal, address)
            for pod, ordinal, address in places
        }

    def tell(self, writes: Mapping[Address, Sequence[Write]]) -> Sequence[Rejected]:
        """Sends each node its writes in order, all nodes at once. Returns those not accepted, with the answer."""
        commands = {address: [commands_for(write) for write in told] for address, told in writes.items()}
        calls = {address: (tuple(chain.from_iterable(each)), list) for address, each in commands.items()}
        rejected: list[Rejected] = []
        for address, answer in self._each(calls).items():
            replies = iter(() if isinstance(answer, Silence) else answer)
            for write, words in zip(writes[address], commands[address], strict=True):
                if isinstance(answer, Silence):
                    rejected.append(Rejected(write, f"{answer.why.value} {answer.detail}".strip(), answered=False))
                elif errors := [reply for reply in islice(replies, len(words)) if isinstance(reply, Exception)]:
                    why = (
                        f"{getattr(errors[0], 'status_code', None) or ''} {self._credentials.hide(words_of(errors[0]))}"
                    )
                    rejected.append(Rejected(write, why.strip(), answered=True))
        return rejected

    def _each(
        self, calls: Mapping[Address, tuple[Sequence[Command], Callable[[list[Any]], Answer]]]
    ) -> dict[Address, Answer | Silence]:
        """A conversation with every address at once. One that takes too long is hung up on, and so ends."""
        talks: dict[Address, Future[Answer | Silence]] = {
            address: self._pool.submit(self._converse, address, commands, read)
            for address, (commands, read) in calls.items()
        }
        rounds = 1 + len(talks) // WORKERS_MAX
        wait(talks.values(), timeout=self._answer_limit_s * rounds * 1.5)
        hung = [address for address, talk in talks.items() if not talk.done()]
        for address in hung:
            if connection := self._open.get(address):
                _hang_up(connection)
        answers = {address: talk.result() for address, talk in talks.items()}
        return answers | dict.fromkeys(hung, Silence(Absence.TIMEOUT))

    def _converse(
        self, address: Address, commands: Sequence[Command], read: Callable[[list[Any]], Answer]
    ) -> Answer | Silence:
        """Sends all commands, reads all replies; an error reply is a value among them. No server makes it raise."""
        try:
            connection = self._connection(address)
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return read([_reply(connection) for _ in commands])
        except Exception as error:  # noqa: BLE001 - whatever a stranger on that port makes redis-py raise
            if address in self._open:
                self._open.pop(address).disconnect()
            silence = silence_of(error)
            return replace(silence, detail=self._credentials.hide(silence.detail))

    def _connection(self, address: Address) -> Connection:
        if address not in self._open:
            kind = SSLConnection if self._credentials.ca_file else Connection
            self._open[address] = kind(
                host=address.host,
                port=address.port,
                socket_timeout=self._answer_limit_s,
                socket_connect_timeout=self._answer_limit_s,
                decode_responses=True,
                encoding_errors="replace",
                driver_info=None,
                **self._credentials.connection_options(),
            )
        return self._open[address]


def commands_for(write: Write) -> tuple[Command, ...]:
    """The words that a step is told with, in order."""
    match write:
        case SetTimeout():
            return (("CONFIG", "SET", "cluster-node-timeout", write.timeout_ms),)
        case SetEpoch():
            return (("CLUSTER", "SET-CONFIG-EPOCH", write.epoch),)
        case Meet():
            return (_meet(write.address, write.bus_port),)
        case AddSlots():
            return (("CLUSTER", "ADDSLOTS", *write.slots),)
        case Replicate():
            return (("CLUSTER", "REPLICATE", write.master),)
        case Failover():
            return (("CLUSTER", "FAILOVER", "TAKEOVER" if write.takeover else "FORCE"),)
        case Forget():
            return (("CLUSTER", "FORGET", write.lost),)
        case Announce():
            return tuple(_meet(address, bus_port) for address, bus_port in write.others)
        case _:
            assert_never(write)


def _meet(address: Address, bus_port: int) -> Command:
    return ("CLUSTER", "MEET", address.host, address.port, *((bus_port,) if bus_port else ()))


@dataclass(frozen=True, slots=True)
class _Facts:
    """The parsed replies to one look, before it is known which pod gave them."""

    members: tuple[Member, ...]
    cluster: wire.ClusterInfo
    replication: Replication
    keys: int
    server: Mapping[str, str]
    timeout_ms: int | None

    @classmethod
    def of(cls, replies: list[Any]) -> _Facts:
        """Raises the server's error reply, or WireError for a text that is not what it should be."""
        nodes, cluster, replication, keyspace, server, timeout = replies
        # A Sentinel answers INFO though it knows no CLUSTER: its own word comes before that error.
        identity = wire.parse_info(server) if isinstance(server, str) else {}
        if identity.get("redis_mode") == "sentinel":
            raise NotANode(Absence.SENTINEL)
        if identity.get("redis_mode") == "standalone":
            raise NotANode(Absence.CLUSTER_OFF)
        for reply in (nodes, cluster, replication, keyspace, server):
            if isinstance(reply, Exception):
                raise reply
            if not isinstance(reply, str):
                raise WireError(f"a text was expected, not {type(reply).__name__}")
        return cls(
            members=wire.parse_cluster_nodes(nodes),
            cluster=wire.parse_cluster_info(cluster),
            replication=wire.parse_replication(wire.parse_info(replication)),
            keys=wire.count_keys(wire.parse_info(keyspace)),
            server=identity,
            timeout_ms=_timeout_ms(timeout),
        )

    def node(self, pod: str, ordinal: int, address: Address) -> Node:
        """The facts as those of a pod."""
        kind = self.server.get("server_name", "redis")
        return Node(
            pod=pod,
            ordinal=ordinal,
            address=address,
            members=self.members,
            serving=self.cluster.serving,
            current_epoch=self.cluster.current_epoch,
            replication=self.replication,
            keys=self.keys,
            timeout_ms=self.timeout_ms,
            version=f"{kind} {self.server.get(f'{kind}_version', '?')}",
        )


def _timeout_ms(reply: Any) -> int | None:
    """CONFIG GET's reply is `[name, value]`; an error (CONFIG denied or renamed) leaves the timeout unknown."""
    if isinstance(reply, list) and len(reply) == 2 and str(reply[1]).isdecimal():
        return int(reply[1])
    return None


def _reply(connection: Connection) -> Any:
    """One reply; an error reply that leaves the connection usable is returned, not raised."""
    try:
        return connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error


def _hang_up(connection: Connection) -> None:
    """Ends a connection from another thread: whoever reads from it gets an error at once."""
    raw = connection._get_socket()  # noqa: SLF001 - redis-py has no other way to the socket
    if raw is not None:
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
