"""Links of replicas to their masters: how long each has been down, which no server reports reliably and one look cannot
show, why it does not come up, and when waiting for it is in vain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from bootstrap.clock import Clock
from bootstrap.errors import AGAIN, RUN_AGAIN, BootstrapError, Misconfigured, NotYet, Reason
from bootstrap.log import Log
from bootstrap.model import links
from bootstrap.model.links import LinkCause, LinkTrouble
from bootstrap.model.node import NodeId, Role
from bootstrap.model.plan import Phase
from bootstrap.model.steps import EndPause, Reattach, Replicate, Write
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import AwaitCopies, AwaitReplication
from bootstrap.plan import upgrade
from bootstrap.plan.settled import settled
from bootstrap.run.patience import PERSON_S
from bootstrap.run.ports import World

STUCK_S = 10.0
"""Seconds with neither a link nor a copy under way. Servers retry every second. After a move of all pods they took up
to 9 s by themselves (docs/architecture.md)."""
ASK_EVERY_S = 5.0
"""Seconds between two questions why links do not come up."""
_SHOWN = 3
"""Replicas in one reason."""


@dataclass(slots=True)
class LinkWatch:
    """Compares the views of one run. The time of a replica starts again when it is sent a command to connect."""

    clock: Clock
    _down_since: dict[NodeId, float] = field(default_factory=dict)
    """Neither a link nor a copy under way."""
    _apart_since: dict[NodeId, float] = field(default_factory=dict)
    """No link, whatever was tried meanwhile."""
    _copies: dict[NodeId, int] = field(default_factory=dict)
    """How often a replica without a link began to copy."""
    _copying: set[NodeId] = field(default_factory=set)
    _owners: set[NodeId] = field(default_factory=set)
    """Nodes that owned slots, and have not copied from a master since."""
    _masters: set[NodeId] = field(default_factory=set)
    """Nodes that owned slots, and have not been sent an EndPause since."""
    _troubles: Mapping[NodeId, LinkTrouble] = field(default_factory=dict)
    _asked_at: float = float("-inf")
    _in_vain_since: float | None = None

    def watched(self, view: ClusterView) -> ClusterView:
        """The view with the replicas that are stuck or demoted, and with what is known about their links; every view of
        the run has to pass here.
        """
        replicas = [node for node in view.nodes if node.role is Role.REPLICA]
        apart = {node.node_id for node in replicas if not node.replication.link_up}
        copying = {node.node_id for node in replicas if node.replication.syncing}
        down = apart - copying
        now = self.clock.now()
        self._down_since = {node_id: self._down_since.get(node_id, now) for node_id in down}
        self._apart_since = {node_id: self._apart_since.get(node_id, now) for node_id in apart}
        begun = copying - self._copying
        self._copies = {node_id: self._copies.get(node_id, 0) + (node_id in begun) for node_id in apart}
        self._copying = copying
        self._troubles = {node_id: each for node_id, each in self._troubles.items() if node_id in apart}
        stuck = frozenset(node_id for node_id, since in self._down_since.items() if now - since >= STUCK_S)
        self._owners |= {node.node_id for node in view.nodes if node.slots}
        self._owners -= {node.node_id for node in replicas if node.replication.link_up}
        demoted = frozenset(self._owners & down)
        self._masters |= {node.node_id for node in view.nodes if node.slots}
        former = frozenset(self._masters & {node.node_id for node in replicas})
        if not (stuck or demoted or former or self._troubles):
            return view
        return replace(view, stuck=stuck, demoted=demoted, former_masters=former, link_troubles=self._troubles)

    def sent(self, writes: Iterable[Write]) -> None:
        """Notes writes that were sent."""
        for write in writes:
            if isinstance(write, Reattach | Replicate):
                self._down_since.pop(write.replica, None)
            if isinstance(write, EndPause):
                self._masters.discard(write.node)
            if isinstance(write, Replicate):
                self._apart_since.pop(write.replica, None)
                self._copies.pop(write.replica, None)

    def explained(self, view: ClusterView, world: World, log: Log) -> ClusterView:
        """The view with the likely cause for each link that has been down for a while, also where copies begin and stop
        again. The servers are asked every few seconds; each new cause is logged.
        """
        now = self.clock.now()
        again = {node_id for node_id, count in self._copies.items() if count > 1}
        late = {
            node_id
            for node_id, since in self._apart_since.items()
            if now - since >= STUCK_S and (node_id in again or node_id not in self._copying)
        }
        if not late or now - self._asked_at < ASK_EVERY_S:
            return view
        self._asked_at = now
        before, self._troubles = self._troubles, world.link_troubles(view, late, again)
        view = replace(view, link_troubles=self._troubles)
        if {(each.replica, each.cause) for each in self._troubles.values()} - {
            (each.replica, each.cause) for each in before.values()
        }:
            for reason in reasons(view):
                log.warning("replica_not_linked", why=reason.message, remedy=reason.remedy)
        return view

    def check(self, phase: Phase, view: ClusterView) -> None:
        """Raises `error` once nothing has been left to do for some seconds but to wait for links that do not come up
        before a person has done something.
        """
        left = [step for step in phase.steps if not settled(step, view)]
        in_vain = (
            bool(self._apart_since)
            and all(isinstance(step, Reattach | AwaitReplication | AwaitCopies) for step in left)
            and all(
                node_id in self._troubles and self._troubles[node_id].cause.lasting for node_id in self._apart_since
            )
        )
        now = self.clock.now()
        self._in_vain_since = (now if self._in_vain_since is None else self._in_vain_since) if in_vain else None
        waited = self._in_vain_since is not None and now - self._in_vain_since >= PERSON_S
        if waited and (not view.rollout or upgrade.stuck(view)):
            raise error(view)


def explained_now(view: ClusterView, world: World) -> ClusterView:
    """The view with the causes that the servers show without a longer look."""
    down = {node.node_id for node in view.nodes if node.role is Role.REPLICA and not node.replication.link_up}
    found = world.link_troubles(view, down, frozenset())
    return replace(view, link_troubles={k: each for k, each in found.items() if each.cause is not LinkCause.UNKNOWN})


def reasons(view: ClusterView) -> list[Reason]:
    """One reason for each cause, with its replicas and the command that shows the log of one."""
    found: dict[tuple[LinkCause, str], list[LinkTrouble]] = {}
    for node in view.nodes:
        if trouble := view.link_troubles.get(node.node_id):
            found.setdefault((trouble.cause, trouble.detail), []).append(trouble)
    return [_reason(group, view) for group in found.values()]


def error(view: ClusterView) -> BootstrapError:
    """Why a run ends without these links: Misconfigured where a setting has to change before one can come up."""
    setting = any(trouble.cause.setting for trouble in view.link_troubles.values())
    return (Misconfigured if setting else NotYet).because(reasons(view))


def _reason(group: list[LinkTrouble], view: ClusterView) -> Reason:
    pairs = [(view.name(each.replica), view.name(_master(each, view))) for each in group]
    shown = ", ".join(f"{replica} to its master {master}" for replica, master in pairs[:_SHOWN])
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    links_are = "the link is down" if len(pairs) == 1 else "the links are down"
    cause = group[0].cause
    return Reason(
        code="replica-not-linked",
        message=f"{links_are}: {shown}{more}; the likely cause: {group[0].why}",
        remedy=f"{links.remedy(cause, *pairs[0])}; then {RUN_AGAIN if cause.setting else AGAIN}",
        node=pairs[0][0] if len(pairs) == 1 else None,
    )


def _master(trouble: LinkTrouble, view: ClusterView) -> NodeId:
    return view.by_id[trouble.replica].myself.master_id or ""
