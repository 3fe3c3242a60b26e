"""The servers' own slot migrations, from replies of real servers: Redis 8.10.2 and Valkey 9.1.2."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.errors import WireError
from bootstrap.model.node import SlotMigration
from bootstrap.model.slots import SlotSet
from bootstrap.nodes.connection import Ask
from bootstrap.nodes.migration.mode import MigrationMode, detect_mode, reported_migrations
from tests.nodes.migration_replies import (
    REJECTED_BY_SOURCE,
    REJECTED_BY_TARGET,
    SOURCE,
    TARGET,
    TASK,
    redis_entry,
    valkey_entry,
)

MIGRATION = ["cluster|migration", -4, ["admin", "stale", "no_async_loading"], 0, 0, 0, ["@admin"], [], [], []]
MIGRATESLOTS = ["cluster|migrateslots", *MIGRATION[1:]]


def mapped(flat: list[Any]) -> dict[Any, Any]:
    """The same in RESP3."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def in_bytes(flat: list[Any]) -> list[Any]:
    """The same from a connection that does not decode."""
    return [each.encode() if isinstance(each, str) else each for each in flat]


def replying(reply: object) -> Ask:
    """A node that gives one reply to every command."""
    return lambda *_words: reply


def only(reply: list[Any], mode: MigrationMode) -> SlotMigration:
    (migration,) = reported_migrations(replying([reply]), mode)
    return migration


@pytest.mark.parametrize(
    ("reply", "mode"),
    [
        ([MIGRATION, None], MigrationMode.IMPORT),
        ([None, MIGRATESLOTS], MigrationMode.EXPORT),
        ([None, None], MigrationMode.KEYS),
        ([[], []], MigrationMode.KEYS),
        (Exception("User bob has no permissions to run the 'command|info' command"), MigrationMode.KEYS),
        (Exception("unknown command 'COMMAND'"), MigrationMode.KEYS),
        (None, MigrationMode.KEYS),
        ("OK", MigrationMode.KEYS),
    ],
)
def test_a_node_is_asked_for_the_command_and_not_for_its_version(reply: object, mode: MigrationMode) -> None:
    """A server that does not have the command, or denies the question, moves keys one by one, as every server can."""
    assert detect_mode(replying(reply)) is mode


@pytest.mark.parametrize("form", [list, mapped, in_bytes], ids=["flat", "map", "bytes"])
@pytest.mark.parametrize(
    ("reply", "mode", "importing", "retries", "state", "why"),
    [
        (redis_entry("accumulate-buffer"), MigrationMode.IMPORT, True, True, "accumulate-buffer", ""),
        (
            redis_entry("send-bulk-and-stream", operation="migrate"),
            MigrationMode.IMPORT,
            False,
            False,
            "send-bulk-and-stream",
            "",
        ),
        (
            redis_entry("failed", error=REJECTED_BY_SOURCE),
            MigrationMode.IMPORT,
            True,
            True,
            "failed",
            REJECTED_BY_SOURCE,
        ),
        (valkey_entry("snapshotting"), MigrationMode.EXPORT, False, False, "snapshotting", ""),
        (
            valkey_entry("receiving-snapshot", operation="IMPORT"),
            MigrationMode.EXPORT,
            True,
            False,
            "receiving-snapshot",
            "",
        ),
        (
            valkey_entry("failed", message=REJECTED_BY_TARGET),
            MigrationMode.EXPORT,
            False,
            False,
            "failed",
            REJECTED_BY_TARGET.strip(),
        ),
    ],
)
def test_a_migration_is_read_alike_from_both_servers(
    reply: list[Any], mode: MigrationMode, form: Any, importing: bool, retries: bool, state: str, why: str
) -> None:
    """Redis and Valkey name the same facts differently."""
    assert only(form(reply), mode) == SlotMigration(
        task_id=TASK,
        slots=SlotSet.of((100, 1999)),
        source=SOURCE,
        target=TARGET,
        importing=importing,
        retries=retries,
        state=state,
        why=why,
    )


