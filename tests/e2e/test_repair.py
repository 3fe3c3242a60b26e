"""Pods and disks that are lost on a real cluster, and the runs that repair it."""

from __future__ import annotations

from typing import Any

from .harness import Namespace, Run
from .requirements import needs_disks

KEYS = 300
BY_HAND = {"target": {"kind": "CronJob"}, "patch": '[{"op": "replace", "path": "/spec/suspend", "value": true}]'}
"""The CronJob is suspended, so only the test starts runs."""
EACH_MINUTE = {
    "target": {"kind": "CronJob"},
    "patch": '[{"op": "replace", "path": "/spec/schedule", "value": "* * * * *"}]',
}


def test_all_pods_come_back_to_their_disks(namespace: Namespace) -> None:
    """Every pod has a new address and no node reaches another. After one run, every key is there."""
    formed(namespace, "production", BY_HAND)
    before = addresses(namespace)
    lose_all_pods(namespace)
    run = namespace.run("repair")
    assert (run.condition, run.outcome["outcome"]) == ("Complete", "repaired")
    assert addresses(namespace) != before
    namespace.wait_for_servers()
    assert namespace.client("read", "0", str(KEYS)) == str(KEYS)
    assert namespace.run("again").outcome["outcome"] == "unchanged"


def test_a_master_comes_back_without_its_disk(namespace: Namespace) -> None:
    """Its replica has the keys and becomes the master. The blank pod becomes a replica."""
    master = min(formed(namespace, "production", BY_HAND).masters)
    pod, disk = namespace.servers()[master], namespace.get("pvc", f"data-{master}")
    namespace.kubectl("delete", "pvc", f"data-{master}", "--wait=false")
    namespace.kubectl("delete", "pod", master)
    namespace.wait_for_servers(ready=False, but=frozenset({pod["metadata"]["uid"]}))
    assert namespace.get("pvc", f"data-{master}")["metadata"]["uid"] != disk["metadata"]["uid"]
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
    """All pods are deleted, and the CronJob alone makes them ready again."""
    formed(namespace, "production", EACH_MINUTE)
    lose_all_pods(namespace)
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


def lose_all_pods(namespace: Namespace) -> None:
    """Deletes all pods at the same time, and waits until new ones are up."""
    gone = frozenset(pod["metadata"]["uid"] for pod in namespace.servers().values())
    namespace.kubectl("delete", "pods", "-l", "app.kubernetes.io/name=redis-app")
    namespace.wait_for_servers(ready=False, but=gone)
