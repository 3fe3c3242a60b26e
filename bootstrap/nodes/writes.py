"""Whether a master refuses the writes of clients, and why: from INFO and, where that raises suspicion, from CONFIG.

The rules are those with which servers answer MISCONF, OOM and NOREPLICAS (`processCommand` in server.c). A replica
refuses every write of a client, so the question is asked of masters alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

Setting = Callable[[str], str | None]
"""The value of a setting of the server; None where it does not report it."""


def refusals(info: Mapping[str, str], setting: Setting) -> Iterator[str]:
    """Each reason for which this server refuses writes, in words; none where it accepts them. `info` has the
    persistence, memory and replication sections. A setting that is not reported counts as the servers' default.
    """
    if info.get("role") != "master":
        return
    yield from _failed_save(info, setting)
    if info.get("aof_enabled") == "1" and info.get("aof_last_write_status") == "err":
        yield "it cannot write its append-only file (aof_last_write_status:err)"
    yield from _full(info)
    yield from _too_few_replicas(info, setting)


def _failed_save(info: Mapping[str, str], setting: Setting) -> Iterator[str]:
    if info.get("rdb_last_bgsave_status") != "err":
        return
    if setting("stop-writes-on-bgsave-error") != "no" and setting("save") != "":
        yield "its last save to the disk failed (rdb_last_bgsave_status:err)"


def _full(info: Mapping[str, str]) -> Iterator[str]:
    """Buffers for replicas and for the append-only file do not count."""
    used, limit = _number(info, "used_memory"), _number(info, "maxmemory")
    counted = used - _number(info, "mem_not_counted_for_evict")
    if limit and counted > limit and info.get("maxmemory_policy") == "noeviction":
        yield f"its memory is full (used_memory:{used}, maxmemory:{limit}, noeviction)"


def _too_few_replicas(info: Mapping[str, str], setting: Setting) -> Iterator[str]:
    """The server reports the number of good replicas only where it needs some."""
    good = info.get("min_slaves_good_slaves")
    if good is None or not good.isdecimal():
        return
    needed = setting("min-replicas-to-write") or setting("min-slaves-to-write") or "0"
    if needed.isdecimal() and int(good) < int(needed):
        yield f"it has {good} replicas that keep up, and min-replicas-to-write is {needed}"


def _number(info: Mapping[str, str], name: str) -> int:
    value = info.get(name, "0")
    return int(value) if value.isdecimal() else 0
