"""The texts of INFO and the reply to CONFIG GET. Redis prints `name:value` lines; unknown names are skipped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bootstrap.errors import WireError
from bootstrap.model.memory import Memory
from bootstrap.model.node import Replication, Role
from bootstrap.nodes.wire.values import address, is_number, name_values, number, quote

_DATABASE = re.compile(r"db([0-9]{1,9})", re.ASCII)
_SIGNED = re.compile(r"-?[0-9]{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server section of INFO, as far as this program needs it."""

    mode: str
    """`cluster`, `standalone` or `sentinel`; empty where it is missing. Valkey has another name for it."""
    version: str
    """For people: `redis 7.0.15`, `valkey 9.1.2`."""
    run_id: str = ""
    """New at every start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistence:
    """The persistence section of INFO: whether the server is writing a file, and how the last attempt ended."""

    append_only: bool
    """A restart reads the append-only file, not the snapshot."""
    writing: bool
    """It writes a file in the background, or is about to."""
    written: bool
    """Its last attempt to write the file that a restart reads succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The snapshot of a server."""

    writing: bool
    """It writes one in the background."""
    age_s: int | None
    """Seconds since it wrote one; None where it has not since its start, or where the last attempt failed."""


def parse_info(text: str) -> Mapping[str, str]:
    """`name:value` lines of INFO and CLUSTER INFO; headings, blank lines and lines without a colon are skipped."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def parse_server(info: Mapping[str, str]) -> Server:
    """The server section of INFO; Valkey names itself in `server_name`."""
    kind = info.get("server_name", "redis")
    return Server(
        mode=info.get("redis_mode") or info.get("server_mode", ""),
        version=f"{kind} {info.get(f'{kind}_version', '?')}",
        run_id=info.get("run_id", ""),
    )


def parse_replication(info: Mapping[str, str]) -> Replication:
    """The replication section of INFO. Raises WireError when the role is neither master nor slave."""
    role = info.get("role")
    offset = info.get("slave_repl_offset", info.get("master_repl_offset", "0"))
    if role == "master":
        feeds = (name_values(value) for name, value in info.items() if re.fullmatch(r"slave[0-9]+", name, re.ASCII))
        online = (address(feed.get("ip", ""), feed.get("port", "")) for feed in feeds if feed.get("state") == "online")
        replicas = tuple(sorted(place for place in online if place))
        return Replication(role=Role.MASTER, link_up=True, offset=_signed(offset), online_replicas=replicas)
    if role == "slave":
        syncing = info.get("master_sync_in_progress", "0") != "0"
        return Replication(
            role=Role.REPLICA,
            link_up=info.get("master_link_status") == "up" and not syncing,
            master=address(info.get("master_host", ""), info.get("master_port", "")),
            syncing=syncing,
            down_s=max(0, _signed(info.get("master_link_down_since_seconds", "0"))),
            offset=_signed(offset),
        )
    raise WireError(f"INFO: not a role of a cluster node: {quote(role or '')}")


def library_count(memory: Mapping[str, str]) -> int | None:
    """The number of function libraries, from the memory section of INFO; None before 7.0."""
    count = memory.get("number_of_libraries", "")
    return int(count) if count.isdigit() else None


def parse_memory(info: Mapping[str, str]) -> Memory:
    """The memory section of INFO; a value that is missing or not a number counts as 0."""
    used, dataset, limit = (info.get(name, "") for name in ("used_memory", "used_memory_dataset", "maxmemory"))
    counts = (int(text) if is_number(text) else 0 for text in (used, dataset, limit))
    return Memory(**dict(zip(("used_bytes", "dataset_bytes", "max_bytes"), counts, strict=True)))


def parse_persistence(info: Mapping[str, str]) -> Persistence:
    """The persistence section of INFO. A server that does not report `aof_enabled:0` counts as append-only."""
    append_only = info.get("aof_enabled") != "0"
    status = info.get("aof_last_bgrewrite_status" if append_only else "rdb_last_bgsave_status")
    writing = any(name.endswith(("_in_progress", "_scheduled")) and value == "1" for name, value in info.items())
    return Persistence(append_only=append_only, writing=writing, written=status == "ok")


def parse_snapshot(persistence: Mapping[str, str], server: Mapping[str, str], *, now_s: int) -> Snapshot:
    """When a server has last written a snapshot, at the moment `now_s` of its clock, in seconds. At its start it counts
    as having done so.
    """
    last, up = persistence.get("rdb_last_save_time", ""), server.get("uptime_in_seconds", "")
    writing = persistence.get("rdb_bgsave_in_progress") != "0"
    if writing or not (last.isdecimal() and up.isdecimal()) or persistence.get("rdb_last_bgsave_status") != "ok":
        return Snapshot(writing=writing, age_s=None)
    age_s = max(0, now_s - int(last))
    return Snapshot(writing=False, age_s=age_s if age_s + 1 < int(up) else None)


def keys_by_database(info: Mapping[str, str]) -> Mapping[int, int]:
    """Keys by database, from the keyspace section (`db0:keys=3,expires=0,…`); an empty database has no line."""
    return {
        int(found[1]): number(name_values(value).get("keys", ""), "INFO: keys")
        for name, value in info.items()
        if (found := _DATABASE.fullmatch(name))
    }


def databases_of(info: Mapping[str, str]) -> frozenset[int]:
    """The databases that hold keys, from the keyspace section."""
    return frozenset(int(found[1]) for name in info if (found := _DATABASE.fullmatch(name)))


def parse_config(reply: object) -> Mapping[str, str]:
    """CONFIG GET's reply, `[name, value, name, value…]`; empty for anything else, such as an error (CONFIG denied)."""
    if not isinstance(reply, list) or len(reply) % 2:
        return {}
    return {str(name): str(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}


def node_timeout_ms(config: Mapping[str, str]) -> int | None:
    """cluster-node-timeout, milliseconds; None where CONFIG is denied."""
    return int(text) if (text := config.get("cluster-node-timeout", "")).isdecimal() else None


def _signed(text: str) -> int:
    """A replication offset or a duration; Redis prints -1 for "never". Anything else counts as 0."""
    return int(text) if _SIGNED.fullmatch(text) else 0
