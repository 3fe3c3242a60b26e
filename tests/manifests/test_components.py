"""Each component alone, the components together, and the overlays that list them."""

from __future__ import annotations

import copy
import json
import random
import re
from itertools import combinations
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
    """Its objects by kind and name."""
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


PAIRS = [
    (first, second)
    for first, second in combinations(components(), 2)
    if {first.name, second.name} not in ({"nfs", "persistence"}, {"outside", "outside-nodeport"})
    and first not in with_needs(second)
    and second not in with_needs(first)
]


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda directory: directory.name)
def test_two_components_compose_in_either_order(first: Path, second: Path) -> None:
    """Every pair, except for those with a required order."""
    one, other = with_needs(first), with_needs(second)
    assert unordered(combine(*one, *other)) == unordered(combine(*other, *one))


@pytest.mark.parametrize("seed", range(6))
def test_all_components_compose_in_any_order(seed: int) -> None:
    """The objects are equal. In the arguments, redis.conf is first and the plain port follows tls.conf."""
    order = list(menu())
    random.Random(seed).shuffle(order)
    for later, needed in NEEDS.items():
        order.remove(COMPONENTS / later)
        first = max(order.index(COMPONENTS / each) for each in needed) + 1
        order.insert(random.Random(seed).randint(first, len(order)), COMPONENTS / later)
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
        (["outside", "outside-nodeport"], "components/outside-nodeport': "),
        (["outside-nodeport", "outside"], "components/outside': "),
    ],
    ids=[
        "persistence after nfs",
        "plain port before tls",
        "plain port without tls",
        "node ports after load balancers",
        "load balancers after node ports",
    ],
)
def test_an_order_that_would_not_work_fails_the_build(order: list[str], message: str) -> None:
    """The message names the component that is listed too early or too late."""
    assert message in build_error(*(COMPONENTS / name for name in order))


@pytest.mark.parametrize("opener", ["metrics", "tls-plain-port"])
def test_a_port_is_opened_wherever_its_component_is_listed(opener: str) -> None:
    """Before or after network-policy. Without network-policy there is no policy."""
    opened, policy = with_needs(COMPONENTS / opener), COMPONENTS / "network-policy"
    assert combine(*opened).of_kind("NetworkPolicy") == ()
    before, after = (
        combine(*order).one("NetworkPolicy", "redis-app") for order in ((*opened, policy), (policy, *opened))
    )
    assert before == after
    assert {"metrics": "metrics", "tls-plain-port": "redis-plain"}[opener] in json.dumps(after["spec"]["ingress"])


def test_nfs_includes_persistence() -> None:
    """If both are listed, with nfs last, the build is the same."""
    nfs, persistence = COMPONENTS / "nfs", COMPONENTS / "persistence"
    assert kustomization(nfs)["components"] == ["../persistence", "volumes"]
    assert by_name(combine(persistence, nfs)) == by_name(combine(nfs))


