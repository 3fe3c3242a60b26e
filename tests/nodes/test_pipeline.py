"""Many commands on one connection: what goes out, and what a server may answer."""

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
def talking(answer: bytes, *, then_gone: bool = False) -> Iterator[tuple[Pipeline, socket.socket]]:
    """A conversation whose answers lie ready."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        theirs.sendall(answer)
        if then_gone:
            theirs.shutdown(socket.SHUT_WR)
        connection: Any = Connection()
        connection._sock = ours
        yield Pipeline(connection), theirs


def test_words_go_out_as_they_are() -> None:
    """A key is bytes, be they line ends; numbers and texts are told as texts."""
    assert packed(("GET", b"\r\n\xff", 7, "ü")) == b"*4\r\n$3\r\nGET\r\n$3\r\n\r\n\xff\r\n$1\r\n7\r\n$2\r\n\xc3\xbc\r\n"


def test_every_kind_of_reply_is_read() -> None:
    """Statuses, numbers, bytes that hold line ends, nothing, lists, errors; in the order of the commands."""
    with talking(b"+OK\r\n:-3\r\n$4\r\n\r\n\xff*\r\n$-1\r\n*2\r\n$1\r\na\r\n*0\r\n-ERR no\r\n") as (ask, _):
        *good, bad = ask([("PING",)] * 6)
    assert good == ["OK", -3, b"\r\n\xff*", None, [b"a", []]]
    assert isinstance(bad, Exception)
    assert str(bad) == "no"


def test_one_command_for_each_of_many_keys() -> None:
    """It is what the same commands would be, told one by one."""
    with talking(b":1\r\n$-1\r\n") as (ask, theirs):
        assert ask.each(("MEMORY", "USAGE"), [b"a", b"\x00\r\n"]) == [1, None]
        told = packed(("MEMORY", "USAGE", b"a")) + packed(("MEMORY", "USAGE", b"\x00\r\n"))
        assert theirs.recv(1000) == told


def test_nothing_is_sent_for_nothing() -> None:
    """No command, no wait for a reply."""
    with talking(b"") as (ask, _):
        assert (ask([]), ask.each(("GET",), [])) == ([], [])


@pytest.mark.parametrize(
    "answer", [b"", b":12", b"$5\r\nab", b"$5\r\nabcde", b"*2\r\n:1\r\n", b"+OK\n", b"HTTP/1.1 400\r\n"]
)
def test_a_reply_that_is_cut_off_or_none_is_a_lost_connection(answer: bytes) -> None:
    """Half a number is not taken for a number."""
    with talking(answer, then_gone=True) as (ask, _), pytest.raises(ConnectionLost):
        ask([("PING",)])
