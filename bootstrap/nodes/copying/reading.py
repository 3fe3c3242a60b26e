"""Reading the keys of one server: names page by page, then values with their moments of expiry, in batches of limited
size. RESP2 strings are bytes here, and a key is any sequence of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bootstrap.model.copying import Counts, Entry
from bootstrap.nodes import commands
from bootstrap.nodes.pipeline import Pipeline, parsed_line
from bootstrap.nodes.wire.source import parse_redirect, time_ms

PAGE = 1000
"""Names that are asked for together."""
BATCH_BYTES = 4 << 20
"""About how much data is read together, unless one key alone is bigger. It limits the memory of this program and the
buffers of the source."""
SAMPLES = 100
"""Elements by which a key is measured. More would block the clients of the source for longer: here the size decides
only how many keys are read together, and not, as for MIGRATE, how long a server may be blocked."""
UNKNOWN_SIZE = BATCH_BYTES // 32
"""What counts as the size of a key where the source does not measure it."""
MOMENT_SLACK_MS = 1000
"""By how much two computations of the same moment of expiry may differ."""
TRIES = 5
"""How often a key is read whose expiry changes while it is read."""
FOREVER, NO_KEY = -1, -2
_FOREVER_LINE = b":-1\r\n"
"""PTTL and PEXPIRETIME of a key that stays, and of one that is not there."""


class SourceRejected(Exception):
    """The source rejected a command that copying needs; the text is its error reply."""


class Value(NamedTuple):
    """A key with its size, bytes, by the server's estimate, and the moment at which it expires or FOREVER."""

    key: bytes
    size: int
    moment: int


class Reader:
    """Reads one database of one server after the other. From its creation on, nothing else may use the pipeline."""

    def __init__(self, source: Pipeline, *, shift_ms: int = 0) -> None:
        """`shift_ms` is added to every moment of expiry: by how much the clock of the target is ahead."""
        self._source = source
        self._shift_ms = shift_ms
        self._exact = True
        """Until the source has shown that it does not know PEXPIRETIME."""
        self._sizes_known = True

    def select(self, database: int) -> None:
        """The database of what follows."""
        _accepted(self._source([commands.select(database)]))

    def pages(self) -> Iterator[list[bytes]]:
        """All names of the database, in pages. A key that is there all the time is in one of them, or in several."""
        cursor = b"0"
        while True:
            ((cursor, names),) = _accepted(self._source([commands.scan(cursor, PAGE)]))
            yield list(dict.fromkeys(names))
            if cursor == b"0":
                return

    def random_keys(self, count: int) -> list[bytes]:
        """Some names; one may be there several times."""
        return [key for key in _accepted(self._source([commands.RANDOM_KEY] * count)) if key is not None]

    def values(self, keys: Sequence[bytes]) -> list[Value]:
        """The sizes and moments of keys; one that is no longer there is left out."""
        moments = self._moments(keys)
        return [
            Value(key, size, moment)
            for key, size, moment in zip(keys, self._sizes(keys), moments, strict=True)
            if moment != NO_KEY
        ]

    def entries(self, values: Sequence[Value], database: int, counts: Counts) -> Iterator[tuple[list[Entry], int]]:
        """The keys with their payloads, in batches, and the size of each batch. `counts` learns of those that are gone
        and those that clients cannot see.

        The moment of expiry is read before and after the payload. Where it has changed, the key was written in between
        and is read again: a value must not get the expiry of another one.
        """
        for batch in _batches(values):
            entries: list[Entry] = []
            left, tries = batch, 0
            while left:
                tries += 1
                left = self._read(left, database, counts, entries, last=tries == TRIES)
            if entries:
                yield entries, sum(value.size for value in batch)

    def _read(
        self, values: Sequence[Value], database: int, counts: Counts, entries: list[Entry], *, last: bool
    ) -> list[Value]:
        """Appends the entries of keys that did not change; returns the others."""
        keys = [value.key for value in values]
        self._source.send_each(commands.DUMP, keys)
        dumps: list[Any] = []
        after = self._moments(keys, dumps)
        changed = []
        for value, payload, moment in zip(values, dumps, after, strict=True):
            if isinstance(payload, Exception):
                if parse_redirect(str(payload)) is None:
                    raise SourceRejected(str(payload))
                counts.hidden += 1
            elif payload is None or moment == NO_KEY:
                counts.gone += 1
            elif not last and not _same_moment(value.moment, moment):
                changed.append(value._replace(moment=moment))
            else:
                entries.append(Entry(database, value.key, payload, 0 if moment == FOREVER else moment + self._shift_ms))
        return changed

    def _moments(self, keys: Sequence[bytes], before: list[Any] | None = None) -> list[int]:
        """When each key expires, by the clock of the source; FOREVER or NO_KEY. `before` receives as many replies as
        there are keys, to commands that were sent already.
        """
        if self._exact:
            self._source.send_each(commands.PEXPIRETIME, keys)
        else:
            self._source.send([commands.TIME])
            self._source.send_each(commands.PTTL, keys)
        if before is not None:
            before += self._source.receive_strings(len(keys))
        if self._exact:
            lines = self._source.receive_lines(len(keys))
            if lines.count(_FOREVER_LINE) == len(lines):
                return [FOREVER] * len(lines)
            if b"unknown command" in lines[0].lower():
                self._exact = False
                return self._moments(keys)
            return [_moment(line, 0) for line in lines]
        now = time_ms(_accepted(self._source.receive(1))[0])
        return [_moment(line, now) for line in self._source.receive_lines(len(keys))]

    def _sizes(self, keys: Sequence[bytes]) -> list[int]:
        """The estimated size of each key, bytes; 0 for one that is no longer there."""
        if not self._sizes_known:
            return [UNKNOWN_SIZE] * len(keys)
        head, tail = commands.memory_usage(SAMPLES)
        self._source.send_each(head, keys, tail)
        replies = [parsed_line(line) for line in self._source.receive_lines(len(keys))]
        if any(isinstance(reply, Exception) and parse_redirect(str(reply)) is None for reply in replies):
            self._sizes_known = False
            return self._sizes(keys)
        return [reply if isinstance(reply, int) else 0 for reply in replies]


def _moment(line: bytes, now_ms: int) -> int:
    """A key that a redirection is about counts as one that stays: reading its value shows that it is elsewhere."""
    if isinstance(reply := parsed_line(line), int):
        return reply if reply < 0 else now_ms + reply
    if isinstance(reply, Exception) and parse_redirect(str(reply)) is None:
        raise SourceRejected(str(reply))
    return FOREVER


def _same_moment(one: int, other: int) -> bool:
    return one == other or (min(one, other) >= 0 and abs(one - other) <= MOMENT_SLACK_MS)


def _batches(values: Sequence[Value]) -> Iterator[list[Value]]:
    """The values in their order, in batches of at most BATCH_BYTES; a bigger one alone."""
    batch: list[Value] = []
    total = 0
    for value in values:
        if batch and total + value.size > BATCH_BYTES:
            yield batch
            batch, total = [], 0
        batch.append(value)
        total += value.size
    if batch:
        yield batch


def _accepted(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise SourceRejected(str(reply))
    return replies
