"""The nouns: what a node says of itself and its peers, the cluster as all of them tell it, the shape it should have.

Everything here was observed or declared, is frozen, and holds no socket: the same facts give the same plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import combinations, groupby

from bootstrap.places import Place
from bootstrap.slots import SlotSet

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTask:
    """A migration of slots that a server does by itself, as one of its two nodes tells it."""

    task_id: str
    slots: SlotSet
    source: NodeId
    target: NodeId
    failed: bool = False
    """It came to nothing; Redis tries it again each second for ever, until it is cancelled."""
    why: str = ""


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
    tasks: tuple[SlotTask, ...] = ()
    """Migrations of slots that it is at work on; those that are over are left out."""
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
    def half_moved(self) -> SlotSet:
        """Slots that it marks as migrating to another node, or as importing from one."""
        slots = {slot for slot, _ in (*self.myself.migrating, *self.myself.importing)}
        return SlotSet.of(*((slot, slot) for slot in sorted(slots)))


_SUSPECTED = frozenset({"fail", "fail?"})


class Absence(StrEnum):
    """Why a peer does not answer as a cluster node should; the value is what a person reads."""

    NO_RECORD = "no DNS record"
    DNS_SILENT = "the DNS does not say"
    CONNECTION_REFUSED = "connection refused"
    TIMEOUT = "no answer in time"
    UNREACHABLE = "not reachable"
    LOADING = "loading its data"
    BUSY = "busy with a script"
    CLUSTER_OFF = "cluster mode is off"
    NEEDS_PASSWORD = "wants a password, and none is set"  # noqa: S105 - a reason, not a secret
    WRONG_PASSWORD = "does not accept the user or password"  # noqa: S105 - a reason, not a secret
    DENIED = "the user may not run a command that is needed"
    SENTINEL = "is a Sentinel, not a Redis node"
    NOT_REDIS = "does not speak Redis's protocol"
    TLS = "the TLS handshake failed"
    AMBIGUOUS = "its addresses do not tell which node it is"

    @property
    def code(self) -> str:
        """The word for machines: `no-record`, `wrong-password`."""
        return self.name.lower().replace("_", "-")

    @property
    def permanent(self) -> bool:
        """True where waiting alone cannot help: somebody has to change a setting."""
        return self in _SETTING_TO_CHANGE

    @property
    def remedy(self) -> str:
        """What a person can do about it."""
        return (_SETTING_TO_CHANGE | _TO_LOOK_AT).get(self, "see kubectl describe pod and kubectl logs, then run again")


_TO_LOOK_AT = {
    Absence.NO_RECORD: "is there such a pod? BOOTSTRAP_SHARDS x (1 + BOOTSTRAP_REPLICAS_PER_SHARD) must equal the "
    "StatefulSet's replicas; if so, see kubectl describe pod",
    Absence.DNS_SILENT: "see whether the cluster's DNS runs (namespace kube-system), or set BOOTSTRAP_NAMESERVER",
}
_SETTING_TO_CHANGE = {
    Absence.CLUSTER_OFF: "set cluster-enabled yes in its redis.conf",
    Absence.NEEDS_PASSWORD: "set BOOTSTRAP_PASSWORD_FILE, and BOOTSTRAP_USERNAME for an ACL user",
    Absence.WRONG_PASSWORD: "compare BOOTSTRAP_USERNAME and BOOTSTRAP_PASSWORD_FILE with the server's",
    Absence.DENIED: "let the user run CLUSTER, INFO and CONFIG; set protected-mode no where no password is set",
    Absence.SENTINEL: "BOOTSTRAP_SERVICE selects Sentinels: let it select the cluster's pods",
    Absence.NOT_REDIS: "see what listens on that port, and whether BOOTSTRAP_PORT_NAME names the right one",
    Absence.TLS: "compare BOOTSTRAP_TLS_CA_FILE, …_CERT_FILE and …_KEY_FILE with the server's; is its port a TLS port?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A peer that is wanted and does not answer as it should. A fact of the view, not an exception."""

    pod: str
    ordinal: int
    why: Absence
    address: Address | None = None
    detail: str = ""
    """The server's or the system's own words, without secrets."""

    def __str__(self) -> str:
        where = f" at {self.address}" if self.address else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.pod}{where}: {self.why.value}{detail}"


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """All nodes at one look, sorted by pod ordinal, and the peers that did not answer."""

    nodes: tuple[Node, ...] = ()
    absent: tuple[Absent, ...] = ()
    elsewhere: frozenset[NodeId] = frozenset()
    """Members that no listed pod carries and that answered at the address where the others know them."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Where pods run, by pod; a pod of which that is not known is missing."""
    stuck: frozenset[NodeId] = frozenset()
    """Replicas that this run has watched for a while with their link neither up nor copying."""
    spares: tuple[Node, ...] = ()
    """Blank pods that the shape has no place for, beside a cluster that needs none of them; see `within`."""

    @cached_property
    def by_id(self) -> Mapping[NodeId, Node]:
        """The reachable nodes by their ids."""
        return {node.node_id: node for node in self.nodes}

    def name(self, node_id: NodeId) -> str:
        """The pod that carries an id, or the id's beginning where no reachable pod does."""
        node = self.by_id.get(node_id)
        return node.pod if node else f"{node_id[:8]}…"

    def agreed_on(self, node_id: NodeId) -> bool:
        """True when nobody says of that node what it does not say of itself."""
        return node_id not in self._beliefs[0]

    @property
    def agreed(self) -> bool:
        """True when that is so of every node."""
        return not self._beliefs[0]

    def linked(self, one: NodeId, other: NodeId) -> bool:
        """True when each of two nodes reaches the other. A node that is not in the view reaches nobody."""
        reached = self._beliefs[1]
        return other in reached.get(one, ()) and one in reached.get(other, ())

    def unlinked(self) -> Iterator[tuple[Node, Node]]:
        """Pairs of nodes that lack a link in some direction, lower ordinals first."""
        reached = self._beliefs[1]
        if all(len(ids) == len(self.nodes) - 1 for ids in reached.values()):
            return
        for one, other in combinations(self.nodes, 2):
            if not self.linked(one.node_id, other.node_id):
                yield one, other

    @cached_property
    def _beliefs(self) -> tuple[frozenset[NodeId], Mapping[NodeId, frozenset[NodeId]]]:
        """Of whom somebody says what that one does not, and whom each node reaches.

        Reaching: it knows that one's id and address, is connected to it, and does not suspect it. A link to where a pod
        was looks connected for a whole node timeout, where nobody refuses what is sent there; so the address counts.

        One pass and few calls: of a thousand nodes there are a million lines.
        """
        doubted, reached = set(), {}
        truth = {
            node.node_id: (node.slots, node.myself.master_id, node.role, (node.address, node.myself.address))
            for node in self.nodes
        }
        for node in self.nodes:
            ids = []
            for node_id, told in node.others.items():
                if (own := truth.get(node_id)) is None:
                    continue
                slots, master_id, role, addresses = own
                flags = told.flags
                if told.connected and _SUSPECTED.isdisjoint(flags) and told.address in addresses:
                    ids.append(node_id)
                if (
                    told.slots.ranges != slots.ranges
                    or told.master_id != master_id
                    or ("slave" in flags) is not (role is Role.REPLICA)
                ):
                    doubted.add(node_id)
            reached[node.node_id] = frozenset(ids)
        return frozenset(doubted), reached

    def within(self, pods: int) -> ClusterView:
        """The view of a cluster that takes so many pods: blank ones beyond them are spares, no part of it. Where nobody
        owns a slot yet there is no cluster to be beside.
        """
        spares = tuple(node for node in self.nodes if node.ordinal >= pods and node.blank)
        if not spares or not self.claimed():
            return self
        nodes = tuple(node for node in self.nodes if node not in spares)
        return replace(self, nodes=nodes, spares=(*self.spares, *spares))

    def unlisted(self) -> Mapping[NodeId, tuple[Node, ...]]:
        """Ids that some node knows and no reachable pod carries, with the nodes that know them."""
        return self._unlisted

    @cached_property
    def _unlisted(self) -> Mapping[NodeId, tuple[Node, ...]]:
        here = self.by_id.keys()
        strangers: dict[NodeId, list[Node]] = {}
        for node in self.nodes:
            for node_id in node.others.keys() - here:
                strangers.setdefault(node_id, []).append(node)
        return {node_id: tuple(strangers[node_id]) for node_id in sorted(strangers)}

    def absences(self) -> str:
        """Who does not answer and why, on one line; pods with the same reason are told together."""

        def reason(absent: Absent) -> tuple[str, str]:
            return (absent.why.value, absent.detail)

        lines = []
        for (why, detail), several in groupby(sorted(self.absent, key=lambda a: (reason(a), a.ordinal)), key=reason):
            pods = ", ".join(absent.pod for absent in several)
            lines.append(f"{pods}: {why}" + (f" ({detail})" if detail else ""))
        return "; ".join(lines)

    def fingerprint(self) -> str:
        """A short name for the cluster as it stands: 12 hexadecimal digits over its masters' ids and slots; "" for
        none.
        """
        return fingerprint_of({node.node_id: node.slots for node in self.nodes if node.slots})

    def claimed(self) -> SlotSet:
        """Slots that at least one reachable node says are its own."""
        return self._claimed

    @cached_property
    def _claimed(self) -> SlotSet:
        return SlotSet.union_of(node.slots for node in self.nodes)

    def half_moved(self) -> SlotSet:
        """Slots that some node marks as migrating or importing."""
        return SlotSet.union_of(node.half_moved for node in self.nodes)

    def in_question(self) -> SlotSet:
        """Slots of which it matters who holds keys: half moved ones, and ones without an owner while there are keys."""
        orphaned = self.claimed().complement() if any(node.keys for node in self.nodes) else SlotSet()
        return self.half_moved() | orphaned