@pytest.mark.parametrize(
    ("reply", "mode", "over", "failed", "completed"),
    [
        (redis_entry("wait-stream-eof"), MigrationMode.IMPORT, False, False, False),
        (redis_entry("completed"), MigrationMode.IMPORT, True, False, True),
        (redis_entry("canceled", error="Cancelled due to user request"), MigrationMode.IMPORT, True, False, False),
        (redis_entry("failed", error=REJECTED_BY_SOURCE), MigrationMode.IMPORT, False, True, False),
        (redis_entry("failed", operation="migrate"), MigrationMode.IMPORT, True, True, False),
        (valkey_entry("failover-granted"), MigrationMode.EXPORT, False, False, False),
        (valkey_entry("success"), MigrationMode.EXPORT, True, False, True),
        (valkey_entry("cancelled"), MigrationMode.EXPORT, True, False, False),
        (valkey_entry("failed"), MigrationMode.EXPORT, True, True, False),
        (valkey_entry("failed", operation="IMPORT"), MigrationMode.EXPORT, True, True, False),
    ],
)
def test_a_failed_import_on_redis_alone_is_not_over(
    reply: list[Any], mode: MigrationMode, over: bool, failed: bool, completed: bool
) -> None:
    """The target tries again; its source does not, and on Valkey neither node does."""
    migration = only(reply, mode)
    assert (migration.over, migration.failed, migration.completed) == (over, failed, completed)


@pytest.mark.parametrize("mode", [MigrationMode.IMPORT, MigrationMode.EXPORT])
def test_several_ranges_are_one_set(mode: MigrationMode) -> None:
    """Servers print a single slot as a range, too."""
    build = redis_entry if mode is MigrationMode.IMPORT else valkey_entry
    assert only(build("success", slots="100-200 300-300 400-410"), mode).slots.ranges == (
        (100, 200),
        (300, 300),
        (400, 410),
    )


@pytest.mark.parametrize(
    ("state", "over"), [("failed", True), ("success", True), ("occurring-on-primary", False)], ids=str
)
def test_a_migration_may_leave_out_its_nodes(state: str, over: bool) -> None:
    """As on a Valkey that was restarted since, and on the replicas of a target."""
    entry = {name: value for name, value in mapped(valkey_entry(state)).items() if not name.endswith("_node")}
    (migration,) = reported_migrations(replying([entry]), MigrationMode.EXPORT)
    assert (migration.source, migration.target, migration.over) == ("", "", over)


@pytest.mark.parametrize("mode", MigrationMode)
def test_an_error_reply_means_no_migration(mode: MigrationMode) -> None:
    """As from a server that is loading, or that denies the question."""
    denied = replying(Exception("User bob has no permissions to run the 'cluster|migration' command"))
    assert reported_migrations(denied, mode) == ()


@pytest.mark.parametrize(
    "nonsense",
    [
        "OK",
        None,
        ["id"],
        [["id"]],
        [["id", TASK]],
        [redis_entry("completed", slots="9-3")],
        [redis_entry("completed", slots="0-16384")],
        [redis_entry("completed", slots="some")],
        [redis_entry("completed", operation="juggle")],
        [[*redis_entry("completed")[:-6], "source", "nobody"]],
    ],
)
def test_a_reply_that_is_not_a_list_of_migrations_is_an_error(nonsense: object) -> None:
    """It is not taken for an empty list either."""
    with pytest.raises(WireError):
        reported_migrations(replying(nonsense), MigrationMode.IMPORT)


@given(
    st.recursive(
        st.none() | st.text() | st.integers() | st.sampled_from(list(redis_entry("failed"))),
        lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(), inner, max_size=5),
        max_leaves=30,
    ),
    st.sampled_from([MigrationMode.IMPORT, MigrationMode.EXPORT]),
)
def test_no_reply_causes_another_error(reply: object, mode: MigrationMode) -> None:
    """Not even one that no server would send."""
    detect_mode(replying(reply))
    with suppress(WireError):
        assert all(isinstance(each, SlotMigration) for each in reported_migrations(replying(reply), mode))
