"""One connection to one server: commands go out all at once, and every reply is a value, errors included."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from redis.connection import Connection
from redis.exceptions import ResponseError

from bootstrap.commands import Command


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
