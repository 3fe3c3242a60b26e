"""Many keys of one size over all slots, written about as fast as servers accept them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import islice

from redis.crc import key_slot

from bootstrap.model.node import Address
from bootstrap.model.slots import SLOT_COUNT, SlotSet

VALUE = b"v" * 100
PIPELINE_DEPTH = 5000
ANSWER_LIMIT_S = 60.0


def fill(owners: Sequence[tuple[Address, SlotSet]], keys: int) -> None:
    """Writes `key:0`, `key:1`, … each to the owner of its slot. Raises AssertionError if a write is rejected."""
    owner_of = [0] * SLOT_COUNT
    for number, (_, slots) in enumerate(owners):
        for slot in slots:
            owner_of[slot] = number
    connections = [
        socket.create_connection((address.host, address.port), timeout=ANSWER_LIMIT_S) for address, _ in owners
    ]
    numbers = iter(range(keys))
    while names := [b"key:%d" % number for number in islice(numbers, PIPELINE_DEPTH)]:
        commands: list[list[bytes]] = [[] for _ in owners]
        for name in names:
            words = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(name), name, len(VALUE), VALUE)
            commands[owner_of[key_slot(name)]].append(words)
        for connection, sent in zip(connections, commands, strict=True):
            connection.sendall(b"".join(sent))
        for connection, sent in zip(connections, commands, strict=True):
            _expect_ok(connection, len(sent))
    for connection in connections:
        connection.close()


def _expect_ok(connection: socket.socket, count: int) -> None:
    wanted = b"+OK\r\n" * count
    received = b""
    while len(received) < len(wanted):
        received += connection.recv(1 << 16) or b"-the connection was lost\r\n" * count
    assert received == wanted, received[:200]
