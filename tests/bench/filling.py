"""Many keys of one size over all slots, written about as fast as servers take them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import islice

from redis.crc import key_slot

from bootstrap.model.node import Address
from bootstrap.model.slots import SLOT_COUNT, SlotSet

VALUE = b"v" * 100
TOGETHER = 5000
ANSWER_LIMIT_S = 60.0


def fill(owners: Sequence[tuple[Address, SlotSet]], keys: int) -> None:
    """Writes `key:0`, `key:1`, … each to the owner of its slot. Raises AssertionError for what is not taken."""
    owner_of = [0] * SLOT_COUNT
    for number, (_, slots) in enumerate(owners):
        for slot in slots:
            owner_of[slot] = number
    endpoints = [
        socket.create_connection((address.host, address.port), timeout=ANSWER_LIMIT_S) for address, _ in owners
    ]
    names = iter(range(keys))
    while some := [b"key:%d" % number for number in islice(names, TOGETHER)]:
        commands: list[list[bytes]] = [[] for _ in owners]
        for name in some:
            words = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(name), name, len(VALUE), VALUE)
            commands[owner_of[key_slot(name)]].append(words)
        for door, told in zip(endpoints, commands, strict=True):
            door.sendall(b"".join(told))
        for door, told in zip(endpoints, commands, strict=True):
            _all_taken(door, len(told))
    for door in endpoints:
        door.close()


def _all_taken(door: socket.socket, count: int) -> None:
    wanted = b"+OK\r\n" * count
    said = b""
    while len(said) < len(wanted):
        said += door.recv(1 << 16) or b"-the connection was lost\r\n" * count
    assert said == wanted, said[:200]
