"""A Lease held for the whole run, so that two runs never write at once.

It is taken before the first look, not before the first write: what a run sees half-done by another looks like damage,
and would be refused or mended. On a healthy cluster that costs three requests, less than a hundredth of the run.

A holder renews every few seconds. Whoever wants the Lease takes it when it was let go of, or when it did not change for
as long as it says, by the clock of the one who waits: no two machines' clocks are compared. Whoever holds it stops
trusting it sooner than that, so that a write which was begun is over before another run begins. Every change is made
against the `resourceVersion` that was read: of two who come at once, Kubernetes turns one away.

| seconds | |
|---|---|
| every `RENEW_EVERY_S` | the holder renews |
| `TRUST_S` after the last renewal was sent | the holder no longer writes |
| `DURATION_S` after it was last seen to change | somebody else takes it |

The time between the last two is more than any round of writes takes (`nodes`: 3 s for each 64 nodes, if they hang).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from bootstrap.clock import Clock
from bootstrap.errors import ApiError, Conflict, NotFound, NotYet, Reason
from bootstrap.kube.client import LEASES, KubeClient, Object

DURATION_S = 15
RENEW_DEADLINE_S = 8.0
RETRY_PERIOD_S = 3.0
_LABELS = {"app.kubernetes.io/name": "redis-bootstrap", "app.kubernetes.io/component": "bootstrap"}


class LeaseLock:
    """One run's side of a Lease. `identity` is this run's name on it, and no other run's."""

    def __init__(self, kube: KubeClient, name: str, *, identity: str, clock: Clock) -> None:
        self.name = name
        self._kube = kube
        self._identity = identity
        self._clock = clock
        self._lease: Object | None = None
        """The Lease as this run last wrote it; None while it is not this run's."""
        self._seen: tuple[Mapping[str, Any], float] | None = None
        """What somebody else's Lease said, and since when it says that."""
        self._renewed_at = 0.0
        self._lost = ""
        self._trouble = ""
        self._over = threading.Event()
        self._keeper: threading.Thread | None = None

    def try_acquire(self) -> str:
        """Takes the Lease if it is free; returns "" once it is this run's, else who holds it. Raises ApiError."""
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
        """Renews in the background from now on."""
        self._keeper = threading.Thread(target=self._keep, args=(every_s,), daemon=True, name="lease")
        self._keeper.start()

    def renew(self) -> None:
        """One renewal. One that fails is tried again a moment later; what it comes to, `check` says."""
        if self._lease is None:
            return
        sent_at = self._clock.now()
        try:
            self._lost = self._change(self._lease, self._renewed)
        except NotFound:
            self._lost = "somebody deleted it"
        except ApiError as error:
            self._trouble = str(error)
        else:
            self._renewed_at, self._trouble = sent_at, ""
        if self._lost:
            self._lease = None

    def check(self) -> None:
        """Raises NotYet once this run may no longer write."""
        age_s = self._clock.now() - self._renewed_at
        lost = self._lost
        if not lost and (self._lease is None or age_s > RENEW_DEADLINE_S):
            lost = f"it could not be renewed for {age_s:.0f} s" + (self._trouble and f": {self._trouble}")
        if lost:
            message = f"the Lease {self.name} is no longer this run's: {lost}"
            remedy = "nothing: the run that holds the Lease goes on from here, or the next one does"
            raise NotYet.because((Reason(code="lock-lost", message=message, remedy=remedy),))

    def release(self) -> None:
        """Lets go of the Lease, if it is this run's. Raises ApiError; then it expires by itself."""
        self._over.set()
        if self._keeper is not None:
            self._keeper.join()
        if self._lease is not None:
            with suppress(NotFound):
                self._change(self._lease, _freed)
            self._lease = None

    def _take(self, write: Callable[[], Object]) -> str:
        sent_at = self._clock.now()
        try:
            self._lease = write()
        except Conflict:
            return "another run that came first"
        self._renewed_at = sent_at
        return ""

    def _keep(self, every_s: float) -> None:
        while not self._over.wait(every_s):
            self.renew()

    def _change(self, lease: Object, change: Callable[[Object], Object]) -> str:
        """Writes the Lease that is this run's; returns "" or, where it no longer is, who has it. Raises ApiError."""
        try:
            self._lease = self._kube.update(LEASES, self.name, change(lease))
        except Conflict:  # somebody edited or took it, or an earlier write got through whose answer did not
            lease = self._kube.get(LEASES, self.name)
            holder = (lease.get("spec") or {}).get("holderIdentity")
            if holder != self._identity:
                return f"{holder or 'nobody'} holds it now"
            self._lease = self._kube.update(LEASES, self.name, change(lease))
        return ""

    def _expired(self, spec: Mapping[str, Any]) -> bool:
        now = self._clock.now()  # after the answer: it may not seem to be older than it is
        if self._seen is None or self._seen[0] != spec:
            self._seen = (spec, now)
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds") or DURATION_S)

    def _renewed(self, lease: Object) -> Object:
        """The Lease as it says that this run holds it from now on."""
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


def _freed(lease: Object) -> Object:
    return {**lease, "spec": {**lease["spec"], "holderIdentity": "", "renewTime": _stamp()}}


def _stamp() -> str:
    """Now, for people to read and for others to see that something changed."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
