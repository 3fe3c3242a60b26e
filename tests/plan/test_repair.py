"""Repair on the fake cluster: from each damage back to the declared shape, killed at any write, with every key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from bootstrap.errors import Refused
from bootstrap.model.desired import Desired
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import (
    AddSlots,
    CloseSlot,
    Failover,
    Forget,
    ManualFailover,
    Rejected,
    SetConfig,
    SetTimeout,
    Wipe,
    Write,
)
from bootstrap.model.view import ClusterView
from bootstrap.verify import violations
from tests.builders import formed, gossip, place
from tests.fake_cluster import FakeCluster, FakeNode, Killed
from tests.plan.damage import (
    CLONED,
    DAMAGES,
    EMPTIED,
    LEFT_OVER,
    believe_a_higher_epoch,
    block_a_link,
    delete_all_slots_by_hand,
    delete_left_over,
    delete_slots_by_hand,
    double_the_epochs,
    follow_the_wrong_master,
    give_keys,
    healthy,
    leave_a_ghost,
    leave_a_slot_open,
    leave_a_slot_open_on_one_side,
    lose_a_majority,
    lose_a_master,
    lose_a_replica,
    move,
    move_all,
    move_all_long_ago,
    move_one,
    remove_all_slots_from_an_owner,
    remove_slots_from_their_owner,
    split_the_cluster,
    wipe,
    wipe_in_place,
)
from tests.run.runs import run_on, run_on_without_goodbye

SHAPE = Desired(shards=3, replicas_per_shard=1, timeout_ms=5000)
UNOWNED = (
    remove_slots_from_their_owner,
    remove_all_slots_from_an_owner,
    delete_slots_by_hand,
    delete_all_slots_by_hand,
)
every_damage = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)

STRAY = {"keys-on-several", "keys-left-over"}
"""Why a run refuses keys that no client could see."""
SAMPLES = (0, 93, 95, 6000, 8000, 12000)


def found_keys(cluster: FakeCluster) -> Mapping[Any, int]:
    """The keys that clients find: those of some slots at their owners, and all keys of all owners."""
    owners = {slot: node for node in cluster.nodes for slot in SAMPLES if slot in node.slots}
    in_slots = {slot: seen_in(slot, owners[slot]) for slot in SAMPLES}
    return {"all": sum(seen_on(node) for node in cluster.nodes if node.slots)} | in_slots


def written_keys(cluster: FakeCluster) -> Mapping[Any, int]:
    """The keys that clients have written: every key of a master, or of a replica without a master."""
    ids = {node.node_id for node in cluster.nodes}
    holders = [node for node in cluster.nodes if node.master not in ids]
    in_slots = {slot: sum(seen_in(slot, node) for node in holders) for slot in SAMPLES}
    return {"all": sum(seen_on(node) for node in holders)} | in_slots


def seen_in(slot: int, node: FakeNode) -> int:
    """Keys of a slot, without those that no client could see there."""
    return node.in_slot.get(slot, 0) - node.dead.get(slot, 0) - node.stale.get(slot, 0)


def seen_on(node: FakeNode) -> int:
    return node.keys - sum(node.dead.values()) - sum(node.stale.values())


def risen(cluster: FakeCluster) -> list[tuple[str, int]]:
    """Slots whose owner holds keys of it that no client could see before."""
    return [(node.pod, slot) for node in cluster.nodes for slot in node.dead if slot in node.slots]


@every_damage
def test_a_run_repairs_it_and_a_second_run_changes_nothing(damage: Callable[[FakeCluster], None]) -> None:
    """Verified, with every key, and nothing is written by the second run."""
    cluster = healthy()
    damage(cluster)
    before = written_keys(cluster)
    view = run_on(cluster).converge()
    assert violations(view, SHAPE) == ()
    assert not any(node.handshakes for node in cluster.nodes)
    assert found_keys(cluster) == before
    unowned = damage in UNOWNED
    settings = () if damage in (move_all, move_all_long_ago) else (SetTimeout, SetConfig)
    assert not [step for step in cluster.written if isinstance(step, (*settings, Wipe if unowned else AddSlots))]
    cluster.written.clear()
    run_on(cluster).converge()
    assert cluster.written == []


@pytest.mark.parametrize("damage", [damage for damage in DAMAGES.values() if damage is not double_the_epochs])
@pytest.mark.parametrize("before_it", [True, False], ids=["just before", "just after"])
def test_a_repair_killed_at_any_write_is_finished_by_the_next(
    damage: Callable[[FakeCluster], None], before_it: bool
) -> None:
    """kill -9 at each write, then a new run: verified, and no key is lost."""
    whole = healthy()
    damage(whole)
    run_on(whole).converge()
    assert whole.written
    for number in range(len(whole.written)):
        cluster = healthy()
        damage(cluster)
        before = written_keys(cluster)
        cluster.kill_at, cluster.kill_before = number, before_it
        try:
            run_on_without_goodbye(cluster)
        except Killed:
            cluster.kill_at = None
        view = run_on(cluster).converge()
        assert violations(view, SHAPE) == (), number
        assert found_keys(cluster) == before, number


SEEDS = range(int(os.environ.get("SIMULATION_SEED", "0")), int(os.environ.get("SIMULATION_SEEDS", "200")))
COMBINABLE = [
    *(move_all, move_all_long_ago, move_one, leave_a_ghost, split_the_cluster, lose_a_replica),
    *(follow_the_wrong_master, leave_a_slot_open, leave_a_slot_open_on_one_side, block_a_link, double_the_epochs),
    believe_a_higher_epoch,
]


@pytest.mark.parametrize("block", range(4))
def test_it_is_repaired_however_slow_and_lossy_the_gossip(block: int) -> None:
    """Three damages at the same time, and sometimes left-over keys, up to a third of all packets lost, lost commands,
    one-way introductions, kills,
    pods that move meanwhile: verified in the end, with every key. SIMULATION_SEEDS=5000 tries more; a failure names its
    seed, which SIMULATION_SEED=N SIMULATION_SEEDS=N+1 tries again.
    """
    for seed in SEEDS[block::4]:
        try:
            simulate(seed)
        except Exception as error:
            error.add_note(f"SIMULATION_SEED={seed}")
            raise


@pytest.mark.parametrize("leave", LEFT_OVER.values(), ids=LEFT_OVER)
def test_keys_that_no_client_could_see_are_refused(leave: Callable[[FakeCluster], None]) -> None:
    """Nothing is written: they neither rise nor go. Once a person has deleted them, the cluster is in order."""
    cluster = healthy()
    leave(cluster)
    before = [(node.keys, node.dead, node.stale) for node in cluster.nodes[:3]]
    keys = written_keys(cluster)
    with pytest.raises(Refused) as caught:
        run_on(cluster).converge()
    assert {reason.code for reason in caught.value.reasons} <= STRAY
    assert cluster.written == []
    assert [(node.keys, node.dead, node.stale) for node in cluster.nodes[:3]] == before
    assert violations(cluster.look(), SHAPE) != ()
    delete_left_over(cluster)
    assert violations(run_on(cluster).converge(), SHAPE) == ()
    assert found_keys(cluster) == keys


@pytest.mark.parametrize("clone", CLONED.values(), ids=CLONED)
def test_nothing_is_written_beside_servers_that_share_a_node_id(clone: Callable[[FakeCluster], None]) -> None:
    """Whatever else is wrong, and though pods are missing: refused, and `verify` reports the same. An original that has
    moved since its disks were cloned is where nobody knows it, so no other pod has moved here.
    """
    others = [damage for damage in COMBINABLE if damage not in (move_all, move_all_long_ago, move_one)]
    for seed in range(20):
        cluster = Unreliable.healthy(seed)
        for damage in cluster.random.sample(others, seed % 3):
            damage(cluster)
        clone(cluster)
        if cluster.random.random() < 0.3:
            cluster[4].alive = False
        with pytest.raises(Refused) as caught:
            run_on(cluster).converge()
        wanted = ["copied-cluster" if cluster.outside else "cloned-node"]
        assert [reason.code for reason in caught.value.reasons] == wanted, seed
        assert cluster.written == [], seed
        assert [reason.code for reason in violations(cluster.look(), SHAPE)] == wanted, seed


@pytest.mark.parametrize("empty", EMPTIED.values(), ids=EMPTIED)
def test_shards_whose_copies_were_overwritten_form_again_once_a_person_accepts(
    empty: Callable[[FakeCluster], None],
) -> None:
    """Nobody holds a key of them. Refused, with the pods and the fingerprint; then formed, killed at any write."""
    cluster = healthy()
    empty(cluster)
    keys = sum(node.keys for node in cluster.nodes if node.slots)
    with pytest.raises(Refused) as caught:
        run_on(cluster).converge()
    (reason,) = caught.value.reasons
    assert reason.code == "slots-lost"
    assert "redis-app-1 came back empty at its address, and redis-app-4, which follows that address" in reason.message
    assert cluster.written == []
    assert violations(accepted(cluster), SHAPE) == ()
    assert sum(node.keys for node in cluster.nodes if node.slots) == keys
    for number in range(len(cluster.written)):
        again = healthy()
        empty(again)
        again.kill_at = number
        with suppress(Killed):
            accepted(again)
        again.kill_at = None
        assert violations(accepted(again), SHAPE) == (), number
        assert sum(node.keys for node in again.nodes if node.slots) == keys, number


def accepted(cluster: FakeCluster) -> ClusterView:
    """The end of a run; a loss that it refuses is accepted with the fingerprint that it names."""
    try:
        return run_on(cluster)._converge()
    except Refused as refused:
        (reason,) = refused.reasons
        fingerprint = reason.remedy.rpartition(" ")[2]
        return run_on(cluster, replace(SHAPE, accept_loss=fingerprint))._converge()


def test_a_replica_that_kept_its_copy_takes_over_from_a_master_that_came_back_empty() -> None:
    """The other replica has copied the emptiness, and has a greater offset since."""
    desired = Desired(shards=3, replicas_per_shard=2, timeout_ms=5000)
    cluster = formed(desired)
    for node in cluster.nodes:
        node.keys, node.offset = 10 + node.ordinal % 3, 100
    wipe_in_place(cluster, 1)
    cluster[4].offset = 500
    cluster[7].keys, cluster[7].source, cluster[7].link_up, cluster[7].offset = 11, None, False, 100
    view = run_on(cluster, desired).converge()
    assert violations(view, desired) == ()
    assert cluster[7].slots == SlotSet.of((5461, 10922))
    assert cluster[7].keys == 11


def test_a_replica_that_copied_from_another_shard_does_not_take_over() -> None:
    """The address of its lost master is that of another master now, and it follows the address."""
    cluster = healthy()
    lose_a_master(cluster)
    cluster[4].source, cluster[4].keys = cluster[0].address, cluster[0].keys
    with pytest.raises(Refused) as caught:
        run_on(cluster).converge()
    (reason,) = caught.value.reasons
    assert reason.code == "slots-lost"
    assert "redis-app-0 is at the address of the lost master now, and redis-app-4" in reason.message
    assert cluster.written == []


def simulate(seed: int) -> None:
    cluster = Unreliable.healthy(seed)
    chance = cluster.random
    for damage in chance.sample(COMBINABLE, 3):
        damage(cluster)
    if chance.random() < 0.3:
        wipe(cluster, 2)
    stray = chance.random() < 0.4
    if stray:
        chance.choice(list(LEFT_OVER.values()))(cluster)
    if chance.random() < 0.3:
        candidate = cluster[4 if stray else chance.choice([3, 4])]
        if not stray or candidate.master == cluster[1].node_id:
            cluster._manual_failover(candidate)
    before = written_keys(cluster)
    for _ in range(chance.randint(0, 2)):
        cluster.kill_at, cluster.kill_before = len(cluster.written) + chance.randint(0, 12), chance.random() < 0.5
        with suppress(Killed, Refused):
            run_on_without_goodbye(cluster)
        cluster.kill_at = None
        if chance.random() < 0.3:
            move(cluster, chance.randrange(6))
    if stray:
        with pytest.raises(Refused) as caught:
            run_on(cluster).converge()
        assert {reason.code for reason in caught.value.reasons} <= STRAY
        assert risen(cluster) == []
        delete_left_over(cluster)
    view = run_on(cluster).converge()
    assert violations(view, SHAPE) == ()
    assert found_keys(cluster) == before


class Unreliable(FakeCluster):
    """Packets and commands get lost, and sometimes a pod moves during the run."""

    command_loss = 0.0
    moves_left = 0

    @classmethod
    def healthy(cls, seed: int) -> Unreliable:
        cluster = healthy()
        cluster.__class__ = cls
        assert isinstance(cluster, cls)
        cluster.random.seed(seed)
        cluster.loss = cluster.random.choice([0.0, 0.1, 0.35])
        cluster.command_loss = cluster.random.choice([0.0, 0.0, 0.2])
        cluster.moves_left = cluster.random.choice([0, 0, 2])
        if cluster.random.random() < 0.5:  # masters are spread by failovers after the repair
            cluster.places = {node.pod: place(f"/n{cluster.random.randrange(4)}") for node in cluster.nodes}
        return cluster

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        writes = list(writes)
        lost = [write for write in writes if self.random.random() < self.command_loss]
        if self.moves_left and self.random.random() < 0.2:
            self.moves_left -= 1
            move(self, self.random.randrange(6))
        received = [write for write in writes if write not in lost]
        return [
            *super().send(received, view),
            *(Rejected(write, "no answer in time", answered=False) for write in lost),
        ]


def test_a_majority_of_masters_elects_without_a_command() -> None:
    """With two of three masters left, the servers' own election succeeds; the lost id is forgotten only afterwards."""
    cluster = healthy()
    lost = cluster[1].node_id
    lose_a_master(cluster)
    run_on(cluster).converge()
    assert not [step for step in cluster.written if isinstance(step, Failover)]
    assert [step.lost for step in cluster.written if isinstance(step, Forget)] == [lost] * 5
    assert cluster[4].slots
    assert cluster[1].master == cluster[4].node_id


