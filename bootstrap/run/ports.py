"""TODO"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from bootstrap.model.node import Address
from bootstrap.model.steps import MoveSlots, Rejected, Write
from bootstrap.model.view import ClusterView


class World(Protocol):
    """The cluster as a run sees and changes it; the tests have one of their own."""

    def look(self) -> ClusterView:
        """Who is there, and what each says."""
        ...

    def refresh(self) -> ClusterView:
        """What those who were there at the last look say now."""
        ...

    def check_endpoints(self, endpoints: Sequence[Address]) -> list[str]:
        """What keeps somebody out at each of the addresses; "" where a node answers."""
        ...

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        """Sends each write once; returns those that were not accepted and why."""
        ...

    def move(self, moves: Sequence[MoveSlots], view: ClusterView) -> Transfer:
        """Slots to be moved: nothing is told before the transfer is advanced."""
        ...


class Transfer(Protocol):
    """Slots on their way between nodes, all pairs of nodes at once as far as the servers allow that."""

    rejected: list[Rejected]
    """Moves that have come to an end without success, and why."""

    @property
    def done(self) -> bool:
        """True when nothing is left to do: every move has arrived or was rejected."""
        ...

    @property
    def slots_done(self) -> int:
        """Slots that belong to their new master."""
        ...

    @property
    def bytes_done(self) -> int:
        """About how much data went with them."""
        ...

    @property
    def pause_s(self) -> float:
        """Seconds in which there is nothing to do after `advance`."""
        ...

    def advance(self) -> None:
        """Goes on for a moment, at most about a second."""
        ...

    def close(self) -> None:
        """Ends it. What has not arrived is cancelled where it can be, or left for the next run to finish."""
        ...
