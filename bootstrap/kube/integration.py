"""What a run does for those around it: keeps other runs out, leaves Events, labels the pods.

Inside of Kubernetes, that is; elsewhere there is nobody around, and every method does nothing.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from bootstrap.clock import Backoff, Clock, Deadline
from bootstrap.config import Settings
from bootstrap.errors import ApiError, Forbidden, Misconfigured, NotYet, Reason
from bootstrap.kube.client import KubeClient
from bootstrap.kube.events import EventRecorder, note_of, reason_of
from bootstrap.kube.labels import label
from bootstrap.kube.lease import DURATION_S, LeaseLock
from bootstrap.kube.pods import Pods
from bootstrap.log import Log
from bootstrap.model.node import Address, Place
from bootstrap.model.outcome import Outcome
from bootstrap.model.view import ClusterView


class Integration:
    """Outside of Kubernetes."""

    @contextmanager
    def locked(self, deadline: Deadline) -> Iterator[None]:  # noqa: ARG002 - there is no lock to wait for
        """While this lasts, no other run writes."""
        yield

    def check_lock(self) -> None:
        """Raises NotYet once another run may be writing; called before every write, and before a refusal."""

    def explain(self, view: ClusterView) -> ClusterView:
        """The view, with what is known here of its absent peers."""
        return view

    def with_places(self, view: ClusterView) -> ClusterView:
        """The view, with where its pods run."""
        return view

    def label(self, view: ClusterView) -> None:
        """Makes the pods' labels true to the view."""

    def record(self, outcome: Outcome) -> None:
        """Leaves word of how a run that was `locked` ended."""


class InKubernetes(Integration):
    """Inside of a pod with a service account."""

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
        self._placed_for: frozenset[tuple[str, Address]] = frozenset()
        self._uid = ""
        self._was_locked = False
        self._holds_lock = False

    @contextmanager
    def locked(self, deadline: Deadline) -> Iterator[None]:
        """Waits for the Lease until the deadline and holds it meanwhile; `check_lock` is called before each write.

        Raises NotYet where another run holds it or Kubernetes does not answer, Forbidden where that may not be asked.
        """
        self._was_locked = True
        self._wait_for_lock(deadline)
        self._lock.start_renewing()
        self._holds_lock = True
        told = self._settings
        try:
            self._event("started", f"sees to {told.shards} shards with {told.replicas_per_shard} replicas each")
            yield
        finally:
            try:
                self._lock.release()
            except ApiError as error:
                self._log.warning("lock_not_released", lease=told.lease, why=str(error), expires_in_s=DURATION_S)

    def check_lock(self) -> None:
        """Raises NotYet once the Lease may be another run's. Without `locked` (plan, verify) there is nothing to check."""
        if self._holds_lock:
            self._lock.check()

    def explain(self, view: ClusterView) -> ClusterView:
        """With Kubernetes's words on why a pod is not there."""
        return self._pods.explain(view)

    def with_places(self, view: ClusterView) -> ClusterView:
        """With the pods' Kubernetes nodes and zones, once all are there; asked again when one has another address.

        Raises ApiError where Kubernetes does not answer: roles that are given without them would stay.
        """
        if view.unreachable or not view.nodes:
            return view
        pods = frozenset((node.pod, node.address) for node in view.nodes)
        if pods != self._placed_for:
            self._places, self._placed_for = self._where(), pods
        return replace(view, places=self._places)

    def _where(self) -> Mapping[str, Place]:
        try:
            return self._pods.places()
        except Forbidden as error:  # roles by ordinals are good ones, too
            self._log.warning("places_unknown", why=str(error))
            return {}

    def label(self, view: ClusterView) -> None:
        """Where it was asked for. Raises ApiError: Services may live by these labels, so the run has failed then."""
        if self._settings.role_labels:
            pods = label(view, self._kube, self._pods, check_lock=self.check_lock)
            if pods:
                self._log.info("pods_labelled", pods=pods)

    def record(self, outcome: Outcome) -> None:
        """An Event. One that cannot be written changes nothing about the run."""
        if self._was_locked:
            self._event(outcome.outcome, note_of(outcome), good=outcome.exit_code == 0)

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
            backoff.wait(
                "waiting_for_lock", partial(str, why.message), partial(NotYet.because, (why,)), deadline=deadline
            )

    def _event(self, word: str, note: str, *, good: bool = True) -> None:
        try:
            if not self._uid:
                self._uid = next((pod.owner_uid for pod in self._pods.look().values() if pod.owner_uid), "")
            self._events.record(reason_of(word), note, good=good, uid=self._uid)
        except ApiError as error:
            self._log.warning("event_not_written", reason=reason_of(word), why=str(error))


def integration_for(settings: Settings, *, clock: Clock, log: Log) -> Integration:
    """Those of this process. Raises Misconfigured where a setting needs Kubernetes, and there is none."""
    kube = KubeClient.where_usable(settings.kubernetes, settings.namespace)
    if kube is not None:
        return InKubernetes(kube, settings, clock=clock, log=log)
    if settings.role_labels:
        message = "BOOTSTRAP_ROLE_LABELS is on, but there is no Kubernetes to label pods in, or it is not to be used"
        remedy = "set it to off, or see BOOTSTRAP_KUBERNETES and the pod's service account"
        raise Misconfigured.because((Reason(code="kubernetes", message=message, remedy=remedy),))
    return Integration()


def _held_by(lock: LeaseLock, holder: str) -> Reason:
    remedy = f"wait until it has ended; if it is dead, its Lease runs out after {DURATION_S} s. Then run again"
    return Reason(code="lock-held", message=f"the Lease {lock.name} is held by {holder}", remedy=remedy)


def _unavailable(lock: LeaseLock, error: ApiError) -> Reason:
    remedies = "; ".join(reason.remedy for reason in error.reasons)
    remedy = f"{remedies}. BOOTSTRAP_KUBERNETES=off runs without a lock"
    return Reason(code="lock-unavailable", message=f"the Lease {lock.name} cannot be taken: {error}", remedy=remedy)