def fingerprint_of(owners: Mapping[NodeId, SlotSet]) -> str:
    """12 hexadecimal digits over the masters' ids and slots; "" where nobody owns any."""
    owned = sorted(f"{node_id} {slots}" for node_id, slots in owners.items())
    return hashlib.sha256("\n".join(owned).encode()).hexdigest()[:12] if owned else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The declared shape, and what a person has accepted."""

    shards: int
    replicas_per_shard: int
    timeout_ms: int | None = None
    """The declared cluster-node-timeout, milliseconds; None: leave timeouts alone."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Further `cluster-…` settings that every node should have."""
    replace_replicas: str = "off"
    """`on`: a replica too close to its master changes places with another, never leaving a shard without a linked one;
    `with-a-gap`: also where each shard has one replica, and one is without while the copies run; `off`: it is told.
    """
    rebalance: str = "auto"
    """`auto`: slots move where a shard is off its share by more than the threshold; `on`: by more than one slot; `off`:
    only to a master that has none, or from one that is to have none.
    """
    threshold_percent: float = 10.0
    """Percent of its share that a shard may be off."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How much of the slots the shards of some pods should have, relative to 1, by pod."""
    without_copies: bool = False
    """A person has accepted that shards which had replicas are to have none; see `accept_loss`."""
    accept_loss: str = ""
    """The fingerprint of the cluster whose lost slots may be given to others, empty; valid for that very state."""

    @property
    def nodes(self) -> int:
        """How many pods the shape takes."""
        return self.shards * (1 + self.replicas_per_shard)
