"""The shape that a person has declared: shards, replicas and settings, and the losses that the person has accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bootstrap.model.node import NodeId
from bootstrap.model.old_side import Adoption


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The declared shape, and what a person has accepted."""

    shards: int
    replicas_per_shard: int
    timeout_ms: int | None = None
    """The declared cluster-node-timeout, milliseconds; None leaves the servers' timeouts alone."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Further `cluster-…` settings that every node should have, values by name."""
    quicken: bool = True
    """Nodes that have moved may be introduced with temporary settings, where a timeout is declared. A run has a limited
    time for it.
    """
    replace_replicas: str = "off"
    """`on`: a replica too close to its master is swapped with another one, and no shard is ever without a linked
    replica. `with-a-gap`: also where each shard has one replica; one shard is without a replica while the copies run.
    `off`: such replicas are only reported.
    """
    spread_masters: str = "auto"
    """`auto`: masters fail over to replicas until no machine, then no zone, can stop the cluster, as far as possible.
    `off`: such masters are only reported.
    """
    rebalance: str = "auto"
    """`auto`: slots move where a shard is off its share by more than the threshold; `on`: by more than one slot; `off`:
    only to a master without slots, or from one that is to be drained.
    """
    threshold_percent: float = 10.0
    """By how much of its share, in percent, a shard may be off."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """The weight of the shards of some pods when slots are shared out, by pod; 1 for all others."""
    without_copies: bool = False
    """A person has accepted that shards which have replicas lose them all; see `accept_loss`."""
    accept_loss: str = ""
    """The fingerprint of the cluster whose lost slots may be assigned again, empty. Valid for that state alone."""
    given_up: frozenset[NodeId] = frozenset()
    """The lost members of the state in which such a fingerprint was valid in this run."""
    accept_takeover: str = ""
    """A person has confirmed that the missing masters which this fingerprint names do not run; see `may_take_over`."""
    adoption: Adoption | None = None
    """A cluster is to be taken over."""
    may_take_over: frozenset[NodeId] = frozenset()
    """The masters that such a fingerprint has named in this run."""

    @property
    def nodes(self) -> int:
        """How many pods the shape takes."""
        return self.shards * (1 + self.replicas_per_shard)
