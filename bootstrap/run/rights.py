"""What a run needs is known before its first write: servers are asked whether they would take the writes of a plan."""

from __future__ import annotations

from dataclasses import dataclass, field

from bootstrap.errors import Misconfigured, NotYet
from bootstrap.model.node import NodeId
from bootstrap.model.plan import Plan
from bootstrap.model.steps import Write, recipient
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
        wanted: dict[tuple[NodeId, type[Write]], Write] = {}
        for phase in plan.phases:
            for step in phase.steps if phase.name not in _OPTIONAL else ():
                if isinstance(step, Write) and recipient(step) in view.by_id:
                    wanted.setdefault((recipient(step), type(step)), step)
        new = {key: step for key, step in wanted.items() if key not in self._asked}
        self._asked |= new.keys()
        if new and (denied := self.world.denied_writes(new.values(), view)):
            temporary = all(no.why.startswith(("MISCONF", "NOREPLICAS")) for no in denied)
            raise (NotYet if temporary else Misconfigured).because(of_rejected(denied, view)[:REASONS_SHOWN])
