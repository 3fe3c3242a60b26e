"""Runs whose replicas get no link: how long they wait, what they say, and how they end."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import pytest

from bootstrap.errors import BootstrapError, Misconfigured, NotYet
from bootstrap.model.links import LinkCause, LinkTrouble, of_versions, remedy
from bootstrap.model.node import NodeId
from bootstrap.model.view import ClusterView
from bootstrap.run.reconcile import Reconciler
from tests.builders import formed, shape, with_node
from tests.fake_cluster import FakeCluster
from tests.run.runs import Notes, run_on


class Unlinked(FakeCluster):
    """The links of some replicas do not come up, for a cause that the servers show."""

    cause = LinkCause.UNKNOWN
    ordinals: tuple[int, ...] = (3, 4)
    asked: list[float]
    broken_off: AbstractSet[NodeId] = frozenset()
    copying = False

    def link_troubles(
        self, view: ClusterView, replicas: AbstractSet[NodeId], broken_off: AbstractSet[NodeId]
    ) -> dict[NodeId, LinkTrouble]:
        self.asked.append(self.time)
        self.broken_off = broken_off
        return {node_id: LinkTrouble(replica=node_id, cause=self.cause, detail="so it is") for node_id in replicas}

    def _tick(self) -> None:
        super()._tick()
        for ordinal in self.ordinals:
            node = self.nodes[ordinal]
            node.link_up, node.hangs = False, True
            # A copy that begins and stops again, every two seconds.
            node.copy_ticks = 3 if self.copying and int(self.time) % 2 else 0


def unlinked(cause: LinkCause) -> Unlinked:
    cluster = formed(shape())
    cluster.__class__ = Unlinked
    assert isinstance(cluster, Unlinked)
    cluster.cause, cluster.asked = cause, []
    cluster.sleep(0.1)
    return cluster


def failed(cluster: Unlinked, **changes: float) -> tuple[BootstrapError, Reconciler]:
    run = run_on(cluster, shape(), **changes)
    with pytest.raises(BootstrapError) as caught:
        run.converge()
    return caught.value, run


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (LinkCause.NO_PASSWORD, Misconfigured),
        (LinkCause.WRONG_PASSWORD, Misconfigured),
        (LinkCause.WITH_TLS, Misconfigured),
        (LinkCause.OLDER, NotYet),
        (LinkCause.UNREADABLE, NotYet),
    ],
)
def test_a_run_that_only_a_person_can_help_ends_soon(cause: LinkCause, error: type[BootstrapError]) -> None:
    """10 s until the servers are asked, 15 s for a person. One reason for both replicas, with a log to look at."""
    cluster = unlinked(cause)
    began = cluster.time
    ended, run = failed(cluster)
    assert type(ended) is error
    (reason,) = ended.reasons
    assert reason.code == "replica-not-linked"
    assert "redis-app-3 to its master redis-app-0, redis-app-4 to its master redis-app-1" in reason.message
    assert f"{cause.value} (so it is)" in reason.message
    assert reason.remedy.startswith("kubectl logs redis-app-3 ")
    assert cluster.asked[0] - began >= 10
    assert 25 <= cluster.time - began < 40
    assert isinstance(run.log, Notes)
    assert len(run.log.of("replica_not_linked")) == 1


@pytest.mark.parametrize("cause", [LinkCause.UNKNOWN, LinkCause.NO_SNAPSHOT, LinkCause.TOO_MANY_CLIENTS])
def test_a_link_that_may_still_come_up_is_waited_for(cause: LinkCause) -> None:
    """Until the deadline; then the reason is the same."""
    cluster = unlinked(cause)
    began = cluster.time
    ended, _ = failed(cluster, deadline_s=60.0)
    assert type(ended) is NotYet
    assert [reason.code for reason in ended.reasons] == ["replica-not-linked"]
    assert cluster.time - began >= 60
    assert len(cluster.asked) <= 12


def test_a_short_run_names_no_cause() -> None:
    """Nobody has been asked: a first copy may be under way."""
    ended, _ = failed(unlinked(LinkCause.NO_PASSWORD), deadline_s=5.0)
    assert [reason.code for reason in ended.reasons] == ["not-settled"]


def test_a_rollout_is_waited_for() -> None:
    """The pods are about to be replaced, perhaps with the setting that is wrong now."""
    cluster = unlinked(LinkCause.OLDER)
    cluster.rollout = "the StatefulSet is being updated"
    began = cluster.time
    failed(cluster, deadline_s=60.0)
    assert cluster.time - began >= 60


def test_a_link_that_comes_up_meanwhile_is_no_failure() -> None:
    cluster = unlinked(LinkCause.NO_PASSWORD)
    ordinals = iter([(3, 4)] * 2)

    def repaired(view: ClusterView, replicas: AbstractSet[NodeId], broken_off: AbstractSet[NodeId]) -> object:
        if next(ordinals, None) is None:
            for ordinal in cluster.ordinals:
                cluster[ordinal].hangs = False
            cluster.ordinals = ()
        return Unlinked.link_troubles(cluster, view, replicas, broken_off)

    cluster.link_troubles = repaired  # type: ignore[method-assign,assignment]
    view = run_on(cluster, shape()).converge()
    assert all(node.replication.link_up for node in view.nodes)


def test_copies_that_begin_again_and_again_are_told_apart() -> None:
    """A copy that goes on is none of them, however long it takes."""
    cluster = unlinked(LinkCause.BROKEN_OFF)
    cluster.copying = True
    ended, _ = failed(cluster, deadline_s=30.0)
    assert [reason.code for reason in ended.reasons] == ["replica-not-linked"]
    assert cluster.broken_off == {cluster[3].node_id, cluster[4].node_id}


@pytest.mark.parametrize(
    ("replica", "master", "relaxed", "wanted"),
    [
        ("redis 6.2.5", "redis 7.0.15", False, LinkCause.OLDER),
        ("redis 7.0.1", "redis 7.0.15", False, None),
        ("redis 8.10.0", "redis 8.2.1", False, None),
        ("redis 7.2.0", "valkey 9.1.2", False, None),
        ("redis 7.0.15", "valkey 9.1.2", False, LinkCause.UNREADABLE),
        ("valkey 9.1.2", "redis 7.4.1", False, LinkCause.UNREADABLE),
        ("valkey 9.1.2", "redis 7.4.1", True, None),
        ("valkey 9.1.2", "redis 8.2.3", True, None),
        ("redis ?", "redis 7.0.15", False, None),
    ],
)
def test_which_versions_take_no_copy(replica: str, master: str, *, relaxed: bool, wanted: LinkCause | None) -> None:
    """Snapshots of one minor version have one format; a Valkey master sends older servers one that they read."""
    view = with_node(with_node(formed(shape()).look(), 0, version=master), 3, version=replica)
    assert of_versions(view.nodes[3], view.nodes[0], relaxed=relaxed) is wanted


@pytest.mark.parametrize("cause", LinkCause)
def test_every_cause_has_a_remedy_with_the_log_of_the_replica(cause: LinkCause) -> None:
    text = remedy(cause, "redis-app-3", "redis-app-0")
    assert text.startswith("kubectl logs redis-app-3 ")
    assert "{" not in text
