"""What a test needs of the cluster or of the program; where it is not there, the test is skipped, aloud."""

from __future__ import annotations

import pytest

from bootstrap.config import declared

from .harness import Namespace

in_kubernetes = pytest.mark.skipif(
    "role_labels" not in declared(), reason="this program does not use Kubernetes for that yet"
)

by_placement = pytest.mark.skipif(
    "replace_replicas" not in declared(), reason="this program gives no role by placement yet"
)


def needs_disks(namespace: Namespace, overlay: str) -> None:
    """Skips what keeps data where no class of storage is the default one."""
    classes = namespace.get("storageclass")["items"]
    default = "storageclass.kubernetes.io/is-default-class"
    if overlay != "minikube" and not any(
        each["metadata"].get("annotations", {}).get(default) == "true" for each in classes
    ):
        pytest.skip("needs a default StorageClass")
