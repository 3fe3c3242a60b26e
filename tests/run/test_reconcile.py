"""The whole loop on the fake cluster: slow gossip, lost packets, a kill at every write."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.errors import NotYet, Refused
from bootstrap.model.desired import Desired
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import AddSlots, Replicate, SetTimeout
from bootstrap.verify import violations
from tests.fake_cluster import FakeCluster, Killed
from tests.run.runs import SHAPE, Notes, masters_of, run_on, run_on_without_goodbye


@given(
    shards=st.integers(3, 7),
    replicas=st.integers(0, 2),
    seed=st.integers(0, 10**6),
    loss=st.sampled_from([0.0, 0.1, 0.4]),
)
@settings(max_examples=40, deadline=None)
def test_any_shape_forms_however_slow_the_gossip(shards: int, replicas: int, seed: int, loss: float) -> None:
    """Every shape is verified within the deadline of simulated time, and the declared timeout is restored."""
    desired = Desired(shards=shards, replicas_per_shard=replicas, timeout_ms=5000)
    cluster = FakeCluster(desired.nodes, seed=seed, loss=loss)
    view = run_on(cluster, desired).converge()
    assert violations(view, desired) == ()
    assert [node.ordinal for node in view.nodes if node.slots] == list(range(shards))
    assert {node.timeout_ms for node in cluster.nodes} == {5000}


def test_six_nodes_get_roles_in_the_order_of_their_ordinals() -> None:
    """0, 1, 2 become masters; 3, 4, 5 their replicas in order."""
    view = run_on(FakeCluster(6)).converge()
    names = masters_of(view)
    assert list(names.values()) == ["redis-app-0", "redis-app-1", "redis-app-2"]
    followed = {node.pod: names[node.myself.master_id or ""] for node in view.nodes if not node.slots}
    assert followed == {"redis-app-3": "redis-app-0", "redis-app-4": "redis-app-1", "redis-app-5": "redis-app-2"}


def test_a_second_run_writes_nothing() -> None:
    """On a healthy cluster the plan is empty and no write is sent."""
    cluster = FakeCluster(6)
    run_on(cluster).converge()
    cluster.written.clear()
    again = run_on(cluster)
    again.converge()
    assert (cluster.written, again.steps_done) == ([], 0)


def test_forming_lowers_the_timeout_only_where_one_is_declared() -> None:
    """Without a declared timeout, timeouts are unchanged; with one, they are 1000 ms while the cluster forms."""
    alone, declared = FakeCluster(6, timeout_ms=15000), FakeCluster(6, timeout_ms=15000)
    run_on(alone, Desired(shards=3, replicas_per_shard=1)).converge()
    run_on(declared).converge()
    assert not [step for step in alone.written if isinstance(step, SetTimeout)]
    assert (alone.lowest_timeout_ms, declared.lowest_timeout_ms) == (15000, 1000)


@pytest.mark.parametrize("before", [True, False], ids=["just before", "just after"])
def test_a_run_killed_at_any_write_is_finished_by_the_next(before: bool) -> None:
    """kill -9 at each write while forming, then a new run: verified, timeouts as declared, 0, 1 and 2 are masters."""
    clean = FakeCluster(6)
    run_on(clean).converge()
    assert len(clean.written) > 20
    for number in range(len(clean.written)):
        cluster = FakeCluster(6)
        cluster.kill_at, cluster.kill_before = number, before
        with pytest.raises(Killed):
            run_on_without_goodbye(cluster)
        cluster.kill_at = None
        view = run_on(cluster).converge()
        assert violations(view, SHAPE) == (), number
        assert list(masters_of(view).values()) == ["redis-app-0", "redis-app-1", "redis-app-2"], number


def test_a_run_that_ends_early_restores_the_timeouts() -> None:
    """A deadline while forming leaves no node with a lowered timeout."""
    cluster = FakeCluster(6, loss=0.97)
    with pytest.raises(NotYet):
        run_on(cluster, deadline_s=10).converge()
    assert cluster.lowest_timeout_ms == 1000
    assert {node.timeout_ms for node in cluster.nodes} == {5000}


def test_nothing_is_written_before_all_peers_answer() -> None:
    """While one peer does not answer, the run waits, names it, and ends at the deadline with exit code 1."""
    cluster = FakeCluster(6)
    cluster[4].alive = False
    run = run_on(cluster, deadline_s=30)
    with pytest.raises(NotYet) as caught:
        run.converge()
    assert cluster.written == []
    assert caught.value.exit_code == 1
    assert [reason.node for reason in caught.value.reasons] == ["redis-app-4"]
    assert isinstance(run.log, Notes)
    waits = run.log.of("waiting_for_peers")
    assert 3 <= len(waits) <= 8, "every few seconds, not at every look"
    assert "redis-app-4" in str(waits[0]["why"])
    assert "connection refused" in str(waits[0]["why"])
    assert waits[0]["remedy"] == caught.value.reasons[0].remedy


def test_the_run_waits_for_a_late_peer() -> None:
    """The run goes on as soon as the last peer answers."""
    cluster = FakeCluster(6)
    cluster[5].alive = False

    original = cluster.sleep

    def sleep(seconds: float) -> None:
        original(seconds)
        cluster[5].alive = cluster.time > 120

    cluster.sleep = sleep  # type: ignore[method-assign]
    view = run_on(cluster).converge()
    assert violations(view, SHAPE) == ()


def test_a_refusal_writes_nothing() -> None:
    """Two clusters own the same slot: every reason, exit code 3, no write."""
    cluster = FakeCluster(6)
    run_on(cluster).converge()
    for node in cluster.nodes:
        apart = {0, 3} if node.ordinal in (0, 3) else {1, 2, 4, 5}
        node.known = {k: v for k, v in node.known.items() if int(k[:2], 16) in apart}
        node.keys = 7
    cluster[1].slots |= SlotSet.of((0, 0))
    cluster.written.clear()
    with pytest.raises(Refused) as caught:
        run_on(cluster).converge()
    assert caught.value.exit_code == 3
    assert [reason.code for reason in caught.value.reasons] == ["two-clusters", "two-clusters"]
    assert cluster.written == []


def test_a_node_with_keys_outside_the_cluster_is_refused() -> None:
    """The run refuses before it writes to any node."""
    cluster = FakeCluster(6)
    cluster[4].keys = 1
    with pytest.raises(Refused) as caught:
        run_on(cluster).converge()
    assert [(reason.code, reason.node) for reason in caught.value.reasons] == [("keys-outside", "redis-app-4")]
    assert cluster.written == []


def test_no_slot_is_ever_assigned_twice() -> None:
    """While forming with lost packets, ADDSLOTS never overlap, and no owner of slots becomes a replica."""
    cluster = FakeCluster(9, seed=5, loss=0.3)
    desired = Desired(shards=3, replicas_per_shard=2, timeout_ms=5000)
    run_on(cluster, desired).converge()
    accepted = [step for step in cluster.written if step not in [no.write for no in cluster.rejected]]
    assigned = [step.slots for step in accepted if isinstance(step, AddSlots)]
    assert sum(map(len, assigned)) == 16384
    assert not {step.replica for step in accepted if isinstance(step, Replicate)} & {
        step.node for step in accepted if isinstance(step, AddSlots)
    }
