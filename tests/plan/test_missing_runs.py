"""Runs while pods do not answer: the others serve, the missing ones return, and no key is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import combinations

import pytest

from bootstrap.errors import NotYet, Refused
from bootstrap.model.desired import Desired
from bootstrap.model.steps import Meet, Replicate
from bootstrap.model.view import ClusterView
from bootstrap.plan.lost_members import absent, takeover_fingerprint
from bootstrap.verify import violations
from tests.builders import formed, shape
from tests.fake_cluster import FakeCluster, FakeNode, Killed
from tests.plan.damage import (
    follow_the_wrong_master,
    in_step,
    leave_a_slot_open,
    leave_a_slot_open_on_one_side,
    move,
    move_all,
    move_one,
    wipe,
)
from tests.plan.test_repair import STRAY, Unreliable, found_keys, written_keys
from tests.run.runs import Notes, run_on, run_on_without_goodbye

SHAPE = Desired(shards=3, replicas_per_shard=1, timeout_ms=5000)


def fleet(replicas: int) -> tuple[FakeCluster, Desired]:
    """A healthy cluster of three shards with keys."""
    desired = shape(3, replicas, 5000)
    cluster = formed(desired)
    for node in cluster.nodes:
        node.keys, node.offset = 10 + node.ordinal % 3, 100
    return cluster, desired


def lose_contact(cluster: FakeCluster, *ordinals: int) -> None:
    for ordinal in ordinals:
        cluster[ordinal].alive = False


def repaired_without_missing(cluster: FakeCluster, desired: Desired, deadline_s: float = 60.0) -> NotYet:
    """A run that ends at its deadline, because pods do not answer."""
    with pytest.raises(NotYet) as caught:
        run_on(cluster, desired, deadline_s=deadline_s).converge()
    return caught.value


@pytest.mark.parametrize("moved", [False, True], ids=["at their addresses", "all others moved"])
@pytest.mark.parametrize("replicas", [1, 2], ids=["six", "nine"])
def test_the_others_serve_wherever_a_majority_and_every_shard_are_left(replicas: int, moved: bool) -> None:
    """Each single pod and each pair is missing. Back again, the cluster is whole, and no key is lost."""
    count = 3 * (1 + replicas)
    for missing in [*combinations(range(count), 1), *combinations(range(count), 2)]:
        cluster, desired = fleet(replicas)
        before = written_keys(cluster)
        lose_contact(cluster, *missing)
        if moved:
            move(cluster, *(ordinal for ordinal in range(count) if ordinal not in missing))
        error = repaired_without_missing(cluster, desired)
        assert [reason.node for reason in error.reasons if reason.node] == [f"redis-app-{n}" for n in missing]
        view = cluster.look()
        majority = sum(ordinal < 3 for ordinal in missing) < 2
        left = {ordinal % 3 for ordinal in range(count) if ordinal not in missing} == {0, 1, 2}
        assert view.serves is (majority and left), missing
        assert not any(node_id in cluster[0].banned for node_id in cluster[0].known)
        for ordinal in missing:
            cluster[ordinal].alive = True
        assert violations(run_on(cluster, desired).converge(), desired) == (), missing
        assert found_keys(cluster) == before, missing


def test_members_are_introduced_without_waiting() -> None:
    """Within the first seconds of the run, not at its deadline."""
    cluster, desired = fleet(1)
    lose_contact(cluster, 5)
    move(cluster, 0, 1, 2, 3, 4)
    began = cluster.time
    repaired_without_missing(cluster, desired, deadline_s=12)
    assert cluster.look().serves
    assert cluster.time - began < 20
    assert {type(step) for step in cluster.written} == {Meet}


def test_a_blank_pod_waits_some_seconds_for_the_missing_ones() -> None:
    """A pod that only starts again gets its place back; one that stays away is replaced."""
    cluster, desired = fleet(1)
    lose_contact(cluster, 3)
    wipe(cluster, 4)
    repaired_without_missing(cluster, desired, deadline_s=8)
    assert not any(isinstance(step, Replicate) for step in cluster.written)
    repaired_without_missing(cluster, desired, deadline_s=30)
    assert [step.replica for step in cluster.written if isinstance(step, Replicate)] == [cluster[4].node_id]
    cluster[3].alive = True
    assert violations(run_on(cluster, desired).converge(), desired) == ()


def test_a_run_takes_over_as_confirmed_and_only_then() -> None:
    """Two of three masters are missing: the reason names the fingerprint that confirms that they do not run."""
    cluster, desired = fleet(1)
    before = written_keys(cluster)
    lose_contact(cluster, 0, 1)
    error = repaired_without_missing(cluster, desired)
    assert cluster.written == []
    reason = error.reasons[-1]
    assert (reason.code, len(error.reasons)) == ("takeover-unproven", 3)
    fingerprint = takeover_fingerprint(absent(cluster.look()))
    assert f"--accept-takeover {fingerprint}" in reason.remedy
    repaired_without_missing(cluster, replace(desired, accept_takeover=fingerprint))
    assert cluster.look().serves
    cluster[0].alive = cluster[1].alive = True
    assert violations(run_on(cluster, desired).converge(), desired) == ()
    assert found_keys(cluster) == before


def test_a_run_takes_over_where_kubernetes_reports_stopped_servers() -> None:
    """Kubernetes is asked only once nothing else can be done."""
    cluster, desired = fleet(1)
    lose_contact(cluster, 0, 1)
    move(cluster, 2, 3, 4, 5)
    asked: list[float] = []

    def explain(view: ClusterView) -> ClusterView:
        asked.append(len(cluster.written))
        return replace(view, unreachable=tuple(replace(peer, not_running=True) for peer in view.unreachable))

    run = run_on(cluster, desired, deadline_s=60)
    run.explain = explain
    run.missing.explain = explain
    with pytest.raises(NotYet):
        run.converge()
    assert cluster.look().serves
    assert asked[0] > 0, "introductions come first"
    assert isinstance(run.log, Notes)
    assert run.log.of("repairing_without")[0]["pods"] == ["redis-app-0", "redis-app-1"]


@pytest.mark.parametrize("before_it", [True, False], ids=["just before", "just after"])
@pytest.mark.parametrize("missing", [(0,), (3,), (1, 5), (0, 1)], ids=str)
def test_a_repair_with_missing_pods_killed_at_any_write_is_finished_by_the_next(
    missing: tuple[int, ...], before_it: bool
) -> None:
    """All others have moved; killed at each write, then with the pods back: verified, and no key is lost."""

    def hurt() -> tuple[FakeCluster, Desired]:
        cluster, desired = fleet(1)
        lose_contact(cluster, *missing)
        move(cluster, *(ordinal for ordinal in range(6) if ordinal not in missing))
        return cluster, replace(desired, accept_takeover=takeover_fingerprint(absent(cluster.look())))

    whole, desired = hurt()
    repaired_without_missing(whole, desired)
    for number in range(len(whole.written)):
        cluster, desired = hurt()
        before = written_keys(cluster)
        cluster.kill_at, cluster.kill_before = number, before_it
        with suppress(Killed, NotYet):
            run_on_without_goodbye(cluster, desired)
        cluster.kill_at = None
        if number % 2:
            repaired_without_missing(cluster, desired, deadline_s=30)
        lose_nothing(cluster, desired, before)


def lose_nothing(cluster: FakeCluster, desired: Desired, before: object) -> None:
    """All pods answer again: a run ends well, with every key."""
    for node in cluster.nodes:
        node.alive = True
    assert violations(run_on(cluster, desired).converge(), desired) == ()
    assert found_keys(cluster) == before


SEEDS = range(int(os.environ.get("SIMULATION_SEED", "0")), int(os.environ.get("SIMULATION_SEEDS", "60")))
DAMAGES: list[Callable[[FakeCluster], None]] = [
    *(move_all, move_one, follow_the_wrong_master, leave_a_slot_open, leave_a_slot_open_on_one_side),
]


@pytest.mark.parametrize("block", range(4))
def test_no_key_is_lost_with_missing_pods_among_the_faults(block: int) -> None:
    """Damages, lost packets and commands, kills, and pods that go missing and come back. See `test_repair`."""
    for seed in SEEDS[block::4]:
        try:
            simulate(seed)
        except Exception as error:
            error.add_note(f"SIMULATION_SEED={seed}")
            raise


class Elections(Unreliable):
    """Remembers which masters have been replaced."""

    replaced: frozenset[str | None] = frozenset()

    def _promote(self, node: FakeNode) -> None:
        self.replaced |= {node.master}
        super()._promote(node)


def simulate(seed: int) -> None:
    cluster = Elections.healthy(seed)
    assert isinstance(cluster, Elections)
    moving = {node.node_id for node in cluster.nodes[:2]}
    chance = cluster.random
    damages = chance.sample(DAMAGES, 2)
    for damage in damages:
        damage(cluster)
    in_step(cluster)
    if chance.random() < 0.3:
        wipe(cluster, chance.choice([3, 4, 5]))
    before = written_keys(cluster)
    for _ in range(chance.randint(1, 3)):
        missing = chance.sample(range(6), chance.randint(1, 3))
        lose_contact(cluster, *missing)
        if chance.random() < 0.3:
            cluster.kill_at, cluster.kill_before = len(cluster.written) + chance.randint(0, 12), chance.random() < 0.5
        with suppress(Killed, NotYet):
            run_on_without_goodbye(cluster, deadline_s=chance.choice([5.0, 40.0]))
        cluster.kill_at = None
        for ordinal in missing:
            cluster[ordinal].alive = True
            if chance.random() < 0.3:
                move(cluster, ordinal)
        cluster.sleep(chance.choice([0.1, 5.0]))
    if codes := refused(cluster):  # elections on both sides forget that the slot was moving: nobody can tell any more
        assert codes <= STRAY
        assert moving & cluster.replaced
        assert len(cluster.replaced) > 1
        open_on_both_sides(cluster, 93)
    view = run_on(cluster).converge()
    assert violations(view, SHAPE) == ()
    assert found_keys(cluster) == before


def refused(cluster: FakeCluster) -> set[str]:
    """Why a run refuses; nothing where it does not."""
    try:
        run_on(cluster).converge()
    except Refused as refusal:
        return {reason.code for reason in refusal.reasons}
    return set()


def open_on_both_sides(cluster: FakeCluster, slot: int) -> None:
    """A person decides that the keys beside the owner have moved there: the command of the remedy."""
    (owner,) = [node for node in cluster.nodes if slot in node.slots]
    holders = [node for node in cluster.nodes if node.in_slot.get(slot) and node.master is None and node is not owner]
    (holder,) = holders
    owner.migrating, holder.importing = {slot: holder.node_id}, {slot: owner.node_id}
