"""The texts of CLUSTER NODES and CLUSTER INFO, in the formats of Redis 5.0 to 8.x and Valkey. Fields that a newer
server adds are skipped.

redis-py has a parser for CLUSTER NODES, but it keys lines by `ip:port` and so merges two members without an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bootstrap.errors import WireError
from bootstrap.model.node import Address, Member, NodeId
from bootstrap.model.slots import SLOT_COUNT, SlotSet
from bootstrap.nodes.wire.info import parse_info
from bootstrap.nodes.wire.values import address, is_number, node_id, number, quote, slot_range

_OPEN_SLOT = re.compile(r"\[([0-9]{1,5})-([<>])-([0-9a-f]{40})\]", re.ASCII)
_NODES = "CLUSTER NODES"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterInfo:
    """CLUSTER INFO, as far as this program needs it."""

    serving: bool
    current_epoch: int


def parse_cluster_nodes(text: str) -> tuple[Member, ...]:
    """CLUSTER NODES, one `Member` per line, in the server's order; exactly one of them is `myself`."""
    lines = [line for line in text.splitlines() if line.strip()]
    members = [_member(line) for line in lines]
    if sum("myself" in member.flags for member in members) != 1:
        raise WireError("CLUSTER NODES: not exactly one line is flagged myself")
    return tuple(_with_unanswered(members, [line.split()[4:6] for line in lines]))


def _with_unanswered(members: Sequence[Member], times: Sequence[Sequence[str]]) -> Iterator[Member]:
    """The members with the time since a ping was sent that is under way. The reply has no present time; the latest
    answer of any other member is at most about a second old.
    """
    pings = [(int(ping), int(pong)) if is_number(ping) and is_number(pong) else (0, 0) for ping, pong in times]
    others = [pair for member, pair in zip(members, pings, strict=True) if "myself" not in member.flags]
    now = max((max(pair) for pair in others), default=0)
    for member, (ping, _) in zip(members, pings, strict=True):
        yield replace(member, unanswered_ms=now - ping) if 0 < ping < now else member


def parse_cluster_info(text: str) -> ClusterInfo:
    """CLUSTER INFO. Raises WireError when the state or the epoch is missing."""
    fields = parse_info(text)
    if "cluster_state" not in fields:
        raise WireError("CLUSTER INFO: no cluster_state")
    return ClusterInfo(
        serving=fields["cluster_state"] == "ok",
        current_epoch=number(fields.get("cluster_current_epoch", ""), "CLUSTER INFO: cluster_current_epoch"),
    )


def _member(line: str) -> Member:
    fields = line.split()
    if len(fields) < 8:
        raise WireError(f"CLUSTER NODES: fewer than 8 fields: {quote(line)}")
    member_id, where, flags, master_id, _ping, _pong, epoch, link = fields[:8]
    if link not in ("connected", "disconnected"):
        raise WireError(f"CLUSTER NODES: no link state: {quote(line)}")
    place, bus_port = _where(where)
    slots, migrating, importing = _slots(fields[8:])
    return Member(
        node_id=node_id(member_id, _NODES),
        address=place,
        bus_port=bus_port,
        flags=frozenset(flags.split(",")) - {"noflags"},
        master_id=None if master_id == "-" else node_id(master_id, _NODES),
        config_epoch=number(epoch, "CLUSTER NODES: config epoch"),
        connected=link == "connected",
        slots=slots,
        migrating=migrating,
        importing=importing,
    )


def _where(text: str) -> tuple[Address | None, int]:
    """`ip:port@busport[,hostname[,name=value…]]`; the ip is empty while unknown, and may itself hold colons (IPv6)."""
    endpoint = text.split(",", 1)[0]
    base, _, bus = endpoint.partition("@")
    host, colon, port = base.rpartition(":")
    if not colon:
        raise WireError(f"CLUSTER NODES: no address: {quote(text)}")
    return address(host, port), number(bus, "CLUSTER NODES: bus port") if bus else 0


def _slots(fields: list[str]) -> tuple[SlotSet, tuple[tuple[int, NodeId], ...], tuple[tuple[int, NodeId], ...]]:
    """Owned slots (`7`, `7-9`), migrating ones (`[7->-id]`) and importing ones (`[7-<-id]`)."""
    ranges: list[tuple[int, int]] = []
    migrating: list[tuple[int, NodeId]] = []
    importing: list[tuple[int, NodeId]] = []
    for text in fields:
        if found := _OPEN_SLOT.fullmatch(text):
            slot, direction, other = int(found[1]), found[2], found[3]
            (migrating if direction == ">" else importing).append((_slot(slot), other))
        elif pair := slot_range(text):
            ranges.append((_slot(pair[0]), _slot(pair[1])))
        else:
            raise WireError(f"CLUSTER NODES: not a slot: {quote(text)}")
    if any(first > last for first, last in ranges):
        raise WireError("CLUSTER NODES: a slot range is reversed")
    return SlotSet.of(*ranges), tuple(migrating), tuple(importing)


def _slot(slot: int) -> int:
    if slot >= SLOT_COUNT:
        raise WireError(f"CLUSTER NODES: not a slot: {slot}")
    return slot
