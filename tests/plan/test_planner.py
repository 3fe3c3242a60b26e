"""The planner: its decision for each scenario, and the properties of every decision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.model.desired import Desired
from bootstrap.model.plan import Plan
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import AddSlots, Meet, MoveSlots, Replicate, SetEpoch, SetTimeout, Step
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import Wait
from bootstrap.plan.planner import plan
from bootstrap.plan.settled import settled
from bootstrap.verify import violations
from tests.builders import (
    Scenario,
    apply_step,
    codes,
    decision_text,
    formed,
    gossip,
    half_formed,
    introduce,
    scenario,
    shape,
    shuffled,
    steps_of,
    with_line,
    with_node,
)
from tests.fake_cluster import FakeCluster

SCENARIOS = {path.stem.replace("_", " "): path for path in sorted((Path(__file__).parent / "scenarios").glob("*.txt"))}
by_scenario = pytest.mark.parametrize("found", [scenario(path) for path in SCENARIOS.values()], ids=list(SCENARIOS))


@by_scenario
def test_scenario(found: Scenario) -> None:
    """The plan or the refusal is, word for word, the one that the scenario's file expects."""
    assert decision_text(found.view(), found.desired) == found.expected


RESIZED = {
    "a surplus master gives its slots to the others",
    "a new master joins before slots are moved to it",
    "a smaller shape foresees moves failovers and departures",
    "without a majority of masters the best replica takes over",
}
"""Scenarios whose later phases are only foreseen: they are planned again, and may then differ."""


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in RESIZED])
def test_a_plan_interrupted_after_any_step_continues_with_the_rest(name: str) -> None:
    """After each step the new plan has the remaining writes of the old one and no fewer waits; the end is verified."""
    found = scenario(SCENARIOS[name])
    cluster = found.cluster
    decision = plan(found.view(), found.desired)
    tail = steps_of(decision)
    while tail:
        apply_step(tail.pop(0), cluster)
        view = cluster.look()
        rest = steps_of(plan(view, found.desired))
        assert open_writes(view, rest) == open_writes(view, tail)
        assert {step for step in tail if isinstance(step, Wait) and not settled(step, view)} <= set(rest)
    if isinstance(decision, Plan):
        for step in steps_of(plan(cluster.look(), found.desired)):
            assert isinstance(step, Wait)
            apply_step(step, cluster)
        left = {"keys-left-over"} if "left over" in name else set()  # no step removes these
        assert {bad.code for bad in violations(cluster.look(), found.desired)} == left


@pytest.mark.parametrize("name", sorted(RESIZED))
def test_a_resize_is_completed_phase_by_phase(name: str) -> None:
    """The first phase of each plan is done, then planned again: the end is verified, and every slot has moved once."""
    found = scenario(SCENARIOS[name])
    moved: list[int] = []
    for _ in range(20):
        decision = plan(found.cluster.look(), found.desired)
        if not (isinstance(decision, Plan) and decision):
            break
        for step in decision.phases[0].steps:
            moved += step.slots if isinstance(step, MoveSlots) else ()
            apply_step(step, found.cluster)
    assert decision == Plan(findings=decision.findings) if isinstance(decision, Plan) else False
    assert violations(found.cluster.look(), found.desired) == ()
    assert moved
    assert len(moved) == len(set(moved))


def open_writes(view: ClusterView, steps: list[Step]) -> list[Step]:
    """Writes that are not settled yet; a timeout that is restored before it was lowered counts as settled."""
    return [step for step in steps if not isinstance(step, Wait) and not settled(step, view)]


