"""The lock: a Lease held for the whole run, so that two runs never write at the same time.

A run takes the Lease before its first look, not before its first write: the half-done work of another run looks like
damage, which a run would refuse or repair. On a healthy cluster the lock costs three requests, less than a hundredth of
the run, and the outcome that it leaves there (`last_run`) one more.

The algorithm is that of client-go's leader election, and so are the names of its times. The holder renews the Lease
every few seconds. Another run takes it once the holder has released it, or once it has not changed for its duration by
the clock of the run that waits; clocks of two machines are never compared. The holder stops writing some seconds before
that, so that a write under way ends before another run begins. Every change names the `resourceVersion` that was read:
of two concurrent changes Kubernetes rejects one.

| time | event |
|---|---|
| every `RETRY_PERIOD_S` | the holder renews the Lease |
| `RENEW_DEADLINE_S` after the last successful renewal was sent | the holder no longer writes |
| `DURATION_S` after the last change was observed | another run takes the Lease |

The time between the last two is longer than any round of writes (`nodes`: 3 s for each 64 nodes, if all of them hang).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from bootstrap.clock import Clock
from bootstrap.errors import AGAIN, ApiError, Conflict, NotFound, NotYet, Reason
from bootstrap.kube.client import LEASES, KubeClient, Object
from bootstrap.kube.last_run import annotated

DURATION_S = 15
"""Whole seconds, as the API requires."""
RENEW_DEADLINE_S = 8.0
RETRY_PERIOD_S = 3.0
_LABELS = {"app.kubernetes.io/name": "redis-bootstrap", "app.kubernetes.io/component": "bootstrap"}


class LeaseLock:
    """The Lease as one run uses it. `identity` names this run and no other."""

    def __init__(self, kube: KubeClient, name: str, *, identity: str, clock: Clock) -> None:
        self.name = name
        self._kube = kube
        self._identity = identity
        self._clock = clock
        self._lease: Object | None = None
        """The Lease as this run last wrote it; None while this run does not hold it."""
        self._left: Object | None = None
        """The Lease as this run released it; None if it never held it, or lost it."""
        self._seen: tuple[Mapping[str, Any], float] | None = None
        """The `spec` of another run's Lease, and when this run first saw it so."""
        self.holder_works = False
        """The Lease of another run was renewed while this one waited for it."""
        self._renewed_at = 0.0
        self._lost = ""
        self._error = ""
        self._stop = threading.Event()
        self._renewer: threading.Thread | None = None

    def try_acquire(self) -> str:
        """Takes the Lease if it is free. Returns "" on success, else who holds it and since when. Raises ApiError."""
        try:
            lease = self._kube.get(LEASES, self.name)
        except NotFound:
            blank = {"metadata": {"name": self.name, "labels": _LABELS}}
            return self._take(partial(self._kube.create, LEASES, self._renewed(blank)))
        spec = lease.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        if holder not in ("", self._identity) and not self._expired(spec):
            return f"{holder}, since {spec.get('acquireTime')}"
        return self._take(partial(self._kube.update, LEASES, self.name, self._renewed(lease)))

    def start_renewing(self, *, every_s: float = RETRY_PERIOD_S) -> None:
        """Starts a thread that renews the Lease every `every_s` seconds until `release`."""
        self._renewer = threading.Thread(target=self._renew_until_stopped, args=(every_s,), daemon=True, name="lease")
        self._renewer.start()

    def renew(self) -> None:
        """Renews once. Raises nothing: after a failure the next renewal may succeed, else `check` raises in time."""
        if self._lease is None:
            return
        sent_at = self._clock.now()
        try:
            self._lost = self._change(self._lease, self._renewed)
        except NotFound:
            self._lost = "it was deleted"
        except ApiError as error:
            self._error = str(error)
        else:
            self._renewed_at, self._error = sent_at, ""
        if self._lost:
            self._lease = None

    def check(self) -> None:
        """Raises NotYet once this run may no longer write, because it lost the Lease or could not renew it in time."""
        age_s = self._clock.now() - self._renewed_at
        lost = self._lost
        if not lost and (self._lease is None or age_s > RENEW_DEADLINE_S):
            lost = f"it could not be renewed for {age_s:.0f} s" + (self._error and f": {self._error}")
        if lost:
            message = f"this run no longer holds the Lease {self.name}: {lost}"
            remedy = f"kubectl get lease {self.name} shows the new holder, which continues the work; if none, {AGAIN}"
            raise NotYet.because((Reason(code="lock-lost", message=message, remedy=remedy),))

    def release(self) -> None:
        """Releases the Lease if this run holds it. Raises ApiError; the Lease then expires by itself."""
        self._stop.set()
        if self._renewer is not None:
            self._renewer.join()
        if self._lease is not None:
            with suppress(NotFound):
                if not self._change(self._lease, _released):
                    self._left = self._lease
            self._lease = None

    def annotate(self, made: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        """Sets annotations of the Lease that this run has released, made of those that it has; nothing where it did not
        hold it to its end.

        Another run may hold it by now, and keeps it: only annotations change. Where they have changed already, a later
        run has set its own, and those stay. Raises ApiError.
        """
        if self._left is None:
            return
        annotations = made(annotated(self._left, {})["metadata"]["annotations"])
        try:
            self._kube.update(LEASES, self.name, annotated(self._left, annotations))
        except Conflict:
            lease = self._kube.get(LEASES, self.name)
            if annotated(lease, {})["metadata"]["annotations"] == annotated(self._left, {})["metadata"]["annotations"]:
                self._kube.update(LEASES, self.name, annotated(lease, annotations))

    def _take(self, write: Callable[[], Object]) -> str:
        sent_at = self._clock.now()
        try:
            self._lease = write()
        except Conflict:
            return "another run, which took it first"
        self._renewed_at = sent_at
        return ""

    def _renew_until_stopped(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            self.renew()

    def _change(self, lease: Object, change: Callable[[Object], Object]) -> str:
        """Writes the Lease that this run holds. Returns "", or why this run no longer holds it. Raises ApiError."""
        try:
            self._lease = self._kube.update(LEASES, self.name, change(lease))
        except Conflict:  # another client changed it, or an earlier write took effect but its answer was lost
            lease = self._kube.get(LEASES, self.name)
            holder = (lease.get("spec") or {}).get("holderIdentity")
            if holder != self._identity:
                return f"{holder} holds it now" if holder else "it was released"
            self._lease = self._kube.update(LEASES, self.name, change(lease))
        return ""

    def _expired(self, spec: Mapping[str, Any]) -> bool:
        now = self._clock.now()  # read after the answer, so that the Lease never seems older than it is
        if self._seen is None or self._seen[0] != spec:
            self.holder_works = self._seen is not None
            self._seen = (spec, now)
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds") or DURATION_S)

    def _renewed(self, lease: Object) -> Object:
        """The Lease with this run as its holder, renewed now."""
        before = lease.get("spec") or {}
        mine = before.get("holderIdentity") == self._identity
        now = _stamp()
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_S,
            "acquireTime": before["acquireTime"] if mine else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (not mine),
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease, "spec": {**before, **spec}}


def _released(lease: Object) -> Object:
    return {**lease, "spec": {**lease["spec"], "holderIdentity": "", "renewTime": _stamp()}}


def _stamp() -> str:
    """The current time, for people; other runs only compare it for change."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
