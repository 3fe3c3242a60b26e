"""TODO"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from bootstrap.model.node import Address

SILENCE_LIMIT_MS = 1500
"""How long the two servers may hear nothing of each other within one MIGRATE of keys of common size; no longer than
half of the node timeout, where that is short."""
NAME_MAX = 100
"""Bytes of the name of a key that are shown."""
KEYS_MAX = 512
"""Keys in one MIGRATE."""
BATCH_BYTES = 1 << 20
"""About how much goes into one MIGRATE, unless one key alone is more."""
SAMPLES = 10_000
"""Elements by which a key is measured: all, where it has no more. By five, the servers' own number, a hash with a field
of 420 MB among small ones took 0.2 MB, and its MIGRATE eight seconds (*measured*)."""
BIG_BYTES_PER_S = 40 << 20
"""How slow a MIGRATE of a big key may be, dump, transfer and restore together, before it counts as hung."""
ROUND_MIN, ROUND_MAX = 1, 64
"""MIGRATEs that are sent in one go; a server does not look at other clients until it is through with them."""
FAST_S, SLOW_S = 0.01, 0.05
"""What took less is doubled, what took more is halved."""
_DATABASE = re.compile(rb"^db([0-9]{1,5}):", re.MULTILINE)

Command = tuple[str | bytes | int, ...]


class Talk(Protocol):
    """Sends commands to one server, all at once, and returns their replies; an error reply is one of them, and keys are
    bytes. Raises where the connection is lost.
    """

    def __call__(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to all commands, in their order."""
        ...

    def each(self, head: Command, keys: Sequence[bytes], tail: Command = ()) -> list[Any]:
        """The replies to the same command for each of many keys, which stands between its first and its last words."""
        ...


class CommandRejected(Exception):
    """A server did not take a command that the move needs; the text is its answer."""


class Batch(NamedTuple):
    """Keys of one slot that go in one MIGRATE, and about how much they take, bytes."""

    keys: tuple[bytes, ...]
    size: int


@dataclass(slots=True, kw_only=True)
class MigrateRoute:
    """The way from one server to another, as the source is told it."""

    source: Talk
    address: Address
    databases: tuple[int, ...]
    login: tuple[str, ...] = ()
    """AUTH or AUTH2 with its words, where the target wants them."""
    silence_max_ms: int = 60_000
    """How long a key may keep the two servers busy, milliseconds: its size is limited by that."""
    sizes_known: bool = True
    """False once a server has said that this user may not ask for the size of a key."""
    pipeline_depth: int = 4
    """MIGRATEs in one go, at present."""
    bytes_done: int = 0
    _database: int = 0

    def batches(self, database: int, slots: Sequence[int]) -> dict[int, list[Batch]]:
        """Some keys of each of the slots, in batches; a slot of which there are none in the database is left out."""
        self._select(database)
        replies = self._ask([("CLUSTER", "GETKEYSINSLOT", slot, KEYS_MAX) for slot in slots])
        sizes = iter(self._sizes([name for names in replies for name in names]))
        return {slot: list(_batches(names, sizes)) for slot, names in zip(slots, replies, strict=True) if names}

    def move(self, database: int, batches: Sequence[Batch]) -> None:
        """MIGRATE of these batches. Raises Failed with what the first one that was not taken was answered."""
        self._select(database)
        began = time.monotonic()
        commands = [self._migrate(database, batch) for batch in batches]
        replies = self.source(commands)
        for batch, reply in zip(batches, replies, strict=True):
            if isinstance(reply, Exception):
                raise CommandRejected(str(reply))
            self.bytes_done += batch.size
        took_s = time.monotonic() - began
        if took_s < FAST_S:
            self.pipeline_depth = min(ROUND_MAX, self.pipeline_depth * 2)
        elif took_s > SLOW_S:
            self.pipeline_depth = max(ROUND_MIN, self.pipeline_depth // 2)

    def databases_now(self) -> tuple[int, ...]:
        """The databases that hold keys, now that clients may have begun to use another one."""
        (told,) = self.source([("INFO", "keyspace")])
        if isinstance(told, bytes):
            found = {int(number) for number in _DATABASE.findall(told)}
            self.databases = tuple(sorted(found | set(self.databases)))
        return self.databases

    def back_to_first_database(self) -> None:
        """Leaves the connection as it was found."""
        self._select(0)

    def _migrate(self, database: int, batch: Batch) -> Command:
        common_ms = min(SILENCE_LIMIT_MS, self.silence_max_ms // 2)
        limit_ms = common_ms + batch.size * 1000 // BIG_BYTES_PER_S
        if len(batch.keys) == 1 and limit_ms > self.silence_max_ms:
            name = batch.keys[0][:NAME_MAX].decode(errors="backslashreplace")
            raise CommandRejected(
                f"the key {name!r} takes about {batch.size >> 20} MiB: moving it could keep its server silent "
                "for longer than cluster-node-timeout, and a replica would be elected; declare a longer one meanwhile"
            )
        where = (self.address.host, self.address.port)
        return ("MIGRATE", *where, "", database, limit_ms, "REPLACE", *self.login, "KEYS", *batch.keys)

    def _sizes(self, keys: Sequence[bytes]) -> list[int]:
        """About how much each key takes, bytes; one that has gone takes none."""
        if not self.sizes_known or not keys:
            return [BATCH_BYTES // KEYS_MAX] * len(keys)
        replies = self.source.each(("MEMORY", "USAGE"), keys, ("SAMPLES", SAMPLES))
        if any(isinstance(reply, Exception) and "permission" in str(reply) for reply in replies):
            self.sizes_known = False
            return self._sizes(keys)
        return [reply if isinstance(reply, int) else 0 for reply in replies]

    def _select(self, database: int) -> None:
        if database != self._database:
            self._ask([("SELECT", database)])
            self._database = database

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        return accepted(self.source(commands))


def _batches(keys: Sequence[bytes], sizes: Iterator[int]) -> Iterator[Batch]:
    """The keys in their order; the sizes are taken from the front."""
    names: list[bytes] = []
    total = 0
    for name, size in zip(keys, sizes, strict=False):
        if names and total + size > BATCH_BYTES:
            yield Batch(tuple(names), total)
            names, total = [], 0
        names.append(name)
        total += size
    if names:
        yield Batch(tuple(names), total)


def accepted(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise CommandRejected(str(reply))
    return replies