@given(half_formed(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_the_order_of_the_facts_does_not_matter(state: tuple[FakeCluster, Desired], seed: int) -> None:
    """The same facts in another order give the same plan, or the same reasons."""
    cluster, desired = state
    view = cluster.look()
    assert plan(shuffled(view, seed), desired) == plan(view, desired)


@given(half_formed())
@settings(deadline=None, max_examples=60)
def test_a_new_owner_never_becomes_a_replica(state: tuple[FakeCluster, Desired]) -> None:
    """No node gets both slots and a master, and no node gets a master that is about to become a replica."""
    cluster, desired = state
    steps = steps_of(plan(cluster.look(), desired))
    owners = {step.node for step in steps if isinstance(step, AddSlots)}
    followers = [step.replica for step in steps if isinstance(step, Replicate)]
    followed = {step.master for step in steps if isinstance(step, Replicate)}
    assert len(set(followers)) == len(followers)
    assert not set(followers) & (owners | followed)


def test_a_handshake_in_flight_changes_only_epochs() -> None:
    """Its id is random: no step may use it, and it makes no node a member of a cluster."""
    cluster = FakeCluster(6)
    cluster[0].handshakes[cluster[1].address] = cluster.time
    view = cluster.look()
    steps = steps_of(plan(view, shape()))
    assert {step.newcomer for step in steps if isinstance(step, Meet)} <= view.by_id.keys()
    assert cluster[0].node_id not in {step.node for step in steps if isinstance(step, SetEpoch)}
    assert view.nodes[0].blank


def test_introducers_are_few_in_a_big_cluster() -> None:
    """All pairs would saturate the CPU: 16 nodes introduce, gossip links the rest. Up to 64 nodes, all pairs meet."""
    for nodes, introducers in ((66, 16), (64, 63)):
        steps = steps_of(plan(FakeCluster(nodes).look(), shape(nodes // 2, 1)))
        meets = [step for step in steps if isinstance(step, Meet)]
        assert len({step.introducer for step in meets}) == introducers
        assert len(meets) == sum(nodes - 1 - index for index in range(introducers))


def test_nodes_that_gossip_has_not_linked_are_introduced_directly() -> None:
    """When every introducer is linked to all nodes, the pairs without a link meet."""
    cluster = formed(shape(70, 0))
    one, other = cluster[68], cluster[69]
    del one.known[other.node_id], other.known[one.node_id]
    meets = [step for step in steps_of(plan(cluster.look(), shape(70, 0))) if isinstance(step, Meet)]
    assert [(step.introducer, step.newcomer) for step in meets] == [(one.node_id, other.node_id)]


@pytest.mark.parametrize("flag", ["fail", "fail?"])
def test_a_suspected_node_is_met_again(flag: str) -> None:
    """After a move of all pods only MEET updates the address of a peer."""
    view = formed(shape()).look()
    view = with_line(view, 2, 4, flags=frozenset({"slave", flag}))
    meets = [step for step in steps_of(plan(view, shape())) if isinstance(step, Meet)]
    assert [(step.introducer, step.newcomer) for step in meets] == [(view.nodes[2].node_id, view.nodes[4].node_id)]


@pytest.mark.parametrize(
    ("why", "spoil"),
    [
        ("a key", lambda node: setattr(node, "keys", 1)),
        ("a node that serves", lambda node: setattr(node, "serving", True)),
    ],
)
def test_a_timeout_is_lowered_only_where_nothing_can_be_lost(why: str, spoil: Callable[[object], None]) -> None:
    """With one key, or one node that serves, the failure detection stays as declared."""
    cluster = formed(shape())
    for node in cluster.nodes:
        node.serving = False
    assert [s for s in steps_of(plan(cluster.look(), shape())) if isinstance(s, SetTimeout) and s.timeout_ms == 1000]
    spoil(cluster[0])
    assert not [s for s in steps_of(plan(cluster.look(), shape())) if isinstance(s, SetTimeout)], why


def test_a_timeout_that_cannot_be_read_is_left_alone() -> None:
    """CONFIG is denied on managed servers; forming works without it."""
    view = FakeCluster(6).look()
    for ordinal in range(6):
        view = with_node(view, ordinal, timeout_ms=None)
    steps = steps_of(plan(view, shape()))
    assert steps
    assert not [step for step in steps if isinstance(step, SetTimeout)]


def test_two_owners_without_keys_and_without_a_common_slot_are_joined() -> None:
    """A forming that was killed looks like that. With one common slot they are refused."""
    cluster = FakeCluster(3)
    cluster[0].slots, cluster[1].slots = SlotSet.of((0, 99)), SlotSet.of((100, 199))
    assert codes(plan(cluster.look(), shape(3, 0))) == set()
    cluster[1].slots = SlotSet.of((99, 199))
    assert codes(plan(cluster.look(), shape(3, 0))) == {"two-clusters"}


def test_nodes_that_are_known_in_one_direction_are_one_cluster() -> None:
    """A MEET may reach one side only: a node that another one knows belongs to its cluster."""
    cluster = formed(shape(3, 0))
    cluster[0].keys = 5
    for node in cluster.nodes:
        node.known.clear()
    introduce([cluster[0], cluster[1]])
    introduce([cluster[1], cluster[2]])
    cluster[2].known.clear()
    gossip(cluster)
    assert isinstance(plan(cluster.look(), shape(3, 0)), Plan)


def test_a_healthy_cluster_has_an_empty_plan() -> None:
    """An empty plan is false, like an empty list; a plan with a wait is true."""
    cluster = formed(shape())
    assert not plan(cluster.look(), shape())
    cluster[0].serving = False
    waiting = plan(cluster.look(), shape(timeout_ms=None))
    assert waiting
    assert all(isinstance(step, Wait) for step in steps_of(waiting))
