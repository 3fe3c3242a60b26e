"""reinit wipes only what a person has confirmed, and all of it, however often it is interrupted."""

from __future__ import annotations

from contextlib import suppress

import pytest

from bootstrap.errors import Refused
from bootstrap.model.node import Address
from bootstrap.model.plan import Plan, Refusal
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import Wipe
from bootstrap.plan.reinit import wiping
from bootstrap.run.wiping import wipe as wipe_confirmed
from bootstrap.verify import violations
from tests.fake_cluster import FakeCluster, Killed, Known
from tests.plan.damage import give_keys, healthy, lose_a_majority, move_all, wipe
from tests.run.runs import SHAPE, run_on


def reinit(cluster: FakeCluster, confirm: str) -> bool:
    """The whole verb; true when a node was wiped."""
    run = run_on(cluster)
    wiped = wipe_confirmed(run, confirm)
    assert violations(run.converge(), SHAPE) == ()
    return wiped


def refused(cluster: FakeCluster, confirm: str = "") -> list[str]:
    """The reasons; nothing was written."""
    with pytest.raises(Refused) as caught:
        wipe_confirmed(run_on(cluster), confirm)
    assert cluster.written == []
    return [reason.code for reason in caught.value.reasons]


def test_without_a_confirmation_it_reports_what_it_would_destroy() -> None:
    """Every master with its slots and keys, and the command that accepts it."""
    cluster = healthy()
    with pytest.raises(Refused) as caught:
        wipe_confirmed(run_on(cluster), "")
    reasons = caught.value.reasons
    assert [reason.node for reason in reasons] == ["redis-app-0", "redis-app-1", "redis-app-2"]
    assert "5461 slots (0-5460), 10 keys" in reasons[0].message
    fingerprint = cluster.look().fingerprint()
    assert f"put fingerprint={fingerprint} into k8s/reinit/kustomization.yaml" in reasons[0].remedy
    assert f"--confirm {fingerprint}" in reasons[0].remedy
    assert cluster.written == []


def test_the_confirmed_cluster_is_wiped_and_formed_anew() -> None:
    """No key and no old id is left, and the shape is the declared one."""
    cluster = healthy()
    ids = {node.node_id for node in cluster.nodes}
    assert reinit(cluster, cluster.look().fingerprint())
    assert not ids & {node.node_id for node in cluster.nodes}
    assert [node.keys for node in cluster.nodes] == [0] * 6


def test_any_other_fingerprint_wipes_nothing() -> None:
    """That of another cluster, or of this one before a change."""
    cluster = healthy()
    assert refused(cluster, "0" * 12)[0] == "not-that-cluster"
    before = cluster.look().fingerprint()
    cluster[0].slots, cluster[1].slots = cluster[1].slots, cluster[0].slots
    assert refused(cluster, before)[0] == "not-that-cluster"


@pytest.mark.parametrize("before_it", [True, False], ids=["just before", "just after"])
def test_interrupted_at_any_write_the_same_fingerprint_finishes_it(before_it: bool) -> None:
    """Killed at each write, then run again with the same fingerprint; also when all pods have moved in between."""
    whole = healthy()
    reinit(whole, whole.look().fingerprint())
    for number in range(len(whole.written)):
        for moved in (False, True):
            cluster = healthy()
            confirm = cluster.look().fingerprint()
            cluster.kill_at, cluster.kill_before = number, before_it
            with suppress(Killed):
                reinit(cluster, confirm)
            cluster.kill_at = None
            if moved:
                move_all(cluster)
            if number < 6 or violations(cluster.look(), SHAPE):
                reinit(cluster, confirm)
            assert [node.keys for node in cluster.nodes] == [0] * 6, number


def test_replicas_are_wiped_first_and_masters_last() -> None:
    """A master that still has a replica could be replaced by a node that the fingerprint does not name."""
    cluster = healthy()
    masters = {node.node_id for node in cluster.nodes if node.slots}
    reinit(cluster, cluster.look().fingerprint())
    wipes = [step for step in cluster.written if isinstance(step, Wipe)]
    assert [step.node in masters for step in wipes] == [False] * 3 + [True] * 3
    assert [step.flush for step in wipes] == [False] * 3 + [True] * 3


