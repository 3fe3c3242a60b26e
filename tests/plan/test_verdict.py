"""The verdict about the places of all roles: never without words; and the single points of failure."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.model.node import NodeId
from bootstrap.model.plan import Plan
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView, shard_numbers
from bootstrap.plan.planner import plan
from bootstrap.plan.verdict import judge, single_points, survival
from tests.builders import formed, shape, with_node
from tests.fake_cluster import FakeCluster
from tests.plan.places import SHAPES, crowded, scattered, two_of_three_on_one_machine


@st.composite
def anywhere(draw: st.DrawFn) -> ClusterView:
    """A cluster after random failovers, some of its pods in unknown places."""
    shards, replicas = draw(st.sampled_from(SHAPES))
    cluster: FakeCluster = draw(scattered(shards, replicas))
    for pod in draw(st.lists(st.sampled_from(sorted(cluster.places)), max_size=2, unique=True)):
        del cluster.places[pod]
    return cluster.look()


@given(anywhere())
@settings(max_examples=300, deadline=None)
def test_no_verdict_is_without_words(view: ClusterView) -> None:
    """Whatever could be better, or cannot, is named; also as a finding of the plan."""
    verdict = judge(view)
    notes = ("the zones of the pods are not known",)
    assert verdict.verdict == "optimal" or [why for why in verdict.why if why and why not in notes]
    assert "?" not in " ".join(verdict.why)
    masters = sum(1 for node in view.nodes if node.slots)
    decision = plan(view, shape(masters, len(view.nodes) // masters - 1))
    assert isinstance(decision, Plan)
    assert all(finding.message for finding in decision.findings)


def test_four_masters_on_two_of_three_machines_have_words() -> None:
    """No machine has more masters than the best choice needs, and one has none."""
    view = crowded(formed(shape(4, 1)), "/n1", "/n1", "/n2", "/n2", "/n2", "/n3", "/n3", "/n1").look()
    verdict = judge(view)
    assert (verdict.verdict, verdict.why[0]) == (
        "improvable",
        "the masters run unevenly: 2 on n1, 2 on n2; 2, 1, 1 is possible",
    )


def gone(view: ClusterView, lost: set[NodeId]) -> tuple[bool, list[int]]:
    """By taking the nodes away: whether no majority of masters is left, and which shards have no copy."""
    masters = [node for node in view.nodes if node.slots]
    left = [node for node in masters if node.node_id not in lost]
    of_shard = shard_numbers(view)
    alive = {of_shard[node.node_id] for node in view.nodes if node.node_id not in lost}
    return (len(left) <= len(masters) / 2, sorted(set(of_shard.values()) - alive))


@given(anywhere())
@settings(max_examples=200, deadline=None)
def test_single_points_are_what_taking_each_place_away_finds(view: ClusterView) -> None:
    """Each known machine and each known zone is taken away in turn."""
    found = {(point.domain, point.name): (point.stops, list(point.loses)) for point in single_points(view)}
    expected = {}
    for domain in ("node", "zone"):
        for name in {getattr(place, domain) for place in view.places.values()} - {""}:
            here = {
                n.node_id for n in view.nodes if n.pod in view.places and getattr(view.places[n.pod], domain) == name
            }
            if (effect := gone(view, here)) != (False, []):
                expected[domain, name] = effect
    assert found == expected


def test_a_copy_without_a_link_does_not_count() -> None:
    """It is not complete: the machine of its master would take the only good copy with it."""
    view = crowded(formed(shape()), "a/n1", "b/n2", "c/n3", "b/n2", "c/n3", "a/n1").look()
    assert list(single_points(view)) == []
    replica = view.nodes[3]
    down = with_node(view, 3, replication=replace(replica.replication, link_up=False))
    assert [(point.name, point.loses) for point in single_points(down)] == [("n1", (0,)), ("a", (0,))]


def test_lost_masters_count_for_the_majority() -> None:
    """Of five masters one is lost and not replaced yet: with two more gone, two of five are left."""
    cluster = crowded(formed(shape(5, 0)), "/n1", "/n1", "/n2", "/n3", "/n4")
    view = cluster.look()
    assert [point.name for point in single_points(view) if point.stops] == []
    without = replace(view, nodes=view.nodes[:4])
    assert [(point.name, point.why) for point in single_points(without) if point.stops] == [
        ("n1", "2 of 5 masters and all copies of shards 0, 1 run there")
    ]
    quorum = replace(view, nodes=view.nodes[1:4])
    assert [point.name for point in single_points(quorum) if point.stops] == ["n1", "n2", "n3"]
    fewer = replace(view, nodes=view.nodes[2:4])
    assert [point.name for point in single_points(fewer) if point.stops] == [], "it has stopped already"


def test_one_line_for_a_person() -> None:
    """What may not fail, each place once; or that any may; nothing where no place is known, or slots are uncovered."""
    bad = two_of_three_on_one_machine().look()
    assert survival(bad, judge(bad)) == (
        "single points of failure: node n2 stops the cluster (2 of 3 masters run there)"
    )
    good = crowded(formed(shape()), "a/n1", "b/n2", "c/n3", "b/n2", "c/n3", "a/n1").look()
    assert survival(good, judge(good)) == "survives the failure of any one machine, and of any one zone"
    no_zones = crowded(formed(shape()), "/n1", "/n2", "/n3", "/n2", "/n3", "/n1").look()
    assert survival(no_zones, judge(no_zones)) == "survives the failure of any one machine"
    for view in (formed(shape()).look(), replace(good, nodes=good.nodes[1:])):
        assert survival(view, judge(view)) == ""
    silent = UnreachablePeer(pod="redis-app-6", ordinal=6, why=UnreachableReason.CONNECTION_REFUSED)
    assert survival(replace(good, unreachable=(silent,)), judge(good)) == ""
    several = crowded(formed(shape(4, 1)), "a/n1", "a/n1", "b/n2", "b/n2", "b/n3", "b/n4", "a/n5", "a/n5").look()
    assert survival(several, judge(several)) == (
        "single points of failure: node n1 stops the cluster (2 of 4 masters run there); "
        "node n2 stops the cluster (2 of 4 masters run there); "
        "zone a stops the cluster (2 of 4 masters run there); zone b stops the cluster (2 of 4 masters run there)"
    )


def test_pods_that_do_not_answer_are_named() -> None:
    """The verdict is about the others."""
    cluster = two_of_three_on_one_machine()
    cluster[5].alive = False
    view = cluster.look()
    assert "not counted, because they do not answer: redis-app-5" in judge(view).why
    assert [point.loses for point in single_points(view) if point.domain == "node"] == [(), (2,)]


def test_all_pairs_of_pods_on_one_machine_have_words() -> None:
    """Two replicas for each master: pairs are close that no choice takes apart, and no machine has half of the pods."""
    for crowd in combinations(range(9), 4):
        where = [f"z{ordinal}/n{ordinal}" if ordinal not in crowd else "c/crowd" for ordinal in range(9)]
        verdict = judge(crowded(formed(shape(3, 2)), *where).look())
        assert verdict.verdict == "optimal" or (all(verdict.why) and verdict.why)


def test_an_even_spread_is_not_called_uneven() -> None:
    """As even as the best choice, though on other machines; and as uneven only with unknown places are not named."""
    view = crowded(formed(shape()), "a/n1", "b/n2", "c/n3", "a/n1", "b/n2", "c/n3").look()
    assert not [why for why in judge(view).why if "unevenly" in why]
    zones = crowded(formed(shape(4, 1)), "a/n1", "a/n2", "b/n3", "b/n4", "c/n5", "c/n6", "c/n5", "a/n1").look()
    assert judge(zones).why == ("the masters run unevenly: 2 in zone a, 2 in zone b; 2, 1, 1 is possible",)


def test_a_single_point_names_at_most_three_shards() -> None:
    """Of more, it says how many."""
    where = {2: "copies of shards 0, 1", 3: "copies of shards 0, 1, 2", 4: "copies of 4 shards"}
    for shards, words in where.items():
        cluster = crowded(
            formed(shape(9, 0)), *["a/n1"] * shards, *[f"b/n{number}" for number in range(2, 11 - shards)]
        )
        first = next(iter(single_points(cluster.look())))
        assert first.why == f"all {words} run there"
    one = crowded(formed(shape(3, 0)), "a/n1", "b/n2", "c/n3")
    assert next(iter(single_points(one.look()))).why == "all copies of shard 0 run there"


def test_what_no_choice_mends_is_explained_by_the_place_of_most_pods() -> None:
    """More than half of them share it; half do not."""
    cases = {
        "4 of 6 pods run on n1": ("a/n1", "b/n2", "c/n3", "a/n1", "a/n1", "a/n1"),
        "all 6 pods run in zone a": ("a/n1", "a/n1", "a/n2", "a/n2", "a/n2", "a/n1"),
        "5 of 6 pods run in zone a": ("a/n1", "a/n2", "b/n3", "a/n2", "a/n1", "a/n1"),
        "4 of 6 pods run in zone a": ("a/n1", "a/n2", "b/n3", "a/n2", "b/n3", "a/n1"),
        "all 6 pods run on n1": ("a/n1",) * 6,
    }
    for why, where in cases.items():
        verdict = judge(crowded(formed(shape()), *where).look())
        assert (verdict.verdict, verdict.why) == ("best possible here", (why,))


def test_masters_that_run_unevenly_are_compared_with_the_best_choice() -> None:
    """Zones before machines; three masters in one place count for more than two and two."""
    close = crowded(formed(shape(3, 1)), "a/n1", "a/n1", "b/n2", "b/n3", "b/n4", "a/n5").look()
    assert judge(close).why[0] == "2 of 3 masters run on n1"
    assert judge(close).verdict == "improvable"
    even = crowded(formed(shape(3, 1)), "a/n1", "a/n2", "b/n3", "b/n4", "b/n5", "a/n6").look()
    assert (judge(even).verdict, judge(even).why) == ("optimal", ())


def test_two_pods_that_do_not_answer_are_named() -> None:
    cluster = two_of_three_on_one_machine()
    cluster[4].alive = cluster[5].alive = False
    assert "not counted, because they do not answer: redis-app-4, redis-app-5" in judge(cluster.look()).why


def test_without_masters_there_is_nothing_to_judge() -> None:
    """Blank nodes in known places."""
    cluster = crowded(FakeCluster(3), "a/n1", "a/n1", "b/n2")
    assert (judge(cluster.look()).verdict, judge(cluster.look()).why) == ("optimal", ())
