"""The integration of a run in a pod with a service account: lock, Events, labels, places."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from bootstrap.clock import Backoff, Clock, Deadline
from bootstrap.config import Settings
from bootstrap.errors import AGAIN, ApiError, Busy, Forbidden, NotYet, Reason
from bootstrap.kube.client import KubeClient
from bootstrap.kube.events import EventRecorder, note_of, reason_of
from bootstrap.kube.integration import Integration
from bootstrap.kube.labels import label
from bootstrap.kube.last_run import annotations_of
from bootstrap.kube.lease import DURATION_S, LeaseLock
from bootstrap.kube.pods import Pods, revisions_of, rollout_of
from bootstrap.kube.stale_records import without_stale
from bootstrap.log import Log
from bootstrap.model.node import Address, NodeId, Place
from bootstrap.model.outcome import Outcome
from bootstrap.model.rollout import Revisions
from bootstrap.model.view import ClusterView

PLACES_FOR_S = 5.0
"""Seconds after which the pods are read again for the next view: a rollout may have begun."""


class InKubernetes(Integration):
    """In a pod with a service account."""

    def __init__(self, kube: KubeClient, settings: Settings, *, clock: Clock, log: Log) -> None:
        self._kube = kube
        self._settings = settings
        self._clock = clock
        self._log = log
        instance = socket.gethostname()
        self._lock = LeaseLock(kube, settings.lease, identity=f"{instance}_{secrets.token_hex(4)}", clock=clock)
        self._events = EventRecorder(kube, statefulset=settings.statefulset, instance=instance)
        self._pods = Pods(kube, settings.statefulset, read_nodes=settings.read_nodes)
        self._places: Mapping[str, Place] = {}
        self._rollout = ""
        self._revisions: Revisions = {}
        self._addresses: Mapping[str, frozenset[str]] = {}
        """The addresses of every pod; empty where they are not known."""
        self._places_for: frozenset[tuple[str, Address, NodeId]] = frozenset()
        self._places_until = 0.0
        self._places_read = False
        self._places_denied = False
        self._uid = ""
        self._was_locked = False
        self._holds_lock = False

    @contextmanager
    def locked(self, deadline: Deadline) -> Iterator[None]:
        """Waits for the Lease until the deadline, then holds it while the block runs.

        Raises NotYet if another run holds the Lease at the deadline or Kubernetes does not answer, Busy if the run is
        told to leave then, and Forbidden if the service account lacks a right.
        """
        self._was_locked = True
        self._wait_for_lock(deadline)
        self._lock.start_renewing()
        self._holds_lock = True
        settings = self._settings
        shape = f"{settings.shards} shards with {settings.replicas_per_shard} replicas each"
        try:
            self._event("started", f"checks the cluster against {shape}")
            yield
        finally:
            try:
                self._lock.release()
            except ApiError as error:
                fields = {"why": str(error), "expires_in_s": DURATION_S, **error.remedy_field}
                self._log.warning("lock_not_released", lease=settings.lease, **fields)

    def check_lock(self) -> None:
        """Raises NotYet once another run may hold the Lease. `plan` and `verify` take no lock and pass."""
        if self._holds_lock:
            self._lock.check()

    def explain(self, view: ClusterView) -> ClusterView:
        """Adds Kubernetes's own words on why a pod does not run."""
        return self._pods.explain(view)

    def with_places(self, view: ClusterView) -> ClusterView:
        """Adds nodes and zones, and a rollout, and takes out what answers at an address that is not its pod's. The pods
        are read again after a pod's address or node id has changed, and when they were read some seconds ago.

        Raises ApiError if Kubernetes does not answer and every peer does: roles assigned without knowing the places
        would stay. While a peer is missing, and later on, the view goes without what Kubernetes does not report.
        """
        if self._places_denied or not (view.nodes or view.unreachable):
            return view
        pods = frozenset((node.pod, node.address, node.node_id) for node in view.nodes)
        if pods != self._places_for:
            self._places_for, self._places, self._addresses, self._places_read = pods, {}, {}, False
            self._places_until = 0.0
        needed = not (self._places_read or view.unreachable)
        if needed or self._clock.now() >= self._places_until:
            self._read_places(needed=needed)
            self._places_until = self._clock.now() + PLACES_FOR_S
        view = without_stale(view, self._addresses) if self._addresses else view
        return replace(view, places=self._places, rollout=self._rollout, revisions=self._revisions)

    def _read_places(self, *, needed: bool) -> None:
        try:
            pods = self._pods.look()
            self._places, self._rollout = self._pods.places(pods), rollout_of(pods.values())
            self._revisions = revisions_of(pods, datetime.now(UTC))
            self._addresses = {name: pod.addresses for name, pod in pods.items()}
            self._places_read = True
        except Forbidden as error:  # without places, roles follow the ordinals
            self._log.warning("places_unknown", why=str(error), **error.remedy_field)
            self._places, self._rollout, self._revisions, self._places_denied = {}, "", {}, True
        except ApiError as error:
            if needed:
                raise
            self._log.warning("places_unknown", why=str(error), **error.remedy_field)
            self._addresses = {}
            self._rollout = f"Kubernetes does not report whether pods are being replaced: {error}"

    def label(self, view: ClusterView) -> None:
        """Sets the labels if `role_labels` is on. Raises ApiError: Services may depend on them, so the run fails."""
        if self._settings.role_labels:
            pods = label(view, self._kube, self._pods, check_lock=self.check_lock)
            if pods:
                self._log.info("pods_labelled", pods=pods)

    def record(self, outcome: Outcome) -> None:
        """Records an Event, and the outcome at the Lease. If that fails, the run goes on."""
        if not self._was_locked:
            return
        self._event(outcome.outcome, note_of(outcome), good=outcome.exit_code == 0)
        try:
            pod, now = socket.gethostname(), datetime.now(UTC)
            self._lock.annotate(lambda before: annotations_of(outcome, now, pod=pod, before=before))
        except ApiError as error:
            self._log.warning("lease_not_annotated", why=str(error), **error.remedy_field)

    def _wait_for_lock(self, deadline: Deadline) -> None:
        backoff, began = Backoff(self._clock, self._log), self._clock.now()
        while True:
            try:
                holder = self._lock.try_acquire()
            except Forbidden:
                raise
            except ApiError as error:
                why = _unavailable(self._lock, error)
            else:
                if not holder:
                    waited_s = round(self._clock.now() - began, 2)
                    self._log.info("lock_taken", lease=self._lock.name, waited_s=waited_s)
                    return
                why = _held_by(self._lock, holder)
                if self._lock.holder_works and self._settings.when_locked == "leave":
                    raise Busy.because((why,))
            backoff.wait(
                "waiting_for_lock", partial(str, why.message), partial(NotYet.because, (why,)), deadline=deadline
            )

    def _event(self, word: str, note: str, *, good: bool = True) -> None:
        try:
            if not self._uid:
                self._uid = next((pod.owner_uid for pod in self._pods.look().values() if pod.owner_uid), "")
            self._events.record(reason_of(word), note, good=good, uid=self._uid)
        except ApiError as error:
            self._log.warning("event_not_written", reason=reason_of(word), why=str(error), **error.remedy_field)


def _held_by(lock: LeaseLock, holder: str) -> Reason:
    remedy = (
        f"wait for the other run: kubectl get lease {lock.name} shows its pod, and kubectl logs POD what it does; the "
        f"Lease of a dead run expires after {DURATION_S} s; then {AGAIN}"
    )
    return Reason(code="lock-held", message=f"the Lease {lock.name} is held by {holder}", remedy=remedy)


def _unavailable(lock: LeaseLock, error: ApiError) -> Reason:
    remedies = "; ".join(reason.remedy for reason in error.reasons)
    remedy = f"{remedies}. BOOTSTRAP_KUBERNETES=off runs without a lock"
    return Reason(code="lock-unavailable", message=f"the Lease {lock.name} cannot be taken: {error}", remedy=remedy)
