"""Text from a server → the nouns of `model`. Nothing else in this program parses what a server says.

The formats are those of Redis 5.0 to 8.x and Valkey; what a newer server adds is skipped, not guessed at. A text that
breaks the format raises `WireError` and nothing else, whatever the text is.

redis-py has a parser for CLUSTER NODES, but it keys lines by `ip:port` and so merges two members without an address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from bootstrap.errors import WireError
from bootstrap.model.node import Address, Member, Memory, NodeId, Replication, Role
from bootstrap.model.slots import SLOT_COUNT, SlotSet

_NODE_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_OPEN_SLOT = re.compile(r"\[([0-9]{1,5})-([<>])-([0-9a-f]{40})\]", re.ASCII)
_SLOTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterInfo:
    """CLUSTER INFO, as far as this program needs it."""

    serving: bool
    current_epoch: int


def parse_cluster_nodes(text: str) -> tuple[Member, ...]:
    """CLUSTER NODES, one `Member` a line, in the server's order; exactly one of them is `myself`."""
    members = tuple(_member(line) for line in text.splitlines() if line.strip())
    if sum("myself" in member.flags for member in members) != 1:
        raise WireError("CLUSTER NODES: not exactly one line is flagged myself")
    return members


def parse_cluster_info(text: str) -> ClusterInfo:
    """CLUSTER INFO. Raises WireError when the state or the epoch is missing."""
    fields = parse_info(text)
    if "cluster_state" not in fields:
        raise WireError("CLUSTER INFO: no cluster_state")
    return ClusterInfo(
        serving=fields["cluster_state"] == "ok",
        current_epoch=_number(fields.get("cluster_current_epoch", ""), "CLUSTER INFO: cluster_current_epoch"),
    )


def parse_info(text: str) -> Mapping[str, str]:
    """`name:value` lines of INFO and CLUSTER INFO; headings, blank lines and lines without a colon are skipped."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def parse_replication(info: Mapping[str, str]) -> Replication:
    """The replication section of INFO. Raises WireError when the role is neither master nor slave."""
    role = info.get("role")
    offset = info.get("slave_repl_offset", info.get("master_repl_offset", "0"))
    if role == "master":
        feeds = (_fields(value) for name, value in info.items() if re.fullmatch(r"slave[0-9]+", name, re.ASCII))
        online = (_address(feed.get("ip", ""), feed.get("port", "")) for feed in feeds if feed.get("state") == "online")
        replicas = tuple(sorted(address for address in online if address))
        return Replication(role=Role.MASTER, link_up=True, offset=_offset(offset), online_replicas=replicas)
    if role == "slave":
        syncing = info.get("master_sync_in_progress", "0") != "0"
        master = _address(info.get("master_host", ""), info.get("master_port", ""))
        return Replication(
            role=Role.REPLICA,
            link_up=info.get("master_link_status") == "up" and not syncing,
            master=master,
            syncing=syncing,
            down_s=max(0, _offset(info.get("master_link_down_since_seconds", "0"))),
            offset=_offset(offset),
        )
    raise WireError(f"INFO: no role that a cluster node can have: {_quote(role or '')}")


def parse_memory(info: Mapping[str, str]) -> Memory:
    """The memory section of INFO; what is missing or no number counts as 0."""
    used, dataset, limit = (info.get(name, "") for name in ("used_memory", "used_memory_dataset", "maxmemory"))
    counts = (int(text) if _NUMBER.fullmatch(text) else 0 for text in (used, dataset, limit))
    return Memory(**dict(zip(("used_bytes", "dataset_bytes", "max_bytes"), counts, strict=True)))


def keys_by_database(info: Mapping[str, str]) -> Mapping[int, int]:
    """Keys by database, from the keyspace section (`db0:keys=3,expires=0,…`); an empty database has no line."""
    return {
        int(name[2:]): _number(_fields(value).get("keys", ""), "INFO: keys")
        for name, value in info.items()
        if re.fullmatch(r"db[0-9]{1,9}", name, re.ASCII)
    }


def parse_config(reply: object) -> Mapping[str, str]:
    """CONFIG GET's reply, `[name, value, name, value…]`; empty for anything else, such as an error (CONFIG denied)."""
    if not isinstance(reply, list) or len(reply) % 2:
        return {}
    return {str(name): str(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}


def _member(line: str) -> Member:
    fields = line.split()
    if len(fields) < 8:
        raise WireError(f"CLUSTER NODES: fewer than 8 fields: {_quote(line)}")
    node_id, where, flags, master_id, _ping, _pong, epoch, link = fields[:8]
    if link not in ("connected", "disconnected"):
        raise WireError(f"CLUSTER NODES: no link state: {_quote(line)}")
    address, bus_port = _where(where)
    slots, migrating, importing = _slots(fields[8:])
    return Member(
        node_id=_node_id(node_id),
        address=address,
        bus_port=bus_port,
        flags=frozenset(flags.split(",")) - {"noflags"},
        master_id=None if master_id == "-" else _node_id(master_id),
        config_epoch=_number(epoch, "CLUSTER NODES: config epoch"),
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
        raise WireError(f"CLUSTER NODES: no address: {_quote(text)}")
    return _address(host, port), _number(bus, "CLUSTER NODES: bus port") if bus else 0


def _slots(fields: list[str]) -> tuple[SlotSet, tuple[tuple[int, NodeId], ...], tuple[tuple[int, NodeId], ...]]:
    ranges: list[tuple[int, int]] = []
    migrating: list[tuple[int, NodeId]] = []
    importing: list[tuple[int, NodeId]] = []
    for text in fields:
        if found := _OPEN_SLOT.fullmatch(text):
            slot, direction, node_id = int(found[1]), found[2], found[3]
            (migrating if direction == ">" else importing).append((_slot(slot), node_id))
        elif found := _SLOTS.fullmatch(text):
            ranges.append((_slot(int(found[1])), _slot(int(found[2] or found[1]))))
        else:
            raise WireError(f"CLUSTER NODES: no slot: {_quote(text)}")
    if any(first > last for first, last in ranges):
        raise WireError("CLUSTER NODES: a slot range is reversed")
    return SlotSet.of(*ranges), tuple(migrating), tuple(importing)


def _slot(slot: int) -> int:
    if slot >= SLOT_COUNT:
        raise WireError(f"CLUSTER NODES: no slot: {slot}")
    return slot


def _node_id(text: str) -> NodeId:
    if not _NODE_ID.fullmatch(text):
        raise WireError(f"CLUSTER NODES: no node id: {_quote(text)}")
    return text


def _address(host: str, port: str) -> Address | None:
    """None for a place that is not known: an empty host, port 0, or a host name where an address belongs."""
    try:
        ip_address(host)
    except ValueError:
        return None
    return Address(host, number) if 0 < (number := _number(port, "a port")) < 65536 else None


def _fields(text: str) -> Mapping[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)


def _number(text: str, what: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise WireError(f"{what} is no number: {_quote(text)}")
    return int(text)


def _offset(text: str) -> int:
    """A replication offset; Redis prints -1 for "never replicated", which is less than any copy."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,20}", text, re.ASCII) else 0


def _quote(text: str) -> str:
    """A hostile answer must not flood the log nor write control characters into it."""
    return ascii(text[:80])
