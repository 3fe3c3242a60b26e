"""One import on the wire: passes over all keys of a source, each restored at its owner, and the samples compared.

Values come by DUMP and go by RESTORE through this program, not by MIGRATE: so the source needs no way to the pods, no
password and no certificate of theirs, and does not wait for them. A key is restored as a whole or not at all, and one
that exists at the target is not read, so another run continues where one has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from typing import Any

from redis.connection import Connection
from redis.exceptions import RedisError

from bootstrap.errors import WireError
from bootstrap.model.copying import Comparison, Counts, Entry, Source, SourceServer
from bootstrap.model.node import Address
from bootstrap.model.unreachable import UnreachableReason
from bootstrap.nodes import commands
from bootstrap.nodes.commands import Command
from bootstrap.nodes.connection import ask
from bootstrap.nodes.copying.comparing import Comparer, Sample
from bootstrap.nodes.copying.flight import Flight
from bootstrap.nodes.copying.owners import Owners, RestoreRejected
from bootstrap.nodes.copying.reading import BATCH_BYTES, Reader
from bootstrap.nodes.copying.source import SourceFinder, SourceUnusable
from bootstrap.nodes.failures import Failure, classify_error
from bootstrap.nodes.membership import libraries
from bootstrap.nodes.pipeline import Pipeline
from bootstrap.nodes.wire.info import parse_info, parse_server
from bootstrap.nodes.wire.source import time_ms

PROBED_KEYS = 200
"""Keys by which the target shows, before anything is written, whether it reads the dumps of the source."""
PROBED_BYTES_MAX = 1 << 20
ESTIMATE_KEYS = 500
LONG_AGO_MS = 1
"""A key restored with this moment of expiry has expired: the server reads its payload and keeps nothing."""


@dataclass(slots=True, kw_only=True)
class Copier:
    """Copies from one source. Each method that reads raises SourceUnusable where the source ends the connection, and
    SourceRejected; each that writes, Stalled and RestoreRejected.
    """

    finder: SourceFinder
    owners: Owners
    databases: Mapping[int, int]
    """Of the source → of the target."""
    shift_ms: int = 0
    """By how much the clock of the target is ahead."""
    copied: Sample = field(default_factory=Sample)
    existing: Sample = field(default_factory=Sample)

    def copy(
        self, source: Source, *, replace: bool, counts: Counts, asking: bool, checking: bool = False
    ) -> Iterator[None]:
        """One pass over all keys. Those that the target has are left alone, or replaced. Yields often, always between
        two exchanges; `counts` has what was done until then. With `asking`, the target is asked which keys it has,
        before they are read; where it has few of them, that takes more time than it saves. With `checking`, keys that
        exist are not of interest.
        """
        for server in source.servers:
            with self._reading(server) as (_, reader):
                for database in sorted(self.databases.keys() & server.keys.keys()):
                    reader.select(database)
                    under_way = _UnderWay(self, (server.address, database), counts, replace)
                    yield from self._copy_database(reader, under_way, asking=asking, checking=checking)

    def _copy_database(self, reader: Reader, under_way: _UnderWay, *, asking: bool, checking: bool) -> Iterator[None]:
        """While the target restores one batch, the source is asked for the next one."""
        counts, target = under_way.counts, self.databases[under_way.place[1]]
        for page in reader.pages():
            under_way.land()
            wanted = self.owners.missing(target, page) if asking else page
            counts.seen += len(page)
            counts.existing += len(page) - len(wanted)
            if len(wanted) < len(page) and not checking:
                self.existing.add(*under_way.place, sorted(set(page) - set(wanted)))
            values = reader.values(wanted)
            counts.gone += len(wanted) - len(values)
            yield
            for entries, size in reader.entries(values, target, counts):
                under_way.land()
                yield
                under_way.start(entries, size)
        under_way.land()
        yield

    def unreadable(self, source: Source) -> str:
        """Why the target does not read the dumps of the source, with the name of a key; "" where it reads those of the
        first keys. Nothing is kept: they are restored as keys that expired long ago, under a name that no key has.
        """
        for server in source.servers:
            with self._reading(server) as (_, reader):
                for database in sorted(self.databases.keys() & server.keys.keys()):
                    reader.select(database)
                    page = next(reader.pages())[:PROBED_KEYS]
                    values = [value for value in reader.values(page) if value.size <= PROBED_BYTES_MAX]
                    for entries, _ in reader.entries(values, self.databases[database], Counts()):
                        if why := self._probe(entries):
                            return why
        return ""

    def _probe(self, entries: Sequence[Entry]) -> str:
        token = token_hex(8)
        probes = [
            entry._replace(key=b"bootstrap:import:%s:%d" % (token.encode(), number), expires_ms=LONG_AGO_MS)
            for number, entry in enumerate(entries)
        ]
        rejected = self.owners.rejected(self.owners.restore(probes, replace=False))
        for entry, probe in zip(entries, probes, strict=True):
            if (text := rejected.get(probe.key)) is None:
                continue
            error = RestoreRejected(entry.key, text)
            if not error.unreadable:
                raise error
            return f"{entry.name!r}: {text}"
        return ""

    def missing_share(self, source: Source) -> float:
        """Which part of the keys the target lacks, from 0 to 1, estimated by keys that the source chooses at random."""
        asked, missing = 0, 0
        for server in source.servers:
            with self._reading(server) as (_, reader):
                for database in sorted(self.databases.keys() & server.keys.keys()):
                    reader.select(database)
                    keys = reader.random_keys(ESTIMATE_KEYS)
                    asked += len(keys)
                    missing += len(self.owners.missing(self.databases[database], keys))
        return missing / asked if asked else 1.0

    def compare(self, source: Source, sample: Sample) -> Comparison:
        """Reads the keys of a sample at both sides."""
        compared, differing = 0, []
        for server in source.servers:
            places: dict[int, list[bytes]] = {}
            for where, database, key in sample.keys:
                if where == server.address:
                    places.setdefault(database, []).append(key)
            if not places:
                continue
            with self._reading(server) as (pipeline, reader):
                for database, keys in places.items():
                    reader.select(database)
                    comparer = Comparer(pipeline, partial(self._ask, self.databases[database]))
                    comparer.compare(keys)
                    compared += comparer.compared
                    differing += comparer.differing
        return Comparison(compared=compared, differing=tuple(differing))

    def _ask(self, database: int, keys: Sequence[bytes], head: Command, tail: Command) -> list[Any]:
        return self.owners.ask(database, keys, head, tail)

    @contextmanager
    def _reading(self, server: SourceServer) -> Iterator[tuple[Pipeline, Reader]]:
        """A connection to a server of the source, whose end becomes a SourceUnusable."""
        with ExitStack() as stack:
            connection = self.finder.raw_connection(server.address)
            stack.callback(connection.disconnect)
            try:
                _same_server(connection, server)
                pipeline = Pipeline(connection)
                stack.callback(pipeline.close)
                yield pipeline, Reader(pipeline, shift_ms=self.shift_ms)
            except (RedisError, OSError, WireError) as error:
                raise SourceUnusable(server.address, classify_error(error)) from error


def _same_server(connection: Connection, server: SourceServer) -> None:
    """A name may lead to another server with every connection, as that of a Service does. Raises SourceUnusable
    where it is not the one that was looked at, or has been started again: keys would be left out.
    """
    reply = ask(connection, *commands.SERVER)
    run_id = parse_server(parse_info(reply)).run_id if isinstance(reply, str) else ""
    if run_id and server.counters.run_id and run_id != server.counters.run_id:
        why = "another server answers there now: it was restarted, or the name stands for several; name one server"
        raise SourceUnusable(server.address, Failure(UnreachableReason.AMBIGUOUS, why))


@dataclass(slots=True)
class _UnderWay:
    """The batch that the target restores while the source is asked for the next one."""

    copier: Copier
    place: tuple[Address, int]
    """The server of the source, and the database there."""
    counts: Counts
    replace: bool
    _flight: Flight | None = None
    _size: int = 0

    def start(self, entries: list[Entry], size: int) -> None:
        """Sends a batch, which is empty from then on; `size` is its estimated size, bytes."""
        self._flight, self._size = self.copier.owners.restore(entries, replace=self.replace), size
        entries.clear()  # the flight has them: a large value must not be in memory twice
        if size > BATCH_BYTES:
            self.land()

    def land(self) -> None:
        """Waits for the batch that is under way, if there is one."""
        if self._flight is None:
            return
        flight, self._flight = self._flight, None
        existing = frozenset(self.copier.owners.restored(flight))
        copied = [key for key in flight.keys if key not in existing] if existing else flight.keys
        self.counts.existing += len(existing)
        self.counts.copied += len(copied)
        self.counts.bytes_copied += self._size
        self.copier.copied.add(*self.place, copied)
        self.copier.existing.add(*self.place, sorted(existing))


def rejected_databases(connection: Connection, databases: Sequence[int]) -> Mapping[int, str]:
    """The databases that a server does not let this user select, with its words."""
    try:
        replies = Pipeline(connection)([commands.select(database) for database in databases])
    finally:
        connection.disconnect()
    return {
        number: str(reply) for number, reply in zip(databases, replies, strict=True) if isinstance(reply, Exception)
    }


def clock_ms(connection: Connection) -> int:
    """The clock of a server, Unix time in milliseconds. Ends the connection."""
    try:
        return time_ms(Pipeline(connection)([commands.TIME])[0])
    finally:
        connection.disconnect()


def load_functions(
    connection: Connection, code: Mapping[str, str], *, replace: bool
) -> tuple[frozenset[str], Mapping[str, str]]:
    """Loads function libraries, code by name, that a server lacks, or all of them; returns the names of those loaded,
    and of the others the error. Ends the connection.
    """
    try:
        known = frozenset() if replace else libraries(partial(ask, connection)) or frozenset()
        loaded, errors = set(), {}
        for name in sorted(code.keys() - known):
            if isinstance(reply := ask(connection, *commands.function_load(code[name])), Exception):
                errors[name] = str(reply)
            else:
                loaded.add(name)
        return frozenset(loaded), errors
    finally:
        connection.disconnect()
