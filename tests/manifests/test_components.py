"""Each component: that it does what its name says and goes with every other; and the overlays made of them."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .kustomize import (
    BASE,
    COMPONENTS,
    NEEDS,
    OVERLAYS,
    ROOT,
    Build,
    Manifest,
    build,
    build_error,
    build_text,
    combine,
    components,
    kustomization,
    menu,
    name_of,
)

README = (ROOT / "README.md").read_text(encoding="utf-8")
SERVERS = {"app.kubernetes.io/name": "redis-app"}


def component(name: str) -> Build:
    """The component of that name on top of the base."""
    return build(COMPONENTS / name)


def servers(built: Build) -> Manifest:
    """The spec of the StatefulSet in it."""
    spec: Manifest = built.one("StatefulSet", "redis-app")["spec"]
    return spec


def by_name(built: Build) -> dict[tuple[str, str], Manifest]:
    """Its objects, in whatever order they came."""
    return {(manifest["kind"], name_of(manifest)): manifest for manifest in built.manifests}


def unordered(built: Build) -> Any:
    """The same value for two builds that differ only in the order of list items.

    The arguments of a container are compared as options, each with its values.
    """

    def sort_all(part: Any, key: str = "") -> Any:
        match part:
            case dict():
                return {key: sort_all(value, key) for key, value in part.items()}
            case list():
                items = options(part) if key == "args" else [sort_all(each) for each in part]
                return sorted(items, key=json.dumps)
            case _:
                return part

    return sort_all(json.loads(json.dumps([*by_name(built).values()], sort_keys=True)))


def options(arguments: list[str]) -> list[list[str]]:
    """The arguments in groups: each option with the values that follow it."""
    groups: list[list[str]] = [[]]
    for argument in arguments:
        if argument.startswith("--"):
            groups.append([])
        groups[-1].append(argument)
    return groups


def quantity(text: str) -> int:
    """Bytes of a size such as `10Gi`."""
    number, unit = re.fullmatch(r"([0-9]+)([KMGT]i)", text).groups()  # type: ignore[union-attr]
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[unit]


def with_needs(directory: Path) -> tuple[Path, ...]:
    """The component, after those that it needs before it."""
    return (*(COMPONENTS / each for each in NEEDS.get(directory.name, ())), directory)


@pytest.mark.parametrize("first", components(), ids=lambda directory: directory.name)
def test_two_components_compose_in_either_order(first: Path) -> None:
    """Every pair is built in both orders, but for the two pairs of which one order fails the build."""
    for second in components():
        one, other = with_needs(first), with_needs(second)
        if first < second and first not in other and {first.name, second.name} != {"nfs", "persistence"}:
            assert unordered(combine(*one, *other)) == unordered(combine(*other, *one)), second.name


@pytest.mark.parametrize("seed", range(6))
def test_all_components_compose_in_any_order(seed: int) -> None:
    """The arguments of the server too: redis.conf is the first, and the plain port comes after tls.conf."""
    order = list(menu())
    random.Random(seed).shuffle(order)
    tls, plain_port = sorted(order.index(COMPONENTS / name) for name in ("tls", "tls-plain-port"))
    order[tls], order[plain_port] = COMPONENTS / "tls", COMPONENTS / "tls-plain-port"
    built = combine(*order)
    assert unordered(built) == unordered(combine(*menu()))
    arguments = servers(built)["template"]["spec"]["containers"][0]["args"]
    assert arguments[0] == "/etc/redis/redis.conf"
    assert arguments.index("--port") > arguments.index("/etc/redis/tls.conf")


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["nfs", "persistence"], "the component persistence is listed after nfs, which includes it"),
        (["tls-plain-port", "tls"], "components/tls-plain-port': fieldPath `spec.template.spec.volumes.[name=tls]"),
        (["tls-plain-port"], "components/tls-plain-port': fieldPath `spec.template.spec.volumes.[name=tls]"),
    ],
    ids=["persistence after nfs", "plain port before tls", "plain port without tls"],
)
def test_an_order_that_would_not_work_fails_the_build(order: list[str], message: str) -> None:
    """The message names the component that is listed too early or too late."""
    assert message in build_error(*(COMPONENTS / name for name in order))


@pytest.mark.parametrize("opener", ["metrics", "tls-plain-port"])
def test_a_port_is_opened_wherever_its_component_is_listed(opener: str) -> None:
    """Before and after network-policy; without network-policy there is no policy at all."""
    opened, policy = with_needs(COMPONENTS / opener), COMPONENTS / "network-policy"
    assert combine(*opened).of_kind("NetworkPolicy") == ()
    before, after = (
        combine(*order).one("NetworkPolicy", "redis-app") for order in ((*opened, policy), (policy, *opened))
    )
    assert before == after
    assert {"metrics": "metrics", "tls-plain-port": "redis-plain"}[opener] in json.dumps(after["spec"]["ingress"])


def test_nfs_includes_persistence() -> None:
    """To list both changes nothing, as long as nfs is the last."""
    nfs, persistence = COMPONENTS / "nfs", COMPONENTS / "persistence"
    assert kustomization(nfs)["components"] == ["../persistence", "volumes"]
    assert by_name(combine(persistence, nfs)) == by_name(combine(nfs))


def test_every_component_has_its_row_in_the_readme() -> None:
    """Under `## Components`, one row each and none for what is not there."""
    (section,) = re.findall(r"^## Components$(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(each.name for each in components())


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
def test_every_overlay_that_the_readme_shows_builds(text: str) -> None:
    """With this working copy in the place of the repository that it names."""
    shown = yaml.safe_load(text)
    for key in ("resources", "components", "transformers"):
        places = [re.fullmatch(r"github\.com/OWNER/REPO(?://([^?]+))?\?ref=TAG", each) for each in shown.get(key, [])]
        shown[key] = [ROOT / (place[1] or "") for place in places if place]
    built = build_text(**shown)
    settings = built.one("ConfigMap", "redis-bootstrap-settings")["data"]
    wanted = int(settings["BOOTSTRAP_SHARDS"]) * (1 + int(settings["BOOTSTRAP_REPLICAS_PER_SHARD"]))
    assert servers(built)["replicas"] == wanted


def test_persistence_puts_a_disk_where_the_empty_directory_was() -> None:
    """Of the same name, so the mount stays as it is; and nothing but a person ever takes the disk away."""
    before, after = servers(build(BASE)), servers(component("persistence"))
    (claim,) = after["volumeClaimTemplates"]
    (mount,) = [each for each in after["template"]["spec"]["containers"][0]["volumeMounts"] if each["name"] == "data"]
    assert {"name": "data", "emptyDir": {}} in before["template"]["spec"]["volumes"]
    assert "data" not in [volume["name"] for volume in after["template"]["spec"]["volumes"]]
    assert (claim["metadata"]["name"], mount["mountPath"]) == ("data", "/data")
    assert set(after["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    # The whole reason for a disk: what was written is there after a restart.
    assert "appendonly yes" in component("persistence").one("ConfigMap", "redis-config")["data"]["redis.conf"]


@pytest.mark.parametrize("name", ["persistence", "nfs"])
def test_size_and_class_of_the_disks_are_one_patch(name: str) -> None:
    """The patch that the component shows in its first lines."""
    text = (COMPONENTS / "persistence" / "kustomization.yaml").read_text(encoding="utf-8")
    shown = yaml.safe_load("\n".join(line.removeprefix("#") for line in text.splitlines() if re.match(r"#   ", line)))
    (claim,) = servers(combine_and(COMPONENTS / name, shown["patches"]))["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "50Gi"
    assert claim["spec"]["storageClassName"] == "fast"


def combine_and(directory: Path, patches: list[Manifest]) -> Build:
    """A component, patched by somebody's overlay."""
    told = kustomization(OVERLAYS / "nfs")["configMapGenerator"]
    return build_text(resources=[BASE], components=[directory], configMapGenerator=told, patches=patches)


