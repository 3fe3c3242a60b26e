"""What servers say of their slot migrations, in their own replies: Redis 8.10.2 and Valkey 9.1.2."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.errors import WireError
from bootstrap.model.slots import SlotSet
from bootstrap.nodes.migration.atomic import MigrationTask
from bootstrap.nodes.migration.tasks import Ask, MigrationMode, Task, detect, tasks

SOURCE = "559f984779258156225b9e384017bfcb4e109397"
TARGET = "907a76aaf90850c710ffc805237813a200e8f5c4"
TASK = "30e84e0fd117b183ecd91dab462945fdf3810062"
MIGRATION = ["cluster|migration", -4, ["admin", "stale", "no_async_loading"], 0, 0, 0, ["@admin"], [], [], []]
MIGRATESLOTS = ["cluster|migrateslots", *MIGRATION[1:]]
REFUSED_BY_SOURCE = (
    "Main channel - Failed to sync with source node: Error reply to CLUSTER SYNCSLOTS SYNC from the source: -ERR "
    "Another ASM task is already in progress (state: syncslots-reply, rdb_channel_state: none)"
)
REFUSED_BY_TARGET = "Received error during handshake to target: -ERR Slots are being manually imported\r\n"


def redis_task(state: str, *, operation: str = "import", error: str = "", slots: str = "100-1999") -> list[Any]:
    """A task in a reply to CLUSTER MIGRATION STATUS, as RESP2 has it."""
    what = ["id", TASK, "slots", slots, "source", SOURCE, "dest", TARGET, "operation", operation, "state", state]
    how_often = ["last_error", error, "retries", 0, "create_time", 1795385596137, "start_time", 1795385596137]
    return [*what, *how_often, "end_time", -1, "write_pause_ms", 0]


def valkey_task(state: str, *, operation: str = "EXPORT", message: str = "", slots: str = "100-1999") -> list[Any]:
    """A task in a reply to CLUSTER GETSLOTMIGRATIONS, as RESP2 has it."""
    what = ["name", TASK, "operation", operation, "slot_ranges", slots, "target_node", TARGET, "source_node", SOURCE]
    when = ["create_time", 1795385602, "last_update_time", 1795385602, "last_ack_time", 1795385602]
    return [*what, *when, "state", state, "message", message, "cow_size", 0, "remaining_repl_size", 0]


def mapped(flat: list[Any]) -> dict[Any, Any]:
    """The same in RESP3."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def in_bytes(flat: list[Any]) -> list[Any]:
    """The same from a connection that does not decode."""
    return [each.encode() if isinstance(each, str) else each for each in flat]


def says(reply: object) -> Ask:
    """A node that has one reply for everything."""
    return lambda *_words: reply


def only(reply: list[Any], how: MigrationMode) -> Task:
    (task,) = tasks(says([reply]), how)
    return task


