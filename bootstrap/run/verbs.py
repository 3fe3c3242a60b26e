"""The verbs of the command line: `apply`, `plan`, `verify`, `reinit` and `import`, each from a look to an outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from bootstrap import __version__
from bootstrap.clock import Clock, Deadline
from bootstrap.config import Settings
from bootstrap.errors import RUN_AGAIN, NotYet, Reason
from bootstrap.kube.integration import Integration
from bootstrap.log import Log
from bootstrap.model import bus
from bootstrap.model.outcome import Outcome
from bootstrap.model.plan import Plan, Refusal
from bootstrap.model.slots import ALL_SLOTS
from bootstrap.model.view import ClusterView
from bootstrap.plan import upgrade
from bootstrap.plan.adoption import adopting, given_back, joined
from bootstrap.plan.adoption_findings import what_is_there
from bootstrap.plan.adoption_states import unconfirmed
from bootstrap.plan.findings import notices
from bootstrap.plan.planner import plan
from bootstrap.plan.rebalance import skew
from bootstrap.plan.verdict import survival
from bootstrap.run import links
from bootstrap.run.access import Access
from bootstrap.run.adopting import adopt, advice, finished_advice, two_sides, word_of
from bootstrap.run.ports import World
from bootstrap.run.progress import Bar
from bootstrap.run.reconcile import Reconciler
from bootstrap.run.report import outcome_of, plan_fields, plan_text, skew_text, table
from bootstrap.run.wiping import wipe
from bootstrap.verify import violations

if TYPE_CHECKING:
    from bootstrap.run.importing import Importing

VERIFY_LIMIT_S = 3.0
"""Seconds for which `verify` looks again after a violation: a lost packet is not a broken cluster."""
VERIFY_EVERY_S = 0.3


@dataclass(slots=True, kw_only=True)
class Verbs:
    """The verbs on one cluster. Each returns its outcome, or raises a BootstrapError."""

    settings: Settings
    clock: Clock
    log: Log
    out: TextIO
    console: bool
    reconciler: Reconciler
    access: Access
    integration: Integration
    started_at: float
    pods_alone: World
    """The world of the reconciler without a cluster that is to be taken over."""
    importing: Importing | None = None
    """The import of this run; None for other verbs."""

    def apply(self) -> Outcome:
        """Brings the cluster to the declared shape and proves that clients can use it."""
        self._log_start("apply")
        return self._locked(self._apply)

    def reinit(self) -> Outcome:
        """Wipes the cluster whose fingerprint is confirmed, and forms it again."""
        self._log_start("reinit")
        return self._locked(self._reinit)

    def import_keys(self) -> Outcome:
        """Copies the keys of other servers into the cluster."""
        from bootstrap.run.importing import Importing  # most runs copy nothing

        self._log_start("import")
        show = Bar(self.out, self.clock) if self.console and self.out.isatty() else lambda _: None
        self.importing = Importing(
            settings=self.settings,
            credentials=self.access.credentials,
            reconciler=self.reconciler,
            clock=self.clock,
            log=self.log,
            show=show,
        )
        return self._locked(self._import)

    def plan(self) -> Outcome:
        """Shows what `apply` would do, and does nothing. Raises NotYet where pods are missing, after it has shown what
        would be done without them.
        """
        try:
            view, decision = self.reconciler.decide(planner=adopting if self.settings.adoption else plan)
        except NotYet:
            self._show_plan(plan(self.reconciler.view.of_pods(), self.reconciler.desired))
            raise
        if isinstance(decision, Refusal):
            if two_sides(view):
                self._show_plan(Plan(findings=tuple(what_is_there(view))))
            return self.outcome("refused", 3, decision.reasons)
        self._show_plan(decision)
        if view.unreachable:
            raise self.reconciler.peers_missing()
        if decision.then_refused and two_sides(view):
            return self.outcome("planned", 0, then=decision.then_refused[0].remedy)
        if decision.then_refused:
            return self.outcome("refused", 3, decision.then_refused)
        return self.outcome("planned" if decision else "unchanged", 0)

    def _show_plan(self, decision: Plan | Refusal) -> None:
        view = self.reconciler.view
        if isinstance(decision, Refusal):
            return
        if self.console:
            print(plan_text(decision, view), file=self.out)
            print(skew_text(view, self.settings.desired), file=self.out)
        else:
            self.log.info("plan", **plan_fields(decision, view))
        if missing := bus.blocked(view):
            text, remedy = bus.message(missing, view), bus.remedy(missing)
            if self.console:
                print(f"bus-blocked: {text}\n    → {remedy}", file=self.out)
            else:
                self.log.warning("bus_blocked", why=text, remedy=remedy)

    def verify(self) -> Outcome:
        """Looks, and reports every invariant that does not hold. Raises NotYet where clients cannot use the cluster."""
        limit = self.reconciler.deadline.sooner(VERIFY_LIMIT_S)
        while True:
            view = self.reconciler.look()
            if two_sides(view) and not joined(view):
                back = self.settings.adopt_back
                reasons = () if back else (unconfirmed(view, self.reconciler.desired),)
                return self.outcome("unchanged" if back else "failed", int(not back), reasons, then=advice(view))
            bad = violations(view, self.settings.desired)
            if not bad:
                if not (two_sides(self.reconciler.view) and given_back(self.reconciler.view)):
                    self._check_access(limit)
                return self.outcome("unchanged", 0)
            if limit.passed:
                explained = links.explained_now(self.reconciler.view, self.reconciler.world)
                return self.outcome("failed", 1, violations(explained, self.settings.desired))
            self.clock.sleep(min(VERIFY_EVERY_S, limit.left_s))

    def outcome(
        self, word: str, exit_code: int, reasons: tuple[Reason, ...] = (), *, then: str | None = None
    ) -> Outcome:
        """The outcome with what the run has seen and done so far; `then`: what a person can do next, where that is not
        the usual advice.
        """
        view = self.reconciler.view
        usual = self._advice(view) if exit_code == 0 and word != "planned" else ""
        stops = upgrade.reasons(view, self.settings.namespace) if exit_code != 0 else ()
        return outcome_of(
            word,
            view,
            exit_code=exit_code,
            steps=self.reconciler.steps_done,
            took_s=self.clock.now() - self.started_at,
            reasons=(*stops, *reasons),
            off=skew(view, self.settings.desired),
            then=usual if then is None else then,
            imported=self.importing.as_fields() if self.importing else None,
        )

    def show(self, outcome: Outcome) -> Outcome:
        """Prints the table of nodes and records the outcome as an Event; returns the outcome."""
        view = self.reconciler.view
        if view.nodes or view.unreachable:
            print(table(view), file=self.out)
        if line := survival(view, outcome.placement):
            print(line, file=self.out)
        for finding in notices(view, self.reconciler.desired):
            self.log.warning(finding.code.replace("-", "_"), why=finding.message)
        for path in upgrade.paths_to(self.settings.upgrade_to, view):
            log = self.log.info if path.verdict.open else self.log.warning
            log("upgrade_path", why=str(path), **({"remedy": path.remedy} if path.remedy else {}))
        self.integration.record(outcome)
        return outcome

    def _locked(self, work: Callable[[], Outcome]) -> Outcome:
        """Does the work while no other run writes; then sets the pods' labels."""
        with self.integration.locked(self.reconciler.deadline):
            outcome = work()
            self.integration.label(self.reconciler.view)
            return outcome

    def _adopt(self) -> Outcome:
        run = self.reconciler
        view = adopt(run, self.pods_alone)
        if two_sides(view):
            if not given_back(view):  # the old nodes may know this program's user by another password
                self._prove(view)
            return self.outcome(word_of(view), 0, then=advice(view))
        if run.first_view is None or not two_sides(run.first_view):
            return self._converge()
        self._converge()
        return self.outcome("finished", 0, then=finished_advice(run.first_view))

    def _apply(self) -> Outcome:
        return self._adopt() if self.settings.adoption else self._converge()

    def _converge(self) -> Outcome:
        run = self.reconciler
        view = run.converge()
        if view.spares:
            self.log.info("safe_to_shrink", pods=[node.pod for node in view.spares], next=self._advice(view))
        if not run.steps_done:
            self._check_access(run.deadline)
            return self.outcome("unchanged", 0)
        self._prove(view)
        first = run.first_view or view
        if first.forming and first.claimed() != ALL_SLOTS:
            return self.outcome("formed", 0)
        return self.outcome("scaled" if run.resized or self._had_another_size(first) else "repaired", 0)

    def _reinit(self) -> Outcome:
        self.reconciler.use(self.pods_alone)  # no other cluster is ever wiped
        if not wipe(self.reconciler, self.settings.confirm):
            return self._apply()
        self._prove(self.reconciler.converge())
        return self.outcome("reinitialised", 0)

    def _import(self) -> Outcome:
        self.reconciler.use(self.pods_alone)
        if self.importing is not None:
            self.importing.run()
        return self.outcome("imported", 0)

    def _prove(self, view: ClusterView) -> None:
        run = self.reconciler
        self.access.prove(view, run.world, deadline=run.deadline, check_lock=run.check_lock)

    def _check_access(self, deadline: Deadline) -> None:
        """Checks, without writing, that clients can connect, write and read."""
        view, world = self.reconciler.view, self.reconciler.world
        self.access.check_endpoints(view, world, deadline=deadline)
        self.access.prove(view, world, deadline=deadline, check_lock=self.clock.check, dry=True)

    def _had_another_size(self, first: ClusterView) -> bool:
        """Whether the cluster had another number of members at first; a lost member counts while others know it."""
        members = sum(1 for node in first.nodes if not node.blank) + len(first.unlisted())
        return members != self.settings.desired.nodes

    def _advice(self, view: ClusterView) -> str:
        """What a person can do next, with the command; "" where there is nothing to do."""
        advice, desired, kubectl = [], self.settings.desired, f"kubectl --namespace {self.settings.namespace}"
        if view.spares or view.silent_spares:
            command = f"{kubectl} scale statefulset {view.statefulset} --replicas={desired.nodes}"
            advice.append(f"safe to set replicas to {desired.nodes} now: {command}")
        off = skew(view, desired)
        if desired.rebalance == "off" and off.slots_percent > desired.threshold_percent:
            advice.append(
                f"BOOTSTRAP_REBALANCE=off leaves a shard {off.slots_percent:g} % off its share of slots; if a resize "
                f"was interrupted, set it to on for one run, which finishes that: {kubectl} edit configmap "
                f"redis-bootstrap-settings; then {RUN_AGAIN}"
            )
        if self.importing is not None and (about := self.importing.advice()):
            advice.append(about)
        return "; ".join(advice)

    def _log_start(self, verb: str) -> None:
        settings = self.settings
        self.log.info(
            "run_started",
            verb=verb,
            service=f"{settings.service}.{settings.namespace}",
            shards=settings.shards,
            replicas_per_shard=settings.replicas_per_shard,
            deadline_s=settings.deadline_s,
            program=__version__,
        )
