"""Shares of slots and the moves towards them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.model.desired import Desired
from bootstrap.model.node import NodeId
from bootstrap.model.slots import ALL_SLOTS, SLOT_COUNT, SlotSet
from bootstrap.model.steps import MoveSlots
from bootstrap.model.view import ClusterView
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.rebalance import shares, slot_moves
from tests.builders import formed, shape
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
