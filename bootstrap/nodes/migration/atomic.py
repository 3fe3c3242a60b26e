"""Moving slots as one task of the servers themselves: Redis since 8.4 pulls it (told to the target, CLUSTER MIGRATION),
Valkey since 9.0 pushes it (told to the source, CLUSTER MIGRATESLOTS). Keys and slots change hands at once at its end;
until then every key stays where it was. The task outlives the connection that began it, not the restart of a node.

Two things differ and matter. On Redis a node takes part in one task at a time, and `failed` is not the end of one: the
target tries again each second until it is told to cancel. On Valkey a source has any number of tasks, which take their
snapshots one after the other, and `failed` is the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bootstrap.model.node import NodeId
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import MoveSlots
from bootstrap.nodes.migration.tasks import Ask, MigrationMode, Task, as_text, cancel, one_line, tasks

TASK_BYTES = 1 << 30
"""About how much data goes in one migration of a server: what is cut off there has to begin anew."""


@dataclass(slots=True, kw_only=True)
class AtomicMigration:
    """One `MoveSlots` by the servers' own migrations, piece after piece."""

    step: MoveSlots
    how: MigrationMode
    bytes_total: int
    ask_source: Callable[..., Any]
    ask_target: Callable[..., Any]
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
        """The part of all data that belongs to the slots which have arrived."""
        return self.bytes_total * self.slots_done // len(self.step.slots)

    def advance(self, ends: float) -> None:  # noqa: ARG002 - a poll waits for nothing but replies
        """Begins the next migration, or asks how it is."""
        if self._task is None:
            pieces = max(1, -(-self.bytes_total // TASK_BYTES))
            self._piece = self.left.lowest(-(-len(self.step.slots) // pieces))
            where = (self.step.source, self.step.target, self._piece, self.ask_source, self.ask_target)
            self._task = MigrationTask(self.how, *where)
        try:
            self._task.poll()
        except Exception as error:  # noqa: BLE001 - a lost connection, in any of the ways in which it shows
            self.error = f"no answer: {error}"
        self.error = self.error or self._task.error
        if self._task.done:
            self.left -= self._piece
            self.slots_done += len(self._piece)
            self._task = None
        self.done = bool(self.error) or not self.left

    def close(self, ends: float) -> None:  # noqa: ARG002 - it is one question
        """Cancels what is on its way: the slots stay with their source."""
        if self._task is not None and not self._task.done:
            self._task.cancel()


BUSY_LIMIT_S = 30.0
"""How long a node may keep a task back, most often by another one, before that counts as an error."""
_BUSY = (
    "already in progress",
    "overlapping import exists",
    "trim job in progress",
    "already migrating",
    "invalid internal password",  # Redis, for a second after a node has joined: each must have heard of the new secret
)
"""Words of a server that may take the same task a moment later."""


class MigrationTask:
    """One task from its start to its end, a few questions at a time. A dead connection raises what `ask` raises; the
    next poll goes on from there.

    A task that runs already between these nodes for these slots is not begun again but followed: a run that was killed
    left it behind.
    """

    def __init__(  # noqa: PLR0917 - the two nodes come in the order of the move
        self,
        how: MigrationMode,
        source_id: NodeId,
        target_id: NodeId,
        slots: SlotSet,
        ask_source: Ask,
        ask_target: Ask,
        *,
        busy_limit_s: float = BUSY_LIMIT_S,
    ) -> None:
        """Nothing is asked yet. Raises ValueError where there is nothing to move, or no way to."""
        if how is MigrationMode.KEYS or not slots or source_id == target_id:
            raise ValueError(f"no task moves {slots or 'no slots'} from {source_id} to {target_id} by {how}")
        self.done = False
        """It is completed on both sides. That every node knows the new owner is seen by looking at them."""
        self.error = ""
        """Set where it ended without success. The source then has the slots, or the next look at the nodes tells."""
        self._how = how
        self._source_id, self._target_id, self._slots = source_id, target_id, slots
        self._ask_source, self._ask_target = ask_source, ask_target
        self._task_id = ""
        self._busy_limit_s = busy_limit_s
        self._busy_since: float | None = None

    def poll(self) -> None:
        """Begins the task, or asks how it is. Never waits for more than replies."""
        if self.done or self.error:
            return
        if not self._task_id:
            self._begin()
        if self._task_id:
            self._follow()

    def cancel(self) -> None:
        """Ends the task, as far as it can be reached. It may be too late: the next look tells who has the slots.

        Valkey cancels **all** tasks of which the node is the source: it knows no other way.
        """
        if self.done or self.error:
            return
        with suppress(Exception):
            if task_id := self._task_id or self._running(self._told_by_leader()):
                cancel(self._ask_leader, self._how, task_id)
        self.error = "it was cancelled"

    def _begin(self) -> None:
        """Tells the leader, unless it has begun already or the source is busy."""
        before = self._told_by_leader()
        self._task_id = self._running(before)
        if self._task_id:
            return
        answer = self._import(before) if self._how is MigrationMode.IMPORT else self._export(before)
        if not isinstance(answer, Exception):
            self._task_id = answer
        elif not self._may_wait(one_line(answer)):
            self.error = one_line(answer)

    def _import(self, before: tuple[Task, ...]) -> str | Exception:
        """The id of the task that the target has begun, or why not."""
        # The target would take the task, find the source busy, and try again only a second later.
        if any(not task.over and not task.failed for task in tasks(self._ask_source, self._how)):
            return RuntimeError("another task of the source is already in progress")
        for task in before:
            # One that failed, and is tried again for ever, stands in the way of others with its slots.
            if task.importing and task.failed and task.slots & self._slots:
                cancel(self._ask_target, self._how, task.task_id)
        reply = self._ask_target("CLUSTER", "MIGRATION", "IMPORT", *self._words_of_slots())
        return reply if isinstance(reply, Exception) else as_text(reply)

    def _export(self, before: tuple[Task, ...]) -> str | Exception:
        """The id of the task that the source has begun, or why not."""
        words = ("SLOTSRANGE", *self._words_of_slots(), "NODE", self._target_id)
        reply = self._ask_source("CLUSTER", "MIGRATESLOTS", *words)
        if isinstance(reply, Exception):
            return reply
        # It is only told OK. The newest of these slots that was not there before is meant.
        known = {task.task_id for task in before}
        begun = (task.task_id for task in self._told_by_leader() if task.task_id not in known and self._is_ours(task))
        return next(begun, None) or RuntimeError("the source took the task, and tells nothing of it")

    def _follow(self) -> None:
        leader = self._find(self._ask_leader)
        if leader is None:
            self.error = "the node that was told knows the task no more; it may have been restarted"
        elif leader.failed and not leader.over:
            self._failed_on_target(leader)
        elif leader.over and not leader.completed:
            self.error = leader.why or f"it is {leader.state}"
        elif leader.source != self._source_id:
            # The words that begin a task on Redis name no source: it is whoever the target takes for the owner.
            self.cancel()
            self.error = f"the target takes {leader.source} for the owner of the slots"
        elif leader.completed:
            self._follow_to_the_end()

    def _follow_to_the_end(self) -> None:
        """The leader is content; the other side follows within moments."""
        other = self._find(self._ask_source if self._how is MigrationMode.IMPORT else self._ask_target)
        if other is None or other.completed:
            # It may know nothing of it any more, having been restarted since.
            self.done = True
        elif other.over:
            self.error = f"completed on one side, {other.state} on the other: {other.why}"

    def _failed_on_target(self, task: Task) -> None:
        """On Redis, where it would go on trying for ever. What goes by is left to that."""
        if self._may_wait(task.why):
            return
        self.cancel()
        self.error = task.why or "it failed"

    def _may_wait(self, why: str) -> bool:
        """Whether it is only that a node is busy, and not yet for too long."""
        if not any(words in why.lower() for words in _BUSY):
            return False
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        return now - self._busy_since < self._busy_limit_s

    @property
    def _ask_leader(self) -> Ask:
        """The one who is told."""
        return self._ask_target if self._how is MigrationMode.IMPORT else self._ask_source

    def _told_by_leader(self) -> tuple[Task, ...]:
        return tasks(self._ask_leader, self._how)

    def _find(self, ask: Ask) -> Task | None:
        return next((task for task in tasks(ask, self._how) if task.task_id == self._task_id), None)

    def _running(self, told: tuple[Task, ...]) -> str:
        """The id of our task among those that the leader tells of, if it runs."""
        return next((task.task_id for task in told if self._is_ours(task) and not task.over and not task.failed), "")

    def _is_ours(self, task: Task) -> bool:
        leads = task.importing == (self._how is MigrationMode.IMPORT)
        return leads and (task.source, task.target, task.slots) == (self._source_id, self._target_id, self._slots)

    def _words_of_slots(self) -> tuple[int, ...]:
        return tuple(slot for pair in self._slots.ranges for slot in pair)
