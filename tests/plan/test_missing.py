"""The planner while pods do not answer: what is done without them, and what waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.model.desired import Desired
from bootstrap.model.node import Role
from bootstrap.model.plan import Plan
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import Failover, Meet, Provision, Reattach, Replicate, SetConfig, SetTimeout, Step
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import AwaitAgreement, AwaitElection, AwaitMesh, Wait
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.contradictors import contradictors
from bootstrap.plan.lost_members import absent, takeover_fingerprint
from bootstrap.plan.planner import plan
from bootstrap.plan.settled import settled
from tests.builders import Scenario, apply_step, decision_text, gossip, half_formed, introduce, scenario, steps_of
from tests.fake_cluster import NO_FAILOVER, FakeCluster
from tests.plan.damage import healthy, wipe
from tests.plan.test_safety import dangers

SHAPE = Desired(shards=3, replicas_per_shard=1, timeout_ms=5000)
SCENARIOS = {path.stem.replace("_", " "): path for path in sorted((Path(__file__).parent / "missing").glob("*.txt"))}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str) -> None:
    """The plan is, word for word, the one that the scenario's file expects."""
    found = scenario(SCENARIOS[name])
    assert decision_text(found.view(), found.desired) == found.expected


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_plan_interrupted_after_any_step_continues_with_the_rest(name: str) -> None:
    """After each step the new plan has the remaining writes of the old one, and none that was held back."""
    found = scenario(SCENARIOS[name])
    decision = plan(found.view(), found.desired)
    assert isinstance(decision, Plan)
    held = {step for each in decision.held_back for step in each.steps}
    tail = steps_of(decision)
    while tail:
        apply_step(tail.pop(0), found.cluster)
        view = found.view()
        rest = steps_of(plan(view, found.desired))
        assert open_writes(view, rest) == open_writes(view, tail)
        assert not held & set(rest)


def open_writes(view: ClusterView, steps: Iterable[Step]) -> list[Step]:
    """After the first takeover the masters are a majority again, and can vote."""
    still_open = (step for step in steps if not isinstance(step, Wait) and not settled(step, view))
    return [replace(step, takeover=False) if isinstance(step, Failover) else step for step in still_open]


NEVER_CONTRADICTED = (AwaitMesh, AwaitAgreement, AwaitElection, Meet, Failover, Provision, Reattach, Replicate)


@given(half_formed(), st.data())
@settings(deadline=None, max_examples=300)
def test_no_step_that_a_missing_pod_could_contradict_is_planned(
    state: tuple[FakeCluster, Desired], data: st.DataObject
) -> None:
    """Of any state, with any pods missing: slots, members and who follows whom stay as they are."""
    cluster, desired = state
    missing = data.draw(st.sets(st.integers(0, desired.nodes - 1), min_size=1, max_size=desired.nodes - 1))
    overdue, stopped = data.draw(st.booleans()), data.draw(st.booleans())
    for ordinal in missing:
        cluster[ordinal].alive = False
    view = cluster.look()
    down = [node for node in view.nodes if not (node.replication.link_up or node.replication.syncing)]
    stuck = frozenset(node.node_id for node in down if data.draw(st.booleans()))
    peers = tuple(replace(peer, overdue=overdue, not_running=stopped) for peer in view.unreachable)
    view = replace(view, stuck=stuck, unreachable=peers)
    decision = plan(view, desired)
    assert isinstance(decision, Plan), "the missing pods may refute any reason to refuse"
    steps = steps_of(decision)
    assert list(dangers(view, [step for step in steps if not isinstance(step, SetConfig | Failover)])) == []
    for step in steps:
        assert_uncontradicted(step, view, desired, proven=stopped)


def assert_uncontradicted(step: Step, view: ClusterView, desired: Desired, *, proven: bool) -> None:
    """Written without the planner's own rules."""
    nodes = view.by_id
    match step:
        case SetTimeout():
            assert step.timeout_ms == desired.timeout_ms
        case SetConfig():
            assert step.value == desired.config.get(step.name, "no")
            assert step.name in desired.config or step.name == nodes[step.node].no_failover_name
        case Replicate():
            replica = nodes[step.replica]
            assert replica.role is Role.MASTER
            assert (replica.keys, len(replica.slots), len(replica.open_slots)) == (0, 0, 0)
            assert nodes[step.master].slots
            assert all(peer.overdue for peer in view.unreachable)
        case Failover():
            assert proven or not step.takeover
            assert nodes[step.candidate].myself.master_id == step.lost
            assert nodes[step.candidate].keys or nodes[step.candidate].replication.down_s
            assert step.lost not in nodes
            assert not any(n.others[step.lost].connected for n in view.nodes if step.lost in n.others)
        case _:
            assert isinstance(step, NEVER_CONTRADICTED)


