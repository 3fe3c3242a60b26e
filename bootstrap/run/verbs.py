"""The verbs, put together: `apply`, `plan` and `verify` are each a way through the same rooms."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from bootstrap import __version__
from bootstrap.clock import Backoff, Clock, Deadline
from bootstrap.config import Settings
from bootstrap.errors import BootstrapError, NotYet, Reason
from bootstrap.kube.integration import Integration, integration_for
from bootstrap.log import Log
from bootstrap.model.node import Address
from bootstrap.model.outcome import Outcome
from bootstrap.model.plan import Refusal
from bootstrap.model.slots import ALL_SLOTS
from bootstrap.model.view import ClusterView
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.discover import Names, NoAnswer, Resolver, system_nameservers
from bootstrap.nodes.observe import Observer
from bootstrap.nodes.probe import ProbeFailed, probe
from bootstrap.plan.membership import forming
from bootstrap.plan.rebalance import skew
from bootstrap.run.progress import Bar
from bootstrap.run.reconcile import Reconciler
from bootstrap.run.report import outcome_of, plan_fields, plan_text, skew_text, table
from bootstrap.verify import violations

PEERS = "the peers"
_DOOR_REMEDY = "see whether the access Service has endpoints and its pods are ready"

VERIFY_LIMIT_S = 3.0
"""How long `verify` looks again when something is not right: one lost packet is not a broken cluster."""


@dataclass(slots=True, kw_only=True)
class Session:
    """One run of the program: its settings, its ways out, and the run itself."""

    settings: Settings
    clock: Clock
    log: Log
    out: TextIO
    console: bool
    run: Reconciler
    resolver: Resolver
    integration: Integration
    started_at: float

    def apply(self) -> Outcome:
        """Brings the cluster to the declared shape and proves that it serves."""
        self._say_started("apply")
        return self._alone(self._apply)

    def _alone(self, work: Callable[[], Outcome]) -> Outcome:
        """The work, while no other run writes; then the pods' labels say what it came to."""
        with self.integration.locked(self.run.deadline):
            outcome = work()
            self.integration.label(self.run.view)
            return outcome

    def _apply(self) -> Outcome:
        view = self.run.converge()
        self._say_what_is_spare(view)
        if not self.run.steps_done:
            self._knock()
            return self._outcome("unchanged", 0)
        self._prove(view)
        first = self.run.first_view or view
        if forming(first) and first.claimed() != ALL_SLOTS:
            return self._outcome("formed", 0)
        return self._outcome("scaled" if self.run.resized or self._had_another_size(first) else "repaired", 0)

    def _say_what_is_spare(self, view: ClusterView) -> None:
        if view.spares:
            self.log.info("safe_to_shrink", pods=[node.pod for node in view.spares], next=self._advice(view))

    def _advice(self, view: ClusterView) -> str:
        """What a person can do now that the cluster is good; "" where there is nothing."""
        if not view.spares:
            return ""
        told = self.settings
        count, name = told.desired.nodes, view.spares[0].pod.rpartition("-")[0]
        command = f"kubectl --namespace {told.namespace} scale statefulset {name} --replicas={count}"
        return f"safe to set replicas to {count} now: {command}"

    def _had_another_size(self, first: ClusterView) -> bool:
        """Whether the run began with another number of members or shards; a lost one counts while others know it."""
        members = sum(1 for node in first.nodes if not node.blank) + len(first.unlisted())
        return members != self.settings.desired.nodes

    def reinit(self) -> Outcome:
        """Wipes the cluster that a person has confirmed, and forms it anew."""
        self._say_started("reinit")
        return self._alone(self._reinit)

    def _reinit(self) -> Outcome:
        if not self.run.wipe(self.settings.confirm):
            return self._apply()
        self._prove(self.run.converge())
        return self._outcome("reinitialised", 0)

    def _say_started(self, verb: str) -> None:
        told = self.settings
        self.log.info(
            "run_started",
            verb=verb,
            service=f"{told.service}.{told.namespace}",
            shards=told.shards,
            replicas_per_shard=told.replicas_per_shard,
            deadline_s=told.deadline_s,
            program=__version__,
        )

    def plan(self) -> Outcome:
        """Says what `apply` would do, and does nothing."""
        view, decision = self.run.decide()
        if isinstance(decision, Refusal):
            return self._outcome("refused", 3, decision.reasons)
        if self.console:
            print(plan_text(decision, view), file=self.out)
            print(skew_text(view, self.settings.desired), file=self.out)
        else:
            self.log.info("plan", **plan_fields(decision, view))
        return self._outcome("planned" if decision else "unchanged", 0)

    def verify(self) -> Outcome:
        """Looks, and says whether every invariant holds."""
        limit = self.run.deadline.sooner(VERIFY_LIMIT_S)
        while True:
            self.run.view = self.run.seen(self.run.world.look())
            bad = violations(self.run.view, self.settings.desired)
            if not bad:
                return self._outcome("unchanged", 0)
            if limit.passed:
                return self._outcome("failed", 1, bad)
            self.clock.sleep(min(0.3, limit.left_s))

    def attempt(self, verb: Callable[[], Outcome]) -> Outcome:
        """A verb's outcome, or that of the error that ended it."""
        try:
            return verb()
        except BootstrapError as error:
            reasons = error.reasons or (Reason(code="failed", message=str(error), remedy="run again"),)
            return self._outcome("refused" if error.exit_code == 3 else "failed", error.exit_code, reasons)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of this program: what was done so far is still to be told
            return self._outcome("failed", 1, (internal_error(error),))

    def report(self, outcome: Outcome) -> None:
        """The table for a person, then the outcome: an Event, the last line, the container's termination message."""
        if self.run.view.nodes or self.run.view.unreachable:
            print(table(self.run.view), file=self.out)
        self.integration.record(outcome)
        print_outcome(outcome, console=self.console, log=self.log, out=self.out)
        leave_termination_message(outcome, self.settings.termination_message_file, self.log)

    def _prove(self, view: ClusterView) -> None:
        """Probes as a client until it works: the access Service learns of ready pods only some seconds after them."""
        backoff = Backoff(self.clock, self.log)
        while True:
            endpoints, through = self._doors(view)
            self.run.check_lock()
            try:
                shards = probe(view, endpoints, self.run_credentials, clock=self.clock)
            except ProbeFailed as error:
                reason = Reason(
                    code="probe",
                    message=str(error),
                    remedy=_DOOR_REMEDY,
                )
                backoff.wait(
                    "probe_waits", partial(str, error), partial(NotYet.because, (reason,)), deadline=self.run.deadline
                )
            else:
                self.log.info("probe_done", shards=shards, through=through)
                return

    def _knock(self) -> None:
        """On a healthy cluster nothing is written; that the access Service lets somebody in is looked at all the same.
        A failed probe must not become a success by running again.
        """
        backoff = Backoff(self.clock, self.log)
        while True:
            endpoints, through = self._doors(self.run.view)
            if through == PEERS:
                return
            silences = [answer for answer in self.run.world.check_endpoints(endpoints) if answer]
            if len(silences) < len(endpoints):
                return
            reason = Reason(code="no-way-in", message=f"{through}: {silences[0]}", remedy=_DOOR_REMEDY)
            backoff.wait(
                "access_waits",
                partial(str, reason.message),
                partial(NotYet.because, (reason,)),
                deadline=self.run.deadline,
            )

    @property
    def run_credentials(self) -> Credentials:
        """How to get in, for the client's probe."""
        return credentials(self.settings)

    def _doors(self, view: ClusterView) -> tuple[list[Address], str]:
        """Where a client enters: the access Service where the DNS knows one, else the peers themselves."""
        if self.settings.access_service:
            name = f"{self.settings.access_service}.{self.settings.namespace}.svc.{self.settings.cluster_domain}."
            try:
                if hosts := self.resolver.hosts(name):
                    return [Address(host, self.settings.port) for host in hosts], self.settings.access_service
            except NoAnswer as error:
                self.log.warning("access_service_not_asked", why=str(error))
        return [node.address for node in view.nodes], PEERS

    def _outcome(self, word: str, exit_code: int, reasons: tuple[Reason, ...] = ()) -> Outcome:
        took_s = self.clock.now() - self.started_at
        return outcome_of(
            word,
            self.run.view,
            exit_code=exit_code,
            steps=self.run.steps_done,
            took_s=took_s,
            reasons=reasons,
            off=skew(self.run.view, self.settings.desired),
            then=self._advice(self.run.view) if exit_code == 0 and word != "planned" else "",
        )


