"""TODO"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bootstrap.errors import WireError
from bootstrap.model.node import NodeId
from bootstrap.model.slots import SlotSet

Ask = Callable[..., Any]
"""`ask(*words)` sends a command to one node and returns its reply, also when that is an error; a connection that dies
raises."""
_WHY_MAX = 300
_NODE_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_COMPLETED = frozenset({"completed", "success"})
_CANCELLED = frozenset({"canceled", "cancelled"})


class MigrationMode(StrEnum):
    """How slots are moved between two nodes: whom a task is told to, or that there is none."""

    IMPORT = "import"
    """Redis since 8.4: told to the target."""
    EXPORT = "export"
    """Valkey since 9.0: told to the source."""
    KEYS = "keys"
    """Neither: slot by slot and key by key, with MIGRATE."""


def detect(ask: Ask) -> MigrationMode:
    """What a node can do and this user may, in its own words: versions are not asked. All can do KEYS."""
    reply = ask("COMMAND", "INFO", "cluster|migration", "cluster|migrateslots")
    if not isinstance(reply, list) or len(reply) != 2:
        return MigrationMode.KEYS
    imports, exports = (bool(found) and not isinstance(found, Exception) for found in reply)
    how = MigrationMode.IMPORT if imports else MigrationMode.EXPORT if exports else MigrationMode.KEYS
    return MigrationMode.KEYS if isinstance(_status(ask, how), Exception) else how


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One migration as one of its two nodes tells it, whoever began it. Both know it by the same id."""

    how: MigrationMode
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
        tries_again = self.failed and self.importing and self.how is MigrationMode.IMPORT
        return self.state in _COMPLETED | _CANCELLED or (self.failed and not tries_again)


def tasks(ask: Ask, how: MigrationMode) -> tuple[Task, ...]:
    """All tasks that a node tells of, newest first: those that run and the last that are over (32 on Redis).

    An error reply means none. Raises WireError for a reply that is not what it should be.
    """
    return _told(_status(ask, how), how)


def _status(ask: Ask, how: MigrationMode) -> Any:
    match how:
        case MigrationMode.IMPORT:
            return ask("CLUSTER", "MIGRATION", "STATUS", "ALL")
        case MigrationMode.EXPORT:
            return ask("CLUSTER", "GETSLOTMIGRATIONS")
        case MigrationMode.KEYS:
            return []


def cancel(ask: Ask, how: MigrationMode, task_id: str) -> Exception | None:
    """Ends a task, told to the one who was told to begin it; returns the error where there was one."""
    words = ("CLUSTER", "MIGRATION", "CANCEL", "ID", task_id)
    reply = ask(*words) if how is MigrationMode.IMPORT else ask("CLUSTER", "CANCELSLOTMIGRATIONS")
    return reply if isinstance(reply, Exception) else None


def _told(reply: object, how: MigrationMode) -> tuple[Task, ...]:
    if isinstance(reply, Exception):
        return ()
    if not isinstance(reply, list | tuple):
        raise WireError(f"slot migrations: a list was expected, not {type(reply).__name__}")
    return tuple(_task(_fields(each), how) for each in reply)


def _task(fields: Mapping[str, str], how: MigrationMode) -> Task:
    names = ("id", "slots", "source", "dest", "last_error")
    if how is MigrationMode.EXPORT:
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
        why=one_line(why),
    )


def _fields(told: object) -> Mapping[str, str]:
    """A map, as it comes in RESP3, or a flat list of names and values, as in RESP2."""
    if isinstance(told, Mapping):
        return {as_text(name): as_text(value) for name, value in told.items()}
    if isinstance(told, list | tuple) and len(told) % 2 == 0:
        return {as_text(name): as_text(value) for name, value in zip(told[::2], told[1::2], strict=True)}
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


def as_text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def one_line(said: object) -> str:
    """What a server said, on one line and of a bearable length: one quotes the other's line ends."""
    return " ".join(str(said).split())[:_WHY_MAX]