def two_masters_missing() -> Scenario:
    return scenario(SCENARIOS["without a majority and without proof nobody takes over"])


def takeovers(view: ClusterView, desired: Desired) -> list[str]:
    steps = steps_of(plan(view, desired))
    return [view.name(step.candidate) for step in steps if isinstance(step, Failover) and step.takeover]


def test_a_takeover_is_confirmed_for_these_masters_alone() -> None:
    """By the fingerprint of the missing masters; it is void once one of them answers, or another one is missing too."""
    found = two_masters_missing()
    fingerprint = takeover_fingerprint(absent(found.view()))
    confirmed = replace(found.desired, accept_takeover=fingerprint)
    assert takeovers(found.view(), found.desired) == []
    assert takeovers(found.view(), replace(found.desired, accept_takeover="0" * 12)) == []
    assert takeovers(found.view(), confirmed) == ["redis-app-3", "redis-app-4"]
    found.cluster[2].alive = False
    assert takeovers(found.view(), confirmed) == []


def test_a_server_that_answers_anything_is_not_replaced() -> None:
    """It loads its data, or wants another password: it runs, whatever Kubernetes reports."""
    view = scenario(SCENARIOS["missing masters that kubernetes reports as stopped are replaced"]).view()
    assert len(takeovers(view, SHAPE)) == 2
    loading = replace(view.unreachable[0], why=UnreachableReason.LOADING)
    assert takeovers(replace(view, unreachable=(loading, view.unreachable[1])), SHAPE) == []
    lost = next(iter(view.unlisted()))
    assert len(takeovers(replace(view, alive_elsewhere=frozenset({lost})), SHAPE)) == 1


def test_one_pod_without_proof_prevents_every_takeover() -> None:
    """It is not known which pod has which id."""
    view = scenario(SCENARIOS["missing masters that kubernetes reports as stopped are replaced"]).view()
    unproven = replace(view.unreachable[1], not_running=False)
    assert takeovers(replace(view, unreachable=(view.unreachable[0], unproven)), SHAPE) == []


def test_a_master_that_another_node_still_reaches_is_not_replaced() -> None:
    """The run does not reach it, and another node does."""
    found = scenario(SCENARIOS["an overdue election of a missing master is forced"])
    assert any(isinstance(step, Failover) for step in steps_of(plan(found.view(), SHAPE)))
    found.cluster[5].known[found.cluster[0].node_id].connected = True
    assert not any(isinstance(step, Failover) for step in steps_of(plan(found.view(), SHAPE)))


def test_a_replaced_master_does_not_replace_its_successor() -> None:
    """It owned the slots when the run began, was replaced meanwhile, and has copied nothing from its successor."""
    found = scenario(SCENARIOS["an overdue election of a missing master is forced"])
    view = replace(found.view(), demoted=frozenset({found.cluster[3].node_id}))
    assert not any(isinstance(step, Failover) for step in steps_of(plan(view, SHAPE)))


def test_a_view_without_an_answer_is_planned() -> None:
    """No pod answers: nothing can be done, and nothing is refused."""
    peers = tuple(
        UnreachablePeer(pod=f"redis-app-{n}", ordinal=n, why=UnreachableReason.NO_RECORD, overdue=True)
        for n in range(6)
    )
    assert not plan(ClusterView(unreachable=peers), SHAPE)


def missing_a_replica() -> FakeCluster:
    """Six nodes with keys; the replica of the third master does not answer, and the pods had time to start."""
    cluster = healthy()
    cluster[5].alive = False
    for node in cluster.nodes[:5]:
        node.known[cluster[5].node_id].connected = False
    return cluster


def against(step: Step, view: ClusterView) -> list[str]:
    """The pods that could contradict a step."""
    view = replace(view, unreachable=tuple(replace(peer, overdue=True) for peer in view.unreachable))
    return [peer.pod for peer in contradictors(step, Assessment(view, SHAPE))]


def follow(cluster: FakeCluster, replica: int, master: int) -> Replicate:
    return Replicate(replica=cluster[replica].node_id, master=cluster[master].node_id)


SPOILED: dict[str, Callable[[FakeCluster], object]] = {
    "it owns slots": lambda cluster: setattr(cluster[4], "slots", SlotSet.of((16000, 16000))),
    "it holds a key": lambda cluster: setattr(cluster[4], "keys", 1),
    "it imports a slot": lambda cluster: cluster[4].importing.update({93: cluster[0].node_id}),
    "another node follows it": lambda cluster: setattr(cluster[3], "master", cluster[4].node_id),
    "it is a replica": lambda cluster: setattr(cluster[4], "master", cluster[0].node_id),
    "the master owns no slot": lambda cluster: setattr(cluster[1], "slots", SlotSet()),
    "the master has been replaced": lambda cluster: replace_master(cluster, 1, 2),
    "there may be two clusters": lambda cluster: partition_off(cluster, 0, 3),
}


