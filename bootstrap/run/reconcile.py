"""One phase at a time: tell, watch until it is settled, look again, plan again.

Gossip moves the world under a long plan, so only the first phase of any plan is ever done. A phase that does not settle
is no error: the next plan says what is left of it. A killed run is the same thing seen from the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

from bootstrap.clock import REPORT_EVERY_S, Backoff, Clock, Deadline, Ticker
from bootstrap.errors import BootstrapError, Misconfigured, NotYet, Reason, Refused
from bootstrap.log import Log
from bootstrap.model.desired import Desired
from bootstrap.model.node import NodeId
from bootstrap.model.plan import Phase, Plan, Refusal
from bootstrap.model.steps import Leave, Local, ManualFailover, MoveSlots, Rejected, SetConfig, SetTimeout, Step, Write
from bootstrap.model.view import ClusterView
from bootstrap.plan.describe import describe
from bootstrap.plan.lost_members import loss_accepted
from bootstrap.plan.planner import plan
from bootstrap.plan.reinit import wiping
from bootstrap.plan.settled import settled
from bootstrap.run.links import LinkWatch
from bootstrap.run.ports import Transfer, World
from bootstrap.run.progress import Progress
from bootstrap.verify import violations

SETTLE_LIMIT_S = 3.0
"""How long a phase may take to settle before a new plan is made. A MEET dies after max(node timeout, 1 s)."""
SETTLE_LIMIT_A_NODE_S = 0.05
REFUSAL_LIMIT_S = 3.0
"""How long a reason to refuse has to last before it counts."""
GLANCE_EVERY_S = 0.02
GOSSIP_S_A_NODE = 0.005
"""Gossip is not watched in its first moments: on few cores the questions slow down what they ask for. *Measured*, 60
nodes on 2 cores: the mesh is up after 0.6 s in place of 1.0 s."""
REASONS_SHOWN = 8


Planner = Callable[[ClusterView, Desired], Plan | Refusal]


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """One run towards a desired shape: `converge` is all of it."""

    world: World
    desired: Desired
    deadline: Deadline
    clock: Clock
    log: Log
    explain: Callable[[ClusterView], ClusterView] = lambda view: view
    """Adds to the absent peers of a view what else is known of them; asked only when somebody is to be told."""
    check_lock: Callable[[], None] = lambda: None
    """Raises NotYet once another run may be at work: asked before every write, and before a refusal."""
    with_places: Callable[[ClusterView], ClusterView] = lambda view: view
    """Adds where the pods run, as far as anybody knows."""
    steps_done: int = 0
    lowered: set[NodeId] = field(default_factory=set)
    """Nodes whose timeout this run has lowered and not yet put back."""
    settings_denied: tuple[Reason, ...] = ()
    """Why servers did not take a setting, once that happened: the user may lack CONFIG SET."""
    rejected: tuple[Reason, ...] = ()
    """What the servers did not accept in the latest phase, in their words."""
    move_limit_s: float = 3600.0
    """How long slots may be moved, seconds; this time does not count for `deadline`."""
    progress: Callable[[Progress], None] = lambda _: None
    """Shows how far the slots are, several times a second."""
    resized: bool = False
    """True once this run has moved slots, or taken a pod out of the cluster."""
    _move_deadline: Deadline | None = None
    _move_backoff: Backoff = field(init=False)
    links: LinkWatch = field(init=False)
    view: ClusterView = field(default_factory=ClusterView)
    """The latest view, for whoever has to report after a failure."""
    first_view: ClusterView | None = None
    """The first view with every peer in it: what the run was started on."""

    def __post_init__(self) -> None:
        self.links = LinkWatch(self.clock)
        self._move_backoff = Backoff(self.clock, self.log, longest_s=5.0)

    def seen(self, view: ClusterView) -> ClusterView:
        """The view with all that is known beyond it."""
        return self.with_places(self.links.seen(view)).within(self.desired.nodes)

    def converge(self) -> ClusterView:
        """Brings the cluster to the desired shape; returns the view that proves it.

        Raises Refused (with every reason) or NotYet (deadline). Whatever ends it, a lowered timeout is put back.
        """
        try:
            return self._converge()
        finally:
            self._put_timeouts_back()

    def wipe(self, confirm: str) -> bool:
        """Wipes every node of the cluster with that fingerprint; True when there was something to wipe.

        Raises Refused, with what would be destroyed, where the fingerprint is not that of the cluster as it stands.
        """
        wiped = False
        while True:
            view, decision = self.decide(planner=partial(wiping, confirm=confirm))
            if self.first_view is None:
                self._begin_with(view, decision)
            if isinstance(decision, Refusal):
                raise Refused.because(decision.reasons)
            if not decision:
                return wiped
            wiped = True
            self._do(decision.phases[0], view)

    def _converge(self) -> ClusterView:
        backoff = Backoff(self.clock, self.log)
        seen: ClusterView | None = None
        while True:
            view, decision = self.decide(seen)
            seen = None
            if self.settings_denied and self.lowered and not isinstance(decision, Refusal) and not decision:
                self._put_timeouts_back()
                continue
            if self.first_view is None:
                self._begin_with(view, decision)
            match decision:
                case Refusal():
                    self.check_lock()  # what another run has half done looks like much that is refused
                    raise Refused.because(decision.reasons)
                case Plan(phases=()):
                    bad = violations(view, self.desired)
                    if not bad:
                        return view
                    if self.settings_denied:
                        raise Misconfigured.because([*self.settings_denied, *bad])
                    backoff.wait(
                        "not_yet_good", partial(in_words, bad), partial(NotYet.because, bad), deadline=self.deadline
                    )
                case Plan():
                    seen = self._do(decision.phases[0], view)

    def decide(self, seen: ClusterView | None = None, planner: Planner = plan) -> tuple[ClusterView, Plan | Refusal]:
        """Plans from what was just `seen`, or looks first. A reason to refuse gets some seconds to pass: gossip, and
        looks that are not one moment, may show for a while what is not so.
        """
        limit = self.deadline.sooner(REFUSAL_LIMIT_S)
        backoff = Backoff(self.clock, self.log)
        # Only a look finds out whether a member that no pod carries is alive elsewhere, and who holds the keys of slots
        # without an owner: a glance counts those of half-moved slots alone.
        if seen is not None and (seen.unlisted() or seen.slots_to_count() - seen.open_slots()):
            seen = None
        while True:
            view = seen or self.wait_for_peers()
            seen = None
            # Where timeouts may not be set, everything else is done all the same.
            desired = replace(self.desired, timeout_ms=None, config={}) if self.settings_denied else self.desired
            decision = planner(view, desired)
            if isinstance(decision, Plan) or limit.passed:
                return view, decision
            backoff.wait(
                "looking_again",
                partial(in_words, decision.reasons),
                partial(_refused, decision),
                deadline=self.deadline,
            )

    def _begin_with(self, view: ClusterView, decision: Plan | Refusal) -> None:
        """Keeps what counts for the whole run, and says what was found."""
        self.first_view = view
        # Slots that move change the fingerprint; what was accepted for the state at the start holds to the end.
        self.desired = replace(self.desired, without_copies=loss_accepted(view, self.desired))
        self.log.info("peers_found", nodes=len(view.nodes), versions=sorted({node.version for node in view.nodes}))
        if isinstance(decision, Plan) and decision.findings:
            found = [finding.message for finding in decision.findings]
            more = [f"and {len(found) - REASONS_SHOWN} more"] if len(found) > REASONS_SHOWN else []
            phases = [phase.name for phase in decision.phases]
            self.log.info("planned", found=found[:REASONS_SHOWN] + more, phases=phases)

    def wait_for_peers(self) -> ClusterView:
        """Looks until every wanted peer answers, saying every few seconds whom it waits for and why."""
        backoff = Backoff(self.clock, self.log)
        while True:
            self.clock.check()
            self.view = view = self.seen(self.world.look())
            if not view.unreachable:
                return view
            backoff.wait("waiting_for_peers", self._who_is_absent, self._given_up, deadline=self.deadline)

    def _who_is_absent(self) -> str:
        self.view = self.explain(self.view)
        return self.view.describe_unreachable()

    def _given_up(self) -> BootstrapError:
        """Peers that did not come. Where a setting keeps them away, trying again cannot help: another exit code."""
        self.view = self.explain(self.view)
        unreachable = self.view.unreachable
        kind = Misconfigured if any(each.why.permanent for each in unreachable) else NotYet
        return kind.because(
            [
                Reason(code=each.why.code, message=str(each), remedy=each.why.remedy, node=each.pod)
                for each in unreachable
            ]
        )

    def _do(self, phase: Phase, view: ClusterView) -> ClusterView | None:
        """Does one phase; returns the view that shows it settled, or None where a new look has to tell."""
        self.clock.check()
        if moves := [step for step in phase.steps if isinstance(step, MoveSlots)]:
            self._move(moves, view)
            return None
        writes = [step for step in phase.steps if isinstance(step, Write)]
        self.resized |= any(isinstance(step, ManualFailover | Leave) for step in writes)
        started = self.clock.now()
        if writes:
            self._write(writes, view)
        limit = SETTLE_LIMIT_S + SETTLE_LIMIT_A_NODE_S * len(view.nodes)
        unsettled = self._watch(phase.steps, self.deadline.sooner(limit))
        took_s = round(self.clock.now() - started, 2)
        if not unsettled:
            self.log.info("phase_done", phase=phase.name, writes=len(writes), took_s=took_s)
            return self.view
        open_steps = [describe(step, self.view) for step in unsettled]
        if self.deadline.passed:
            raise NotYet.because([*self.rejected, *_not_settled(open_steps)])
        self.log.info("phase_not_settled", phase=phase.name, took_s=took_s, open=len(open_steps), first=open_steps[0])
        return None

    def _move(self, moves: list[MoveSlots], view: ClusterView) -> None:
        """Moves slots for as long as it takes, up to a limit of its own: how much data there is, nobody declares."""
        if self._move_deadline is None:
            self._move_deadline = Deadline.after(self.move_limit_s, self.clock)
        self.check_lock()
        self.resized = True
        report = Progress.of(moves, view, self.clock)
        transfer, said = self.world.move(moves, view), Ticker(self.clock, REPORT_EVERY_S)
        try:
            with closing(transfer):
                while not transfer.done:
                    self.clock.check()
                    self.check_lock()
                    if self._move_deadline.passed:
                        raise NotYet.because([report.too_late(self.move_limit_s), *self.rejected])
                    transfer.advance()
                    if transfer.pause_s and not transfer.done:
                        self.clock.sleep(transfer.pause_s)
                    report = report.now(transfer.slots_done, transfer.bytes_done, self.clock)
                    self.progress(report)
                    if said.due():
                        self.log.info("moving_slots", **report.as_fields())
        except BootstrapError:
            self.view = self.seen(self.world.refresh())  # the outcome is to tell of what has moved
            raise
        finally:
            self.deadline = replace(self.deadline, at=self.deadline.at + report.took_s)
            self.steps_done += len(moves) - len(transfer.rejected) if transfer.slots_done else 0
        self._moved(transfer, report, view)

    def _moved(self, transfer: Transfer, report: Progress, view: ClusterView) -> None:
        self._say_what_was_rejected(transfer.rejected, view)
        self.log.info("slots_moved", **report.as_fields())
        if bad := self.rejected:
            # What a server refuses now it may take later. Waiting for that counts for the run's deadline.
            self._move_backoff.wait(
                "slots_not_moved", partial(in_words, bad), partial(NotYet.because, bad), deadline=self.deadline
            )
        else:
            self._move_backoff = Backoff(self.clock, self.log, longest_s=5.0)

    def _write(self, writes: list[Write], view: ClusterView) -> None:
        self.check_lock()
        declared = self.desired.timeout_ms or 0
        # Noted before it is told: a run that dies in between puts back a timeout that it may not have lowered.
        self.lowered |= {step.node for step in writes if isinstance(step, SetTimeout) and step.timeout_ms < declared}
        rejected = self.world.send(writes, view)
        self.links.sent(writes)
        self.steps_done += len(writes) - len(rejected)
        self._say_what_was_rejected(rejected, view)
        if any(no.answered and isinstance(no.write, SetTimeout | SetConfig) for no in rejected):
            self.settings_denied = self.rejected
        elif rejected and len(rejected) == len(writes) and all(no.why.startswith("NOPERM") for no in rejected):
            raise Misconfigured.because(self.rejected[:REASONS_SHOWN])
        failed = {id(no.write) for no in rejected}
        for write in writes:
            if isinstance(write, SetTimeout) and write.timeout_ms >= declared and id(write) not in failed:
                self.lowered.discard(write.node)

    def _say_what_was_rejected(self, rejected: Sequence[Rejected], view: ClusterView) -> None:
        self.rejected = tuple(_rejection(describe(no.write, view), no.why) for no in rejected)
        for no in rejected:
            self.log.warning("step_rejected", step=describe(no.write, view), why=no.why)

    def _watch(self, steps: tuple[Step, ...], limit: Deadline) -> list[Step]:
        """Glances until every step is settled, a peer is lost or the limit has passed; returns what is unsettled."""
        if not all(isinstance(step, Local) for step in steps):
            self.clock.sleep(min(limit.left_s, GOSSIP_S_A_NODE * len(self.view.nodes)))
        while True:
            began = self.clock.now()
            self.view = self.seen(self.world.refresh())
            unsettled = [step for step in steps if not settled(step, self.view)]
            if not unsettled or self.view.unreachable or limit.passed:
                return unsettled
            # In a big cluster a glance costs the servers' own time, so the pause grows with it.
            self.clock.sleep(min(limit.left_s, max(GLANCE_EVERY_S, self.clock.now() - began)))

    def _put_timeouts_back(self) -> None:
        """One try, on every way out. What it does not reach is drift that the next run finds."""
        if not (self.lowered and self.desired.timeout_ms):
            return
        try:
            self.check_lock()
        except NotYet as error:
            self.log.warning("timeouts_not_put_back", nodes=len(self.lowered), why=str(error))
            return
        here = self.lowered & self.view.by_id.keys()
        writes = [SetTimeout(node=node, timeout_ms=self.desired.timeout_ms) for node in sorted(here)]
        done = len(writes) - len(self.world.send(writes, self.view))
        self.steps_done += done
        self.log.info("timeouts_put_back", nodes=done, failed=len(self.lowered) - done)
        self.lowered.clear()


def in_words(reasons: Sequence[Reason]) -> str:
    """Reasons on one line, as long as a line in a log may be."""
    shown = "; ".join(reason.message for reason in reasons[:REASONS_SHOWN])
    return shown if len(reasons) <= REASONS_SHOWN else f"{shown}; and {len(reasons) - REASONS_SHOWN} more"


def _refused(refusal: Refusal) -> Refused:
    return Refused.because(refusal.reasons)


def _rejection(step: str, why: str) -> Reason:
    message = f"not accepted: {step}: {why}"
    if "OOM command not allowed" in why:
        return Reason(code="no-room", message=message, remedy="raise maxmemory of the server that takes the keys")
    return Reason(code="step-rejected", message=message, remedy="see what the server says")


def _not_settled(open_steps: list[str]) -> tuple[Reason, ...]:
    remedy = "run again: it goes on from here"
    return tuple(Reason(code="not-settled", message=f"not done in time: {step}", remedy=remedy) for step in open_steps)
