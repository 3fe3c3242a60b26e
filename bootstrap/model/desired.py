"""TODO"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
