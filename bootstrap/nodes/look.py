"""One look at one node: its replies → `Facts`, and from these the `Node` of a pod. A watching run looks many times a
second, so the slower questions (keys per slot, functions, users) are functions of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from redis.connection import Connection

from bootstrap.errors import WireError
from bootstrap.model.memory import Memory
from bootstrap.model.node import (
    DEFAULT_TIMEOUT_MS,
    NO_FAILOVER_NAMES,
    Address,
    Endpoint,
    Member,
    Node,
    Replication,
    SlotMigration,
)
from bootstrap.model.unreachable import UnreachableReason
from bootstrap.nodes import commands
from bootstrap.nodes.connection import Ask, ask, ask_all
from bootstrap.nodes.failures import NotANode
from bootstrap.nodes.membership import libraries, users
from bootstrap.nodes.migration.mode import MigrationMode, detect_mode, reported_migrations
from bootstrap.nodes.wire import info
from bootstrap.nodes.wire.cluster import ClusterInfo, parse_cluster_info, parse_cluster_nodes
from bootstrap.nodes.wire.slots import parse_cluster_slots
from bootstrap.nodes.writes import refusals

_DECLARABLE = ("cluster-require-full-coverage", "cluster-allow-replica-migration")
"""Settings that may be declared, and that can change at run time without harm."""
_KEPT = (*_DECLARABLE, *NO_FAILOVER_NAMES, "tls-cluster")


@dataclass(frozen=True, slots=True)
class Facts:
    """The parsed replies to one look, before it is known which pod gave them."""

    members: tuple[Member, ...]
    cluster: ClusterInfo
    replication: Replication
    keys: Mapping[int, int]
    """By database."""
    memory: Memory
    library_count: int | None
    version: str
    run_id: str
    config: Mapping[str, str]
    about_writes: Mapping[str, str] = field(default_factory=dict)
    """The sections of INFO that show whether writes are refused."""
    migrations: tuple[SlotMigration, ...] = ()
    writes_refused: str = ""

    @classmethod
    def of(cls, replies: list[Any]) -> Facts:
        """From the replies to `commands.LOOK`. Raises the server's error reply, WireError for a reply that breaks its
        format, and NotANode.
        """
        nodes, cluster_info, replication, keyspace, memory, server, persistence, config = replies
        # A Sentinel and a standalone server answer INFO and reject CLUSTER: their mode explains that rejection.
        about = info.parse_server(info.parse_info(server) if isinstance(server, str) else {})
        if about.mode == "sentinel":
            raise NotANode(UnreachableReason.SENTINEL)
        if about.mode == "standalone":
            raise NotANode(UnreachableReason.CLUSTER_OFF)
        for reply in (nodes, cluster_info, replication, keyspace, memory, server, persistence):
            if isinstance(reply, Exception):
                raise reply
            if not isinstance(reply, str):
                raise WireError(f"a text was expected, not {type(reply).__name__}")
        return cls(
            members=parse_cluster_nodes(nodes),
            cluster=parse_cluster_info(cluster_info),
            replication=info.parse_replication(info.parse_info(replication)),
            keys=info.keys_by_database(info.parse_info(keyspace)),
            memory=info.parse_memory(info.parse_info(memory)),
            library_count=info.library_count(info.parse_info(memory)),
            version=about.version,
            run_id=about.run_id,
            config=info.parse_config(config),
            about_writes=info.parse_info(f"{replication}\n{memory}\n{persistence}"),
        )

    def node(self, pod: str, ordinal: int, address: Address) -> Node:
        """The facts as those of a pod."""
        return Node(
            pod=pod,
            ordinal=ordinal,
            address=address,
            members=self.members,
            serving=self.cluster.serving,
            current_epoch=self.cluster.current_epoch,
            replication=self.replication,
            keys=sum(self.keys.values()),
            timeout_ms=info.node_timeout_ms(self.config),
            version=self.version,
            run_id=self.run_id,
            config={name: self.config[name] for name in _KEPT if name in self.config},
            announced_ip=self.config.get("cluster-announce-ip"),
            databases=tuple(sorted(number for number, keys in self.keys.items() if keys)),
            memory=self.memory,
            library_count=self.library_count,
            migrations=self.migrations,
            writes_refused=self.writes_refused,
        )


def look_at(connection: Connection, *, modes: WeakKeyDictionary[Connection, MigrationMode]) -> Facts:
    """One look; its slot migrations are asked for where the server has such. `modes` keeps what was detected before."""
    facts = Facts.of(ask_all(connection, commands.LOOK))
    ask_node = partial(ask, connection)
    if connection not in modes:
        modes[connection] = detect_mode(ask_node)
    mode = modes[connection]
    if why := "; ".join(refusals(facts.about_writes, partial(_setting, ask_node))):
        facts = replace(facts, writes_refused=why)
    return facts if mode is MigrationMode.KEYS else replace(facts, migrations=tuple(_under_way(ask_node, mode)))


def _setting(ask_node: Ask, name: str) -> str | None:
    return info.parse_config(ask_node("CONFIG", "GET", name)).get(name)


def _under_way(ask_node: Ask, mode: MigrationMode) -> Iterator[SlotMigration]:
    """Migrations that are not over and that this node leads: only the leader can cancel one."""
    for migration in reported_migrations(ask_node, mode):
        if not migration.over and mode.led_by(migration):
            yield migration


def endpoints_of(connection: Connection) -> frozenset[Endpoint]:
    """Where a server sends its clients. Raises its error reply, and WireError."""
    if isinstance(reply := ask(connection, *commands.CLUSTER_SLOTS), Exception):
        raise reply
    return parse_cluster_slots(reply)


def timeout_of(ask_node: Ask) -> int:
    """A server's cluster-node-timeout, milliseconds, or the servers' default where CONFIG is denied."""
    timeout_ms = info.node_timeout_ms(info.parse_config(ask_node(*commands.NODE_TIMEOUT)))
    return DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms


def provisions_of(connection: Connection, *, ask_users: bool) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    """The names of the function libraries and of the ACL users; None for those not reported or not asked for."""
    ask_node = partial(ask, connection)
    return libraries(ask_node), users(ask_node) if ask_users else None
