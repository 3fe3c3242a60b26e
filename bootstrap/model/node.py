"""One Redis node as it describes itself in one look, and the facts of which that consists: its address, its CLUSTER
NODES lines, replication, memory, migrations of slots, and the place where its pod runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from bootstrap.model.memory import Memory
from bootstrap.model.slots import SlotSet


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Place:
    """The Kubernetes node of a pod, and that node's zone; "" where it is not known."""

    node: str = ""
    zone: str = ""


DEFAULT_TIMEOUT_MS = 15_000
"""The servers' default cluster-node-timeout, milliseconds; assumed where CONFIG GET is denied."""

NO_FAILOVER_NAMES = ("cluster-replica-no-failover", "cluster-slave-no-failover")
"""What servers call the setting that keeps a replica from replacing a failed master: the newer name first. Servers
that know both report both."""

SHORT_TIMEOUT_MS, SHORT_TIMEOUT_MS_MANY = 500, 999
"""cluster-node-timeout while nodes that have moved are introduced to each other, milliseconds: for few nodes and for
many. 500 ms is the shortest rejoin delay of a server. No other part of this program sets these values, so that a node
which has one of them and takes part in no failover is known as one that a killed run has left.
"""

NodeId = str
"""Redis's id of a node: 40 hexadecimal digits, kept in nodes.conf. A pod that lost its disk has a new one."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a server listens: an IP address and the port for clients. The bus port is kept apart from it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Endpoint:
    """Where a server sends its clients for the slots of one master, or to one of its replicas (CLUSTER SLOTS)."""

    node_id: NodeId
    host: str
    """An IP address or a host name; "" for `cluster-preferred-endpoint-type unknown-endpoint`, with which clients stay
    at the host that they came in by; `?` for a host name that is not set."""
    port: int


@dataclass(frozen=True, slots=True, order=True)
class Peer:
    """A pod that the headless Service lists. Sorted by ordinal: that order breaks every tie in this program."""

    ordinal: int
    pod: str
    addresses: tuple[Address, ...] = ()
    """Every address in the DNS answer, sorted. Stale and duplicate answers are normal, so each is only a candidate."""


class Role(StrEnum):
    """The role of a node."""

    MASTER = "master"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One line of CLUSTER NODES: how a node describes a member of its cluster, or itself (`flags` has `myself`)."""

    node_id: NodeId
    address: Address | None
    """None while the reporting node does not know the member's address (Redis prints `:0`)."""
    bus_port: int
    flags: frozenset[str]
    master_id: NodeId | None
    config_epoch: int
    connected: bool
    slots: SlotSet = field(default_factory=SlotSet)
    migrating: tuple[tuple[int, NodeId], ...] = ()
    importing: tuple[tuple[int, NodeId], ...] = ()
    unanswered_ms: int = 0
    """For how long the member has not answered a ping of the reporting node on the bus; 0 where none is under way."""

    @property
    def role(self) -> Role:
        """The member's role in this line. A node in handshake has no role yet; it counts as master."""
        return Role.REPLICA if "slave" in self.flags else Role.MASTER

    @property
    def in_handshake(self) -> bool:
        """True while the id is temporary and random: such a line identifies no node."""
        return "handshake" in self.flags

    @property
    def suspected(self) -> bool:
        """True when the reporting node cannot reach the member. When all pods have moved, `fail?` may never
        become `fail` (docs/architecture.md).
        """
        return "fail" in self.flags or "fail?" in self.flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """The replication part of INFO: a replica's link to its master, and a master's online replicas."""

    role: Role
    link_up: bool
    """On a replica: the link to its master is up and the first copy is complete. On a master: True."""
    master: Address | None = None
    syncing: bool = False
    """On a replica: the first copy is being transferred."""
    down_s: int = 0
    """On a replica: seconds since it lost its link; 0 while the link is up, and before it was up for the first time."""
    offset: int = 0
    online_replicas: tuple[Address, ...] = ()
    """On a master: the replicas that it reports as online."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Two servers that answered in one look with the same node id."""

    node_id: NodeId
    pod: str
    address: Address
    pod_of_other: str
    """"" where the other one is no listed pod."""
    other: Address


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


