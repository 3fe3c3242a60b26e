"""One direction between two servers: reads the keys of slots at the source, measures them, and sends MIGRATE in batches
that block neither server for long. Which slots, and when they change their owner, belongs in `keys`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bootstrap.clock import Clock
from bootstrap.model.node import Address
from bootstrap.nodes import commands
from bootstrap.nodes.commands import Command
from bootstrap.nodes.pipeline import Pipeline
from bootstrap.nodes.wire.info import databases_of, parse_info

IDLE_LIMIT_MS = 1500
"""How long the two servers may exchange nothing within one MIGRATE of keys of common size; less where half of the node
timeout is less."""
NAME_MAX = 100
"""Bytes of a key's name that a message shows."""
KEYS_MAX = 512
"""Keys in one MIGRATE."""
BATCH_BYTES = 1 << 20
"""About how much data goes in one MIGRATE, unless one key alone is bigger."""
SAMPLES = 10_000
"""Elements by which a key is measured: all of them, where it has no more. By five, the servers' default, a hash with a
field of 420 MB among small ones was estimated at 0.2 MB, and its MIGRATE took eight seconds (*measured*)."""
BIG_BYTES_PER_S = 40 << 20
"""How slow a MIGRATE of a big key may be (dump, transfer and restore together) before it counts as hung."""
DEPTH_MIN, DEPTH_MAX = 1, 64
"""MIGRATEs sent together; a server serves no other client until it has done them all."""
FAST_S, SLOW_S = 0.01, 0.05
"""MIGRATEs that took less are doubled in number, ones that took more are halved."""


class CommandRejected(Exception):
    """A server rejected a command that the move needs; the text is its error reply."""


class Batch(NamedTuple):
    """Keys of one slot that go in one MIGRATE, and their estimated size, bytes."""

    keys: tuple[bytes, ...]
    size: int


@dataclass(slots=True, kw_only=True)
class MigrateRoute:
    """From one server to another, by commands to the source."""

    source: Pipeline
    address: Address
    """The target's."""
    databases: tuple[int, ...]
    clock: Clock
    login: tuple[str, ...] = ()
    """AUTH or AUTH2 with its arguments, where the target requires them."""
    blocked_max_ms: int = 60_000
    """How long one key may block the two servers, milliseconds. It limits the size of a key that moves."""
    sizes_known: bool = True
    """False once the source has denied MEMORY USAGE to this user."""
    pipeline_depth: int = 4
    """How many MIGRATEs are sent together, at present."""
    bytes_done: int = 0
    _database: int = 0

    def batches(self, database: int, slots: Sequence[int]) -> dict[int, list[Batch]]:
        """Some keys of each slot, in batches; a slot without keys in the database is left out."""
        self._select(database)
        replies = accepted(self.source([commands.get_keys(slot, KEYS_MAX) for slot in slots]))
        sizes = iter(self._sizes([name for names in replies for name in names]))
        return {slot: list(_batches(names, sizes)) for slot, names in zip(slots, replies, strict=True) if names}

    def move(self, database: int, batches: Sequence[Batch]) -> None:
        """Sends MIGRATE for each batch. Raises CommandRejected with the first error reply."""
        self._select(database)
        began = self.clock.now()
        replies = self.source([self._migrate(database, batch) for batch in batches])
        if self.login[:1] == ("AUTH2",) and any(_is_syntax_error(reply) for reply in replies):
            self.login = ("AUTH", *self.login[2:])  # Redis 5 has no user names, and took the password alone
            replies = self.source([self._migrate(database, batch) for batch in batches])
        for batch, reply in zip(batches, replies, strict=True):
            if isinstance(reply, Exception):
                raise CommandRejected(str(reply))
            self.bytes_done += batch.size
        took_s = self.clock.now() - began
        if took_s < FAST_S:
            self.pipeline_depth = min(DEPTH_MAX, self.pipeline_depth * 2)
        elif took_s > SLOW_S:
            self.pipeline_depth = max(DEPTH_MIN, self.pipeline_depth // 2)

    def databases_now(self) -> tuple[int, ...]:
        """The databases that hold keys, asked anew: clients may have begun to use another one."""
        (reply,) = self.source([commands.KEYSPACE])
        if isinstance(reply, bytes):
            found = databases_of(parse_info(reply.decode(errors="replace")))
            self.databases = tuple(sorted(found | set(self.databases)))
        return self.databases

    def select_first_database(self) -> None:
        """Leaves the connection as it was at the start."""
        self._select(0)

    def _migrate(self, database: int, batch: Batch) -> Command:
        idle_ms = min(IDLE_LIMIT_MS, self.blocked_max_ms // 2)
        limit_ms = idle_ms + batch.size * 1000 // BIG_BYTES_PER_S
        if len(batch.keys) == 1 and limit_ms > self.blocked_max_ms:
            name = batch.keys[0][:NAME_MAX].decode(errors="backslashreplace")
            raise CommandRejected(
                f"the key {name!r} takes about {batch.size >> 20} MiB: moving it could block its master for longer "
                "than cluster-node-timeout, and a replica would be elected; set BOOTSTRAP_NODE_TIMEOUT_MS higher "
                "until it has moved"
            )
        return commands.migrate(self.address, database, batch.keys, timeout_ms=limit_ms, login=self.login)

    def _sizes(self, keys: Sequence[bytes]) -> list[int]:
        """The estimated size of each key, bytes; 0 for one that no longer exists."""
        if not self.sizes_known or not keys:
            return [BATCH_BYTES // KEYS_MAX] * len(keys)
        head, tail = commands.memory_usage(SAMPLES)
        replies = self.source.each(head, keys, tail)
        if any(isinstance(reply, Exception) and "permission" in str(reply) for reply in replies):
            self.sizes_known = False
            return self._sizes(keys)
        return [reply if isinstance(reply, int) else 0 for reply in replies]

    def _select(self, database: int) -> None:
        if database != self._database:
            accepted(self.source([commands.select(database)]))
            self._database = database


def _is_syntax_error(reply: object) -> bool:
    return isinstance(reply, Exception) and "syntax error" in str(reply)


def accepted(replies: list[Any]) -> list[Any]:
    """The replies. Raises CommandRejected with the first error among them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise CommandRejected(str(reply))
    return replies


def _batches(keys: Sequence[bytes], sizes: Iterator[int]) -> Iterator[Batch]:
    """The keys in their order, in batches of at most BATCH_BYTES; takes as many sizes as there are keys."""
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
