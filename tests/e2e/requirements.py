"""Requirements of a test. If the cluster does not meet one, the test is skipped with that reason."""

from __future__ import annotations

import pytest

from .harness import Namespace


def needs_disks(namespace: Namespace, overlay: str) -> None:
    """Skips a test of an overlay with disks if the cluster has no default StorageClass."""
    classes = namespace.get("storageclass")["items"]
    default = "storageclass.kubernetes.io/is-default-class"
    if overlay != "minikube" and not any(
        each["metadata"].get("annotations", {}).get(default) == "true" for each in classes
    ):
        pytest.skip("needs a default StorageClass")
