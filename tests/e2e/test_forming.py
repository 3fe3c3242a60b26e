"""From `kubectl apply -k` to a cluster that serves, wherever that can be run; and applied again at any time."""

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
    """Under restricted Pod Security; a client in a pod comes in by gold-redis; the second run writes nothing."""
    needs_disks(namespace, overlay)
    namespace.apply(overlay)
    first = namespace.ended()
    assert (first.condition, first.outcome["outcome"], first.outcome["slots_covered"]) == ("Complete", "formed", 16384)
    # Where `kubectl describe` looks, the same is said.
    assert json.loads(first.last_words[-1]).items() <= first.outcome.items()
    namespace.wait_for_servers()
    assert namespace.client("write", "0", str(KEYS)) == str(KEYS)
    assert namespace.client("read", "0", str(KEYS)) == str(KEYS)
    second = namespace.run("again")
    assert (second.condition, second.outcome["outcome"], second.outcome["steps"]) == ("Complete", "unchanged", 0)
    assert first.forbidden + second.forbidden == ()


def test_applying_again_never_fails(namespace: Namespace) -> None:
    """While the Job runs, when it has ended, when it is gone; with other settings, and with another redis.conf."""
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
    # The servers are rolled by it, the Job is not touched.
    said = namespace.apply("minikube", configMapGenerator=conf).splitlines()
    assert "statefulset.apps/redis-app configured" in said
    assert "job.batch/redis-bootstrap unchanged" in said


def test_roles_are_spread_over_nodes_and_zones(namespace: Namespace) -> None:
    """No replica on its master's node or in its zone, and of three masters one in each of three zones."""
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
