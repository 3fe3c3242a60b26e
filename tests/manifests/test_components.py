"""Each component: that it does what its name says and goes with every other; and the overlays made of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .kustomize import (
    BASE,
    COMPONENTS,
    LAST,
    OVERLAYS,
    ROOT,
    Build,
    Manifest,
    build,
    build_text,
    combine,
    components,
    kustomization,
    menu,
    name_of,
)

COMPONENTS_PAGE = (ROOT / "docs" / "components.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OVERLAYS_SHOWN = [
    pytest.param(text, id=f"{page.stem} {number}")
    for page in PAGES
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL), 1)
]
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


def set_of(built: Build) -> Any:
    """The same for two builds that differ only in the order of what is in them, arguments and rules included."""

    def sorted_through(part: Any) -> Any:
        match part:
            case dict():
                return {key: sorted_through(value) for key, value in part.items()}
            case list():
                return sorted(map(sorted_through, part), key=json.dumps)
            case _:
                return part

    return sorted_through(json.loads(json.dumps([*by_name(built).values()], sort_keys=True)))


def quantity(text: str) -> int:
    """Bytes of a size such as `10Gi`."""
    number, unit = re.fullmatch(r"([0-9]+)([KMGT]i)", text).groups()  # type: ignore[union-attr]
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[unit]


@pytest.mark.parametrize(
    "moved", [each for each in menu() if each.name not in LAST], ids=lambda directory: directory.name
)
def test_it_goes_with_every_other_wherever_it_is_listed(moved: Path) -> None:
    """A menu is a set: what one component brings, no other that comes later takes away."""
    others = [directory for directory in menu() if directory != moved]
    last = [directory for directory in others if directory.name in LAST]
    first = others[: len(others) - len(last)]
    assert set_of(combine(moved, *others)) == set_of(combine(*first, moved, *last))


def test_nfs_includes_persistence() -> None:
    """Whoever lists both loses nothing, as long as nfs comes last."""
    nfs, persistence = COMPONENTS / "nfs", COMPONENTS / "persistence"
    assert kustomization(nfs)["components"] == ["../persistence"]
    assert by_name(combine(persistence, nfs)) == by_name(combine(nfs))


def test_every_component_has_its_row_in_the_documents() -> None:
    """In docs/components.md, one row each and none for what is not there."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", COMPONENTS_PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(each.name for each in components())


@pytest.mark.parametrize("text", OVERLAYS_SHOWN)
def test_every_overlay_that_the_documents_show_builds(text: str) -> None:
    """With this working copy in the place of the repository that it names."""
    shown = yaml.safe_load(text)
    for key in ("resources", "components"):
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
