"""A whole run inside Kubernetes: the cluster is the fake one, with its own time; the API server is real."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from bootstrap.config import Settings
from bootstrap.errors import Forbidden, Misconfigured, NotYet, Refused
from bootstrap.kube import client as kube
from bootstrap.kube.client import KubeClient
from bootstrap.kube.integration import InKubernetes, Integration, integration_for
from bootstrap.kube.lease import DURATION_S, RENEW_DEADLINE_S, RETRY_PERIOD_S
from bootstrap.model.node import Address, Place
from bootstrap.model.steps import Rejected, Write
from bootstrap.model.view import ClusterView
from bootstrap.nodes.discover import Resolver
from bootstrap.run.reconcile import Reconciler
from bootstrap.run.report import outcome_of
from bootstrap.run.verbs import Session
from bootstrap.verify import violations
from tests.fake_cluster import FakeCluster
from tests.kube.api import Asked, KubeApi, pod
from tests.run.test_reconcile import SHAPE, Notes, run_on

Client = Callable[..., KubeClient]
SETTINGS = Settings()


class Servers(FakeCluster):
    """Six servers. Time passes in `sleep`, and every few seconds of it the Lease is renewed, as its thread does it in
    real time. Once `frozen_after` rounds of writes have been told, the run stands still for `frozen_s`.
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
        told: list[Write] = list(writes)  # type: ignore[call-overload]
        rejected = super().send(told, view)
        self.rounds += 1
        if self.rounds == self.frozen_after:
            self.time += self.frozen_s
            self.frozen()
        return rejected


@pytest.fixture
def inside(api: KubeApi, client: Client) -> Callable[..., InKubernetes]:
    """Makes the integration of runs on given servers."""
    for number in range(6):
        api.put("pods", f"redis-app-{number}", pod(f"redis-app-{number}"))

    def make(servers: Servers, *, settings: Settings = SETTINGS, log: Notes | None = None) -> InKubernetes:
        found = InKubernetes(client(), settings, clock=servers, log=log or Notes())
        servers.renew = found._lock.renew
        return found

    return make


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


def test_a_run_holds_the_lease_from_before_its_first_look_to_its_end(
    api: KubeApi, inside: Callable[..., InKubernetes]
) -> None:
    """What another run leaves half-done must not be seen, let alone mended."""
    servers = Servers()
    holders: list[str] = []
    look = servers.look

    def watched() -> ClusterView:
        holders.append(holder(api))
        assert "lease" in {thread.name for thread in threading.enumerate()}, "it is renewed meanwhile"
        return look()

    servers.look = watched  # type: ignore[method-assign]
    view = converge(inside(servers), run_on(servers))
    assert violations(view, SHAPE) == ()
    assert holders
    assert all(holders)
    assert holder(api) == ""


