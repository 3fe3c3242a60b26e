"""Epochs and timeouts while forming, what a new node receives, introductions, and announcements."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bootstrap.model.node import SHORT_TIMEOUT_MS
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import (
    AddSlots,
    Announce,
    Meet,
    Provision,
    Replicate,
    SetConfig,
    SetEpoch,
    SetTimeout,
)
from bootstrap.model.waits import AwaitMesh
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.membership import announce, meet, prepare, provision, quicken
from tests.builders import cut_links, formed, introduce, shape, with_line, with_node
from tests.fake_cluster import NO_FAILOVER, FakeCluster
from tests.plan.damage import wipe


def test_fresh_nodes_get_the_lowest_free_epochs() -> None:
    """In ordinal order; a node that has one keeps it, and so does a node that knows another one."""
    cluster = FakeCluster(5)
    cluster[1].epoch = 2
    introduce([cluster[3], cluster[4]])
    cluster[3].epoch, cluster[4].epoch = 0, 4
    view = cluster.look()
    steps = [step for step in prepare(Assessment(view, shape(5, 0))) if isinstance(step, SetEpoch)]
    assert [(view.by_id[step.node].ordinal, step.epoch) for step in steps] == [(0, 1), (2, 3)]
    twelve = [step for step in prepare(Assessment(FakeCluster(12).look(), shape(6, 1))) if isinstance(step, SetEpoch)]
    assert [step.epoch for step in twelve] == list(range(1, 13))


@pytest.mark.parametrize(
    ("declared", "own", "sets"),
    [
        (5000, 5000, 1000),
        (700, 5000, 700),
        (5000, 1000, None),
        (5000, 1001, 1000),
        (None, 5000, None),
        (5000, None, None),
    ],
)
def test_the_timeout_is_lowered_while_forming(declared: int | None, own: int | None, sets: int | None) -> None:
    """To a second, or to less where less is declared; only where it is longer, and known, and declared."""
    cluster = FakeCluster(6)
    view = with_node(cluster.look(), 2, timeout_ms=own)
    steps = [s for s in prepare(Assessment(view, shape(timeout_ms=declared))) if isinstance(s, SetTimeout)]
    found = [step.timeout_ms for step in steps if step.node == view.nodes[2].node_id]
    assert found == ([] if sets is None else [sets])


def test_a_formed_cluster_gets_no_epochs_and_no_short_timeout() -> None:
    """Nor does a cluster in which a node serves."""
    cluster = formed(shape())
    cluster[1].keys = 1
    wipe(cluster, 4)
    assert list(prepare(Assessment(cluster.look(), shape()))) == []
    serving = FakeCluster(6)
    serving[3].serving = True
    assert not [s for s in prepare(Assessment(serving.look(), shape())) if isinstance(s, SetTimeout)]


def test_a_new_node_receives_what_every_owner_of_slots_has_and_it_lacks() -> None:
    """Sorted, from the first of them. What one owner lacks is nobody's to spread."""
    cluster = formed(shape())
    wipe(cluster, 4)
    view = cluster.look()
    for ordinal in range(6):
        view = with_node(view, ordinal, libraries=frozenset({"b", "a"}), users=frozenset({"default", "app", "ops"}))
    view = with_node(view, 0, libraries=frozenset({"a", "b", "extra"}))
    view = with_node(view, 2, users=frozenset({"default", "app"}))
    view = with_node(view, 4, libraries=frozenset(), users=frozenset({"default"}))
    view = with_node(view, 3, libraries=frozenset(), users=frozenset())
    (step,) = provision(Assessment(view, shape()))
    first = view.nodes[0]
    assert step == Provision(
        node=view.nodes[4].node_id,
        origin=first.node_id,
        address=first.address,
        libraries=("a", "b"),
        users=("app",),
    )
    for lacking in ({"libraries": frozenset({"a"})}, {"users": frozenset({"default"})}):
        complete = with_node(view, 4, libraries=frozenset({"a", "b"}), users=frozenset({"default", "app"}))
        assert list(provision(Assessment(complete, shape()))) == []
        assert len(list(provision(Assessment(with_node(complete, 4, **lacking), shape())))) == 1
    assert list(provision(Assessment(FakeCluster(6).look(), shape()))) == []


