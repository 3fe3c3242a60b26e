"""One migration of the servers from its start to its end, as the replies of its two nodes lead it."""

from __future__ import annotations

from typing import Any

import pytest

from bootstrap.model.slots import SlotSet
from bootstrap.nodes import commands
from bootstrap.nodes.commands import Command
from bootstrap.nodes.migration.atomic import MigrationTask
from bootstrap.nodes.migration.mode import MigrationMode
from tests.nodes.migration_replies import REJECTED_BY_SOURCE, SOURCE, TARGET, TASK, redis_entry, valkey_entry

SLOTS = SlotSet.of((100, 1999))
IMPORT = commands.migration_import(SLOTS)
EXPORT = commands.migrate_slots(SLOTS, TARGET)
STARTS = (IMPORT, EXPORT)
CANCEL = commands.migration_cancel(TASK)


class Side:
    """One of the two nodes: the migrations that it reports, and the commands that it received."""

    def __init__(self, *reported: list[Any], starts: list[Any] | None = None) -> None:
        self.reported = list(reported)
        self.received: list[Command] = []
        self._starts = starts

    def ask(self, *command: str | bytes | int) -> object:
        """Reports; or starts `starts`, or cancels everything."""
        if command in (commands.MIGRATION_STATUS, commands.GET_SLOT_MIGRATIONS):
            return self.reported
        self.received.append(command)
        self.reported = [self._starts] if command in STARTS and self._starts else []
        return TASK if command == IMPORT else "OK"


class ManualClock:
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def check(self) -> None:
        """Never interrupts."""


def task_of(
    source: Side,
    target: Side,
    *,
    mode: MigrationMode = MigrationMode.IMPORT,
    slots: SlotSet = SLOTS,
    target_id: str = TARGET,
    clock: ManualClock | None = None,
) -> MigrationTask:
    return MigrationTask(
        mode=mode,
        source_id=SOURCE,
        target_id=target_id,
        slots=slots,
        ask_source=source.ask,
        ask_target=target.ask,
        clock=clock or ManualClock(),
        busy_limit_s=5.0,
    )


def outcome(task: MigrationTask) -> tuple[bool, str]:
    """After one poll."""
    task.poll()
    return task.done, task.error


def test_redis_pulls_and_is_done_when_both_sides_are() -> None:
    """The command goes to the target, once; the source only reports."""
    source, target = Side(), Side(starts=redis_entry("wait-stream-eof"))
    task = task_of(source, target)
    assert outcome(task) == (False, "")
    target.reported = [redis_entry("completed")]
    source.reported = [redis_entry("wait-stream-eof", operation="migrate")]
    assert outcome(task) == (False, "")
    source.reported = [redis_entry("completed", operation="migrate")]
    assert outcome(task) == (True, "")
    assert (source.received, target.received) == ([], [IMPORT])


def test_valkey_pushes_and_its_migration_is_found_by_its_slots() -> None:
    """The command goes to the source, whose reply holds no id."""
    source, target = Side(starts=valkey_entry("snapshotting")), Side()
    task = task_of(source, target, mode=MigrationMode.EXPORT)
    assert outcome(task) == (False, "")
    source.reported = [valkey_entry("success")]
    assert outcome(task) == (True, "")
    assert (source.received, target.received) == ([EXPORT], [])


def test_a_leader_that_forgot_the_migration_is_an_error() -> None:
    """As after a restart, which the migration does not outlive."""
    task = task_of(Side(), Side())
    task.poll()
    assert not task.done
    assert "does not list it any more" in task.error


@pytest.mark.parametrize("mode", [MigrationMode.IMPORT, MigrationMode.EXPORT])
def test_a_running_migration_is_followed_and_not_started_again(mode: MigrationMode) -> None:
    """A run that was killed has started it."""
    pull = mode is MigrationMode.IMPORT
    source, target = (Side(), Side(redis_entry("connecting"))) if pull else (Side(valkey_entry("snapshotting")), Side())
    assert outcome(task_of(source, target, mode=mode)) == (False, "")
    assert (source.received, target.received) == ([], [])


def test_a_busy_source_is_waited_for_until_the_limit() -> None:
    """On Redis a node takes part in one migration at a time; the target would notice only a second later."""
    source, target, clock = Side(redis_entry("send-stream", operation="migrate", slots="0-9")), Side(), ManualClock()
    task = task_of(source, target, clock=clock)
    assert outcome(task) == (False, "")
    clock.sleep(4.9)
    assert outcome(task) == (False, "")
    clock.sleep(0.1)
    assert outcome(task) == (False, "another migration of the source is already in progress")
    assert target.received == []


def test_a_failed_import_of_these_slots_is_cancelled_first() -> None:
    """The target would try it again for ever, and reject every other migration of its slots."""
    target = Side(redis_entry("failed", error="some error", slots="1000-3000"))
    task_of(Side(), target).poll()
    assert target.received == [CANCEL, IMPORT]


def test_a_failure_that_may_pass_is_left_to_the_target() -> None:
    """It tries again each second. When that has taken too long, it is cancelled, with the server's message."""
    target, clock = Side(redis_entry("connecting")), ManualClock()
    task = task_of(Side(), target, clock=clock)
    assert outcome(task) == (False, "")
    target.reported = [redis_entry("failed", error=REJECTED_BY_SOURCE)]
    assert outcome(task) == (False, "")
    assert target.received == []
    clock.sleep(5.0)
    assert outcome(task) == (False, REJECTED_BY_SOURCE)
    assert target.received == [CANCEL]


def test_another_failure_is_cancelled_immediately() -> None:
    """Waiting would not help."""
    target = Side(redis_entry("connecting"))
    task = task_of(Side(), target)
    task.poll()
    target.reported = [redis_entry("failed", error="slots are open")]
    assert outcome(task) == (False, "slots are open")
    assert target.received == [CANCEL]


@pytest.mark.parametrize(
    ("mode", "target", "slots"),
    [
        (MigrationMode.KEYS, TARGET, SlotSet.of((1, 2))),
        (MigrationMode.IMPORT, SOURCE, SlotSet.of((1, 2))),
        (MigrationMode.EXPORT, TARGET, SlotSet()),
    ],
)
def test_a_migration_that_cannot_exist_is_refused(mode: MigrationMode, target: str, slots: SlotSet) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match="no migration of"):
        task_of(Side(), Side(), mode=mode, slots=slots, target_id=target)
