"""Where a pod runs, as far as losing a machine or a zone is concerned."""

# DOC-OF model
# """The nouns: what a node says of itself and its peers, the cluster as all of them tell it, the shape it should have.
#
# Everything here was observed or declared, is frozen, and holds no socket: the same facts give the same plan.
# """

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from bootstrap.model.slots import SlotSet


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Place:
    """The Kubernetes node of a pod, and that node's zone; "" for what is not known."""

    node: str = ""
    zone: str = ""


DEFAULT_TIMEOUT_MS = 15_000
"""The servers' own cluster-node-timeout, where CONFIG may not be asked."""

NodeId = str
"""Redis's name for a node: 40 hexadecimal digits, kept in nodes.conf. A pod without its old disk has a new one."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a server listens: an IP address and the port for clients. The bus port is a fact of its own (`Link`)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class Peer:
    """A pod that the headless Service lists. Sorted by ordinal: that order breaks every tie in this program."""

    ordinal: int
    pod: str
    addresses: tuple[Address, ...] = ()
    """Every address the DNS gave, sorted; stale and doubled answers are normal, so each is only a candidate."""


class Role(StrEnum):
    """Redis's words for what a node is."""

    MASTER = "master"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One line of CLUSTER NODES: what a node says of a member of its cluster, or of itself (`flags` has `myself`)."""

    node_id: NodeId
    address: Address | None
    """None while the teller does not know where the member is (Redis prints `:0`)."""
    bus_port: int
    flags: frozenset[str]
    master_id: NodeId | None
    config_epoch: int
    connected: bool
    slots: SlotSet = field(default_factory=SlotSet)
    migrating: tuple[tuple[int, NodeId], ...] = ()
    importing: tuple[tuple[int, NodeId], ...] = ()

    @property
    def role(self) -> Role:
        """What the teller takes the member for. A node in handshake has no role yet; it counts as master."""
        return Role.REPLICA if "slave" in self.flags else Role.MASTER

    @property
    def in_handshake(self) -> bool:
        """True while the id is temporary and random: such a line names nobody."""
        return "handshake" in self.flags

    @property
    def suspected(self) -> bool:
        """True when the teller cannot reach the member. After a move of all, `fail?` may never become `fail`."""
        return "fail" in self.flags or "fail?" in self.flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """The replication part of INFO: how a replica stands to its master, and whom a master feeds."""

    role: Role
    link_up: bool
    """On a replica: the link to its master is up and the first copy is complete. On a master: True."""
    master: Address | None = None
    syncing: bool = False
    """On a replica: its first copy is on its way."""
    down_s: int = 0
    """On a replica: seconds since it lost its link; 0 while it is up, or before it ever was."""
    offset: int = 0
    online_replicas: tuple[Address, ...] = ()
    """On a master: the replicas that it reports as online."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory part of INFO, bytes."""

    used_bytes: int = 0
    dataset_bytes: int = 0
    """What of it is data, by the server's own estimate."""
    max_bytes: int = 0
    """The limit, `maxmemory`; 0 is none."""


def mebibytes(count: int) -> str:
    """`12 MiB`; tenths where there is less than ten."""
    size = count / 2**20
    return f"{size:.1f} MiB" if size < 10 else f"{size:.0f} MiB"


_COMPLETED = frozenset({"completed", "success"})
_CANCELLED = frozenset({"canceled", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMigration:
    """A migration of slots that servers do by themselves, as one of its two nodes reports it. Both nodes use one id."""

    task_id: str
    slots: SlotSet
    source: NodeId
    target: NodeId
    """Both ids are empty where Valkey does not report them: on a target, or its replica, that was restarted since."""
    importing: bool
    """Reported by the target."""
    state: str
    """The server's own word, in lower case."""
    retries: bool
    """A failure is not final: a target on Redis tries again each second, until the migration is cancelled."""
    why: str = ""
    """The server's last error or message; empty while the migration goes well."""

    @property
    def completed(self) -> bool:
        """Whether it succeeded, as far as this node knows."""
        return self.state in _COMPLETED

    @property
    def failed(self) -> bool:
        """Whether it, or its latest try, failed."""
        return self.state == "failed"

    @property
    def over(self) -> bool:
        """Whether this node does nothing more for it."""
        return self.state in _COMPLETED | _CANCELLED or (self.failed and not self.retries)


@dataclass(frozen=True, kw_only=True)  # no slots: what is derived below is kept, since plans ask for it often
class Node:
    """What one reachable Redis node said of itself in a single look."""

    pod: str
    ordinal: int
    address: Address
    """Where it answered."""
    members: tuple[Member, ...]
    """Its CLUSTER NODES, itself included."""
    serving: bool
    """Its own `cluster_state:ok`."""
    current_epoch: int
    replication: Replication
    keys: int
    """Keys in all of its databases."""
    timeout_ms: int | None
    """Its cluster-node-timeout, milliseconds; None where CONFIG is denied."""
    version: str
    """For people: `redis 7.0.15`, `valkey 9.1.2`."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Its other `cluster-…` settings that a person may have declared; one that the server does not know is missing."""
    databases: tuple[int, ...] = ()
    """The databases that hold keys. In a cluster only Valkey 9 and later has others than 0."""
    keys_in: Mapping[int, int] = field(default_factory=dict)
    """Keys in all of its databases by slot, for the slots that the view has in question; 0 for any other."""
    memory: Memory = field(default_factory=Memory)
    migrations: tuple[SlotMigration, ...] = ()
    """Migrations of slots that it leads: the target does on Redis, the source on Valkey. Those over are left out."""
    libraries: frozenset[str] = frozenset()
    """Names of the function libraries it has; asked only where somebody new is to be given them."""
    users: frozenset[str] = frozenset()
    """Names of its ACL users; asked like the libraries."""

    @cached_property
    def myself(self) -> Member:
        """The line with which it describes itself."""
        return next(member for member in self.members if "myself" in member.flags)

    @property
    def node_id(self) -> NodeId:
        """Its own id."""
        return self.myself.node_id

    @property
    def role(self) -> Role:
        """What it takes itself for."""
        return self.myself.role

    @property
    def slots(self) -> SlotSet:
        """The slots it claims."""
        return self.myself.slots

    @property
    def bus_port(self) -> int:
        """The port of the cluster bus."""
        return self.myself.bus_port

    @cached_property
    def others(self) -> Mapping[NodeId, Member]:
        """Every other member it knows by its real id."""
        return {m.node_id: m for m in self.members if "myself" not in m.flags and not m.in_handshake}

    @property
    def blank(self) -> bool:
        """True for a node as it comes from an empty disk: knows nobody, owns nothing, holds nothing, follows nobody.

        A handshake in flight does not count: it may die, and its id means nothing.
        """
        return not (self.others or self.slots or self.keys) and self.role is Role.MASTER

    @cached_property
    def open_slots(self) -> SlotSet:
        """Slots that it marks as migrating to another node, or as importing from one."""
        slots = {slot for slot, _ in (*self.myself.migrating, *self.myself.importing)}
        return SlotSet.of(*((slot, slot) for slot in sorted(slots)))
