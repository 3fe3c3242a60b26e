"""Servers to import from, beside a cluster: a standalone server, a Sentinel, and keys of every type."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from bootstrap.clock import SystemClock
from bootstrap.local.process_guard import own_process_guard
from bootstrap.local.programs import Program
from bootstrap.local.servers import Server
from bootstrap.model.node import Address
from tests.real.testbed import Testbed
from tests.waiting import wait_until

PORT, SENTINEL_PORT = 7001, 26379
"""Beside the port of a cluster's server, at the same address."""
STANDALONE = ("cluster-enabled no", "appendonly no")


@contextmanager
def standalone(
    program: Program, testbed: Testbed, directory: Path, *, port: int = PORT, config: Sequence[str] = ()
) -> Iterator[Server]:
    """A standalone server at an address of the testbed."""
    address = Address(testbed.cluster.servers[0].address.host, port)
    server = Server(program, directory / f"source-{port}", address, config=(*STANDALONE, *config))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def sentinel(program: Program, master: Server, directory: Path, *names: str) -> Iterator[Address]:
    """A Sentinel that monitors the master under these names."""
    address = Address(master.address.host, SENTINEL_PORT)
    folder = directory / "sentinel"
    folder.mkdir()
    monitors = [f"sentinel monitor {name} {master.address.host} {master.address.port} 1" for name in names]
    lines = [f"bind {address.host}", f"port {address.port}", f"dir {folder}", *monitors]
    (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
    process = subprocess.Popen(
        [program.path, folder / "sentinel.conf", "--sentinel"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        process_group=own_process_guard().group,
    )
    try:
        client = Redis(address.host, address.port)
        wait_until(lambda: answers(client), "the Sentinel answers")
        yield address
    finally:
        process.kill()
        process.wait(10)


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except OSError:
        return False
    except Exception:  # noqa: BLE001 - redis-py's errors while the server starts
        return False


def client_of(server: Server, database: int = 0) -> Redis:
    return Redis(server.address.host, server.address.port, db=database, protocol=2, socket_timeout=10)


BINARY = bytes(range(256))


def write_every_type(source: Any) -> None:
    """Keys of every type, small and large, some with a time to live, with names that no text could have."""
    source.set(b"string", b"value")
    source.set(b"empty", b"")
    source.set(b"number", 42)
    source.set(BINARY, BINARY)
    source.set(b"\r\n$3\r\n", b"\r\n+OK\r\n")
    source.set(b"{tag}:one", b"1", px=600_000)
    source.set(b"{tag}:two", b"2", ex=3600)
    source.set(b"large", b"x" * 3_000_000)
    source.rpush(b"list", *range(1000))
    source.rpush(b"short list", BINARY, b"")
    source.sadd(b"set", *(f"member:{number}" for number in range(1000)))
    source.sadd(b"numbers", *range(100))
    source.zadd(b"zset", {f"member:{number}": number / 3 for number in range(1000)})
    source.hset(b"hash", mapping={f"field:{number}": number for number in range(1000)})
    source.hset(b"short hash", BINARY, BINARY)
    source.pexpire(b"short hash", 500_000)
    source.setbit(b"bits", 12345, 1)
    source.pfadd(b"log", *range(500))
    for number in range(50):
        source.xadd(b"stream", {"field": number}, id=f"{number + 1}-1")
    source.xgroup_create(b"stream", b"group", id="0")
    source.xreadgroup(b"group", b"reader", {b"stream": ">"}, count=10)
    source.xack(b"stream", b"group", "1-1", "2-1")
    source.xadd(b"trimmed", {"field": 1}, id="7-7")
    source.xdel(b"trimmed", "7-7")


READS: dict[bytes, Callable[[Any, bytes], Any]] = {
    b"string": lambda source, key: source.get(key),
    b"list": lambda source, key: source.lrange(key, 0, -1),
    b"set": lambda source, key: sorted(source.smembers(key)),
    b"zset": lambda source, key: source.zrange(key, 0, -1, withscores=True),
    b"hash": lambda source, key: source.hgetall(key),
    b"stream": lambda source, key: (
        source.xrange(key),
        source.xinfo_stream(key)["last-generated-id"],
        [(group["name"], group["pending"], group["consumers"]) for group in source.xinfo_groups(key)],
    ),
}


def content(source: Any, keys: Sequence[bytes]) -> dict[bytes, Any]:
    """What a client reads, by key."""
    return {key: READS[source.type(key)](source, key) for key in keys}


class HookedClock(SystemClock):
    """A clock that calls a hook at one of its checks: an import makes one between two batches."""

    def __init__(self, at: int, hook: Callable[[], None]) -> None:
        super().__init__()
        self._left, self._hook = at, hook
        self.ahead_s = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_s

    def check(self) -> None:
        super().check()
        self._left -= 1
        if self._left == 0:
            self._hook()
