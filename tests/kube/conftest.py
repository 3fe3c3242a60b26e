"""A Kubernetes API for each test that requests one, and the integration of a run with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootstrap.config import Settings
from bootstrap.kube.client import KubeClient
from bootstrap.kube.in_kubernetes import InKubernetes
from tests.kube.api import NAMESPACE, KubeApi, kube_api, pod
from tests.kube.servers import SETTINGS, Servers
from tests.run.runs import Notes


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    """An API server on loopback; the files of its service account are in the test's directory."""
    with kube_api(tmp_path / "account") as server:
        yield server


@pytest.fixture
def client(api: KubeApi) -> Callable[..., KubeClient]:
    """Makes clients of that server, one per run."""

    def make(*, limit_s: float = 3.0) -> KubeClient:
        return KubeClient("127.0.0.1", api.port, NAMESPACE, account=api.folder, limit_s=limit_s)

    return make


@pytest.fixture
def inside(api: KubeApi, client: Callable[..., KubeClient]) -> Callable[..., InKubernetes]:
    """Makes the integration of a run on given servers."""
    for number in range(6):
        api.put("pods", f"redis-app-{number}", pod(f"redis-app-{number}"))

    def make(servers: Servers, *, settings: Settings = SETTINGS, log: Notes | None = None) -> InKubernetes:
        found = InKubernetes(client(), settings, clock=servers, log=log or Notes())
        servers.renew = found._lock.renew
        return found

    return make