def test_a_second_run_waits_says_for_whom_and_leaves(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """The holder renews; at the deadline: exit code 1, the holder's name, and not one look at the servers."""
    servers, log = Servers(), Notes()
    first, second = inside(servers), inside(servers, log=log)
    servers.look = None  # type: ignore[method-assign, assignment]
    servers.renew = first._lock.renew
    first._lock.try_acquire()
    waiting = replace(run_on(servers, deadline_s=60), log=log)
    with pytest.raises(NotYet) as caught:
        converge(second, waiting)
    (reason,) = caught.value.reasons
    assert (caught.value.exit_code, reason.code) == (1, "lock-held")
    assert first._lock._identity in reason.message
    said = log.of("waiting_for_lock")
    assert 8 <= len(said) <= 14, "every few seconds"
    assert all(first._lock._identity in str(line["why"]) for line in said)
    assert servers.written == []
    assert holder(api) == first._lock._identity


def test_a_second_run_goes_on_once_the_first_is_dead(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """Its Lease runs out while the second waits, by the second's own clock."""
    servers, log = Servers(), Notes()
    dead, candidate = inside(servers), inside(servers, log=log)
    dead._lock.try_acquire()
    began = servers.time
    view = converge(candidate, replace(run_on(servers), log=log))
    assert violations(view, SHAPE) == ()
    (taken,) = log.of("lock_taken")
    assert DURATION_S <= float(str(taken["waited_s"])) <= DURATION_S + 3
    assert servers.time > began + DURATION_S


def test_a_run_that_lost_its_lease_writes_no_more(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """Frozen after each round of its writes for longer than the Lease lasts, while another run takes it: exit code 1,
    and not a single write more, not even to put a timeout back. The next run finishes.
    """
    clean = Servers()
    converge(inside(clean), run_on(clean))
    assert clean.rounds >= 4
    for number in range(1, clean.rounds):
        servers, log = Servers(), Notes()
        other = inside(servers)
        run = replace(run_on(servers), log=log)
        around = inside(servers, log=log)
        written: list[int] = []

        def frozen(servers: Servers = servers, other: InKubernetes = other, written: list[int] = written) -> None:
            written.append(len(servers.written))
            api.put("leases", "redis-bootstrap", {"spec": {"holderIdentity": "another", "leaseDurationSeconds": 15}})

        servers.frozen_after, servers.frozen = number, frozen
        with pytest.raises(NotYet) as caught:
            converge(around, run)
        assert [reason.code for reason in caught.value.reasons] == ["lock-lost"], number
        assert written == [len(servers.written)], "a write after the loss"
        assert holder(api) == "another"
        assert len(log.of("timeouts_not_put_back")) == (1 if run.lowered else 0)
        servers.renew = other._lock.renew
        view = converge(other, run_on(servers))
        assert violations(view, SHAPE) == (), number
        assert {node.timeout_ms for node in servers.nodes} == {5000}


def test_a_run_that_cannot_renew_writes_no_more(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """The API server fails from the first write on, and that write takes long. Nobody has taken the Lease, but who
    knows?
    """
    servers, log = Servers(), Notes()

    def frozen() -> None:
        api.failing["update", "leases"] = 503

    servers.frozen_after, servers.frozen_s, servers.frozen = 1, RENEW_DEADLINE_S + 0.1, frozen
    with pytest.raises(NotYet, match=r"could not be renewed for \d+ s") as caught:
        converge(inside(servers, log=log), run_on(servers))
    assert caught.value.exit_code == 1
    assert servers.rounds == 1
    (line,) = log.of("lock_not_released")
    assert line["expires_in_s"] == DURATION_S


def test_a_run_that_lost_its_lease_refuses_nothing(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """What it sees may be another run's work half done: exit code 1, to look again, not 3 for a person to decide."""
    servers = Servers()
    servers[4].keys = 1
    around, run = inside(servers), run_on(servers)
    with pytest.raises(Refused):
        converge(around, run)

    def taken(asked: Asked) -> None:
        if asked.what == ("create", "events"):
            api.meanwhile = lambda _: None
            api.put("leases", "redis-bootstrap", {"spec": {"holderIdentity": "another", "leaseDurationSeconds": 15}})

    api.objects = {key: found for key, found in api.objects.items() if key[0] != "events"}
    api.meanwhile = taken
    with pytest.raises(NotYet, match="another holds it now"):
        converge(inside(servers), run_on(servers))


def test_a_run_that_lost_its_lease_does_not_probe(inside: Callable[..., InKubernetes]) -> None:
    """The probe writes keys: it is a write like any other."""
    servers = Servers()
    around, run = inside(servers), run_on(servers)
    view = converge(around, run)
    session = Session(
        settings=replace(SETTINGS, access_service=""),
        clock=servers,
        log=Notes(),
        out=io.StringIO(),
        console=False,
        run=run,
        resolver=Resolver(()),
        integration=around,
        started_at=0.0,
    )
    with pytest.raises(NotYet, match="no longer this run's"):
        session._prove(view)


def test_an_api_that_is_down_is_waited_for(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """It answers 503 to the first questions; then the run goes on as if nothing had been."""
    servers, log = Servers(), Notes()
    api.failing["get", "leases"] = 503
    passing = servers.sleep

    def sleep(seconds: float) -> None:
        passing(seconds)
        if servers.time > 110:
            api.failing.clear()

    servers.sleep = sleep  # type: ignore[method-assign]
    view = converge(inside(servers, log=log), replace(run_on(servers), log=log))
    assert violations(view, SHAPE) == ()
    assert "HTTP 503 (get leases.coordination.k8s.io)" in str(log.of("waiting_for_lock")[0]["why"])


def test_an_api_that_stays_down_ends_the_run(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """Exit code 1 and nothing written: without the lock nobody knows who else is at work."""
    servers = Servers()
    api.failing["get", "leases"] = 503
    with pytest.raises(NotYet) as caught:
        converge(inside(servers), run_on(servers, deadline_s=20))
    (reason,) = caught.value.reasons
    assert (reason.code, servers.written) == ("lock-unavailable", [])
    assert "BOOTSTRAP_KUBERNETES=off runs without a lock" in reason.remedy


def test_a_lock_that_may_not_be_had_is_no_lock(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """403: exit code 4 at once, the right by name, nothing written."""
    servers = Servers()
    api.forbidden.add(("get", "leases"))
    with pytest.raises(Forbidden) as caught:
        converge(inside(servers), run_on(servers))
    assert (caught.value.exit_code, servers.written) == (4, [])
    assert "get leases.coordination.k8s.io" in caught.value.reasons[0].remedy


def test_the_lease_is_let_go_of_on_every_way_out(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """An error of any kind: the next run need not wait."""
    servers = Servers()
    holders: list[str] = []

    def look() -> ClusterView:
        holders.append(holder(api))
        raise ZeroDivisionError

    servers.look = look  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        converge(inside(servers), run_on(servers))
    assert (len(holders), holder(api)) == (1, "")
    assert holders[0]


def test_an_event_that_cannot_be_written_changes_nothing(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """Two warnings in the log, with the right that lacks; the run ends well."""
    servers, log = Servers(), Notes()
    api.forbidden.add(("get", "events"))
    around, run = inside(servers, log=log), run_on(servers)
    view = converge(around, run)
    around.record(outcome_of("formed", view, exit_code=0, steps=1, took_s=1.0))
    assert [line["reason"] for line in log.of("event_not_written")] == ["BootstrapStarted", "BootstrapFormed"]
    assert "get events.events.k8s.io" in str(log.of("event_not_written")[0]["why"])


def test_a_look_leaves_no_event(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """`plan` and `verify` hold nothing, write nothing, and tell nobody but their reader."""
    servers = Servers()
    inside(servers).record(outcome_of("planned", servers.look(), exit_code=0, steps=0, took_s=1.0))
    assert api.asked == []


def test_labels_are_set_where_they_are_wanted(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """At the end of a run, while the Lease is still held; unasked, no pod is touched."""
    servers = Servers()
    converge(inside(servers), run_on(servers))
    assert api.times("patch", "pods") == 0
    log = Notes()
    converge(inside(servers, settings=replace(SETTINGS, role_labels=True), log=log), run_on(servers))
    assert log.of("pods_labelled") == [{"pods": 6}]
    order = [asked.what for asked in api.asked]
    last_patch = max(number for number, what in enumerate(order) if what == ("patch", "pods"))
    assert ("update", "leases") in order[last_patch:], "let go of after the last patch"


def test_outside_of_kubernetes_there_is_nobody_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method does nothing; but labels that were asked for and cannot be set are a wrong setting."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    servers = Servers()
    around = integration_for(SETTINGS, clock=servers, log=Notes())
    run = run_on(servers)
    assert violations(converge(around, run), SHAPE) == ()
    assert around.explain(run.view) is run.view
    assert around.with_places(run.view) is run.view
    with pytest.raises(Misconfigured, match="BOOTSTRAP_ROLE_LABELS"):
        integration_for(replace(SETTINGS, role_labels=True), clock=servers, log=Notes())


def test_inside_of_a_pod_kubernetes_is_used(api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kubelet left a service account and its variables."""
    monkeypatch.setattr(kube, "ACCOUNT", api.folder)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    servers = Servers()
    around = integration_for(SETTINGS, clock=servers, log=Notes())
    assert isinstance(around, InKubernetes)
    api.put("pods", "redis-app-0", pod("redis-app-0", node="node7"))
    assert around.with_places(servers.look()).places == {"redis-app-0": Place(node="node7")}
    api.put("pods", "redis-app-0", pod("redis-app-0", node="node8"))
    assert around.with_places(servers.look()).places == {"redis-app-0": Place(node="node7")}, "asked once"
    servers[0].address = Address("10.0.9.1", 6379)
    assert around.with_places(servers.look()).places == {"redis-app-0": Place(node="node8")}, "asked again: a pod moved"
