"""Pods that do not answer: for how long, why, what they hold up, and what is reported at the deadline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bootstrap.clock import Clock
from bootstrap.errors import BootstrapError, Misconfigured, NotYet, Refused
from bootstrap.log import Log
from bootstrap.model import copies
from bootstrap.model.desired import Desired
from bootstrap.model.plan import STALE_RECORD_S, Plan, Refusal
from bootstrap.model.view import ClusterView
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.failover import confirmed_takeovers
from bootstrap.plan.planner import plan
from bootstrap.run.reasons import held_takeovers, of_machines, of_takeovers, of_unreachable, plan_summary

MISSING_S = 10.0
"""Seconds without an answer after which a pod counts as overdue. A server that is started again answers within a second
or two of its container; a blank pod that took its place meanwhile would be one replica too many."""
HOPELESS_S = 10.0
"""Seconds for which every pod has to give an answer that only a changed setting changes. While a password is rotated,
some servers reject it for seconds; a wrong one is rejected by all, for ever. What comes from the DNS has to last for
longer than its caches keep it."""


@dataclass(slots=True)
class MissingPods:
    """Compares the views of one run."""

    clock: Clock
    log: Log
    explain: Callable[[ClusterView], ClusterView]
    _since: dict[str, float] = field(default_factory=dict)
    _hopeless_since: float | None = None
    _hopeless_s: float = HOPELESS_S
    _logged: frozenset[str] = frozenset()

    def watched(self, view: ClusterView) -> ClusterView:
        """The view with the pods that are overdue; every view of the run has to pass here."""
        now = self.clock.now()
        self._since = {peer.pod: self._since.get(peer.pod, now) for peer in view.unreachable}
        self._hopeless_s = STALE_RECORD_S if any(peer.why.from_dns for peer in view.unreachable) else HOPELESS_S
        hopeless = bool(view.unreachable) and not view.nodes and all(peer.why.permanent for peer in view.unreachable)
        self._hopeless_since = (now if self._hopeless_since is None else self._hopeless_since) if hopeless else None
        late = {pod for pod, since in self._since.items() if now - since >= MISSING_S}
        if not late:
            return view
        return replace(view, unreachable=tuple(replace(p, overdue=p.pod in late) for p in view.unreachable))

    @property
    def hopeless(self) -> bool:
        """True where every pod has answered for some seconds that a setting has to change: waiting cannot help."""
        return self._hopeless_since is not None and self.clock.now() - self._hopeless_since >= self._hopeless_s

    def something_to_do(self, view: ClusterView, desired: Desired) -> tuple[ClusterView, bool]:
        """Whether something can be done, or has to be refused, without the missing pods. Kubernetes is asked about them
        only where nothing else can be done and its proof decides, so that no repair waits for its answer; then the view
        has it.
        """
        decision = plan(view, desired)
        if isinstance(decision, Plan) and not decision and held_takeovers(decision):
            view = self.explain(view)
            decision = plan(view, desired)
        found = isinstance(decision, Refusal) or bool(decision)
        pods = frozenset(peer.pod for peer in view.unreachable)
        if isinstance(decision, Plan) and found and pods != self._logged:
            self._logged = pods
            self.log.info(
                "repairing_without",
                pods=[peer.pod for peer in view.unreachable],
                **plan_summary(decision),
                held_back=[held.phase for held in decision.held_back],
            )
        return view, found

    def as_error(self, view: ClusterView, desired: Desired) -> BootstrapError:
        """Why a run ends without these pods, once the view is explained: Misconfigured where a setting has to change
        before one can answer, and Refused where two of them share a node id.
        """
        if view.copies:
            return Refused.because(tuple(copies.reasons(view)))
        permanent = any(peer.why.permanent for peer in view.unreachable)
        view = view.of_pods()
        reasons = [*of_unreachable(view.unreachable), *of_machines(view), *of_takeovers(plan(view, desired), view)]
        return (Misconfigured if permanent else NotYet).because(reasons)


def with_confirmation(view: ClusterView, desired: Desired) -> Desired:
    """The desired shape with the masters that a person has confirmed not to run. Each failover changes the fingerprint;
    what was confirmed of a master stays confirmed to the end of the run.
    """
    confirmed = confirmed_takeovers(Assessment(view, desired)) if desired.accept_takeover else frozenset()
    return replace(desired, may_take_over=confirmed) if confirmed else desired
