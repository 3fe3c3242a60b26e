"""Formed clusters whose pods run at known places, with masters that failovers have crowded."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.builders import formed, gossip, place, shape
from tests.fake_cluster import FakeCluster

SHAPES = [(3, 1), (3, 2), (4, 1), (5, 1), (4, 2)]


def crowded(cluster: FakeCluster, *where: str) -> FakeCluster:
    """The cluster with its pods at `zone/node`, in ordinal order."""
    cluster.places = {node.pod: place(text) for node, text in zip(cluster.nodes, where, strict=True)}
    return cluster


def fail_over(cluster: FakeCluster, *candidates: int) -> FakeCluster:
    """These replicas are masters now, as after failures of their masters, and all nodes know it."""
    for ordinal in candidates:
        assert cluster._manual_failover(cluster[ordinal]) == ""
        gossip(cluster)
    for node in cluster.nodes:
        node.link_up, node.copy_ticks = True, 0
    return cluster


def two_of_three_on_one_machine() -> FakeCluster:
    """As after a crash of n1 that a run has repaired: its master is a replica now, and n2 has two masters."""
    cluster = crowded(formed(shape()), "a/n1", "b/n2", "c/n3", "b/n2", "c/n3", "a/n1")
    return fail_over(cluster, 3)


@st.composite
def scattered(draw: st.DrawFn, shards: int, replicas: int) -> FakeCluster:
    """A formed cluster on up to five machines in up to three zones, or in unknown zones, after random failovers."""
    zone_of = draw(st.lists(st.sampled_from("abc"), min_size=5, max_size=5))
    known = draw(st.sampled_from([True, True, False]))
    machines = draw(st.lists(st.integers(0, 4), min_size=shards * (1 + replicas), max_size=shards * (1 + replicas)))
    where = [f"{zone_of[machine] if known else ''}/n{machine}" for machine in machines]
    cluster = crowded(formed(shape(shards, replicas)), *where)
    for number in range(shards):
        copies = [node for node in cluster.nodes if node.ordinal % shards == number]
        candidate = draw(st.sampled_from(copies))
        if candidate.master:
            fail_over(cluster, candidate.ordinal)
    return cluster
