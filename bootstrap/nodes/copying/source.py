"""What to copy from: a standalone server, the master that a Sentinel reports, or the masters of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from redis.connection import Connection

from bootstrap.errors import WireError
from bootstrap.model.copying import Source, SourceServer
from bootstrap.model.memory import Memory
from bootstrap.model.node import Address, Member, Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.unreachable import UnreachableReason
from bootstrap.nodes import commands
from bootstrap.nodes.connection import Credentials, ask, ask_all
from bootstrap.nodes.failures import Failure
from bootstrap.nodes.pool import ConnectionPool
from bootstrap.nodes.wire import info
from bootstrap.nodes.wire.cluster import parse_cluster_nodes
from bootstrap.nodes.wire.provisions import parse_function_list
from bootstrap.nodes.wire.source import parse_counters, parse_sentinel_masters, startup_bytes, time_ms

ANSWER_LIMIT_S = 10.0
"""How long one look at the source may take. It may be far away."""


class SourceUnusable(Exception):
    """A server of the source gives no usable answer."""

    def __init__(self, address: Address, failure: Failure) -> None:
        super().__init__(f"{address}: {failure}")
        self.address = address
        self.failure = failure


class UnnamedMaster(Exception):
    """A Sentinel monitors several masters, or none with the name that is wanted; `names` has those that it monitors."""

    def __init__(self, sentinel: Address, names: Sequence[str]) -> None:
        super().__init__(f"the Sentinel {sentinel} monitors {', '.join(names) or 'no master'}")
        self.names = tuple(names)


class SeveralServers(Exception):
    """Several addresses were named that are not one cluster, nor Sentinels of one master."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The parsed replies of one server."""

    server: SourceServer
    mode: str
    members: tuple[Member, ...] = ()
    masters: Mapping[str, Address] | None = None
    """What a Sentinel monitors."""


class SourceFinder:
    """Looks at the source, as often as wanted. Close it when done."""

    def __init__(self, seeds: Sequence[Address], credentials: Credentials, *, sentinel_name: str = "") -> None:
        """Raises Misconfigured that names a faulty TLS file."""
        self._seeds = seeds
        self._sentinel_name = sentinel_name
        self._pool = ConnectionPool(credentials, answer_limit_s=ANSWER_LIMIT_S)
        # A Sentinel often has no password where its master has one.
        anonymous = replace(credentials, username="", password=None)
        self._without_password = ConnectionPool(anonymous, answer_limit_s=ANSWER_LIMIT_S)

    def close(self) -> None:
        """Ends every connection and thread."""
        self._pool.close()
        self._without_password.close()

    def raw_connection(self, address: Address) -> Connection:
        """A new connection on which bytes survive. The caller disconnects it."""
        return self._pool.raw_connection(address)

    def functions(self, address: Address, names: Iterable[str]) -> Mapping[str, str]:
        """The code of function libraries of a server, by their names. Raises SourceUnusable."""
        answer = self._pool.run_each({address: partial(_functions, names=names)})[address]
        if isinstance(answer, Failure):
            raise SourceUnusable(address, answer)
        return answer

    def find(self) -> Source:
        """All servers to read from, as they are now. Raises SourceUnusable, UnnamedMaster or SeveralServers."""
        found = self._first()
        if found.mode == "sentinel":
            return self._of_sentinel(found)
        if found.mode == "cluster":
            return self._of_cluster(found)
        if len(self._seeds) > 1:
            raise SeveralServers
        return Source(servers=(found.server,))

    def _first(self) -> _Found:
        """The first of the named servers that answers."""
        answers = self._look(self._seeds)
        for address in self._seeds:
            if isinstance(found := answers[address], _Found):
                return found
            if found.why in (UnreachableReason.WRONG_PASSWORD, UnreachableReason.NEEDS_PASSWORD):
                again = self._without_password.run_each({address: partial(_look_at, address=address)})[address]
                if isinstance(again, _Found) and again.mode == "sentinel":
                    return again
        failures = {address: answer for address, answer in answers.items() if isinstance(answer, Failure)}
        raise SourceUnusable(self._seeds[0], failures[self._seeds[0]])

    def _of_sentinel(self, found: _Found) -> Source:
        masters, sentinel = found.masters or {}, found.server.address
        name = self._sentinel_name or next(iter(masters), "")
        if name not in masters or (len(masters) > 1 and not self._sentinel_name):
            raise UnnamedMaster(sentinel, sorted(masters))
        (server,) = self._servers([masters[name]])
        through = f"the master {name} of the Sentinel {sentinel}"
        return Source(servers=(server,), through=through)

    def _of_cluster(self, found: _Found) -> Source:
        owners = [member for member in found.members if member.slots and member.role is Role.MASTER]
        addresses = [self._own_address(found, m) if "myself" in m.flags else m.address for m in owners]
        if None in addresses:
            why = Failure(UnreachableReason.UNREACHABLE, "it does not know the address of every master of its cluster")
            raise SourceUnusable(found.server.address, why)
        servers = self._servers([address for address in addresses if address])
        slots = {address: member.slots for address, member in zip(addresses, owners, strict=True)}
        return Source(
            servers=tuple(replace(server, slots=slots[server.address]) for server in servers), is_cluster=True
        )

    def _own_address(self, found: _Found, myself: Member) -> Address:
        """Where a member is that answered at the address that a person has named: the announced address leads to it
        alone, and the name of a Service to any; where the announced one cannot be reached, the named one is left.
        """
        if myself.address is not None and myself.address != found.server.address:
            there = self._look([myself.address])[myself.address]
            if isinstance(there, _Found) and there.server.counters.run_id == found.server.counters.run_id:
                return myself.address
        return found.server.address

    def _servers(self, addresses: Sequence[Address]) -> list[SourceServer]:
        answers = self._look(addresses)
        for address in addresses:
            if isinstance(failure := answers[address], Failure):
                raise SourceUnusable(address, failure)
        return [found.server for address in addresses if isinstance(found := answers[address], _Found)]

    def _look(self, addresses: Iterable[Address]) -> Mapping[Address, _Found | Failure]:
        return self._pool.run_each({address: partial(_look_at, address=address) for address in addresses})


