"""Loopback addresses for the servers: an own one for each where the machine has all of 127/8, else one with many ports.

An address stays reserved from the choice until the end of the cluster by a UDP socket on the server's port: the servers
themselves only use TCP, so the reservation does not stand in their way, and two clusters that start at the same moment
never choose the same.
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
"""A server's cluster bus listens this far above its port."""
NODES_MAX = 250
"""Servers of one local cluster: one block of 127.x.y.0/24."""
_LOOPBACK = "127.0.0.1"
_PORTS = range(7_000, 22_000)
"""Where ports differ. With their bus ports they stay below the ranges from which systems give ports to connections."""
_SECOND_BYTES = range(1, 255)
"""127.0 is left to whatever else listens on this machine."""
_THIRD_BYTES = range(256)
_BLOCK_TRIES = 50


class Reservation:
    """Addresses that are free and that no other reservation on this machine can take until this one is released."""

    def __init__(self, addresses: Sequence[Address], claims: Sequence[socket.socket]) -> None:
        self.addresses = tuple(addresses)
        self._claims = tuple(claims)

    def release(self) -> None:
        """Let others have the addresses. Harmless when repeated."""
        for claim in self._claims:
            claim.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def reserve(count: int, *, one_address: bool = False, before: Sequence[Address] = ()) -> Reservation:
    """`count` addresses, those of `before` first if all of them are still free.

    `one_address`: 127.0.0.1 for all, each with a port of its own; that is also what is left where 127/8 is not whole or
    no block has port 6379 free. Raises Misconfigured where not even that is to be had.
    """
    if not 1 <= count <= NODES_MAX:
        raise Misconfigured(f"{count} servers on one machine: between 1 and {NODES_MAX} can have an address")
    for candidates in _proposals(count, before, one_address=one_address):
        claims = _claim(candidates, count)
        if len(claims) == count:
            return Reservation(tuple(claims), tuple(claims.values()))
        for claim in claims.values():
            claim.close()
    raise Misconfigured(f"no {count} free ports on {_LOOPBACK} between {_PORTS.start} and {_PORTS.stop}")


def has_whole_loopback() -> bool:
    """Whether every address of 127/8 is this machine's own (Linux), rather than 127.0.0.1 alone (macOS)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.200.100.50", 0))
        except OSError:
            return False
        return True


def _proposals(count: int, before: Sequence[Address], *, one_address: bool) -> Iterator[Sequence[Address]]:
    """Lists of addresses to try, best first."""
    one_address = one_address or not has_whole_loopback()
    if before and all((address.host == _LOOPBACK) == one_address for address in before):
        more = _ports() if one_address else _block(before[0].host, before[0].port)
        # The old addresses first and in their order: a cluster that finds itself where it was has nothing to heal.
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
    """Up to `count` claims; without spare candidates the first address that is taken ends the attempt."""
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
                # As the servers themselves bind: what they left in TIME_WAIT does not count as taken.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address.host, port))
    except (OSError, OverflowError):
        claim.close()
        return None
    return claim
