"""What a test needs of the cluster; where it is not there, the test is skipped, aloud."""

from __future__ import annotations

import pytest

from .harness import Namespace


def needs_disks(namespace: Namespace, overlay: str) -> None:
    """Skips what keeps data where no class of storage is the default one."""
    classes = namespace.get("storageclass")["items"]
    default = "storageclass.kubernetes.io/is-default-class"
    if overlay != "minikube" and not any(
        each["metadata"].get("annotations", {}).get(default) == "true" for each in classes
    ):
        pytest.skip("needs a default StorageClass")
