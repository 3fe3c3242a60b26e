"""What the tests of runs inside Kubernetes share: six servers with simulated time, and a run as `apply` does it."""

from __future__ import annotations

from collections.abc import Callable

from bootstrap.config import Settings
from bootstrap.kube.integration import Integration
from bootstrap.kube.lease import DURATION_S, RETRY_PERIOD_S
from bootstrap.model.steps import Rejected, Write
from bootstrap.model.view import ClusterView
from bootstrap.run.reconcile import Reconciler
from tests.fake_cluster import FakeCluster
from tests.kube.api import KubeApi

SETTINGS = Settings()


class Servers(FakeCluster):
    """Six servers. Time passes in `sleep`, which renews the Lease every few seconds, as a thread does in real time.
    After `frozen_after` rounds of writes the run stands still for `frozen_s` seconds.
    """

    def __init__(self) -> None:
        super().__init__(6)
        self.renew: Callable[[], None] = lambda: None
        self.frozen_after, self.frozen_s = -1, DURATION_S + 1.0
        self.frozen: Callable[[], None] = lambda: None
        self.rounds = 0
        self._renew_at = self.time

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.time >= self._renew_at:
            self._renew_at = self.time + RETRY_PERIOD_S
            self.renew()

    def send(self, writes: object, view: ClusterView) -> list[Rejected]:
        sent: list[Write] = list(writes)  # type: ignore[call-overload]
        rejected = super().send(sent, view)
        self.rounds += 1
        if self.rounds == self.frozen_after:
            self.time += self.frozen_s
            self.frozen()
        return rejected


def converge(around: Integration, run: Reconciler) -> ClusterView:
    """As `apply` does it."""
    run.check_lock = around.check_lock
    with around.locked(run.deadline):
        view = run.converge()
        around.label(run.view)
        return view


def holder(api: KubeApi) -> str:
    (lease,) = api.of("leases")
    return str(lease["spec"]["holderIdentity"])
