"""Failovers that spread masters over machines and zones, compared with every possible choice on small cases."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, NodeId, Place
from bootstrap.model.plan import Plan
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import ManualFailover, Replicate
from bootstrap.model.view import ClusterView
from bootstrap.plan.placement import failure_domains
from bootstrap.plan.planner import plan
from bootstrap.plan.spread import LAG_MAX_BYTES, failovers, lag_in_words, lagging, obstacle
from bootstrap.plan.verdict import single_points
from bootstrap.verify import violations
from tests.builders import apply_step, formed, half_formed, place, shape, steps_of, with_node
from tests.fake_cluster import FakeCluster, FakeNode, Killed
from tests.plan.places import SHAPES, crowded, scattered, two_of_three_on_one_machine
from tests.run.runs import run_on, run_on_without_goodbye

Badness = tuple[int, bool, int]
Choice = tuple[Node, ...]
SHAPE = shape()


def failovers_in(cluster: FakeCluster, desired: Desired = SHAPE) -> list[tuple[int, int]]:
    """The failovers of the plan: the ordinals of master and replica."""
    view = cluster.look()
    decision = plan(view, desired)
    assert isinstance(decision, Plan)
    steps = [step for step in steps_of(decision) if isinstance(step, ManualFailover)]
    return [(view.by_id[step.master].ordinal, view.by_id[step.candidate].ordinal) for step in steps]


# Every possible choice


def places_of(view: ClusterView) -> dict[NodeId, Place]:
    return {node.node_id: view.places[node.pod] for node in view.nodes}


def badness(view: ClusterView, masters: Choice) -> Badness | None:
    """What is to be minimised, the most important first; None where a machine that stops the cluster gets a master."""
    where, before = places_of(view), [node for node in view.nodes if node.slots]
    most = (len(before) - 1) // 2

    def counts(nodes: Sequence[Node], zones: bool) -> Counter[str]:
        return Counter(where[n.node_id].zone if zones else where[n.node_id].node for n in nodes)

    old, new = counts(before, zones=False), counts(masters, zones=False)
    if any(count > max(most, old[name]) for name, count in new.items()):
        return None
    in_zones = counts(masters, zones=True) if all(place.zone for place in where.values()) else Counter[str]()
    return (
        sum(count > most for count in new.values()),
        any(count > most for count in in_zones.values()),
        len({node.node_id for node in masters} - {node.node_id for node in before}),
    )


def every_choice(view: ClusterView) -> list[Badness]:
    masters = [node for node in view.nodes if node.slots]
    copies = [
        [node for node in view.nodes if master.node_id in (node.node_id, node.myself.master_id)] for master in masters
    ]
    return [found for choice in product(*copies) if (found := badness(view, choice)) is not None]


def chosen(view: ClusterView) -> list[ManualFailover]:
    return list(failovers(view, failure_domains(view), ()))


def after(view: ClusterView, steps: Sequence[ManualFailover]) -> Choice:
    moved = {step.master: view.by_id[step.candidate] for step in steps}
    return tuple(moved.get(node.node_id, node) for node in view.nodes if node.slots)


@pytest.mark.parametrize(("shards", "replicas"), SHAPES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_choice_is_better(shards: int, replicas: int, data: st.DataObject) -> None:
    """The fewest machines, then zones, that can stop the cluster, with the fewest failovers."""
    view = data.draw(scattered(shards, replicas)).look()
    assert badness(view, after(view, chosen(view))) == min(every_choice(view))


@pytest.mark.parametrize(("shards", "replicas"), SHAPES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_each_failover_leads_nearer_and_none_makes_it_worse(shards: int, replicas: int, data: st.DataObject) -> None:
    """Done one by one, each planned again: one failover less is left each time, and nothing at the end."""
    cluster = data.draw(scattered(shards, replicas))
    left = len(failovers_in(cluster, shape(shards, replicas)))
    stopping = stops(cluster.look(), "node")
    while left:
        decision = plan(cluster.look(), shape(shards, replicas))
        assert isinstance(decision, Plan)
        for step in decision.phases[0].steps:
            apply_step(step, cluster)
        fewer = len(failovers_in(cluster, shape(shards, replicas)))
        now = stops(cluster.look(), "node")
        assert (fewer, len(now) <= len(stopping)) == (left - 1, True)
        left, stopping = fewer, now
    assert not plan(cluster.look(), shape(shards, replicas))


@pytest.mark.parametrize(("shards", "replicas"), [(4, 1), (5, 1), (5, 2)])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_failover_that_helps_most_comes_first(shards: int, replicas: int, data: st.DataObject) -> None:
    """The one after which the fewest machines, then zones, stop the cluster; among equals the first master."""
    cluster = data.draw(scattered(shards, replicas))
    if data.draw(st.booleans()):  # the zone of one machine is unknown: zones do not count
        unknown = cluster.places["redis-app-0"].node
        cluster.places |= {pod: Place(node=unknown) for pod, each in cluster.places.items() if each.node == unknown}
    view = cluster.look()
    where, steps = places_of(view), chosen(view)
    zones_known = all(each.zone for each in where.values())

    def rank(done: Sequence[ManualFailover]) -> tuple[int, int, int]:
        masters = after(view, done)
        machines = Counter(where[node.node_id].node for node in masters)
        zones = Counter(where[node.node_id].zone for node in masters if zones_known)
        most = (len(masters) - 1) // 2
        crowded_machines = sum(count > most for count in machines.values())
        crowded_zones = sum(count > most for count in zones.values())
        return (crowded_machines, crowded_zones, view.by_id[done[-1].master].ordinal)

    for number, step in enumerate(steps):
        done = steps[:number]
        assert rank([*done, step]) == min(rank([*done, other]) for other in steps[number:])


def stops(view: ClusterView, domain: str) -> list[str]:
    return [point.name for point in single_points(view) if point.stops and point.domain == domain]


def test_a_machine_with_two_of_three_masters_gives_one_away() -> None:
    """One failover, to the replica on the machine that has no master."""
    cluster = two_of_three_on_one_machine()
    assert stops(cluster.look(), "node") == ["n2"]
    assert failovers_in(cluster) == [(3, 0)]


def test_machines_come_before_zones() -> None:
    """Three machines in two zones: one zone always has two masters, and no machine has."""
    cluster = crowded(formed(shape()), "a/n1", "a/n1", "b/n2", "b/n2", "b/n3", "a/n1")
    assert failovers_in(cluster) == [(1, 4)]
    for step in steps_of(plan(cluster.look(), shape())):
        apply_step(step, cluster)
    assert (stops(cluster.look(), "node"), stops(cluster.look(), "zone")) == ([], ["b"])
    assert failovers_in(cluster) == []


def test_a_zone_with_a_majority_gives_masters_away() -> None:
    """No machine has two masters; one zone has, and another one has none."""
    cluster = crowded(formed(shape()), "a/n1", "a/n2", "b/n3", "c/n4", "c/n5", "b/n6")
    assert [second for _, second in failovers_in(cluster)] in ([3], [4])


def test_half_of_the_masters_is_too_many() -> None:
    """Four masters need three votes: 2, 2, 0 has two single points, and 2, 1, 1 has one."""
    cluster = crowded(formed(shape(4, 1)), "a/n1", "a/n1", "b/n2", "b/n2", "b/n2", "c/n3", "c/n3", "a/n1")
    assert stops(cluster.look(), "node") == ["n1", "n2"]
    assert len(failovers_in(cluster, shape(4, 1))) == 1


def test_what_no_failover_mends_is_left_alone() -> None:
    """Two machines for four shards stay at 2 and 2; a shard on one machine stays there; one machine has all."""
    two = crowded(formed(shape(4, 1)), "a/n1", "a/n1", "b/n2", "b/n2", "b/n2", "b/n2", "a/n1", "a/n1")
    assert failovers_in(two, shape(4, 1)) == []
    together = crowded(formed(shape()), "a/n1", "b/n2", "c/n3", "a/n1", "b/n2", "c/n3")
    assert failovers_in(together) == []
    assert [point.loses for point in single_points(together.look()) if point.domain == "node"] == [(0,), (1,), (2,)]
    one = crowded(formed(shape()), *["/minikube"] * 6)
    assert failovers_in(one) == []
    assert [point.why for point in single_points(one.look())] == [
        "3 of 3 masters and all copies of shards 0, 1, 2 run there"
    ]


def test_among_equal_failovers_the_replicas_stay_apart_from_their_masters() -> None:
    """Both replicas of one master are on one machine, and those of another one are not."""
    where = ["a/n1", "a/n1", "b/n2", "c/n3", "c/n3", "c/n4", "c/n3", "c/n4", "c/n5"]
    cluster = crowded(formed(shape(3, 2)), *where)
    assert failovers_in(cluster, shape(3, 2)) == [(1, 4)]


@pytest.mark.parametrize(
    ("why", "found"),
    [
        ("a rollout", "redis-app-5 terminates"),
        ("off", "BOOTSTRAP_SPREAD_MASTERS is off"),
        ("a late replica", "redis-app-0 is 9.0 MiB behind its master, redis-app-4 is 9.0 MiB behind its master"),
    ],
)
def test_masters_stay_where_a_failover_would_harm(why: str, found: str) -> None:
    """It is reported with its cause, and nothing is written."""
    cluster, desired = two_of_three_on_one_machine(), shape()
    match why:
        case "a rollout":
            cluster.rollout = found
        case "off":
            desired = replace(desired, spread_masters="off")
        case _:
            cluster[1].offset = cluster[3].offset = LAG_MAX_BYTES + (1 << 20)
    decision = plan(cluster.look(), desired)
    assert isinstance(decision, Plan)
    assert decision.phases == ()
    (finding,) = [each for each in decision.findings if each.code == "masters-not-spread"]
    points = "single points of failure: node n2 stops the cluster (2 of 3 masters run there)"
    assert finding.message == f"{points}; no master fails over now: {found}"


def test_without_known_places_nothing_is_done() -> None:
    """Outside Kubernetes no place is known; where one is missing, it might be any."""
    cluster = two_of_three_on_one_machine()
    del cluster.places["redis-app-5"]
    assert failovers_in(cluster) == []
    cluster.places = {}
    assert failovers_in(cluster) == []


def test_a_pod_that_does_not_answer_keeps_all_masters_where_they_are() -> None:
    """Whatever else a plan does without it."""
    cluster = two_of_three_on_one_machine()
    cluster[5].alive = False
    decision = plan(cluster.look(), shape())
    assert not [step for step in steps_of(decision) if isinstance(step, ManualFailover)]


def test_a_repair_comes_first() -> None:
    """While a replica is missing, no master fails over."""
    cluster = two_of_three_on_one_machine()
    cluster.nodes[5] = cluster._blank(5)
    steps = steps_of(plan(cluster.look(), shape()))
    assert steps
    assert not [step for step in steps if isinstance(step, ManualFailover)]


@given(state=half_formed(), chance=st.integers(0, 2**32))
@settings(deadline=None, max_examples=200)
def test_no_master_fails_over_in_a_cluster_that_is_not_whole(state: tuple[FakeCluster, Desired], chance: int) -> None:
    """`verify` finds nothing wrong, but for settings, which come first, and for keys that no client can see, which a
    failover does not concern.
    """
    cluster, desired = state
    machines = random.Random(chance)
    cluster.places = {node.pod: place(f"/n{machines.randrange(3)}") for node in cluster.nodes}
    view = cluster.look()
    decision = plan(view, desired)
    if any(isinstance(step, ManualFailover) for step in steps_of(decision)):
        assert {bad.code for bad in violations(view, desired)} <= SETTINGS | {"keys-left-over"}


SETTINGS = {"timeout-drift", "temporary-settings"}


# Whole runs


def test_a_run_spreads_masters_and_a_second_one_writes_nothing() -> None:
    """One write; the run has resized nothing."""
    cluster = two_of_three_on_one_machine()
    run = run_on(cluster)
    assert violations(run.converge(), shape()) == ()
    assert [type(write) for write in cluster.written] == [ManualFailover]
    assert (run.steps_done, run.resized) == (1, False)
    assert list(single_points(run.view)) == []
    cluster.written.clear()
    run_on(cluster).converge()
    assert cluster.written == []


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("before", [True, False], ids=["just before", "just after"])
def test_a_run_killed_between_failovers_is_finished_by_the_next(number: int, before: bool) -> None:
    """All masters on one machine need two failovers, and no kill makes a third one necessary."""
    cluster = crowded(formed(shape()), "/n1", "/n1", "/n1", "/n2", "/n3", "/n2")
    cluster.kill_at, cluster.kill_before = number, before
    with pytest.raises(Killed):
        run_on_without_goodbye(cluster)
    cluster.kill_at = None
    run = run_on(cluster)
    assert violations(run.converge(), shape()) == ()
    assert stops(run.view, "node") == []
    assert len(cluster.written) == 2


@pytest.mark.parametrize("why", ["NOPERM this user has no permissions", "ERR Master is down or failed"])
def test_failovers_that_fail_do_not_fail_the_run(why: str) -> None:
    """The cluster is whole with or without them: two tries, then the run reports it as it is."""
    cluster = two_of_three_on_one_machine()
    cluster._manual_failover = lambda candidate: why  # type: ignore[method-assign]
    run = run_on(cluster)
    assert violations(run.converge(), shape()) == ()
    assert (len(cluster.written), run.steps_done) == (2, 0)
    assert stops(run.view, "node") == ["n2"]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_spreading_and_swapping_replicas_come_to_rest(data: st.DataObject) -> None:
    """With both on, masters move only until the fewest machines can stop the cluster; then a run writes nothing."""
    wanted = data.draw(st.sampled_from(["on", "with-a-gap"]))
    desired = replace(shape(3, data.draw(st.integers(1, 2))), replace_replicas=wanted)
    cluster = data.draw(scattered(3, desired.replicas_per_shard))
    before = len(stops(cluster.look(), "node"))
    view = run_on(cluster, desired).converge()
    assert violations(view, desired) == ()
    assert len(stops(view, "node")) <= before
    assert len([write for write in cluster.written if isinstance(write, ManualFailover)]) <= 2 * desired.shards
    cluster.written.clear()
    run_on(cluster, desired).converge()
    assert [write for write in cluster.written if isinstance(write, ManualFailover | Replicate)] == []


def test_machines_crash_one_after_the_other() -> None:
    """Three machines, three zones: a machine is lost with its disks, a run repairs, the next one follows. After each
    repair no machine can stop the cluster, so the masters that are left elect the replicas by themselves.
    """
    for seed in range(int(os.environ.get("CRASH_SEEDS", "30"))):
        try:
            crash_machines(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def crash_machines(seed: int) -> None:
    chance = random.Random(seed)
    shards, replicas = chance.choice([(3, 1), (5, 1), (6, 1)])
    desired = shape(shards, replicas)
    cluster = FakeCluster(desired.nodes, seed=seed, loss=chance.choice([0.0, 0.2]))
    machines = [f"{'abc'[ordinal % 3]}/n{ordinal % 3}" for ordinal in range(desired.nodes)]
    crowded(cluster, *chance.sample(machines, len(machines)))
    run_on(cluster, desired).converge()
    for node in cluster.nodes:
        node.keys = 10 * bool(node.slots)
    cluster.sleep(1)
    total = sum(node.keys for node in cluster.nodes if node.slots)
    for _ in range(4):
        machine = f"n{chance.randrange(3)}"
        view = cluster.look()
        assert stops(view, "node") == []
        if any(point.loses for point in single_points(view) if point.name == machine):
            continue
        lost = [node for node in cluster.nodes if cluster.places[node.pod].node == machine]
        homes = first_slots(cluster)
        for node in lost:
            node.alive = False
        cluster.sleep(20)
        owners = [node for node in cluster.nodes if node.alive and node.slots]
        assert len({slot for node in owners for slot in node.slots}) == 16384, "the servers' own elections"
        for node in lost:
            come_back(cluster, node, homes[node.pod], blank=chance.random() < 0.5)
        cluster.kill_at, cluster.kill_before = len(cluster.written) + chance.randint(0, 9), chance.random() < 0.5
        with suppress(Killed):
            run_on_without_goodbye(cluster, desired)
        cluster.kill_at = None
        view = run_on(cluster, desired).converge()
        assert violations(view, desired) == ()
        assert sum(node.keys for node in cluster.nodes if node.slots) == total


def first_slots(cluster: FakeCluster) -> dict[str, int]:
    """The lowest slot of the shard of each pod."""
    of_master = {node.node_id: node.slots.ranges[0][0] for node in cluster.nodes if node.slots}
    return {node.pod: of_master[node.master or node.node_id] for node in cluster.nodes}


def come_back(cluster: FakeCluster, node: FakeNode, slot: int, *, blank: bool) -> None:
    """The pod runs again, with or without its disk. A server whose shard has a new master follows it by itself."""
    node.alive = True
    owner = max((each for each in cluster.nodes if slot in each.slots), key=lambda each: each.epoch)
    if blank:
        cluster.nodes[node.ordinal] = cluster._blank(node.ordinal)
    elif owner is not node and node.master != owner.node_id:
        node.slots, node.master, node.link_up, node.copy_ticks = SlotSet(), owner.node_id, False, 3


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_a_large_cluster_is_spread(data: st.DataObject) -> None:
    """Sixty shards, all masters on two of eight machines."""
    chance = random.Random(data.draw(st.integers(0, 10**6)))
    where = [f"/n{chance.randrange(2)}" for _ in range(60)] + [f"/n{chance.randrange(2, 8)}" for _ in range(60)]
    view = crowded(formed(shape(60, 1)), *where).look()
    assume(stops(view, "node"))
    steps = chosen(view)
    masters = Counter(view.places[node.pod].node for node in view.nodes if node.slots)
    assert len(steps) == sum(max(0, count - 29) for count in masters.values())
    assert max(Counter(places_of(view)[node.node_id].node for node in after(view, steps)).values()) <= 29


def test_a_replica_whose_link_is_down_does_not_take_over() -> None:
    """It would lose what it has not read."""
    view = two_of_three_on_one_machine().look()
    replica = view.nodes[0]
    down = with_node(view, 0, replication=replace(replica.replication, link_up=False))
    assert [step.candidate for step in chosen(view)] == [replica.node_id]
    assert replica.node_id not in [step.candidate for step in chosen(down)]


def test_only_a_linked_replica_far_behind_its_master_lags() -> None:
    """By more than eight mebibytes; how far the master itself has come does not matter."""
    cluster = formed(shape())
    for node in cluster.nodes:
        node.offset = 100 << 20
    cluster[3].offset -= LAG_MAX_BYTES
    cluster[4].offset -= LAG_MAX_BYTES + 1
    cluster[5].offset = 0
    view = cluster.look()
    view = with_node(view, 5, replication=replace(view.nodes[5].replication, link_up=False))
    assert [(node.ordinal, behind) for node, behind in lagging(view)] == [(4, LAG_MAX_BYTES + 1)]
    assert lag_in_words(view) == "redis-app-4 is 8.0 MiB behind its master"


def test_what_keeps_masters_where_they_are_is_named() -> None:
    """The setting, then pods that do not answer, then the rollout; nothing in a cluster at rest."""
    cluster = two_of_three_on_one_machine()
    assert obstacle(cluster.look(), "on") == ""
    cluster.rollout = "redis-app-5 terminates"
    assert obstacle(cluster.look(), "on") == "redis-app-5 terminates"
    cluster[5].alive = False
    assert obstacle(cluster.look(), "on") == "not all pods answer"
    assert obstacle(cluster.look(), "off") == "BOOTSTRAP_SPREAD_MASTERS is off"
