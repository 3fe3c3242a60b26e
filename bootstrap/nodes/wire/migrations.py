"""Replies about slot migrations that the servers do by themselves: CLUSTER MIGRATION STATUS (Redis since 8.4),
CLUSTER GETSLOTMIGRATIONS (Valkey since 9.0), and COMMAND INFO, which shows whether a server has these commands.

The two servers name the same facts differently. A reply is a list of maps in RESP3, of flat lists in RESP2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bootstrap.errors import WireError
from bootstrap.model.node import SlotMigration
from bootstrap.model.slots import SlotSet
from bootstrap.nodes.wire.values import as_text, node_id, quote, slot_range

WHY_MAX = 300
"""Characters of a server's explanation that are kept."""


class _Fields(NamedTuple):
    """What a kind of server calls the facts about a migration."""

    task_id: str
    slots: str
    source: str
    target: str
    why: str


_REDIS = _Fields("id", "slots", "source", "dest", "last_error")
_VALKEY = _Fields("name", "slot_ranges", "source_node", "target_node", "message")


def parse_migration_status(reply: object) -> tuple[SlotMigration, ...]:
    """CLUSTER MIGRATION STATUS ALL, in the server's order: newest first. Raises WireError for any other reply."""
    return tuple(_migration(fields, _REDIS, target_retries=True) for fields in _maps(reply))


def parse_slot_migrations(reply: object) -> tuple[SlotMigration, ...]:
    """CLUSTER GETSLOTMIGRATIONS, in the server's order: newest first. Raises WireError for any other reply."""
    return tuple(_migration(fields, _VALKEY, target_retries=False) for fields in _maps(reply))


def parse_known_commands(reply: object, count: int) -> tuple[bool, ...]:
    """COMMAND INFO of `count` commands: which of them the server has. None of them where the reply is an error."""
    if not isinstance(reply, list) or len(reply) != count:
        return (False,) * count
    return tuple(bool(found) and not isinstance(found, Exception) for found in reply)


def one_line(message: object) -> str:
    """A server's message on one line, cut to a readable length: a message may quote another server's line ends."""
    return " ".join(str(message).split())[:WHY_MAX]


def _migration(fields: Mapping[str, str], names: _Fields, *, target_retries: bool) -> SlotMigration:
    if missing := {names.task_id, names.slots, "operation", "state"} - fields.keys():
        raise WireError(f"slot migrations: an entry without {', '.join(sorted(missing))}")
    task_id, slots, source, target, why = (fields.get(name, "") for name in names)
    operation = fields["operation"].lower()
    if operation not in ("import", "migrate", "export"):
        raise WireError(f"slot migrations: not an operation: {quote(operation)}")
    importing = operation == "import"
    return SlotMigration(
        task_id=task_id,
        slots=_slots(slots),
        source=node_id(source, "slot migrations") if source else "",
        target=node_id(target, "slot migrations") if target else "",
        importing=importing,
        state=fields["state"].lower(),
        retries=importing and target_retries,
        why=one_line(why),
    )


def _maps(reply: object) -> list[Mapping[str, str]]:
    if not isinstance(reply, list | tuple):
        raise WireError(f"slot migrations: a list was expected, not {type(reply).__name__}")
    return [_map(entry) for entry in reply]


def _map(entry: object) -> Mapping[str, str]:
    if isinstance(entry, Mapping):
        return {as_text(name): as_text(value) for name, value in entry.items()}
    if isinstance(entry, list | tuple) and len(entry) % 2 == 0:
        return {as_text(name): as_text(value) for name, value in zip(entry[::2], entry[1::2], strict=True)}
    raise WireError(f"slot migrations: a map was expected, not {type(entry).__name__}")


def _slots(text: str) -> SlotSet:
    pairs = []
    for word in text.split():
        if not (pair := slot_range(word)):
            raise WireError(f"slot migrations: not a slot range: {quote(word)}")
        pairs.append(pair)
    try:
        return SlotSet.of(*pairs)
    except ValueError as error:
        raise WireError(f"slot migrations: {error}") from error
