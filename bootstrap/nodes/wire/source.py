"""Replies of servers that keys are copied from, and the redirections of those that keys are copied to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from bootstrap.errors import WireError
from bootstrap.model.copying import Counters
from bootstrap.model.node import Address
from bootstrap.nodes.wire.values import as_text, is_number

_REDIRECT = re.compile(r"(MOVED|ASK) ([0-9]{1,5}) (\S*):([0-9]{1,5})", re.ASCII)


class Redirect(NamedTuple):
    """MOVED or ASK: which server has a slot."""

    ask: bool
    """For this command alone: the slot is on its way there."""
    slot: int
    address: Address | None
    """None where the server does not name it."""


def parse_redirect(text: str) -> Redirect | None:
    """The error text of MOVED and ASK; None for any other."""
    found = _REDIRECT.match(text)
    if found is None:
        return None
    host, port = found[3].strip("[]"), int(found[4])
    return Redirect(found[1] == "ASK", int(found[2]), Address(host, port) if host and 0 < port < 65536 else None)


def parse_sentinel_masters(reply: object) -> Mapping[str, Address]:
    """SENTINEL MASTERS, in RESP2 a flat list of names and values per master: the masters' addresses by their names.
    Raises WireError.
    """
    found = {}
    for entry in reply if isinstance(reply, list) else []:
        values = {as_text(name): as_text(value) for name, value in zip(entry[::2], entry[1::2], strict=False)}
        name, host, port = values.get("name"), values.get("ip"), values.get("port", "")
        if not name or not host or not is_number(port):
            raise WireError("SENTINEL MASTERS: a master without its name or address")
        found[name] = Address(host, int(port))
    return found


def parse_counters(server: Mapping[str, str], stats: Mapping[str, str], persistence: Mapping[str, str]) -> Counters:
    """The sections of INFO; a counter that is missing counts as 0."""
    return Counters(
        run_id=server.get("run_id", ""),
        changes=_count(persistence, "rdb_changes_since_last_save"),
        saved_at=_count(persistence, "rdb_last_save_time"),
        expired=_count(stats, "expired_keys"),
        evicted=_count(stats, "evicted_keys"),
    )


def startup_bytes(memory: Mapping[str, str]) -> int:
    """What the server used when it had started; 0 where it does not report that."""
    return _count(memory, "used_memory_startup")


def time_ms(reply: object) -> int:
    """TIME, seconds and microseconds, as Unix time in milliseconds. Raises WireError."""
    if not isinstance(reply, list) or len(reply) != 2 or not all(is_number(as_text(part)) for part in reply):
        raise WireError("TIME: not two numbers")
    return int(as_text(reply[0])) * 1000 + int(as_text(reply[1])) // 1000


def _count(info: Mapping[str, str], name: str) -> int:
    return int(text) if is_number(text := info.get(name, "")) else 0