def moved(shards: int, replicas: int) -> FakeCluster:
    cluster = formed(shape(shards, replicas))
    for node in cluster.nodes:
        node.config[NO_FAILOVER] = "no"
    cut_links(cluster)
    return cluster


def test_moved_nodes_get_the_temporary_settings_that_they_lack() -> None:
    """The timeout first; a node that has both gets none."""
    cluster = moved(3, 0)
    cluster[1].timeout_ms = SHORT_TIMEOUT_MS
    cluster[2].timeout_ms, cluster[2].config[NO_FAILOVER] = SHORT_TIMEOUT_MS, "yes"
    view = cluster.look()
    one, other, _ = (node.node_id for node in view.nodes)
    assert list(quicken(Assessment(view, shape(3, 0)))) == [
        SetTimeout(node=one, timeout_ms=SHORT_TIMEOUT_MS),
        SetConfig(node=one, name=NO_FAILOVER, value="yes"),
        SetConfig(node=other, name=NO_FAILOVER, value="yes"),
    ]
    linked = formed(shape(3, 0)).look()
    assert list(quicken(Assessment(linked, shape(3, 0)))) == []


def test_every_pair_without_a_link_meets_once() -> None:
    """At the later node's address and bus port, and then the mesh is awaited. Linked nodes do not meet."""
    view = with_line(formed(shape()).look(), 4, 1, connected=False)
    view = with_line(view, 1, 1, bus_port=17000)
    view = with_line(view, 4, 4, bus_port=17001)
    one, other = view.nodes[1], view.nodes[4]
    assert list(meet(Assessment(view, shape()))) == [
        Meet(introducer=one.node_id, newcomer=other.node_id, address=other.address, bus_port=17001),
        AwaitMesh(),
    ]
    assert list(meet(Assessment(formed(shape()).look(), shape()))) == []


def test_introductions_beyond_the_introducers_are_limited() -> None:
    """A phase takes 2000 at most."""
    cluster = formed(shape(81, 0))
    introducers = {node.node_id for node in cluster.nodes[:16]}
    for node in cluster.nodes[16:]:
        node.known = {other: known for other, known in node.known.items() if other in introducers}
    assert len(list(meet(Assessment(cluster.look(), shape(81, 0))))) == 2000 + 1


def test_nodes_that_change_announce_it_to_all_others() -> None:
    """Each once, whatever it changes; not in a cluster of more than 64 nodes."""
    view = formed(shape()).look()
    one, other = view.nodes[0], view.nodes[4]
    changes = (
        AddSlots(node=one.node_id, slots=SlotSet.of((0, 1))),
        Replicate(replica=other.node_id, master=one.node_id),
        AddSlots(node=one.node_id, slots=SlotSet.of((2, 2))),
        AwaitMesh(),
    )
    found = list(announce(Assessment(view, shape()), changes))
    assert [step.node for step in found if isinstance(step, Announce)] == [one.node_id, other.node_id]
    assert isinstance(found[0], Announce)
    assert found[0].others == tuple((node.address, node.bus_port) for node in view.nodes[1:])
    for shards, count in ((64, 1), (65, 0)):
        large = formed(shape(shards, 0)).look()
        step = AddSlots(node=large.nodes[0].node_id, slots=SlotSet.of((0, 1)))
        assert len(list(announce(Assessment(large, shape(shards, 0)), (step,)))) == count


def test_lowered_timeouts_wait_while_moved_nodes_are_quickened() -> None:
    """A cluster without keys that has moved gets the shorter timeout of that."""
    view = moved(3, 0).look()
    assert [step for step in prepare(Assessment(view, shape(3, 0))) if isinstance(step, SetTimeout)] == []
    plain = replace(shape(3, 0), quicken=False)
    assert len([step for step in prepare(Assessment(view, plain)) if isinstance(step, SetTimeout)]) == 3
