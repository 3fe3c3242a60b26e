"""Where pods run, and why a pod does not answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from bootstrap.errors import Forbidden
from bootstrap.kube.client import KubeClient
from bootstrap.kube.pods import REVISION_LABEL, ZONE_LABEL, Pods, revisions_of, rollout_of
from bootstrap.model.node import Address, Place
from bootstrap.model.rollout import PodRevision
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from tests.kube.api import KubeApi, pod

Client = Callable[..., KubeClient]
NAME = "redis-app-0"


def explained(
    api: KubeApi, client: Client, why: UnreachableReason = UnreachableReason.NO_RECORD, address: Address | None = None
) -> str:
    """The explanation for redis-app-0, which does not answer."""
    unreachable = UnreachablePeer(pod=NAME, ordinal=0, why=why, address=address)
    (found,) = Pods(client(), "redis-app").explain(ClusterView(unreachable=(unreachable,))).unreachable
    return found.detail


def container(state: dict[str, Any], last: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "redis", "state": state, "lastState": last or {}, "ready": False, **more}]}


UNSCHEDULABLE: dict[str, Any] = {
    "phase": "Pending",
    "podIP": None,
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    ],
}
LOG = """1:C 25 Nov 2026 13:45:16.901 # WARNING Memory overcommit must be enabled! It can also cause failures.
1:M 25 Nov 2026 13:45:16.905 * Node configuration loaded, I'm 0df0df173451cbf747b2e3acad8c037e5a9977dc
1:M 25 Nov 2026 13:45:16.905 # Can't handle RDB format version 12
1:M 25 Nov 2026 13:45:16.905 # Error reading the RDB base file appendonly.aof.3.base.rdb, aborted
"""
CRASHED = {"terminated": {"exitCode": 1, "reason": "Error"}}
REPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "unschedulable": (UNSCHEDULABLE, "Unschedulable: 0/3 nodes are available"),
    "pending": ({"phase": "Pending"}, "Pending"),
    "starting": (
        {"phase": "Pending", **container({"waiting": {"reason": "ContainerCreating"}})},
        "Pending: ContainerCreating",
    ),
    "no image": (
        container({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}),
        "ErrImagePull: no such image",
    ),
    "crash-looping": (
        container({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}, CRASHED),
        "CrashLoopBackOff: back-off 40s, container redis last ended with exit code 1 (Error)",
    ),
    "crash-looping on its files": (
        container(
            {
                "waiting": {
                    "reason": "CrashLoopBackOff",
                    "message": "back-off 10s restarting failed container=redis pod=x",
                }
            },
            {"terminated": {"exitCode": 1, "reason": "Error", "message": LOG}},
        ),
        (
            "CrashLoopBackOff: back-off 10s, container redis last ended with exit code 1 (Error): "
            "Can't handle RDB format version 12 | Error reading the RDB base file appendonly.aof.3.base.rdb, aborted"
        ),
    ),
    "crash-looping with a log that names no error": (
        container(
            {"waiting": {"reason": "CrashLoopBackOff"}},
            {"terminated": {"exitCode": 1, "reason": "Error", "message": "*** starting ***\nsome last line\n"}},
        ),
        "CrashLoopBackOff, container redis last ended with exit code 1 (Error): some last line",
    ),
    "crash-looping, running just now": (
        container({"running": {}}, CRASHED, restartCount=4),
        "container redis last ended with exit code 1 (Error) and was restarted 4 times",
    ),
    "ended": (
        container({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
        "container redis ended with exit code 137 (OOMKilled)",
    ),
    "ended without an error": (
        container({"terminated": {"exitCode": 0, "reason": "Completed"}}),
        "container redis ended with exit code 0 (Completed)",
    ),
    "evicted": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
        "Evicted: The node was low on resource: memory.",
    ),
    "an init container that fails": (
        {
            "phase": "Pending",
            "initContainerStatuses": [
                {"name": "chown", "state": {"terminated": {"exitCode": 0}}},
                {
                    "name": "wait",
                    "state": {"waiting": {"reason": "RunContainerError", "message": "no secret"}},
                },
            ],
            **container({"waiting": {"reason": "PodInitializing"}}),
        },
        "RunContainerError: no secret",
    ),
}


@pytest.mark.parametrize("case", sorted(REPORTED))
def test_the_pod_s_own_reason_is_reported(api: KubeApi, client: Client, case: str) -> None:
    """In Kubernetes's words, with nothing added."""
    status, words = REPORTED[case]
    api.put("pods", NAME, pod(NAME, **status))
    assert explained(api, client) == words


