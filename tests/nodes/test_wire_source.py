"""Replies of servers that keys are copied from, and redirections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.errors import WireError
from bootstrap.model.copying import Counters
from bootstrap.model.node import Address
from bootstrap.nodes.wire.source import (
    Redirect,
    parse_counters,
    parse_redirect,
    parse_sentinel_masters,
    startup_bytes,
    time_ms,
)


@pytest.mark.parametrize(
    ("text", "redirect"),
    [
        ("MOVED 93 10.0.0.7:6379", Redirect(False, 93, Address("10.0.0.7", 6379))),
        ("ASK 16383 fd00::7:6380", Redirect(True, 16383, Address("fd00::7", 6380))),
        ("ASK 1 redis-app-0.redis-service:6379", Redirect(True, 1, Address("redis-app-0.redis-service", 6379))),
        ("MOVED 1 :6379", Redirect(False, 1, None)),
        ("MOVED 1 10.0.0.7:0", Redirect(False, 1, None)),
        ("MOVED 1 10.0.0.7", None),
        ("BUSYKEY Target key name already exists.", None),
        ("", None),
    ],
)
def test_a_redirection_names_a_slot_and_its_server(text: str, redirect: Redirect | None) -> None:
    """A server may leave its own name out."""
    assert parse_redirect(text) == redirect


@given(st.text())
def test_any_text_is_a_redirection_or_none(text: str) -> None:
    """It never raises."""
    assert parse_redirect(text) is None or text.startswith(("MOVED", "ASK"))


def test_a_sentinel_names_its_masters_with_their_addresses() -> None:
    """Texts or bytes, the rest is skipped; a master without an address is an error."""
    entry = ["name", "shop", "ip", "10.0.0.7", "port", "6379", "flags", "master"]
    assert parse_sentinel_masters([entry, [b"name", b"b", b"ip", b"host", b"port", b"1"]]) == {
        "shop": Address("10.0.0.7", 6379),
        "b": Address("host", 1),
    }
    assert parse_sentinel_masters([]) == {}
    with pytest.raises(WireError):
        parse_sentinel_masters([["name", "shop", "ip", "10.0.0.7"]])


def test_counters_that_are_missing_count_as_nothing() -> None:
    """Managed services hide some of them."""
    persistence = {"rdb_changes_since_last_save": "7", "rdb_last_save_time": "100"}
    stats = {"expired_keys": "2", "evicted_keys": "3"}
    assert parse_counters({"run_id": "a"}, stats, persistence) == Counters(
        run_id="a", changes=7, saved_at=100, expired=2, evicted=3
    )
    assert parse_counters({}, {}, {"rdb_changes_since_last_save": "many"}) == Counters()
    assert (startup_bytes({"used_memory_startup": "9"}), startup_bytes({})) == (9, 0)


def test_the_time_of_a_server_is_in_milliseconds() -> None:
    """TIME has seconds and microseconds."""
    assert time_ms(["1700000000", "123999"]) == time_ms([b"1700000000", b"123999"]) == 1_700_000_000_123
    for bad in (None, ["1"], ["a", "b"], "1 2"):
        with pytest.raises(WireError):
            time_ms(bad)
