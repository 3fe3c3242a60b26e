"""What holds for every kustomization of the repository: the root, the base, each overlay, each component."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

from bootstrap import __version__

from .kustomize import BASE, OVERLAYS, ROOT, Build, Manifest, build, build_text, combine, menu, name_of
from .pod_security import violations
from .schema import OLDEST, validate

NAMES_A_NAMESPACE = {"PersistentVolume", "ClusterRoleBinding"}
"""Cluster-wide kinds that refer to a namespace. An overlay that uses one has to set the namespace."""
RECOMMENDED = {
    "app.kubernetes.io/part-of": "redis-cluster",
    "app.kubernetes.io/instance": "redis",
    "app.kubernetes.io/managed-by": "kustomize",
    "app.kubernetes.io/version": __version__,
}
SET_LATER = {"redis-role", "statefulset.kubernetes.io/pod-name"}
"""Labels that the Job or Kubernetes sets on pods, and that their template does not have."""


def test_kubectl_builds_it_without_a_warning(built: Build) -> None:
    """A deprecated field builds with a warning now, and not at all in a later version."""
    assert built.manifests
    assert built.warnings == ""


def test_current_kubernetes_knows_every_field(built: Build) -> None:
    """Strict validation: a misspelt or removed field is an error. Kubernetes would ignore it."""
    validate(built)


@pytest.mark.parametrize("overlay", ["minikube", "nfs", "production"])
def test_the_oldest_supported_kubernetes_knows_every_field(overlay: str) -> None:
    """The same validation with the schemas of every version from there on. The document names that version."""
    built = build(OVERLAYS / overlay)
    minor = int(OLDEST.split(".")[1])
    for version in range(minor, int(kubernetes_validate.latest_version().split(".")[1])):
        validate(built, f"1.{version}")
    assert f"| oldest Kubernetes | {OLDEST}:" in (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")


def test_no_object_sets_a_namespace(built: Build) -> None:
    """`kubectl -n` decides. A namespace in the output would override it."""
    namespaces = {manifest["metadata"].get("namespace") for manifest in built.manifests}
    if NAMES_A_NAMESPACE.isdisjoint(manifest["kind"] for manifest in built.manifests):
        assert namespaces == {None}
    else:
        # At most one for all objects: `kubectl -n` with another namespace then fails before it changes anything.
        assert len(namespaces - {None}) <= 1


def test_every_object_has_the_recommended_labels(built: Build) -> None:
    """`kubectl get -l app.kubernetes.io/part-of=redis-cluster` finds all objects, also the generated ones."""
    for manifest in built.manifests:
        assert RECOMMENDED.items() <= manifest["metadata"]["labels"].items(), name_of(manifest)


def test_the_selector_of_the_servers_never_changes(built: Build) -> None:
    """Selectors of a StatefulSet are immutable: an additional label would break every later `kubectl apply`."""
    stateful_set = built.one("StatefulSet", "redis-app")
    assert stateful_set["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/name": "redis-app"}}


def test_every_service_selects_the_servers_and_only_them(built: Build) -> None:
    """The Job's pod has no label that a Service selects. Otherwise it would appear among the peers."""
    services = built.of_kind("Service")
    assert {"redis-service", "gold-redis"} <= {name_of(service) for service in services}
    for service in services:
        wanted = service["spec"]["selector"]
        selector = {label: wanted[label] for label in wanted.keys() - SET_LATER}.items()
        for owner, template in built.templates():
            selected = selector <= template["metadata"]["labels"].items()
            assert selected == (owner == "StatefulSet redis-app"), f"{name_of(service)} and {owner}"


def test_every_service_port_is_a_port_of_the_servers(built: Build) -> None:
    """Kubernetes does not report a named target port that no container has."""
    offered = {
        port["name"]: port["containerPort"]
        for container in built.one("StatefulSet", "redis-app")["spec"]["template"]["spec"]["containers"]
        for port in container["ports"]
    }
    for service in built.of_kind("Service"):
        for port in service["spec"]["ports"]:
            # A headless Service does not map ports, so the numbers must be equal as well.
            assert offered[port["targetPort"]] == port["port"], name_of(service)