def replace_master(cluster: FakeCluster, old: int, new: int) -> None:
    """Another master owns its slots since, which it does not know."""
    cluster[new].slots, cluster[new].epoch = cluster[new].slots | cluster[old].slots, 99


def partition_off(cluster: FakeCluster, *ordinals: int) -> None:
    """These nodes and the others know nothing of each other."""
    inside = {cluster[ordinal].node_id for ordinal in ordinals}
    for node in cluster.nodes:
        node.known = {
            node_id: known for node_id, known in node.known.items() if (node.node_id in inside) == (node_id in inside)
        }


def test_only_an_empty_node_joins_a_master_with_slots_while_a_pod_is_missing() -> None:
    """The missing pod has had its time to start; anything that it could know better about is left to it."""
    cluster = missing_a_replica()
    wipe(cluster, 4)
    introduce(cluster.nodes[:5])
    gossip(cluster)
    assert against(follow(cluster, 4, 1), cluster.look()) == []
    unknown = replace(follow(cluster, 4, 1), master="f" * 40), replace(follow(cluster, 4, 1), replica="f" * 40)
    for stranger in unknown:
        assert against(stranger, cluster.look()) == ["redis-app-5"]


@pytest.mark.parametrize("why", SPOILED)
def test_a_node_does_not_join_while_a_pod_is_missing_where(why: str) -> None:
    """Each of these alone."""
    cluster = missing_a_replica()
    wipe(cluster, 4)
    introduce(cluster.nodes[:5])
    SPOILED[why](cluster)
    gossip(cluster)
    assert against(follow(cluster, 4, 1), cluster.look()) == ["redis-app-5"]


def test_nodes_of_one_group_and_one_blank_node_meet_while_a_pod_is_missing() -> None:
    """Two groups may be two clusters, of which the missing pod knows: nobody introduces them."""
    cluster = missing_a_replica()
    wipe(cluster, 4)
    wipe(cluster, 3)

    def meet(one: int, other: int) -> Meet:
        newcomer = cluster[other]
        return Meet(
            introducer=cluster[one].node_id, newcomer=newcomer.node_id, address=newcomer.address, bus_port=16379
        )

    for one, other in ((0, 1), (0, 4), (4, 0), (3, 4)):
        assert against(meet(one, other), cluster.look()) == []
    partition_off(cluster, 0)
    for one, other in ((0, 1), (0, 4), (1, 4)):
        assert against(meet(one, other), cluster.look()) == ["redis-app-5"]
    assert against(meet(1, 2), cluster.look()) == []


def test_a_link_without_an_address_is_no_contact_with_a_missing_master() -> None:
    """The link of a node that nobody reaches any more: it ends on its own."""
    found = scenario(SCENARIOS["an overdue election of a missing master is forced"])
    line = found.cluster[5].known[found.cluster[0].node_id]
    line.connected, line.flags = True, frozenset({"noaddr"})
    assert any(isinstance(step, Failover) for step in steps_of(plan(found.view(), SHAPE)))


def test_a_member_that_is_not_missing_is_not_replaced() -> None:
    """Of any failover but that of a missing master nobody can say that it is right."""
    view = scenario(SCENARIOS["missing masters that kubernetes reports as stopped are replaced"]).view()
    steps = [step for step in steps_of(plan(view, SHAPE)) if isinstance(step, Failover)]
    found = Assessment(view, SHAPE)
    assert contradictors(steps[0], found) == ()
    assert contradictors(replace(steps[0], lost="a" * 40), found) == view.unreachable


def test_temporary_settings_are_not_made_while_a_pod_is_missing() -> None:
    """Without failover nobody replaces a missing master. The declared timeout is restored, another is not set."""
    cluster = missing_a_replica()
    node = cluster[0].node_id
    cluster[0].config |= {NO_FAILOVER: "no"}
    for step, waits in (
        (SetConfig(node=node, name=NO_FAILOVER, value="no"), False),
        (SetConfig(node=node, name=NO_FAILOVER, value="yes"), True),
        (SetConfig(node=node, name="cluster-require-full-coverage", value="yes"), False),
        (SetTimeout(node=node, timeout_ms=5000), False),
        (SetTimeout(node=node, timeout_ms=500), True),
    ):
        assert against(step, cluster.look()) == (["redis-app-5"] if waits else [])
