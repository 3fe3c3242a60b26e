"""From `kubectl apply -k` to a cluster that serves, and `kubectl apply -k` again at any time."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.manifests.kustomize import COMPONENTS

from .harness import Namespace
from .requirements import needs_disks

KEYS = 200
ZONE = "topology.kubernetes.io/zone"
OTHER_SETTINGS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "redis-bootstrap-settings"},
    "data": {"BOOTSTRAP_DEADLINE_S": "299"},
}


@pytest.mark.parametrize("overlay", ["minikube", "production"])
def test_an_overlay_forms_a_cluster_that_serves(namespace: Namespace, overlay: str) -> None:
    """Under restricted Pod Security. A client in a pod connects through gold-redis. A second run writes nothing."""
    needs_disks(namespace, overlay)
    namespace.apply(overlay)
    first = namespace.ended()
    assert (first.condition, first.outcome["outcome"], first.outcome["slots_covered"]) == ("Complete", "formed", 16384)
    # The termination message, which `kubectl describe` shows, has the same content.
    assert json.loads(first.termination_messages[-1]).items() <= first.outcome.items()
    namespace.wait_for_servers()
    assert namespace.client("write", "0", str(KEYS)) == str(KEYS)
    assert namespace.client("read", "0", str(KEYS)) == str(KEYS)
    second = namespace.run("again")
    assert (second.condition, second.outcome["outcome"], second.outcome["steps"]) == ("Complete", "unchanged", 0)
    assert first.forbidden + second.forbidden == ()


def test_applying_again_never_fails(namespace: Namespace) -> None:
    """While the Job runs, after its end and after its deletion. Also with other settings, and another redis.conf."""
    namespace.apply("minikube")
    namespace.apply("minikube")
    assert namespace.ended().condition == "Complete"
    namespace.apply("minikube")
    namespace.apply("minikube", patches=[{"patch": json.dumps(OTHER_SETTINGS)}])
    assert namespace.run("again").events("run_started")[0]["deadline_s"] == 299
    namespace.kubectl("delete", "job", "redis-bootstrap")
    namespace.apply("minikube")
    assert namespace.ended().outcome["outcome"] == "unchanged"
    redis_conf = "redis.conf=port 6379\ncluster-enabled yes\n"
    conf = [{"name": "redis-config", "behavior": "merge", "literals": [redis_conf]}]
    # The new redis.conf rolls the servers and does not change the Job.
    output = namespace.apply("minikube", configMapGenerator=conf).splitlines()
    assert "statefulset.apps/redis-app configured" in output
    assert "job.batch/redis-bootstrap unchanged" in output


def test_roles_are_spread_over_nodes_and_zones(namespace: Namespace) -> None:
    """No replica is on the node or in the zone of its master. Each of three zones has one of three masters."""
    zones = {node["metadata"]["name"]: node["metadata"]["labels"].get(ZONE) for node in namespace.get("nodes")["items"]}
    if None in zones.values() or len(set(zones.values())) != 3:
        pytest.skip(f"needs nodes in three zones, found {zones}")
    namespace.apply("minikube", components=[COMPONENTS / "high-availability"])
    roles = namespace.ended().roles
    node_of = {name: pod["spec"]["nodeName"] for name, pod in namespace.servers().items()}
    placed = {pod: (followed, node_of[pod], zones[node_of[pod]]) for pod, followed in roles.items()}
    for replica, master in roles.items():
        if replica != master:
            assert node_of[replica] != node_of[master], placed
            assert zones[node_of[replica]] != zones[node_of[master]], placed
    masters = Counter(zones[node_of[pod]] for pod, followed in roles.items() if pod == followed)
    assert set(masters.values()) == {1}, placed