def test_every_component_has_its_row_in_the_documents() -> None:
    """In docs/components.md, one row each and none for what is not there."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", COMPONENTS_PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(each.name for each in components())


@pytest.mark.parametrize("text", OVERLAYS_SHOWN)
def test_every_overlay_that_the_documents_show_builds(text: str) -> None:
    """The repository that the overlay names is replaced with this working copy."""
    shown = yaml.safe_load(text)
    for key in ("resources", "components", "transformers"):
        places = [re.fullmatch(r"github\.com/OWNER/REPO(?://([^?]+))?\?ref=TAG", each) for each in shown.get(key, [])]
        shown[key] = [ROOT / (place[1] or "") for place in places if place]
    built = build_text(**shown)
    settings = built.one("ConfigMap", f"{shown.get('namePrefix', '')}redis-bootstrap-settings")["data"]
    wanted = int(settings["BOOTSTRAP_SHARDS"]) * (1 + int(settings["BOOTSTRAP_REPLICAS_PER_SHARD"]))
    assert [each["spec"]["replicas"] for each in built.of_kind("StatefulSet")] == [wanted]


def test_persistence_replaces_the_empty_directory_with_a_disk() -> None:
    """The volume has the same name, so the mount does not change. Only a person ever deletes the disk."""
    before, after = servers(build(BASE)), servers(component("persistence"))
    (claim,) = after["volumeClaimTemplates"]
    (mount,) = [each for each in after["template"]["spec"]["containers"][0]["volumeMounts"] if each["name"] == "data"]
    assert {"name": "data", "emptyDir": {}} in before["template"]["spec"]["volumes"]
    assert "data" not in [volume["name"] for volume in after["template"]["spec"]["volumes"]]
    assert (claim["metadata"]["name"], mount["mountPath"]) == ("data", "/data")
    assert set(after["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    # Without an append-only file a disk would have no use.
    assert "appendonly yes" in component("persistence").one("ConfigMap", "redis-config")["data"]["redis.conf"]


@pytest.mark.parametrize("name", ["persistence", "nfs"])
def test_size_and_class_of_the_disks_are_one_patch(name: str) -> None:
    """The patch in the first lines of the component works."""
    text = (COMPONENTS / "persistence" / "kustomization.yaml").read_text(encoding="utf-8")
    shown = yaml.safe_load("\n".join(line.removeprefix("#") for line in text.splitlines() if re.match(r"#   ", line)))
    (claim,) = servers(combine_and(COMPONENTS / name, shown["patches"]))["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "50Gi"
    assert claim["spec"]["storageClassName"] == "fast"


def combine_and(directory: Path, patches: list[Manifest]) -> Build:
    """A component, with patches of an overlay."""
    share = kustomization(OVERLAYS / "nfs")["configMapGenerator"]
    return build_text(resources=[BASE], components=[directory], configMapGenerator=share, patches=patches)


def test_nfs_keeps_one_directory_for_each_pod() -> None:
    """Each volume is reserved for the claim of one pod, and cannot bind to any other claim."""
    built = build(OVERLAYS / "nfs")
    spec = servers(built)
    (claim,) = spec["volumeClaimTemplates"]
    overlay = kustomization(OVERLAYS / "nfs")
    share = dict(literal.split("=", 1) for literal in overlay["configMapGenerator"][0]["literals"])
    volumes = {volume["spec"]["claimRef"]["name"]: volume["spec"] for volume in built.of_kind("PersistentVolume")}
    assert volumes.keys() == {f"data-redis-app-{ordinal}" for ordinal in range(spec["replicas"])}
    for name, volume in volumes.items():
        assert volume["claimRef"]["namespace"] == overlay["namespace"]
        assert volume["nfs"] == {"server": share["server"], "path": f"{share['path']}/{name.removeprefix('data-')}"}
        assert volume["persistentVolumeReclaimPolicy"] == "Retain"
        assert volume.get("storageClassName", "") == claim["spec"]["storageClassName"] == ""
        assert set(claim["spec"]["accessModes"]) <= set(volume["accessModes"])
        assert quantity(volume["capacity"]["storage"]) >= quantity(claim["spec"]["resources"]["requests"]["storage"])
    # The ConfigMap with the address of the share is not part of the output.
    assert [name_of(each) for each in built.of_kind("ConfigMap") if "nfs" in name_of(each)] == []


def test_a_lock_on_nfs_ends_with_its_lease() -> None:
    """The mount options require NFSv4, and do not make locks local to a machine."""
    for volume in component("nfs").of_kind("PersistentVolume"):
        options = volume["spec"]["mountOptions"]
        assert "nfsvers=4.1" in options
        assert not [option for option in options if "lock" in option]


def test_a_volume_for_one_more_pod_needs_only_its_number() -> None:
    """The address of the share reaches all volumes, also those of an overlay."""
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
    share = kustomization(OVERLAYS / "nfs")["configMapGenerator"]
    built = build_text(resources=[BASE], files=[more], components=[COMPONENTS / "nfs"], configMapGenerator=share)
    nfs = built.one("PersistentVolume", "redis-app-6")["spec"]["nfs"]
    assert nfs == {"server": "nfs.example.org", "path": "/exports/redis/redis-app-6"}


def test_at_most_one_server_is_evicted_at_a_time() -> None:
    """The budget selects all servers and no other pods."""
    built = component("high-availability")
    budget = built.one("PodDisruptionBudget", "redis-app")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == {"matchLabels": SERVERS} == servers(built)["selector"]


def test_servers_spread_if_possible_and_never_wait_for_a_place() -> None:
    """Over zones and machines, if possible: a pod has to run where its disk is."""
    constraints = servers(component("high-availability"))["template"]["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in constraints} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert {each["whenUnsatisfiable"] for each in constraints} == {"ScheduleAnyway"}
    assert all(each["labelSelector"] == {"matchLabels": SERVERS} for each in constraints)


def test_the_exporter_does_not_take_the_place_of_the_server() -> None:
    """`kubectl exec` still selects the server."""
    template = servers(component("metrics"))["template"]
    redis, exporter = template["spec"]["containers"]
    assert (redis["name"], exporter["name"]) == ("redis", "metrics")
    assert template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "redis"
    assert re.search(r":v[0-9]+\.[0-9]+\.[0-9]+$", exporter["image"])


def test_every_way_to_scrape_leads_to_the_port_of_the_exporter() -> None:
    """The annotation, the Service and the PodMonitor lead to the same port."""
    built = combine(COMPONENTS / "metrics", COMPONENTS / "metrics-podmonitor")
    (port,) = servers(built)["template"]["spec"]["containers"][1]["ports"]
    annotations = servers(built)["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert [each["targetPort"] for each in built.one("Service", "redis-metrics")["spec"]["ports"]] == [port["name"]]
    monitor = built.one("PodMonitor", "redis-app")["spec"]
    assert [each["port"] for each in monitor["podMetricsEndpoints"]] == [port["name"]]
    assert monitor["selector"] == {"matchLabels": SERVERS}


def test_zone_aware_may_get_nodes_and_nothing_else() -> None:
    """The only cluster-wide right is `get`."""
    built = component("zone-aware")
    assert built.one("ConfigMap", "redis-bootstrap-settings")["data"]["BOOTSTRAP_READ_NODES"] == "on"
    (role,) = built.of_kind("ClusterRole")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    # Without `namespace:` Kubernetes refuses the binding, so an account of another namespace never gets the right.
    (binding,) = built.of_kind("ClusterRoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "redis-bootstrap"}]


def test_role_labels_bring_their_right_and_two_services() -> None:
    """The rights of the base, and `patch` on pods. The Services differ from gold-redis by one label."""
    built = component("role-labels")
    assert built.one("ConfigMap", "redis-bootstrap-settings")["data"]["BOOTSTRAP_ROLE_LABELS"] == "on"
    before, after = (each.one("Role", "redis-bootstrap")["rules"] for each in (build(BASE), built))
    assert after == [*before, {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}]
    everyone = built.one("Service", "gold-redis")["spec"]
    for role in ("master", "replica"):
        service = built.one("Service", f"redis-{role}s")["spec"]
        assert service == {**everyone, "selector": {**everyone["selector"], "redis-role": role}}


def test_argo_cd_recreates_the_job_and_nothing_else() -> None:
    """A hook of the phase that does not wait for readiness. The runs of the CronJob are not hooks."""
    built = copy.deepcopy(component("argocd"))
    job = built.one("Job", "redis-bootstrap")
    assert job["metadata"].pop("annotations") == {
        "argocd.argoproj.io/hook": "Sync",
        "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
    }
    assert by_name(built) == by_name(build(BASE))


def test_flux_forces_the_job_and_nothing_else() -> None:
    """What Flux forces it deletes and creates again: the servers and their disks must not have that annotation."""
    built = copy.deepcopy(component("flux"))
    annotations = built.one("Job", "redis-bootstrap")["metadata"].pop("annotations")
    assert annotations == {"kustomize.toolkit.fluxcd.io/force": "enabled"}
    assert by_name(built) == by_name(build(BASE))


def test_an_overlay_only_lists_components() -> None:
    """An overlay only lists names. Everything else is in its components, and in what a copy of it needs last.

    `adopt` is an example of values to edit, on top of one.
    """
    menus = {each.name: kustomization(each) for each in sorted(OVERLAYS.iterdir()) if each.name != "adopt"}
    lists = {"resources", "components", "transformers", "configMapGenerator", "images"}
    allowed = {"apiVersion", "kind", "namespace", *lists}
    assert [name for name, menu in menus.items() if menu.keys() - allowed] == []
    assert all(menu["resources"] == ["../../base"] for menu in menus.values())
    taken = {Path(each).name for each in menus["production"]["components"]}
    assert {"persistence", "high-availability", "self-heal", "role-labels"} <= taken
