"""A copy of all volumes in a second namespace, as somebody makes it from snapshots to try something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.manifests.kustomize import COMPONENTS

from .harness import Namespace
from .requirements import needs_disks

PODS = [f"redis-app-{ordinal}" for ordinal in range(6)]
DISKS: dict[str, Any] = {"components": [COMPONENTS / "persistence"]}


@pytest.fixture
def elsewhere(namespace: Namespace) -> Iterator[Namespace]:
    """A second namespace, deleted after the test."""
    made = replace(namespace, name=f"{namespace.name}-copy")
    made.create()
    yield made
    made.delete()


def test_a_copy_of_all_volumes_is_refused_beside_the_original(namespace: Namespace, elsewhere: Namespace) -> None:
    """No run writes to either; the original serves its keys as before, also once the copy has stopped."""
    needs_disks(namespace, "production")
    namespace.apply("minikube", **DISKS)
    assert namespace.ended().outcome["outcome"] == "formed"
    assert namespace.client("write", "0", "300") == "300"
    copy_disks(namespace, elsewhere)
    elsewhere.apply("minikube", **DISKS)
    there = elsewhere.ended()
    assert (there.outcome["outcome"], there.outcome["steps"]) == ("refused", 0), there.log
    assert {reason["code"] for reason in there.outcome["reasons"]} == {"copied-cluster"}, there.log
    assert namespace.client("read", "0", "300") == "300"
    elsewhere.kubectl("scale", "statefulset", "redis-app", "--replicas=0")
    elsewhere.kubectl("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=redis-app", "--timeout=60s")
    here = namespace.run("beside-a-copy")
    assert here.outcome["exit_code"] == 0, here.log
    assert namespace.client("read", "0", "300") == "300"


def copy_disks(source: Namespace, target: Namespace) -> None:
    """Creates the claims that the StatefulSet will find, with the files of the source's pods."""
    claims = [f"data-{pod}" for pod in PODS]
    target.create_all([_claim(name) for name in claims])
    target.create_all([_loader(source.get("pod", PODS[0])["spec"]["containers"][0]["image"], claims)])
    target.kubectl("wait", "--for=condition=Ready", "pod/loader", "--timeout=120s")
    for pod, claim in zip(PODS, claims, strict=True):
        files = source.kubectl("exec", pod, "-c", "redis", "--", "sh", "-c", "cd /data && tar -cf - -- * | base64")
        target.kubectl("exec", "-i", "loader", "--", "sh", "-c", f"base64 -d | tar -xf - -C /{claim}", stdin=files)
    target.kubectl("delete", "pod", "loader")


def _claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _loader(image: str, claims: list[str]) -> dict[str, Any]:
    container = {
        "name": "loader",
        "image": image,
        "command": ["sleep", "infinity"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": claim, "mountPath": f"/{claim}"} for claim in claims],
    }
    user = {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999, "runAsNonRoot": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loader"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims],
        },
    }