@dataclass(frozen=True, kw_only=True)  # without slots: the derived facts below are cached
class Node:
    """How one reachable Redis node describes itself in a single look."""

    pod: str
    ordinal: int
    address: Address
    """The address at which it answered."""
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
    """For people to read: `redis 7.0.15`, `valkey 9.1.2`."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Its other `cluster-…` settings that a person can declare or a run sets for a while; unknown ones are missing."""
    announced_ip: str | None = None
    """Its setting cluster-announce-ip: "" where it finds its address itself, None where CONFIG is denied."""
    databases: tuple[int, ...] = ()
    """The databases that hold keys. In a cluster only Valkey 9 and later has others than 0."""
    keys_in: Mapping[int, int] = field(default_factory=dict)
    """Keys in all of its databases by slot, for the slots in `ClusterView.slots_to_count`; other slots are missing."""
    left_over: Mapping[int, int] | None = None
    """On a master: keys in all of its databases of slots that it does not own, by slot. None where they were not
    counted: only a full look, in which every peer answers, counts them.
    """
    memory: Memory = field(default_factory=Memory)
    run_id: str = ""
    """New at every start of the server; "" where it is not known."""
    writes_refused: str = ""
    """Why it refuses the writes of clients, as far as INFO shows; "" where it accepts them."""
    migrations: tuple[SlotMigration, ...] = ()
    """Migrations of slots that it leads: the target does on Redis, the source on Valkey. Those over are left out."""
    library_count: int | None = None
    """How many function libraries it has; None where it does not report that, before 7.0."""
    libraries: frozenset[str] = frozenset()
    """Names of its function libraries; read only where a new node is to receive them."""
    users: frozenset[str] = frozenset()
    """Names of its ACL users; read like the libraries."""

    @cached_property
    def myself(self) -> Member:
        """Its own line of CLUSTER NODES."""
        return next(member for member in self.members if "myself" in member.flags)

    @property
    def node_id(self) -> NodeId:
        """Its own id."""
        return self.myself.node_id

    @property
    def role(self) -> Role:
        """Its own role."""
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
        """True for a node as it starts from an empty disk: it knows no other node, owns no slot, holds no key and is
        not a replica. A handshake in flight does not count: it may fail, and its id is random.
        """
        return not (self.others or self.slots or self.keys) and self.role is Role.MASTER

    @property
    def no_failover_name(self) -> str:
        """Its name for the setting that keeps it from replacing a failed master; "" where CONFIG is denied."""
        return next((name for name in NO_FAILOVER_NAMES if name in self.config), "")

    @property
    def quickened(self) -> bool:
        """True for a node with the temporary settings of a run: a timeout that only this program sets, and no failover.
        The timeout is lowered first and restored last, so the other setting never stays behind alone.
        """
        no_failover = self.config.get(self.no_failover_name) == "yes"
        return no_failover and self.timeout_ms in (SHORT_TIMEOUT_MS, SHORT_TIMEOUT_MS_MANY)

    def imports(self, slot: int) -> NodeId | None:
        """The node from which it imports a slot; None where it does not."""
        return next((other for number, other in self.myself.importing if number == slot), None)

    def migrates(self, slot: int, to: Node) -> bool:
        """True where a slot is open on both sides: it migrates it to that node, which imports it. Clients then find
        the keys of both sides.
        """
        return (slot, to.node_id) in self.myself.migrating and to.imports(slot) is not None

    @cached_property
    def open_slots(self) -> SlotSet:
        """Slots that it marks as migrating to another node, or as importing from one."""
        slots = {slot for slot, _ in (*self.myself.migrating, *self.myself.importing)}
        return SlotSet.of(*((slot, slot) for slot in sorted(slots)))
