"""A client that keeps writing while servers come and go, and records which writes were acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import MovedError, RedisError
from redis.retry import Retry

from bootstrap.local.servers import Server
from bootstrap.model.node import Address

ANSWER_LIMIT_S = 0.3
COPY_LIMIT_MS = 200
PAUSE_S = 0.002
"""The pause between two writes. A few hundred writes per second are enough and leave the machine to the servers."""
REDIRECTIONS_MAX = 3


class Writer:
    """Within the `with` block a thread writes numbered keys, each once, to the owners of their slots."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.acknowledged: dict[str, str] = {}
        """Keys that a master has acknowledged."""
        self.copied: dict[str, str] = {}
        """Those of them that a replica has, too. They survive the loss of either node."""
        self._servers = servers
        self._owners: dict[int, Address] = {}
        self._clients: dict[Address, Redis] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="writer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for client in self._clients.values():
            client.close()

    def _write_on(self) -> None:
        number = 0
        while not self._stop.wait(PAUSE_S):
            self._write(f"written:{number}", str(number))
            number += 1

    def _write(self, key: str, value: str) -> None:
        """One attempt, which follows redirections. After an error the key may exist or not: it was not acknowledged."""
        slot = key_slot(key.encode())
        for hop in range(REDIRECTIONS_MAX):
            fallback = self._servers[(slot + hop) % len(self._servers)].address
            client = self._client(self._owners.get(slot, fallback))
            try:
                client.set(key, value)
                self.acknowledged[key] = value
                if client.execute_command("WAIT", 1, COPY_LIMIT_MS):
                    self.copied[key] = value
            except MovedError as moved:
                self._owners[slot] = Address(moved.host, moved.port)
            except RedisError:
                self._owners.pop(slot, None)
                return
            else:
                return

    def _client(self, address: Address) -> Redis:
        if address not in self._clients:
            self._clients[address] = Redis(
                address.host,
                address.port,
                decode_responses=True,
                socket_timeout=ANSWER_LIMIT_S,
                socket_connect_timeout=ANSWER_LIMIT_S,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        return self._clients[address]
