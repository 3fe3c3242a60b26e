"""States that look harmless and are not: each once led to a wrong plan, a wrong refusal or a wrong end of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from bootstrap.config import Settings
from bootstrap.errors import Misconfigured, Reason
from bootstrap.model.node import Address
from bootstrap.model.plan import Plan, Refusal
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import AddSlots, CloseSlot, Meet, MoveKeys, Rejected, Replicate, SetTimeout, TakeSlot, Write
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import Wait
from bootstrap.plan.data_refusals import loaded_from_file
from bootstrap.plan.planner import plan
from bootstrap.plan.reinit import wiping
from bootstrap.plan.settled import settled
from bootstrap.plan.unclaimed import find
from bootstrap.run.termination_message import termination_message
from bootstrap.verify import violations
from tests.builders import codes, formed, gossip, introduce, shape, steps_of, with_node
from tests.fake_cluster import FakeCluster, Known
from tests.run.runs import SHAPE, run_on
from tests.run.test_report import outcome


def test_slots_without_an_owner_are_not_assigned_while_a_disk_is_missing() -> None:
    """Their keys may be on a disk that comes back: one pod is blank, and its id was forgotten."""
    cluster = formed(shape())
    cluster[1].slots, cluster[0].keys = SlotSet(), 5
    forgotten = cluster[4]
    cluster.nodes[4] = cluster._blank(4)
    for node in cluster.nodes:
        node.known.pop(forgotten.node_id, None)
    gossip(cluster)
    assert "slots-lost" in codes(plan(cluster.look(), shape()))


def test_a_slot_is_never_taken_while_its_owner_holds_keys_of_it() -> None:
    """An owner that learns of its successor deletes them; so the keys move first, and are counted again after that."""
    cluster = formed(shape())
    cluster[0].keys, cluster[0].in_slot = 9, {93: 7}
    cluster[1].keys, cluster[1].in_slot = 4, {93: 2}
    cluster[0].migrating, cluster[1].importing = {93: cluster[1].node_id}, {93: cluster[0].node_id}
    decision = plan(cluster.look(), shape())
    assert isinstance(decision, Plan)
    kinds = [{type(step) for step in phase.steps} for phase in decision.phases]
    assert kinds == [{MoveKeys}, {TakeSlot}, {CloseSlot}]
    run = run_on(cluster)
    run.converge()
    assert sum(isinstance(write, MoveKeys) for write in cluster.written) == 3
    assert (cluster[0].keys, cluster[1].keys) == (2, 11)
    assert 93 in cluster[1].slots


def test_an_inconsistent_view_of_a_failover_assigns_nothing() -> None:
    """The new master before its promotion, the old one after its demotion: no node seems to own the slots."""
    for keys in (0, 3):
        cluster = formed(shape())
        for node in cluster.nodes:
            node.keys = keys
        before = cluster.look()
        cluster[0].master, cluster[3].master = cluster[3].node_id, None
        cluster[3].slots, cluster[0].slots = cluster[0].slots, SlotSet()
        gossip(cluster)
        torn = replace(before, nodes=(cluster.look().nodes[0], *before.nodes[1:]))
        decision = plan(torn, shape())
        written = decision.phases[0].steps if isinstance(decision, Plan) else ()
        assert not [step for step in written if isinstance(step, AddSlots | Replicate)]


def test_no_shard_loses_its_last_copy_unless_that_is_accepted() -> None:
    """From one replica to none, with keys: refused, and accepted only for that cluster."""
    cluster = formed(shape(3, 1))
    for node in cluster.nodes:
        node.keys = 5
    for none in (shape(3, 0), shape(6, 0)):
        assert "no-copy-left" in codes(plan(cluster.look(), none))
        assert codes(plan(cluster.look(), replace(none, accept_loss=cluster.look().fingerprint()))) == set()
        assert "no-copy-left" in codes(plan(cluster.look(), replace(none, accept_loss="0" * 12)))


def test_replicas_that_cannot_be_spared_are_not_made_masters() -> None:
    """Six shards on six nodes of a cluster of three: with their links down the replicas may hold the last copies."""
    cluster = formed(shape(3, 1))
    for node in cluster.nodes[3:]:
        node.link_up = False
    refusal = plan(cluster.look(), shape(6, 0))
    assert isinstance(refusal, Refusal)
    (reason,) = refusal.reasons
    assert reason.code == "too-few-masters"
    assert "kubectl scale statefulset redis-app --replicas=N" in reason.remedy


def test_a_number_of_pods_that_does_not_fit_comes_with_the_commands() -> None:
    """With more pods than the shape takes, first how to check that the others hold no data."""
    for pods, checked in ((5, False), (8, True)):
        refusal = plan(FakeCluster(pods).look(), shape())
        assert isinstance(refusal, Refusal)
        (reason,) = refusal.reasons
        assert "kubectl scale statefulset redis-app --replicas=6" in reason.remedy
        assert ("kubectl exec redis-app-6 -- redis-cli DBSIZE" in reason.remedy) is checked


def test_a_cluster_is_wiped_only_on_exactly_the_pods_of_the_shape() -> None:
    """It is formed anew on them; a pod beyond it, or one too few, is refused, and so is a member elsewhere."""
    cluster = formed(shape())
    confirm = cluster.look().fingerprint()
    assert isinstance(wiping(cluster.look(), shape(), confirm), Plan)
    cluster.nodes.append(cluster._blank(6))
    refusal = wiping(cluster.look().within(6), shape(), confirm)
    assert codes(refusal) == {"number-of-pods"}
    assert isinstance(refusal, Refusal)
    assert refusal.reasons[0].message.startswith("7 pods are listed")
    five = replace(cluster.look(), nodes=cluster.look().nodes[:5])
    assert codes(wiping(five, shape(), confirm)) == {"number-of-pods"}
    del cluster.nodes[6]
    elsewhere = Known(Address("10.0.0.99", 6379), connected=True)
    cluster[0].known["f" * 40] = elsewhere
    answers = replace(cluster.look(), alive_elsewhere=frozenset({"f" * 40}))
    assert codes(wiping(answers, shape(), confirm)) == {"member-elsewhere"}


def test_a_file_has_at_least_a_key_of_each_slot_that_its_server_took() -> None:
    """A server without nodes.conf takes the slots of the keys that it finds; more slots come from elsewhere."""
    cluster = FakeCluster(3)
    cluster[0].slots = SlotSet.of((0, 99))
    for keys, loaded in ((100, True), (101, True), (99, False)):
        cluster[0].keys = keys
        assert loaded_from_file(cluster.look().nodes[0]) is loaded
    cluster[0].keys = 100
    introduce(cluster.nodes)
    assert not loaded_from_file(cluster.look().nodes[0]), "it knows a cluster"
    fresh = FakeCluster(3)
    fresh[0].keys = 5
    assert not loaded_from_file(fresh.look().nodes[0]), "it took no slot"


def test_an_empty_owner_whose_replica_has_keys_does_not_claim_its_slots_again() -> None:
    """The replica would drop them. Keys of another one's replica do not matter."""
    cluster = formed(shape())
    cluster[1].slots = SlotSet()
    view = cluster.look()
    owner = view.nodes[1].node_id
    assert set(find(view, {})) == {owner}
    for ordinal, claims in ((4, False), (3, True)):
        assert (owner in find(with_node(view, ordinal, keys=1), {})) is claims
    assert owner in find(with_node(with_node(view, 4, keys=1), 1, keys=1), {})


