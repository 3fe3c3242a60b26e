"""Very many small commands on one connection, whose replies are bytes: what `talk` does, in a tenth of the time a
command takes there. That is what moving keys consists of.

A key is whatever bytes a client chose. The connection, with TLS and the login, is redis-py's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from redis.connection import Connection
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ResponseError

Command = tuple[str | bytes | int, ...]

_BUFFER_BYTES = 1 << 16


class Pipeline:
    """Call it with commands: all are sent at once, then all replies are read; an error reply is a value among them.
    From then on the connection is used by nothing else.
    """

    def __init__(self, connection: Connection) -> None:
        """Raises what redis-py raises where there is no way in."""
        connection.connect()
        raw = connection._get_socket()  # noqa: SLF001 - redis-py has no other way to the socket
        if raw is None:
            raise ConnectionLost("the connection was closed")
        self._connection = connection
        self._socket = raw
        self._replies = raw.makefile("rb", buffering=_BUFFER_BYTES)

    def __call__(self, commands: Sequence[Command]) -> list[Any]:
        """A status is a text, everything else that is no number is bytes. Raises where the connection is lost."""
        if not commands:
            return []
        self._socket.sendall(b"".join(map(packed, commands)))
        return [self._reply() for _ in commands]

    def each(self, head: Command, keys: Sequence[bytes], tail: Command = ()) -> list[Any]:
        """The replies to the same command for each of many keys, which stands between its first and its last words."""
        if not keys:
            return []
        before = b"*%d\r\n%b" % (len(head) + 1 + len(tail), b"".join(map(_packed, head)))
        after = b"".join(map(_packed, tail))
        self._socket.sendall(b"".join([b"%b$%d\r\n%b\r\n%b" % (before, len(key), key, after) for key in keys]))
        return [self._reply() for _ in keys]

    def close(self) -> None:
        """Lets go of the connection, which is not closed by that."""
        with suppress(OSError):
            self._replies.close()

    def _reply(self) -> Any:
        line = self._replies.readline()
        kind, told = line[:1], line[1:-2]
        if line[-2:] != b"\r\n":
            raise ConnectionLost("the server closed the connection")
        if kind == b":":
            return int(told)
        if kind == b"$":
            return self._bytes(int(told))
        if kind == b"*":
            return [self._reply() for _ in range(int(told))]
        text = told.decode(errors="replace")
        if kind == b"+":
            return text
        if kind == b"-":
            return ResponseError(text.removeprefix("ERR "))
        raise ConnectionLost(f"no reply of a server: {line[:40]!r}")

    def _bytes(self, length: int) -> bytes | None:
        if length < 0:
            return None
        told: bytes = self._replies.read(length + 2)
        if len(told) < length + 2:
            raise ConnectionLost("the server closed the connection")
        return told[:-2]


def packed(command: Command) -> bytes:
    """A command as servers take it; texts as UTF-8."""
    words = [b"$%d\r\n%b\r\n" % (len(word), word) if type(word) is bytes else _packed(word) for word in command]
    return b"*%d\r\n%b" % (len(words), b"".join(words))


@lru_cache(maxsize=1 << 15)
def _packed(word: str | bytes | int) -> bytes:
    """The same few words come again and again, and so do the slots' numbers."""
    told = str(word).encode(errors="surrogateescape")
    return b"$%d\r\n%b\r\n" % (len(told), told)