@pytest.mark.parametrize(
    ("reply", "how"),
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
def test_a_node_is_asked_for_the_command_and_not_for_its_version(reply: object, how: MigrationMode) -> None:
    """Who does not say yes moves keys one by one, as every server can."""
    assert detect(says(reply)) is how


@pytest.mark.parametrize("form", [list, mapped, in_bytes], ids=["flat", "map", "bytes"])
@pytest.mark.parametrize(
    ("reply", "how", "importing", "state", "why"),
    [
        (redis_task("accumulate-buffer"), MigrationMode.IMPORT, True, "accumulate-buffer", ""),
        (
            redis_task("send-bulk-and-stream", operation="migrate"),
            MigrationMode.IMPORT,
            False,
            "send-bulk-and-stream",
            "",
        ),
        (redis_task("failed", error=REFUSED_BY_SOURCE), MigrationMode.IMPORT, True, "failed", REFUSED_BY_SOURCE),
        (valkey_task("snapshotting"), MigrationMode.EXPORT, False, "snapshotting", ""),
        (valkey_task("receiving-snapshot", operation="IMPORT"), MigrationMode.EXPORT, True, "receiving-snapshot", ""),
        (
            valkey_task("failed", message=REFUSED_BY_TARGET),
            MigrationMode.EXPORT,
            False,
            "failed",
            REFUSED_BY_TARGET.strip(),
        ),
    ],
)
def test_a_task_is_read_alike_from_both(
    reply: list[Any], how: MigrationMode, form: Any, importing: bool, state: str, why: str
) -> None:
    """Their words for the same things differ."""
    assert only(form(reply), how) == Task(
        how=how,
        task_id=TASK,
        slots=SlotSet.of((100, 1999)),
        source=SOURCE,
        target=TARGET,
        importing=importing,
        state=state,
        why=why,
    )


@pytest.mark.parametrize(
    ("reply", "how", "over", "failed", "completed"),
    [
        (redis_task("wait-stream-eof"), MigrationMode.IMPORT, False, False, False),
        (redis_task("completed"), MigrationMode.IMPORT, True, False, True),
        (redis_task("canceled", error="Cancelled due to user request"), MigrationMode.IMPORT, True, False, False),
        (redis_task("failed", error=REFUSED_BY_SOURCE), MigrationMode.IMPORT, False, True, False),
        (redis_task("failed", operation="migrate"), MigrationMode.IMPORT, True, True, False),
        (valkey_task("failover-granted"), MigrationMode.EXPORT, False, False, False),
        (valkey_task("success"), MigrationMode.EXPORT, True, False, True),
        (valkey_task("cancelled"), MigrationMode.EXPORT, True, False, False),
        (valkey_task("failed"), MigrationMode.EXPORT, True, True, False),
        (valkey_task("failed", operation="IMPORT"), MigrationMode.EXPORT, True, True, False),
    ],
)
def test_a_failed_import_on_redis_alone_is_not_over(
    reply: list[Any], how: MigrationMode, over: bool, failed: bool, completed: bool
) -> None:
    """The target goes on trying; its source, and both on Valkey, do not."""
    task = only(reply, how)
    assert (task.over, task.failed, task.completed) == (over, failed, completed)


@pytest.mark.parametrize("how", [MigrationMode.IMPORT, MigrationMode.EXPORT])
def test_several_ranges_are_one_set(how: MigrationMode) -> None:
    """A range of one slot is printed as a range."""
    build = redis_task if how is MigrationMode.IMPORT else valkey_task
    assert only(build("success", slots="100-200 300-300 400-410"), how).slots.ranges == (
        (100, 200),
        (300, 300),
        (400, 410),
    )


@pytest.mark.parametrize(
    ("state", "over"), [("failed", True), ("success", True), ("occurring-on-primary", False)], ids=str
)
def test_a_task_may_leave_out_its_nodes(state: str, over: bool) -> None:
    """So do a Valkey that was restarted since, and the replicas of a target."""
    told = {name: value for name, value in mapped(valkey_task(state)).items() if not name.endswith("_node")}
    (task,) = tasks(says([told]), MigrationMode.EXPORT)
    assert (task.source, task.target, task.over) == ("", "", over)


def test_an_error_reply_tells_of_no_task() -> None:
    """As of a server that is loading, or that denies the question."""
    denied = says(Exception("User bob has no permissions to run the 'cluster|migration' command"))
    assert (
        tasks(denied, MigrationMode.IMPORT)
        == tasks(denied, MigrationMode.EXPORT)
        == tasks(denied, MigrationMode.KEYS)
        == ()
    )


@pytest.mark.parametrize(
    "nonsense",
    [
        "OK",
        None,
        ["id"],
        [["id"]],
        [["id", TASK]],
        [redis_task("completed", slots="9-3")],
        [redis_task("completed", slots="0-16384")],
        [redis_task("completed", slots="some")],
        [redis_task("completed", operation="juggle")],
        [[*redis_task("completed")[:-6], "source", "nobody"]],
    ],
)
def test_nonsense_is_told_as_such(nonsense: object) -> None:
    """A reply that is no list of tasks is no empty one either."""
    with pytest.raises(WireError):
        tasks(says(nonsense), MigrationMode.IMPORT)


@given(
    st.recursive(
        st.none() | st.text() | st.integers() | st.sampled_from(list(redis_task("failed"))),
        lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(), inner, max_size=5),
        max_leaves=30,
    ),
    st.sampled_from([MigrationMode.IMPORT, MigrationMode.EXPORT]),
)
def test_whatever_a_server_says_only_one_error_comes_of_it(reply: object, how: MigrationMode) -> None:
    """Also of a server gone mad."""
    detect(says(reply))
    with suppress(WireError):
        assert all(isinstance(task, Task) for task in tasks(says(reply), how))


@pytest.mark.parametrize(
    ("how", "target", "slots"),
    [
        (MigrationMode.KEYS, TARGET, SlotSet.of((1, 2))),
        (MigrationMode.IMPORT, SOURCE, SlotSet.of((1, 2))),
        (MigrationMode.EXPORT, TARGET, SlotSet()),
    ],
)
def test_what_no_task_can_move_is_refused(how: MigrationMode, target: str, slots: SlotSet) -> None:
    """Before anything is asked."""
    with pytest.raises(ValueError, match="no task moves"):
        MigrationTask(how, SOURCE, target, slots, says(None), says(None))
