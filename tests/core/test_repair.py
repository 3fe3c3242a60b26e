"""Repair on the fake cluster: from each state back to the declared shape, killed at any write, without losing a key."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bootstrap.errors import Refused
from bootstrap.model import Address, Desired
from bootstrap.slots import SlotSet
from bootstrap.steps import AddSlots, Failover, Forget, SetTimeout
from bootstrap.verify import violations
from tests.builders import formed, shape
from tests.core.test_execute import run_on, run_on_without_goodbye
from tests.fake_cluster import FakeCluster, FakeNode, Killed

SHAPE = Desired(shards=3, replicas_per_shard=1, timeout_ms=5000)


def healthy() -> FakeCluster:
    """Six nodes, formed, with keys on every shard: the copies of a shard hold the same number."""
    cluster = formed(shape(3, 1, 5000))
    for node in cluster.nodes:
        node.keys, node.offset = 10 + node.ordinal % 3, 100
    return cluster


def wipe(cluster: FakeCluster, ordinal: int) -> FakeNode:
    """The pod comes back elsewhere, without its disk: a new id that knows nobody."""
    old = cluster[ordinal]
    new = cluster._blank(ordinal)
    new.address = Address(f"10.0.1.{ordinal + 1}", 6379)
    cluster.nodes[ordinal] = new
    for node in cluster.nodes:
        if old.node_id in node.known:
            node.known[old.node_id].connected = False
    return new


def move(cluster: FakeCluster, *ordinals: int) -> None:
    """The pods come back at other addresses, with their disks."""
    for ordinal in ordinals:
        node = cluster[ordinal]
        node.address = Address(f"10.0.2.{ordinal + 1}", 6379)
        for other in cluster.nodes:
            if node.node_id in other.known:
                other.known[node.node_id].connected = False
        for known in node.known.values():
            known.connected = False
    for node in cluster.nodes:
        node.link_up = node.link_up and node.master is None


def move_all(cluster: FakeCluster) -> None:
    move(cluster, *range(6))


def move_one(cluster: FakeCluster) -> None:
    move(cluster, 1)


def lose_a_replica(cluster: FakeCluster) -> None:
    wipe(cluster, 4)


def lose_a_master(cluster: FakeCluster) -> None:
    wipe(cluster, 1)


def lose_a_majority(cluster: FakeCluster) -> None:
    wipe(cluster, 0)
    wipe(cluster, 1)


def lose_a_master_and_move_the_rest(cluster: FakeCluster) -> None:
    move_all(cluster)
    wipe(cluster, 2)


def leave_a_ghost(cluster: FakeCluster) -> None:
    from tests.fake_cluster import Known

    for ordinal in (0, 2, 5):
        cluster[ordinal].known["e" * 40] = Known(Address("10.0.9.9", 6379))


def fall_apart(cluster: FakeCluster) -> None:
    for node in cluster.nodes:
        mine = {0, 3} if node.ordinal in (0, 3) else {1, 2, 4, 5}
        node.known = {k: v for k, v in node.known.items() if int(k[:2], 16) in mine}


def follow_the_wrong_master(cluster: FakeCluster) -> None:
    cluster[4].master = cluster[0].node_id


HURTS: dict[str, Callable[[FakeCluster], None]] = {
    "all pods moved": move_all,
    "one pod moved": move_one,
    "a replica lost its disk": lose_a_replica,
    "a master lost its disk": lose_a_master,
    "two of three masters lost their disks": lose_a_majority,
    "a master lost its disk while all moved": lose_a_master_and_move_the_rest,
    "a ghost is left": leave_a_ghost,
    "the cluster fell apart": fall_apart,
    "a replica follows the wrong master": follow_the_wrong_master,
}
every_hurt = pytest.mark.parametrize("hurt", HURTS.values(), ids=HURTS)


def keys_by_slot(cluster: FakeCluster) -> dict[int, int]:
    """How many keys the shard of each range's first slot holds: what must be the same after a repair."""
    return {first: node.keys for node in cluster.nodes for first, _ in node.slots.ranges}


@every_hurt
def test_a_run_heals_it_and_a_second_run_changes_nothing(hurt: Callable[[FakeCluster], None]) -> None:
    """Verified, every shard with the keys it had, and then: unchanged."""
    cluster = healthy()
    before = keys_by_slot(cluster)
    hurt(cluster)
    view = run_on(cluster).converge()
    assert violations(view, SHAPE) == ()
    assert keys_by_slot(cluster) == before
    assert not [step for step in cluster.written if isinstance(step, AddSlots | SetTimeout)]
    cluster.written.clear()
    run_on(cluster).converge()
    assert cluster.written == []


