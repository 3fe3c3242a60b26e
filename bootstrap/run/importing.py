"""The verb `import`: look at both sides, refuse with every reason or copy, check, compare, and look again.

The first pass copies. Each later one asks the target for every key of the source and copies what it lacks, until a
pass finds nothing: a failover of the target may lose what a master had accepted, and the source may have gained keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from bootstrap.clock import REPORT_EVERY_S, Clock, Deadline, Ticker
from bootstrap.config import Settings
from bootstrap.errors import Misconfigured, NotYet, Reason, Refused
from bootstrap.log import Log
from bootstrap.model.copying import Counts, ImportReport, Source
from bootstrap.model.node import Address
from bootstrap.model.slots import SlotSet
from bootstrap.model.view import ClusterView
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.copying.copier import Copier, clock_ms, load_functions, rejected_databases
from bootstrap.nodes.copying.owners import Owners, RestoreRejected, Stalled
from bootstrap.nodes.copying.reading import SourceRejected
from bootstrap.nodes.copying.source import SeveralServers, SourceFinder, SourceUnusable, UnnamedMaster
from bootstrap.nodes.pool import ANSWER_LIMIT_S, ConnectionPool
from bootstrap.plan import importing
from bootstrap.run.import_reasons import as_outcome, of_source
from bootstrap.run.progress import CopyProgress
from bootstrap.run.reconcile import Reconciler
from bootstrap.verify import violations

CHECKS_MAX = 3
"""Passes after the first one. A source that gains keys faster than they are checked is not chased."""
WHOLE_LIMIT_S = 10.0
"""How long the cluster may take to become whole: a lost packet is not a broken cluster."""
LOOK_EVERY_S = 0.3
_ERRORS = (SourceUnusable, SourceRejected, UnnamedMaster, SeveralServers, Stalled, RestoreRejected)


@dataclass(slots=True, kw_only=True)
class Importing:
    """One import. `run` does it; then `report` has what it found."""

    settings: Settings
    credentials: Credentials
    """Of the cluster."""
    reconciler: Reconciler
    clock: Clock
    log: Log
    show: Callable[[CopyProgress], None]
    report: ImportReport | None = None
    counts: Counts = field(default_factory=Counts)
    """Of the first pass, as far as it has come."""
    databases: Mapping[int, int] = field(default_factory=dict)
    functions: tuple[str, ...] = ()
    functions_left: tuple[str, ...] = ()

    def run(self) -> None:
        """Raises Misconfigured, Refused with every reason that stands against the import or against its result, or
        NotYet, after which another run continues.
        """
        if not self.settings.import_from:
            message = "import needs the servers to copy from: --from HOST:PORT (BOOTSTRAP_IMPORT_FROM)"
            remedy = "python -m bootstrap import --help describes every setting"
            raise Misconfigured.because([Reason(code="setting", message=message, remedy=remedy)])
        with _translated(), closing(self._finder()) as finder, closing(self._pool()) as pool:
            self.reconciler.wait_for_peers(all_of_them=True)
            view = self._whole_cluster()
            source = finder.find()
            self.log.info(
                "source_found", **_about(source), note="a copy of a moment: each key as it is when it is read"
            )
            self.databases = importing.databases_of(source, dict(self.settings.import_databases))
            shift = importing.clock_shift_ms(source, clock_ms(pool.raw_connection(_masters(view)[0][0])))
            if shift:
                self.log.warning("clocks_differ", source_is_behind_s=shift / 1000, kept="the time left")
            with closing(Owners(connect=pool.raw_connection, look=self._masters_now, clock=self.clock)) as owners:
                copier = Copier(finder=finder, owners=owners, databases=self.databases, shift_ms=shift)
                share = self._check(copier, source, view, pool)
                self._copy_functions(finder, source, view, pool)
                self._copy(copier, source, asking=share < 1 and not self.settings.import_replace)
        self._conclude()

    def as_fields(self) -> Mapping[str, Any]:
        """The fields of the outcome: the whole report, or what was done until the run ended."""
        if self.report is not None:
            return self.report.as_fields()
        return {"keys": self.counts.seen, "copied": self.counts.copied, "existing": self.counts.existing}

    def advice(self) -> str:
        """What a person should know, and can do next; "" for nothing."""
        if self.report is None:
            return ""
        return importing.advice(self.report, importing.left_out(self.report.after, self.databases))

    def _finder(self) -> SourceFinder:
        settings = self.settings
        credentials = Credentials(
            username=settings.import_username,
            password=settings.import_password,
            ca_file=settings.import_tls_ca_file,
            cert_file=settings.import_tls_cert_file,
            key_file=settings.import_tls_key_file,
        )
        try:
            return SourceFinder(settings.import_from, credentials, sentinel_name=settings.import_sentinel_name)
        except Misconfigured as error:
            reasons = [
                replace(reason, message=of_source(reason.message), remedy=of_source(reason.remedy))
                for reason in error.reasons
            ]
            raise Misconfigured.because(reasons) from error

    def _pool(self) -> ConnectionPool:
        return ConnectionPool(self.credentials, answer_limit_s=ANSWER_LIMIT_S)

    def _whole_cluster(self) -> ClusterView:
        """The cluster, once it is whole. Raises NotYet with what is wrong with it. By then the
        deadline of the run may have passed, because copying takes as long as there is data.
        """
        limit = Deadline.after(WHOLE_LIMIT_S, self.clock)
        while bad := violations(view := self.reconciler.look(), self.settings.desired):
            if limit.passed:
                raise NotYet.because(bad)
            self.clock.sleep(min(LOOK_EVERY_S, limit.left_s))
        return view

    def _masters_now(self) -> Iterable[tuple[Address, SlotSet]]:
        return _masters(self.reconciler.look())

    def _check(self, copier: Copier, source: Source, view: ClusterView, pool: ConnectionPool) -> float:
        """The part of the keys that the cluster lacks, from 0 to 1, as estimated. Raises Refused with everything that
        stands against the import. Nothing is written before.
        """
        targets = sorted({target for target in self.databases.values() if target})
        found = importing.Found(
            source=source,
            view=view,
            databases=self.databases,
            rejected_databases=rejected_databases(pool.raw_connection(_masters(view)[0][0]), targets),
        )
        if not importing.refusals(found):
            share = copier.missing_share(source)
            found = replace(found, unreadable=copier.unreadable(source), missing_share=share)
        if reasons := importing.refusals(found):
            raise Refused.because(reasons)
        return found.missing_share

    def _copy_functions(self, finder: SourceFinder, source: Source, view: ClusterView, pool: ConnectionPool) -> None:
        """Copies the function libraries that the cluster lacks, or all of them with `replace`."""
        names = frozenset[str]().union(*(server.libraries for server in source.servers))
        if not names:
            return
        self.reconciler.check_lock()
        code = dict(finder.functions(source.servers[0].address, sorted(names)))
        copied, left = set[str](), set[str]()
        for address, _ in _masters(view):
            loaded, errors = load_functions(pool.raw_connection(address), code, replace=self.settings.import_replace)
            copied, left = copied | loaded, left | errors.keys()
            for name, why in errors.items():
                self.log.warning("function_not_copied", library=name, master=str(address), why=why)
        self.functions, self.functions_left = tuple(sorted(copied - left)), tuple(sorted(left))

    def _copy(self, copier: Copier, source: Source, *, asking: bool) -> None:
        limit = Deadline.after(self.settings.import_deadline_s, self.clock)
        progress = self._beginning(source)
        passing = copier.copy(source, replace=self.settings.import_replace, counts=self.counts, asking=asking)
        copied = self._advance(passing, self.counts, progress, limit)
        self.log.info("keys_copied", copied=self.counts.copied, **copied.as_fields())
        late, missing, moved, now = 0, 0, True, source
        for _ in range(CHECKS_MAX):
            counts, began_with = Counts(), copier.finder.find()
            progress = self._beginning(began_with)
            checking = copier.copy(began_with, replace=False, counts=counts, asking=True, checking=True)
            self._advance(checking, counts, progress, limit)
            now = copier.finder.find()
            late, missing = late + counts.copied, counts.copied
            moved = now.owners != began_with.owners or bool(now.open_slots)
            self.log.info("keys_checked", keys=counts.seen, missing=missing, slots_moved=moved)
            if not missing and not moved:
                break
        self.report = ImportReport(
            before=source,
            after=now,
            databases=self.databases,
            counts=self.counts,
            late=late,
            missing=missing,
            moved=moved,
            copied_sample=copier.compare(source, copier.copied),
            existing_sample=copier.compare(source, copier.existing),
            target_keys=sum(node.keys for node in self.reconciler.look().nodes if node.slots),
            functions=self.functions,
            functions_left=self.functions_left,
        )

    def _beginning(self, source: Source) -> CopyProgress:
        keys = sum(count for number, count in source.keys.items() if number in self.databases)
        return CopyProgress(keys_total=keys, began=self.clock.now())

    def _advance(self, work: Iterator[None], counts: Counts, progress: CopyProgress, limit: Deadline) -> CopyProgress:
        """Does one pass; returns its progress at the end. Raises NotYet at the limit, Interrupted, and NotYet once
        another run may write.
        """
        log_due, before = Ticker(self.clock, REPORT_EVERY_S), self.reconciler.steps_done
        for _ in work:
            self.clock.check()
            self.reconciler.check_lock()
            self.reconciler.steps_done = before + counts.copied
            progress = progress.now(counts.done, counts.bytes_copied, self.clock)
            self.show(progress)
            if log_due.due():
                self.log.info("importing", **progress.as_fields())
            if limit.passed:
                raise NotYet.because([progress.too_late(self.settings.import_deadline_s)])
        self.reconciler.steps_done = before + counts.copied
        progress = progress.now(counts.done, counts.bytes_copied, self.clock, ended=True)
        self.show(progress)
        return progress

    def _conclude(self) -> None:
        """Logs the comparison. Raises NotYet or Refused where it does not hold, and NotYet where the cluster has lost a
        node meanwhile, so that it is not whole any more.
        """
        report = self.report
        if report is None:
            return
        self.log.info("import_compared", **report.as_fields())
        if reasons := importing.missing_keys(report):
            raise NotYet.because(reasons)
        if reasons := importing.differing_values(report, replace=self.settings.import_replace):
            raise Refused.because(reasons)
        self._whole_cluster()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise as_outcome(error) from error


def _masters(view: ClusterView) -> list[tuple[Address, SlotSet]]:
    return [(node.address, node.slots) for node in view.nodes if node.slots]


def _about(source: Source) -> Mapping[str, Any]:
    """The fields of a log line."""
    through = {"through": source.through} if source.through else {}
    return {
        "servers": [str(server.address) for server in source.servers],
        "versions": sorted({server.version for server in source.servers}),
        "keys": {str(number): count for number, count in source.keys.items()},
        **through,
    }
