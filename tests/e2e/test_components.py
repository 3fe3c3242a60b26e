"""Components that need a real cluster to show their effect."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from tests.manifests.kustomize import COMPONENTS, Manifest, build
from tests.waiting import wait_until

from .harness import PODS_S, RUN_S, Namespace
from .requirements import needs_disks

NETWORK_POLICY = COMPONENTS / "network-policy"
POLICY_S = 40
SERVERS = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "redis-app"}}, "policyTypes": ["Ingress"]}
WALL = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "wall"},
    "spec": SERVERS,
}
NO_BUS = WALL | {
    "metadata": {"name": "no-bus"},
    "spec": SERVERS | {"ingress": [{"ports": [{"port": 6379, "protocol": "TCP"}]}]},
}
"""Lets the data port through, and blocks the cluster bus."""
SHORT = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "redis-bootstrap-settings"},
    "data": {"BOOTSTRAP_DEADLINE_S": "60"},
}


def test_only_one_pod_at_a_time_may_be_drained(namespace: Namespace) -> None:
    """The budget allows one eviction, and refuses the next one until the first pod is ready again."""
    namespace.apply("minikube", components=[COMPONENTS / "high-availability"])
    assert namespace.ended().condition == "Complete"
    namespace.wait_for_servers()
    budget = wait_until(lambda: allowed(namespace), "the budget allows a disruption", PODS_S)
    assert budget == 1
    namespace.kubectl(*eviction(namespace, "redis-app-0"), stdin=eviction_body("redis-app-0"))
    error = namespace.refused(*eviction(namespace, "redis-app-1"), stdin=eviction_body("redis-app-1"))
    assert "disruption budget" in error


@pytest.mark.skipif(not NETWORK_POLICY.exists(), reason="the component network-policy does not exist")
def test_only_clients_with_the_label_get_in(namespace: Namespace) -> None:
    """Clients with the label and the Job connect to the servers, other pods do not. Only peers reach the bus."""
    namespace.apply("minikube")
    assert namespace.ended().condition == "Complete"
    namespace.wait_for_servers()
    servers = [pod["status"]["podIP"] for pod in namespace.servers().values()]
    assert reached_without_label(namespace, servers) == 6
    namespace.create_all([WALL])
    try:
        wait_until(
            lambda: reached_without_label(namespace, servers) == 0, "a policy that admits none is enforced", POLICY_S
        )
    except AssertionError:
        pytest.skip("this cluster's network does not enforce NetworkPolicies")
    namespace.kubectl("delete", "networkpolicy", "wall")
    namespace.apply("minikube", components=[NETWORK_POLICY])
    wait_until(lambda: namespace.client("reach", "6379", *servers) == "6", "a client gets in", POLICY_S)
    assert namespace.client("reach", "16379", *servers) == "0"
    assert namespace.client("write", "0", "50") == "50"
    assert reached_without_label(namespace, servers) == 0
    run = namespace.run("again")
    assert (run.outcome["outcome"], run.forbidden) == ("unchanged", ())


def test_a_policy_that_blocks_the_bus_is_named(namespace: Namespace) -> None:
    """One reason with the port and what to allow. The same Job forms the cluster once the policy is gone."""
    namespace.create_all([NO_BUS])
    namespace.apply("minikube", patches=[{"patch": json.dumps(SHORT)}])
    namespace.wait_for_servers(ready=False)
    servers = [pod["status"]["podIP"] for pod in namespace.servers().values()]
    try:
        wait_until(lambda: namespace.client("reach", "16379", *servers) == "0", "the policy is enforced", POLICY_S)
    except AssertionError:
        pytest.skip("this cluster's network does not enforce NetworkPolicies")
    assert namespace.client("reach", "6379", *servers) == "6"
    said = wait_until(namespace.first_outcome, "the first try ends", RUN_S)
    assert said["exit_code"] == 1, said
    (reason,) = said["reasons"]
    assert reason["code"] == "bus-blocked", said
    assert "on the cluster bus (port 16379), data ports answer: a NetworkPolicy" in reason["message"]
    assert "allow TCP port 16379" in reason["remedy"]
    namespace.kubectl("delete", "networkpolicy", "no-bus")
    assert namespace.ended().outcome["outcome"] == "formed"


def test_services_follow_the_roles(namespace: Namespace) -> None:
    """One Service leads to the masters, the other to the replicas."""
    needs_disks(namespace, "production")
    namespace.apply("production")
    run = namespace.ended()
    assert run.forbidden == ()
    namespace.wait_for_servers()
    wanted = {"redis-masters": run.masters, "redis-replicas": run.roles.keys() - run.masters}
    wait_until(lambda: {name: behind(namespace, name) for name in wanted} == wanted, f"Services have {wanted}", PODS_S)


def test_a_volume_on_nfs_binds_to_the_claim_of_its_pod(namespace: Namespace) -> None:
    """Claims like those of the StatefulSet each bind to their own volume. No share is mounted."""
    built = build(COMPONENTS / "nfs")
    (template,) = built.one("StatefulSet", "redis-app")["spec"]["volumeClaimTemplates"]
    volumes = [volume_of(namespace, volume) for volume in built.of_kind("PersistentVolume")]
    # The claim of the last pod is first: if volumes were not reserved, it would bind to the first volume.
    names = sorted((volume["spec"]["claimRef"]["name"] for volume in volumes), reverse=True)
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **template}
    try:
        namespace.create_all(volumes)
        namespace.create_all({**claim, "metadata": {"name": name}} for name in names)
        wait_until(
            lambda: {each["status"]["phase"] for each in claims(namespace)} == {"Bound"}, "all are bound", PODS_S
        )
        assert {each["metadata"]["name"]: each["spec"]["volumeName"] for each in claims(namespace)} == {
            volume["spec"]["claimRef"]["name"]: volume["metadata"]["name"] for volume in volumes
        }
    finally:
        namespace.kubectl("delete", "pvc", "--all")
        namespace.kubectl("delete", "pv", *(volume["metadata"]["name"] for volume in volumes))


def reached_without_label(namespace: Namespace, servers: list[str]) -> int:
    """The number of servers that a pod without the label reaches."""
    return int(namespace.client("reach", "6379", *servers, name="stranger", labels={}))


def volume_of(namespace: Namespace, volume: Manifest) -> Manifest:
    """That volume for a claim in this namespace, with a name that is unique in the cluster."""
    own = deepcopy(volume)
    own["metadata"]["name"] = f"{namespace.name}-{volume['metadata']['name']}"
    own["spec"]["claimRef"]["namespace"] = namespace.name
    return own


def claims(namespace: Namespace) -> list[Manifest]:
    """The claims of the namespace."""
    items: list[Manifest] = namespace.get("pvc")["items"]
    return items


def allowed(namespace: Namespace) -> int:
    """The number of evictions that the budget allows now."""
    status = namespace.get("pdb", "redis-app").get("status", {})
    return int(status.get("disruptionsAllowed", 0))


def eviction(namespace: Namespace, pod: str) -> tuple[str, ...]:
    """The request of `kubectl drain` for each pod."""
    return ("create", "--raw", f"/api/v1/namespaces/{namespace.name}/pods/{pod}/eviction", "-f", "-")


def eviction_body(pod: str) -> str:
    """The body of that request."""
    return json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}})


def behind(namespace: Namespace, service: str) -> set[str]:
    """The ready pods behind a Service."""
    slices = namespace.get("endpointslices", "-l", f"kubernetes.io/service-name={service}")["items"]
    return {
        endpoint["targetRef"]["name"]
        for each in slices
        for endpoint in each.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
    }
