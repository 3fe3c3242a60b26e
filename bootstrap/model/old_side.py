"""The cluster that is to be taken over: what is known about it beside its nodes, which are in the view like pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bootstrap.model.node import NodeId
from bootstrap.model.unreachable import UnreachablePeer

OLD_ORDINAL = 1_000_000
"""The first ordinal of a node of the old cluster. No pod has one: a StatefulSet has at most a thousand here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What a person has declared about taking over a cluster."""

    fingerprint: str = ""
    """The old cluster that may be joined, as it stood when the person looked at it."""
    back: bool = False
    """The old nodes shall serve again."""
    finish: bool = False
    """The old nodes shall leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What decides whether two servers can be members of one cluster, and copy from each other."""

    modules: frozenset[str] = frozenset()
    hostname: str = ""
    """The name that it announces to clients."""
    prefers_names: bool = False
    """It sends clients to names."""
    databases: int = 1
    """How many databases it has in cluster mode."""
    strict_rdb: bool = False
    """It rejects copies in formats that it does not know: Valkey's `rdb-version-check strict`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginTrouble:
    """A server that could not copy from another one, because that rejects its password."""

    replica: str
    """The pod or node whose masterauth it is; "" for the password of the clients of the old cluster."""
    master: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OldSide:
    """What one look found out about the old cluster."""

    seeds: str
    """The addresses and names that the person gave, as one text."""
    first: frozenset[NodeId] = frozenset()
    """Its members to which the person's addresses lead."""
    silent: tuple[UnreachablePeer, ...] = ()
    """Its members that do not answer."""
    left: int = 0
    """Servers at the person's addresses that are in no cluster any more."""
    own: int = 0
    """Pods of the new side at the person's addresses."""
    no_cluster: str = ""
    """What answers at the person's addresses and is a standalone server or a Sentinel; "" for nothing of the kind."""
    error: str = ""
    """Why no server answers at the person's addresses; "" where one does."""
    traits: Mapping[NodeId, Traits] = field(default_factory=dict)
    """Of the nodes on both sides; only in a look, not while a step is watched."""
    logins: tuple[LoginTrouble, ...] = ()
    """The same."""
    ports: tuple[str, ...] = ()
    """Bus ports of the old nodes that cannot be reached from here, with the reason. The same."""
    unchecked: tuple[str, ...] = ()
    """What could not be found out, and why. The same."""
