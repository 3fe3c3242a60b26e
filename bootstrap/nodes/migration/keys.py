"""Moving keys from one server to another with MIGRATE, slot by slot: for servers that cannot move slots by themselves,
and for slots whose move was left half-way.

While a slot is open its source sends clients that name a key which it has not to the target, so no key can come new to
the source. When the source holds none of the slot any more, the target takes it, and only then the source lets go.
The servers serve nobody during one MIGRATE, so what goes into one is bounded by bytes and by the time it took.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bootstrap.model.node import NodeId
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import MoveKeys, MoveSlots
from bootstrap.nodes.migration.route import FAST_S, SLOW_S, Command, CommandRejected, MigrateRoute, Talk, accepted

MOMENT_S = 1.0
"""How long one conversation with a server goes on; what is left then is found by the next look."""
BIG_KEY_BYTES = 16 << 20
"""A key of that size goes alone, after all others: its MIGRATE keeps both servers busy for long."""
SLOTS_MIN, SLOTS_MAX = 8, 256
"""Slots that are open at once; commands on several keys of an open slot may have to be tried again by clients."""

HEARING_S = 0.25
"""How long a source is given to hear that its slots have been taken."""

_NO_MASTER = "setslot only with"
"""Words of a source that has heard of the target's claim first: drained, it has become a replica by itself."""


def move_keys(route: MigrateRoute, step: MoveKeys, *, ends: float) -> Exception | None:
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
    except CommandRejected as error:
        return error
    else:
        return None
    finally:
        route.back_to_first_database()


@dataclass(slots=True, kw_only=True)
class KeyMigration:
    """One `MoveSlots` by MIGRATE: some slots are opened, emptied and handed over, then the next ones."""

    step: MoveSlots
    route: MigrateRoute
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

    def advance(self, ends: float) -> None:
        """Goes on until that moment of the monotonic clock, or to the end. What lasts longest is one MIGRATE."""
        self._work = self._work or self._all()
        try:
            for _ in self._work:
                if time.monotonic() >= ends:
                    return
            self.done = True
        except CommandRejected as error:
            self.error, self.done = str(error), True
        except Exception as error:  # noqa: BLE001 - a lost connection, in any of the ways in which it shows
            self.error, self.done = f"no answer: {error}", True

    def close(self, ends: float) -> None:
        """Goes on with the slots that are open, big keys aside, so that none is left half moved if time allows."""
        while not self.done and set(self._open) - set(self._late) and time.monotonic() < ends:
            self.advance(min(ends, time.monotonic() + 0.001))

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
        accepted(self.target([("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id) for slot in slots]))
        accepted(self.route.source([("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id) for slot in slots]))
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
                    now, small = small[: self.route.pipeline_depth], small[self.route.pipeline_depth :]
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
        accepted(self.route.source([("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id) for slot in slots]))
        taking: list[Command] = [("CLUSTER", "SETSLOT", slot, "NODE", target_id) for slot in slots]
        accepted(self.target(taking))
        self._until_source_has_heard(slots)
        accepted([reply for reply in self.route.source(taking) if _NO_MASTER not in str(reply).lower()])
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
