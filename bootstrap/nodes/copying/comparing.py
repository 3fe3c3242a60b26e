"""Whether keys are the same at both sides. Their contents are read and compared, not their dumps: those of another
version of a server differ for the same content. Elements of sets and hashes have no order; that of all others counts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bootstrap.model.copying import shown
from bootstrap.model.node import Address
from bootstrap.nodes import commands
from bootstrap.nodes.commands import Command
from bootstrap.nodes.pipeline import Pipeline

SAMPLE_KEYS = 500
KEY_BYTES_MAX = 1 << 16
"""Bigger keys are not compared: reading all of one blocks its server."""
SAMPLES = 5
"""Elements of a key whose size is measured; all of them would block the server, too."""
MOMENT_SLACK_MS = 2000
NAMES_SHOWN = 5

_CONTENTS: Mapping[bytes, tuple[tuple[Command, Command], ...]] = {
    b"string": ((("GET",), ()),),
    b"list": ((("LRANGE",), (0, -1)),),
    b"set": ((("SMEMBERS",), ()),),
    b"zset": ((("ZRANGE",), (0, -1, "WITHSCORES")),),
    b"hash": ((("HGETALL",), ()),),
    b"stream": ((("XRANGE",), ("-", "+")), (("XINFO", "GROUPS"), ())),
}
"""The commands that show the content of a key, by its type: their words before and after the key."""
_GROUP_FACTS = (b"name", b"consumers", b"pending", b"last-delivered-id")
"""What a group has on every version."""

Ask = Callable[[Sequence[bytes], Command, Command], list[Any]]
"""The replies to one command for each of many keys."""


class Sample:
    """Keys chosen at random from all that pass by, each with the same chance: reservoir sampling, of which algorithm L
    (Li 1994) draws a number for each key that is chosen, and not for each that passes.
    """

    def __init__(self, most: int = SAMPLE_KEYS) -> None:
        self.keys: list[tuple[Address, int, bytes]] = []
        """The server and the database at the source, and the name of each."""
        self._most, self._passed = most, 0
        self._share, self._next = 1.0, -1
        """The next key that is chosen, counted from the first that passed; -1 while all are."""

    def add(self, server: Address, database: int, keys: Sequence[bytes]) -> None:
        """Some keys pass by."""
        first = self._most - len(self.keys)
        self.keys += [(server, database, key) for key in keys[:first]]
        if self._next < 0 and len(self.keys) == self._most:
            self._next = self._most - 1
            self._draw()
        while self._passed <= self._next < self._passed + len(keys):
            self.keys[random.randrange(self._most)] = (server, database, keys[self._next - self._passed])  # noqa: S311
            self._draw()
        self._passed += len(keys)

    def _draw(self) -> None:
        """Chooses how many keys pass before the next one is taken."""
        self._share *= math.exp(math.log(1 - random.random()) / self._most)  # noqa: S311 - a sample, no secret
        skipped = math.log(1 - random.random()) / math.log1p(-self._share) if self._share < 1 else 0  # noqa: S311
        self._next += math.floor(skipped) + 1


@dataclass(slots=True)
class Comparer:
    """Compares the keys of one database of one server with the target's."""

    source: Pipeline
    target: Ask
    compared: int = 0
    differing: list[str] = field(default_factory=list)

    def compare(self, keys: Sequence[bytes]) -> None:
        """Reads keys at both sides. One that differs is read again: it may have been written between the two reads.
        Keys that are gone from the source, are too big or have a type of a module are left out.
        """
        here = self._readable(keys)
        if differing := self._differing(here):
            differing = self._differing(differing)
        self.compared += len(here)
        self.differing += map(shown, differing)

    def _readable(self, keys: Sequence[bytes]) -> list[bytes]:
        head, tail = commands.memory_usage(SAMPLES)
        sizes = self.source.each(head, keys, tail)
        types = self.source.each(commands.TYPE, keys)
        return [
            key
            for key, size, kind in zip(keys, sizes, types, strict=True)
            if not (isinstance(size, int) and size > KEY_BYTES_MAX) and str(kind).encode() in _CONTENTS
        ]

    def _differing(self, keys: Sequence[bytes]) -> list[bytes]:
        """A key that is gone from the source does not differ."""
        ours, theirs = contents(self._ask_source, keys), contents(self.target, keys)
        return [
            key
            for key, here, there in zip(keys, ours, theirs, strict=True)
            if here is not None and not self._alike(here, there)
        ]

    def _alike(self, here: tuple[Any, int], there: tuple[Any, int] | None) -> bool:
        if there is None and 0 <= here[1] < MOMENT_SLACK_MS:
            return True  # it expires at this moment
        if there is None or here[0] != there[0] or (here[1] < 0) != (there[1] < 0):
            return False
        return here[1] < 0 or abs(here[1] - there[1]) <= MOMENT_SLACK_MS

    def _ask_source(self, keys: Sequence[bytes], head: Command, tail: Command) -> list[Any]:
        return self.source.each(head, keys, tail)


def contents(ask: Ask, keys: Sequence[bytes]) -> list[tuple[Any, int] | None]:
    """The content of each key, as a value that is equal for equal content, and the milliseconds that it has to live, -1
    for ever; None for a key that is not there or cannot be read.
    """
    found: dict[bytes, list[Any]] = {}
    left = dict(zip(keys, ask(keys, commands.PTTL, ()), strict=True))
    by_type: dict[bytes, list[bytes]] = {}
    for key, kind in zip(keys, ask(keys, commands.TYPE, ()), strict=True):
        by_type.setdefault(str(kind).encode(), []).append(key)
    for kind, names in by_type.items():
        for head, tail in _CONTENTS.get(kind, ()):
            for key, reply in zip(names, ask(names, head, tail), strict=True):
                found.setdefault(key, [kind]).append(_canonical(kind, head, reply))
    return [
        (found[key], left[key]) if key in found and isinstance(left[key], int) and left[key] != -2 else None
        for key in keys
    ]


def _canonical(kind: bytes, head: Command, reply: Any) -> Any:
    if isinstance(reply, Exception):
        return str(reply)
    if kind == b"set":
        return sorted(reply)
    if kind == b"zset":  # versions print the same score with more or fewer digits
        return [(member, float(score)) for member, score in zip(reply[::2], reply[1::2], strict=True)]
    if kind == b"hash":
        return sorted(zip(reply[::2], reply[1::2], strict=True))
    if head[0] == "XINFO":
        groups = [dict(zip(map(_as_bytes, each[::2]), each[1::2], strict=True)) for each in reply]
        return sorted([str(group.get(name)) for name in _GROUP_FACTS] for group in groups)
    return bytes(reply) if isinstance(reply, bytearray) else reply


def _as_bytes(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()
