"""Moving keys from one server to another with MIGRATE, slot by slot: for servers that cannot move slots by themselves,
and for slots whose move was left half-way.

While a slot is open its source sends clients that name a key which it has not to the target, so no key can come new to
the source. When the source holds none of the slot any more, the target takes it, and only then the source lets go.
The servers serve nobody during one MIGRATE, so what goes into one is bounded by bytes and by the time it took.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from bootstrap.model import Address, NodeId
from bootstrap.slots import SlotSet
from bootstrap.steps import MoveKeys, MoveSlots

MOMENT_S = 1.0
"""How long one conversation with a server goes on; what is left then is found by the next look."""
SILENCE_LIMIT_MS = 1500
"""How long the two servers may hear nothing of each other within one MIGRATE of keys of common size; no longer than
half of the node timeout, where that is short."""
NAME_MAX = 100
"""Bytes of the name of a key that are shown."""
KEYS_MAX = 512
"""Keys in one MIGRATE."""
BATCH_BYTES = 1 << 20
"""About how much goes into one MIGRATE, unless one key alone is more."""
BIG_KEY_BYTES = 16 << 20
"""A key of that size goes alone, after all others: its MIGRATE keeps both servers busy for long."""
SAMPLES = 10_000
"""Elements by which a key is measured: all, where it has no more. By five, the servers' own number, a hash with a field
of 420 MB among small ones took 0.2 MB, and its MIGRATE eight seconds (*measured*)."""
BIG_BYTES_PER_S = 40 << 20
"""How slow a MIGRATE of a big key may be, dump, transfer and restore together, before it counts as hung."""
SLOTS_MIN, SLOTS_MAX = 8, 256
"""Slots that are open at once; commands on several keys of an open slot may have to be tried again by clients."""
ROUND_MIN, ROUND_MAX = 1, 64
"""MIGRATEs that are sent in one go; a server does not look at other clients until it is through with them."""
FAST_S, SLOW_S = 0.01, 0.05
"""What took less is doubled, what took more is halved."""

HEARING_S = 0.25
"""How long a source is given to hear that its slots have been taken."""

_NO_MASTER = "setslot only with"
"""Words of a source that has heard of the target's claim first: drained, it has become a replica by itself."""
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


class Failed(Exception):
    """A server did not take a command that the move needs; the text is its answer."""


class Batch(NamedTuple):
    """Keys of one slot that go in one MIGRATE, and about how much they take, bytes."""

    keys: tuple[bytes, ...]
    size: int


