"""What is reported about a rollout: how far it is, where it stops, and the verdict on the way between the versions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bootstrap.model.links import LinkCause, LinkTrouble
from bootstrap.model.node import Address
from bootstrap.model.rollout import PodRevision, rollout_in
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.plan.findings import notices
from bootstrap.plan.upgrade import paths_to, reasons, stuck, versions
from tests.builders import formed, shape, with_node

OLD, NEW = PodRevision(revision="redis-app-1a", ready_s=900.0), PodRevision(revision="redis-app-2b", ready_s=5.0)
NO_IMAGE = 'ImagePullBackOff: Back-off pulling image "redis:8.99"'
UNREADABLE = "CrashLoopBackOff, container redis last ended with exit code 1 (Error): Can't handle RDB format version 12"


def rolling(replaced: int, *, old: str = "redis 7.0.15", new: str = "redis 8.2.3") -> ClusterView:
    """Six pods, of which the highest ones have been replaced."""
    view = formed(shape()).look()
    for ordinal in range(6):
        view = with_node(view, ordinal, version=new if ordinal >= 6 - replaced else old)
    return replace(view, revisions={f"redis-app-{n}": NEW if n >= 6 - replaced else OLD for n in range(6)})


def without(view: ClusterView, ordinal: int, revision: PodRevision) -> ClusterView:
    """The view in which that pod does not answer, and Kubernetes reports it like that."""
    node = next(node for node in view.nodes if node.ordinal == ordinal)
    silent = UnreachablePeer(pod=node.pod, ordinal=ordinal, why=UnreachableReason.CONNECTION_REFUSED)
    return replace(
        view,
        nodes=tuple(each for each in view.nodes if each.ordinal != ordinal),
        unreachable=(silent,),
        revisions={**view.revisions, node.pod: revision},
    )


def found(view: ClusterView) -> dict[str, str]:
    return {finding.code: finding.message for finding in notices(view, shape())}


def test_a_cluster_of_one_version_and_revision_reports_nothing() -> None:
    """Neither before a rollout nor after it."""
    assert found(rolling(0)) == {}
    assert found(rolling(6)) == {}
    assert reasons(rolling(6), "shop") == ()


def test_a_rollout_reports_how_far_it_is_and_the_verdict() -> None:
    assert found(rolling(2)) == {
        "rollout": "rollout under way: 2 of 6 pods run redis 8.2.3, 4 run redis 7.0.15; "
        "redis 7.0.15 → redis 8.2.3: good"
    }
    assert versions(rolling(2)) == {
        "redis 7.0.15": ("redis-app-0", "redis-app-1", "redis-app-2", "redis-app-3"),
        "redis 8.2.3": ("redis-app-4", "redis-app-5"),
    }


def test_a_pod_that_does_not_answer_is_counted() -> None:
    """It starts; its containers are not broken."""
    view = without(rolling(2), 4, replace(NEW, ready_s=None))
    assert found(view)["rollout"].startswith(
        "rollout under way: 1 of 6 pods run redis 8.2.3, 1 do not answer, 4 run redis 7.0.15"
    )
    assert stuck(view) == {}


def test_a_rollout_of_a_setting_has_no_versions() -> None:
    view = rolling(2, new="redis 7.0.15")
    assert found(view) == {"rollout": "rollout under way: 2 of 6 pods are replaced; all run redis 7.0.15"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("redis 7.4.1", "valkey 9.1.2", "needs a setting"),
        ("redis 6.2.5", "redis 7.2.6", "needs a step between"),
        ("redis 8.2.3", "redis 7.0.15", "no way back"),
        ("redis 8.2.3", "valkey 8.1.4", "not possible"),
    ],
)
def test_a_path_that_is_not_good_is_a_finding(old: str, new: str, words: str) -> None:
    """With the reason and what to do."""
    codes = found(rolling(1, old=old, new=new))
    assert f"{old} → {new}: {words}" in codes["rollout"]
    assert codes["upgrade-path"].startswith(f"{old} → {new}: {words}: ")
    assert "; " in codes["upgrade-path"]


@pytest.mark.parametrize("why", [NO_IMAGE, UNREADABLE, "Unschedulable: 0/3 nodes are available"])
def test_a_rollout_that_cannot_go_on_names_pod_reason_and_command(why: str) -> None:
    """Whatever keeps the first pod from running."""
    broken = replace(NEW, image="redis:7.0", broken=why, ready_s=None)
    view = without(rolling(1, old="redis 8.2.3", new="redis 7.0.15"), 5, broken)
    assert stuck(view) == {"redis-app-5": why}
    assert "it stops at redis-app-5" in found(view)["rollout"]
    (reason,) = reasons(view, "shop")
    assert (reason.code, reason.node) == ("rollout-stuck", "redis-app-5")
    assert f"redis-app-5 (image redis:7.0): {why}" in reason.message
    assert "5 of 6 pods keep the revision before it, and clients are served" in reason.message
    assert reason.remedy.startswith("kubectl --namespace shop rollout undo statefulset/redis-app, ")


def test_the_tag_of_an_image_stands_for_a_server_that_never_ran() -> None:
    """The verdict then explains what the server could not."""
    broken = replace(NEW, image="docker.io/library/redis:7.0-alpine", broken=UNREADABLE, ready_s=None)
    view = without(rolling(1, old="redis 8.2.3"), 5, broken)
    assert found(view)["upgrade-path"].startswith("redis 8.2.3 → redis 7.0: no way back: ")


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("redis:8.2", "redis 8.2"),
        ("docker.io/valkey/valkey:9.1-alpine", "valkey 9.1"),
        ("registry:5000/redis:7.0.15@sha256:0123", "redis 7.0.15"),
        ("redis@sha256:0123", ""),
        ("registry:5000/redis", ""),
        ("redis:latest", ""),
        ("bitnami/redis-cluster:7.2", ""),
        ("", ""),
    ],
)
def test_a_version_from_the_name_of_an_image(image: str, version: str) -> None:
    """Only where the name and the tag are those of a known server."""
    assert PodRevision(revision="a", image=image).version == version


def test_a_server_that_takes_no_copy_stops_a_rollout() -> None:
    """Its pod runs, and is never ready."""
    view = rolling(1, old="valkey 9.1.2", new="redis 7.0.15")
    trouble = LinkTrouble(
        replica=view.nodes[5].node_id, cause=LinkCause.UNREADABLE, detail="redis 7.0.15, valkey 9.1.2"
    )
    view = replace(view, link_troubles={trouble.replica: trouble})
    (reason,) = reasons(view, "shop")
    assert reason.node == "redis-app-5"
    assert "it runs, and gets no copy of its master: the replica does not read the format" in reason.message


def test_a_link_that_is_down_for_another_cause_stops_no_rollout() -> None:
    view = rolling(1)
    trouble = LinkTrouble(replica=view.nodes[5].node_id, cause=LinkCause.NO_SNAPSHOT)
    assert stuck(replace(view, link_troubles={trouble.replica: trouble})) == {}


def test_a_broken_pod_of_the_older_revision_stops_no_rollout() -> None:
    """The rollout replaces it."""
    assert stuck(without(rolling(2), 0, replace(OLD, broken=UNREADABLE, ready_s=None))) == {}


def test_a_replica_older_than_its_master_is_named() -> None:
    """It follows until its link breaks for long; with one more failover the master is the older one."""
    view = with_node(rolling(6), 3, version="redis 7.0.15")
    message = found(replace(view, revisions={}))["replica-too-old"]
    assert message.startswith(
        "redis-app-3 (redis 7.0.15) cannot read a full copy of its master redis-app-0 (redis 8.2.3)"
    )
    assert "replica-too-old" not in found(rolling(3))


def test_versions_without_a_rollout_are_reported() -> None:
    """Outside Kubernetes, and where a tag has moved."""
    view = rolling(1, old="redis 8.2.2", new="redis 8.2.3")
    assert found(replace(view, revisions={}))["mixed-versions"] == (
        "the pods run 2 versions: redis 8.2.2 on redis-app-0, redis-app-1, redis-app-2 and 2 more; "
        "redis 8.2.3 on redis-app-5"
    )
    same = replace(view, revisions=dict.fromkeys(view.revisions, OLD))
    assert found(same)["mixed-versions"].endswith("of one revision: their image is a tag that has moved")


def test_a_rollout_that_waits_is_told_from_one_that_goes_on() -> None:
    """A partition, or the strategy OnDelete: every new pod is ready, and none is replaced."""
    view = rolling(2)
    waiting = {pod: replace(each, ready_s=600.0) for pod, each in view.revisions.items()}
    assert "no pod has been replaced for 10 min" in found(replace(view, revisions=waiting))["rollout"]
    ending = {**waiting, "redis-app-3": replace(OLD, terminating=True)}
    assert "no pod has been replaced" not in found(replace(view, revisions=ending))["rollout"]


def test_the_newest_revision_is_that_of_the_highest_pod() -> None:
    """A pod that ends in the middle of a rollout is made again from the revision of its neighbours; while the first pod
    terminates, no other one is replaced yet.
    """
    view = rolling(2)
    rollout = rollout_in({**view.revisions, "redis-app-10": NEW})
    assert rollout
    assert rollout.updated == ("redis-app-4", "redis-app-5", "redis-app-10")
    undone = rollout_in({**rolling(3).revisions, "redis-app-5": replace(NEW, terminating=True)})
    assert undone
    assert undone.updated == ("redis-app-3", "redis-app-4", "redis-app-5")


def test_addresses_do_not_matter() -> None:
    """A pod that moves with the rollout stays in its row."""
    view = with_node(rolling(2), 5, address=Address("10.9.9.9", 6379))
    assert found(view)["rollout"].startswith("rollout under way: 2 of 6 pods run redis 8.2.3")


def test_a_planned_upgrade_is_judged_for_each_version_that_runs() -> None:
    """Before the image changes; nothing for the version that is there already."""
    (path,) = paths_to("redis 8.2", rolling(0))
    assert str(path).startswith("redis 7.0.15 → redis 8.2: good: ")
    assert [path.old for path in paths_to("valkey 9.1", rolling(2))] == ["redis 7.0.15", "redis 8.2.3"]
    assert paths_to("redis 7.0.15", rolling(0)) == ()
    assert paths_to("", rolling(2)) == ()
