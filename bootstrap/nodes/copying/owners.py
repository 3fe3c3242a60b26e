"""The masters that own the slots of a cluster, as a client writes to them: each command goes to the owner of its key's
slot, follows MOVED and ASK, and is repeated while a failover or a move of slots is under way.

`restore` takes entries of any origin: keys that are read from another server, or from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from redis.connection import Connection
from redis.crc import key_slot
from redis.exceptions import RedisError

from bootstrap.clock import Clock, Deadline
from bootstrap.model.copying import Entry
from bootstrap.model.node import Address
from bootstrap.model.slots import SLOT_COUNT, SlotSet
from bootstrap.nodes import commands
from bootstrap.nodes.commands import Command
from bootstrap.nodes.copying.flight import OK, ONE, Flight, error_of, restoring, transmit
from bootstrap.nodes.failures import error_text
from bootstrap.nodes.pipeline import Packed, Pipeline, packed, packed_each, parsed_line
from bootstrap.nodes.wire.source import parse_redirect

STALLED_S = 60.0
"""How long the target may accept nothing before copying ends: longer than a failover takes."""
PAUSE_S = 0.1
PAYLOAD_BYTES_MAX = 512 << 20
"""The servers' default for `proto-max-bulk-len`. They end a connection on which more is announced."""
TOO_LARGE = "a payload beyond proto-max-bulk-len,"
"""How the error about such a key begins."""
_TEMPORARY = (
    "CLUSTERDOWN",
    "LOADING",
    "TRYAGAIN",
    "READONLY",
    "MASTERDOWN",
    "BUSY ",
    "NOREPLICAS",
    "MISCONF",
    "UNBLOCKED",
)
"""Beginnings of replies that a server gives while it, or the cluster, is not ready."""
_EXISTS = "BUSYKEY"


Look = Callable[[], Iterable[tuple[Address, SlotSet]]]
"""Looks at the cluster; returns its masters with their slots."""


class Stalled(Exception):
    """No master has accepted anything for a while; the text is the latest obstacle."""


class RestoreRejected(Exception):
    """A master rejected a key; the text is its error reply."""

    def __init__(self, key: bytes, text: str) -> None:
        super().__init__(text)
        self.key = key

    @property
    def unreadable(self) -> bool:
        """The server does not know the format, or the type, of the payload."""
        text = str(self).lower()
        return "payload" in text or "bad data format" in text


