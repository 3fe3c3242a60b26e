"""What a plan waits for between its writes, as data. `plan/settled.py` says when each wait is over."""

from __future__ import annotations

from dataclasses import dataclass

from bootstrap.model.node import NodeId
from bootstrap.model.slots import SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitMesh:
    """Wait until every node is linked to every other, in both directions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitAgreement:
    """Wait until all nodes agree about the slots, master and role of every node, and no slot is claimed twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitElection:
    """Wait until the masters have elected a replica of a lost master, which then owns its slots."""

    lost: NodeId
    slots: SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitEpochs:
    """Wait until no two masters have the same config epoch; the servers resolve that by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitReplication:
    """Wait until every replica's link to its master is up and its first copy is complete. That may take minutes, and a
    second REPLICATE would start the copy again.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitCopies:
    """Wait until these nodes are replicas that have their copy, or masters."""

    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitMigrations:
    """Wait until no migration by the servers' own command is active: an earlier run started it and was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitServing:
    """Wait until every node reports `cluster_state:ok`."""


Wait = (
    AwaitMesh
    | AwaitAgreement
    | AwaitElection
    | AwaitEpochs
    | AwaitReplication
    | AwaitCopies
    | AwaitMigrations
    | AwaitServing
)
