"""The loop of a run: look at everything, plan, do the first phase, watch until it has settled, look again.

Gossip changes the cluster while a long plan is carried out, so only the first phase of a plan is ever done. A phase
that does not settle in time is not an error: the next plan contains the rest of it. The same holds for a killed run and
the run after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from bootstrap.clock import Backoff, Clock, Deadline
from bootstrap.errors import BootstrapError, Misconfigured, NotYet, Reason, Refused
from bootstrap.log import Log
from bootstrap.model.desired import Desired
from bootstrap.model.plan import Phase, Plan, Refusal
from bootstrap.model.steps import Local, MoveSlots, Rejected, Step, Write
from bootstrap.model.view import ClusterView
from bootstrap.plan.describe import describe
from bootstrap.plan.lost_members import given_up, loss_accepted
from bootstrap.plan.planner import plan
from bootstrap.plan.settled import settled
from bootstrap.run.links import LinkWatch
from bootstrap.run.missing import MissingPods, with_confirmation
from bootstrap.run.patience import Patience
from bootstrap.run.ports import World
from bootstrap.run.progress import Progress
from bootstrap.run.reasons import REASONS_SHOWN, in_words, not_settled, of_rejected, plan_summary
from bootstrap.run.rights import Rights
from bootstrap.run.slot_moves import SlotMoves
from bootstrap.run.spreading import Spreading, resizes
from bootstrap.run.temporary_settings import TemporarySettings, is_denied, none_allowed
from bootstrap.verify import violations

SETTLE_LIMIT_S = 3.0
"""Seconds in which a phase has to settle before a new plan is made. A MEET dies after max(node timeout, 1 s)."""
SETTLE_LIMIT_S_PER_NODE = 0.05
REFRESH_EVERY_S = 0.02
GOSSIP_S_PER_NODE = 0.005
"""The first moments of gossip are not watched: with few cores the queries slow down the gossip that they watch.
*Measured*, 60 nodes on 2 cores: the mesh is up after 0.6 s instead of 1.0 s."""

Planner = Callable[[ClusterView, Desired], Plan | Refusal]


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """One run towards a desired shape. `converge` does the work, as `wipe` and `adopt` do in modules of their own."""

    world: World
    desired: Desired
    deadline: Deadline
    """Later by the time in which slots moved."""
    clock: Clock
    log: Log
    explain: Callable[[ClusterView], ClusterView] = lambda view: view
    """Adds details about unreachable peers; called only before they are reported."""
    check_lock: Callable[[], None] = lambda: None
    """Raises NotYet once another run may write; called before every write and before a refusal."""
    with_places: Callable[[ClusterView], ClusterView] = lambda view: view
    """Adds where the pods run, as far as that is known, and takes out what is not the pod that the DNS calls it."""
    move_limit_s: float = 3600.0
    """Time limit for moving slots, in seconds; this time does not count for `deadline`."""
    show_progress: Callable[[Progress], None] = lambda _: None
    """Shows how far the slots are, several times a second."""
    view: ClusterView = field(default_factory=ClusterView)
    """The latest view; after a failure the outcome reports it."""
    first_view: ClusterView | None = None
    """The first view in which every peer answered: the state in which the run found the cluster."""
    steps_done: int = 0
    """Writes that servers accepted, as a whole or in part."""
    resized: bool = False
    """This run has moved slots, or taken a pod out of the cluster."""
    rejected: tuple[Reason, ...] = ()
    """Why servers rejected writes of the latest phase, in their words."""
    temporary: TemporarySettings = field(init=False)
    spreading: Spreading = field(default_factory=Spreading)
    links: LinkWatch = field(init=False)
    missing: MissingPods = field(init=False)
    slot_moves: SlotMoves = field(init=False)
    patience: Patience = field(default_factory=Patience)
    rights: Rights = field(init=False)

    def __post_init__(self) -> None:
        self.temporary, self.rights = TemporarySettings(self.clock), Rights(self.world)
        self.links = LinkWatch(self.clock)
        self.missing = MissingPods(self.clock, self.log, self.explain)
        self.slot_moves = SlotMoves(clock=self.clock, log=self.log, limit_s=self.move_limit_s, show=self.show_progress)

    def converge(self) -> ClusterView:
        """Brings the cluster to the desired shape; returns the view that proves it. Raises Refused (with every reason),
        NotYet (deadline, signal, lost lock) or Misconfigured. Temporary settings are restored on every way out.
        """
        try:
            return self._converge()
        finally:
            self._restore_settings()

    def _converge(self) -> ClusterView:
        backoff = Backoff(self.clock, self.log)
        settled_view: ClusterView | None = None
        while True:
            view, decision = self.decide(settled_view)
            settled_view = None
            if self.temporary.denied and self.temporary.pending and not isinstance(decision, Refusal) and not decision:
                self._restore_settings()
                continue
            if self.first_view is None and not view.unreachable:
                self.begin_with(view, decision)
            match decision:
                case Refusal():
                    self.check_lock()  # the half-done work of another run looks like much that is refused
                    raise Refused.because(decision.reasons)
                case Plan(phases=()):
                    bad = violations(view, self.desired)
                    if not bad:
                        return view
                    if self.temporary.denied:
                        raise Misconfigured.because([*self.temporary.denied, *bad])
                    limit = self.patience.limit(bad, self.deadline)
                    backoff.wait("not_yet_good", partial(in_words, bad), partial(NotYet.because, bad), deadline=limit)
                case Plan():
                    self.rights.check(decision, view)
                    self.links.check(decision.phases[0], self.links.explained(view, self.world, self.log))
                    settled_view = self.do(decision.phases[0], view)

    def use(self, world: World) -> None:
        """Sees and changes that world from now on."""
        self.world, self.rights = world, Rights(world)

    def look(self) -> ClusterView:
        """Looks at every node once; the result is `view`, too."""
        self.view = view = self._completed(self.world.look())
        return view

    def wait_for_peers(self, *, all_of_them: bool) -> ClusterView:
        """Looks until every peer answers, or, unless `all_of_them` are needed, something can be done without them.
        Raises Misconfigured once every pod has said so for seconds, or at the deadline; or NotYet.
        """
        backoff = Backoff(self.clock, self.log)
        while True:
            self.clock.check()
            if not (view := self.look()).unreachable:
                return view
            limit = self.deadline.sooner(0.0) if self.missing.hopeless else self.deadline
            if not all_of_them and not self.deadline.passed:
                self.desired = with_confirmation(view, self.desired)
                self.view, found = self.missing.something_to_do(
                    view, self.spreading.attainable(self.temporary.attainable(self.desired))
                )
                if found:
                    return self.view
            backoff.wait("waiting_for_peers", self._missing_in_words, self.peers_missing, deadline=limit)

    def decide(self, view: ClusterView | None = None, planner: Planner = plan) -> tuple[ClusterView, Plan | Refusal]:
        """Plans from `view`, or from a new look; returns the view and the decision.
        A reason to refuse has to last for some seconds: looks at many nodes may show a state that never existed.
        """
        began, backoff = self.clock.now(), Backoff(self.clock, self.log)
        # Only a look finds out whether an unlisted member is alive elsewhere, and counts keys beside their owners.
        incomplete = view and (view.unlisted() or view.unreachable or view.slots_to_count() - view.open_slots())
        view = refreshed = None if incomplete else view
        while True:
            view = view or self.wait_for_peers(all_of_them=planner is not plan)
            decision = planner(view, self.spreading.attainable(self.temporary.attainable(self.desired)))
            if view is refreshed and isinstance(decision, Plan) and decision.premature(view):
                view = None
            elif isinstance(decision, Plan) or self.clock.now() - began >= decision.lasts_s or self.deadline.passed:
                return view, decision
            else:
                view, why = None, partial(in_words, decision.reasons)
                backoff.wait("looking_again", why, partial(Refused.because, decision.reasons), deadline=self.deadline)

    def _completed(self, view: ClusterView) -> ClusterView:
        """The view with what more than one query shows: stuck links, overdue pods, places, spare pods."""
        view = self.missing.watched(self.links.watched(self.with_places(view)))
        return self.temporary.watched(view, self.desired).within(self.desired.nodes)

    def begin_with(self, view: ClusterView, decision: Plan | Refusal) -> None:
        """Keeps what the whole run depends on, and logs what was found."""
        self.first_view = view
        # Moving slots changes the fingerprint; a loss accepted for the first state stays accepted to the end.
        lost, accepted = given_up(view, self.desired), loss_accepted(view, self.desired)
        self.desired = replace(self.desired, given_up=lost, without_copies=accepted)
        self.log.info("peers_found", nodes=len(view.nodes), versions=sorted({node.version for node in view.nodes}))
        if isinstance(decision, Plan) and decision.findings:
            self.log.info("planned", **plan_summary(decision))

    def _missing_in_words(self) -> str:
        return self.view.describe_unreachable()  # `peers_missing` explains the view

    def peers_missing(self) -> BootstrapError:
        """Why the run ends without the peers that do not answer, with Kubernetes's own words."""
        self.view = self.explain(self.view)
        return self.missing.as_error(self.view, self.desired)

    def do(self, phase: Phase, view: ClusterView) -> ClusterView | None:
        """Does one phase. Returns the view in which it has settled, or None where only a new look can tell."""
        self.clock.check()
        if moves := [step for step in phase.steps if isinstance(step, MoveSlots)]:
            self._move(moves, view)
            return None
        writes = [step for step in phase.steps if isinstance(step, Write)]
        self.resized |= resizes(writes, view, self.desired)
        self.spreading.begin(phase)
        started_at = self.clock.now()
        if writes:
            self._write(writes, view)
        limit = self.spreading.limit_s(SETTLE_LIMIT_S + SETTLE_LIMIT_S_PER_NODE * len(view.nodes))
        unsettled = self._watch(phase.steps, self.deadline.sooner(limit), view)
        took_s = round(self.clock.now() - started_at, 2)
        self.spreading.end(unsettled)
        if not unsettled:
            self.log.info("phase_done", phase=phase.name, writes=len(writes), took_s=took_s)
            return self.view
        error = not_settled(unsettled, self.view, self.rejected)
        if self.deadline.passed or self.patience.exhausted(error.reasons, self.view, self.deadline):
            raise self.peers_missing() if self.view.unreachable else error
        why = not_settled(unsettled, self.view, ()).args[0]
        self.log.info("phase_not_settled", phase=phase.name, took_s=took_s, open=len(unsettled), why=why)
        return None

    def _move(self, moves: list[MoveSlots], view: ClusterView) -> None:
        """Moves slots, and postpones the deadline by the time that takes."""
        self.slot_moves.start(Progress.of(moves, view, self.clock))
        self.check_lock()
        self.resized = True
        transfer = self.world.move(moves, view)
        try:
            self.slot_moves.finish(transfer, check_lock=self.check_lock, rejected=self.rejected)
        except BootstrapError:
            self._refresh()  # the outcome reports what has moved
            raise
        finally:
            self.deadline = self.deadline.later(self.slot_moves.progress.took_s)
            self.steps_done += len(moves) - len(transfer.rejected) if transfer.slots_done else 0
        self._note_rejected(transfer.rejected, view)
        self.log.info("slots_moved", **self.slot_moves.progress.as_fields())
        self.slot_moves.wait_after(self.rejected, self.deadline, denied=none_allowed(moves, transfer.rejected))

    def _write(self, writes: list[Write], view: ClusterView) -> None:
        """Sends each write once. Raises Misconfigured where the Redis user may send none of them."""
        self.check_lock()
        declared_ms = self.desired.timeout_ms or 0
        self.temporary.sending(writes, declared_ms)
        rejected = self.world.send(writes, view)
        self.links.sent(writes)
        self.temporary.sent(writes, rejected, declared_ms)
        self.steps_done += len(writes) - sum(not no.partly for no in rejected)
        self._note_rejected(rejected, view)
        if is_denied(rejected):
            self.temporary.denied = self.rejected
            if not view.forming:
                self._restore_settings()  # some servers may have taken a setting that others rejected
        elif not self.spreading.trying and none_allowed(writes, rejected):
            raise Misconfigured.because(self.rejected[:REASONS_SHOWN])

    def _note_rejected(self, rejected: Sequence[Rejected], view: ClusterView) -> None:
        self.rejected = of_rejected(rejected, view)
        for no, reason in zip(rejected, self.rejected, strict=True):
            self.log.warning("step_rejected", step=describe(no.write, view), why=no.why, remedy=reason.remedy)

    def _watch(self, steps: tuple[Step, ...], limit: Deadline, planned_from: ClusterView) -> list[Step]:
        """Refreshes the view until all steps are settled, another peer is lost or time is up; returns the rest."""
        missing = {peer.pod for peer in planned_from.unreachable}
        if not all(isinstance(step, Local) for step in steps):
            self.clock.sleep(min(limit.left_s, GOSSIP_S_PER_NODE * len(self.view.nodes)))
        while True:
            began = self.clock.now()
            self._refresh()
            unsettled = [step for step in steps if not settled(step, self.view)]
            if not unsettled or {peer.pod for peer in self.view.unreachable} - missing or limit.passed:
                return unsettled
            self.clock.sleep(min(limit.left_s, max(REFRESH_EVERY_S, self.clock.now() - began)))

    def _refresh(self) -> None:
        self.view = self._completed(self.world.refresh())

    def _restore_settings(self) -> None:
        self.steps_done += self.temporary.restore(
            self.desired.timeout_ms, self.view, self.world, check_lock=self.check_lock, log=self.log
        )
