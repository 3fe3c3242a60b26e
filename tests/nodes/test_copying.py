"""Reading keys, and comparing their contents, by the replies of servers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.model.copying import Counts, Entry
from bootstrap.model.node import Address
from bootstrap.nodes.commands import Command
from bootstrap.nodes.copying.comparing import Sample, contents
from bootstrap.nodes.copying.reading import BATCH_BYTES, FOREVER, Reader, SourceRejected, Value
from tests.nodes.test_pipeline import connected

NOW = b"*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n"
NOW_MS = 1_700_000_000_000


def bulk(*values: bytes) -> bytes:
    return b"".join(b"$%d\r\n%b\r\n" % (len(value), value) for value in values)


def entries(answer: bytes, *values: Value, shift_ms: int = 0) -> tuple[list[Entry], Counts]:
    """What a reader makes of these replies."""
    counts = Counts()
    with connected(answer) as (pipeline, _):
        reader = Reader(pipeline, shift_ms=shift_ms)
        found = [entry for batch, _ in reader.entries(values, 3, counts) for entry in batch]
    return found, counts


def test_pages_end_with_the_cursor_zero_and_name_each_key_once() -> None:
    """A name that a page has twice is there once."""
    first = b"*2\r\n$2\r\n17\r\n*3\r\n" + bulk(b"a", b"\xff", b"a")
    with connected(first + b"*2\r\n$1\r\n0\r\n*0\r\n") as (pipeline, _):
        assert list(Reader(pipeline).pages()) == [[b"a", b"\xff"], []]


def test_moments_and_sizes_of_keys_that_are_there() -> None:
    """A key that is gone meanwhile is left out."""
    with connected(b":-1\r\n:-2\r\n:1700000005000\r\n" + b":50\r\n$-1\r\n:70\r\n") as (pipeline, _):
        values = Reader(pipeline).values([b"a", b"b", b"c"])
    assert values == [Value(b"a", 50, FOREVER), Value(b"c", 70, 1_700_000_005_000)]


def test_an_older_source_has_relative_times() -> None:
    """Before 7.0 a moment is the clock of the source and the time that is left."""
    unknown = b"-ERR unknown command `PEXPIRETIME`, with args\r\n"
    with connected(unknown + NOW + b":5000\r\n" + b":50\r\n") as (pipeline, _):
        assert Reader(pipeline).values([b"a"]) == [Value(b"a", 50, NOW_MS + 5000)]


def test_a_source_that_measures_no_keys_has_keys_of_a_guessed_size() -> None:
    """MEMORY USAGE is denied: batches have few keys."""
    with connected(b":-1\r\n-NOPERM this user has no permissions\r\n") as (pipeline, _):
        (value,) = Reader(pipeline).values([b"a"])
    assert value.size * 32 == BATCH_BYTES


def test_a_value_has_the_moment_of_its_own() -> None:
    """By the clock of the target; 0 for a key that stays."""
    found, counts = entries(
        bulk(b"one", b"two") + b":-1\r\n:1700000005000\r\n",
        Value(b"a", 1, FOREVER),
        Value(b"b", 1, 1_700_000_005_000),
        shift_ms=500,
    )
    assert found == [Entry(3, b"a", b"one", 0), Entry(3, b"b", b"two", 1_700_000_005_500)]
    assert counts == Counts()


def test_a_key_that_is_written_while_it_is_read_is_read_again() -> None:
    """Its old value must not get the expiry of the new one."""
    found, _ = entries(
        bulk(b"old") + b":1700000005000\r\n" + bulk(b"new") + b":1700000005000\r\n", Value(b"a", 1, FOREVER)
    )
    assert found == [Entry(3, b"a", b"new", 1_700_000_005_000)]


def test_keys_that_are_gone_or_hidden_are_counted() -> None:
    """Expired between name and value; left over in a master that does not own their slot."""
    found, counts = entries(
        b"$-1\r\n-MOVED 5 10.0.0.7:6379\r\n" + b":-2\r\n-MOVED 5 10.0.0.7:6379\r\n",
        Value(b"a", 1, FOREVER),
        Value(b"b", 1, FOREVER),
    )
    assert (found, counts) == ([], Counts(gone=1, hidden=1))


def test_a_source_that_denies_values_ends_the_import() -> None:
    """With its own words."""
    with pytest.raises(SourceRejected, match="NOPERM"):
        entries(b"-NOPERM no\r\n:-1\r\n", Value(b"a", 1, FOREVER))


def test_a_large_key_is_read_alone() -> None:
    """All others are read together, up to the limit."""
    sizes = [1, BATCH_BYTES + 1, 1, 1]
    answer = b"".join(bulk(*[b"v"] * count) + b":-1\r\n" * count for count in (1, 1, 2))
    with connected(answer) as (pipeline, _):
        values = [Value(b"%d" % number, size, FOREVER) for number, size in enumerate(sizes)]
        batches = [len(batch) for batch, _ in Reader(pipeline).entries(values, 0, Counts())]
    assert batches == [1, 1, 2]


@given(st.lists(st.integers(1, 5)), st.integers(1, 10))
def test_a_sample_has_as_many_keys_as_there_are_up_to_its_limit(pages: list[int], most: int) -> None:
    """Each of them one that has passed."""
    sample, passed = Sample(most), 0
    for size in pages:
        sample.add(Address("10.0.0.1", 1), 0, [b"%d" % (passed + number) for number in range(size)])
        passed += size
    assert len(set(sample.keys)) == len(sample.keys) == min(passed, most)
    assert all(int(key) < passed for _, _, key in sample.keys)


def answering(replies: dict[str, Any]) -> Any:
    """A server with one key."""

    def ask(keys: list[bytes], head: Command, _: Command) -> list[Any]:
        return [replies[str(head[0])]] * len(keys)

    return ask


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("set", {"SMEMBERS": [b"a", b"b"]}, {"SMEMBERS": [b"b", b"a"]}),
        ("hash", {"HGETALL": [b"a", b"1", b"b", b"2"]}, {"HGETALL": [b"b", b"2", b"a", b"1"]}),
        ("zset", {"ZRANGE": [b"a", b"0.33333333333333331"]}, {"ZRANGE": [b"a", b"0.3333333333333333"]}),
        (
            "stream",
            {"XRANGE": [], "XINFO": [[b"name", b"g", b"pending", 1, b"entries-read", 2, b"lag", 0]]},
            {"XRANGE": [], "XINFO": [["name", b"g", "pending", 1]]},
        ),
    ],
)
def test_the_same_content_is_equal_whatever_its_order_or_version(kind: str, one: Any, other: Any) -> None:
    """Elements of sets and hashes have no order, and newer servers show more about a group."""
    head = {"TYPE": kind, "PTTL": -1}
    assert contents(answering(head | one), [b"k"]) == contents(answering(head | other), [b"k"]) != [None]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("list", {"LRANGE": [b"a", b"b"]}, {"LRANGE": [b"b", b"a"]}),
        ("string", {"GET": b"1"}, {"GET": b"01"}),
        ("hash", {"HGETALL": [b"a", b"1"]}, {"HGETALL": [b"1", b"a"]}),
        ("zset", {"ZRANGE": [b"a", b"1"]}, {"ZRANGE": [b"a", b"2"]}),
        ("stream", {"XRANGE": [], "XINFO": [[b"name", b"g"]]}, {"XRANGE": [], "XINFO": []}),
    ],
)
def test_other_content_differs(kind: str, one: Any, other: Any) -> None:
    """The order of a list counts."""
    head = {"TYPE": kind, "PTTL": -1}
    assert contents(answering(head | one), [b"k"]) != contents(answering(head | other), [b"k"])


def test_a_key_that_is_gone_has_no_content() -> None:
    """Nor has one of a type that is not compared."""
    assert contents(answering({"TYPE": "none", "PTTL": -2}), [b"k"]) == [None]
    assert contents(answering({"TYPE": "ReJSON-RL", "PTTL": -1}), [b"k"]) == [None]