def test_without_a_majority_the_best_replica_takes_over() -> None:
    """One master of three is left and cannot vote alone: TAKEOVER, by the replica with the greatest offset."""
    cluster = healthy()
    lose_a_majority(cluster)
    run_on(cluster).converge()
    takeovers = [step for step in cluster.written if isinstance(step, Failover)]
    assert {step.candidate for step in takeovers} == {cluster[3].node_id, cluster[4].node_id}
    assert all(step.takeover for step in takeovers)


def test_the_loss_of_a_shard_is_accepted_only_for_that_state() -> None:
    """Refused, then accepted with the fingerprint; any other fingerprint is refused as well."""
    cluster = healthy()
    wipe(cluster, 1)
    wipe(cluster, 4)
    with pytest.raises(Refused) as caught:
        run_on(cluster).converge()
    (reason,) = caught.value.reasons
    assert reason.code == "slots-lost"
    assert "5461-10922" in reason.message
    fingerprint = cluster.look().fingerprint()
    assert f"--accept-loss {fingerprint}" in reason.remedy
    patch = f"""-p '{{"data":{{"BOOTSTRAP_ACCEPT_LOSS":"{fingerprint}"}}}}', then run again: kubectl create job"""
    assert f"kubectl patch configmap redis-bootstrap-settings --type merge {patch}" in reason.remedy
    assert cluster.written == []
    with pytest.raises(Refused):
        run_on(cluster, Desired(shards=3, replicas_per_shard=1, accept_loss="0" * 12)).converge()
    accepted = Desired(shards=3, replicas_per_shard=1, timeout_ms=5000, accept_loss=cluster.look().fingerprint())
    view = run_on(cluster, accepted).converge()
    assert violations(view, SHAPE) == ()
    assert SlotSet.union_of(n.slots for n in cluster.nodes if n.ordinal in (1, 4)) == SlotSet.of((5461, 10922))


