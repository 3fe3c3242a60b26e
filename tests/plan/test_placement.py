"""Placement of roles, compared with every possible choice on small cases."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.model.desired import Desired
from bootstrap.model.node import NodeId
from bootstrap.model.plan import Plan
from bootstrap.model.view import ClusterView
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.placement import (
    FailureDomain,
    choose_masters,
    colocation,
    failure_domains,
    fewest_pairs,
    give_replicas,
    swap,
)
from bootstrap.plan.planner import plan
from bootstrap.plan.verdict import judge
from bootstrap.verify import violations
from tests.builders import formed, place, shape
from tests.fake_cluster import FakeCluster
from tests.run.runs import run_on

Cost = tuple[int, int, int, int]


def at(view: ClusterView, *where: str) -> ClusterView:
    """The view with its pods at `zone/node`, in ordinal order; `/node` for an unknown zone, "" for both."""
    return replace(view, places={node.pod: place(text) for node, text in zip(view.nodes, where, strict=True)})


def fresh(*where: str) -> ClusterView:
    return at(FakeCluster(len(where)).look(), *where)


def roles(view: ClusterView, desired: Desired) -> dict[int, list[int]]:
    ordinal = {node.node_id: node.ordinal for node in view.nodes}
    return {ordinal[s.master]: [ordinal[r] for r in s.replicas] for s in Assessment(view, desired).shards}


def cost(masters: list[FailureDomain], pairs: list[tuple[FailureDomain, FailureDomain]]) -> Cost:
    """What is to be minimised, the most important first."""
    zones, nodes = Counter(domain.zone for domain in masters), Counter(domain.node for domain in masters)
    return (
        sum(one.node == other.node for one, other in pairs),
        sum(one.zone == other.zone for one, other in pairs),
        sum(count**2 for count in zones.values()),
        sum(count**2 for count in nodes.values()),
    )


def best_of_all(where: list[FailureDomain], shards: int, replicas: int) -> tuple[Cost, tuple[int, ...]]:
    """By trying every choice: the lowest cost, and the first set of masters that has it."""
    found = []
    for masters in combinations(range(len(where)), shards):
        rest = [index for index in range(len(where)) if index not in masters]
        wanted = [master for master in masters for _ in range(replicas)]
        least = min(
            cost([where[m] for m in masters], [(where[m], where[r]) for m, r in zip(wanted, order, strict=True)])
            for order in set(permutations(rest))
        )
        found.append((least, masters))
    return min(found)


@st.composite
def somewhere(draw: st.DrawFn, shards: int, replicas: int) -> list[str]:
    """Pods on up to four nodes, each in one of up to three zones, or in an unknown zone."""
    zone_of = draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=4, max_size=4))
    known = draw(st.booleans())
    machines = draw(st.lists(st.integers(0, 3), min_size=shards * (1 + replicas), max_size=shards * (1 + replicas)))
    return [f"{zone_of[machine] if known else ''}/n{machine}" for machine in machines]


@pytest.mark.parametrize(("shards", "replicas"), [(3, 1), (2, 2), (3, 0), (2, 1)])
@given(data=st.data())
@settings(max_examples=60)
def test_no_choice_is_better(shards: int, replicas: int, data: st.DataObject) -> None:
    """No choice has fewer pairs on a node, then in a zone, or masters spread more evenly over zones, then nodes; and of
    equally good sets of masters it is the one with the lowest ordinals.
    """
    view = fresh(*data.draw(somewhere(shards, replicas)))
    where = failure_domains(view)
    domains = [where[node.node_id] for node in view.nodes]
    desired = Desired(shards=shards, replicas_per_shard=replicas)
    found = roles(view, desired)
    least, masters = best_of_all(domains, shards, replicas)
    pairs = [(domains[master], domains[replica]) for master, rest in found.items() for replica in rest]
    assert cost([domains[master] for master in found], pairs) == least
    assert tuple(found) == masters


@given(st.data())
@settings(max_examples=60)
def test_masters_that_are_kept_do_not_change_the_choice_of_the_rest(data: st.DataObject) -> None:
    """A forming that was killed after some masters had slots ends with the masters that were planned."""
    view = fresh(*data.draw(somewhere(3, 1)))
    where = failure_domains(view)
    whole = choose_masters(view.nodes, (), 3, 1, where)
    names = data.draw(st.lists(st.sampled_from([node.pod for node in whole]), unique=True))
    kept = [node for node in whole if node.pod in names]
    rest = [node for node in view.nodes if node.pod not in names]
    assert {node.pod for node in choose_masters(rest, kept, 3, 1, where)} == {node.pod for node in whole}


def test_with_unknown_places_the_ordinals_decide() -> None:
    """0, 1, 2 masters; 3→0, 4→1, 5→2."""
    assert roles(FakeCluster(6).look(), shape()) == {0: [3], 1: [4], 2: [5]}
    assert roles(fresh(*["/n1"] * 6), shape()) == {0: [3], 1: [4], 2: [5]}


def test_three_nodes_in_three_zones() -> None:
    """The scheduler put 0 and 3 on one node: 3 follows 1, and so on."""
    view = fresh("a/n1", "b/n2", "c/n3", "a/n1", "b/n2", "c/n3")
    assert roles(view, shape()) == {0: [4], 1: [3], 2: [5]} or roles(view, shape()) == {0: [4], 1: [5], 2: [3]}


def test_masters_leave_a_crowded_zone() -> None:
    """0, 1 and 2 run in one zone: only one of them becomes a master."""
    view = fresh("a/n1", "a/n2", "a/n3", "b/n4", "c/n5", "b/n6")
    assert list(roles(view, shape())) == [0, 3, 4]


def test_a_second_replica_runs_far_from_the_first() -> None:
    """Apart from their master, and apart from each other where that costs nothing."""
    view = fresh(*[f"{zone}/{zone}{number}" for number in range(3) for zone in "abc"])
    where = failure_domains(view)
    for master, replicas in roles(view, shape(3, 2)).items():
        zones = {where[view.nodes[ordinal].node_id].zone for ordinal in (master, *replicas)}
        assert zones == {"a", "b", "c"}


def test_a_blank_pod_goes_to_a_shard_in_another_failure_domain() -> None:
    """Two shards lack a replica and two pods came back blank, each on the node of the nearer master."""
    cluster = formed(shape())
    for ordinal in (3, 4):
        cluster.nodes[ordinal] = cluster._blank(ordinal)
    view = at(cluster.look(), "a/n1", "b/n2", "c/n3", "a/n1", "b/n2", "a/n4")
    assert roles(view, shape()) == {0: [4], 1: [3], 2: [5]}


def test_a_thousand_pods_are_placed_without_a_shared_node_or_zone() -> None:
    """500 pairs on 100 nodes in three zones."""
    ids = [f"{number:040x}" for number in range(1000)]
    where: dict[NodeId, FailureDomain] = {
        each: FailureDomain("abc"[i % 100 % 3], f"n{i % 100}") for i, each in enumerate(ids)
    }
    view = FakeCluster(0).look()
    assert view.nodes == ()
    masters = ids[:500]
    given_ = give_replicas(dict.fromkeys(masters, 1), ids[500:], where, {})
    assert sum(map(len, given_.values())) == 500
    assert not [1 for master, rest in given_.items() for r in rest if where[master].zone == where[r].zone]


def test_the_verdict_explains_what_could_or_could_not_be_better() -> None:
    """Optimal; as good as it gets on one node, or in one zone; and each pair that could be apart."""
    good = at(formed(shape()).look(), "a/n1", "b/n2", "c/n3", "b/n2", "c/n3", "a/n1")
    assert judge(good).verdict == "optimal"
    alone = judge(at(good, *["/minikube"] * 6))
    assert alone.verdict == "best possible here"
    assert alone.why == ("all 6 pods run on minikube", "the zones of the pods are not known")
    one_zone = judge(at(good, "a/n1", "a/n2", "a/n3", "a/n2", "a/n3", "a/n1"))
    assert (one_zone.verdict, one_zone.why) == ("best possible here", ("all 6 pods run in zone a",))
    bad = judge(at(good, "a/n1", "b/n2", "c/n3", "a/n1", "c/n4", "b/n5"))
    assert (bad.verdict, bad.why) == ("improvable", ("redis-app-3 runs on n1, like its master redis-app-0",))
    lopsided = judge(at(good, "a/n1", "a/n2", "c/n3", "b/n4", "b/n5", "a/n6"))
    assert (lopsided.verdict, lopsided.why) == ("improvable", ("2 of 3 masters run in zone a",))
    assert judge(formed(shape()).look()).verdict == "unknown"


@pytest.mark.parametrize(("shards", "replicas"), [(3, 2), (3, 1)])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_swap_is_better(shards: int, replicas: int, data: st.DataObject) -> None:
    """Of the replicas that run closest to their masters, the first one that another replica's place helps; the swap
    after which the fewest pairs share a node, then a zone. None only where no swap helps.
    """
    view = at(formed(shape(shards, replicas)).look(), *data.draw(somewhere(shards, replicas)))
    where = failure_domains(view)
    followers = [node for node in view.nodes if node.myself.master_id]
    present = {node.node_id: node.myself.master_id or "" for node in followers}

    def shared(one: NodeId, other: NodeId) -> tuple[int, int]:
        same_node = where[one].node == where[other].node
        return (int(same_node), int(where[one].zone == where[other].zone and not same_node))

    def after(one: NodeId, other: NodeId) -> tuple[int, int]:
        swapped = present | {one: present[other], other: present[one]}
        nodes, zones = zip(*(shared(replica, master) for replica, master in swapped.items()), strict=True)
        return (sum(nodes), sum(zones))

    found = swap(view, with_a_gap=replicas == 1)
    unchanged = after(followers[0].node_id, followers[0].node_id)
    closest = sorted(followers, key=lambda node: shared(node.node_id, present[node.node_id]), reverse=True)
    for replica in closest:
        best = min(followers, key=lambda other: (after(replica.node_id, other.node_id), other.ordinal))
        if after(replica.node_id, best.node_id) < unchanged:
            assert found == (replica.node_id, present[best.node_id])
            return
    assert found is None


def test_a_shard_with_one_replica_takes_part_in_a_swap_only_with_a_gap() -> None:
    """Until both halves are done it has no replica."""
    view = too_close(1).look()
    assert swap(view, with_a_gap=False) is None
    assert swap(view, with_a_gap=True) == (view.nodes[3].node_id, view.nodes[1].node_id)


def test_pairs_that_have_to_share_a_place_are_counted() -> None:
    """Three masters and four replicas: two for the first master, one for each of the others."""
    view = at(formed(shape(7, 0)).look(), "a/n1", "b/n2", "c/n3", "a/n1", "a/n1", "a/n1", "b/n2")
    where, masters = failure_domains(view), view.nodes[:3]
    assert fewest_pairs(masters, view.nodes, where) == (1, 1)
    assert fewest_pairs(masters[1:], view.nodes[1:], where) == (0, 0)
    assert fewest_pairs(masters[:1], view.nodes, where) == (3, 3)
    assert fewest_pairs((), view.nodes, where) == (0, 0)
    assert fewest_pairs((), (), where) == (0, 0)


def test_places_are_apart_in_one_zone_or_on_one_node() -> None:
    here = FailureDomain("a", "n1")
    places = [FailureDomain("b", "n2"), FailureDomain("a", "n2"), here]
    assert [colocation(here, other) for other in places] == [0, 1, 2]


def too_close(replicas: int) -> FakeCluster:
    """A formed cluster of three shards in which two replicas should be swapped."""
    cluster = formed(shape(3, replicas))
    where = ["a/n1", "b/n2", "c/n3", "a/n1", "b/n2", "b/n2", "c/n3", "c/n3", "a/n1"]
    cluster.places = {node.pod: place(text) for node, text in zip(cluster.nodes, where, strict=False)}
    for node in cluster.nodes:
        node.keys = 5 + (node.ordinal % 3)
    return cluster


def linked_replicas(cluster: FakeCluster) -> dict[NodeId, int]:
    """How many replicas with a link each master has."""
    owners = [node.node_id for node in cluster.nodes if node.slots]
    return {owner: sum(n.master == owner and n.link_up for n in cluster.nodes) for owner in owners}


def test_replicas_are_swapped_only_when_declared() -> None:
    """By default it is only reported, and nothing is written."""
    cluster = too_close(2)
    decision = plan(cluster.look(), shape(3, 2))
    assert isinstance(decision, Plan)
    assert (decision.phases, [finding.code for finding in decision.findings]) == ((), ["placement"])


@pytest.mark.parametrize("seed", range(20))
def test_a_swap_never_leaves_a_shard_without_a_linked_replica(seed: int) -> None:
    """With two replicas each, every shard keeps a linked one at every moment; at the end the verdict is optimal."""
    cluster = too_close(2)
    cluster.random.seed(seed)
    least: list[int] = []
    tick = cluster._tick

    def watched() -> None:
        tick()
        least.append(min(linked_replicas(cluster).values()))

    cluster._tick = watched  # type: ignore[method-assign]
    desired = replace(shape(3, 2), replace_replicas="on")
    view = run_on(cluster, desired).converge()
    assert (violations(view, desired), judge(view).verdict) == ((), "optimal")
    assert cluster.written
    assert min(least) >= 1
    cluster.written.clear()
    run_on(cluster, desired).converge()
    assert cluster.written == []


def test_a_swap_with_one_replica_per_shard_has_to_be_accepted() -> None:
    """`on` reports what prevents it and writes nothing; `with-a-gap` swaps them."""
    cluster = too_close(1)
    careful = plan(cluster.look(), replace(shape(), replace_replicas="on"))
    assert isinstance(careful, Plan)
    assert (careful.phases, [f.code for f in careful.findings]) == ((), ["placement", "replicas-not-exchanged"])
    desired = replace(shape(), replace_replicas="with-a-gap")
    view = run_on(cluster, desired).converge()
    assert judge(view).verdict == "optimal"
    assert len(cluster.written) == 2