def test_keys_outside_are_looked_at_before_they_are_deleted() -> None:
    """The remedy lists them first, with the pod's name."""
    cluster = FakeCluster(6)
    cluster[4].keys = 3
    refusal = plan(cluster.look(), shape())
    assert isinstance(refusal, Refusal)
    (reason,) = refusal.reasons
    commands = ["kubectl exec redis-app-4 -- redis-cli --scan", "kubectl exec redis-app-4 -- redis-cli FLUSHALL"]
    assert [reason.remedy.index(command) for command in commands] == sorted(map(reason.remedy.index, commands))


class WithoutConfigSet(FakeCluster):
    """Servers whose user may not set timeouts."""

    def _take(self, write: Write) -> str:
        return "NOPERM no permission" if isinstance(write, SetTimeout) else super()._take(write)


def test_forming_works_where_config_set_is_denied() -> None:
    """It only takes longer: the rejoin delay is that of the servers' own timeout."""
    cluster = WithoutConfigSet(6)
    assert violations(run_on(cluster).converge(), SHAPE) == ()
    assert any(isinstance(step, Meet) for step in cluster.written)


def test_a_drift_that_cannot_be_corrected_is_reported_with_the_servers_error() -> None:
    """The cluster is formed all the same, and the exit code means that a person has to change a setting."""
    cluster = WithoutConfigSet(6, timeout_ms=15000)
    with pytest.raises(Misconfigured) as caught:
        run_on(cluster).converge()
    assert "NOPERM" in str(caught.value)
    assert {reason.code for reason in caught.value.reasons} == {"step-rejected", "timeout-drift"}


