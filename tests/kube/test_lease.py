"""The Lease: races, a dead holder, a lost Lease. Time is simulated; the API server is reached over HTTPS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from bootstrap.errors import ApiError, Forbidden, NotYet
from bootstrap.kube.client import KubeClient
from bootstrap.kube.lease import DURATION_S, RENEW_DEADLINE_S, RETRY_PERIOD_S, LeaseLock
from tests.kube.api import Asked, KubeApi

Client = Callable[..., KubeClient]
Locks = Callable[..., LeaseLock]
LEASE = "redis-bootstrap"


@dataclass
class Watch:
    """A clock that a test sets."""

    time: float = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def check(self) -> None:
        """No signal arrives in these tests."""


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def lock(client: Client, watch: Watch) -> Locks:
    """Makes the locks of runs: `lock("a")`."""

    def make(identity: str, *, limit_s: float = 3.0) -> LeaseLock:
        return LeaseLock(client(limit_s=limit_s), LEASE, identity=identity, clock=watch)

    return make


def holder(api: KubeApi) -> str:
    (lease,) = api.of("leases")
    return str(lease["spec"]["holderIdentity"])


def lost(one: LeaseLock) -> str:
    """Why a run may no longer write."""
    with pytest.raises(NotYet) as caught:
        one.check()
    (reason,) = caught.value.reasons
    assert (caught.value.exit_code, reason.code) == (1, "lock-lost")
    return reason.message


def test_times_leave_room_for_writes_under_way() -> None:
    """A holder renews several times before it stops writing, and stops well before another run may take the Lease."""
    assert 2 * RETRY_PERIOD_S < RENEW_DEADLINE_S
    assert RENEW_DEADLINE_S + 6 < DURATION_S


def test_the_first_creates_the_lease_and_the_second_learns_the_holder(api: KubeApi, lock: Locks) -> None:
    """The second learns who holds it and since when, and has written nothing."""
    first, second = lock("a"), lock("b")
    assert first.try_acquire() == ""
    first.check()
    (lease,) = api.of("leases")
    assert lease["spec"]["leaseDurationSeconds"] == DURATION_S
    assert second.try_acquire() == f"a, since {lease['spec']['acquireTime']}"
    assert api.of("leases") == [lease]
    assert "this run no longer holds the Lease" in lost(second)


def test_a_released_lease_is_taken_immediately(api: KubeApi, lock: Locks) -> None:
    """The Lease stays without a holder; taking it counts one more transition."""
    first, second = lock("a"), lock("b")
    first.try_acquire()
    first.release()
    assert holder(api) == ""
    assert second.try_acquire() == ""
    assert (holder(api), api.of("leases")[0]["spec"]["leaseTransitions"]) == ("b", 2)
    assert "no longer" in lost(first), "a run that has released the Lease may not write"


def test_of_many_concurrent_runs_one_takes_the_lease(api: KubeApi, client: Client, watch: Watch) -> None:
    """Twelve runs race for a Lease that does not exist yet, then for a free one: each time exactly one wins."""
    for _ in range(3):
        locks = [LeaseLock(client(), LEASE, identity=f"run-{number}", clock=watch) for number in range(12)]
        with ThreadPoolExecutor(len(locks)) as pool:
            answers = list(pool.map(LeaseLock.try_acquire, locks))
        (winner,) = [number for number, answer in enumerate(answers) if answer == ""]
        assert holder(api) == f"run-{winner}"
        locks[winner].release()


def test_a_run_that_writes_between_another_s_read_and_write_wins(api: KubeApi, lock: Locks) -> None:
    """The Lease is free when it is read, and taken when it is written: 409, and nothing is overwritten."""
    first, second, third = lock("a"), lock("b"), lock("c")
    first.try_acquire()
    first.release()

    def meanwhile(asked: Asked) -> None:
        if asked.what == ("update", "leases") and holder(api) == "":
            api.meanwhile = lambda _: None
            assert third.try_acquire() == ""

    api.meanwhile = meanwhile
    assert second.try_acquire() == "another run, which took it first"
    assert holder(api) == "c"


def test_a_dead_holder_s_lease_expires(api: KubeApi, lock: Locks, watch: Watch) -> None:
    """After its duration, from when the waiting run first saw it. A holder that wakes up later may not write."""
    dead, candidate = lock("dead"), lock("next")
    dead.try_acquire()
    watch.time += 3600  # the waiting run has not observed this time
    assert candidate.try_acquire().startswith("dead, since")
    watch.time += DURATION_S
    assert candidate.try_acquire().startswith("dead, since")
    watch.time += 0.1
    assert candidate.try_acquire() == ""
    assert holder(api) == "next"
    dead.renew()
    assert "next holds it now" in lost(dead)


def test_a_holder_that_renews_keeps_it(api: KubeApi, lock: Locks, watch: Watch) -> None:
    """However long the other waits: it watches for changes, and does not compare the holder's clock with its own."""
    first, second = lock("a"), lock("b")
    first.try_acquire()
    for _ in range(20):
        watch.time += DURATION_S - 1
        first.renew()
        assert second.try_acquire().startswith("a, since")
        first.check()
    lease = api.of("leases")[0]
    api.put("leases", LEASE, {**lease, "spec": {**lease["spec"], "renewTime": "1970-01-01T00:00:00.000000Z"}})
    assert second.try_acquire().startswith("a, since"), "a wrong clock does not mean a dead holder"


