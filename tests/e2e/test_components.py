"""Components that only a real cluster can show at work."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from tests.manifests.kustomize import COMPONENTS, Manifest, build

from .harness import PODS_S, Namespace, until
from .requirements import needs_disks

NETWORK_POLICY = COMPONENTS / "network-policy"
POLICY_S = 40
WALL = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "wall"},
    "spec": {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "redis-app"}}, "policyTypes": ["Ingress"]},
}


def test_only_one_pod_at_a_time_may_be_drained(namespace: Namespace) -> None:
    """The budget lets the first go, and no second one before that is back."""
    namespace.apply("minikube", components=[COMPONENTS / "high-availability"])
    assert namespace.ended().condition == "Complete"
    namespace.wait_for_servers()
    budget = until(lambda: allowed(namespace), "the budget allows a disruption", PODS_S)
    assert budget == 1
    namespace.kubectl(*eviction(namespace, "redis-app-0"), stdin=words_of_eviction("redis-app-0"))
    said = namespace.refused(*eviction(namespace, "redis-app-1"), stdin=words_of_eviction("redis-app-1"))
    assert "disruption budget" in said


@pytest.mark.skipif(not NETWORK_POLICY.exists(), reason="there is no such component yet")
def test_only_clients_with_the_label_get_in(namespace: Namespace) -> None:
    """The Job and they do; and to the bus nobody but peers, since whoever reaches it is taken for one."""
    namespace.apply("minikube")
    assert namespace.ended().condition == "Complete"
    namespace.wait_for_servers()
    servers = [pod["status"]["podIP"] for pod in namespace.servers().values()]
    assert stranger(namespace, servers) == 6
    namespace.create_all([WALL])
    try:
        until(lambda: stranger(namespace, servers) == 0, "a policy that lets nobody in is enforced", POLICY_S)
    except AssertionError:
        pytest.skip("this cluster's network does not enforce NetworkPolicies")
    namespace.kubectl("delete", "networkpolicy", "wall")
    namespace.apply("minikube", components=[NETWORK_POLICY])
    until(lambda: namespace.client("reach", "6379", *servers) == "6", "a client gets in", POLICY_S)
    assert namespace.client("reach", "16379", *servers) == "0"
    assert namespace.client("write", "0", "50") == "50"
    assert stranger(namespace, servers) == 0
    run = namespace.run("again")
    assert (run.outcome["outcome"], run.forbidden) == ("unchanged", ())


def test_services_follow_the_roles(namespace: Namespace) -> None:
    """The masters behind one, the replicas behind the other, and everybody behind gold-redis."""
    needs_disks(namespace, "production")
    namespace.apply("production")
    run = namespace.ended()
    assert run.forbidden == ()
    namespace.wait_for_servers()
    wanted = {"redis-masters": run.masters, "redis-replicas": run.roles.keys() - run.masters}
    until(lambda: {name: behind(namespace, name) for name in wanted} == wanted, f"Services have {wanted}", PODS_S)


def test_a_volume_on_nfs_binds_to_the_claim_of_its_pod(namespace: Namespace) -> None:
    """No share is mounted: claims are made as the StatefulSet would make them, and each finds its own volume."""
    built = build(COMPONENTS / "nfs")
    (template,) = built.one("StatefulSet", "redis-app")["spec"]["volumeClaimTemplates"]
    volumes = [volume_of(namespace, volume) for volume in built.of_kind("PersistentVolume")]
    # The last pod's first: without a volume kept for each, it would take the first one.
    names = sorted((volume["spec"]["claimRef"]["name"] for volume in volumes), reverse=True)
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **template}
    try:
        namespace.create_all(volumes)
        namespace.create_all({**claim, "metadata": {"name": name}} for name in names)
        until(lambda: {each["status"]["phase"] for each in claims(namespace)} == {"Bound"}, "all are bound", PODS_S)
        assert {each["metadata"]["name"]: each["spec"]["volumeName"] for each in claims(namespace)} == {
            volume["spec"]["claimRef"]["name"]: volume["metadata"]["name"] for volume in volumes
        }
    finally:
        namespace.kubectl("delete", "pvc", "--all")
        namespace.kubectl("delete", "pv", *(volume["metadata"]["name"] for volume in volumes))


def stranger(namespace: Namespace, servers: list[str]) -> int:
    """How many servers a pod reaches that nobody was told about."""
    return int(namespace.client("reach", "6379", *servers, name="stranger", labels={}))


def volume_of(namespace: Namespace, volume: Manifest) -> Manifest:
    """That volume for claims of this namespace, and of a name that nobody else's volume has."""
    own = deepcopy(volume)
    own["metadata"]["name"] = f"{namespace.name}-{volume['metadata']['name']}"
    own["spec"]["claimRef"]["namespace"] = namespace.name
    return own


def claims(namespace: Namespace) -> list[Manifest]:
    """The namespace's claims."""
    items: list[Manifest] = namespace.get("pvc")["items"]
    return items


def allowed(namespace: Namespace) -> int:
    """How many pods may go now."""
    status = namespace.get("pdb", "redis-app").get("status", {})
    return int(status.get("disruptionsAllowed", 0))


def eviction(namespace: Namespace, pod: str) -> tuple[str, ...]:
    """What `kubectl drain` asks of the API for each pod."""
    return ("create", "--raw", f"/api/v1/namespaces/{namespace.name}/pods/{pod}/eviction", "-f", "-")


def words_of_eviction(pod: str) -> str:
    """The body of it."""
    return json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}})


def behind(namespace: Namespace, service: str) -> set[str]:
    """The pods that a Service leads to."""
    slices = namespace.get("endpointslices", "-l", f"kubernetes.io/service-name={service}")["items"]
    return {
        endpoint["targetRef"]["name"]
        for each in slices
        for endpoint in each.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
    }
