"""Clients that write and read all the time, and know what they were promised: the judge of every move of slots."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from redis import RedisCluster
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from bootstrap.model.node import Address

KEYS_EACH = 400
ANSWER_LIMIT_S = 5.0


@dataclass(slots=True)
class Found:
    """What one client saw."""

    operations: int = 0
    errors: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    """Reads of something older than what had been acknowledged."""
    worst_pause_s: float = 0.0
    """The longest time between two acknowledgements."""
    acknowledged: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    """The highest value that was sent, acknowledged or not."""


class Checker:
    """Within the `with` block each of some threads counts its own keys up and reads every one back at once."""

    def __init__(self, endpoints: Iterable[Address], *, threads: int = 2) -> None:
        self._doors = [ClusterNode(door.host, door.port) for door in endpoints]
        self._stop = threading.Event()
        self.found = [Found() for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._count_up, args=(n,), name=f"checker-{n}") for n in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, operations: int, limit_s: float = 30.0) -> None:
        """Waits until so many more operations were answered."""
        wanted, end = self.operations + operations, time.monotonic() + limit_s
        while self.operations < wanted:
            assert time.monotonic() < end, f"clients get no answer any more: {self.errors[-3:]}"
            self._stop.wait(0.02)

    @property
    def operations(self) -> int:
        """Writes and reads that were answered."""
        return sum(found.operations for found in self.found)

    @property
    def errors(self) -> list[str]:
        """What clients were told in place of an answer, after their library had tried again."""
        return [error for found in self.found for error in found.errors]

    @property
    def stale(self) -> list[str]:
        """Reads of something older than what had been acknowledged."""
        return [line for found in self.found for line in found.stale]

    @property
    def worst_pause_s(self) -> float:
        """The longest time in which one client got no answer."""
        return max(found.worst_pause_s for found in self.found)

    def lost(self) -> list[str]:
        """Reads every key once more, when all is over: what is older than its acknowledgement is lost."""
        with self._client() as client:
            return [
                f"{key}: {told!r}, acknowledged was {found.acknowledged[key]}"
                for found in self.found
                for key in found.acknowledged
                if not found.acknowledged[key] <= int((told := client.get(key)) or -1) <= found.tried[key]
            ]

    def _client(self) -> RedisCluster:
        return RedisCluster(
            startup_nodes=list(self._doors),
            decode_responses=True,
            socket_timeout=ANSWER_LIMIT_S,
            retry=Retry(ConstantBackoff(0.02), 10),
        )

    def _count_up(self, number: int) -> None:
        found, value = self.found[number], 0
        with self._client() as client:
            answered_at = time.monotonic()
            while not self._stop.is_set():
                key = f"checked:{number}:{value % KEYS_EACH}"
                value += 1
                try:
                    self._one(client, found, key, value)
                except (RedisError, RedisClusterException) as error:
                    found.errors.append(f"{type(error).__name__}: {error}")
                except AttributeError as error:
                    # redis-py's way to say that it was sent to a node which it does not know yet (ASK, a new master).
                    found.errors.append(f"sent to an unknown node: {error}")
                    client.nodes_manager.initialize()
                else:
                    now = time.monotonic()
                    found.worst_pause_s = max(found.worst_pause_s, now - answered_at)
                    answered_at = now

    def _one(self, client: RedisCluster, found: Found, key: str, value: int) -> None:
        found.tried[key] = value
        client.set(key, value)
        found.acknowledged[key] = value
        found.operations += 1
        told = client.get(key)
        found.operations += 1
        if told != str(value):
            found.stale.append(f"{key}: read {told!r}, acknowledged was {value}")