def test_a_holder_that_cannot_renew_stops_before_anyone_takes_it(api: KubeApi, lock: Locks, watch: Watch) -> None:
    """Renewals fail: after RENEW_DEADLINE_S it may not write, with the cause named. After a renewal it may again."""
    one = lock("a")
    one.try_acquire()
    api.failing["update", "leases"] = 503
    watch.time += RENEW_DEADLINE_S
    one.renew()
    one.check()
    watch.time += 0.1
    message = lost(one)
    assert "could not be renewed for 8 s" in message
    assert "HTTP 503" in message
    api.failing.clear()
    one.renew()
    one.check()


def test_a_renewal_without_an_answer_is_no_loss(api: KubeApi, lock: Locks, watch: Watch) -> None:
    """It took effect, so the version differs from the one this run knows: the run reads the Lease and keeps it."""
    one = lock("a", limit_s=1.5)
    one.try_acquire()
    api.silent.add(("update", "leases"))
    one.renew()
    api.silent.clear()
    watch.time += RENEW_DEADLINE_S - 1
    one.renew()
    watch.time += RENEW_DEADLINE_S - 1
    one.check()
    one.release()
    assert holder(api) == ""


def test_a_first_write_without_an_answer_is_found_again(api: KubeApi, lock: Locks) -> None:
    """The Lease was created but the answer was lost: the next attempt finds its own name on it."""
    one = lock("a", limit_s=1.5)
    api.silent.add(("create", "leases"))
    with pytest.raises(ApiError, match="does not answer"):
        one.try_acquire()
    assert one.try_acquire() == ""
    assert api.of("leases")[0]["spec"]["leaseTransitions"] == 1


def test_an_edited_lease_is_still_the_holder_s(api: KubeApi, lock: Locks) -> None:
    """An annotation changes the version and not the holder. It stays."""
    one = lock("a")
    one.try_acquire()
    lease = api.of("leases")[0]
    api.put("leases", LEASE, {**lease, "metadata": {**lease["metadata"], "annotations": {"note": "mine"}}})
    one.renew()
    one.check()
    assert api.of("leases")[0]["metadata"]["annotations"] == {"note": "mine"}


def outcome_at(api: KubeApi) -> dict[str, str]:
    (lease,) = api.of("leases")
    return dict(lease["metadata"].get("annotations", {}))


def test_an_outcome_stays_at_the_released_lease(api: KubeApi, lock: Locks) -> None:
    """Also where the next run holds it by then, which keeps it and the annotations."""
    first, second = lock("a"), lock("b")
    first.try_acquire()
    first.annotate(lambda _: {"outcome": "too early"})
    assert outcome_at(api) == {}
    first.release()
    first.annotate(lambda _: {"outcome": "formed"})
    assert (holder(api), outcome_at(api)) == ("", {"outcome": "formed"})
    first.try_acquire()
    first.release()
    second.try_acquire()
    first.annotate(lambda _: {"outcome": "repaired"})
    second.renew()
    second.check()
    assert (holder(api), outcome_at(api)) == ("b", {"outcome": "repaired"})


def test_the_outcome_of_a_later_run_stays(api: KubeApi, lock: Locks) -> None:
    """A run that was slow to report does not replace it."""
    first, second = lock("a"), lock("b")
    for one in (first, second):
        one.try_acquire()
        one.release()
    second.annotate(lambda _: {"outcome": "the later one"})
    first.annotate(lambda _: {"outcome": "the earlier one"})
    assert outcome_at(api) == {"outcome": "the later one"}


def test_a_run_that_lost_the_lease_leaves_no_outcome(api: KubeApi, lock: Locks, watch: Watch) -> None:
    """Nor does one that never held it: the outcome is that of the run that worked."""
    first, second = lock("a"), lock("b")
    first.try_acquire()
    second.try_acquire()
    watch.time += DURATION_S + 1
    assert second.try_acquire() == ""
    first.renew()
    for one in (first, lock("c")):
        one.release()
        one.annotate(lambda _: {"outcome": "failed"})
    assert (holder(api), outcome_at(api)) == ("b", {})


def test_a_deleted_lease_is_lost(api: KubeApi, lock: Locks) -> None:
    """Another run may create a new one, so this run does not."""
    one = lock("a")
    one.try_acquire()
    api.objects.clear()
    one.renew()
    assert "it was deleted" in lost(one)
    one.release()
    assert api.of("leases") == []


def test_a_lost_lease_is_not_released(api: KubeApi, lock: Locks, watch: Watch) -> None:
    """Releasing the Lease of another run would let a third run in."""
    first, second = lock("a"), lock("b")
    first.try_acquire()
    second.try_acquire()
    watch.time += DURATION_S + 1
    second.try_acquire()
    first.release()
    assert holder(api) == "b"


def test_it_is_renewed_in_the_background_until_it_is_released(api: KubeApi, lock: Locks) -> None:
    """A thread renews it and ends at the release."""
    one = lock("a")
    one.try_acquire()
    renewed = threading.Semaphore(0)
    api.meanwhile = lambda asked: renewed.release() if asked.what == ("update", "leases") else None
    one.start_renewing(every_s=0.01)
    assert all(renewed.acquire(timeout=10) for _ in range(3)), "three renewals"
    one.release()
    assert holder(api) == ""
    assert "lease" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("verb", ["get", "create"])
def test_a_missing_right_is_named(api: KubeApi, lock: Locks, verb: str) -> None:
    """Exit code 4: a run without its lock would not be safe."""
    api.forbidden.add((verb, "leases"))
    with pytest.raises(Forbidden, match=rf"{verb} leases\.coordination\.k8s\.io"):
        lock("a").try_acquire()