@every_hurt
@pytest.mark.parametrize("before_it", [True, False], ids=["just before", "just after"])
def test_a_repair_killed_at_any_write_is_finished_by_the_next(
    hurt: Callable[[FakeCluster], None], before_it: bool
) -> None:
    """kill -9 at each single write, then a new run: verified, and no key lost."""
    whole = healthy()
    hurt(whole)
    run_on(whole).converge()
    assert whole.written
    for number in range(len(whole.written)):
        cluster = healthy()
        before = keys_by_slot(cluster)
        hurt(cluster)
        cluster.kill_at, cluster.kill_before = number, before_it
        try:
            run_on_without_goodbye(cluster)
        except Killed:
            cluster.kill_at = None
        view = run_on(cluster).converge()
        assert violations(view, SHAPE) == (), number
        assert keys_by_slot(cluster) == before, number


@pytest.mark.parametrize("seed", range(60))
def test_it_heals_however_slow_and_lossy_the_gossip(seed: int) -> None:
    """Several hurts at once, a third of all packets lost, one-way introductions; the seed is the test's name."""
    cluster = healthy()
    cluster.random.seed(seed)
    cluster.loss = cluster.random.choice([0.0, 0.1, 0.35])
    before = keys_by_slot(cluster)
    for hurt in cluster.random.sample([move_all, move_one, leave_a_ghost, fall_apart, lose_a_replica], 3):
        hurt(cluster)
    view = run_on(cluster).converge()
    assert violations(view, SHAPE) == ()
    assert keys_by_slot(cluster) == before


def test_the_majority_elects_and_nobody_is_told_to() -> None:
    """With two masters of three left, the servers' own election does it; the lost id is forgotten only afterwards."""
    cluster = healthy()
    lost = cluster[1].node_id
    lose_a_master(cluster)
    run_on(cluster).converge()
    assert not [step for step in cluster.written if isinstance(step, Failover)]
    assert [step.lost for step in cluster.written if isinstance(step, Forget)] == [lost] * 5
    assert cluster[4].slots
    assert cluster[1].master == cluster[4].node_id


def test_without_a_majority_the_best_replica_takes_over() -> None:
    """One master of three is left and cannot vote alone: TAKEOVER, by the replica with the greatest offset."""
    cluster = healthy()
    lose_a_majority(cluster)
    run_on(cluster).converge()
    takeovers = [step for step in cluster.written if isinstance(step, Failover)]
    assert {step.heir for step in takeovers} == {cluster[3].node_id, cluster[4].node_id}
    assert all(step.takeover for step in takeovers)


def test_a_shard_without_a_copy_is_given_up_only_for_that_very_state() -> None:
    """Refused, then accepted with the fingerprint; any other fingerprint is refused as well."""
    cluster = healthy()
    wipe(cluster, 1)
    wipe(cluster, 4)
    with pytest.raises(Refused) as caught:
        run_on(cluster).converge()
    (reason,) = caught.value.reasons
    assert reason.code == "slots-lost"
    assert "5461-10922" in reason.message
    assert f"--accept-loss {cluster.look().fingerprint()}" in reason.remedy
    assert cluster.written == []
    with pytest.raises(Refused):
        run_on(cluster, Desired(shards=3, replicas_per_shard=1, accept_loss="0" * 12)).converge()
    accepted = Desired(shards=3, replicas_per_shard=1, timeout_ms=5000, accept_loss=cluster.look().fingerprint())
    view = run_on(cluster, accepted).converge()
    assert violations(view, SHAPE) == ()
    assert SlotSet.union_of(n.slots for n in cluster.nodes if n.ordinal in (1, 4)) == SlotSet.of((5461, 10922))


def test_all_blank_pods_form_anew() -> None:
    """Every disk went with its pod (emptyDir): nothing is left to lose, and the cluster is formed anew."""
    cluster = healthy()
    for ordinal in range(6):
        wipe(cluster, ordinal)
    view = run_on(cluster).converge()
    assert violations(view, SHAPE) == ()
    assert [node.ordinal for node in view.nodes if node.slots] == [0, 1, 2]
