"""The steps of a plan, as data. A write is one small change that is sent to one node. A wait is a condition of the
whole cluster. `bootstrap.plan.settled` decides when a step has taken effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bootstrap.model.node import Address, NodeId
from bootstrap.model.slots import SlotSet
from bootstrap.model.waits import Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimeout:
    """CONFIG SET cluster-node-timeout, milliseconds."""

    node: NodeId
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetConfig:
    """CONFIG SET of a setting that can be changed at run time without harm."""

    node: NodeId
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEpoch:
    """CLUSTER SET-CONFIG-EPOCH. The server accepts it only while it knows no other node and has epoch 0."""

    node: NodeId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BumpEpoch:
    """CLUSTER BUMPEPOCH, sent to a master for which another node holds a higher config epoch than its own."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Meet:
    """CLUSTER MEET, sent to the introducer. The address is an IP: the server does not resolve names."""

    introducer: NodeId
    newcomer: NodeId
    address: Address
    bus_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddSlots:
    """CLUSTER ADDSLOTS: assigns slots without an owner to a master."""

    node: NodeId
    slots: SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """CLUSTER REPLICATE: makes a replica, or a master without slots and keys, the replica of a master."""

    replica: NodeId
    master: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Reattach:
    """CLUSTER REPLICATE with the present master, sent to a replica whose link stays down: it reconnects and, on Redis,
    continues from its offset. Never sent while a copy is in progress, because the copy would start again.
    """

    replica: NodeId
    master: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """CLUSTER FAILOVER, sent to a replica whose master is lost. FORCE needs the votes of the other masters, TAKEOVER
    needs none. TAKEOVER is safe only when the old master is certainly gone.
    """

    candidate: NodeId
    lost: NodeId
    slots: SlotSet
    takeover: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """CLUSTER FORGET, sent to one node. It must reach all nodes within the ban of 60 s, or gossip restores the id."""

    node: NodeId
    lost: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSlotState:
    """CLUSTER SETSLOT IMPORTING, sent to the future owner of a slot, or MIGRATING, sent to its present owner."""

    node: NodeId
    slot: int
    other: NodeId
    importing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSlotOwner:
    """CLUSTER SETSLOT NODE, sent to a node that imports these slots, which ignores gossip about them, so that after a
    failover it keeps a stale owner until corrected; or to their owner itself, which believes them to be another one's.
    """

    node: NodeId
    owner: NodeId
    slots: SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveKeys:
    """MIGRATE, sent to the source of an open slot, for as many of its keys as a short time allows. Of a key on both
    nodes, the source's copy wins: clients use the source until the slot has its new owner.
    """

    source: NodeId
    target: NodeId
    slot: int
    address: Address
    """The target's."""
    databases: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeSlot:
    """CLUSTER SETSLOT NODE, sent to the slot's new owner: it takes a new epoch, and the others accept it as owner. Sent
    only after the old owner has no key of the slot left, because the old owner then deletes the keys that it still has.
    """

    node: NodeId
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSlot:
    """CLUSTER SETSLOT STABLE: removes the migrating or importing state of a slot."""

    node: NodeId
    slot: int
    reopen_from: NodeId | None = None
    """Where the node imports the slot: from which node. It does so again if a client has written a key meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveSlots:
    """Moves slots with their keys from one master to another while clients use them: by the servers' own migration
    where they have one, else slot by slot with MIGRATE. It may take hours; the run reports its progress.
    """

    source: NodeId
    target: NodeId
    slots: SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelMigration:
    """Cancels a failed migration by the servers' own command. The slots stay with their source."""

    node: NodeId
    """The node that receives the command: the target on Redis, the source on Valkey."""
    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualFailover:
    """CLUSTER FAILOVER, sent to a replica: its master pauses writes until it has caught up, then follows it."""

    candidate: NodeId
    master: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """Copies function libraries and ACL users to a blank node before it joins: those that every owner of slots has and
    the node lacks. Servers do not replicate ACL users, and a new master receives no functions by replication.
    """

    node: NodeId
    origin: NodeId
    address: Address
    """The origin's."""
    libraries: tuple[str, ...]
    users: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """CLUSTER RESET HARD, sent to a node beyond the declared shape: a master without slots and keys (the server checks
    that), or a replica that its shard does not need. Then its files on disk are rewritten: with the old keys in them
    the node would claim their slots after a restart.
    """

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """A snapshot, then CLUSTER RESET HARD, sent to a node of a cluster that has been taken over, once all pods have
    forgotten it. The reset of a replica empties its memory. Its files keep the keys: the snapshot is complete before,
    and the server writes none after it.
    """

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class EndPause:
    """CLIENT UNPAUSE, sent to a former master on Redis 6.2. It goes on pausing its clients for 10 s after a manual
    failover, so that they wait, and reads nothing from its successor (*measured*, 6.2.5).
    """

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Wipe:
    """CLUSTER RESET HARD and FLUSHALL; only `reinit` sends it.

    On a master both are one transaction, so that no client writes in between. A replica rejects FLUSHALL. Its reset
    makes it an empty master, but leaves its file on disk (*measured*, 7.0.15: killed and started again it has all its
    keys, and claims their slots), so FLUSHALL follows immediately. Without snapshots and append-only file (`save ""`,
    `appendonly no`) FLUSHALL leaves an old dump.rdb, and a restart brings every key back (*measured*, 7.0.15, 8.2.3,
    Valkey 9.1.2); so SAVE overwrites it with an empty one.
    """

    node: NodeId
    flush: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """CLUSTER MEET, sent to a node once for each other node. They know it already, and the packet carries its new role
    and slots to them immediately. By gossip alone that may take seconds, because servers ping a node less often while
    others report it as reachable. *Measured*, 60 nodes with a timeout of 5 s: all know after 1.0 s instead of over 9 s.
    """

    node: NodeId
    others: tuple[tuple[Address, int], ...]
    """Address and bus port of each other node."""


Setting = SetTimeout | SetConfig | SetEpoch
Membership = Meet | Announce | Forget | Provision | Leave | Retire | Wipe
RoleChange = AddSlots | Replicate | Reattach | Failover | ManualFailover | EndPause | BumpEpoch
SlotMove = SetSlotState | SetSlotOwner | MoveKeys | TakeSlot | CloseSlot
Write = Setting | Membership | RoleChange | SlotMove | MoveSlots | CancelMigration
Step = Write | Wait
Local = (
    Setting | SetSlotState | SetSlotOwner | MoveKeys | CloseSlot | CancelMigration | Provision | Leave | Retire | Wipe
)
"""Steps that concern one node alone. All others are settled only after gossip has carried them to every node."""


class Rejected(NamedTuple):
    """A write that the server did not accept, or not as a whole."""

    write: Write
    why: str
    answered: bool
    """True when the server rejected the write; False when there was no answer, and the next try may succeed."""
    partly: bool = False
    """True where the server had already accepted a part of it, such as the reset of a wipe."""


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
