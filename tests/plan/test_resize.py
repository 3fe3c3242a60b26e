"""Resizes on the fake cluster: few slots move, no key is lost, and the next run finishes a killed one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from bootstrap.errors import NotYet, Refused
from bootstrap.model.desired import Desired
from bootstrap.model.memory import Memory
from bootstrap.model.node import Address, Node
from bootstrap.model.plan import Plan
from bootstrap.model.slots import SLOT_COUNT
from bootstrap.model.steps import Leave, ManualFailover, MoveKeys
from bootstrap.model.view import ClusterView
from bootstrap.plan.planner import plan
from bootstrap.plan.rebalance import skew
from bootstrap.verify import violations
from tests.builders import formed, shape, with_node
from tests.fake_cluster import FakeCluster, FakeNode, Killed, Known
from tests.plan.damage import in_step, uneven, wipe
from tests.run.runs import run_on, run_on_without_goodbye

KEYS = {slot: 2 + slot % 3 for slot in range(40, SLOT_COUNT, 790)}
"""The number of keys in some slots."""
SHAPES = [
    ((3, 1), (4, 1)),
    ((3, 1), (5, 1)),
    ((3, 1), (3, 2)),
    ((3, 0), (3, 1)),
    ((3, 1), (4, 2)),
    ((4, 1), (3, 1)),
    ((5, 1), (3, 1)),
    ((3, 2), (3, 1)),
    ((4, 2), (3, 1)),
    ((4, 1), (3, 2)),
    ((6, 0), (3, 1)),
    ((3, 2), (5, 1)),
]
resized = pytest.mark.parametrize(("before", "after"), SHAPES, ids=lambda pair: f"{pair[0]}x{pair[1]}")


def holding(desired: Desired) -> FakeCluster:
    """A good cluster with keys in some slots of every shard."""
    cluster = formed(desired)
    for node in cluster.nodes:
        if node.slots:
            node.in_slot = {slot: keys for slot, keys in KEYS.items() if slot in node.slots}
            node.keys = sum(node.in_slot.values())
    cluster.sleep(1)
    return cluster


def with_pods_for(cluster: FakeCluster, desired: Desired) -> FakeCluster:
    """Adds the blank pods that the greater shape takes."""
    while len(cluster.nodes) < desired.nodes:
        cluster.nodes.append(cluster._blank(len(cluster.nodes)))
    return cluster


def keys_of(cluster: FakeCluster) -> dict[int, int]:
    """The keys that clients find: those of each slot at its owner."""
    owner = {slot: node for node in cluster.nodes for slot in KEYS if slot in node.slots}
    return {slot: owner[slot].in_slot.get(slot, 0) for slot in KEYS}


def assert_good(cluster: FakeCluster, view: ClusterView, desired: Desired) -> None:
    assert violations(view, desired) == ()
    assert keys_of(cluster) == KEYS
    assert skew(view, desired).slots_percent < 0.1
    assert all(node.blank for node in view.spares)


@resized
def test_a_cluster_takes_another_shape(before: tuple[int, int], after: tuple[int, int]) -> None:
    """Verified, even, with every key; pods beyond the shape are blank, and a second run changes nothing."""
    desired = shape(*after)
    cluster = with_pods_for(holding(shape(*before)), desired)
    assert_good(cluster, run_on(cluster, desired).converge(), desired)
    spare = [node for node in cluster.look().nodes if node.ordinal >= desired.nodes]
    assert all(node.blank for node in spare)
    cluster.written.clear()
    run_on(cluster, desired).converge()
    assert cluster.written == []


@resized
@pytest.mark.parametrize("before_it", [True, False], ids=["just before", "just after"])
def test_a_resize_killed_at_a_write_is_finished_by_the_next(
    before: tuple[int, int], after: tuple[int, int], before_it: bool
) -> None:
    """kill -9 at every third write, then a new run: verified, even enough, with every key."""
    desired = shape(*after)
    whole = with_pods_for(holding(shape(*before)), desired)
    run_on(whole, desired).converge()
    for number in range(int(before_it), len(whole.written), 3):
        cluster = with_pods_for(holding(shape(*before)), desired)
        cluster.kill_at, cluster.kill_before = number, before_it
        with suppress(Killed):
            run_on_without_goodbye(cluster, desired)
        cluster.kill_at = None
        assert_tolerable(cluster, run_on(cluster, desired).converge(), desired)


def assert_tolerable(cluster: FakeCluster, view: ClusterView, desired: Desired) -> None:
    """After a kill a few slots may stay: no shard is off its share by more than the threshold."""
    assert violations(view, desired) == ()
    assert keys_of(cluster) == KEYS
    assert skew(view, desired).slots_percent <= desired.threshold_percent


def test_clients_lose_nothing_when_many_things_happen_at_the_same_time() -> None:
    """Lost packets, kills, a lost disk, pods that go missing and come back, and another shape before the first one is
    reached.
    """
    for seed in range(int(os.environ.get("RESIZE_SEEDS", "25"))):
        try:
            simulate(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def simulate(seed: int) -> None:
    cluster = holding(shape(3, 1))
    cluster.random.seed(seed)
    chance = cluster.random
    cluster.loss = chance.choice([0.0, 0.1, 0.3])
    for _ in range(3):
        desired = shape(*chance.choice([(3, 1), (4, 1), (3, 2), (5, 1), (4, 2)]))
        with_pods_for(cluster, desired)
        cluster.kill_at = len(cluster.written) + chance.randint(0, 60)
        cluster.kill_before = chance.random() < 0.5
        missing = miss_some(cluster)
        with suppress(Killed, NotYet):
            run_on_without_goodbye(cluster, desired, deadline_s=40.0 if missing else 300.0)
        cluster.kill_at = None
        for node in missing:
            node.alive = True
        if chance.random() < 0.3:
            replicas = [node.ordinal for node in cluster.nodes if node.master and node.link_up]
            wipe(cluster, chance.choice(replicas)) if replicas else None
    assert_tolerable(cluster, run_on(cluster, desired).converge(), desired)


def miss_some(cluster: FakeCluster) -> list[FakeNode]:
    """Sometimes one or two nodes do not answer. Masters with open slots do: the servers' own election of their
    replicas forgets what they were moving, on Redis 7.0.
    """
    if cluster.random.random() < 0.5:
        return []
    nodes = [node for node in cluster.nodes if not (node.migrating or node.importing)]
    missing = cluster.random.sample(nodes, cluster.random.randint(1, 2))
    in_step(cluster)
    for node in missing:
        node.alive = False
    return missing


def test_slots_leave_only_masters_that_have_too_many() -> None:
    """A fourth shard takes 4096 slots from the three others in equal parts, and no other slot moves."""
    desired = shape(4, 1)
    cluster = with_pods_for(holding(shape(3, 1)), desired)
    view = run_on(cluster, desired).converge()
    assert [len(node.slots) for node in view.nodes if node.slots] == [4096] * 4
    assert [node.ordinal for node in view.nodes if node.slots] == [0, 1, 2, 6]
    old = [node.slots for node in formed(shape(3, 1)).nodes[:3]]
    assert all(not cluster[ordinal].slots - old[ordinal] for ordinal in range(3))


def test_a_master_that_leaves_fails_over_to_its_replica() -> None:
    """The number of shards stays, so no slot moves: the master on the highest ordinal is replaced by its replica."""
    cluster = holding(shape(3, 2))
    cluster._manual_failover(cluster[8])
    cluster.sleep(3)
    view = run_on(cluster, shape(3, 1)).converge()
    assert_good(cluster, view, shape(3, 1))
    assert [step.candidate for step in cluster.written if isinstance(step, ManualFailover)]
    assert not [step for step in cluster.written if isinstance(step, MoveKeys)]


def test_a_drain_that_was_interrupted_continues_after_a_failover() -> None:
    """The replica of the half drained shard took over, on a pod that stays, while another master is on a pod that
    leaves: the same shard is drained to its end, and no slot of the other moves.
    """
    desired = shape(3, 1)
    cluster = holding(shape(4, 1))
    for ordinal in (6, 7):
        cluster._manual_failover(cluster[ordinal])
        cluster.sleep(3)
    in_step(cluster)
    kept = cluster[6].slots
    cluster.kill_at = len(cluster.written) + 20
    with suppress(Killed):
        run_on_without_goodbye(cluster, desired)
    cluster.kill_at = None
    assert 0 < len(cluster[7].slots) < 3000
    cluster.sleep(3)
    in_step(cluster)
    cluster._manual_failover(cluster[3])
    cluster.sleep(3)
    view = run_on(cluster, desired).converge()
    assert_tolerable(cluster, view, desired)
    assert not kept - view.nodes[2].slots


def test_pods_leave_only_a_cluster_that_is_whole_without_them() -> None:
    """The last writes remove pods that have no slot, and no key that only they have."""
    cluster = holding(shape(4, 1))
    run_on(cluster, shape(3, 1)).converge()
    kinds = [type(write) for write in cluster.written]
    first = kinds.index(Leave)
    assert kinds.count(Leave) == 2
    assert MoveKeys not in kinds[first:]


def test_a_statefulset_that_was_shrunk_first_is_refused_and_can_come_back() -> None:
    """Refused with the remedy, nothing written; when the pods are back, they can be drained."""
    cluster = holding(shape(4, 1))
    removed, cluster.nodes = cluster.nodes[6:], cluster.nodes[:6]
    cluster.sleep(3)
    cluster.written.clear()
    with pytest.raises(Refused) as caught:
        run_on(cluster, shape(3, 1)).converge()
    reasons = {reason.code: reason for reason in caught.value.reasons}
    assert "kubectl scale statefulset redis-app --replicas=8" in reasons["shrunk-too-early"].remedy
    assert cluster.written == []
    cluster.nodes += removed
    assert_good(cluster, run_on(cluster, shape(3, 1)).converge(), shape(3, 1))


def test_pods_that_have_replaced_others_are_not_missing() -> None:
    """Two disks were lost one after the other: the first new pod knows the second lost member, and not its own."""
    cluster = holding(shape(4, 1))
    wipe(cluster, 4)
    run_on(cluster, shape(4, 1)).converge()
    lost = cluster[7].node_id
    for node in cluster.nodes:  # its member was not forgotten before the next disk was lost
        if node.ordinal not in (4, 7):
            node.known["04" + "e" * 38] = Known(Address("10.0.9.9", 6379))
    wipe(cluster, 7)
    assert lost in cluster[4].known
    assert_good(cluster, run_on(cluster, shape(3, 1)).converge(), shape(3, 1))


def test_slots_that_do_not_fit_are_not_moved() -> None:
    """A server that would have to evict or reject keys gets none."""
    cluster = holding(shape(4, 1))
    view = cluster.look()
    for node in view.nodes:
        memory = Memory(used_bytes=900 << 20, dataset_bytes=800 << 20, max_bytes=1000 << 20)
        view = with_node(view, node.ordinal, memory=memory)
    cluster.look = lambda: view  # type: ignore[method-assign]
    with pytest.raises(Refused) as caught:
        run_on(cluster, shape(3, 1)).converge()
    assert {reason.code for reason in caught.value.reasons} == {"no-room"}
    assert "about 267 MiB of data and has 100 MiB left" in caught.value.reasons[0].message


def test_full_memory_does_not_prevent_a_repair() -> None:
    """Shares are uneven, memory is full, and a replica has lost its disk: the replica comes first."""
    cluster = uneven(4000, 6923, 5461)
    wipe(cluster, 5)
    view = cluster.look()
    for node in view.nodes:
        memory = Memory(used_bytes=990 << 20, dataset_bytes=800 << 20, max_bytes=1000 << 20)
        view = with_node(view, node.ordinal, memory=memory)
    decision = plan(view, shape())
    assert isinstance(decision, Plan)
    assert {reason.code for reason in decision.then_refused} == {"no-room"}
    assert "move slots" not in {phase.name for phase in decision.phases}
    roomy = plan(replace(view, nodes=tuple(replace(node, memory=Memory()) for node in view.nodes)), shape())
    assert isinstance(roomy, Plan)
    assert roomy.then_refused == ()
    assert "move slots" in {phase.name for phase in roomy.phases}


@pytest.mark.parametrize("ordinal", [0, 3, 6, 7])
def test_a_drain_continues_after_a_lost_disk(ordinal: int) -> None:
    """The pod in its place does not count as a member beside the lost one: no pod was removed."""
    cluster = holding(shape(4, 1))
    wipe(cluster, ordinal)
    cluster.sleep(0.1)
    assert_tolerable(cluster, run_on(cluster, shape(3, 1)).converge(), shape(3, 1))


@pytest.mark.parametrize("ordinal", [6, 7, 8])
def test_a_stuck_replica_that_leaves_blocks_nothing(ordinal: int) -> None:
    """It is reconnected, and then it leaves."""
    cluster = holding(shape(3, 2))
    cluster[ordinal].hangs, cluster[ordinal].link_up = True, False
    cluster.sleep(1)
    assert_tolerable(cluster, run_on(cluster, shape(3, 1)).converge(), shape(3, 1))


def test_a_spare_pod_that_is_down_is_not_waited_for() -> None:
    """Not beside a cluster that is whole without it, be it for a repair or a resize. While a member is missing, it may
    be that member.
    """
    cluster = with_pods_for(holding(shape(3, 1)), shape(4, 1))
    cluster[6].alive = False
    uneven_shares = replace(shape(3, 1), weights={"redis-app-0": 2.0})
    view = run_on(cluster, uneven_shares, deadline_s=30).converge()
    assert [peer.pod for peer in view.silent_spares] == ["redis-app-6"]
    assert violations(cluster.look(), uneven_shares) == ()
    decision = plan(cluster.look(), uneven_shares)
    assert isinstance(decision, Plan)
    assert "redis-app-6 (connection refused)" in decision.findings[-1].message
    cluster[5].alive = False
    with pytest.raises(NotYet, match="redis-app-6"):
        run_on(cluster, shape(3, 1), deadline_s=30).converge()


def test_a_member_beyond_the_shape_that_is_down_is_waited_for() -> None:
    """It may have the only copy of its keys."""
    cluster = holding(shape(4, 1))
    cluster[7].alive = False
    with pytest.raises(NotYet, match="redis-app-7"):
        run_on(cluster, shape(3, 1), deadline_s=30).converge()


def killed_with_keys_on_the_way() -> FakeCluster:
    """A run that was killed after the first keys had arrived at a new master that owns no slot yet."""
    desired = shape(4, 1)
    whole = with_pods_for(holding(shape(3, 1)), desired)
    run_on(whole, desired).converge()
    cluster = with_pods_for(holding(shape(3, 1)), desired)
    cluster.kill_before = False
    cluster.kill_at = next(number for number, write in enumerate(whole.written) if isinstance(write, MoveKeys))
    with suppress(Killed):
        run_on_without_goodbye(cluster, desired)
    cluster.kill_at = None
    cluster.sleep(1)
    assert cluster[6].keys
    assert not cluster[6].slots
    return cluster


def test_keys_that_were_moving_to_a_lost_master_are_not_deleted() -> None:
    """Its replica has the only copy: refused, nothing written; the remedy brings every key back."""
    cluster = killed_with_keys_on_the_way()
    (slot,) = cluster[6].importing
    wipe(cluster, 6)
    cluster.written.clear()
    with pytest.raises(Refused) as caught:
        run_on(cluster, shape(4, 1)).converge()
    (reason,) = caught.value.reasons
    assert (reason.code, reason.node) == ("moved-to-the-lost", "redis-app-7")
    assert f"CLUSTER SETSLOT {slot} IMPORTING {cluster[0].node_id}" in reason.remedy
    assert cluster.written == []
    cluster._promote(cluster[7])
    cluster[7].importing[slot] = cluster[0].node_id
    cluster.sleep(3)
    assert_tolerable(cluster, run_on(cluster, shape(4, 1)).converge(), shape(4, 1))


def test_the_loss_of_keys_with_master_and_replica_has_to_be_accepted() -> None:
    """No node has a copy: refused like other lost slots, and accepted for that cluster alone."""
    cluster = killed_with_keys_on_the_way()
    wipe(cluster, 6)
    wipe(cluster, 7)
    with pytest.raises(Refused) as caught:
        run_on(cluster, shape(4, 1)).converge()
    assert [reason.code for reason in caught.value.reasons] == ["moved-to-the-lost"]
    accepted = replace(shape(4, 1), accept_loss=cluster.look().fingerprint())
    assert violations(run_on(cluster, accepted).converge(), shape(4, 1)) == ()


def newcomers(view: ClusterView) -> Iterator[Node]:
    return (node for node in view.nodes if node.ordinal > 5)


def test_a_new_node_gets_functions_and_users_before_it_joins() -> None:
    """Those that every owner has, before it is introduced to any node."""
    desired = shape(4, 1)
    cluster = with_pods_for(holding(shape(3, 1)), desired)
    for node in cluster.nodes[:3]:
        node.libraries, node.users = {"counting"}, {"default", "alice"}
    cluster[0].users.add("only-here")
    for node in cluster.nodes[6:]:
        node.users = {"default"}
    view = run_on(cluster, desired).converge()
    assert [node.libraries for node in newcomers(view)] == [{"counting"}] * 2
    assert [node.users for node in newcomers(view)] == [{"default", "alice"}] * 2
    assert [type(write).__name__ for write in cluster.written[:2]] == ["Provision"] * 2