def test_blank_pods_alone_form_a_new_cluster() -> None:
    """Every disk went with its pod (emptyDir): no data is left to lose, and the cluster is formed anew."""
    cluster = healthy()
    for ordinal in range(6):
        wipe(cluster, ordinal)
    view = run_on(cluster).converge()
    assert violations(view, SHAPE) == ()
    assert [node.ordinal for node in view.nodes if node.slots] == [0, 1, 2]


def test_uncovered_slots_go_to_their_holder_after_another_phase_too() -> None:
    """The phase before ends with a refresh, which does not count the keys of slots without an owner."""
    cluster = healthy()
    give_keys(cluster[0], 100, 3)
    cluster[0].slots -= SlotSet.of((100, 109))
    cluster[1].slots -= SlotSet.of((5461, 7999))
    gossip(cluster)
    cluster[2].timeout_ms = 1000
    run_on(cluster).converge()
    assert 100 in cluster[0].slots


class Writing(FakeCluster):
    """A client writes a new key just before the slot is closed: the owner redirects it to the importing node."""

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        writes = list(writes)
        both = 93 in self[0].migrating and 93 in self[1].importing
        if both and any(isinstance(write, CloseSlot) for write in writes):
            give_keys(self[1], 93, self[1].in_slot.get(93, 0) + 1)
        return super().send(writes, view)


