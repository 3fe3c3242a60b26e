"""Replies about the servers' own slot migrations: Redis 8.10.2 and Valkey 9.1.2."""

from __future__ import annotations

from typing import Any

SOURCE = "559f984779258156225b9e384017bfcb4e109397"
TARGET = "907a76aaf90850c710ffc805237813a200e8f5c4"
TASK = "30e84e0fd117b183ecd91dab462945fdf3810062"
REJECTED_BY_SOURCE = (
    "Main channel - Failed to sync with source node: Error reply to CLUSTER SYNCSLOTS SYNC from the source: -ERR "
    "Another ASM task is already in progress (state: syncslots-reply, rdb_channel_state: none)"
)
REJECTED_BY_TARGET = "Received error during handshake to target: -ERR Slots are being manually imported\r\n"


def redis_entry(state: str, *, operation: str = "import", error: str = "", slots: str = "100-1999") -> list[Any]:
    """An entry of a reply to CLUSTER MIGRATION STATUS, as in RESP2."""
    what = ["id", TASK, "slots", slots, "source", SOURCE, "dest", TARGET, "operation", operation, "state", state]
    how_often = ["last_error", error, "retries", 0, "create_time", 1795385596137, "start_time", 1795385596137]
    return [*what, *how_often, "end_time", -1, "write_pause_ms", 0]


def valkey_entry(state: str, *, operation: str = "EXPORT", message: str = "", slots: str = "100-1999") -> list[Any]:
    """An entry of a reply to CLUSTER GETSLOTMIGRATIONS, as in RESP2."""
    what = ["name", TASK, "operation", operation, "slot_ranges", slots, "target_node", TARGET, "source_node", SOURCE]
    when = ["create_time", 1795385602, "last_update_time", 1795385602, "last_ack_time", 1795385602]
    return [*what, *when, "state", state, "message", message, "cow_size", 0, "remaining_repl_size", 0]
