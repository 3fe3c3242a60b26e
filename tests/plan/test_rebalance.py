"""Shares of slots and the moves towards them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.model.desired import Desired
from bootstrap.model.memory import Memory
from bootstrap.model.node import NodeId
from bootstrap.model.outcome import Skew
from bootstrap.model.slots import ALL_SLOTS, SLOT_COUNT, SlotSet
from bootstrap.model.steps import MoveSlots
from bootstrap.model.view import ClusterView
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.rebalance import shares, skew, slot_moves, to_drain
from tests.builders import formed, gossip, shape, with_node
from tests.fake_cluster import FakeCluster
from tests.plan.damage import uneven


def moves(view: ClusterView, desired: Desired, masters: list[NodeId]) -> tuple[MoveSlots, ...]:
    return slot_moves(view, desired, masters, to_drain=Assessment(view, desired).to_drain)


def planned(cluster: FakeCluster, desired: Desired) -> int:
    """The number of slots that would move."""
    view = cluster.look()
    masters = [node.node_id for node in view.nodes if node.slots]
    return sum(len(move.slots) for move in moves(view, desired, masters))


def test_a_cluster_that_is_even_enough_is_left_alone() -> None:
    """Beyond the threshold all shares are corrected, within it none; `on` moves the last slot, `off` none."""
    near, far = uneven(5461 - 300, 5462 + 300, 5461), uneven(4000, 6923, 5461)
    assert planned(near, shape()) == 0
    assert planned(far, shape()) == 1461
    assert planned(near, Desired(shards=3, replicas_per_shard=1, threshold_percent=5)) == 300
    assert planned(near, Desired(shards=3, replicas_per_shard=1, rebalance="on")) == 300
    assert planned(far, Desired(shards=3, replicas_per_shard=1, rebalance="off")) == 0
    assert planned(formed(shape()), Desired(shards=3, replicas_per_shard=1, rebalance="on")) == 0


def test_a_weight_belongs_to_the_shard_of_its_pod() -> None:
    """Declared for a replica, it counts for its master, so a failover changes nothing."""
    heavy = Desired(shards=3, replicas_per_shard=1, weights={"redis-app-3": 2.0})
    assert planned(formed(shape()), heavy) == 8192 - 5461
    assert planned(uneven(8192, 4096, 4096), heavy) == 0


def views_and_weights() -> st.SearchStrategy[tuple[list[int], list[float]]]:
    count = st.integers(1, 12)
    return count.flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(0, 4000), min_size=n, max_size=n),
            st.lists(st.floats(0.01, 100), min_size=n, max_size=n),
        )
    )


@given(views_and_weights(), st.integers(0, 12))
@settings(deadline=None, max_examples=200)
def test_shares_are_whole_and_moves_are_few(given_: tuple[list[int], list[float]], out: int) -> None:
    """The shares cover all slots, none is empty, each surplus slot moves once, and no other slot moves."""
    sizes, weights = given_
    sizes[-1] += SLOT_COUNT - sum(sizes) if sum(sizes) < SLOT_COUNT else 0
    if sum(sizes) != SLOT_COUNT:
        return
    cluster = uneven(*sizes)
    view = cluster.look()
    masters = [node for node in view.nodes if node.ordinal < len(sizes)]
    desired = Desired(
        shards=max(1, len(masters) - out),
        replicas_per_shard=1,
        rebalance="on",
        weights={node.pod: weight for node, weight in zip(masters, weights, strict=True)},
    )
    owned = {node.node_id: node.slots for node in masters}
    stay = [node.node_id for node in masters if node.node_id not in Assessment(view, desired).to_drain]
    share_ = shares(view, desired, stay, owned)
    assert sum(share_.values()) == SLOT_COUNT
    assert min(share_.values()) >= 1
    after = dict(owned)
    for move in moves(view, desired, list(owned)):
        assert move.slots
        assert not move.slots - after[move.source]
        after[move.source] -= move.slots
        after[move.target] |= move.slots
    assert SlotSet.union_of(after.values()) == ALL_SLOTS
    assert all(abs(len(after[node]) - share_.get(node, 0)) <= 1 for node in after)
    moved = sum(len(move.slots) for move in moves(view, desired, list(owned)))
    assert moved <= sum(max(0, len(owned[node]) - share_.get(node, 0)) for node in owned)


def test_shares_follow_their_weights() -> None:
    """Within one slot of the exact part."""
    view = uneven(5461, 5462, 5461).look()
    masters = [node.node_id for node in view.nodes if node.slots]
    desired = Desired(shards=3, replicas_per_shard=1, weights={"redis-app-1": 0.5})
    found = shares(view, desired, masters, {node: view.by_id[node].slots for node in masters})
    assert [round(count / 16384, 3) for count in found.values()] == [0.4, 0.2, 0.4]


def sizes_after(cluster: FakeCluster, desired: Desired) -> list[int]:
    """How many slots each master owns once the planned moves are done."""
    view = cluster.look()
    masters = [node.node_id for node in view.nodes if node.ordinal < len(cluster.nodes) // 2]
    after = {node: view.by_id[node].slots for node in masters}
    for move in moves(view, desired, masters):
        after[move.source] -= move.slots
        after[move.target] |= move.slots
    return [len(slots) for slots in after.values()]


def test_where_shares_are_left_alone_the_slots_of_a_drained_master_are_divided() -> None:
    """`off`: the others keep what they own, and those furthest below their shares get more of the rest."""
    left_alone = Desired(shards=3, replicas_per_shard=1, rebalance="off")
    assert sizes_after(uneven(6000, 4000, 3384, 3000), left_alone) == [6000, 5192, 5192, 0]
    assert sizes_after(uneven(8000, 1000, 6384, 1000), left_alone) == [8000, 2000, 6384, 0]
    assert sizes_after(uneven(4000, 4000, 4100, 4284), replace(left_alone, shards=2)) == [8192, 8192, 0, 0]
    heavy = replace(left_alone, weights={"redis-app-1": 2.0})
    assert sizes_after(uneven(3276, 6554, 3277, 3277), heavy) == [4096, 8192, 4096, 0]


def test_where_shares_are_left_alone_a_new_master_gets_its_full_share() -> None:
    """`off` does not leave it without slots."""
    assert sizes_after(uneven(6000, 6000, 4384, 0), Desired(shards=4, replicas_per_shard=1, rebalance="off")) == [
        *(4096, 4096, 4096, 4096),
    ]


def test_a_share_is_too_far_off_only_beyond_the_threshold() -> None:
    """Exactly at the threshold it is even enough; one slot is, however low the threshold."""
    threshold = Desired(shards=4, replicas_per_shard=1, threshold_percent=25)
    assert planned(uneven(4096 + 1024, 4096 - 1024, 4096, 4096), threshold) == 0
    assert planned(uneven(4096 + 1025, 4096 - 1025, 4096, 4096), threshold) == 1025
    none = Desired(shards=4, replicas_per_shard=1, threshold_percent=0)
    assert planned(uneven(4097, 4095, 4096, 4096), none) == 0
    assert planned(uneven(4098, 4094, 4096, 4096), none) == 2


def test_the_skew_is_that_of_the_shard_furthest_off() -> None:
    """In percent of its fair share, with one digit after the point; of memory, too."""
    view = uneven(4096 + 1024, 4096 - 1024, 4096, 4096).look()
    for ordinal, size in enumerate((100, 100, 150, 50)):
        view = with_node(view, ordinal, memory=Memory(dataset_bytes=size))
    assert skew(view, shape(4, 1)) == Skew(slots_percent=25.0, memory_percent=50.0)
    assert skew(uneven(5461, 5462, 5461).look(), shape(3, 1)) == Skew(slots_percent=0.0, memory_percent=0.0)
    assert skew(uneven(5461, 5460, 5463).look(), shape(3, 1)).slots_percent == 0.0
    assert skew(FakeCluster(6).look(), shape(3, 1)) == Skew(slots_percent=0.0, memory_percent=0.0)


def test_every_share_has_a_slot_and_the_greatest_give_it() -> None:
    """However light a shard is."""
    view = uneven(5461, 5462, 5461).look()
    masters = [node.node_id for node in view.nodes if node.slots]
    light = Desired(shards=3, replicas_per_shard=1, weights={"redis-app-0": 1e-6, "redis-app-1": 1e-6})
    assert list(shares(view, light, masters, {node: SlotSet() for node in masters}).values()) == [1, 1, 16382]


def test_slots_that_remain_after_rounding_stay_where_they_are() -> None:
    """With the masters that own more than their shares; then with those whose exact shares are greater."""
    for sizes in ((5461, 5461, 5462), (5461, 5462, 5461), (5462, 5461, 5461)):
        view = uneven(*sizes).look()
        masters = [node.node_id for node in view.nodes if node.slots]
        owned = {node: view.by_id[node].slots for node in masters}
        assert tuple(shares(view, shape(), masters, owned).values()) == sizes
    weighed = replace(shape(), weights={"redis-app-0": 1.0, "redis-app-1": 1.0, "redis-app-2": 1.5})
    assert list(shares(view, weighed, masters, {node: SlotSet() for node in masters}).values()) == [4681, 4681, 7022]


def test_masters_on_pods_that_leave_are_drained_first() -> None:
    """First those without a replica on a pod that stays, which could take over; then the highest ordinals."""
    cluster = uneven(4096, 4096, 4096, 4096)
    view = cluster.look()
    owned = {node.node_id: node.slots for node in view.nodes}
    for shards, drained in ((4, []), (3, [3]), (2, [2, 3])):
        found = to_drain(view, shape(shards, 1), owned)
        assert sorted(view.by_id[node].ordinal for node in found) == drained
    cluster[4].master, cluster[0].master = None, cluster[4].node_id
    cluster[4].slots, cluster[0].slots = cluster[0].slots, SlotSet()
    gossip(cluster)
    view = cluster.look()
    owned = {node.node_id: node.slots for node in view.nodes}
    found = to_drain(view, Desired(shards=3, replicas_per_shard=0), owned)
    assert [view.by_id[node].ordinal for node in found] == [3], "of two pods that leave, the one without a successor"


def test_in_a_rollout_no_slot_moves_only_for_even_shares_to_an_older_server() -> None:
    """That server would reject the keys (`DUMP payload version or checksum are wrong`). A drain moves all the same."""
    view = uneven(4000, 6923, 5461).look()
    masters = [node.node_id for node in view.nodes if node.slots]
    for ordinal in range(6):
        view = with_node(view, ordinal, version="redis 7.0.15")
    assert moves(view, shape(), masters)
    newer_source = with_node(view, 1, version="redis 8.2.3")
    assert not moves(newer_source, shape(), masters)
    assert moves(with_node(view, 0, version="redis 8.2.3"), shape(), masters), "the target is the newer one"
    fewer = Desired(shards=3, replicas_per_shard=1, rebalance="off")
    assert slot_moves(newer_source, fewer, masters, to_drain=frozenset({masters[1]}))