def test_a_key_that_a_client_writes_while_a_slot_is_closed_is_found() -> None:
    """A key arrives after the keys were counted: the importing node is closed first, and they are counted again."""
    cluster = healthy()
    cluster.__class__ = Writing
    cluster[0].migrating, cluster[1].importing = {93: cluster[1].node_id}, {93: cluster[0].node_id}
    give_keys(cluster[0], 93, 5)
    run_on(cluster).converge()
    assert [node.in_slot.get(93, 0) for node in cluster.nodes if 93 in node.slots] == [6]


@pytest.mark.parametrize("arrived", [0, 3])
def test_a_node_that_imports_a_slot_learns_its_new_owner(arrived: int) -> None:
    """The owner fails over to its replica: the importing node ignores gossip about that, and is corrected."""
    cluster = healthy()
    cluster[0].migrating, cluster[1].importing = {93: cluster[1].node_id}, {93: cluster[0].node_id}
    give_keys(cluster[0], 93, 5)
    give_keys(cluster[1], 93, arrived)
    cluster.send([ManualFailover(candidate=cluster[3].node_id, master=cluster[0].node_id)], cluster.look())
    cluster.sleep(5.0)
    assert 93 not in cluster[1].known[cluster[3].node_id].slots
    run_on(cluster).converge()
    assert [node.in_slot.get(93, 0) for node in cluster.nodes if 93 in node.slots] == [5 + arrived]
    assert not cluster.look().open_slots()


def test_a_master_without_slots_gets_none_for_some_of_its_keys() -> None:
    """The slot of one key has no owner, the slots of the others have: refused before anything is written."""
    cluster = healthy()
    cluster[5].master, cluster[5].keys = None, 49
    give_keys(cluster[5], 50, 1)
    cluster[0].slots -= SlotSet.of((50, 50))
    gossip(cluster)
    with pytest.raises(Refused) as caught:
        run_on(cluster).converge()
    assert {reason.code for reason in caught.value.reasons} == {"keys-outside"}
    assert cluster.written == []
