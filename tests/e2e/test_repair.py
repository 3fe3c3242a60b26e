"""Pods and disks that are lost on a real cluster: what heals by itself, and the runs that repair the rest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.manifests.kustomize import Manifest
from tests.waiting import wait_until

from .harness import PODS_S, Namespace, Run
from .requirements import needs_disks

KEYS = 300
BY_HAND = {"target": {"kind": "CronJob"}, "patch": '[{"op": "replace", "path": "/spec/suspend", "value": true}]'}
"""The CronJob is suspended, so only the test starts runs."""
AS_ELECTED = {
    "target": {"kind": "ConfigMap", "name": "redis-bootstrap-settings"},
    "patch": '[{"op": "add", "path": "/data/BOOTSTRAP_SPREAD_MASTERS", "value": "off"}]',
}
"""No run moves a master to another machine: where replicas are elected, masters may be crowded."""
EACH_MINUTE = {
    "target": {"kind": "CronJob"},
    "patch": '[{"op": "replace", "path": "/spec/schedule", "value": "* * * * *"}]',
}


def test_all_pods_come_back_to_their_disks(namespace: Namespace) -> None:
    """Every pod has a new address and no node reaches another. They find each other again without a run."""
    formed(namespace, "production", BY_HAND, AS_ELECTED)
    before = addresses(namespace)
    lose_all_pods(namespace, "--force", "--grace-period=0")
    namespace.wait_for_servers()
    assert before.keys() == addresses(namespace).keys()
    assert before != addresses(namespace)
    assert namespace.client("read", "0", str(KEYS)) == str(KEYS)
    assert namespace.run("again").outcome["outcome"] == "unchanged"


def test_all_containers_stop_at_the_same_time(namespace: Namespace) -> None:
    """The pods keep their addresses. The nodes find each other again without a run."""
    formed(namespace, "production", BY_HAND, AS_ELECTED)
    before = namespace.servers()
    with ThreadPoolExecutor(len(before)) as threads:
        # The signal ends the connection too, so kubectl may report an error.
        for pod in before:
            threads.submit(namespace.kubectl, "exec", pod, "-c", "redis", "--", "sh", "-c", "kill 1")
    wait_until(lambda: all(restarts(pod) > 0 for pod in namespace.servers().values()), "all have stopped", PODS_S)
    namespace.wait_for_servers()
    assert {pod["metadata"]["uid"] for pod in before.values()} == {
        pod["metadata"]["uid"] for pod in namespace.servers().values()
    }
    assert namespace.client("read", "0", str(KEYS)) == str(KEYS)
    assert namespace.run("again").outcome["outcome"] == "unchanged"


def test_a_master_comes_back_without_its_disk(namespace: Namespace) -> None:
    """Its replica has the keys and becomes the master. The blank pod becomes a replica."""
    master = min(formed(namespace, "production", BY_HAND, AS_ELECTED).masters)
    lose_disk(namespace, master)
    run = namespace.run("repair")
    assert (run.condition, run.outcome["outcome"]) == ("Complete", "repaired")
    namespace.wait_for_servers()
    assert namespace.client("read", "0", str(KEYS)) == str(KEYS)
    assert run.roles[master] != master


def test_all_pods_come_back_with_nothing(namespace: Namespace) -> None:
    """If the data is lost with the pods, a new cluster is formed, and the outcome reports it."""
    first = formed(namespace, "minikube")
    lose_all_pods(namespace)
    run = namespace.run("repair")
    assert (run.condition, run.outcome["outcome"]) == ("Complete", "formed")
    assert run.outcome["cluster"] != first.outcome["cluster"]
    namespace.wait_for_servers()
    assert namespace.client("read", "0", str(KEYS)) == "0"


def test_self_heal_repairs_without_a_person(namespace: Namespace) -> None:
    """A pod comes back without its disk, and the CronJob alone makes it a member again."""
    lose_disk(namespace, min(formed(namespace, "production", EACH_MINUTE).masters))
    namespace.wait_for_servers()
    assert namespace.client("read", "0", str(KEYS)) == str(KEYS)


def formed(namespace: Namespace, overlay: str, *patches: Any) -> Run:
    """Forms a cluster and writes keys. Returns the run that formed it."""
    needs_disks(namespace, overlay)
    namespace.apply(overlay, patches=list(patches))
    run = namespace.ended()
    namespace.wait_for_servers()
    assert namespace.client("write", "0", str(KEYS)) == str(KEYS)
    return run


def addresses(namespace: Namespace) -> dict[str, str]:
    """The address of each server."""
    return {name: pod["status"]["podIP"] for name, pod in namespace.servers().items()}


def restarts(pod: Manifest) -> int:
    """How often its container was started again."""
    return sum(int(status["restartCount"]) for status in pod["status"].get("containerStatuses", []))


def lose_all_pods(namespace: Namespace, *options: str) -> None:
    """Deletes all pods at the same time, and waits until new ones are up."""
    gone = frozenset(pod["metadata"]["uid"] for pod in namespace.servers().values())
    namespace.kubectl("delete", "pods", "-l", "app.kubernetes.io/name=redis-app", *options)
    namespace.wait_for_servers(ready=False, but=gone)


def lose_disk(namespace: Namespace, name: str) -> None:
    """Deletes a pod and its disk, and waits until a new pod is up with an empty one."""
    pod, disk = namespace.servers()[name], namespace.get("pvc", f"data-{name}")
    namespace.kubectl("delete", "pvc", f"data-{name}", "--wait=false")
    namespace.kubectl("delete", "pod", name)
    namespace.wait_for_servers(ready=False, but=frozenset({pod["metadata"]["uid"]}))
    assert namespace.get("pvc", f"data-{name}")["metadata"]["uid"] != disk["metadata"]["uid"]