def test_the_shape_is_the_number_of_servers(built: Build) -> None:
    """The Job waits for exactly shards × (1 + replicas) peers. With one too few it would wait until its deadline."""
    settings = built.one("ConfigMap", "redis-bootstrap-settings")["data"]
    wanted = int(settings["BOOTSTRAP_SHARDS"]) * (1 + int(settings["BOOTSTRAP_REPLICAS_PER_SHARD"]))
    assert built.one("StatefulSet", "redis-app")["spec"]["replicas"] == wanted


def test_the_declared_node_timeout_is_the_servers_own(built: Build) -> None:
    """Otherwise every run of the Job would repair drift, and every restart would bring the drift back."""
    declared = built.one("ConfigMap", "redis-bootstrap-settings")["data"]["BOOTSTRAP_NODE_TIMEOUT_MS"]
    lines = built.one("ConfigMap", "redis-config")["data"]["redis.conf"].splitlines()
    assert [line.split()[1] for line in lines if line.startswith("cluster-node-timeout ")] == [declared]


def test_settings_name_existing_objects(built: Build) -> None:
    """Nothing else notices when a name in the settings is out of date."""
    settings = built.one("ConfigMap", "redis-bootstrap-settings")["data"]
    peers = built.one("Service", settings["BOOTSTRAP_SERVICE"])
    stateful_set = built.one("StatefulSet", settings["BOOTSTRAP_STATEFULSET"])
    assert stateful_set["spec"]["serviceName"] == name_of(peers)
    assert settings["BOOTSTRAP_PORT_NAME"] in {port["name"] for port in peers["spec"]["ports"]}
    assert built.one("Service", settings["BOOTSTRAP_ACCESS_SERVICE"])["spec"].get("clusterIP") != "None"


def test_pods_refer_only_to_existing_objects(built: Build) -> None:
    """Each ConfigMap and ServiceAccount that a pod refers to is in the build, and each mount has its volume."""
    config_maps = {name_of(manifest) for manifest in built.of_kind("ConfigMap")}
    accounts = {name_of(manifest) for manifest in built.of_kind("ServiceAccount")} | {"default"}
    claims = {name_of(each) for each in built.one("StatefulSet", "redis-app")["spec"].get("volumeClaimTemplates", [])}
    for owner, template in built.templates():
        pod = template["spec"]
        assert pod.get("serviceAccountName", "default") in accounts, owner
        assert set(config_maps_named_by(pod)) <= config_maps, owner
        mounts = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        assert mounts == volumes | (claims if owner.startswith("StatefulSet") else set()), owner


def test_roles_are_bound_to_existing_accounts(built: Build) -> None:
    """Kubernetes accepts a binding to a name that does not exist, and such a binding grants nothing."""
    accounts = {name_of(manifest) for manifest in built.of_kind("ServiceAccount")}
    for suffix in ("", "Cluster"):
        roles = {name_of(manifest) for manifest in built.of_kind(f"{suffix}Role")}
        for binding in built.of_kind(f"{suffix}RoleBinding"):
            assert binding["roleRef"]["name"] in roles
            assert {subject["name"] for subject in binding["subjects"]} <= accounts


def test_every_pod_may_run_in_a_restricted_namespace(built: Build) -> None:
    """Every pod satisfies the restricted Pod Security Standard, without exceptions."""
    assert {owner: violations(template["spec"]) for owner, template in built.templates()} == {
        owner: () for owner, _ in built.templates()
    }


def test_every_container_is_tighter_than_the_standard(built: Build) -> None:
    """A numeric user (the kubelet cannot check a name), a read-only root file system, and resource requests."""
    for owner, template in built.templates():
        for container in template["spec"]["containers"]:
            merged = {**template["spec"]["securityContext"], **container["securityContext"]}
            assert merged["runAsUser"] > 0, owner
            assert merged["runAsGroup"] > 0, owner
            assert merged["readOnlyRootFilesystem"] is True, owner
            # Without a request Kubernetes takes the limit.
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys() | resources.get("limits", {}).keys(), owner


