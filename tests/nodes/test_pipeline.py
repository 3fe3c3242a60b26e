"""Many commands on one connection: what is sent, and what a server may reply."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.connection import Connection
from redis.exceptions import ConnectionError as ConnectionLost

from bootstrap.nodes.pipeline import LARGE_BYTES, Pipeline, packed, packer, parsed_line


@contextmanager
def connected(answer: bytes, *, then_closed: bool = False) -> Iterator[tuple[Pipeline, socket.socket]]:
    """A pipeline whose replies are there already, and the server's end of its connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        theirs.sendall(answer)
        if then_closed:
            theirs.shutdown(socket.SHUT_WR)
        connection: Any = Connection()
        connection._sock = ours
        yield Pipeline(connection), theirs


def test_words_are_sent_as_they_are() -> None:
    """A key is bytes, even line ends; numbers are sent as texts."""
    assert packed(("GET", b"\r\n\xff", 7, "ü")) == b"*4\r\n$3\r\nGET\r\n$3\r\n\r\n\xff\r\n$1\r\n7\r\n$2\r\n\xc3\xbc\r\n"


def test_every_kind_of_reply_is_read() -> None:
    """Statuses, numbers, bytes that hold line ends, nothing, lists, errors; in the order of the commands."""
    with connected(b"+OK\r\n:-3\r\n$4\r\n\r\n\xff*\r\n$-1\r\n*2\r\n$1\r\na\r\n*0\r\n-ERR no\r\n") as (pipeline, _):
        *good, bad = pipeline([("PING",)] * 6)
    assert good == ["OK", -3, b"\r\n\xff*", None, [b"a", []]]
    assert isinstance(bad, Exception)
    assert str(bad) == "no"


def test_one_command_for_each_of_many_keys() -> None:
    """The same bytes as for the commands one by one."""
    with connected(b":1\r\n$-1\r\n") as (pipeline, theirs):
        assert pipeline.each(("MEMORY", "USAGE"), [b"a", b"\x00\r\n"]) == [1, None]
        one_by_one = packed(("MEMORY", "USAGE", b"a")) + packed(("MEMORY", "USAGE", b"\x00\r\n"))
        assert theirs.recv(1000) == one_by_one


def test_nothing_is_sent_for_nothing() -> None:
    """No command, no wait for a reply."""
    with connected(b"") as (pipeline, _):
        assert (pipeline([]), pipeline.each(("GET",), [])) == ([], [])


@pytest.mark.parametrize(
    "answer", [b"", b":12", b"$5\r\nab", b"$5\r\nabcde", b"*2\r\n:1\r\n", b"+OK\n", b"HTTP/1.1 400\r\n"]
)
def test_a_reply_that_is_cut_off_or_garbage_is_a_lost_connection(answer: bytes) -> None:
    """Half a number is not taken for a number."""
    with connected(answer, then_closed=True) as (pipeline, _), pytest.raises(ConnectionLost):
        pipeline([("PING",)])


def test_replies_of_one_line_are_lines() -> None:
    """Numbers, statuses, errors and nothing; in the order of the commands."""
    with connected(b":1\r\n+OK\r\n-BUSYKEY there\r\n-ERR no\r\n$-1\r\n:-2\r\n") as (pipeline, _):
        lines = pipeline.receive_lines(6)
    assert lines[:2] == [b":1\r\n", b"+OK\r\n"]
    number, status, *errors, nothing, other = map(parsed_line, lines)
    assert (number, status, nothing, other) == (1, "OK", None, -2)
    assert [str(error) for error in errors] == ["BUSYKEY there", "no"]


@pytest.mark.parametrize("answer", [b"", b":1\r\n", b":1\r\n:2", b":1\r\n:2\n"])
def test_lines_that_are_missing_are_a_lost_connection(answer: bytes) -> None:
    """Also one that was cut off."""
    with connected(answer, then_closed=True) as (pipeline, _), pytest.raises(ConnectionLost):
        pipeline.receive_lines(2)


def test_a_large_string_arrives_whole_and_what_follows_it_too() -> None:
    """It is read in place. One that is cut off is a lost connection."""
    value = bytes(range(256)) * (LARGE_BYTES // 256 + 3)
    reply = b"$%d\r\n%b\r\n:7\r\n" % (len(value), value)
    with connected(b"") as (pipeline, theirs):
        threading.Thread(target=theirs.sendall, args=(reply,), daemon=True).start()
        assert pipeline.receive(2) == [value, 7]
    with connected(reply[:1000], then_closed=True) as (pipeline, _), pytest.raises(ConnectionLost):
        pipeline.receive(1)


@pytest.mark.parametrize("size", [0, 10, LARGE_BYTES - 1, LARGE_BYTES])
def test_a_large_payload_is_a_part_of_its_own(size: int) -> None:
    """Together the parts are the same bytes as the whole command; the payload is not copied."""
    payload = b"\r" * size
    pack = packer(("RESTORE",), ("ABSTTL",))
    packet = pack(b"a\r\n", 12345, payload)
    assert b"".join([packet] if isinstance(packet, bytes) else packet) == packed(
        ("RESTORE", b"a\r\n", 12345, payload, "ABSTTL")
    )
    assert isinstance(packet, bytes) or packet[1] is payload
    assert isinstance(packet, bytes) is (size < LARGE_BYTES)
