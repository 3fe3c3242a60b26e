"""The overlay that takes over a living cluster: four values to edit, and patches for passwords and networks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bootstrap.config import Settings
from bootstrap.model.node import Address
from bootstrap.model.old_side import Adoption

from .kustomize import COMPONENTS, OVERLAYS, ROOT, TRANSFORMER, Build, build, written
from .schema import validate

ADOPT = OVERLAYS / "adopt"
OLD = "old-redis-cluster-headless.default.svc.cluster.local"


def edited(directory: Path, **values: str) -> Build:
    """The overlay after a person has entered these values."""
    shutil.copytree(ROOT / "k8s", directory / "k8s")
    file = directory / "k8s" / "overlays" / "adopt" / "kustomization.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    for name, value in values.items():
        (at,) = (number for number, line in enumerate(lines) if line.strip().startswith(f"- {name}="))
        lines[at] = f"      - {name}={value}"
    file.write_text("\n".join(lines), encoding="utf-8")
    return build(file.parent)


def settings_of(built: Build) -> Settings:
    """What the Job reads from the ConfigMap."""
    data: dict[str, str] = built.one("ConfigMap", "redis-bootstrap-settings")["data"]
    assert all(isinstance(value, str) for value in data.values())
    return Settings.from_env(data)


def test_unedited_it_names_the_old_cluster_and_confirms_nothing() -> None:
    """The first run reports what would be taken over."""
    built = build(ADOPT)
    validate(built)
    settings = settings_of(built)
    assert settings.adopt_from == (Address(OLD, 6379),)
    assert settings.adoption == Adoption()


@pytest.mark.parametrize("fingerprint", ["0123456789ab", "123456789012", "1234567890e1"])
def test_the_values_reach_the_settings(tmp_path: Path, fingerprint: str) -> None:
    """Also a fingerprint that YAML takes for a number."""
    built = edited(tmp_path, **{"from": "10.0.0.7:7000,10.0.0.8", "fingerprint": fingerprint, "finish": "on"})
    settings = settings_of(built)
    assert settings.adopt_from == (Address("10.0.0.7", 7000), Address("10.0.0.8", 6379))
    assert settings.adoption == Adoption(fingerprint=fingerprint, finish=True)


def test_after_the_end_the_old_cluster_alone_is_cleared(tmp_path: Path) -> None:
    """The other values may stay: without it they mean nothing."""
    built = edited(tmp_path, **{"from": "none", "fingerprint": "0123456789ab", "finish": "on"})
    assert settings_of(built).adoption is None


def test_the_patches_reach_the_jobs_and_the_policies() -> None:
    """A password for the old side, and ports of the old namespace in the policies of the pods and of the Job."""
    policies = [("redis-app", "networkpolicy-patch.yaml"), ("redis-bootstrap", "job-networkpolicy-patch.yaml")]
    patches: list[dict[str, Any]] = [{"patch": (ADOPT / "password-patch.yaml").read_text(encoding="utf-8")}]
    patches += [
        {"target": {"kind": "NetworkPolicy", "name": name}, "patch": (ADOPT / file).read_text(encoding="utf-8")}
        for name, file in policies
    ]
    with written(
        resources=[ADOPT], components=[COMPONENTS / "network-policy"], patches=patches, transformers=[TRANSFORMER]
    ) as directory:
        built = build(directory)
    validate(built)
    for _, template in built.templates():
        (container,) = template["spec"]["containers"]
        if container["name"] == "bootstrap":
            assert {"name": "BOOTSTRAP_ADOPT_PASSWORD_FILE", "value": "/etc/redis-old/password"} in container["env"]
    for name, _ in policies:
        assert "kubernetes.io/metadata.name" in str(built.one("NetworkPolicy", name)["spec"])


def test_the_policy_for_the_old_namespace_is_one_that_kubernetes_accepts(tmp_path: Path) -> None:
    """It is applied there by itself."""
    shutil.copy(ADOPT / "old-networkpolicy.yaml", tmp_path)
    (tmp_path / "kustomization.yaml").write_text("resources: [old-networkpolicy.yaml]\n", encoding="utf-8")
    built = build(tmp_path)
    validate(built)
    assert built.one("NetworkPolicy", "redis-adopt")["spec"]["policyTypes"] == ["Ingress", "Egress"]
