"""Keys on nodes that do not own their slots: what shows that they have moved there, and what does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from bootstrap.errors import Refused
from bootstrap.model.plan import Plan, Refusal
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import AddSlots, MoveSlots, Rejected, SetSlotState, Write
from bootstrap.model.view import ClusterView
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.planner import plan
from bootstrap.plan.stray_keys import keys_outside
from tests.builders import codes, gossip, place, shape, steps_of, with_node
from tests.fake_cluster import FakeCluster, FakeNode
from tests.plan.damage import (
    delete_left_over,
    fail_over_the_owner_of_an_open_slot,
    fail_over_the_target_of_an_open_slot,
    give_keys,
    give_left_over,
    healthy,
    leave_a_slot_open,
    uneven,
    wipe,
)
from tests.run.runs import run_on


def opened(cluster: FakeCluster) -> set[tuple[int, bool]]:
    """What the plan opens: the pod's ordinal, and whether it imports."""
    steps = steps_of(plan(cluster.look(), shape()))
    ordinals = {node.node_id: node.ordinal for node in cluster.nodes}
    return {(ordinals[step.node], step.importing) for step in steps if isinstance(step, SetSlotState)}


def test_a_move_with_a_failover_is_opened_on_the_side_that_lost_its_state() -> None:
    """The side that still has it keeps it, since it shows the failover."""
    cluster = healthy()
    fail_over_the_owner_of_an_open_slot(cluster)
    gossip(cluster)
    assert opened(cluster) == {(3, False)}
    cluster = healthy()
    fail_over_the_target_of_an_open_slot(cluster)
    gossip(cluster)
    assert opened(cluster) == {(4, True), (0, False)}


FAIL_OVER = [fail_over_the_owner_of_an_open_slot, fail_over_the_target_of_an_open_slot]
each_failover = pytest.mark.parametrize("fail_over", FAIL_OVER, ids=["owner", "target"])


def failed_over(fail_over: Callable[[FakeCluster], None]) -> tuple[FakeCluster, FakeNode, FakeNode]:
    """A half-moved slot 93 whose owner or target failed over: the cluster, its owner, the other holder of its keys."""
    cluster = healthy()
    fail_over(cluster)
    cluster.sleep(5.0)
    gossip(cluster)
    cluster.sleep(5.0)
    holders = [node for node in cluster.nodes if node.in_slot.get(93) and node.master is None]
    owner, other = sorted(holders, key=lambda node: 93 not in node.slots)
    assert codes(plan(cluster.look(), shape())) == set()
    return cluster, owner, other


@each_failover
def test_a_failover_proves_nothing_where_both_sides_have_a_key(fail_over: Callable[[FakeCluster], None]) -> None:
    """It was copied, so the others may be copies whose originals have been deleted."""
    cluster, _, other = failed_over(fail_over)
    other.stale = {93: 1}
    assert codes(plan(cluster.look(), shape())) == {"keys-on-several"}


@each_failover
def test_a_copy_in_one_slot_puts_the_others_in_doubt(fail_over: Callable[[FakeCluster], None]) -> None:
    """Both slots are open between the same nodes; what left a copy in one of them left keys in the other one, too."""
    cluster, owner, other = failed_over(fail_over)
    for node in (owner, other):
        for marks in (node.migrating, node.importing):
            marks.update({94: marks[93]} if 93 in marks else {})
    give_keys(owner, 94, 2)
    give_left_over(other, 94, stale=1)
    refusal = plan(cluster.look(), shape())
    assert isinstance(refusal, Refusal)
    (reason,) = refusal.reasons
    assert "the slots 93-94 have keys on" in reason.message


@each_failover
def test_left_over_keys_of_other_slots_put_a_failover_in_doubt(fail_over: Callable[[FakeCluster], None]) -> None:
    """The node holds keys that have certainly not moved there."""
    cluster, _, other = failed_over(fail_over)
    give_left_over(other, 12000, dead=1)
    assert codes(plan(cluster.look(), shape())) == {"keys-on-several", "keys-left-over"}


def test_a_move_without_its_counts_is_not_taken_for_a_failover() -> None:
    """Where the names of the keys could not be compared, that no key is on both sides is not known."""
    cluster, _, _ = failed_over(fail_over_the_owner_of_an_open_slot)
    view = cluster.look()
    assert codes(plan(replace(view, apart=SlotSet()), shape())) == {"keys-on-several"}


def test_a_master_that_imports_from_another_one_than_the_owner_has_not_received_its_keys() -> None:
    """The node that its state names is still a master: nobody took over from it."""
    cluster = healthy()
    leave_a_slot_open(cluster)
    cluster[0].migrating.clear()
    cluster[1].importing = {93: cluster[2].node_id}
    assert codes(plan(cluster.look(), shape())) == {"keys-on-several"}


