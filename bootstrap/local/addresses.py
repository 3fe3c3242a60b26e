"""Loopback addresses for the servers of one cluster, and the reservation that keeps other clusters off them.

Where the machine has all of 127/8, each server has an IP address of its own. Elsewhere all servers share 127.0.0.1 and
each has a port of its own.

A UDP socket on a server's port reserves the address until the cluster ends. The servers use TCP only, so the
reservation does not block them, and two clusters that start at the same moment never choose the same address.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from bootstrap.errors import Misconfigured
from bootstrap.model.node import Address

PORT = 6379
BUS_OFFSET = 10_000
"""A server's cluster bus port is its port plus this number."""
NODES_MAX = 250
"""Servers of one local cluster: they share one block 127.x.y.0/24."""
_LOOPBACK = "127.0.0.1"
_PORTS = range(7_000, 22_000)
"""Ports on 127.0.0.1. They and their bus ports are below the ephemeral port ranges of the operating systems."""
_SECOND_BYTES = range(1, 255)
"""Without 0: other programs of this machine listen on 127.0.x.y."""
_THIRD_BYTES = range(256)
_BLOCK_TRIES = 50


class Reservation:
    """Free addresses that no other reservation on this machine can take until this one is released."""

    def __init__(self, addresses: Sequence[Address], claims: Sequence[socket.socket]) -> None:
        self.addresses = tuple(addresses)
        self._claims = tuple(claims)

    def release(self) -> None:
        """Give the addresses back. A second call does nothing."""
        for claim in self._claims:
            claim.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def reserve(count: int, *, one_address: bool = False, before: Sequence[Address] = ()) -> Reservation:
    """Reserve `count` addresses, those of `before` first if all of them are still free.

    With `one_address`, all are on 127.0.0.1 with different ports. That is also the fallback where the machine does not
    have all of 127/8 or where no block has port 6379 free. Raises Misconfigured when no such ports are free either.
    """
    if not 1 <= count <= NODES_MAX:
        raise Misconfigured(f"{count} servers on one machine: the number must be between 1 and {NODES_MAX}")
    for candidates in _proposals(count, before, one_address=one_address):
        claims = _claim(candidates, count)
        if len(claims) == count:
            return Reservation(tuple(claims), tuple(claims.values()))
        for claim in claims.values():
            claim.close()
    raise Misconfigured(
        f"fewer than {count} ports are free on {_LOOPBACK} between {_PORTS.start} and {_PORTS.stop};"
        " stop other programs on these ports or start fewer servers"
    )


def has_whole_loopback() -> bool:
    """Whether a server can listen on every address of 127/8 (Linux), and not on 127.0.0.1 only (macOS)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.200.100.50", 0))
        except OSError:
            return False
        return True


def _proposals(count: int, before: Sequence[Address], *, one_address: bool) -> Iterator[Sequence[Address]]:
    """Lists of addresses to try, the preferred one first."""
    one_address = one_address or not has_whole_loopback()
    if before and all((address.host == _LOOPBACK) == one_address for address in before):
        more = _ports() if one_address else _block(before[0].host, before[0].port)
        # A cluster that starts on its former addresses, in their order, needs no repair.
        yield tuple(dict.fromkeys((*before[:count], *more)))[: None if one_address else count]
    if not one_address:
        for _ in range(_BLOCK_TRIES):
            yield _block(f"127.{secrets.choice(_SECOND_BYTES)}.{secrets.choice(_THIRD_BYTES)}.1", PORT)[:count]
    yield _ports()


def _block(member: str, port: int) -> tuple[Address, ...]:
    network = ipaddress.IPv4Network(f"{member}/24", strict=False)
    return tuple(Address(str(host), port) for host in network.hosts())


def _ports() -> tuple[Address, ...]:
    start = secrets.choice(_PORTS)
    return tuple(Address(_LOOPBACK, port) for port in (*range(start, _PORTS.stop), *range(_PORTS.start, start)))


def _claim(candidates: Sequence[Address], count: int) -> dict[Address, socket.socket]:
    """Claim up to `count` of the candidates; give up as soon as those that are left are too few."""
    claims: dict[Address, socket.socket] = {}
    for tried, address in enumerate(candidates):
        if len(claims) == count or len(candidates) - tried < count - len(claims):
            break
        if (claim := _claim_one(address)) is not None:
            claims[address] = claim
    return claims


def _claim_one(address: Address) -> socket.socket | None:
    claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        claim.bind((address.host, address.port))
        for port in (address.port, address.port + BUS_OFFSET):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                # The servers set this option too: connections in TIME_WAIT do not block the port.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address.host, port))
    except (OSError, OverflowError):
        claim.close()
        return None
    return claim