def test_nfs_keeps_one_directory_for_each_pod() -> None:
    """Each volume is kept for the claim of one pod, and none of them could bind to anything else."""
    built = build(OVERLAYS / "nfs")
    spec = servers(built)
    (claim,) = spec["volumeClaimTemplates"]
    told = kustomization(OVERLAYS / "nfs")
    share = dict(literal.split("=", 1) for literal in told["configMapGenerator"][0]["literals"])
    volumes = {volume["spec"]["claimRef"]["name"]: volume["spec"] for volume in built.of_kind("PersistentVolume")}
    assert volumes.keys() == {f"data-redis-app-{ordinal}" for ordinal in range(spec["replicas"])}
    for name, volume in volumes.items():
        assert volume["claimRef"]["namespace"] == told["namespace"]
        assert volume["nfs"] == {"server": share["server"], "path": f"{share['path']}/{name.removeprefix('data-')}"}
        assert volume["persistentVolumeReclaimPolicy"] == "Retain"
        assert volume.get("storageClassName", "") == claim["spec"]["storageClassName"] == ""
        assert set(claim["spec"]["accessModes"]) <= set(volume["accessModes"])
        assert quantity(volume["capacity"]["storage"]) >= quantity(claim["spec"]["resources"]["requests"]["storage"])
    # What told the share stays behind.
    assert [name_of(each) for each in built.of_kind("ConfigMap") if "nfs" in name_of(each)] == []


def test_a_lock_on_nfs_ends_with_its_lease() -> None:
    """NFSv4 is asked for by name, and nothing that makes locks local to a machine."""
    for volume in component("nfs").of_kind("PersistentVolume"):
        options = volume["spec"]["mountOptions"]
        assert "nfsvers=4.1" in options
        assert not [option for option in options if "lock" in option]