def test_a_terminating_pod_is_reported(api: KubeApi, client: Client) -> None:
    """With its Kubernetes node: on a lost node it stays for minutes."""
    terminating = pod(NAME, node="node2", phase="Succeeded")
    terminating["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.put("pods", NAME, terminating)
    assert explained(api, client) == "terminating on node2"


def test_differences_between_kubernetes_and_dns_are_explained(api: KubeApi, client: Client) -> None:
    """No pod; a pod that the DNS does not list; one that it lists at another address; one on which both agree."""
    assert explained(api, client) == "Kubernetes has no such pod"
    api.put("pods", NAME, pod(NAME))
    where = "the pod runs at 10.0.0.1 on node1"
    unlisted = f"{where}, but the DNS does not list it: compare the Service's selector with the pod's labels"
    assert explained(api, client) == unlisted
    moved = explained(api, client, UnreachableReason.TIMEOUT, Address("10.0.0.9", 6379))
    assert moved == f"{where}: the DNS still has the old address"
    assert explained(api, client, UnreachableReason.CONNECTION_REFUSED, Address("10.0.0.1", 6379)) == ""


def test_an_explanation_is_added_once(api: KubeApi, client: Client) -> None:
    """A wait explains its peers again and again; the text does not grow."""
    api.put("pods", NAME, pod(NAME, phase="Pending"))
    pods = Pods(client(), "redis-app")
    view = ClusterView(
        unreachable=(UnreachablePeer(pod=NAME, ordinal=0, why=UnreachableReason.NO_RECORD, detail="known before"),)
    )
    assert pods.explain(pods.explain(view)).unreachable[0].detail == "known before; Pending"


def test_an_api_error_is_the_explanation(api: KubeApi, client: Client) -> None:
    """Waiting goes on: the DNS and the nodes decide, Kubernetes only explains."""
    api.forbidden.add(("list", "pods"))
    assert explained(api, client).startswith("Kubernetes does not let this account list pods")


def test_only_the_statefulset_s_pods_count(api: KubeApi, client: Client) -> None:
    """By name, which is unique in a namespace, with the owner's uid; a pod without an owner has none."""
    orphan = pod("redis-app-1")
    del orphan["metadata"]["ownerReferences"]
    for each in (pod("redis-app-0", uid="uid-7"), orphan, pod("redis-app-exporter"), pod("other-redis-app-0")):
        api.put("pods", each["metadata"]["name"], each)
    found = Pods(client(), "redis-app").look()
    assert {name: each.owner_uid for name, each in found.items()} == {"redis-app-0": "uid-7", "redis-app-1": ""}


def test_a_zone_comes_from_the_pod_or_its_neighbour(api: KubeApi, client: Client) -> None:
    """Newer Kubernetes copies the label onto pods; an older pod shares a node with a newer one. Nodes are not read."""
    api.put("pods", "redis-app-0", pod("redis-app-0", node="node1", labels={ZONE_LABEL: "a"}))
    api.put("pods", "redis-app-1", pod("redis-app-1", node="node1"))
    api.put("pods", "redis-app-2", pod("redis-app-2", node="node2"))
    api.put("pods", "redis-app-3", pod("redis-app-3", node="", **UNSCHEDULABLE))
    assert Pods(client(), "redis-app").places() == {
        "redis-app-0": Place(node="node1", zone="a"),
        "redis-app-1": Place(node="node1", zone="a"),
        "redis-app-2": Place(node="node2", zone=""),
    }
    assert api.times("get", "nodes") == 0


def test_a_zone_comes_from_the_node_where_that_is_allowed(api: KubeApi, client: Client) -> None:
    """Each Node once, only where no pod has the label; a Node that is missing or has no label gives no zone."""
    for number, node in enumerate(("node1", "node1", "node2", "node3", "node4")):
        api.put("pods", f"redis-app-{number}", pod(f"redis-app-{number}", node=node))
    api.put("pods", "redis-app-5", pod("redis-app-5", node="node5", labels={ZONE_LABEL: "e"}))
    api.put("nodes", "node1", {"metadata": {"labels": {ZONE_LABEL: "a"}}})
    api.put("nodes", "node2", {"metadata": {"labels": {ZONE_LABEL: "b"}}})
    api.put("nodes", "node3", {"metadata": {}})
    places = Pods(client(), "redis-app", read_nodes=True).places()
    assert [place.zone for place in places.values()] == ["a", "a", "b", "", "", "e"]
    assert [asked.name for asked in api.asked if asked.plural == "nodes"] == ["node1", "node2", "node3", "node4"]


def test_zones_that_may_not_be_read_are_an_error(api: KubeApi, client: Client) -> None:
    """BOOTSTRAP_READ_NODES requires them: exit code 4, with the missing right by name."""
    api.put("pods", NAME, pod(NAME))
    api.forbidden.add(("get", "nodes"))
    with pytest.raises(Forbidden, match="get nodes"):
        Pods(client(), "redis-app", read_nodes=True).places()


def explained_peer(api: KubeApi, client: Client, *, read_nodes: bool = True, **peer: Any) -> UnreachablePeer:
    """redis-app-0, which does not answer, as Kubernetes explains it."""
    unreachable = UnreachablePeer(**{"pod": NAME, "ordinal": 0, "why": UnreachableReason.TIMEOUT, **peer})
    view = ClusterView(unreachable=(unreachable,))
    (found,) = Pods(client(), "redis-app", read_nodes=read_nodes).explain(view).unreachable
    return found


def node(status: str = "True", **condition: str) -> dict[str, Any]:
    return {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": status, **condition}]}}


UNKNOWN = {"status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
WAITING = container({"waiting": {"reason": "CrashLoopBackOff"}})
RUNNING = container({"running": {}})


def test_no_pod_and_no_node_are_proof_that_no_server_runs(api: KubeApi, client: Client) -> None:
    """A pod that does not exist, and one that is bound to no node: without the right to read nodes, too."""
    assert explained_peer(api, client, read_nodes=False).not_running
    api.put("pods", NAME, pod(NAME, node="", **UNSCHEDULABLE))
    assert explained_peer(api, client, read_nodes=False).not_running
    assert not explained_peer(api, client, why=UnreachableReason.LOADING).not_running, "a server answers"
    assert not explained_peer(api, client, pod="elsewhere-0").not_running, "not a name of this StatefulSet"


def test_a_stopped_container_is_proof_only_on_a_ready_node(api: KubeApi, client: Client) -> None:
    """The kubelet of another node may have started it since; without the right to read nodes, nobody knows."""
    api.put("pods", NAME, pod(NAME, **WAITING))
    api.put("nodes", "node1", node())
    assert explained_peer(api, client).not_running
    assert not explained_peer(api, client, read_nodes=False).not_running
    api.put("nodes", "node1", node(**UNKNOWN))
    assert not explained_peer(api, client).not_running
    api.objects.pop(("nodes", "node1"))
    assert not explained_peer(api, client).not_running
    api.forbidden.add(("get", "nodes"))
    assert not explained_peer(api, client).not_running


@pytest.mark.parametrize(
    "status",
    [
        RUNNING,
        {"containerStatuses": []},
        {"containerStatuses": [*WAITING["containerStatuses"], *RUNNING["containerStatuses"]]},
        {"containerStatuses": [{"name": "redis"}]},
    ],
    ids=["running", "nothing reported", "one of two running", "no state"],
)
def test_a_container_that_may_run_is_no_proof(api: KubeApi, client: Client, status: dict[str, Any]) -> None:
    """On a Ready node, too."""
    api.put("pods", NAME, pod(NAME, **status))
    api.put("nodes", "node1", node())
    assert not explained_peer(api, client).not_running


def test_a_machine_that_is_not_ready_is_named(api: KubeApi, client: Client) -> None:
    """With its own reason, and the claims of the pod that wait for its disks."""
    waiting = pod(NAME, **RUNNING)
    waiting["spec"]["volumes"] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-redis-app-0"}},
        {"name": "config", "configMap": {"name": "redis"}},
    ]
    api.put("pods", NAME, waiting)
    api.put("nodes", "node1", node(**UNKNOWN))
    found = explained_peer(api, client)
    assert (found.machine, found.claims, found.not_running) == ("node1", ("data-redis-app-0",), False)
    assert "node node1 is not Ready (NodeStatusUnknown: Kubelet stopped posting node status.)" in found.detail
    api.objects.pop(("nodes", "node1"))
    assert "Kubernetes has no node node1 any more" in explained_peer(api, client).detail
    api.put("nodes", "node1", node())
    assert explained_peer(api, client).machine == ""


def test_a_rollout_is_seen_from_the_pods(api: KubeApi, client: Client) -> None:
    """A pod that terminates, and pods of two revisions; pods of one revision, or without one, are no rollout."""

    def rollout() -> str:
        return rollout_of(Pods(client(), "redis-app").look().values())

    for number, revision in enumerate(("redis-app-1a", "redis-app-1a", "")):
        labels = {REVISION_LABEL: revision} if revision else {}
        api.put("pods", f"redis-app-{number}", pod(f"redis-app-{number}", labels=labels))
    assert rollout() == ""
    api.put("pods", "redis-app-3", pod("redis-app-3", labels={REVISION_LABEL: "redis-app-2b"}))
    assert rollout() == "the pods have 2 revisions of their StatefulSet"
    ending = pod("redis-app-3", labels={REVISION_LABEL: "redis-app-1a"})
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.put("pods", "redis-app-3", ending)
    assert rollout() == "redis-app-3 terminates"


def test_the_pods_show_how_far_a_rollout_is(api: KubeApi, client: Client) -> None:
    """Revision, image, whether it is ready and since when, and why it does not run; orphans do not count."""
    crash = container({"waiting": {"reason": "ErrImagePull", "message": "no such image"}})
    ready = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    for number, (revision, status) in enumerate([("1a", ready), ("2b", crash), ("2b", {"phase": "Pending"}), ("", {})]):
        labels = {REVISION_LABEL: revision} if revision else {}
        item = pod(f"redis-app-{number}", labels=labels, **status)
        item["spec"]["containers"] = [{"name": "redis", "image": "redis:8.2"}, {"name": "exporter", "image": "other:1"}]
        api.put("pods", f"redis-app-{number}", item)
    ending = pod("redis-app-4", labels={REVISION_LABEL: "1a"}, **crash)
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.put("pods", "redis-app-4", ending)
    orphan = pod("redis-app-5", labels={REVISION_LABEL: "1a"})
    orphan["metadata"]["ownerReferences"] = []
    api.put("pods", "redis-app-5", orphan)
    now = datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC)
    assert revisions_of(Pods(client(), "redis-app").look(), now) == {
        "redis-app-0": PodRevision(revision="1a", image="redis:8.2", ready_s=90.0),
        "redis-app-1": PodRevision(revision="2b", image="redis:8.2", broken="ErrImagePull: no such image"),
        "redis-app-2": PodRevision(revision="2b", image="redis:8.2"),
        "redis-app-4": PodRevision(revision="1a", terminating=True),
    }