def test_a_broken_cluster_can_be_wiped() -> None:
    """Two of three masters are lost: the rest is confirmed and wiped."""
    cluster = healthy()
    lose_a_majority(cluster)
    assert refused(cluster)
    assert reinit(cluster, cluster.look().fingerprint())


def test_blank_pods_need_no_confirmation() -> None:
    """No data can be lost, so the cluster is formed."""
    assert not reinit(FakeCluster(6), "")


def test_a_write_of_a_client_after_the_first_wipe_changes_no_fingerprint() -> None:
    """The fingerprint names masters and slots, not keys; so the rest is wiped, too."""
    cluster = healthy()
    confirm = cluster.look().fingerprint()
    wipe(cluster, 3)
    wipe(cluster, 0)
    cluster[1].keys += 5
    assert reinit(cluster, confirm)


def test_a_master_that_came_from_elsewhere_is_not_wiped_with_the_rest() -> None:
    """Half-way an owner appears that the wiped cluster did not know: it was not confirmed."""
    cluster = healthy()
    confirm = cluster.look().fingerprint()
    for ordinal in (3, 0):
        wipe(cluster, ordinal)
    cluster[0].slots, cluster[0].keys = SlotSet.of((0, 10)), 4
    assert "not-that-cluster" in refused(cluster, confirm)


def test_keys_outside_the_cluster_are_not_confirmed_with_it() -> None:
    """The fingerprint names owners of slots; a person decides about another node that holds keys."""
    cluster = healthy()
    confirm = cluster.look().fingerprint()
    wipe(cluster, 3)
    cluster[3].keys = 4
    assert refused(cluster, confirm) == ["keys-outside"]


def test_pods_that_do_not_fit_the_shape_are_not_wiped() -> None:
    """The cluster could not be formed anew."""
    cluster = healthy()
    cluster.nodes.append(cluster._blank(6))
    cluster[6].known["e" * 40] = Known(Address("10.0.9.9", 6379))
    assert refused(cluster, cluster.look().fingerprint()) == ["number-of-pods"]


def test_keys_of_a_slot_whose_owner_is_wiped_are_not_confirmed_either() -> None:
    """Half-way, a node holds keys of slots whose owner has been wiped: no list of owners named it."""
    cluster = healthy()
    confirm = cluster.look().fingerprint()
    for ordinal in (3, 0):
        wipe(cluster, ordinal)
    give_keys(cluster[3], 100, 4)
    assert refused(cluster, confirm) == ["keys-outside"]


def test_a_replica_with_the_last_copy_is_reported_as_well() -> None:
    """Its master is lost, so that no reason about a master covers these keys."""
    cluster = healthy()
    lose_a_majority(cluster)
    with pytest.raises(Refused) as caught:
        wipe_confirmed(run_on(cluster), "")
    assert [reason.node for reason in caught.value.reasons] == ["redis-app-2", "redis-app-3", "redis-app-4"]


def test_a_forming_that_was_interrupted_is_no_cluster_to_confirm() -> None:
    """Without a key, without a lost member, and with steps left to do: it is formed, not wiped. Complete, it is one."""
    cluster = FakeCluster(6)
    run_on(cluster).converge()
    for node in cluster.nodes:
        node.keys = 0
    assert set(refused(forget_writes(cluster))) == {"would-destroy"}
    cluster[0].known.pop(cluster[1].node_id)
    assert wiping(cluster.look(), SHAPE, "") == Plan()
    cluster[2].keys = 1
    assert set(refused(forget_writes(cluster))) == {"would-destroy"}


def forget_writes(cluster: FakeCluster) -> FakeCluster:
    cluster.written.clear()
    return cluster


def test_the_whole_cluster_and_each_rest_of_it_remember_the_fingerprint() -> None:
    """Also where one master is left; not where a master here owns slots that the fingerprint gives to another."""
    cluster = healthy()
    confirm = cluster.look().fingerprint()
    for ordinal in (3, 4, 5, 0, 1):
        wipe(cluster, ordinal)
        assert isinstance(wiping(cluster.look(), SHAPE, confirm), Plan), ordinal
    other = healthy()
    other[0].slots -= SlotSet.of((0, 0))
    other[1].slots |= SlotSet.of((0, 0))
    assert isinstance(wiping(other.look(), SHAPE, confirm), Refusal)