def test_a_volume_for_one_more_pod_needs_no_more_than_its_number() -> None:
    """The share is told once for all of them, those of an overlay too."""
    volume = next(iter(component("nfs").of_kind("PersistentVolume")))
    more = {
        **volume,
        "metadata": {**volume["metadata"], "name": "redis-app-6"},
        "spec": {
            **volume["spec"],
            "claimRef": {"name": "data-redis-app-6"},
            "nfs": {"server": "SERVER", "path": "ROOT/redis-app-6"},
        },
    }
    told = kustomization(OVERLAYS / "nfs")["configMapGenerator"]
    built = build_text(resources=[BASE], files=[more], components=[COMPONENTS / "nfs"], configMapGenerator=told)
    nfs = built.one("PersistentVolume", "redis-app-6")["spec"]["nfs"]
    assert nfs == {"server": "nfs.example.org", "path": "/exports/redis/redis-app-6"}


def test_at_most_one_server_goes_by_intention() -> None:
    """The budget covers the servers, all of them and nobody else."""
    built = component("high-availability")
    budget = built.one("PodDisruptionBudget", "redis-app")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == {"matchLabels": SERVERS} == servers(built)["selector"]


def test_servers_spread_where_they_can_and_wait_for_no_place() -> None:
    """Over zones and machines, as a wish: a pod whose disk is here cannot go there."""
    constraints = servers(component("high-availability"))["template"]["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in constraints} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert {each["whenUnsatisfiable"] for each in constraints} == {"ScheduleAnyway"}
    assert all(each["labelSelector"] == {"matchLabels": SERVERS} for each in constraints)


def test_the_exporter_stands_beside_the_server_and_not_in_its_place() -> None:
    """`kubectl exec` still means the server, and no probe of the exporter decides about it."""
    template = servers(component("metrics"))["template"]
    redis, exporter = template["spec"]["containers"]
    assert (redis["name"], exporter["name"]) == ("redis", "metrics")
    assert template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "redis"
    assert [key for key in exporter if key.endswith("Probe")] == []
    assert re.search(r":v[0-9]+\.[0-9]+\.[0-9]+$", exporter["image"])


def test_whoever_scrapes_is_sent_to_the_exporters_port() -> None:
    """By annotation, by Service, by PodMonitor: one port."""
    built = combine(COMPONENTS / "metrics", COMPONENTS / "metrics-podmonitor")
    (port,) = servers(built)["template"]["spec"]["containers"][1]["ports"]
    annotations = servers(built)["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert [each["targetPort"] for each in built.one("Service", "redis-metrics")["spec"]["ports"]] == [port["name"]]
    monitor = built.one("PodMonitor", "redis-app")["spec"]
    assert [each["port"] for each in monitor["podMetricsEndpoints"]] == [port["name"]]
    assert monitor["selector"] == {"matchLabels": SERVERS}


def test_zone_aware_asks_for_nodes_by_name_and_nothing_else() -> None:
    """The one right that is cluster-wide is as narrow as a right can be."""
    built = component("zone-aware")
    assert built.one("ConfigMap", "redis-bootstrap-settings")["data"]["BOOTSTRAP_READ_NODES"] == "on"
    (role,) = built.of_kind("ClusterRole")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    # Not guessed: without `namespace:` Kubernetes refuses the binding, aloud, and no other account gets the right.
    (binding,) = built.of_kind("ClusterRoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "redis-bootstrap"}]


def test_role_labels_bring_their_right_and_two_services() -> None:
    """What the base may, and to patch pods; the Services differ from the clients' way in by one label."""
    built = component("role-labels")
    assert built.one("ConfigMap", "redis-bootstrap-settings")["data"]["BOOTSTRAP_ROLE_LABELS"] == "on"
    before, after = (each.one("Role", "redis-bootstrap")["rules"] for each in (build(BASE), built))
    assert after == [*before, {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}]
    everyone = built.one("Service", "gold-redis")["spec"]
    for role in ("master", "replica"):
        service = built.one("Service", f"redis-{role}s")["spec"]
        assert service == {**everyone, "selector": {**everyone["selector"], "redis-role": role}}


def test_argo_cd_makes_the_job_anew_and_leaves_the_rest_alone() -> None:
    """A hook of the phase that does not wait for readiness; the runs of the CronJob are no hooks."""
    built = component("argocd")
    job = built.one("Job", "redis-bootstrap")
    assert job["metadata"].pop("annotations") == {
        "argocd.argoproj.io/hook": "Sync",
        "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
    }
    assert by_name(built) == by_name(build(BASE))


def test_an_overlay_is_a_menu() -> None:
    """Nothing in it but names: what an overlay does, its components do."""
    menus = {directory.name: kustomization(directory) for directory in sorted(OVERLAYS.iterdir())}
    allowed = {"apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "images"}
    assert [name for name, menu in menus.items() if menu.keys() - allowed] == []
    assert all(menu["resources"] == ["../../base"] for menu in menus.values())
    taken = {Path(each).name for each in menus["production"]["components"]}
    assert {"persistence", "high-availability", "self-heal", "role-labels"} <= taken
