"""Ask and tell Redis nodes, many at once. Reads never fail a run: a node that does not answer is a fact about it.
A write is tried once; whether it took effect is seen by looking again.

redis-py's connections carry the protocol, AUTH and TLS; its clients are not used, since they retry and parse replies by
themselves. RESP2 is asked for, which every server from Redis 5.0 on speaks.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import TypeVar
from weakref import WeakKeyDictionary

from redis.connection import Connection

from bootstrap.model.node import Address, Node
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import CancelMigration, Leave, MoveKeys, MoveSlots, Provision, Rejected, Write
from bootstrap.model.unreachable import UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.nodes import tls
from bootstrap.nodes.commands import commands_for
from bootstrap.nodes.connection import Credentials, ask, ask_all, connections, first_error
from bootstrap.nodes.failures import Failure, classify_error, words_of
from bootstrap.nodes.look import count_keys, look_at, provisions_of, timeout_of
from bootstrap.nodes.membership import leave, provision_node
from bootstrap.nodes.migration.keys import MOMENT_S, move_keys
from bootstrap.nodes.migration.route import MigrateRoute
from bootstrap.nodes.migration.tasks import MigrationMode, cancel, detect
from bootstrap.nodes.migration.transfer import SlotTransfer
from bootstrap.nodes.pipeline import Pipeline

ANSWER_LIMIT_S = 2.0
"""How long one look at one node may take, from connecting to the last byte. A node on the same cluster answers in
milliseconds; one that drips bytes is as good as hung."""
MOVE_ANSWER_LIMIT_S = 90.0
"""How long a reply may take while slots move: one MIGRATE of a big key keeps two servers busy."""
WORKERS_MAX = 64

Answer = TypeVar("Answer")
REFUSAL_MAX = 400
"""Characters of what a server, or this program, says against moving slots: it names keys and what to do."""
_CONVERSATIONS = (MoveKeys, Provision, Leave, CancelMigration)


class Nodes:
    """Connections to many nodes, kept open between looks, used from a pool of threads. Close it when done."""

    def __init__(self, credentials: Credentials, *, answer_limit_s: float = ANSWER_LIMIT_S) -> None:
        """Raises Misconfigured where the TLS files are not what they should be."""
        self._credentials = credentials
        self._tls = credentials.tls_context()
        self._kind = connections(self._tls)
        self._answer_limit_s = answer_limit_s
        self._open: dict[Address, Connection] = {}
        self._how: WeakKeyDictionary[Connection, MigrationMode] = WeakKeyDictionary()
        """What servers can do, by their connections: one that was restarted has another."""
        self._pool = ThreadPoolExecutor(max_workers=WORKERS_MAX, thread_name_prefix="node")

    def close(self) -> None:
        """Ends every connection and thread."""
        for connection in list(self._open.values()):
            _hang_up(connection)
        self._pool.shutdown(wait=True, cancel_futures=True)
        for connection in list(self._open.values()):
            connection.disconnect()

    def look(self, places: Iterable[tuple[str, int, Address]]) -> Mapping[tuple[str, Address], Node | Failure]:
        """One look at every (pod, ordinal, address), all at once. An address may be asked for several pods."""
        places = tuple(places)
        by_address = self._each({address: partial(look_at, self._how) for _, _, address in places})
        return {
            (pod, address): found
            if isinstance(found := by_address[address], Failure)
            else found.node(pod, ordinal, address)
            for pod, ordinal, address in places
        }

    def count(
        self, databases: Mapping[Address, Sequence[int]], slots: SlotSet
    ) -> Mapping[Address, Mapping[int, int] | Failure]:
        """How many keys each node holds of each slot, in the databases named for it; slots without any are left out."""
        return self._each({address: partial(count_keys, numbers, slots) for address, numbers in databases.items()})

    def send(self, writes: Mapping[Address, Sequence[Write]]) -> Sequence[Rejected]:
        """Sends each node its writes in order, all nodes at once. Returns those not accepted, with the answer."""
        rejected: list[Rejected] = []
        talks = {address: partial(self._tell, told) for address, told in writes.items()}
        for address, answer in self._each(talks).items():
            if isinstance(answer, Failure):
                why = f"{answer.why.value} {answer.detail}".strip()
                rejected += [Rejected(write, why, answered=False) for write in writes[address]]
                continue
            for write, error in zip(writes[address], answer, strict=True):
                if error is not None:
                    code = getattr(error, "status_code", None) or ""
                    why = f"{code} {self._credentials.redact(words_of(error))}".strip()
                    rejected.append(Rejected(write, why, answered=True))
        return rejected

    def move(self, moves: Sequence[MoveSlots], view: ClusterView) -> SlotTransfer:
        """Slots to be moved, on connections of their own; nothing is told yet."""
        return SlotTransfer(
            moves,
            view,
            connect=self._raw_connection,
            login=self._credentials.as_migrate_takes_them(),
            redact=partial(self._credentials.redact, longest=REFUSAL_MAX),
        )

    def provisions(
        self, addresses: Iterable[Address]
    ) -> Mapping[Address, tuple[frozenset[str] | None, frozenset[str] | None] | Failure]:
        """The function libraries and the ACL users of each node, by name; None for what a node does not say.

        Users are asked for only without a user of our own: whoever made that one sees to users by other means, on every
        node, and has no reason to let it read or make others.
        """
        talk = partial(provisions_of, ask_users=not self._credentials.username)
        return self._each(dict.fromkeys(addresses, talk))

    def _tell(self, writes: Sequence[Write], connection: Connection) -> list[Exception | None]:
        """What the node said against each write, None where it took it."""
        words = [() if isinstance(write, _CONVERSATIONS) else commands_for(write) for write in writes]
        replies = iter(ask_all(connection, tuple(chain.from_iterable(words))))
        errors = [first_error(list(islice(replies, len(each)))) for each in words]
        ends = time.monotonic() + MOMENT_S  # of all the moves together: a conversation that goes on is hung up on
        return [
            self._talk_over(write, connection, ends) if isinstance(write, _CONVERSATIONS) else error
            for write, error in zip(writes, errors, strict=True)
        ]

    def _talk_over(self, write: Write, connection: Connection, ends: float) -> Exception | None:
        """A write that takes several questions; returns the error where there was one."""
        told = partial(ask, connection)
        match write:
            case Leave():
                return leave(partial(ask_all, connection), threading.Event().wait)
            case CancelMigration():
                return cancel(told, detect(told), write.task_id)
            case Provision():
                with _closing(self._raw_connection(write.address)) as origin:
                    return provision_node(told, partial(ask, origin), write)
            case MoveKeys():
                # Keys are bytes: the other connections, which are for texts, would not give them back as they are.
                here = Address(connection.host, connection.port)
                with _closing(self._raw_connection(here)) as source, closing(Pipeline(source)) as talk:
                    route = MigrateRoute(
                        source=talk,
                        address=write.address,
                        databases=write.databases,
                        login=self._credentials.as_migrate_takes_them(),
                        silence_max_ms=timeout_of(told),
                    )
                    return move_keys(route, write, ends=ends)
        raise TypeError(f"{type(write).__name__} is no conversation")

    def _each(self, talks: Mapping[Address, Callable[[Connection], Answer]]) -> dict[Address, Answer | Failure]:
        """A conversation with every address at once. One that takes too long is hung up on, and so ends."""
        running: dict[Address, Future[Answer | Failure]] = {
            address: self._pool.submit(self._converse, address, talk) for address, talk in talks.items()
        }
        rounds = 1 + len(running) // WORKERS_MAX
        wait(running.values(), timeout=self._answer_limit_s * rounds * 1.5)
        hung = [address for address, talk in running.items() if not talk.done()]
        for address in hung:
            if connection := self._open.get(address):
                _hang_up(connection)
        answers = {address: talk.result() for address, talk in running.items()}
        return answers | dict.fromkeys(hung, Failure(UnreachableReason.TIMEOUT))

    def _converse(self, address: Address, talk: Callable[[Connection], Answer]) -> Answer | Failure:
        """One conversation; an error reply is a value in it. No server makes it raise."""
        try:
            return talk(self._connection(address))
        except Exception as error:  # noqa: BLE001 - whatever a stranger on that port makes redis-py raise
            if address in self._open:
                self._open.pop(address).disconnect()
            silence = self._second_opinion(address, classify_error(error))
            return replace(silence, detail=self._credentials.redact(silence.detail))

    def _second_opinion(self, address: Address, silence: Failure) -> Failure:
        """Who speaks TLS and who does not misunderstand each other in ways that look like a fault of the network."""
        if silence.why not in (UnreachableReason.UNREACHABLE, UnreachableReason.TIMEOUT, UnreachableReason.NOT_REDIS):
            return silence
        try:
            words = tls.diagnose_tls(address.host, address.port, self._tls, limit_s=self._answer_limit_s / 5)
        except ssl.SSLError as error:
            return classify_error(error)
        except OSError:
            return silence
        return Failure(UnreachableReason.TLS, words) if words else silence

    def _connection(self, address: Address) -> Connection:
        if address not in self._open:
            self._open[address] = self._new_connection(address, self._answer_limit_s, "replace")
        return self._open[address]

    def _raw_connection(self, address: Address) -> Connection:
        """A connection of its own, on which bytes that are no UTF-8 come and go as they are."""
        return self._new_connection(address, MOVE_ANSWER_LIMIT_S, "surrogateescape")

    def _new_connection(self, address: Address, answer_limit_s: float, encoding_errors: str) -> Connection:
        return self._kind(
            host=address.host,
            port=address.port,
            socket_timeout=answer_limit_s,
            socket_connect_timeout=self._answer_limit_s,
            decode_responses=True,
            encoding_errors=encoding_errors,
            driver_info=None,
            **self._credentials.connection_options(),
        )


@contextmanager
def _closing(connection: Connection) -> Iterator[Connection]:
    try:
        yield connection
    finally:
        connection.disconnect()


def _hang_up(connection: Connection) -> None:
    """Ends a connection from another thread: whoever reads from it gets an error at once."""
    raw = connection._get_socket()  # noqa: SLF001 - redis-py has no other way to the socket
    if raw is not None:
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
