"""The ways in which servers move slots: how to detect which one a node has, and the commands that the servers' own
migrations have in common: list and cancel.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from bootstrap.model.node import SlotMigration
from bootstrap.nodes import commands
from bootstrap.nodes.connection import Ask
from bootstrap.nodes.wire.migrations import parse_known_commands, parse_migration_status, parse_slot_migrations


class MigrationMode(StrEnum):
    """How slots move between two nodes. The leader of a migration is the node that starts it and can cancel it."""

    IMPORT = "import"
    """Redis since 8.4: the target leads."""
    EXPORT = "export"
    """Valkey since 9.0: the source leads."""
    KEYS = "keys"
    """No migration of the servers' own: slot by slot and key by key, with MIGRATE."""

    def led_by(self, migration: SlotMigration) -> bool:
        """Whether the node that reports a migration leads it."""
        return migration.importing == (self is MigrationMode.IMPORT)


def detect_mode(ask: Ask) -> MigrationMode:
    """What a node can do and this user may: the server is asked for its commands, not for its version."""
    imports, exports = parse_known_commands(ask(*commands.KNOWN_MIGRATION_COMMANDS), 2)
    mode = MigrationMode.IMPORT if imports else MigrationMode.EXPORT if exports else MigrationMode.KEYS
    return MigrationMode.KEYS if isinstance(_status(ask, mode), Exception) else mode


def reported_migrations(ask: Ask, mode: MigrationMode) -> tuple[SlotMigration, ...]:
    """All migrations that a node reports, newest first: those that run and the last ones that are over (32 on Redis).

    An error reply means none. Raises WireError for a reply that breaks its format.
    """
    reply = _status(ask, mode)
    if isinstance(reply, Exception):
        return ()
    return parse_migration_status(reply) if mode is MigrationMode.IMPORT else parse_slot_migrations(reply)


def cancel(ask_leader: Ask, mode: MigrationMode, task_id: str) -> Exception | None:
    """Cancels a migration at its leader; returns the error reply where there was one.

    Valkey cancels **all** migrations of which the node is the source: it has no command for a single one.
    """
    by_id = mode is MigrationMode.IMPORT
    reply = ask_leader(*(commands.migration_cancel(task_id) if by_id else commands.CANCEL_SLOT_MIGRATIONS))
    return reply if isinstance(reply, Exception) else None


def _status(ask: Ask, mode: MigrationMode) -> Any:
    match mode:
        case MigrationMode.IMPORT:
            return ask(*commands.MIGRATION_STATUS)
        case MigrationMode.EXPORT:
            return ask(*commands.GET_SLOT_MIGRATIONS)
        case MigrationMode.KEYS:
            return []
