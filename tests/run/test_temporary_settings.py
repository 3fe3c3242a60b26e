"""Temporary settings of a run, on the fake cluster: restored on every way out, and by the run after a kill."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TypeGuard

import pytest

from bootstrap.errors import Misconfigured, NotYet, Refused
from bootstrap.model.node import NodeId
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import Meet, Rejected, SetConfig, SetTimeout, Step, Write
from bootstrap.model.view import ClusterView
from bootstrap.plan.planner import plan
from bootstrap.run.temporary_settings import QUICKEN_LIMIT_S
from bootstrap.verify import violations
from tests.builders import steps_of
from tests.fake_cluster import NO_FAILOVER, FakeCluster, Killed
from tests.plan.damage import healthy, move_all_long_ago
from tests.run.runs import SHAPE, masters_of, run_on, run_on_without_goodbye

DECLARED = {(5000, "no")}


def late() -> FakeCluster:
    """Six nodes with keys that have all moved, and nobody has introduced them for longer than a node timeout."""
    cluster = healthy()
    move_all_long_ago(cluster)
    return cluster


def left_behind(cluster: FakeCluster, *ordinals: int) -> None:
    """A killed run has left its temporary settings on these nodes."""
    for ordinal in ordinals:
        cluster[ordinal].timeout_ms, cluster[ordinal].config[NO_FAILOVER] = 500, "yes"


def settings_of(cluster: FakeCluster) -> set[tuple[int, str]]:
    return {(node.timeout_ms, node.config[NO_FAILOVER]) for node in cluster.nodes}


def test_moved_nodes_are_linked_with_temporary_settings_and_keep_their_roles() -> None:
    """The timeout is lowered and failover is off while they are introduced; afterwards both are as declared."""
    cluster = late()
    masters = masters_of(cluster.look())
    view = run_on(cluster).converge()
    assert (violations(view, SHAPE), masters_of(view)) == ((), masters)
    assert (cluster.lowest_timeout_ms, settings_of(cluster)) == (500, DECLARED)
    first_meet = next(number for number, write in enumerate(cluster.written) if isinstance(write, Meet))
    before = {(write.name, write.value) for write in cluster.written[:first_meet] if isinstance(write, SetConfig)}
    assert before == {(NO_FAILOVER, "yes")}


@pytest.mark.parametrize("before", [True, False], ids=["just before", "just after"])
def test_a_kill_at_any_write_leaves_nothing_that_the_next_run_does_not_restore(before: bool) -> None:
    """kill -9 at each write: the next run verifies the cluster in its old roles, with the declared settings; and a node
    without failover always has the timeout by which it is known.
    """
    clean = late()
    run_on(clean).converge()
    for number in range(len(clean.written)):
        cluster = late()
        masters = masters_of(cluster.look())
        cluster.kill_at, cluster.kill_before = number, before
        with suppress(Killed):
            run_on_without_goodbye(cluster)
        cluster.kill_at = None
        assert (5000, "yes") not in settings_of(cluster), number
        view = run_on(cluster).converge()
        assert (violations(view, SHAPE), masters_of(view)) == ((), masters), number
        assert settings_of(cluster) == DECLARED, number


def test_a_run_that_ends_early_restores_them() -> None:
    """The nodes do not find each other before the deadline."""
    cluster = late()
    cluster.loss = 1.0
    with pytest.raises(NotYet):
        run_on(cluster, deadline_s=5).converge()
    assert (cluster.lowest_timeout_ms, settings_of(cluster)) == (500, DECLARED)


def test_nodes_that_do_not_find_each_other_get_their_settings_back_after_a_while() -> None:
    """They may be too busy for so short a timeout: the run goes on with the declared one, and lowers it no more."""
    cluster = late()
    cluster.loss = 1.0
    began = cluster.time
    pass_time = cluster.sleep

    def sleep(seconds: float) -> None:
        pass_time(seconds)
        cluster.loss = 0.0 if cluster.time - began > 3 * QUICKEN_LIMIT_S else 1.0

    cluster.sleep = sleep  # type: ignore[method-assign]
    restored: list[float] = []
    send = cluster.send

    def note(writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        writes = list(writes)
        restored.extend(
            cluster.time - began for write in writes if isinstance(write, SetConfig) and write.value == "no"
        )
        return send(writes, view)

    cluster.send = note  # type: ignore[method-assign]
    assert violations(run_on(cluster).converge(), SHAPE) == ()
    assert len(restored) == 6
    assert max(restored) < 2 * QUICKEN_LIMIT_S
    assert settings_of(cluster) == DECLARED


def test_a_refusal_restores_what_a_killed_run_has_left() -> None:
    """Nothing else is written."""
    cluster = healthy()
    left_behind(cluster, 0, 3)
    for node in cluster.nodes:
        apart = {0, 3} if node.ordinal in (0, 3) else {1, 2, 4, 5}
        node.known = {k: v for k, v in node.known.items() if int(k[:2], 16) in apart}
    cluster[1].slots |= SlotSet.of((0, 0))
    with pytest.raises(Refused):
        run_on(cluster).converge()
    assert settings_of(cluster) == DECLARED
    assert all(isinstance(write, SetConfig | SetTimeout) for write in cluster.written)


def test_a_run_that_waits_for_a_pod_in_vain_restores_what_a_killed_run_has_left() -> None:
    """The nodes that answer take part in failovers again."""
    cluster = healthy()
    left_behind(cluster, *range(6))
    cluster[4].alive = False
    with pytest.raises(NotYet):
        run_on(cluster, deadline_s=10).converge()
    assert {(n.timeout_ms, n.config[NO_FAILOVER]) for n in cluster.nodes if n.alive} == DECLARED


def test_settings_that_a_person_has_made_stay() -> None:
    """No failover with another timeout than that of a run, and anything at all where no timeout is declared."""
    cluster = healthy()
    cluster[3].config[NO_FAILOVER] = "yes"
    assert violations(run_on(cluster).converge(), SHAPE) == ()
    assert cluster.written == []


class Denying(FakeCluster):
    """Servers whose user may not change some settings."""

    denied: Sequence[type[Write]] = ()

    def _take(self, write: Write) -> str:
        return "NOPERM no permission" if isinstance(write, tuple(self.denied)) else super()._take(write)


@pytest.mark.parametrize("denied", [(SetTimeout, SetConfig), (SetConfig,)], ids=["both", "failover alone"])
def test_where_a_setting_is_denied_nodes_meet_as_they_are(denied: Sequence[type[Write]]) -> None:
    """It only takes longer. A timeout that was lowered is restored before the introductions."""
    cluster = late()
    cluster.__class__ = Denying
    assert isinstance(cluster, Denying)
    cluster.denied = denied
    assert violations(run_on(cluster).converge(), SHAPE) == ()
    kinds = [type(write) for write in cluster.written]
    assert settings_of(cluster) == DECLARED
    assert SetTimeout not in kinds[kinds.index(Meet) :]


def test_settings_that_a_killed_run_has_left_and_servers_do_not_let_restore_are_named() -> None:
    """A person has to change a right or the settings: the run ends, with both reasons."""
    cluster = healthy()
    left_behind(cluster, 0, 3)
    cluster.__class__ = Denying
    assert isinstance(cluster, Denying)
    cluster.denied = (SetTimeout, SetConfig)
    with pytest.raises(Misconfigured) as caught:
        run_on(cluster).converge()
    assert {reason.code for reason in caught.value.reasons} == {"step-rejected", "timeout-drift", "temporary-settings"}


def test_nothing_is_changed_in_a_cluster_that_is_in_service() -> None:
    """Two of three masters are linked and serve: the third may have to be replaced."""
    cluster = late()
    for one, other in ((0, 1), (1, 0)):
        known = cluster[one].known[cluster[other].node_id]
        known.address, known.connected, cluster[one].serving = cluster[other].address, True, True
    assert lowered_by(cluster) == set()
    cluster[0].serving = cluster[1].serving = False
    assert lowered_by(cluster) == {node.node_id for node in cluster.nodes}


def test_a_node_that_reports_ok_without_any_link_is_not_in_service() -> None:
    """A restarted node does so until it suspects the others. Its clients find no other node through it."""
    cluster = late()
    for node in cluster.nodes:
        node.serving = True
    assert lowered_by(cluster) == {node.node_id for node in cluster.nodes}


def lowered_by(cluster: FakeCluster) -> set[NodeId]:
    """Nodes whose timeout the plan lowers."""
    return {step.node for step in steps_of(plan(cluster.look(), SHAPE)) if write_lowers(step)}


def write_lowers(step: Step) -> TypeGuard[SetTimeout]:
    return isinstance(step, SetTimeout) and step.timeout_ms < 5000
