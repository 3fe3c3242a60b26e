"""Which keys a node holds of which slots: counted for each slot, and compared by name between two nodes.

Counting all slots of a master takes one exchange of 5461 commands in a cluster of three. redis-py would take ten times
as long for it as the server, so these commands go through a `Pipeline`, on redis-py's connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from redis.connection import Connection

from bootstrap.errors import WireError
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import CloseSlot
from bootstrap.nodes import commands
from bootstrap.nodes.connection import ask_all, first_error
from bootstrap.nodes.pipeline import Pipeline
from bootstrap.nodes.wire.info import keys_by_database, parse_info

NAMES_MAX = 100_000
"""Names of keys that are read of one slot, at most. A slot with more is not compared."""


def count_keys(connection: Connection, *, databases: Sequence[int], slots: SlotSet) -> Mapping[int, int]:
    """Keys by slot, added up over the databases; slots without keys are left out. Raises the server's error reply."""
    found: dict[int, int] = {}
    with closing(Pipeline(connection)) as pipeline:
        for database in databases:
            for slot, keys in _counted(pipeline, database, slots).items():
                found[slot] = found.get(slot, 0) + keys
    return found


def held(pipeline: Pipeline, slots: SlotSet) -> Mapping[int, int]:
    """Keys by slot in all databases, as they are now; slots without keys are left out. Raises an error reply."""
    found: dict[int, int] = {}
    for database in _sizes(pipeline):
        for slot, keys in _counted(pipeline, database, slots).items():
            found[slot] = found.get(slot, 0) + keys
    return found


def count_left_over(connection: Connection, *, own: SlotSet) -> Mapping[int, int]:
    """Keys of slots other than a node's own, by slot, added up over its databases. Raises the server's error reply.

    A database whose keys are as many as those of the node's own slots has none of others, so most nodes are asked for
    their own slots alone. Clients add and remove keys meanwhile: where a database was bigger before or after than the
    sum, the other slots are counted themselves.
    """
    found: dict[int, int] = {}
    with closing(Pipeline(connection)) as pipeline:
        for database, before in _sizes(pipeline).items():
            counted = sum(_counted(pipeline, database, own).values())
            if max(before, _sizes(pipeline).get(database, 0)) > counted:
                for slot, keys in _counted(pipeline, database, own.complement()).items():
                    found[slot] = found.get(slot, 0) + keys
    return found


def names_in(
    connection: Connection, *, databases: Sequence[int], slots: Iterable[int]
) -> Mapping[int, frozenset[tuple[int, str]] | None]:
    """The keys of each slot, as database and name; None for a slot with too many. Raises the server's error reply.

    Names are bytes, and read as texts here: two different names may become the same text, never the other way round.
    """
    found: dict[int, frozenset[tuple[int, str]] | None] = {}
    for slot in slots:
        names: set[tuple[int, str]] = set()
        full = False
        for database in databases:
            asked = (commands.select(database), commands.get_keys(slot, NAMES_MAX), commands.select(0))
            replies = ask_all(connection, asked)
            if error := first_error(replies):
                raise error
            full = full or len(replies[1]) >= NAMES_MAX
            names |= {(database, name) for name in replies[1]}
        found[slot] = None if full else frozenset(names)
    return found


def _counted(pipeline: Pipeline, database: int, slots: SlotSet) -> Mapping[int, int]:
    """Keys by slot in one database; slots without keys are left out."""
    if database:
        _accepted(pipeline([commands.select(database)]))
    replies = pipeline.each(commands.COUNT_KEYS, [b"%d" % slot for slot in slots])
    if database:
        _accepted(pipeline([commands.select(0)]))
    return {slot: keys for slot, keys in zip(slots, _accepted(replies), strict=True) if keys}


def _sizes(pipeline: Pipeline) -> Mapping[int, int]:
    """Keys by database."""
    (reply,) = _accepted(pipeline([commands.KEYSPACE]))
    if not isinstance(reply, bytes):
        raise WireError(f"INFO: a text was expected, not {type(reply).__name__}")
    return keys_by_database(parse_info(reply.decode(errors="replace")))


def _accepted(replies: list[Any]) -> list[Any]:
    if error := first_error(replies):
        raise error
    return replies


def close_slot(connection: Connection, step: CloseSlot) -> Exception | None:
    """Closes a slot, and opens it again where it turns out to hold keys. Returns the error where there was one.

    While the owner redirects clients here, one of them may write a key between the count of the plan and this step. No
    key arrives at a closed slot, so the count after it is final; and a slot that is open on both sides, with the key in
    it, is a move that the next plan finishes.
    """
    replies = ask_all(connection, (commands.stable(step.slot), commands.count_keys(step.slot), commands.KEYSPACE))
    if error := first_error(replies):
        return error
    others = sorted(keys_by_database(parse_info(str(replies[2]))).keys() - {0})
    slots = SlotSet.of((step.slot, step.slot))
    arrived = replies[1] or (others and count_keys(connection, databases=others, slots=slots))
    if arrived and step.reopen_from is not None:
        return first_error(ask_all(connection, (commands.importing(step.slot, step.reopen_from),)))
    return None
