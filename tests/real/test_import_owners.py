"""Keys are restored at the owners of their slots, also while slots move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from redis.crc import key_slot

from bootstrap.clock import SystemClock
from bootstrap.local.programs import Program
from bootstrap.local.servers import Server
from bootstrap.model.copying import Entry
from bootstrap.model.node import Address
from bootstrap.model.slots import SlotSet
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.copying.owners import Owners, RestoreRejected, Stalled
from bootstrap.nodes.pool import ConnectionPool
from tests.real.sources import client_of
from tests.real.testbed import StartTestbed, Testbed

KEY = b"{tag}:key"
SLOT = key_slot(KEY)


@contextmanager
def owners_of(
    testbed: Testbed, look: Callable[[], list[tuple[Address, SlotSet]]] | None = None, stalled_s: float = 5
) -> Iterator[Owners]:
    def looked() -> list[tuple[Address, SlotSet]]:
        return [(node.address, node.slots) for node in testbed.view().nodes if node.slots]

    pool = ConnectionPool(Credentials(), answer_limit_s=2)
    owners = Owners(connect=pool.raw_connection, look=look or looked, clock=SystemClock(), stalled_s=stalled_s)
    try:
        yield owners
    finally:
        owners.close()
        pool.close()


def formed(program: Program, start_testbed: StartTestbed) -> Testbed:
    testbed = start_testbed(program, 3, 0)
    assert testbed.run("apply").exit_code == 0
    return testbed


def dumped(testbed: Testbed, *names: bytes) -> list[Entry]:
    """Entries with these names, whose value is `value`."""
    owner, _ = owner_and_other(testbed)
    with client_of(owner) as client:
        client.set(KEY, b"value")
        payload = client.dump(KEY)
        client.delete(KEY)
    return [Entry(0, name, payload, 0) for name in names]


def owner_and_other(testbed: Testbed) -> tuple[Server, Server]:
    nodes = testbed.view().nodes
    owner = next(node for node in nodes if SLOT in node.slots)
    servers = testbed.cluster.servers
    return servers[owner.ordinal], servers[(owner.ordinal + 1) % 3]


def opened(testbed: Testbed) -> tuple[Redis, Redis]:
    """The slot is on its way from its owner to another master; clients of both."""
    owner, other = (client_of(server) for server in owner_and_other(testbed))
    ids = [client.execute_command("CLUSTER", "MYID").decode() for client in (owner, other)]
    other.execute_command("CLUSTER", "SETSLOT", SLOT, "IMPORTING", ids[0])
    owner.execute_command("CLUSTER", "SETSLOT", SLOT, "MIGRATING", ids[1])
    return owner, other


def test_keys_of_a_slot_that_moves_go_to_its_next_owner(program: Program, start_testbed: StartTestbed) -> None:
    """As a client's would: the owner has what has not moved yet, and sends the rest on."""
    testbed = formed(program, start_testbed)
    entries = dumped(testbed, KEY, b"{tag}:other", b"elsewhere")
    client_of(owner_and_other(testbed)[0]).set(KEY, "still there")
    owner, other = opened(testbed)
    with owners_of(testbed) as owners:
        assert owners.missing(0, [KEY, b"{tag}:other"]) == [b"{tag}:other"]
        assert owners.restored(owners.restore(entries, replace=False)) == [KEY]
        assert owners.missing(0, [KEY, b"{tag}:other", b"elsewhere"]) == []
    assert owner.get(KEY) == b"still there"
    assert other.execute_command("CLUSTER", "COUNTKEYSINSLOT", SLOT) == 1


def test_a_stale_view_is_corrected_by_the_servers(any_program: Program, start_testbed: StartTestbed) -> None:
    """MOVED names the owner; nothing is looked up again."""
    testbed = formed(any_program, start_testbed)
    entries, looks = dumped(testbed, KEY), []
    _, other = owner_and_other(testbed)

    def wrong() -> list[tuple[Address, SlotSet]]:
        looks.append(1)
        return [(other.address, SlotSet.of((0, 16383)))]

    with owners_of(testbed, wrong) as owners:
        assert owners.restored(owners.restore(entries, replace=False)) == []
        assert owners.missing(0, [KEY]) == []
    assert len(looks) == 1


def test_a_slot_without_an_owner_ends_it_with_the_words_of_the_servers(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """After a while without any progress."""
    testbed = formed(any_program, start_testbed)
    entries = dumped(testbed, KEY)
    owner, _ = owner_and_other(testbed)
    client_of(owner).execute_command("CLUSTER", "DELSLOTS", SLOT)
    with owners_of(testbed, stalled_s=0.5) as owners, pytest.raises(Stalled, match=r"CLUSTERDOWN|no master"):
        owners.restored(owners.restore(entries, replace=False))


def test_a_payload_that_no_server_reads_is_rejected_by_name(any_program: Program, start_testbed: StartTestbed) -> None:
    """The others of the same batch are there."""
    testbed = formed(any_program, start_testbed)
    (good,) = dumped(testbed, KEY)
    bad = Entry(0, b"bad", b"no payload", 0)
    with owners_of(testbed) as owners:
        with pytest.raises(RestoreRejected, match="payload") as caught:
            owners.restored(owners.restore([bad, good], replace=False))
        assert caught.value.key == b"bad"
        assert owners.missing(0, [KEY, b"bad"]) == [b"bad"]


def test_a_connection_that_ends_is_opened_again(any_program: Program, start_testbed: StartTestbed) -> None:
    """What was under way is sent again; a key that had arrived counts as restored."""
    testbed = formed(any_program, start_testbed)
    entries = dumped(testbed, *(b"key:%d" % number for number in range(100)))
    with owners_of(testbed) as owners:
        for _ in range(3):
            flight = owners.restore(entries, replace=False)
            for server in testbed.cluster.servers:
                client_of(server).execute_command("CLIENT", "KILL", "TYPE", "normal")
            owners.restored(flight)
        assert owners.missing(0, [entry.key for entry in entries]) == []
