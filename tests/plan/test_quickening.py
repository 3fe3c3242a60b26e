"""When nodes that have moved get temporary settings, and when these end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bootstrap.model.desired import Desired
from bootstrap.model.node import SHORT_TIMEOUT_MS, SHORT_TIMEOUT_MS_MANY, Node
from bootstrap.model.slots import SlotSet
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.plan.quickening import in_service, left_quickened, masters_apart, short_timeout_ms, under_way
from tests.builders import cut_links, formed, shape, with_line, with_node
from tests.fake_cluster import NO_FAILOVER, FakeCluster

Pairs = list[tuple[Node, Node]]


def moved(shards: int = 3, replicas: int = 1) -> FakeCluster:
    """Every node allows failovers, no node has a link, and none serves."""
    cluster = formed(shape(shards, replicas))
    for node in cluster.nodes:
        node.config[NO_FAILOVER] = "no"
    cut_links(cluster)
    return cluster


def two_masters(view: ClusterView) -> Pairs:
    return [(view.nodes[0], view.nodes[1])]


def quick(view: ClusterView, ordinal: int) -> ClusterView:
    return with_node(view, ordinal, timeout_ms=SHORT_TIMEOUT_MS, config={NO_FAILOVER: "yes"})


def test_masters_that_have_no_link_are_quickened() -> None:
    """Other pairs are not: nobody else votes, or is replaced for the lack of a link."""
    view = moved().look()
    assert under_way(view, shape(), two_masters(view))
    assert not under_way(view, shape(), [(view.nodes[0], view.nodes[4]), (view.nodes[4], view.nodes[5])])
    assert not under_way(view, shape(), [])
    assert masters_apart([(view.nodes[3], view.nodes[0]), (view.nodes[0], view.nodes[2])])
    assert not masters_apart([(view.nodes[3], view.nodes[0])])


def no_timeout(view: ClusterView, desired: Desired) -> tuple[ClusterView, Desired]:
    return view, replace(desired, timeout_ms=None)


def short_timeout(view: ClusterView, desired: Desired) -> tuple[ClusterView, Desired]:
    return view, replace(desired, timeout_ms=SHORT_TIMEOUT_MS)


def not_wanted(view: ClusterView, desired: Desired) -> tuple[ClusterView, Desired]:
    return view, replace(desired, quicken=False)


def a_pod_missing(view: ClusterView, desired: Desired) -> tuple[ClusterView, Desired]:
    peer = UnreachablePeer(pod="redis-app-6", ordinal=6, why=UnreachableReason.CONNECTION_REFUSED)
    return replace(view, unreachable=(peer,)), desired


def a_slot_unowned(view: ClusterView, desired: Desired) -> tuple[ClusterView, Desired]:
    return with_line(view, 0, 0, slots=SlotSet.of((1, 5460))), desired


def a_timeout_unknown(view: ClusterView, desired: Desired) -> tuple[ClusterView, Desired]:
    return with_node(view, 4, timeout_ms=None), desired


def config_denied(view: ClusterView, desired: Desired) -> tuple[ClusterView, Desired]:
    return with_node(view, 4, config={}), desired


def kept_from_failover(view: ClusterView, desired: Desired) -> tuple[ClusterView, Desired]:
    """By a person: the timeout is not the temporary one."""
    return with_node(view, 4, config={NO_FAILOVER: "yes"}), desired


def one_serves(view: ClusterView, desired: Desired) -> tuple[ClusterView, Desired]:
    """It reports ok, and is linked to two of three masters."""
    return with_node(with_line(with_line(view, 0, 1, connected=True), 1, 0, connected=True), 0, serving=True), desired


PREVENTED = [
    *(no_timeout, short_timeout, not_wanted, a_pod_missing, a_slot_unowned, a_timeout_unknown, config_denied),
    *(kept_from_failover, one_serves),
]


@pytest.mark.parametrize("spoil", PREVENTED, ids=lambda spoil: spoil.__name__.replace("_", " "))
def test_nothing_is_quickened_where(
    spoil: Callable[[ClusterView, Desired], tuple[ClusterView, Desired]],
) -> None:
    """A failover may be needed, or a setting could not be restored."""
    view, desired = spoil(moved().look(), shape())
    assert not under_way(view, desired, two_masters(view))


def test_once_begun_it_lasts_until_all_nodes_serve() -> None:
    """Whichever link is missing, except in a cluster that is in service."""
    cluster = moved()
    view = quick(cluster.look(), 3)
    replicas_apart = [(view.nodes[3], view.nodes[4])]
    assert under_way(view, shape(), replicas_apart)
    assert under_way(view, shape(), [])
    serving = view
    for ordinal in range(5):
        serving = with_node(serving, ordinal, serving=True)
    assert under_way(serving, shape(), [])
    assert not under_way(with_node(serving, 5, serving=True), shape(), [])
    linked, _ = one_serves(view, shape())
    assert not under_way(linked, shape(), replicas_apart)


def test_a_cluster_is_in_service_where_a_node_that_serves_reaches_most_masters() -> None:
    """Half of them are no majority, itself counts, and a node that reaches them and reports fail does not serve."""
    view = moved(4, 0).look()
    for reached, served in ((1, False), (2, True)):
        linked = with_node(view, 0, serving=True)
        for other in range(1, reached + 1):
            linked = with_line(with_line(linked, 0, other, connected=True), other, 0, connected=True)
        assert in_service(linked) is served, reached
        assert not in_service(with_node(linked, 0, serving=False))
    assert in_service(formed(shape(1, 0)).look())
    assert in_service(formed(shape()).look())


def test_temporary_settings_are_only_those_that_differ_from_the_declared_ones() -> None:
    """Without a declared timeout, or with the same one, they are what a person wants."""
    node = quick(moved().look(), 2).nodes[2]
    assert left_quickened(node, shape())
    assert not left_quickened(node, shape(timeout_ms=None))
    assert not left_quickened(node, shape(timeout_ms=SHORT_TIMEOUT_MS))
    assert not left_quickened(moved().look().nodes[2], shape())


def test_many_nodes_get_a_longer_timeout() -> None:
    """Up to 16 nodes the shortest."""
    assert short_timeout_ms(FakeCluster(16).look()) == SHORT_TIMEOUT_MS
    assert short_timeout_ms(FakeCluster(17).look()) == SHORT_TIMEOUT_MS_MANY
