"""Very many small commands on one connection, with replies as bytes, in a tenth of the time that redis-py takes for one
command. Moving keys consists of such commands, and a key is any sequence of bytes.

The connection, with TLS and the login, is redis-py's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Any

from redis.connection import Connection
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ResponseError

from bootstrap.nodes.commands import Command
from bootstrap.nodes.connection import socket_of

_BUFFER_BYTES = 1 << 16
LARGE_BYTES = 1 << 20
"""A value of that size is received as a bytearray, and sent without being joined with others."""

Packed = bytes | tuple[bytes | bytearray, ...]
"""A packed command; a large one in parts."""


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
        self.send(commands)
        return self.receive(len(commands))

    def each(self, head: Command, keys: Sequence[bytes], tail: Command = ()) -> list[Any]:
        """The replies to one command for each of many keys; the key stands between `head` and `tail`."""
        self.send_each(head, keys, tail)
        return self.receive(len(keys))

    def send(self, commands: Sequence[Command]) -> None:
        """Sends commands whose replies are received later, in the same order. Where they are long, the caller must know
        that the server can keep the replies meanwhile.
        """
        if commands:
            self._socket.sendall(b"".join(map(packed, commands)))

    def send_parts(self, parts: Iterable[bytes | bytearray]) -> None:
        """Sends packed commands in parts, which are not joined: a value of many megabytes is in memory once."""
        for part in parts:
            if part:
                self._socket.sendall(part)

    def send_each(self, head: Command, keys: Sequence[bytes], tail: Command = ()) -> None:
        """The same as `send` for one command for each of many keys."""
        if keys:
            self._socket.sendall(b"".join(packed_each(head, keys, tail)))

    def receive(self, count: int) -> list[Any]:
        """The replies to the next `count` commands that were sent."""
        return [self._reply() for _ in range(count)]

    def receive_strings(self, count: int) -> list[Any]:
        """The same as `receive`, faster where most replies are strings of common size."""
        found: list[Any] = []
        read, readline = self._replies.read, self._replies.readline
        for _ in range(count):
            line = readline()
            if line[:1] != b"$" or line[-2:] != b"\r\n" or not 0 <= (length := int(line[1:])) < LARGE_BYTES:
                found.append(self._parsed(line))
                continue
            value = read(length + 2)
            if len(value) < length + 2:
                raise ConnectionLost("the server closed the connection")
            found.append(value[:-2])
        return found

    def receive_lines(self, count: int) -> list[bytes]:
        """The next `count` replies as the lines that they are, much faster: for commands that reply with a number, a
        status, an error or nothing, and never with a string or a list.
        """
        lines = list(islice(self._replies, count))
        if len(lines) < count or (lines and lines[-1][-2:] != b"\r\n"):
            raise ConnectionLost("the server closed the connection")
        return lines

    def close(self) -> None:
        """Releases the connection without closing it."""
        with suppress(OSError):
            self._replies.close()

    def _reply(self) -> Any:
        return self._parsed(self._replies.readline())

    def _parsed(self, line: bytes) -> Any:
        """The reply that begins with this line."""
        kind, value = line[:1], line[1:-2]
        if line[-2:] != b"\r\n":
            raise ConnectionLost("the server closed the connection")
        if kind == b":":
            return int(value)
        if kind == b"$":
            return self._bytes(int(value))
        if kind == b"*":
            return self.receive_strings(int(value))
        text = value.decode(errors="replace")
        if kind == b"+":
            return text
        if kind == b"-":
            return ResponseError(text.removeprefix("ERR "))
        raise ConnectionLost(f"not a reply in Redis's protocol: {line[:40]!r}")

    def _bytes(self, length: int) -> bytes | bytearray | None:
        if length < 0:
            return None
        if length >= LARGE_BYTES:
            return self._large(length)
        value: bytes = self._replies.read(length + 2)
        if len(value) < length + 2:
            raise ConnectionLost("the server closed the connection")
        return value[:-2]

    def _large(self, length: int) -> bytearray:
        """Read in place: a second copy of a value of many megabytes would not fit beside it."""
        value = bytearray(length + 2)
        filled = 0
        while filled < length + 2:
            part = self._replies.read(min(LARGE_BYTES, length + 2 - filled))
            if not part:
                raise ConnectionLost("the server closed the connection")
            value[filled : filled + len(part)] = part
            filled += len(part)
        del value[length:]
        return value


def parsed_line(line: bytes) -> Any:
    """A reply of `receive_lines`: a number, a status, an error as a value, or None for nothing."""
    kind, value = line[:1], line[1:-2]
    if kind == b":":
        return int(value)
    text = value.decode(errors="replace")
    if kind == b"-":
        return ResponseError(text.removeprefix("ERR "))
    return text if kind == b"+" else None


def packed(command: Command) -> bytes:
    """A command in the protocol's form; texts as UTF-8."""
    words = [b"$%d\r\n%b\r\n" % (len(word), word) if type(word) is bytes else _packed(word) for word in command]
    return b"*%d\r\n%b" % (len(words), b"".join(words))


def packed_each(head: Command, keys: Sequence[bytes], tail: Command = ()) -> list[bytes]:
    """One packed command for each of many keys; the key stands between `head` and `tail`."""
    before = b"*%d\r\n%b" % (len(head) + 1 + len(tail), b"".join(map(_packed, head)))
    after = b"".join(map(_packed, tail))
    return [b"%b$%d\r\n%b\r\n%b" % (before, len(key), key, after) for key in keys]


def packer(head: Command, tail: Command) -> Callable[[bytes, int, bytes | bytearray], Packed]:
    """Packs commands of a key, a number and a payload, which stand between `head` and `tail`."""
    before = b"*%d\r\n%b" % (len(head) + 3 + len(tail), b"".join(map(_packed, head)))
    after = b"".join(map(_packed, tail))

    def pack(key: bytes, number: int, payload: bytes | bytearray) -> Packed:
        text = b"%d" % number
        start = b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (before, len(key), key, len(text), text)
        if len(payload) < LARGE_BYTES:
            return b"%b$%d\r\n%b\r\n%b" % (start, len(payload), payload, after)  # type: ignore[str-format]
        return (b"%b$%d\r\n" % (start, len(payload)), payload, b"\r\n" + after)

    return pack


@lru_cache(maxsize=1 << 15)
def _packed(word: str | bytes | int) -> bytes:
    """Cached: the same few words, and the numbers of the slots, occur again and again."""
    value = str(word).encode(errors="surrogateescape")
    return b"$%d\r\n%b\r\n" % (len(value), value)
