"""A Kubernetes API for each test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootstrap.kube.client import KubeClient
from tests.kube.api import NAMESPACE, KubeApi, kube_api


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    """An API server on loopback; its service account's files are in the test's own folder."""
    with kube_api(tmp_path / "account") as server:
        yield server


@pytest.fixture
def client(api: KubeApi) -> Callable[..., KubeClient]:
    """Makes clients of that server; each is a run's own."""

    def make(*, limit_s: float = 3.0) -> KubeClient:
        return KubeClient("127.0.0.1", api.port, NAMESPACE, account=api.folder, limit_s=limit_s)

    return make
