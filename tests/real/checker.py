"""Clients that write and read continuously and record every acknowledgement: they judge every slot migration."""

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
    """What one client observed."""

    operations: int = 0
    errors: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    """Reads that returned an older value than the acknowledged one."""
    worst_pause_s: float = 0.0
    """The longest time between two acknowledgements."""
    acknowledged: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    """The highest value sent per key, acknowledged or not."""


class Checker:
    """Within the `with` block, each thread increments its own keys and reads each one back immediately."""

    def __init__(self, endpoints: Iterable[Address], *, threads: int = 2) -> None:
        self._endpoints = [ClusterNode(address.host, address.port) for address in endpoints]
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
        """Waits until this many more operations have been answered."""
        wanted, end = self.operations + operations, time.monotonic() + limit_s
        while self.operations < wanted:
            assert time.monotonic() < end, f"clients no longer receive answers: {self.errors[-3:]}"
            self._stop.wait(0.02)

    @property
    def operations(self) -> int:
        """The number of writes and reads that were answered."""
        return sum(found.operations for found in self.found)

    @property
    def errors(self) -> list[str]:
        """The errors that clients received instead of an answer, after their library had retried."""
        return [error for found in self.found for error in found.errors]

    @property
    def stale(self) -> list[str]:
        """Reads that returned an older value than the acknowledged one."""
        return [line for found in self.found for line in found.stale]

    @property
    def worst_pause_s(self) -> float:
        """The longest time in which one client received no answer."""
        return max(found.worst_pause_s for found in self.found)

    def lost(self) -> list[str]:
        """Reads every key again at the end. A value older than the acknowledged one means a lost write."""
        with self._client() as client:
            return [
                f"{key}: {value!r}, acknowledged was {found.acknowledged[key]}"
                for found in self.found
                for key in found.acknowledged
                if not found.acknowledged[key] <= int((value := client.get(key)) or -1) <= found.tried[key]
            ]

    def _client(self) -> RedisCluster:
        return RedisCluster(
            startup_nodes=list(self._endpoints),
            decode_responses=True,
            socket_timeout=ANSWER_LIMIT_S,
            retry=Retry(ConstantBackoff(0.02), 10),
            protocol=2,
        )

    def _count_up(self, number: int) -> None:
        found, value = self.found[number], 0
        with self._client() as client:
            answered_at = time.monotonic()
            while not self._stop.is_set():
                key = f"checked:{number}:{value % KEYS_EACH}"
                value += 1
                try:
                    self._write_and_read(client, found, key, value)
                except (RedisError, RedisClusterException) as error:
                    found.errors.append(f"{type(error).__name__}: {error}")
                except AttributeError as error:
                    # redis-py raises this if a redirection names a node that it does not know yet (ASK, a new master).
                    found.errors.append(f"sent to an unknown node: {error}")
                    client.nodes_manager.initialize()
                else:
                    now = time.monotonic()
                    found.worst_pause_s = max(found.worst_pause_s, now - answered_at)
                    answered_at = now

    def _write_and_read(self, client: RedisCluster, found: Found, key: str, value: int) -> None:
        found.tried[key] = value
        client.set(key, value)
        found.acknowledged[key] = value
        found.operations += 1
        received = client.get(key)
        found.operations += 1
        if received != str(value):
            found.stale.append(f"{key}: read {received!r}, acknowledged was {value}")
