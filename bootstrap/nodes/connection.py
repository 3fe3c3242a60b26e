"""One connection to one server: commands go out all at once, and every reply is a value, errors included."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from redis.connection import Connection
from redis.exceptions import ResponseError

from bootstrap.nodes import tls
from bootstrap.nodes.commands import Command

WORDS_MAX = 200
"""Characters of what a server or a library says that go into a log."""
HIDDEN_MIN = 4
"""So many first characters of a password, cut off there, are hidden: fewer tell little, and may end any word."""


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

    def redact(self, text: str, longest: int = WORDS_MAX) -> str:
        """The text without the password, cut to a readable length: servers and libraries quote what they were sent, and
        servers cut what they quote, so the beginning of the password before a quotation mark or the end counts, too.
        """
        for form in {self.password, repr(self.password)[1:-1], ascii(self.password)[1:-1]} if self.password else ():
            text = text.replace(str(form), "…")
            for length in range(len(form) - 1, HIDDEN_MIN - 1, -1):
                text = text.replace(f"{form[:length]}'", "…'").removesuffix(form[:length])
        return text[:longest]

    def as_migrate_takes_them(self) -> tuple[str, ...]:
        """The words with which one server lets itself in to another; Redis 5 knows no user names."""
        if not self.password:
            return ()
        return ("AUTH2", self.username, self.password) if self.username else ("AUTH", self.password)

    def tls_context(self) -> ssl.SSLContext | None:
        """How to speak TLS, or None where it is not set. Raises Misconfigured where a file is not what it should be."""
        return tls.context(self.ca_file, self.cert_file, self.key_file) if self.ca_file else None

    def connection_options(self) -> dict[str, Any]:
        """The options that redis-py takes for them, for a single connection and for a client alike."""
        return {"username": self.username or None, "password": self.password, "protocol": 2}


def connections(context: ssl.SSLContext | None) -> type[Connection]:
    """The kind of redis-py's connections, with TLS or without."""
    return tls.connections(context) if context else Connection


def ask(connection: Connection, *command: str | int) -> Any:
    """The reply to one command."""
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


def _reply(connection: Connection) -> Any:
    """One reply; an error reply that leaves the connection usable is returned, not raised."""
    try:
        return connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error
