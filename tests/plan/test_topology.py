"""The layout: existing roles and slots are kept, missing ones are assigned in the order of ordinals."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.model.desired import Desired
from bootstrap.model.node import NodeId
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.view import ClusterView
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.topology import Shard
from tests.builders import formed, gossip, half_formed, introduce, place, shape
from tests.fake_cluster import FakeCluster


def layout(view: ClusterView, desired: Desired) -> tuple[Shard, ...]:
    return Assessment(view, desired).shards


def roles(view: ClusterView, desired: Desired) -> dict[int, list[int]]:
    """Ordinals of masters with those of their replicas."""
    ordinal: dict[NodeId, int] = {node.node_id: node.ordinal for node in view.nodes}
    return {ordinal[shard.master]: [ordinal[r] for r in shard.replicas] for shard in layout(view, desired)}


def slots(shards: tuple[Shard, ...]) -> list[str]:
    return [str(shard.slots) for shard in shards]


def test_six_fresh_nodes_get_the_roles_of_the_documentation() -> None:
    """3→0, 4→1, 5→2, with the shares of the documentation."""
    view = FakeCluster(6).look()
    assert roles(view, shape()) == {0: [3], 1: [4], 2: [5]}
    assert slots(layout(view, shape())) == ["0-5460", "5461-10922", "10923-16383"]


def test_second_replicas_come_after_all_first_ones() -> None:
    """In each round the shards that lack most replicas get one."""
    assert roles(FakeCluster(9).look(), shape(3, 2)) == {0: [3, 6], 1: [4, 7], 2: [5, 8]}


@given(st.integers(3, 30), st.integers(0, 4))
@settings(deadline=None, max_examples=40)
def test_fresh_nodes_fill_any_shape_exactly(shards: int, replicas: int) -> None:
    """Every node has one role, every shard its replicas, every slot one owner."""
    desired = shape(shards, replicas)
    view = FakeCluster(desired.nodes).look()
    found = layout(view, desired)
    assert [len(shard.replicas) for shard in found] == [replicas] * shards
    assert sorted(i for master, rest in roles(view, desired).items() for i in (master, *rest)) == list(
        range(desired.nodes)
    )
    assert sum(len(shard.slots) for shard in found) == len(ALL_SLOTS)


def test_owners_stay_masters_wherever_they_are() -> None:
    """Ordinals decide only among nodes without slots."""
    cluster = FakeCluster(6)
    cluster[4].slots, cluster[5].slots = SlotSet.of((0, 99)), SlotSet.of((100, 199))
    assert list(roles(cluster.look(), shape())) == [0, 4, 5]


def test_a_failover_is_not_undone() -> None:
    """The replica that took over stays a master, the old master stays its replica."""
    cluster = formed(shape())
    cluster[3].slots, cluster[0].slots = cluster[0].slots, SlotSet()
    cluster[3].master, cluster[0].master = None, cluster[3].node_id
    assert roles(cluster.look(), shape()) == {1: [4], 2: [5], 3: [0]}


def test_replicas_stay_where_they_are() -> None:
    """Only a shard with too many gives one away, and the lowest ordinals stay."""
    cluster = formed(shape())
    cluster[4].master = cluster[5].master = cluster[0].node_id
    cluster[3].master = cluster[2].node_id
    assert roles(cluster.look(), shape()) == {0: [4], 1: [5], 2: [3]}


def placed(cluster: FakeCluster, *where: str) -> ClusterView:
    cluster.places = {node.pod: place(text) for node, text in zip(cluster.nodes, where, strict=True)}
    return cluster.look()


def test_the_surplus_replica_that_fits_best_elsewhere_moves() -> None:
    """First the best placed for a shard that lacks one; then the worst placed for its master; then the highest."""
    cluster = formed(shape())
    cluster[4].master = cluster[0].node_id
    gossip(cluster)
    assert roles(placed(cluster, "a/n1", "b/n2", "c/n3", "b/n2", "c/n4", "d/n5"), shape()) == {0: [3], 1: [4], 2: [5]}
    assert roles(placed(cluster, "a/n1", "b/n2", "c/n3", "c/n4", "b/n2", "d/n5"), shape()) == {0: [4], 1: [3], 2: [5]}
    assert roles(placed(cluster, "a/n1", "b/n2", "c/n3", "a/n1", "c/n4", "d/n5"), shape()) == {0: [4], 1: [3], 2: [5]}
    assert roles(placed(cluster, "a/n1", "b/n2", "c/n3", "a/n6", "c/n4", "d/n5"), shape()) == {0: [4], 1: [3], 2: [5]}
    assert roles(placed(cluster, "a/n1", "b/n2", "c/n3", "c/n6", "c/n4", "d/n5"), shape()) == {0: [3], 1: [4], 2: [5]}


def test_without_a_shard_that_lacks_one_the_worst_placed_replica_is_surplus() -> None:
    """It stays a replica until a master is needed."""
    cluster = formed(shape())
    cluster.nodes.append(cluster._blank(6))
    cluster[6].master, cluster[6].serving, cluster[6].epoch = cluster[0].node_id, True, 7
    introduce(cluster.nodes)
    gossip(cluster)
    desired = replace(shape(3, 1), replicas_per_shard=1)
    four = replace(desired, shards=4)
    where = ["a/n1", "b/n2", "c/n3", "a/n1", "c/n4", "d/n5", "b/n6"]
    found = Assessment(placed(cluster, *where), four)
    assert [node.ordinal for node in found.surplus] == [3]


def test_a_replica_of_a_replica_gets_a_master() -> None:
    """Redis allows it for a moment after a failover; no layout has it."""
    cluster = formed(shape())
    cluster[5].master = cluster[4].node_id
    assert roles(cluster.look(), shape()) == {0: [3], 1: [4], 2: [5]}


def test_free_slots_go_to_the_master_with_the_fewest() -> None:
    """Owners keep their slots; a gap that is not the share of a master without slots goes to the smallest one."""
    cluster = FakeCluster(3)
    for node, pair in zip(cluster.nodes, ((0, 5000), (6000, 10922), (10923, 16383)), strict=True):
        node.slots = SlotSet.of(pair)
    assert slots(layout(cluster.look(), shape(3, 0))) == ["0-5000", "5001-10922", "10923-16383"]


def test_without_nodes_the_layout_is_empty() -> None:
    """No shard, and no error."""
    assert layout(ClusterView(), shape()) == ()


@given(half_formed())
@settings(deadline=None, max_examples=60)
def test_a_layout_keeps_owned_slots(state: tuple[FakeCluster, Desired]) -> None:
    """Every owner is a master of at least its own slots; no slot has two masters; no node has two roles."""
    cluster, desired = state
    view = cluster.look()
    found = layout(view, desired)
    target = {shard.master: shard.slots for shard in found}
    assert all(node.slots - target[node.node_id] == SlotSet() for node in view.nodes if node.slots)
    assert sum(map(len, target.values())) == len(SlotSet.union_of(target.values()))
    assert SlotSet.union_of(target.values()) == ALL_SLOTS - Assessment(view, desired).unrecoverable_slots
    places = [node_id for shard in found for node_id in (shard.master, *shard.replicas)]
    assert len(set(places)) == len(places)
