"""What must not end half-way is asked for before the first write: whether servers would take the writes of a plan.

That holds for a wipe, for forming, and for a resize. A repair does what it may: a replica takes over from a lost
master, even where the user lacks the right to what comes later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bootstrap.errors import Misconfigured, NotYet
from bootstrap.model.node import NodeId
from bootstrap.model.plan import Plan
from bootstrap.model.steps import Leave, MoveSlots, Wipe, Write, recipient
from bootstrap.model.view import ClusterView
from bootstrap.run.ports import World
from bootstrap.run.reasons import REASONS_SHOWN, of_rejected

_OPTIONAL = frozenset({"spread masters", "replace replicas"})
"""Phases that improve a cluster that is whole: a run does not fail because of them."""


@dataclass(slots=True)
class Rights:
    """Remembers what the servers were asked in this run: each kind of write once per node."""

    world: World
    _asked: set[tuple[NodeId, type[Write]]] = field(default_factory=set)

    def check(self, plan: Plan, view: ClusterView) -> None:
        """Raises Misconfigured where a server would reject a write of the plan for lack of a right or a command, and
        NotYet where one that is to be wiped refuses writes.
        """
        phases = [phase for phase in plan.phases if phase.name not in _OPTIONAL]
        writes = [step for phase in phases for step in phase.steps if isinstance(step, Write)]
        if not _may_not_end_half_way(writes, view):
            return
        wanted: dict[tuple[NodeId, type[Write]], Write] = {}
        for step in writes:
            if recipient(step) in view.by_id:
                wanted.setdefault((recipient(step), type(step)), step)
        new = {key: step for key, step in wanted.items() if key not in self._asked}
        self._asked |= new.keys()
        if new and (denied := self.world.denied_writes(new.values(), view)):
            temporary = all(no.why.startswith(("MISCONF", "NOREPLICAS")) for no in denied)
            raise (NotYet if temporary else Misconfigured).because(of_rejected(denied, view)[:REASONS_SHOWN])


def _may_not_end_half_way(writes: Sequence[Write], view: ClusterView) -> bool:
    if view.forming or any(isinstance(step, Wipe) for step in writes):
        return True
    whole = view.serves and not view.unlisted() and not view.unreachable
    return whole and any(isinstance(step, MoveSlots | Leave) for step in writes)
