"""Moving keys with MIGRATE, slot by slot: `KeyMigration` does a whole `MoveSlots`, `move_keys` the keys of one slot
whose move was left half-way. Why the order of the commands is safe stands in `transfer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bootstrap.clock import Deadline
from bootstrap.model.left_over import in_words
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import MoveKeys, MoveSlots
from bootstrap.nodes import commands
from bootstrap.nodes.counting import held
from bootstrap.nodes.migration.route import FAST_S, SLOW_S, Batch, CommandRejected, MigrateRoute, accepted
from bootstrap.nodes.pipeline import Pipeline

BIG_KEY_BYTES = 16 << 20
"""A key of that size moves alone, after all others: its MIGRATE blocks both servers for long."""
SLOTS_MIN, SLOTS_MAX = 8, 256
"""Slots that are open at the same time. Clients may have to retry commands on several keys of an open slot."""
CLAIM_LIMIT_S = 0.25
"""How long to wait until the source has received the target's claim to its slots."""
_NOT_A_MASTER = "setslot only with"
"""Part of the error of a source that received the target's claim first: drained, it has become a replica by itself."""


def move_keys(route: MigrateRoute, step: MoveKeys, *, deadline: Deadline) -> Exception | None:
    """Moves the keys of one open slot until none is left, or until the deadline, after which no MIGRATE is started.
    Returns the error where there was one.
    """
    try:
        for database in step.databases:
            while batches := route.batches(database, (step.slot,)).get(step.slot):
                for batch in batches:
                    if deadline.passed:
                        return None
                    route.move(database, (batch,))
    except CommandRejected as error:
        return error
    else:
        return None
    finally:
        route.select_first_database()


@dataclass(slots=True, kw_only=True)
class KeyMigration:
    """One `MoveSlots` by MIGRATE: some slots are opened, drained and assigned to the target, then the next ones."""

    step: MoveSlots
    route: MigrateRoute
    target: Pipeline
    slots_done: int = 0
    done: bool = False
    error: str = ""
    """Why it ended before all slots had moved. A slot that is half moved stays open, for the next plan."""
    _open: list[int] = field(default_factory=list)
    _with_big_keys: list[int] = field(default_factory=list)
    """Open slots whose big keys have still to move."""
    _work: Iterator[None] | None = None

    @property
    def bytes_done(self) -> int:
        """The estimated size of the keys that have moved."""
        return self.route.bytes_done

    def advance(self, deadline: Deadline) -> None:
        """Moves slots until the deadline, or to the end. It can be exceeded by the length of one round of MIGRATEs."""
        self._work = self._work or self._all()
        try:
            for _ in self._work:
                if deadline.passed:
                    return
            self.done = True
        except CommandRejected as error:
            self.error, self.done = str(error), True
        except Exception as error:  # noqa: BLE001 - a lost connection raises any of many errors
            self.error, self.done = f"no answer: {error}", True

    def close(self, deadline: Deadline) -> None:
        """Finishes the open slots, big keys aside, so that no slot is left half moved if time allows."""
        while not self.done and set(self._open) - set(self._with_big_keys) and not deadline.passed:
            self.advance(deadline.sooner(0.001))

    def _all(self) -> Iterator[None]:
        self._check_target(self.step.slots)
        clock = self.route.clock
        left, width = self.step.slots, SLOTS_MIN * 2
        while left:
            window = left.lowest(width)
            left -= window
            began = clock.now()
            yield from self._window(window)
            took_s = clock.now() - began
            width = min(SLOTS_MAX, width * 2) if took_s < 10 * FAST_S else width
            width = max(SLOTS_MIN, width // 2) if took_s > 10 * SLOW_S else width
            yield
        for slot in list(self._with_big_keys):
            yield from self._drain([slot], spare_big_keys=False)
            self._assign([slot])
            yield

    def _window(self, window: SlotSet) -> Iterator[None]:
        slots = list(window)
        self._check_target(window)
        self._open = [*self._with_big_keys, *slots]
        accepted(self.target([commands.importing(slot, self.step.source) for slot in slots]))
        self._mark_migrating(slots)
        yield from self._drain(slots, spare_big_keys=True)
        self._assign([slot for slot in slots if slot not in self._with_big_keys])

    def _check_target(self, slots: SlotSet) -> None:
        """Of all slots before the first one moves, and of each again before it is opened."""
        if found := held(self.target, slots):
            raise CommandRejected(already_there(found))

    def _drain(self, slots: list[int], *, spare_big_keys: bool) -> Iterator[None]:
        """Moves keys until none of these slots has any, in any database; slots with big keys are left for the end."""
        drained: set[int] = set()
        while left := [database for database in self.route.databases_now() if database not in drained]:
            drained.add(left[0])
            yield from self._drain_database(left[0], slots, spare_big_keys=spare_big_keys)
        self.route.select_first_database()

    def _drain_database(self, database: int, slots: list[int], *, spare_big_keys: bool) -> Iterator[None]:
        busy = slots
        while busy:
            batches = self.route.batches(database, busy)
            if spare_big_keys:
                big = [slot for slot, found in batches.items() if any(_is_big(batch) for batch in found)]
                self._with_big_keys += [slot for slot in big if slot not in self._with_big_keys]
            ready = [each for found in batches.values() for each in found if not (spare_big_keys and _is_big(each))]
            while ready:
                now, ready = ready[: self.route.pipeline_depth], ready[self.route.pipeline_depth :]
                self.route.move(database, now)
                yield
            busy = [slot for slot in batches if slot not in self._with_big_keys or not spare_big_keys]

    def _assign(self, slots: list[int]) -> None:
        """Makes the target the owner: at the target first, which takes a new epoch, then at the source, which refuses
        while it still holds a key.

        The source gets its command once it has received the target's claim. Earlier, the source would take a packet
        that the target sent a moment ago for doubt about the last of these slots, and Redis 7.0 keeps that doubt: if
        the slot ever comes back, a packet that its other owner sent a moment before takes it away again, and the keys
        are dropped (*measured*; fixed in later versions).
        """
        # A source that was demoted in the meantime rejects this: its keys are another master's now, and still come.
        self._mark_migrating(slots)
        assigning = [commands.assign(slot, self.step.target) for slot in slots]
        accepted(self.target(assigning))
        self._await_claim(slots)
        accepted([reply for reply in self.route.source(assigning) if _NOT_A_MASTER not in str(reply).lower()])
        self.slots_done += len(slots)
        self._open = [slot for slot in self._open if slot not in slots]
        self._with_big_keys = [slot for slot in self._with_big_keys if slot not in slots]

    def _await_claim(self, slots: list[int]) -> None:
        """Returns when the source owns none of these slots any more, which its refusal to migrate the last one shows,
        or after a while: the bus may be slow. The time that each reply takes is pause enough.
        """
        if not slots:
            return
        deadline = Deadline.after(CLAIM_LIMIT_S, self.route.clock)
        question = commands.migrating(slots[-1], self.step.target)
        while not deadline.passed and not isinstance(self.route.source([question])[0], Exception):
            pass

    def _mark_migrating(self, slots: list[int]) -> None:
        accepted(self.route.source([commands.migrating(slot, self.step.target) for slot in slots]))


def already_there(found: Mapping[int, int]) -> str:
    """Why slots do not move to a node that already holds keys of them: with the slots it would show these to clients,
    which have never seen them there.
    """
    slots = SlotSet.of(*((slot, slot) for slot in found))
    return f"the target already holds {sum(found.values())} keys of {in_words(slots)}, left over from another move"


def _is_big(batch: Batch) -> bool:
    return batch.size > BIG_KEY_BYTES
