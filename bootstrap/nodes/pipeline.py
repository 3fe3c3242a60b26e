"""Very many small commands on one connection, with replies as bytes, in a tenth of the time that redis-py takes for one
command. Moving keys consists of such commands, and a key is any sequence of bytes.

The connection, with TLS and the login, is redis-py's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from redis.connection import Connection
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ResponseError

from bootstrap.nodes.commands import Command
from bootstrap.nodes.connection import socket_of

_BUFFER_BYTES = 1 << 16


class Pipeline:
    """Call it with commands: it sends them all, then reads all replies. An error reply is a value among them; a lost
    connection raises. From its creation on, nothing else may use the connection.
    """

    def __init__(self, connection: Connection) -> None:
        """Connects. Raises redis-py's errors where that fails."""
        connection.connect()
        raw = socket_of(connection)
        if raw is None:
            raise ConnectionLost("the connection was closed")
        self._connection = connection
        self._socket = raw
        self._replies = raw.makefile("rb", buffering=_BUFFER_BYTES)

    def __call__(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in the order of the commands: a status is a text, a string is bytes, a number is an int."""
        if not commands:
            return []
        self._socket.sendall(b"".join(map(packed, commands)))
        return [self._reply() for _ in commands]

    def each(self, head: Command, keys: Sequence[bytes], tail: Command = ()) -> list[Any]:
        """The replies to one command for each of many keys; the key stands between `head` and `tail`."""
        if not keys:
            return []
        before = b"*%d\r\n%b" % (len(head) + 1 + len(tail), b"".join(map(_packed, head)))
        after = b"".join(map(_packed, tail))
        self._socket.sendall(b"".join([b"%b$%d\r\n%b\r\n%b" % (before, len(key), key, after) for key in keys]))
        return [self._reply() for _ in keys]

    def close(self) -> None:
        """Releases the connection without closing it."""
        with suppress(OSError):
            self._replies.close()

    def _reply(self) -> Any:
        line = self._replies.readline()
        kind, value = line[:1], line[1:-2]
        if line[-2:] != b"\r\n":
            raise ConnectionLost("the server closed the connection")
        if kind == b":":
            return int(value)
        if kind == b"$":
            return self._bytes(int(value))
        if kind == b"*":
            return [self._reply() for _ in range(int(value))]
        text = value.decode(errors="replace")
        if kind == b"+":
            return text
        if kind == b"-":
            return ResponseError(text.removeprefix("ERR "))
        raise ConnectionLost(f"not a reply in Redis's protocol: {line[:40]!r}")

    def _bytes(self, length: int) -> bytes | None:
        if length < 0:
            return None
        value: bytes = self._replies.read(length + 2)
        if len(value) < length + 2:
            raise ConnectionLost("the server closed the connection")
        return value[:-2]


def packed(command: Command) -> bytes:
    """A command in the protocol's form; texts as UTF-8."""
    words = [b"$%d\r\n%b\r\n" % (len(word), word) if type(word) is bytes else _packed(word) for word in command]
    return b"*%d\r\n%b" % (len(words), b"".join(words))


@lru_cache(maxsize=1 << 15)
def _packed(word: str | bytes | int) -> bytes:
    """Cached: the same few words, and the numbers of the slots, occur again and again."""
    value = str(word).encode(errors="surrogateescape")
    return b"$%d\r\n%b\r\n" % (len(value), value)
