"""Addresses are free when they are chosen, and no other cluster can take them until they are released."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from bootstrap.errors import Misconfigured
from bootstrap.local import addresses
from bootstrap.local.addresses import BUS_OFFSET, Reservation, reserve
from bootstrap.model.node import Address


def bindable(address: Address, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, port))
        except OSError:
            return False
        return True


def test_each_server_gets_an_address_of_its_own_on_the_usual_port() -> None:
    """Like pods: different IP addresses, the same port."""
    with reserve(6) as reservation:
        assert len({address.host for address in reservation.addresses}) == 6
        assert {address.port for address in reservation.addresses} == {6379}
        for address in reservation.addresses:
            assert bindable(address, 6379)
            assert bindable(address, 6379 + BUS_OFFSET)


def test_one_address_gives_each_server_a_port_of_its_own() -> None:
    """No port is the bus port of another server."""
    with reserve(20, one_address=True) as reservation:
        ports = {address.port for address in reservation.addresses}
        assert {address.host for address in reservation.addresses} == {"127.0.0.1"}
        assert len(ports | {port + BUS_OFFSET for port in ports}) == 40


def test_machine_without_the_whole_loopback_network_uses_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option is not needed there."""
    monkeypatch.setattr(addresses, "has_whole_loopback", lambda: False)
    with reserve(3) as reservation:
        assert {address.host for address in reservation.addresses} == {"127.0.0.1"}


def test_usual_port_taken_everywhere_leaves_the_other_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that listens on every address of the machine takes the usual port from all blocks."""
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        monkeypatch.setattr(addresses, "PORT", everywhere.getsockname()[1])
        with reserve(3) as reservation:
            assert {address.host for address in reservation.addresses} == {"127.0.0.1"}
            assert everywhere.getsockname()[1] not in {address.port for address in reservation.addresses}


@pytest.mark.parametrize("one_address", [False, True])
def test_former_addresses_come_first_and_more_follow(one_address: bool) -> None:
    """A cluster that is started again gets its former addresses, also when it has grown."""
    with reserve(3, one_address=one_address) as reservation:
        before = reservation.addresses
    with reserve(5, one_address=one_address, before=before) as again:
        assert again.addresses[:3] == before
        assert len(set(again.addresses)) == 5


@pytest.mark.parametrize("offset", [0, BUS_OFFSET])
def test_former_address_that_is_taken_is_not_used(offset: int) -> None:
    """Another program listens on its port or on its bus port: all servers get new addresses."""
    with reserve(3) as reservation:
        before = reservation.addresses
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((before[1].host, before[1].port + offset))
        taken.listen()
        with reserve(3, before=before) as again:
            assert not set(again.addresses) & set(before)


@pytest.mark.parametrize("one_address", [False, True])
def test_reservations_at_the_same_moment_never_overlap(monkeypatch: pytest.MonkeyPatch, one_address: bool) -> None:
    """Clusters that start in parallel, with so few addresses that they must collide."""
    monkeypatch.setattr(addresses, "_SECOND_BYTES", range(201, 203))
    monkeypatch.setattr(addresses, "_THIRD_BYTES", range(20))
    monkeypatch.setattr(addresses, "_PORTS", range(7_000, 7_400))

    def take(_: int) -> Reservation:
        return reserve(8, one_address=one_address)

    with ExitStack() as stack, ThreadPoolExecutor(10) as pool:
        taken = [stack.enter_context(reservation) for reservation in pool.map(take, range(20))]
        assert len({address for reservation in taken for address in reservation.addresses}) == 160


@pytest.mark.parametrize("one_address", [False, True])
def test_reserved_address_is_refused_until_it_is_released(one_address: bool) -> None:
    """A cluster does not get its former addresses while another reservation holds them."""
    with (
        reserve(2, one_address=one_address) as first,
        reserve(2, one_address=one_address, before=first.addresses) as second,
    ):
        assert not set(first.addresses) & set(second.addresses)
    with reserve(2, one_address=one_address, before=first.addresses) as third:
        assert third.addresses == first.addresses


@pytest.mark.parametrize("count", [0, -1, 251])
def test_number_without_addresses_is_refused(count: int) -> None:
    """The message names the limits."""
    with pytest.raises(Misconfigured, match="between 1 and 250"):
        reserve(count)
