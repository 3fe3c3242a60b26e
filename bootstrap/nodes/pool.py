"""Connections to many nodes, one per address, kept open between exchanges and used in parallel. An exchange that takes
too long is ended: a node that sends a byte now and then must not hold up a run.

redis-py's connections bring the protocol, AUTH and TLS. Its clients are not used, since they retry and parse replies by
themselves. RESP2 is requested, which every server since Redis 5.0 speaks.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TypeVar

from redis.connection import Connection
from redis.exceptions import ResponseError

from bootstrap.model.node import Address
from bootstrap.model.unreachable import UnreachableReason
from bootstrap.nodes import tls
from bootstrap.nodes.connection import Credentials, connection_class, hang_up
from bootstrap.nodes.failures import Failure, classify_error

MOMENT_S = 1.0
"""How long keys are moved without a pause. The next look finds the keys that are left."""
ANSWER_LIMIT_S = 2.0
"""How long one look at one node may take, from connecting to the last byte. A node in the same cluster answers in
milliseconds."""
MOVE_ANSWER_LIMIT_S = 90.0
"""How long a reply may take while slots move: one MIGRATE of a big key blocks two servers."""
WORKERS_MAX = 64
LAST_WORDS_MAX = 500
"""Bytes of what a server says before it hangs up that are read."""

_MAY_BE_TLS = frozenset({UnreachableReason.UNREACHABLE, UnreachableReason.TIMEOUT, UnreachableReason.NOT_REDIS})
"""What a client sees where one side speaks TLS and the other does not."""

Answer = TypeVar("Answer")
Exchange = Callable[[Connection], Answer]
"""Commands and their replies on one connection; it may raise anything."""


class ConnectionPool:
    """One connection per address, used by one thread at a time. Close it when done."""

    def __init__(self, credentials: Credentials, *, answer_limit_s: float) -> None:
        """Raises Misconfigured that names a faulty TLS file."""
        self._credentials = credentials
        self._tls = credentials.tls_context()
        self._class = connection_class(self._tls)
        self._answer_limit_s = answer_limit_s
        self._open: dict[Address, Connection] = {}
        self._workers = ThreadPoolExecutor(max_workers=WORKERS_MAX, thread_name_prefix="node")

    def close(self) -> None:
        """Ends every connection and thread."""
        for connection in list(self._open.values()):
            hang_up(connection)
        self._workers.shutdown(wait=True, cancel_futures=True)
        for connection in list(self._open.values()):
            connection.disconnect()

    def connection(self, address: Address) -> Connection:
        """The connection to an address, whose replies are texts. It connects with its first command."""
        if address not in self._open:
            self._open[address] = self._new_connection(address, self._answer_limit_s, "replace")
        return self._open[address]

    def raw_connection(self, address: Address) -> Connection:
        """A new connection for moving slots, on which bytes that are not UTF-8 survive. The caller disconnects it."""
        return self._new_connection(address, MOVE_ANSWER_LIMIT_S, "surrogateescape")

    def run_each(self, exchanges: Mapping[Address, Exchange[Answer]]) -> dict[Address, Answer | Failure]:
        """One exchange with every address, all in parallel. An error is a `Failure`, as is an exchange that takes too
        long: its connection is shut down.
        """
        running: dict[Address, Future[Answer | Failure]] = {
            address: self._workers.submit(self._run, address, exchange) for address, exchange in exchanges.items()
        }
        rounds = 1 + len(running) // WORKERS_MAX
        wait(running.values(), timeout=self._answer_limit_s * rounds * 1.5)
        hung = [address for address, future in running.items() if not future.done()]
        for address in hung:
            if connection := self._open.get(address):
                hang_up(connection)
        answers = {address: future.result() for address, future in running.items()}
        return answers | dict.fromkeys(hung, Failure(UnreachableReason.TIMEOUT))

    def _run(self, address: Address, exchange: Exchange[Answer]) -> Answer | Failure:
        """One exchange, of which no server makes an exception."""
        try:
            return exchange(self.connection(address))
        except Exception as error:  # noqa: BLE001 - a server that is not Redis makes redis-py raise anything
            if address in self._open:
                self._open.pop(address).disconnect()
            failure = self._last_words(address, self._diagnose_tls(address, classify_error(error)))
            return replace(failure, detail=self._credentials.redact(failure.detail))

    def _diagnose_tls(self, address: Address, failure: Failure) -> Failure:
        """TLS on one side alone looks like a fault of the network; this finds out which it is."""
        if failure.why not in _MAY_BE_TLS:
            return failure
        try:
            detail = tls.diagnose_tls(address.host, address.port, self._tls, limit_s=self._answer_limit_s / 5)
        except ssl.SSLError as error:
            return classify_error(error)
        except OSError:
            return failure
        return Failure(UnreachableReason.TLS, detail) if detail else failure

    def _last_words(self, address: Address, failure: Failure) -> Failure:
        """What a server says before it hangs up, as one does that has reached `maxclients`. A client that sends a
        command first may lose these words to a reset of the connection; this sends nothing.
        """
        if self._tls or failure.why is not UnreachableReason.UNREACHABLE:
            return failure
        try:
            place, limit_s = (address.host, address.port), self._answer_limit_s / 5
            with socket.create_connection(place, timeout=limit_s) as silent:
                heard = silent.recv(LAST_WORDS_MAX)
        except OSError:
            return failure
        return classify_error(ResponseError(heard[1:].decode(errors="replace"))) if heard[:1] == b"-" else failure

    def _new_connection(self, address: Address, answer_limit_s: float, encoding_errors: str) -> Connection:
        return self._class(
            host=address.host,
            port=address.port,
            socket_timeout=answer_limit_s,
            socket_connect_timeout=self._answer_limit_s,
            decode_responses=True,
            encoding_errors=encoding_errors,
            driver_info=None,
            **self._credentials.connection_options(),
        )