@contextmanager
def session(settings: Settings, *, clock: Clock, log: Log, out: TextIO, console: bool) -> Iterator[Session]:
    """A session with its connections; they are closed at its end."""
    started_at = clock.now()
    nameservers = (settings.nameserver,) if settings.nameserver else system_nameservers()
    resolver = Resolver(nameservers)
    names = Names(
        service=settings.service,
        namespace=settings.namespace,
        cluster_domain=settings.cluster_domain,
        port_name=settings.port_name,
        statefulset=settings.statefulset,
        port=settings.port,
    )
    nodes = Nodes(credentials(settings))
    try:
        observer = Observer(resolver=resolver, nodes=nodes, names=names, wanted=settings.desired.nodes)
        integration = integration_for(settings, clock=clock, log=log)
        run = Reconciler(
            world=observer,
            desired=settings.desired,
            deadline=Deadline.after(settings.deadline_s, clock),
            clock=clock,
            log=log,
            explain=integration.explain,
            check_lock=integration.check_lock,
            with_places=integration.with_places,
            move_limit_s=settings.move_deadline_s,
            progress=Bar(out, clock) if console and out.isatty() else lambda _: None,
        )
        yield Session(
            settings=settings,
            clock=clock,
            log=log,
            out=out,
            console=console,
            run=run,
            resolver=resolver,
            integration=integration,
            started_at=started_at,
        )
    finally:
        nodes.close()


