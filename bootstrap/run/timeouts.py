"""Node timeouts that a run lowers while it forms a cluster, and restores on every way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from bootstrap.errors import NotYet, Reason
from bootstrap.log import Log
from bootstrap.model.desired import Desired
from bootstrap.model.node import NodeId
from bootstrap.model.steps import Rejected, SetConfig, SetTimeout, Write
from bootstrap.model.view import ClusterView
from bootstrap.run.ports import World


@dataclass(slots=True)
class Timeouts:
    """What a run knows about the timeouts that it has changed, and whether servers let it change them."""

    lowered: set[NodeId] = field(default_factory=set)
    """Nodes whose timeout this run has lowered and not yet restored."""
    denied: tuple[Reason, ...] = ()
    """Why servers rejected a setting, once that has happened: the Redis user may lack CONFIG SET."""

    def attainable(self, desired: Desired) -> Desired:
        """The desired shape, without the settings of servers once they have rejected one: the rest is still done."""
        return replace(desired, timeout_ms=None, config={}) if self.denied else desired

    def sending(self, writes: Iterable[Write], declared_ms: int) -> None:
        """Notes timeouts that are about to be lowered.

        This happens before the write: a run that ends in between restores a timeout that it may not have lowered.
        """
        self.lowered |= {step.node for step in writes if isinstance(step, SetTimeout) and step.timeout_ms < declared_ms}

    def sent(self, writes: Iterable[Write], rejected: Sequence[Rejected], declared_ms: int) -> None:
        """Notes timeouts that have been restored."""
        failed = {id(rejection.write) for rejection in rejected}
        for write in writes:
            if isinstance(write, SetTimeout) and write.timeout_ms >= declared_ms and id(write) not in failed:
                self.lowered.discard(write.node)

    def restore(
        self, declared_ms: int | None, view: ClusterView, world: World, *, check_lock: Callable[[], None], log: Log
    ) -> int:
        """Sends the declared timeout (milliseconds) to every node where it is lowered; returns how many took it.

        This is tried once. A timeout that stays low is drift, which the next run finds.
        """
        if not (self.lowered and declared_ms):
            return 0
        try:
            check_lock()
        except NotYet as error:
            log.warning("timeouts_not_put_back", nodes=len(self.lowered), why=str(error), **error.remedy_field)
            return 0
        reachable = self.lowered & view.by_id.keys()
        writes = [SetTimeout(node=node, timeout_ms=declared_ms) for node in sorted(reachable)]
        done = len(writes) - len(world.send(writes, view))
        log.info("timeouts_put_back", nodes=done, failed=len(self.lowered) - done)
        self.lowered.clear()
        return done


def none_allowed(writes: Sequence[Write], rejected: Sequence[Rejected]) -> bool:
    """True when the Redis user may send none of the writes."""
    return len(rejected) == len(writes) > 0 and all(no.why.startswith("NOPERM") for no in rejected)


def is_denied(rejected: Iterable[Rejected]) -> bool:
    """True when a server answered that it does not take a timeout or another setting."""
    return any(rejection.answered and isinstance(rejection.write, SetTimeout | SetConfig) for rejection in rejected)