class Owners:
    """Close it when done. Only one flight may be under way at a time."""

    def __init__(
        self, *, connect: Callable[[Address], Connection], look: Look, clock: Clock, stalled_s: float = STALLED_S
    ) -> None:
        self._connect, self._look, self._clock, self._stalled_s = connect, look, clock, stalled_s
        self._open: dict[tuple[Address, int], tuple[Connection, Pipeline]] = {}
        self._addresses: list[Address] = []
        self._owner: list[int] = []
        """By slot: which of the addresses; -1 for none."""
        self._obstacle = "no master owns these slots"
        self._refresh()

    def close(self) -> None:
        """Ends every connection."""
        for address, database in list(self._open):
            self._drop(address, database)

    def ask(self, database: int, keys: Sequence[bytes], head: Command, tail: Command = ()) -> list[Any]:
        """The replies to one command for each key, which stands between `head` and `tail`. Raises Stalled."""
        flight = self._send_off(database, keys, [packed((*head, key, *tail)) for key in keys], in_lines=False)
        return self._receive_all(flight)

    def missing(self, database: int, keys: Sequence[bytes]) -> list[bytes]:
        """The keys that are not there. Raises Stalled or RestoreRejected."""
        flight = self._send_off(database, keys, packed_each(commands.EXISTS, keys), in_lines=True)
        replies = self._receive_all(flight)
        if replies.count(ONE) == len(keys):
            return []
        for key, reply in zip(keys, replies, strict=True):
            if reply[:1] == b"-":
                raise RestoreRejected(key, str(parsed_line(reply)))
        return [key for key, reply in zip(keys, replies, strict=True) if reply != ONE]

    def restore(self, entries: Sequence[Entry], *, replace: bool) -> Flight:
        """Sends entries of one database to their owners; `restored` receives what became of them. Raises
        RestoreRejected for an entry that is too large for one command.
        """
        for entry in entries:
            if len(entry.payload) > PAYLOAD_BYTES_MAX:
                raise RestoreRejected(entry.key, f"{TOO_LARGE} of {len(entry.payload) >> 20} MiB")
        keys = [entry.key for entry in entries]
        return self._send_off(entries[0].database, keys, restoring(entries, replace=replace), in_lines=True)

    def restored(self, flight: Flight) -> list[bytes]:
        """Waits for a flight; returns those of its keys that existed already and were left as they were. Raises
        RestoreRejected, or Stalled.
        """
        existing = []
        for number, reply in self._unusual(flight):
            if not reply.startswith(_EXISTS):
                raise RestoreRejected(flight.keys[number], reply)
            if number not in flight.repeated:
                existing.append(flight.keys[number])
        return existing

    def rejected(self, flight: Flight) -> Mapping[bytes, str]:
        """Waits for a flight; returns the keys that were rejected, with the error replies. Raises Stalled."""
        return {flight.keys[number]: reply for number, reply in self._unusual(flight)}

    def _unusual(self, flight: Flight) -> list[tuple[int, str]]:
        replies = self._receive_all(flight)
        if replies.count(OK) == len(replies):
            return []
        return [(number, str(parsed_line(reply))) for number, reply in enumerate(replies) if reply != OK]

    def _send_off(self, database: int, keys: Sequence[bytes], sent: Sequence[Packed], *, in_lines: bool) -> Flight:
        """Sends one packed command for each key to the owner of its slot."""
        flight = Flight(database, keys, sent, [None] * len(keys), in_lines, unsent=list(range(len(keys))))
        self._send(flight)
        return flight

    def _receive_all(self, flight: Flight) -> list[Any]:
        """The replies in the order of the keys, each from the server that the cluster had for it in the end. Raises
        Stalled.
        """
        limit, left = None, len(flight.keys)
        while True:
            redirected = self._receive(flight)
            if not flight.unsent:
                return flight.replies
            if limit is None or len(flight.unsent) < left:
                limit, left = Deadline.after(self._stalled_s, self._clock), len(flight.unsent)
            if limit.passed:
                raise Stalled(self._obstacle)
            if not redirected:
                self._clock.sleep(PAUSE_S)
                self._refresh()
            self._send(flight)

    def _send(self, flight: Flight) -> None:
        """Sends what is unsent. What has no owner, or one that cannot be reached, stays unsent."""
        groups: list[list[int]] = [[] for _ in range(len(self._addresses) + 1)]
        owner, keys = self._owner, flight.keys
        for number in flight.unsent:
            groups[owner[key_slot(keys[number])]].append(number)
        unsent = groups.pop()  # of -1
        for address, numbers in zip(list(self._addresses), groups, strict=True):
            if not numbers:
                continue
            try:
                transmit(self._pipeline(address, flight.database), [flight.commands[each] for each in numbers])
                flight.sent[address] = numbers
            except (RedisError, OSError) as error:
                self._lost(address, flight.database, error)
                flight.repeated.update(numbers)
                unsent += numbers
        flight.unsent = unsent

    def _receive(self, flight: Flight) -> bool:
        """Receives all replies that are on their way. What has to be sent again is unsent then. True where that has a
        new owner, and nothing stands against sending it immediately.
        """
        redirected, obstacles, unsent = 0, len(flight.unsent), list(flight.unsent)
        for address, numbers in flight.sent.items():
            try:
                pipeline = self._open[address, flight.database][1]
                replies = pipeline.receive_lines(len(numbers)) if flight.in_lines else pipeline.receive(len(numbers))
            except (RedisError, OSError, KeyError) as error:
                self._lost(address, flight.database, error)
                flight.repeated.update(numbers)
                unsent += numbers
                obstacles += 1
                continue
            for number, reply in zip(numbers, replies, strict=True):
                flight.replies[number] = reply
                if (text := error_of(reply)) and (again := self._again(flight, number, text)):
                    redirected += again == "redirected"
                    obstacles += again == "obstacle"
                    unsent.append(number)
        flight.sent, flight.unsent = {}, unsent
        return bool(redirected) and not obstacles

    def _again(self, flight: Flight, number: int, text: str) -> str:
        """Why a command has to be sent again; "" where its reply is final."""
        if redirect := parse_redirect(text):
            self._obstacle = text
            if redirect.address is None:
                return "obstacle"
            if redirect.ask:
                return self._ask_there(flight, number, redirect.address)
            if redirect.address not in self._addresses:
                self._addresses.append(redirect.address)
            known, new = self._owner[redirect.slot], self._addresses.index(redirect.address)
            self._owner[redirect.slot] = new
            return "obstacle" if known == new else "redirected"
        if text.startswith(_TEMPORARY):
            self._obstacle = text
            return "obstacle"
        return ""

    def _ask_there(self, flight: Flight, number: int, address: Address) -> str:
        """The slot is on its way: keys that the old owner lacks are at the new one, or belong there."""
        connection = self._connect(address)  # a connection of its own: others have replies under way
        try:
            pipeline = Pipeline(connection)
            if flight.database:
                pipeline([commands.select(flight.database)])
            transmit(pipeline, [packed(commands.ASKING), flight.commands[number]])
            asking = pipeline.receive_lines(1)
            (reply,) = pipeline.receive_lines(1) if flight.in_lines else pipeline.receive(1)
        except (RedisError, OSError) as error:
            self._obstacle = f"{address}: {error_text(error)}"
            return "obstacle"
        finally:
            connection.disconnect()
        flight.replies[number] = reply
        text = error_of(asking[0]) or error_of(reply)
        return "obstacle" if parse_redirect(text) or text.startswith(_TEMPORARY) else ""

    def _pipeline(self, address: Address, database: int) -> Pipeline:
        if (address, database) not in self._open:
            connection = self._connect(address)
            pipeline = Pipeline(connection)
            if database and isinstance(reply := pipeline([commands.select(database)])[0], RedisError):
                connection.disconnect()
                raise reply
            self._open[address, database] = (connection, pipeline)
        return self._open[address, database][1]

    def _lost(self, address: Address, database: int, error: Exception) -> None:
        self._obstacle = f"{address}: {error_text(error)}"
        self._drop(address, database)

    def _drop(self, address: Address, database: int) -> None:
        if found := self._open.pop((address, database), None):
            connection, pipeline = found
            pipeline.close()
            connection.disconnect()

    def _refresh(self) -> None:
        masters = list(self._look())
        self._addresses = [address for address, _ in masters]
        self._owner = [-1] * SLOT_COUNT
        for number, (_, slots) in enumerate(masters):
            for slot in slots:
                self._owner[slot] = number
