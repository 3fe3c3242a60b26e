"""How long the link of a replica has been down. No server reports that reliably, and one look cannot show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bootstrap.clock import Clock
from bootstrap.model.node import NodeId, Role
from bootstrap.model.steps import Reattach, Replicate, Write
from bootstrap.model.view import ClusterView

STUCK_S = 10.0
"""Seconds with neither a link nor a copy under way. Servers retry every second. After a move of all pods they took up
to 9 s by themselves (docs/architecture.md)."""


@dataclass(slots=True)
class LinkWatch:
    """Compares the views of one run. The time of a replica starts again when it is sent a command to connect."""

    clock: Clock
    _down_since: dict[NodeId, float] = field(default_factory=dict)
    _owners: set[NodeId] = field(default_factory=set)
    """Nodes that owned slots, and have not copied from a master since."""

    def watched(self, view: ClusterView) -> ClusterView:
        """The view with the replicas that are stuck or demoted; every view of the run has to pass here."""
        down = {
            node.node_id
            for node in view.nodes
            if node.role is Role.REPLICA and not (node.replication.link_up or node.replication.syncing)
        }
        now = self.clock.now()
        self._down_since = {node_id: self._down_since.get(node_id, now) for node_id in down}
        stuck = frozenset(node_id for node_id, since in self._down_since.items() if now - since >= STUCK_S)
        self._owners |= {node.node_id for node in view.nodes if node.slots}
        self._owners -= {n.node_id for n in view.nodes if n.role is Role.REPLICA and n.replication.link_up}
        demoted = frozenset(self._owners & down)
        return replace(view, stuck=stuck, demoted=demoted) if stuck or demoted else view

    def sent(self, writes: Iterable[Write]) -> None:
        """Notes writes that were sent."""
        for write in writes:
            if isinstance(write, Reattach | Replicate):
                self._down_since.pop(write.replica, None)
