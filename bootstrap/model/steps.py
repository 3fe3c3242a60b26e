"""The verbs, as data. A step is one small thing to tell one node, or a condition to wait for; it acts on nothing.
When it has come true is said by `settled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bootstrap.model.node import Address, NodeId
from bootstrap.model.slots import SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimeout:
    """CONFIG SET cluster-node-timeout, milliseconds."""

    node: NodeId
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetConfig:
    """CONFIG SET of a setting that may change at run time without harm."""

    node: NodeId
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEpoch:
    """CLUSTER SET-CONFIG-EPOCH. The server takes it only while the node knows nobody and has epoch 0."""

    node: NodeId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meet:
    """CLUSTER MEET, told to the introducer. The address is an IP: the server resolves no names."""

    introducer: NodeId
    newcomer: NodeId
    address: Address
    bus_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddSlots:
    """CLUSTER ADDSLOTS: gives slots that nobody owns to a master."""

    node: NodeId
    slots: SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """CLUSTER REPLICATE: makes a node that holds nothing of its own the replica of a master."""

    replica: NodeId
    master: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Reattach:
    """CLUSTER REPLICATE, told to a replica of that very master whose link stays down: on Redis it connects anew and
    goes on from where it was. Never told while a copy is on its way, which it would start again.
    """

    replica: NodeId
    master: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """CLUSTER FAILOVER, told to a replica whose master is lost: FORCE asks the other masters for their votes, TAKEOVER
    asks nobody. TAKEOVER is safe only while the old master is certainly gone.
    """

    candidate: NodeId
    lost: NodeId
    slots: SlotSet
    takeover: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """CLUSTER FORGET, told to one node. It must reach all within the ban of 60 s, or gossip brings the id back."""

    node: NodeId
    lost: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSlotState:
    """CLUSTER SETSLOT IMPORTING, told to the node that is to own a slot, or MIGRATING, told to the one that does."""

    node: NodeId
    slot: int
    other: NodeId
    importing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSlotOwner:
    """CLUSTER SETSLOT NODE of another node, told to one that imports these slots: it takes no word of them from gossip,
    so when their owner changes (a failover) it believes in none, or in one that has them no more, until it is told.
    """

    node: NodeId
    owner: NodeId
    slots: SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveKeys:
    """MIGRATE, told to the source of an open slot, for as many of its keys as a moment allows. Of a key that both have
    the source's copy counts: until the slot is handed over, clients are served from it.
    """

    source: NodeId
    target: NodeId
    slot: int
    address: Address
    """The target's."""
    databases: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeSlot:
    """CLUSTER SETSLOT NODE, told to the slot's new owner itself: it takes a new epoch, and the others follow. Only
    after the old owner has no key of the slot left: what it still holds then, it drops.
    """

    node: NodeId
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSlot:
    """CLUSTER SETSLOT STABLE: takes away a mark that nothing hangs on any more."""

    node: NodeId
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveSlots:
    """Slots with their keys, from one master to another, while clients use them: by the servers' own migration where
    they have one, else slot by slot with MIGRATE. It may take long, and is watched while it lasts.
    """

    source: NodeId
    target: NodeId
    slots: SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelMigration:
    """Ends a migration of slots that a server does by itself and that failed. The slots stay with their source."""

    node: NodeId
    """Who is told: the target on Redis, the source on Valkey."""
    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualFailover:
    """CLUSTER FAILOVER, told to a replica: its master stops writes for a moment, lets it catch up, and follows it."""

    candidate: NodeId
    master: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """Function libraries and ACL users, told to a blank node before it joins: those that every owner of slots has and
    it has not. Servers keep ACL users each for itself, and a new master gets no functions by replication.
    """

    node: NodeId
    origin: NodeId
    address: Address
    """The origin's."""
    libraries: tuple[str, ...]
    users: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """CLUSTER RESET HARD, told to a node that the shape has no place for: one that owns no slot and holds no key, which
    the server checks itself, or a replica that its shard does not need. Then its files are written anew: what they
    still held would claim its slots when the pod comes back.
    """

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Wipe:
    """CLUSTER RESET HARD and FLUSHALL. Part of `reinit` alone.

    On a master both are one transaction, so that no client writes in between. A replica takes no FLUSHALL; its reset
    makes it an empty master, but leaves its file on disk as it was (*measured*, 7.0.15: killed and started again it has
    all its keys back, and claims their slots), so the FLUSHALL follows at once.

    Without snapshots and append-only file (`save ""`, `appendonly no`) FLUSHALL leaves an old dump.rdb as it is, and
    every key is back after a restart (*measured*, 7.0.15, 8.2.3, Valkey 9.1.2): so SAVE writes an empty one over it.
    """

    node: NodeId
    flush: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """CLUSTER MEET, told to a node once for each of the others, who know it already: the packet brings them at once
    what the node has become. By itself that may take seconds, since servers ping a node less often while others gossip
    that it is well. *Measured*, 60 nodes with a timeout of 5 s: all know after 1.0 s, in place of over 9 s.
    """

    node: NodeId
    others: tuple[tuple[Address, int], ...]
    """Address and bus port of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitMesh:
    """Wait until every node is linked to every other, in both directions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitAgreement:
    """Wait until every node says of every other what that one says of itself: its slots, and whom it follows; and until
    no slot is claimed twice. Among linked nodes the servers settle that by their epochs.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitElection:
    """Wait until the masters have elected a replica of a lost master: somebody owns its slots."""

    lost: NodeId
    slots: SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitEpochs:
    """Wait until no two masters have the same config epoch; the servers settle that among themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitReplication:
    """Wait until every replica's link to its master is up and its first copy complete. It may take minutes: sending
    REPLICATE again would start the copy anew.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitMigrations:
    """Wait until no server migrates slots by itself: an earlier run began that, and was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitServing:
    """Wait until every node says `cluster_state:ok`."""


Local = (
    SetTimeout
    | SetConfig
    | SetEpoch
    | SetSlotState
    | SetSlotOwner
    | MoveKeys
    | CloseSlot
    | CancelMigration
    | Provision
    | Leave
    | Wipe
)
"""Steps that concern one node alone; all others are settled only when gossip has carried them to every node."""

SlotMove = SetSlotState | SetSlotOwner | MoveKeys | TakeSlot | CloseSlot
Write = (
    SetTimeout
    | SetConfig
    | SetEpoch
    | Meet
    | AddSlots
    | Replicate
    | Reattach
    | Failover
    | Forget
    | Announce
    | SlotMove
    | MoveSlots
    | CancelMigration
    | ManualFailover
    | Provision
    | Leave
    | Wipe
)
Wait = AwaitMesh | AwaitAgreement | AwaitElection | AwaitEpochs | AwaitReplication | AwaitMigrations | AwaitServing
Step = Write | Wait


class Rejected(NamedTuple):
    """A write that took no effect, as far as is known."""

    write: Write
    why: str
    answered: bool
    """True when the server itself said no; False when there was no answer, which says nothing about the next try."""


def recipient(step: Write) -> NodeId:
    """The node that a write is sent to."""
    match step:
        case Meet():
            return step.introducer
        case Replicate() | Reattach():
            return step.replica
        case MoveKeys() | MoveSlots():
            return step.source
        case Failover() | ManualFailover():
            return step.candidate
        case _:
            return step.node
