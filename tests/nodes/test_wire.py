"""The parsers of CLUSTER NODES and CLUSTER INFO on texts of real servers; and every parser on damaged texts."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.errors import WireError
from bootstrap.model.node import Address, Member, Role
from bootstrap.model.slots import SlotSet
from bootstrap.nodes.wire.cluster import ClusterInfo, parse_cluster_info, parse_cluster_nodes
from bootstrap.nodes.wire.info import (
    databases_of,
    keys_by_database,
    parse_info,
    parse_persistence,
    parse_replication,
)
from tests.nodes.server_texts import TEXTS

NODES = [text for texts in TEXTS.values() for title, text in texts.items() if title.startswith("nodes")]
ANY = [text for texts in TEXTS.values() for text in texts.values()]
MASTER = "a" * 40


def only(text: str) -> Member:
    (member,) = parse_cluster_nodes(text)
    return member


@pytest.mark.parametrize("version", TEXTS)
def test_a_formed_cluster_is_read_as_it_is(version: str) -> None:
    """Three masters with a third of the slots each, one replica of the first, all connected, on every server."""
    found = parse_cluster_nodes(TEXTS[version]["nodes"])
    masters = sorted((m for m in found if m.role is Role.MASTER), key=lambda m: m.config_epoch)
    (replica,) = (m for m in found if m.role is Role.REPLICA)
    assert [str(m.slots) for m in masters] == ["0-5460", "5461-10922", "10923-16383"]
    assert [m.config_epoch for m in masters] == [1, 2, 3]
    assert (replica.master_id, replica.slots) == (masters[0].node_id, SlotSet())
    assert all(m.connected and m.address and m.bus_port == m.address.port + 10000 for m in found)
    assert "myself" in masters[0].flags


@pytest.mark.parametrize("version", TEXTS)
def test_a_blank_node_knows_only_itself(version: str) -> None:
    """A master without slots, with epoch 0."""
    found = only(TEXTS[version]["nodes of a blank"])
    assert (found.role, found.slots, found.config_epoch, found.master_id) == (Role.MASTER, SlotSet(), 0, None)


@pytest.mark.parametrize("version", [version for version in TEXTS if "nodes with a handshake" in TEXTS[version]])
def test_a_handshake_is_not_a_member(version: str) -> None:
    """Its id is temporary, and no command may use it."""
    found = parse_cluster_nodes(TEXTS[version]["nodes with a handshake"])
    assert [(m.in_handshake, "myself" in m.flags) for m in sorted(found, key=lambda m: m.in_handshake)] == [
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize("version", [version for version in TEXTS if "nodes with a suspect" in TEXTS[version]])
def test_suspicion_is_read_from_either_flag(version: str) -> None:
    """`fail?` and `fail` both mean that the reporting node cannot reach it, and the slots are still its own."""
    for title, flag in (("nodes with a suspect", "fail?"), ("nodes with a failed master", "fail")):
        (suspect,) = (m for m in parse_cluster_nodes(TEXTS[version][title]) if m.suspected)
        assert flag in suspect.flags
        assert str(suspect.slots) == "10923-16383"


@pytest.mark.parametrize(
    "version", [version for version in TEXTS if "nodes with a slot on its way out" in TEXTS[version]]
)
def test_open_slots_are_read_on_both_sides(version: str) -> None:
    """`[93->-id]` on the source, `[93-<-id]` on the target; neither means that the node owns the slot."""
    out = {m.node_id: m for m in parse_cluster_nodes(TEXTS[version]["nodes with a slot on its way out"])}
    into = {m.node_id: m for m in parse_cluster_nodes(TEXTS[version]["nodes with a slot on its way in"])}
    (source,) = (m for m in out.values() if m.migrating)
    (target,) = (m for m in into.values() if m.importing)
    assert source.migrating == ((93, target.node_id),)
    assert target.importing == ((93, source.node_id),)
    assert 93 not in target.slots


def test_a_flag_without_a_meaning_here_is_kept() -> None:
    """`nofailover` beside `slave`."""
    found = parse_cluster_nodes(TEXTS["redis 7.0"]["nodes with a replica that never fails over"])
    assert [m.role for m in found if "nofailover" in m.flags] == [Role.REPLICA]


def test_members_without_an_address_are_kept_apart() -> None:
    """Redis prints `:0@0` for each of them: two members, not one, and no address to act on."""
    found = parse_cluster_nodes(TEXTS["redis 5.0"]["nodes without an address"])
    lost = [m for m in found if m.address is None]
    assert len(lost) == 2
    assert {m.bus_port for m in lost} == {0}
    assert all("noaddr" in m.flags and not m.connected for m in lost)
    assert [str(m.slots) for m in found] == ["0-5460 5462 5464-5470", "5461 5463", ""]


def test_a_fresh_node_does_not_know_its_own_address() -> None:
    """An empty host before the port, with or without a host name behind."""
    for version, title in (
        ("redis 5.0", "nodes of a blank"),
        ("redis 7.0", "nodes of a blank that does not know its address"),
    ):
        found = only(TEXTS[version][title])
        assert found.address is None
        assert found.bus_port in (16379, 17393)


def test_ipv6_keeps_its_colons() -> None:
    """The last colon of the address part divides host and port."""
    found = parse_cluster_nodes(TEXTS["valkey 9.1"]["nodes by IPv6"])
    assert sorted(m.address for m in found if m.address) == [Address("::1", 7393), Address("::1", 7394)]
    assert str(Address("::1", 7393)) == "[::1]:7393"


@pytest.mark.parametrize(
    ("where", "address", "bus_port"),
    [
        ("10.0.0.1:6379", Address("10.0.0.1", 6379), 0),
        ("10.0.0.1:6379@16379", Address("10.0.0.1", 6379), 16379),
        ("10.0.0.1:6379@16379,redis-app-0.redis-service", Address("10.0.0.1", 6379), 16379),
        (
            "10.0.0.1:6379@16379,,tls-port=0,shard-id=69bc080733d1355567173199cff4a6a039a2f024",
            Address("10.0.0.1", 6379),
            16379,
        ),
        ("10.0.0.1:6379@16379,host,shard-id=1:2@3", Address("10.0.0.1", 6379), 16379),
        ("fd00::12:6379@16379", Address("fd00::12", 6379), 16379),
        (":0@0", None, 0),
        (":6379@16379", None, 16379),
        ("10.0.0.1:0@10000", None, 10000),
        ("10.0.0.1:70000@16379", None, 16379),
        ("redis-app-0.redis-service:6379@16379", None, 16379),
    ],
)
def test_an_address_is_read_in_every_form(where: str, address: Address | None, bus_port: int) -> None:
    """Before 4.0 without bus port; 7.0 with a host name; 7.2 and later with names and values; unknown; IPv6."""
    found = only(f"{MASTER} {where} myself,master - 0 0 1 connected")
    assert (found.address, found.bus_port) == (address, bus_port)


GOOD = f"{MASTER} 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-5"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "exactly one line"),
        (f"{GOOD}\n{GOOD}", "exactly one line"),
        (GOOD.replace("myself,", ""), "exactly one line"),
        ("-ERR unknown command", "fewer than 8 fields"),
        (GOOD.replace("connected", "perhaps"), "no link state"),
        (GOOD.replace(MASTER, "A" * 40), "not a node id"),
        (GOOD.replace(" - ", " 10.0.0.2 "), "not a node id"),
        (GOOD.replace(" 1 connected", " one connected"), "config epoch is not a number"),
        (GOOD.replace(" 1 connected", " ٣ connected"), "config epoch is not a number"),
        (GOOD.replace("@16379", "@bus"), "bus port is not a number"),
        (GOOD.replace(":6379@16379", ""), "no address"),
        (GOOD.replace("0-5", "5-0"), "reversed"),
        (GOOD.replace("0-5", "0-16384"), "not a slot: 16384"),
        (GOOD.replace("0-5", "[16384->-" + MASTER + "]"), "not a slot: 16384"),
        (GOOD.replace("0-5", "[93->-nobody]"), "not a slot"),
    ],
)
def test_a_text_that_breaks_the_format_is_an_error_that_names_the_fault(text: str, what: str) -> None:
    """The parser never guesses."""
    with pytest.raises(WireError, match=what):
        parse_cluster_nodes(text)


def test_a_hostile_text_is_quoted_short_and_harmless() -> None:
    """Neither a flood nor a control character reaches the log."""
    with pytest.raises(WireError) as caught:
        parse_cluster_nodes("\x1b[2J" + "x" * 100_000)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("version", TEXTS)
def test_cluster_info_holds_whether_a_node_serves(version: str) -> None:
    """The state and the epoch; what a newer server adds is skipped."""
    assert parse_cluster_info(TEXTS[version]["cluster info"]) == ClusterInfo(serving=True, current_epoch=4)
    if failed := TEXTS[version].get("cluster info of a failed cluster"):
        assert not parse_cluster_info(failed).serving


@pytest.mark.parametrize(
    "text", ["", "cluster_state:ok", "cluster_state:ok\r\ncluster_current_epoch:x", "cluster_current_epoch:1"]
)
def test_cluster_info_without_its_facts_is_an_error(text: str) -> None:
    """A state without an epoch, or the other way round, is not that of a cluster node."""
    with pytest.raises(WireError):
        parse_cluster_info(text)


def parse_everything(text: str) -> None:
    """Every parser on one text; only WireError may come out."""
    for parse in (
        parse_cluster_nodes,
        parse_cluster_info,
        lambda text: parse_replication(parse_info(text)),
        lambda text: keys_by_database(parse_info(text)),
        lambda text: databases_of(parse_info(text)),
        lambda text: parse_persistence(parse_info(text)),
    ):
        with suppress(WireError):
            parse(text)


@given(st.text())
def test_any_text_is_parsed_or_is_a_wire_error(text: str) -> None:
    """Nothing but WireError, whatever comes."""
    parse_everything(text)


@given(st.sampled_from(ANY), st.data())
def test_a_damaged_real_text_is_parsed_or_is_a_wire_error(text: str, data: st.DataObject) -> None:
    """A piece of a real text is replaced by another."""
    at = data.draw(st.integers(0, len(text)))
    until = data.draw(st.integers(at, min(len(text), at + 40)))
    piece = data.draw(
        st.text(max_size=8) | st.sampled_from([":", "@", ",", "=", "-", "\n", "0" * 400, "[", "]", "99999"])
    )
    parse_everything(text[:at] + piece + text[until:])


@pytest.mark.parametrize("text", NODES)
def test_the_order_of_the_lines_means_nothing(text: str) -> None:
    """Redis prints members in the order of its hash table."""
    lines = text.splitlines()
    before = parse_cluster_nodes(text)
    after = parse_cluster_nodes("\r\n".join(reversed(lines)))
    assert set(before) == set(after)