def test_the_remedy_names_both_ways_with_pods_ids_and_slots() -> None:
    """Typed as they stand: each pod gets its own command, with the id of the other one."""
    cluster = healthy()
    for slot in (93, 94, 95, 100):
        give_left_over(cluster[1], slot, dead=1)
        cluster[1].importing |= {slot: cluster[0].node_id}
    refusal = plan(cluster.look(), shape())
    assert isinstance(refusal, Refusal)
    (reason,) = refusal.reasons
    one, other = cluster[0].node_id, cluster[1].node_id
    assert "the slots 93-95 100 have keys on redis-app-1 (4 keys) beside the owner, redis-app-0" in reason.message
    assert reason.remedy.count("for slot in $(seq 93 95) 100; do") == 2
    assert f"kubectl exec redis-app-0 -- redis-cli CLUSTER SETSLOT $slot MIGRATING {other}; done" in reason.remedy
    assert f"kubectl exec redis-app-1 -- redis-cli CLUSTER SETSLOT $slot IMPORTING {one};" in reason.remedy
    assert "redis-app-1 -- redis-cli CLUSTER SETSLOT $slot STABLE; done" in reason.remedy


def test_a_loss_that_is_accepted_does_not_show_left_over_keys() -> None:
    """The slots of the lost shard would go to the one master that holds keys of them. These are old copies."""
    cluster = healthy()
    give_left_over(cluster[0], 6000, dead=3)
    wipe(cluster, 1)
    wipe(cluster, 4)
    accepted = replace(shape(), accept_loss=cluster.look().fingerprint())
    with pytest.raises(Refused) as caught:
        run_on(cluster, accepted).converge()
    (reason,) = caught.value.reasons
    assert reason.code == "keys-on-several"
    assert "slot 6000 has no owner, and redis-app-0 (3 keys)" in reason.message
    assert not [step for step in cluster.written if isinstance(step, AddSlots)]


class FilledLater(FakeCluster):
    """Left-over keys appear with the first write of a run, as another tool is interrupted."""

    slot = 6000

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        if not self.written:
            give_left_over(self[0], self.slot, dead=2)
        return super().send(writes, view)


def test_keys_are_counted_again_before_a_run_ends() -> None:
    """The first look found none. After the repair a run does not call the cluster good without having counted."""
    cluster = healthy()
    cluster.__class__ = FilledLater
    cluster[2].timeout_ms = 1000
    with pytest.raises(Refused) as caught:
        run_on(cluster).converge()
    assert {reason.code for reason in caught.value.reasons} == {"keys-left-over"}
    assert cluster[2].timeout_ms == 5000


def test_keys_are_counted_again_before_slots_move() -> None:
    """The plan after a repair comes from a view that does not have the counts."""
    cluster = uneven(1000, 9000, 6384)
    cluster.__class__ = FilledLater
    assert isinstance(cluster, FilledLater)
    cluster.slot = 1001
    for node in cluster.nodes:
        node.keys = 5
    cluster[2].timeout_ms = 1000
    with pytest.raises(Refused) as caught:
        run_on(cluster).converge()
    assert {reason.code for reason in caught.value.reasons} == {"keys-left-over"}
    assert not [step for step in cluster.written if isinstance(step, MoveSlots)]
    assert len(cluster[0].slots) == 1000


def test_a_view_without_counts_ends_no_run() -> None:
    """A plan without phases, or with slots to give, waits for a look that has counted."""
    cluster = healthy()
    view = cluster.look()
    decision = plan(view, shape())
    assert isinstance(decision, Plan)
    assert not decision.premature(view)
    assert decision.premature(with_node(view, 0, left_over=None))
    assert not decision.premature(with_node(view, 3, left_over=None))
    assert not decision.premature(with_node(view, 0, left_over=None, keys=0))


def test_no_slot_moves_and_no_master_fails_over_before_a_person_has_decided() -> None:
    """The cluster is uneven, and one machine holds two masters; the unclear slot comes first, and has to be closed."""
    cluster = uneven(4000, 6000, 6384)
    cluster.places = {node.pod: place(f"/n{node.ordinal // 2}") for node in cluster.nodes}
    give_left_over(cluster[1], 93, dead=2)
    cluster[1].importing = {93: cluster[0].node_id}
    assert codes(plan(cluster.look(), shape())) == {"keys-on-several"}
    delete_left_over(cluster)
    decision = plan(cluster.look(), shape())
    assert isinstance(decision, Plan)
    assert decision.phases[0].name == "move slots"


def test_keys_that_were_not_counted_explain_nothing() -> None:
    """A master without slots is about to own one: only keys that were counted there are keys of it."""
    cluster = healthy()
    node = wipe(cluster, 4)
    node.keys = 1
    view, owns = cluster.look(), {node.node_id: SlotSet.of((5, 5))}
    for counted, refused in (({}, 1), ({5: 0, 6: 1}, 1), ({5: 1}, 0)):
        found = Assessment(with_node(view, 4, keys_in=counted), shape())
        assert len(list(keys_outside(found, owns))) == refused, counted