def test_a_reason_that_gossip_removes_does_not_count_at_the_start_either() -> None:
    """One node still knows a member that is being forgotten, at the first look."""
    cluster = formed(shape())
    cluster[0].known["f" * 40] = Known(Address("10.9.9.9", 6379))
    pass_time = cluster.sleep

    def forget_meanwhile(seconds: float) -> None:
        pass_time(seconds)
        cluster[0].known.pop("f" * 40, None)

    cluster.sleep = forget_meanwhile  # type: ignore[method-assign]
    assert violations(run_on(cluster).converge(), SHAPE) == ()


def test_a_replica_that_may_hold_the_last_copy_stays_a_replica_of_its_master() -> None:
    """It has keys and no link: REPLICATE to another master would flush them."""
    cluster = formed(shape())
    cluster[4].master, cluster[4].keys, cluster[4].link_up = cluster[0].node_id, 9, False
    gossip(cluster)
    assert not [step for step in steps_of(plan(cluster.look(), shape())) if isinstance(step, Replicate)]


@pytest.mark.parametrize(
    ("name", "text"),
    [("STATEFULSET", "a" * 63), ("PORT_NAME", "a" * 16), ("CLUSTER_DOMAIN", ".".join(["a" * 63] * 5))],
)
def test_a_name_too_long_for_the_dns_is_an_error_of_its_setting(name: str, text: str) -> None:
    """Otherwise it would raise an exception in the DNS library."""
    with pytest.raises(Misconfigured, match=f"BOOTSTRAP_{name}"):
        Settings.from_env({f"BOOTSTRAP_{name}": text})


def test_errors_in_several_settings_are_reported_together() -> None:
    """One wrong setting does not hide another one."""
    with pytest.raises(Misconfigured) as caught:
        Settings.from_env({"BOOTSTRAP_SHARDS": "2", "BOOTSTRAP_USERNAME": "u"})
    assert len(caught.value.reasons) == 2


def test_a_long_reason_is_cut_and_not_dropped() -> None:
    """The termination message is limited, and a reason without its end is better than none."""
    message = termination_message(outcome(Reason(code="unlisted-member", message="x" * 5000, remedy="r")))
    assert json.loads(message)["reasons"][0]["code"] == "unlisted-member"


def test_an_empty_view_settles_no_wait() -> None:
    """Where no node answers, no wait is settled."""
    decision = plan(formed(shape()).look(), shape())
    assert decision == Plan()
    fresh = plan(FakeCluster(6).look(), shape())
    waits: Iterable[object] = [step for step in steps_of(fresh) if not isinstance(step, Write)]
    assert not any(settled(step, ClusterView()) for step in waits if isinstance(step, Wait))


class Restarting(FakeCluster):
    """One server does not answer for a moment, just when its timeout is sent."""

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        writes = list(writes)
        lost = [w for w in writes if isinstance(w, SetTimeout) and w.node == self[2].node_id and not self.rejected]
        rejected = super().send([write for write in writes if write not in lost], view)
        unanswered = [Rejected(write, "not reachable", answered=False) for write in lost]
        self.rejected += unanswered
        return [*rejected, *unanswered]


def test_a_server_that_does_not_answer_for_a_moment_has_not_denied_a_setting() -> None:
    """The next try may succeed: formed all the same, with the declared timeouts."""
    cluster = Restarting(6)
    assert violations(run_on(cluster).converge(), SHAPE) == ()
    assert cluster.rejected


def test_replicas_that_follow_each_other_wait_for_a_person() -> None:
    """A copy of the disks ran beside them, and both failed over. Nobody can tell which has the newest keys. Once a
    person has chosen, the next run gives that one its slots back.
    """
    cluster = formed(shape())
    one, other = cluster[1], cluster[4]
    for node in (one, other):
        node.in_slot = {6000: 3}
        node.keys, node.link_up, node.serving = 3, False, False
    one.master, other.master, one.slots = other.node_id, one.node_id, SlotSet()
    other.offset = 7
    gossip(cluster)
    decision = plan(cluster.look(), shape())
    assert isinstance(decision, Refusal)
    (reason,) = decision.reasons
    assert (reason.code, reason.node) == ("no-master", "redis-app-4")
    assert "redis-app-1 (3 keys), redis-app-4 (3 keys) follow each other" in reason.message
    assert "kubectl exec redis-app-4 -- redis-cli CLUSTER FAILOVER TAKEOVER" in reason.remedy
    cluster._promote(other)
    cluster.sleep(3)
    view = run_on(cluster, shape()).converge()
    assert violations(view, shape()) == ()
    assert (6000 in other.slots, one.master) == (True, other.node_id)
