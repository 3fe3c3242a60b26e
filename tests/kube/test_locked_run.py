"""The lock of a whole run: a fake cluster with simulated time, and an API server over HTTPS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from bootstrap.errors import Busy, Forbidden, NotYet, Refused
from bootstrap.kube.in_kubernetes import InKubernetes
from bootstrap.kube.lease import DURATION_S, RENEW_DEADLINE_S
from bootstrap.model.view import ClusterView
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.discover import Resolver
from bootstrap.run.access import Access
from bootstrap.verify import violations
from tests.kube.api import Asked, KubeApi
from tests.kube.servers import SETTINGS, Servers, converge, holder
from tests.run.runs import SHAPE, Notes, run_on


def test_a_run_holds_the_lease_from_before_its_first_look_to_its_end(
    api: KubeApi, inside: Callable[..., InKubernetes]
) -> None:
    """A run must not see the half-done work of another run, let alone repair it."""
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


def test_a_second_run_waits_names_the_holder_and_ends(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """The holder renews; at the deadline the second ends with exit code 1 and the holder's name, without a look."""
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
    waits = log.of("waiting_for_lock")
    assert 8 <= len(waits) <= 14, "every few seconds"
    assert all(first._lock._identity in str(line["why"]) for line in waits)
    assert servers.written == []
    assert holder(api) == first._lock._identity


def test_a_run_that_shall_not_wait_leaves_a_run_at_work_alone(
    api: KubeApi, inside: Callable[..., InKubernetes]
) -> None:
    """Once it has seen the other one renew the Lease: exit code 0, nothing looked at, nothing written."""
    servers, log = Servers(), Notes()
    first = inside(servers)
    second = inside(servers, log=log, settings=replace(SETTINGS, when_locked="leave"))
    servers.look = None  # type: ignore[method-assign, assignment]
    servers.renew = first._lock.renew
    first._lock.try_acquire()
    began = servers.time
    with pytest.raises(Busy) as caught:
        converge(second, replace(run_on(servers, deadline_s=60), log=log))
    (reason,) = caught.value.reasons
    assert (caught.value.exit_code, reason.code) == (0, "lock-held")
    assert servers.time < began + DURATION_S
    assert (servers.written, holder(api)) == ([], first._lock._identity)


def test_a_run_that_shall_not_wait_takes_the_lease_of_a_dead_one(
    api: KubeApi, inside: Callable[..., InKubernetes]
) -> None:
    """A run that was killed is not at work, however long its Lease lasts."""
    servers = Servers()
    dead, candidate = inside(servers), inside(servers, settings=replace(SETTINGS, when_locked="leave"))
    dead._lock.try_acquire()
    assert violations(converge(candidate, run_on(servers)), SHAPE) == ()


def test_a_second_run_goes_on_once_the_first_is_dead(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """Its Lease expires while the second waits, by the second's own clock."""
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
    """Each round of writes in turn is followed by a pause longer than the Lease lasts, in which another run takes it.

    Exit code 1 and no further write, not even to restore a timeout. The next run finishes.
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
        assert len(log.of("timeouts_not_put_back")) == (1 if run.temporary.pending else 0)
        servers.renew = other._lock.renew
        view = converge(other, run_on(servers))
        assert violations(view, SHAPE) == (), number
        assert {node.timeout_ms for node in servers.nodes} == {5000}


def test_a_run_that_cannot_renew_writes_no_more(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """The API server fails after the first write, which takes long. Another run may have the Lease by then."""
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
    assert "kubectl get --raw /readyz" in str(line["remedy"])


def test_a_run_that_lost_its_lease_refuses_nothing(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """It may see the half-done work of another run: exit code 1 to look again, not 3 for a person to decide."""
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
    """The probe writes keys, so it needs the lock like any other write."""
    servers = Servers()
    around, run = inside(servers), run_on(servers)
    view = converge(around, run)
    access = Access(
        settings=replace(SETTINGS, access_service=""),
        resolver=Resolver(()),
        credentials=Credentials(),
        clock=servers,
        log=Notes(),
    )
    with pytest.raises(NotYet, match="no longer holds the Lease"):
        access.prove(view, servers, deadline=run.deadline, check_lock=run.check_lock)


def test_an_api_that_is_down_is_waited_for(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """It answers 503 to the first requests; then the run goes on."""
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
    """Exit code 1 and nothing written: without the lock, another run may be writing."""
    servers = Servers()
    api.failing["get", "leases"] = 503
    with pytest.raises(NotYet) as caught:
        converge(inside(servers), run_on(servers, deadline_s=20))
    (reason,) = caught.value.reasons
    assert (reason.code, servers.written) == ("lock-unavailable", [])
    assert "BOOTSTRAP_KUBERNETES=off runs without a lock" in reason.remedy


def test_a_missing_right_to_the_lock_ends_the_run(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """403: exit code 4 immediately, with the missing right by name, and nothing written."""
    servers = Servers()
    api.forbidden.add(("get", "leases"))
    with pytest.raises(Forbidden) as caught:
        converge(inside(servers), run_on(servers))
    assert (caught.value.exit_code, servers.written) == (4, [])
    assert "get leases.coordination.k8s.io" in caught.value.reasons[0].remedy


def test_the_lease_is_released_on_every_way_out(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """After an error of any kind the next run does not have to wait."""
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