def test_only_the_job_gets_a_token(built: Build) -> None:
    """A server does not use the Kubernetes API, so its pod has no token that could be stolen."""
    tokens = {owner: template["spec"]["automountServiceAccountToken"] for owner, template in built.templates()}
    assert tokens == {owner: "StatefulSet" not in owner for owner in tokens}


def test_no_role_is_wider_than_a_list_of_names(built: Build) -> None:
    """No wildcard, and no right to gain further rights."""
    for role in (*built.of_kind("Role"), *built.of_kind("ClusterRole")):
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            assert {"escalate", "bind", "impersonate"}.isdisjoint(rule["verbs"])


def test_a_namespace_reaches_every_reference() -> None:
    """An overlay's `namespace:` reaches subjects and claims. Without it, subjects are in the binding's namespace."""
    named = combine(*menu(), namespace="elsewhere")
    everywhere = [manifest for manifest in named.manifests if "namespace" not in manifest["metadata"]]
    assert {manifest["kind"] for manifest in everywhere} == {"ClusterRole", "ClusterRoleBinding", "PersistentVolume"}
    assert {manifest["metadata"].get("namespace", "elsewhere") for manifest in named.manifests} == {"elsewhere"}
    for binding in (*named.of_kind("RoleBinding"), *named.of_kind("ClusterRoleBinding")):
        assert [subject["namespace"] for subject in binding["subjects"]] == ["elsewhere"]
    assert {volume["spec"]["claimRef"]["namespace"] for volume in named.of_kind("PersistentVolume")} == {"elsewhere"}


def test_a_name_prefix_reaches_every_reference() -> None:
    """The names in the settings too, so the cluster works with the prefix or suffix of an overlay."""
    plain, renamed = build(ROOT), build_text(resources=[ROOT], namePrefix="blue-", nameSuffix="-1")
    before = plain.one("ConfigMap", "redis-bootstrap-settings")["data"]
    after = renamed.one("ConfigMap", "blue-redis-bootstrap-settings-1")["data"]
    names = {"BOOTSTRAP_SERVICE", "BOOTSTRAP_STATEFULSET", "BOOTSTRAP_ACCESS_SERVICE", "BOOTSTRAP_LEASE"}
    assert after == before | {name: f"blue-{before[name]}-1" for name in names}
    (peers,) = [each for each in renamed.of_kind("Service") if each["spec"].get("clusterIP") == "None"]
    (stateful_set,) = renamed.of_kind("StatefulSet")
    assert after["BOOTSTRAP_SERVICE"] == name_of(peers) == stateful_set["spec"]["serviceName"]
    (container,) = stateful_set["spec"]["template"]["spec"]["containers"]
    assert {"name": "REDIS_SERVICE", "value": name_of(peers)} in container["env"]
    assert after["BOOTSTRAP_STATEFULSET"] == name_of(stateful_set)
    (role,) = renamed.of_kind("Role")
    assert [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule] == [[after["BOOTSTRAP_LEASE"]]]
    (sources,) = {
        tuple(config_maps_named_by(template["spec"])) for owner, template in renamed.templates() if "Job" in owner
    }
    assert sources == ("blue-redis-bootstrap-settings-1",)


def test_the_root_is_the_base() -> None:
    """The repository as a remote base is the base, without the image and the storage of an overlay."""
    assert build(ROOT) == build(BASE)


def config_maps_named_by(pod: Manifest) -> Iterator[str]:
    """Names of the ConfigMaps that a pod spec refers to, in volumes and in variables."""
    for volume in pod.get("volumes", []):
        sources: list[dict[str, Any]] = [volume, *volume.get("projected", {}).get("sources", [])]
        yield from (source["configMap"]["name"] for source in sources if "configMap" in source)
    for container in pod["containers"]:
        yield from (each["configMapRef"]["name"] for each in container.get("envFrom", []) if "configMapRef" in each)
        for variable in container.get("env", []):
            if "configMapKeyRef" in variable.get("valueFrom", {}):
                yield variable["valueFrom"]["configMapKeyRef"]["name"]
