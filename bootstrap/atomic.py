"""Moving slots as one task of the servers themselves: Redis since 8.4 pulls it (told to the target, CLUSTER MIGRATION),
Valkey since 9.0 pushes it (told to the source, CLUSTER MIGRATESLOTS). Keys and slots change hands at once at its end;
until then every key stays where it was. The task outlives the connection that began it, not the restart of a node.

Two things differ and matter. On Redis a node takes part in one task at a time, and `failed` is not the end of one: the
target tries again each second until it is told to cancel. On Valkey a source has any number of tasks, which take their
snapshots one after the other, and `failed` is the end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bootstrap.errors import WireError
from bootstrap.model import NodeId
from bootstrap.slots import SlotSet

Ask = Callable[..., Any]
"""`ask(*words)` sends a command to one node and returns its reply, also when that is an error; a connection that dies
raises."""

BUSY_LIMIT_S = 30.0
"""How long a node may keep a task back, most often by another one, before that counts as an error."""
_WHY_MAX = 300
_NODE_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_COMPLETED = frozenset({"completed", "success"})
_CANCELLED = frozenset({"canceled", "cancelled"})
_BUSY = (
    "already in progress",
    "overlapping import exists",
    "trim job in progress",
    "already migrating",
    "invalid internal password",  # Redis, for a second after a node has joined: each must have heard of the new secret
)
"""Words of a server that may take the same task a moment later."""


class How(StrEnum):
    """How slots are moved between two nodes: whom a task is told to, or that there is none."""

    IMPORT = "import"
    """Redis since 8.4: told to the target."""
    EXPORT = "export"
    """Valkey since 9.0: told to the source."""
    KEYS = "keys"
    """Neither: slot by slot and key by key, with MIGRATE."""


def detect(ask: Ask) -> How:
    """What a node can do and this user may, in its own words: versions are not asked. All can do KEYS."""
    reply = ask("COMMAND", "INFO", "cluster|migration", "cluster|migrateslots")
    if not isinstance(reply, list) or len(reply) != 2:
        return How.KEYS
    imports, exports = (bool(found) and not isinstance(found, Exception) for found in reply)
    how = How.IMPORT if imports else How.EXPORT if exports else How.KEYS
    return How.KEYS if isinstance(_status(ask, how), Exception) else how


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One migration as one of its two nodes tells it, whoever began it. Both know it by the same id."""

    how: How
    task_id: str
    slots: SlotSet
    source: NodeId
    target: NodeId
    """Both empty where Valkey does not tell: a target that was restarted since, or a replica of it."""
    importing: bool
    """Told by the target."""
    state: str
    """The server's own word."""
    why: str
    """Its last error or message; empty while all is well."""

    @property
    def completed(self) -> bool:
        """Whether it succeeded, as far as this node knows."""
        return self.state in _COMPLETED

    @property
    def failed(self) -> bool:
        """Whether it failed. On Redis the target goes on trying until it is told to cancel."""
        return self.state == "failed"

    @property
    def over(self) -> bool:
        """Whether this node does nothing more for it."""
        tries_again = self.failed and self.importing and self.how is How.IMPORT
        return self.state in _COMPLETED | _CANCELLED or (self.failed and not tries_again)


def tasks(ask: Ask, how: How) -> tuple[Task, ...]:
    """All tasks that a node tells of, newest first: those that run and the last that are over (32 on Redis).

    An error reply means none. Raises WireError for a reply that is not what it should be.
    """
    return _told(_status(ask, how), how)


def _status(ask: Ask, how: How) -> Any:
    match how:
        case How.IMPORT:
            return ask("CLUSTER", "MIGRATION", "STATUS", "ALL")
        case How.EXPORT:
            return ask("CLUSTER", "GETSLOTMIGRATIONS")
        case How.KEYS:
            return []


def cancel(ask: Ask, how: How, task_id: str) -> Exception | None:
    """Ends a task, told to the one who was told to begin it; returns the error where there was one."""
    words = ("CLUSTER", "MIGRATION", "CANCEL", "ID", task_id)
    reply = ask(*words) if how is How.IMPORT else ask("CLUSTER", "CANCELSLOTMIGRATIONS")
    return reply if isinstance(reply, Exception) else None


