"""One connection to one server: the credentials that open it, and commands sent together whose replies, errors
included, are values.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from redis.connection import Connection
from redis.exceptions import ResponseError

from bootstrap.nodes import tls
from bootstrap.nodes.commands import Command

Ask = Callable[..., Any]
"""`ask(*command)` sends a command to one server and returns its reply, also when that is an error. Raises where the
connection is lost."""
AskAll = Callable[[Sequence[Command]], list[Any]]
"""The same for several commands, which are sent in one packet."""

MESSAGE_MAX = 200
"""Characters of a message from a server or a library that are logged."""
DEFAULT_USER = "default"
"""The ACL user of a client that names none."""
PREFIX_MIN = 4
"""The shortest beginning of a password that is hidden where a message was cut: a shorter one reveals little, and many
words end with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """User, password and TLS files. The password is never shown."""

    username: str = ""
    password: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, tls={self.ca_file is not None})"

    def redact(self, text: str, longest: int = MESSAGE_MAX) -> str:
        """The text without the password, cut to `longest` characters. Servers and libraries quote what they received,
        and servers cut their quotation, so a beginning of the password before a quotation mark or at the end is hidden,
        too.
        """
        for form in {self.password, repr(self.password)[1:-1], ascii(self.password)[1:-1]} if self.password else ():
            text = text.replace(str(form), "…")
            for length in range(len(form) - 1, PREFIX_MIN - 1, -1):
                text = text.replace(f"{form[:length]}'", "…'").removesuffix(form[:length])
        return text[:longest]

    def migrate_login(self) -> tuple[str, ...]:
        """The arguments of MIGRATE with which the source logs in to the target. Redis 5 has no user names and does not
        know AUTH2; AUTH means the user `default` everywhere.
        """
        if not self.password:
            return ()
        named = self.username not in ("", DEFAULT_USER)
        return ("AUTH2", self.username, self.password) if named else ("AUTH", self.password)

    def tls_context(self, *, check_names: bool = False) -> ssl.SSLContext | None:
        """The context for TLS, or None where TLS is not configured. Raises Misconfigured that names a faulty file."""
        if self.ca_file is None:
            return None
        return tls.client_context(self.ca_file, self.cert_file, self.key_file, check_names=check_names)

    def connection_options(self) -> dict[str, Any]:
        """The options for redis-py, the same for a single connection and for a client."""
        return {"username": self.username or None, "password": self.password, "protocol": 2}


def connection_class(context: ssl.SSLContext | None) -> type[Connection]:
    """redis-py's class of connections, with TLS or without."""
    return tls.connection_class(context) if context else Connection


def checking_connection_class(credentials: Credentials, names: Mapping[tuple[str, int], str]) -> type[Connection]:
    """The same for a client that is sent to names, by the address and port of each: with TLS it compares them."""
    context, checking = credentials.tls_context(), credentials.tls_context(check_names=True)
    return tls.connection_class(context, checking, names) if context else Connection


def ask(connection: Connection, *command: str | bytes | int) -> Any:
    """The reply to one command; see `Ask`."""
    return ask_all(connection, (command,))[0]


def ask_all(connection: Connection, commands: Sequence[Command]) -> list[Any]:
    """Sends all commands, then reads all replies; an error reply is a value among them."""
    if not commands:
        return []
    connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    return [_reply(connection) for _ in commands]


def first_error(replies: Sequence[Any]) -> Exception | None:
    """The first error among replies, also within the reply of a transaction."""
    flat = chain.from_iterable(reply if isinstance(reply, list) else [reply] for reply in replies)
    return next((reply for reply in flat if isinstance(reply, Exception)), None)


def socket_of(connection: Connection) -> socket.socket | None:
    """The socket of a connection, with TLS where that is set; None while it is not connected."""
    return connection._get_socket()  # noqa: SLF001 - redis-py has no public way to its socket


def hang_up(connection: Connection) -> None:
    """Ends a connection from another thread: the thread that reads from it gets an error immediately."""
    if (raw := socket_of(connection)) is not None:
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)


def _reply(connection: Connection) -> Any:
    """One reply; an error reply that leaves the connection usable is returned, not raised."""
    try:
        return connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error