@dataclass(slots=True, kw_only=True)
class Route:
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
    together: int = 4
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
                raise Failed(str(reply))
            self.bytes_done += batch.size
        took_s = time.monotonic() - began
        if took_s < FAST_S:
            self.together = min(ROUND_MAX, self.together * 2)
        elif took_s > SLOW_S:
            self.together = max(ROUND_MIN, self.together // 2)

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
            raise Failed(
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
        return _good(self.source(commands))


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


def move_keys(route: Route, step: MoveKeys, *, ends: float) -> Exception | None:
    """Moves the keys of one open slot for a moment, or until none is left; returns the error where there was one.
    `ends` is the moment after which nothing more is begun, on the monotonic clock.
    """
    try:
        for database in step.databases:
            while batches := route.batches(database, (step.slot,)).get(step.slot):
                for batch in batches:
                    if time.monotonic() >= ends:
                        return None
                    route.move(database, (batch,))
    except Failed as error:
        return error
    else:
        return None
    finally:
        route.back_to_first_database()


@dataclass(slots=True, kw_only=True)
class KeyMove:
    """One `MoveSlots` by MIGRATE: some slots are opened, emptied and handed over, then the next ones."""

    step: MoveSlots
    route: Route
    target: Talk
    slots_done: int = 0
    done: bool = False
    error: str = ""
    """Why it came to an end before all had been moved. A slot that is half moved then stays so, for the next plan."""
    _open: list[int] = field(default_factory=list)
    _late: list[int] = field(default_factory=list)
    """Open slots with big keys."""
    _work: Iterator[None] | None = None

    @property
    def bytes_done(self) -> int:
        """About how much has been moved."""
        return self.route.bytes_done

    def go_on(self, ends: float) -> None:
        """Goes on until that moment of the monotonic clock, or to the end. What lasts longest is one MIGRATE."""
        self._work = self._work or self._all()
        try:
            for _ in self._work:
                if time.monotonic() >= ends:
                    return
            self.done = True
        except Failed as error:
            self.error, self.done = str(error), True
        except Exception as error:  # noqa: BLE001 - a lost connection, in any of the ways in which it shows
            self.error, self.done = f"no answer: {error}", True

    def close(self, ends: float) -> None:
        """Goes on with the slots that are open, big keys aside, so that none is left half moved if time allows."""
        while not self.done and set(self._open) - set(self._late) and time.monotonic() < ends:
            self.go_on(min(ends, time.monotonic() + 0.001))

    def _all(self) -> Iterator[None]:
        left, width = self.step.slots, SLOTS_MIN * 2
        while left:
            window = left.lowest(width)
            left -= window
            began = time.monotonic()
            yield from self._window(window)
            took_s = time.monotonic() - began
            width = min(SLOTS_MAX, width * 2) if took_s < 10 * FAST_S else width
            width = max(SLOTS_MIN, width // 2) if took_s > 10 * SLOW_S else width
            yield
        for slot in list(self._late):
            yield from self._drain([slot], spare_big_keys=False)
            self._hand_over([slot])
            yield

    def _window(self, window: SlotSet) -> Iterator[None]:
        slots = list(window)
        source_id, target_id = self.step.source, self.step.target
        self._open = [*self._late, *slots]
        _good(self.target([("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id) for slot in slots]))
        _good(self.route.source([("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id) for slot in slots]))
        yield from self._drain(slots, spare_big_keys=True)
        self._hand_over([slot for slot in slots if slot not in self._late])

    def _drain(self, slots: list[int], *, spare_big_keys: bool) -> Iterator[None]:
        """Until a look finds no key of them, in any database; slots with big keys are put off."""
        emptied: set[int] = set()
        while left := [database for database in self.route.databases_now() if database not in emptied]:
            database, busy = left[0], slots
            emptied.add(database)
            while busy:
                batches = self.route.batches(database, busy)
                if spare_big_keys:
                    big = [slot for slot, found in batches.items() if any(b.size > BIG_KEY_BYTES for b in found)]
                    self._late += [slot for slot in big if slot not in self._late]
                small = [
                    b for found in batches.values() for b in found if not spare_big_keys or b.size <= BIG_KEY_BYTES
                ]
                while small:
                    now, small = small[: self.route.together], small[self.route.together :]
                    self.route.move(database, now)
                    yield
                busy = [slot for slot in batches if slot not in self._late or not spare_big_keys]
        self.route.back_to_first_database()

    def _hand_over(self, slots: list[int]) -> None:
        """The target first, with a new epoch, then the source, which refuses while it still holds a key.

        The source is told when it has heard. Told before, it takes what the target said a moment ago for doubt about
        the last of these slots, and Redis 7.0 keeps that doubt: should the slot ever come back, then whatever its other
        owner said a moment ago takes it away again, and the keys are dropped (*measured*; mended in later versions).
        """
        target_id: NodeId = self.step.target
        # One that has handed its own place over meanwhile takes no mark: its keys are another's now, and still come.
        _good(self.route.source([("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id) for slot in slots]))
        taking: list[Command] = [("CLUSTER", "SETSLOT", slot, "NODE", target_id) for slot in slots]
        _good(self.target(taking))
        self._until_source_has_heard(slots)
        _good([reply for reply in self.route.source(taking) if _NO_MASTER not in str(reply).lower()])
        self.slots_done += len(slots)
        self._open = [slot for slot in self._open if slot not in slots]
        self._late = [slot for slot in self._late if slot not in slots]

    def _until_source_has_heard(self, slots: list[int]) -> None:
        """Returns when the source owns none of these slots any more, or after a while: the bus may be slow. Each
        question takes as long as its way there and back, and is pause enough.
        """
        if not slots:
            return
        ends = time.monotonic() + HEARING_S
        claim: Command = ("CLUSTER", "SETSLOT", slots[-1], "MIGRATING", self.step.target)
        while time.monotonic() < ends and not isinstance(self.route.source([claim])[0], Exception):
            pass


def _good(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise Failed(str(reply))
    return replies