class AtomicMove:
    """One task from its start to its end, a few questions at a time. A dead connection raises what `ask` raises; the
    next poll goes on from there.

    A task that runs already between these nodes for these slots is not begun again but followed: a run that was killed
    left it behind.
    """

    def __init__(  # noqa: PLR0917 - the two nodes come in the order of the move
        self,
        how: How,
        source_id: NodeId,
        target_id: NodeId,
        slots: SlotSet,
        ask_source: Ask,
        ask_target: Ask,
        *,
        busy_limit_s: float = BUSY_LIMIT_S,
    ) -> None:
        """Nothing is asked yet. Raises ValueError where there is nothing to move, or no way to."""
        if how is How.KEYS or not slots or source_id == target_id:
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
        answer = self._import(before) if self._how is How.IMPORT else self._export(before)
        if not isinstance(answer, Exception):
            self._task_id = answer
        elif not self._may_wait(_words(answer)):
            self.error = _words(answer)

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
        return reply if isinstance(reply, Exception) else _text(reply)

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
        other = self._find(self._ask_source if self._how is How.IMPORT else self._ask_target)
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
        return self._ask_target if self._how is How.IMPORT else self._ask_source

    def _told_by_leader(self) -> tuple[Task, ...]:
        return tasks(self._ask_leader, self._how)

    def _find(self, ask: Ask) -> Task | None:
        return next((task for task in tasks(ask, self._how) if task.task_id == self._task_id), None)

    def _running(self, told: tuple[Task, ...]) -> str:
        """The id of our task among those that the leader tells of, if it runs."""
        return next((task.task_id for task in told if self._is_ours(task) and not task.over and not task.failed), "")

    def _is_ours(self, task: Task) -> bool:
        leads = task.importing == (self._how is How.IMPORT)
        return leads and (task.source, task.target, task.slots) == (self._source_id, self._target_id, self._slots)

    def _words_of_slots(self) -> tuple[int, ...]:
        return tuple(slot for pair in self._slots.ranges for slot in pair)


def _told(reply: object, how: How) -> tuple[Task, ...]:
    if isinstance(reply, Exception):
        return ()
    if not isinstance(reply, list | tuple):
        raise WireError(f"slot migrations: a list was expected, not {type(reply).__name__}")
    return tuple(_task(_fields(each), how) for each in reply)


def _task(fields: Mapping[str, str], how: How) -> Task:
    names = ("id", "slots", "source", "dest", "last_error")
    if how is How.EXPORT:
        names = ("name", "slot_ranges", "source_node", "target_node", "message")
    if missing := {*names[:2], "operation", "state"} - fields.keys():
        raise WireError(f"slot migrations: a task without {', '.join(sorted(missing))}")
    task_id, slots, source, target, why = (fields.get(name, "") for name in names)
    operation = fields["operation"].lower()
    if operation not in ("import", "migrate", "export"):
        raise WireError(f"slot migrations: no operation: {operation[:80]!a}")
    return Task(
        how=how,
        task_id=task_id,
        slots=_slots(slots),
        source=_node_id(source) if source else "",
        target=_node_id(target) if target else "",
        importing=operation == "import",
        state=fields["state"].lower(),
        why=_words(why),
    )


def _fields(told: object) -> Mapping[str, str]:
    """A map, as it comes in RESP3, or a flat list of names and values, as in RESP2."""
    if isinstance(told, Mapping):
        return {_text(name): _text(value) for name, value in told.items()}
    if isinstance(told, list | tuple) and len(told) % 2 == 0:
        return {_text(name): _text(value) for name, value in zip(told[::2], told[1::2], strict=True)}
    raise WireError(f"slot migrations: a map was expected, not {type(told).__name__}")


def _slots(text: str) -> SlotSet:
    pairs = []
    for word in text.split():
        if not (found := _RANGE.fullmatch(word)):
            raise WireError(f"slot migrations: no slot range: {word[:80]!a}")
        pairs.append((int(found[1]), int(found[2] or found[1])))
    try:
        return SlotSet.of(*pairs)
    except ValueError as error:
        raise WireError(f"slot migrations: {error}") from error


def _node_id(text: str) -> NodeId:
    if not _NODE_ID.fullmatch(text):
        raise WireError(f"slot migrations: no node id: {text[:80]!a}")
    return text


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _words(said: object) -> str:
    """What a server said, on one line and of a bearable length: one quotes the other's line ends."""
    return " ".join(str(said).split())[:_WHY_MAX]
