"""TODO"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from redis.connection import Connection

from bootstrap.errors import WireError
from bootstrap.model.node import DEFAULT_TIMEOUT_MS, Address, Member, Memory, Node, Replication, SlotTask
from bootstrap.model.slots import SlotSet
from bootstrap.model.unreachable import UnreachableReason
from bootstrap.nodes import wire
from bootstrap.nodes.commands import Command
from bootstrap.nodes.connection import ask, ask_all, first_error
from bootstrap.nodes.failures import NotANode
from bootstrap.nodes.membership import libraries, users
from bootstrap.nodes.migration.tasks import MigrationMode, detect, tasks

_LOOK: tuple[Command, ...] = (
    ("CLUSTER", "NODES"),
    ("CLUSTER", "INFO"),
    ("INFO", "replication"),
    ("INFO", "keyspace"),
    ("INFO", "memory"),
    ("INFO", "server"),
    ("CONFIG", "GET", "cluster-*"),
)
_DECLARABLE = ("cluster-require-full-coverage", "cluster-allow-replica-migration")
"""Settings that a person may declare, and that may change at run time without harm."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """The parsed replies to one look, before it is known which pod gave them."""

    members: tuple[Member, ...]
    cluster: wire.ClusterInfo
    replication: Replication
    keys: Mapping[int, int]
    memory: Memory
    server: Mapping[str, str]
    config: Mapping[str, str]
    tasks: tuple[SlotTask, ...] = ()

    @classmethod
    def of(cls, replies: list[Any]) -> _Facts:
        """Raises the server's error reply, or WireError for a text that is not what it should be."""
        nodes, cluster, replication, keyspace, memory, server, config = replies
        # A Sentinel answers INFO though it knows no CLUSTER: its own word comes before that error.
        identity = wire.parse_info(server) if isinstance(server, str) else {}
        if identity.get("redis_mode") == "sentinel":
            raise NotANode(UnreachableReason.SENTINEL)
        if identity.get("redis_mode") == "standalone":
            raise NotANode(UnreachableReason.CLUSTER_OFF)
        for reply in (nodes, cluster, replication, keyspace, memory, server):
            if isinstance(reply, Exception):
                raise reply
            if not isinstance(reply, str):
                raise WireError(f"a text was expected, not {type(reply).__name__}")
        return cls(
            members=wire.parse_cluster_nodes(nodes),
            cluster=wire.parse_cluster_info(cluster),
            replication=wire.parse_replication(wire.parse_info(replication)),
            keys=wire.keys_by_database(wire.parse_info(keyspace)),
            memory=wire.parse_memory(wire.parse_info(memory)),
            server=identity,
            config=wire.parse_config(config),
        )

    def node(self, pod: str, ordinal: int, address: Address) -> Node:
        """The facts as those of a pod."""
        kind = self.server.get("server_name", "redis")
        return Node(
            pod=pod,
            ordinal=ordinal,
            address=address,
            members=self.members,
            serving=self.cluster.serving,
            current_epoch=self.cluster.current_epoch,
            replication=self.replication,
            keys=sum(self.keys.values()),
            timeout_ms=int(timeout) if (timeout := self.config.get("cluster-node-timeout", "")).isdecimal() else None,
            version=f"{kind} {self.server.get(f'{kind}_version', '?')}",
            config={name: self.config[name] for name in _DECLARABLE if name in self.config},
            databases=tuple(sorted(number for number, keys in self.keys.items() if keys)),
            memory=self.memory,
            tasks=self.tasks,
        )


def timeout_of(told: Callable[..., Any]) -> int:
    """A server's cluster-node-timeout, milliseconds, or the servers' default where it does not say."""
    timeout = wire.parse_config(told("CONFIG", "GET", "cluster-node-timeout")).get("cluster-node-timeout", "")
    return int(timeout) if timeout.isdecimal() else DEFAULT_TIMEOUT_MS


def look_at(known: WeakKeyDictionary[Connection, MigrationMode], connection: Connection) -> _Facts:
    facts = _Facts.of(ask_all(connection, _LOOK))
    told = partial(ask, connection)
    if connection not in known:
        known[connection] = detect(told)
    how = known[connection]
    return facts if how is MigrationMode.KEYS else replace(facts, tasks=tuple(_under_way(told, how)))


def _under_way(told: Callable[..., Any], how: MigrationMode) -> Iterator[SlotTask]:
    """What is not over, as the side tells it that can be told to cancel it."""
    for task in tasks(told, how):
        if not task.over and task.importing == (how is MigrationMode.IMPORT):
            yield SlotTask(
                task_id=task.task_id,
                slots=task.slots,
                source=task.source,
                target=task.target,
                failed=task.failed,
                why=task.why,
            )


def provisions_of(connection: Connection, *, ask_users: bool) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    told = partial(ask, connection)
    return libraries(told), users(told) if ask_users else None


def count_keys(databases: Sequence[int], slots: SlotSet, connection: Connection) -> Mapping[int, int]:
    found: dict[int, int] = {}
    for database in databases:
        selected: list[Command] = [("SELECT", database)] if database else []
        counting: list[Command] = [("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in slots]
        replies = ask_all(connection, (*selected, *counting, *((("SELECT", 0),) if database else ())))
        if error := first_error(replies):
            raise error
        for slot, keys in zip(slots, replies[len(selected) :], strict=False):
            if keys:
                found[slot] = found.get(slot, 0) + int(keys)
    return found
