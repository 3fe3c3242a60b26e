"""Settings of servers that a run changes for a while, and restores on every way out: node timeouts, lowered
while a cluster forms or moved nodes are linked, and the failover of replicas, off while moved nodes are linked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from bootstrap.clock import Clock
from bootstrap.errors import NotYet, Reason
from bootstrap.log import Log
from bootstrap.model.desired import Desired
from bootstrap.model.node import NO_FAILOVER_NAMES, NodeId
from bootstrap.model.steps import Rejected, SetConfig, SetTimeout, Write, recipient
from bootstrap.model.view import ClusterView
from bootstrap.plan.quickening import left_quickened
from bootstrap.run.ports import World

QUICKEN_LIMIT_S = 10.0
"""Seconds for which a run links moved nodes with a short timeout and without failover. *Measured*: it takes two. Nodes
too busy to answer within that timeout are linked with the declared one."""


@dataclass(slots=True)
class TemporarySettings:
    """What a run knows about the settings that it has changed, and whether servers let it change them."""

    clock: Clock
    timeouts: set[NodeId] = field(default_factory=set)
    """Nodes whose timeout was changed, by this run or by one that was killed, and is not yet restored."""
    no_failover: dict[NodeId, str] = field(default_factory=dict)
    """Nodes whose failover is off in the same way, and what each of them calls that setting."""
    denied: tuple[Reason, ...] = ()
    """Why servers rejected a setting, once that has happened: the Redis user may lack CONFIG SET."""
    _quickened_at: float | None = None

    @property
    def pending(self) -> set[NodeId]:
        """Nodes with a setting that is not yet restored."""
        return self.timeouts | self.no_failover.keys()

    def watched(self, view: ClusterView, desired: Desired) -> ClusterView:
        """The view as it is. Nodes where a killed run has left its settings are noted, unless servers deny CONFIG."""
        for node in view.nodes:
            if left_quickened(node, desired) and not self.denied:
                self.timeouts.add(node.node_id)
                self.no_failover[node.node_id] = node.no_failover_name
        if self.no_failover and self._quickened_at is None:
            self._quickened_at = self.clock.now()
        return view

    def attainable(self, desired: Desired) -> Desired:
        """The desired shape, without what servers have rejected or what has taken too long: the rest is still done."""
        if self._quickened_at is not None and self.clock.now() - self._quickened_at > QUICKEN_LIMIT_S:
            desired = replace(desired, quicken=False)
        return replace(desired, timeout_ms=None, config={}) if self.denied else desired

    def sending(self, writes: Iterable[Write], declared_ms: int) -> None:
        """Notes settings that are about to be changed.

        This happens before the write: a run that ends in between restores a setting that it may not have changed.
        """
        for step in writes:
            if isinstance(step, SetTimeout) and step.timeout_ms != declared_ms:
                self.timeouts.add(step.node)
            elif isinstance(step, SetConfig) and step.name in NO_FAILOVER_NAMES and step.value == "yes":
                self.no_failover[step.node] = step.name

    def sent(self, writes: Iterable[Write], rejected: Sequence[Rejected], declared_ms: int) -> None:
        """Notes settings that have been restored."""
        failed = {id(rejection.write) for rejection in rejected}
        for write in writes:
            if id(write) in failed:
                continue
            if isinstance(write, SetTimeout) and write.timeout_ms == declared_ms:
                self.timeouts.discard(write.node)
            elif isinstance(write, SetConfig) and write.name in NO_FAILOVER_NAMES and write.value == "no":
                self.no_failover.pop(write.node, None)

    def restore(
        self, declared_ms: int | None, view: ClusterView, world: World, *, check_lock: Callable[[], None], log: Log
    ) -> int:
        """Sends every node its settings as they were, the timeout (milliseconds) last; returns how many writes were
        accepted.

        This is tried once. A setting that is not restored is drift, which the next run finds.
        """
        pending = self.pending
        if not (pending and declared_ms):
            return 0
        try:
            check_lock()
        except NotYet as error:
            log.warning("timeouts_not_put_back", nodes=len(pending), why=str(error), **error.remedy_field)
            return 0
        writes: list[Write] = []
        for node in sorted(pending & view.by_id.keys()):
            if node in self.no_failover:
                writes.append(SetConfig(node=node, name=self.no_failover[node], value="no"))
            writes.append(SetTimeout(node=node, timeout_ms=declared_ms))
        rejected = world.send(writes, view)
        failed = (pending - view.by_id.keys()) | {recipient(rejection.write) for rejection in rejected}
        log.info("timeouts_put_back", nodes=len(pending) - len(failed), failed=len(failed))
        self.timeouts.clear()
        self.no_failover.clear()
        return len(writes) - len(rejected)


def none_allowed(writes: Sequence[Write], rejected: Sequence[Rejected]) -> bool:
    """True when the Redis user may send none of the writes, or no server knows their commands."""
    denied = (no.why.startswith("NOPERM") or "unknown command" in no.why.lower() for no in rejected)
    return len(rejected) == len(writes) > 0 and all(denied)


def is_denied(rejected: Iterable[Rejected]) -> bool:
    """True when a server answered that it does not take a timeout or another setting."""
    return any(rejection.answered and isinstance(rejection.write, SetTimeout | SetConfig) for rejection in rejected)