def _functions(connection: Connection, *, names: Iterable[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in names:
        listed = parse_function_list(ask(connection, *commands.function_code(name))) or {}
        found |= {name: listed[name]} if name in listed else {}
    return found


def _look_at(connection: Connection, *, address: Address) -> _Found:
    """One look at one server. Raises the server's error, or WireError."""
    *texts, time, functions, nodes = ask_all(connection, commands.LOOK_AT_SOURCE)
    about = info.parse_server(_info(texts[0]))
    if about.mode == "sentinel":  # it does not know most of the commands
        masters = _accepted(ask(connection, *commands.SENTINEL_MASTERS))
        sentinel = SourceServer(address=address, version=about.version, keys={}, memory=Memory())
        return _Found(sentinel, about.mode, masters=parse_sentinel_masters(masters))
    server, replication, keyspace, memory, stats, persistence = map(_info, texts)
    members = parse_cluster_nodes(_accepted(nodes)) if about.mode == "cluster" else ()
    found = SourceServer(
        address=address,
        version=about.version,
        keys=info.keys_by_database(keyspace),
        memory=info.parse_memory(memory),
        startup_bytes=startup_bytes(memory),
        counters=parse_counters(server, stats, persistence),
        libraries=frozenset(parse_function_list(functions) or {}),
        time_ms=time_ms(_accepted(time)),
        open_slots=_open_slots(members),
        out_of_step=_out_of_step(replication),
    )
    return _Found(found, about.mode, members)


def _open_slots(members: Iterable[Member]) -> SlotSet:
    """A server shows its own open slots alone."""
    slots = [slot for member in members for slot, _ in (*member.migrating, *member.importing)]
    return SlotSet.of(*((slot, slot) for slot in slots))


def _info(reply: Any) -> Mapping[str, str]:
    if not isinstance(text := _accepted(reply), str):
        raise WireError(f"a text was expected, not {type(text).__name__}")
    return info.parse_info(text)


def _accepted(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _out_of_step(replication: Mapping[str, str]) -> str:
    """Why the data of a replica may be old, in words; "" for a master and for a replica that is in step."""
    if replication.get("role") != "slave":
        return ""
    link = info.parse_replication(replication)
    if link.link_up:
        return ""
    return "it copies its data from its master" if link.syncing else "it has no link to its master"