def internal_error(error: Exception) -> Reason:
    """A fault in this program, as a reason; the traceback goes to standard error, for whoever is to mend it."""
    traceback.print_exception(error)
    message = f"a fault in this program: {type(error).__name__}"
    return Reason(code="internal", message=message, remedy="report it with the traceback")


def credentials(settings: Settings) -> Credentials:
    """The part of the settings that opens doors."""
    return Credentials(
        username=settings.username,
        password=settings.password,
        ca_file=settings.tls_ca_file,
        cert_file=settings.tls_cert_file,
        key_file=settings.tls_key_file,
    )


def print_outcome(outcome: Outcome, *, console: bool, log: Log, out: TextIO) -> None:
    """The outcome as the last line: JSON for machines; in words, with every reason and remedy, on a console."""
    if not console:
        (log.info if outcome.exit_code == 0 else log.warning)("outcome", **outcome.as_fields())
        return
    for reason in outcome.reasons:
        print(f"{reason.code}: {reason.message}\n    → {reason.remedy}", file=out)
    print(
        f"{outcome.outcome}: {outcome.shards} shards on {outcome.nodes} nodes, {outcome.slots_covered} slots covered, "
        f"{outcome.steps} steps in {outcome.took_s} s, cluster {outcome.cluster or '-'} (exit {outcome.exit_code})"
        + (f"\n{outcome.next}" if outcome.next else ""),
        file=out,
        flush=True,
    )


def leave_termination_message(outcome: Outcome, path: str, log: Log) -> None:
    """Where Kubernetes looks for a container's last words. Elsewhere there is no such file, and none is made."""
    try:
        if path and Path(path).is_file():
            Path(path).write_text(outcome.as_termination_message(), encoding="utf-8")
    except OSError as error:  # the outcome has been said in the log; nothing else depends on this copy of it
        log.warning("termination_message_not_written", why=error.strerror)
