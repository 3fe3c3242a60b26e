"""A run that is killed in the middle: a given number of its writes reach the servers, and nothing that comes after."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from bootstrap.clock import SystemClock
from bootstrap.config import Settings
from bootstrap.log import logger
from bootstrap.model.node import Address, NodeId
from bootstrap.model.steps import MoveSlots, Rejected, Write, recipient
from bootstrap.model.view import ClusterView
from bootstrap.run.ports import Transfer, World
from bootstrap.run.session import session
from tests.real.conftest import Testbed


class Killed(BaseException):
    """The run was killed; not an Exception, so that nothing on the way can swallow it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a run is killed: at its write number `number`, counted from 0, just before it or just after it.

    Between the last write of a phase and the first of the next the phase is watched until it has settled: just after
    the one is well before the other. `kind` counts the writes of that kind only.
    """

    number: int
    before: bool
    kind: type[Write] | None = None

    def __str__(self) -> str:
        kind = self.kind.__name__ if self.kind else "write"
        return f"{'before' if self.before else 'after'} {kind} {self.number}"


@dataclass(slots=True)
class KilledRun:
    """The real world, until the moment comes. A dead run does not say goodbye: no write of its clearing up arrives."""

    world: World
    moment: Moment
    told: list[Write] = field(default_factory=list)
    """What has reached the servers."""
    dead: bool = False
    _counted: int = 0

    def look(self) -> ClusterView:
        return self.world.look()

    def refresh(self) -> ClusterView:
        return self.world.refresh()

    def check_endpoints(self, endpoints: Sequence[Address]) -> list[str]:
        return self.world.check_endpoints(endpoints)

    def move(self, moves: Sequence[MoveSlots], view: ClusterView) -> Transfer:
        if self.dead:
            raise Killed
        return self.world.move(moves, view)

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        if self.dead:
            raise Killed
        through = self._through(interleaved(writes, random.Random(str(self.moment))))
        self.told += through
        rejected = self.world.send(through, view)
        if self.dead:
            raise Killed
        return rejected

    def _through(self, writes: Iterable[Write]) -> list[Write]:
        """Those that are sent before the moment comes."""
        through: list[Write] = []
        for write in writes:
            if self.moment.kind is None or isinstance(write, self.moment.kind):
                self.dead = self._counted == self.moment.number
                self._counted += 1
                if self.dead and self.moment.before:
                    return through
            through.append(write)
            if self.dead:
                return through
        return through


def interleaved(writes: Iterable[Write], chance: random.Random) -> Iterable[Write]:
    """The writes as they may arrive when all nodes are told at once: in order at each node, in any order among them."""
    queues: dict[NodeId, list[Write]] = {}
    for write in writes:
        queues.setdefault(recipient(write), []).append(write)
    while queues:
        node = chance.choice(list(queues))
        yield queues[node].pop(0)
        if not queues[node]:
            del queues[node]


def apply_and_die(lab: Testbed, moment: Moment) -> KilledRun:
    """`apply` as the program runs it, killed at that moment. Where the moment never comes, `dead` stays False."""
    settings = Settings.from_env(lab.variables, {})
    out = io.StringIO()
    log = logger(console=False, out=out)
    with session(settings, clock=SystemClock(), log=log, out=out, console=False) as verbs:
        killed_run = KilledRun(verbs.reconciler.world, moment)
        verbs.reconciler.world = killed_run
        with suppress(Killed):
            verbs.apply()
    return killed_run
