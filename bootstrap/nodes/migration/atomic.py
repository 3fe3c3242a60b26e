"""Moving slots by the servers' own migrations: `MigrationTask` takes one from its start to its end, `AtomicMigration`
does a whole `MoveSlots` as a series of them. How the two servers differ stands in `transfer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from bootstrap.clock import Clock, Deadline
from bootstrap.model.node import NodeId, SlotMigration
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import MoveSlots
from bootstrap.nodes import commands
from bootstrap.nodes.connection import Ask
from bootstrap.nodes.migration.keys import already_there
from bootstrap.nodes.migration.mode import MigrationMode, cancel, reported_migrations
from bootstrap.nodes.wire.migrations import one_line
from bootstrap.nodes.wire.values import as_text

TASK_BYTES = 1 << 30
"""About how much data one migration of a server carries: one that is cut off begins anew."""
BUSY_LIMIT_S = 30.0
"""How long a node may reject a migration because it is busy, most often with another one, before that is an error."""
_BUSY = (
    "already in progress",
    "overlapping import exists",
    "trim job in progress",
    "already migrating",
    "invalid internal password",  # Redis, for a second after a node has joined: the new secret has to reach every node
)
"""Parts of error messages after which a server may accept the same migration a moment later."""


@dataclass(slots=True, kw_only=True)
class AtomicMigration:
    """One `MoveSlots` by the servers' own migrations, piece after piece."""

    step: MoveSlots
    mode: MigrationMode
    bytes_total: int
    ask_source: Ask
    ask_target: Ask
    held_by_target: Callable[[SlotSet], Mapping[int, int]]
    """Keys that the target holds of some slots, by slot. Raises what a lost connection raises."""
    clock: Clock
    slots_done: int = 0
    done: bool = False
    error: str = ""
    left: SlotSet = field(init=False)
    """Slots that have not arrived."""
    _task: MigrationTask | None = None
    _piece: SlotSet = field(default_factory=SlotSet)

    def __post_init__(self) -> None:
        self.left = self.step.slots

    @property
    def bytes_done(self) -> int:
        """The share of all data that belongs to the slots which have arrived."""
        return self.bytes_total * self.slots_done // len(self.step.slots)

    def advance(self, deadline: Deadline) -> None:  # noqa: ARG002 - a poll waits for nothing but replies
        """Starts the next migration, or polls the current one."""
        try:
            self._advance()
        except Exception as error:  # noqa: BLE001 - a lost connection raises any of many errors
            self.error = f"no answer: {error}"
        self.done = bool(self.error) or not self.left

    def _advance(self) -> None:
        if self._task is None:
            pieces = max(1, -(-self.bytes_total // TASK_BYTES))
            self._piece = self.left.lowest(-(-len(self.step.slots) // pieces))
            if found := self.held_by_target(self._piece):
                self.error = already_there(found)
                return
            self._task = MigrationTask(
                mode=self.mode,
                source_id=self.step.source,
                target_id=self.step.target,
                slots=self._piece,
                ask_source=self.ask_source,
                ask_target=self.ask_target,
                clock=self.clock,
            )
        self._task.poll()
        self.error = self._task.error
        if self._task.done:
            self.left -= self._piece
            self.slots_done += len(self._piece)
            self._task = None

    def close(self, deadline: Deadline) -> None:  # noqa: ARG002 - it is one command
        """Cancels the current migration: its slots stay with their source."""
        if self._task is not None and not self._task.done:
            self._task.cancel()


class MigrationTask:
    """One migration of the servers, from its start to its end, a few commands at a time. A lost connection raises what
    `ask` raises; the next poll continues from there.

    A migration that already runs between these nodes for these slots is followed instead of started again: a run that
    was killed left it behind.
    """

    def __init__(
        self,
        *,
        mode: MigrationMode,
        source_id: NodeId,
        target_id: NodeId,
        slots: SlotSet,
        ask_source: Ask,
        ask_target: Ask,
        clock: Clock,
        busy_limit_s: float = BUSY_LIMIT_S,
    ) -> None:
        """Sends nothing. Raises ValueError where there is nothing to move, or no such migration."""
        if mode is MigrationMode.KEYS or not slots or source_id == target_id:
            raise ValueError(
                f"no migration of {slots.listed() or 'no slots'} from {source_id} to {target_id} by {mode}"
            )
        self.done = False
        """It is completed on both sides. Whether every node knows the new owner is for the next look to find out."""
        self.error = ""
        """Set where it ended without success. The source then owns the slots, or the next look shows who does."""
        self._mode = mode
        self._source_id, self._target_id, self._slots = source_id, target_id, slots
        self._ask_source, self._ask_target = ask_source, ask_target
        self._clock = clock
        self._task_id = ""
        self._busy_limit_s = busy_limit_s
        self._busy_deadline: Deadline | None = None

    def poll(self) -> None:
        """Starts the migration, or asks for its state. Waits for replies and for nothing else."""
        if self.done or self.error:
            return
        if not self._task_id:
            self._start()
        if self._task_id:
            self._follow()

    def cancel(self) -> None:
        """Cancels the migration, as far as its leader can be reached. It may be too late: the next look shows who owns
        the slots. On Valkey this cancels **all** migrations of the source; see `mode.cancel`.
        """
        if self.done or self.error:
            return
        with suppress(Exception):
            if task_id := self._task_id or self._running_id(self._reported_by_leader()):
                cancel(self._ask_leader, self._mode, task_id)
        self.error = "the migration was cancelled"

    def _start(self) -> None:
        """Sends the command to the leader, unless the migration already runs or the source is busy."""
        before = self._reported_by_leader()
        self._task_id = self._running_id(before)
        if self._task_id:
            return
        started = self._import(before) if self._mode is MigrationMode.IMPORT else self._export(before)
        if not isinstance(started, Exception):
            self._task_id = started
        elif not self._may_wait(one_line(started)):
            self.error = one_line(started)

    def _import(self, before: tuple[SlotMigration, ...]) -> str | Exception:
        """The id of the migration that the target has started, or why it did not."""
        # The target would accept the migration, find the source busy, and try again only a second later.
        if any(not each.over and not each.failed for each in reported_migrations(self._ask_source, self._mode)):
            return RuntimeError("another migration of the source is already in progress")
        for each in before:
            # A failed one that is retried for ever blocks every other migration of its slots.
            if each.importing and each.failed and each.slots & self._slots:
                cancel(self._ask_target, self._mode, each.task_id)
        reply = self._ask_target(*commands.migration_import(self._slots))
        return reply if isinstance(reply, Exception) else as_text(reply)

    def _export(self, before: tuple[SlotMigration, ...]) -> str | Exception:
        """The id of the migration that the source has started, or why it did not."""
        reply = self._ask_source(*commands.migrate_slots(self._slots, self._target_id))
        if isinstance(reply, Exception):
            return reply
        # The reply is only OK. The migration is the newest one of these slots that was not there before.
        known = {each.task_id for each in before}
        new = (each for each in self._reported_by_leader() if each.task_id not in known)
        started = next((each.task_id for each in new if self._is_ours(each)), None)
        return started or RuntimeError("the source accepted the migration and does not list it")

    def _follow(self) -> None:
        reported = self._find(self._ask_leader)
        if reported is None:
            self.error = "the node that led the migration does not list it any more: the node may have been restarted"
        elif reported.failed and not reported.over:
            self._failed_on_target(reported)
        elif reported.over and not reported.completed:
            self.error = reported.why or f"the migration is {reported.state}"
        elif reported.source != self._source_id:
            # Redis's command names no source: the target imports from the node that owns the slots in its view.
            self.cancel()
            self.error = f"in the target's view {reported.source} owns the slots"
        elif reported.completed:
            self._follow_other_side()

    def _follow_other_side(self) -> None:
        """The leader has completed the migration; the other side does so within moments."""
        other = self._find(self._ask_source if self._mode is MigrationMode.IMPORT else self._ask_target)
        if other is None or other.completed:
            # A node that was restarted since does not list it any more.
            self.done = True
        elif other.over:
            self.error = f"completed on one side, {other.state} on the other: {other.why}"

    def _failed_on_target(self, reported: SlotMigration) -> None:
        """On Redis, where the target tries again for ever. That is left to it while the reason may pass by itself."""
        if self._may_wait(reported.why):
            return
        self.cancel()
        self.error = reported.why or "the migration failed"

    def _may_wait(self, why: str) -> bool:
        """Whether a node is only busy, and not yet for too long."""
        if not any(part in why.lower() for part in _BUSY):
            return False
        if self._busy_deadline is None:
            self._busy_deadline = Deadline.after(self._busy_limit_s, self._clock)
        return not self._busy_deadline.passed

    @property
    def _ask_leader(self) -> Ask:
        return self._ask_target if self._mode is MigrationMode.IMPORT else self._ask_source

    def _reported_by_leader(self) -> tuple[SlotMigration, ...]:
        return reported_migrations(self._ask_leader, self._mode)

    def _find(self, ask: Ask) -> SlotMigration | None:
        return next((each for each in reported_migrations(ask, self._mode) if each.task_id == self._task_id), None)

    def _running_id(self, reported: tuple[SlotMigration, ...]) -> str:
        """The id of this migration among those that the leader reports; empty where it does not run."""
        running = (each for each in reported if not each.over and not each.failed)
        return next((each.task_id for each in running if self._is_ours(each)), "")

    def _is_ours(self, reported: SlotMigration) -> bool:
        ours = (self._source_id, self._target_id, self._slots)
        return self._mode.led_by(reported) and (reported.source, reported.target, reported.slots) == ours
