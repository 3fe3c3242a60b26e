"""The ports of a run: the protocols through which it sees and changes a cluster.

`nodes` implements them for real servers; the tests have implementations of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from bootstrap.model.links import LinkTrouble
from bootstrap.model.node import Address, Endpoint, NodeId
from bootstrap.model.steps import MoveSlots, Rejected, Write
from bootstrap.model.view import ClusterView


class World(Protocol):
    """The cluster as a run sees and changes it. No method raises for a node that does not answer."""

    def look(self) -> ClusterView:
        """Looks up the peers in the DNS and queries each."""
        ...

    def refresh(self) -> ClusterView:
        """Queries the peers of the latest look again, without the DNS."""
        ...

    def check_endpoints(self, endpoints: Sequence[Address]) -> list[str]:
        """For each address, why no node answers there; "" where one does."""
        ...

    def client_endpoints(self, view: ClusterView) -> Mapping[Address, frozenset[Endpoint]]:
        """Where each node sends its clients, by the node's address; a node that does not report it is left out."""
        ...

    def link_troubles(
        self, view: ClusterView, replicas: AbstractSet[NodeId], broken_off: AbstractSet[NodeId]
    ) -> Mapping[NodeId, LinkTrouble]:
        """The likely causes for replicas whose links are down; `broken_off`: those that began to copy and stopped."""
        ...

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        """Sends each write once; returns those that were not accepted, with the reason."""
        ...

    def denied_writes(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        """The writes that servers would reject for lack of a right; changes nothing."""
        ...

    def move(self, moves: Sequence[MoveSlots], view: ClusterView) -> Transfer:
        """Prepares a transfer of slots; nothing is sent before it is advanced."""
        ...


class Transfer(Protocol):
    """Slots on their way between nodes. Node pairs migrate in parallel as far as the servers allow that."""

    rejected: list[Rejected]
    """Moves that have failed, with the reason."""

    @property
    def done(self) -> bool:
        """True once every move has arrived or failed."""
        ...

    @property
    def slots_done(self) -> int:
        """Number of slots that their new master owns."""
        ...

    @property
    def bytes_done(self) -> int:
        """Estimated bytes of data in these slots."""
        ...

    @property
    def pause_s(self) -> float:
        """Seconds to sleep before the next `advance`."""
        ...

    def advance(self) -> None:
        """Works for at most about a second."""
        ...

    def close(self) -> None:
        """Ends the transfer. Moves under way are cancelled where possible, else the next run finishes them."""
        ...
