"""Many commands on one connection: what is sent, and what a server may reply."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.connection import Connection
from redis.exceptions import ConnectionError as ConnectionLost

from bootstrap.nodes.pipeline import Pipeline, packed


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
