"""A run that is killed midway: a given number of its writes reach the servers, and no later ones."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field

from bootstrap.clock import SystemClock
from bootstrap.config import Settings
from bootstrap.log import logger
from bootstrap.model.links import LinkTrouble
from bootstrap.model.node import Address, Endpoint, NodeId
from bootstrap.model.steps import MoveSlots, Rejected, Write, recipient
from bootstrap.model.view import ClusterView
from bootstrap.run.ports import Transfer, World
from bootstrap.run.session import session
from tests.real.testbed import Testbed


class Killed(BaseException):
    """The run was killed. It is not an Exception, so that no handler can swallow it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a run is killed: just before or just after its write number `number`, counted from 0.

    After the last write of a phase, the run watches the phase until it has settled. So the moment just after that write
    is well before the first write of the next phase. With `kind`, only writes of that kind are counted.
    """

    number: int
    before: bool
    kind: type[Write] | None = None

    def __str__(self) -> str:
        kind = self.kind.__name__ if self.kind else "write"
        return f"{'before' if self.before else 'after'} {kind} {self.number}"


@dataclass(slots=True)
class KilledRun:
    """The real world until the moment comes. A killed run sends nothing more: no write of its cleanup arrives."""

    world: World
    moment: Moment
    sent: list[Write] = field(default_factory=list)
    """The writes that have reached the servers."""
    dead: bool = False
    _counted: int = 0

    def look(self) -> ClusterView:
        return self.world.look()

    def refresh(self) -> ClusterView:
        return self.world.refresh()

    def check_endpoints(self, endpoints: Sequence[Address]) -> list[str]:
        return self.world.check_endpoints(endpoints)

    def client_endpoints(self, view: ClusterView) -> Mapping[Address, frozenset[Endpoint]]:
        return self.world.client_endpoints(view)

    def link_troubles(
        self, view: ClusterView, replicas: AbstractSet[NodeId], broken_off: AbstractSet[NodeId]
    ) -> Mapping[NodeId, LinkTrouble]:
        return self.world.link_troubles(view, replicas, broken_off)

    def denied_writes(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        return self.world.denied_writes(writes, view)

    def move(self, moves: Sequence[MoveSlots], view: ClusterView) -> Transfer:
        if self.dead:
            raise Killed
        return self.world.move(moves, view)

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        if self.dead:
            raise Killed
        arriving = self._until_killed(interleaved(writes, random.Random(str(self.moment))))
        self.sent += arriving
        rejected = self.world.send(arriving, view)
        if self.dead:
            raise Killed
        return rejected

    def _until_killed(self, writes: Iterable[Write]) -> list[Write]:
        """The writes that are sent before the moment comes."""
        arriving: list[Write] = []
        for write in writes:
            if self.moment.kind is None or isinstance(write, self.moment.kind):
                self.dead = self._counted == self.moment.number
                self._counted += 1
                if self.dead and self.moment.before:
                    return arriving
            arriving.append(write)
            if self.dead:
                return arriving
        return arriving


def interleaved(writes: Iterable[Write], chance: random.Random) -> Iterable[Write]:
    """One possible order of arrival of parallel writes: the order per node is kept, the order among nodes is random."""
    queues: dict[NodeId, list[Write]] = {}
    for write in writes:
        queues.setdefault(recipient(write), []).append(write)
    while queues:
        node = chance.choice(list(queues))
        yield queues[node].pop(0)
        if not queues[node]:
            del queues[node]


def apply_until_killed(testbed: Testbed, moment: Moment) -> KilledRun:
    """Runs `apply` as the program does and kills it at that moment. If the moment never comes, `dead` stays False."""
    settings = Settings.from_env(testbed.variables, {})
    out = io.StringIO()
    log = logger(console=False, out=out)
    with session(settings, clock=SystemClock(), log=log, out=out, console=False) as verbs:
        killed_run = KilledRun(verbs.reconciler.world, moment)
        verbs.reconciler.world = killed_run
        with suppress(Killed):
            verbs.apply()
    return killed_run
