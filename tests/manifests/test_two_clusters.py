"""Two clusters in one namespace: an overlay for each, with a namePrefix and the label of its instance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .kustomize import (
    BASE,
    COMPONENTS,
    INSTANCE,
    OVERLAYS,
    ROOT,
    Build,
    Manifest,
    build_text,
    inputs,
    menu,
    name_of,
    of_its_own,
    selects,
    written,
)

ALL = tuple(each for each in menu() if each.name != "nfs")
"""The volumes of nfs are reserved for claims by name."""


@pytest.fixture(scope="module")
def blue() -> Build:
    return build_text(resources=[BASE], components=ALL, configMapGenerator=inputs(), **of_its_own("blue"))


@pytest.fixture(scope="module")
def green() -> Build:
    return build_text(resources=[BASE], components=ALL, configMapGenerator=inputs(), **of_its_own("green"))


def test_no_object_of_one_is_an_object_of_the_other(blue: Build, green: Build) -> None:
    """Each object has the prefix and the label."""
    for built, name in ((blue, "blue"), (green, "green")):
        assert [name_of(each) for each in built.manifests if not name_of(each).startswith(f"{name}-")] == []
        assert {each["metadata"]["labels"][INSTANCE] for each in built.manifests} == {name}


def test_no_name_of_an_object_stays_without_the_prefix(blue: Build) -> None:
    """No reference leads to an object that is not there, or is another cluster's."""
    names = {name_of(each).removeprefix("blue-") for each in blue.manifests} | {"redis-auth", "redis-tls"}
    stale = {
        (name_of(each), ".".join(place), text)
        for each in blue.manifests
        for place, text in strings(each)
        if text in names and place[-1] not in ("app.kubernetes.io/name", "app.kubernetes.io/part-of", "image")
    }
    assert stale == {
        ("blue-redis-ca", "spec.commonName", "redis-ca"),
        # An overlay sets the names in the certificate in any case.
        ("blue-redis-tls", "spec.commonName", "gold-redis"),
        ("blue-redis-tls", "spec.dnsNames", "gold-redis"),
    }


def test_every_selector_finds_pods_of_its_own_cluster_alone(blue: Build, green: Build) -> None:
    """Services, policies, budgets, monitors, and the rules of the scheduler. Clients have no label of an instance."""
    pods, others = list(pods_of(blue)), list(pods_of(green))
    found = [(f"{each['kind']} {name_of(each)}", selector) for each in blue.manifests for selector in selectors(each)]
    assert {"Service", "StatefulSet", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor"} <= {
        owner.split()[0] for owner, _ in found
    }
    for owner, selector in found:
        if "gold-redis-client" in str(selector):
            assert INSTANCE not in str(selector), owner
            continue
        roleless = {**selector, "matchLabels": without_role(selector["matchLabels"])}
        assert any(selects(roleless, labels) for labels in pods), owner
        assert not any(selects(roleless, labels) for labels in others), owner


def pods_of(built: Build) -> Iterator[dict[str, str]]:
    """The labels of each pod; those of the servers have the name that Kubernetes gives them."""
    for owner, template in built.templates():
        labels, kind, name = template["metadata"]["labels"], *owner.split()
        numbered = [f"{name}-{ordinal}" for ordinal in range(6)] if kind == "StatefulSet" else []
        yield from ({**labels, "statefulset.kubernetes.io/pod-name": pod} for pod in numbered)
        yield labels


def test_a_component_does_not_take_the_label_of_the_instance_away() -> None:
    """Also where it is listed above such an overlay: each object copies the label of the StatefulSet."""
    with written(resources=[BASE], **of_its_own("blue")) as overlay:
        built = build_text(resources=[overlay], components=[COMPONENTS / "high-availability"])
    assert {each["metadata"]["labels"][INSTANCE] for each in built.manifests} == {"blue"}


def test_without_the_component_the_secrets_are_shared() -> None:
    """The component prefixed-secrets renames all references, and adds no object."""
    production = {"resources": [OVERLAYS / "production"], **of_its_own("blue")}
    shared, own = build_text(**production), build_text(**production, components=[COMPONENTS / "prefixed-secrets"])
    assert secrets_of(shared) == {"redis-auth", "redis-tls"}
    assert secrets_of(own) == {"blue-redis-auth", "blue-redis-tls"}
    assert own.of_kind("Secret") == ()
    assert [name_of(each) for each in own.manifests] == [name_of(each) for each in shared.manifests]


def test_reinit_of_one_is_an_overlay_above_it() -> None:
    """The Job has the settings, the account, the Secrets and the label of that cluster."""
    reinit = ROOT / "k8s" / "reinit"
    patch = {"target": {"kind": "Job"}, "patch": (reinit / "auth-patch.yaml").read_text(encoding="utf-8")}
    with written(resources=[reinit], patches=[patch]) as with_auth:
        built = build_text(resources=[with_auth], components=[COMPONENTS / "prefixed-secrets"], **of_its_own("blue"))
    (job,) = built.manifests
    assert name_of(job) == "blue-redis-reinit-none"
    template = job["spec"]["template"]
    assert template["metadata"]["labels"][INSTANCE] == "blue"
    assert template["spec"]["serviceAccountName"] == "blue-redis-bootstrap"
    (container,) = template["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": "blue-redis-bootstrap-settings"}}]
    assert secrets_of(built) == {"blue-redis-auth"}
    assert "selector" not in job["spec"]


def secrets_of(built: Build) -> set[str]:
    """The Secrets that pods mount or take variables from."""
    names = set()
    for _, template in built.templates():
        for place, text in strings(template["spec"]):
            if place[-1] == "secretName" or place[-2:] == ("secretKeyRef", "name"):
                names.add(text)
    return names


def strings(part: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every string in it that is a value, with the keys that lead to it."""
    match part:
        case dict():
            for key, value in part.items():
                yield from strings(value, (*place, key))
        case list():
            for value in part:
                yield from strings(value, place)
        case str():
            yield place, part


def selectors(part: Any, kind: str = "") -> Iterator[Manifest]:
    """Every label selector in an object. That of a Service is one without `matchLabels`."""
    match part:
        case dict():
            kind = part.get("kind", kind)
            for key, value in part.items():
                if key == "selector" and kind == "Service":
                    yield {"matchLabels": value}
                elif key in ("selector", "podSelector", "labelSelector"):
                    yield value
                else:
                    yield from selectors(value, kind)
        case list():
            for value in part:
                yield from selectors(value, kind)


def without_role(labels: dict[str, str]) -> dict[str, str]:
    """Without the label that a run sets."""
    return {key: value for key, value in labels.items() if key != "redis-role"}
