"""The cluster, the image, a namespace for each test, and the report of a failure."""

from __future__ import annotations

import fcntl
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.kustomize import ROOT

from .harness import Namespace, environment, load

NO_CLUSTER = "needs a cluster: E2E_CONTEXT names a context of the kubeconfig, E2E_LOAD loads the image into it"
HERE = Path(__file__).parent
TEST_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """If no cluster is named, every test here is skipped with that reason."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S))
            if not environment("E2E_CONTEXT") or not (environment("E2E_LOAD") or environment("E2E_IMAGE")):
                item.add_marker(pytest.mark.skip(reason=NO_CLUSTER))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """The report of a failure contains the Events and logs of its namespace."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    namespace = getattr(item, "funcargs", {}).get("namespace")
    if report.failed and report.when == "call" and isinstance(namespace, Namespace):
        report.sections.append((f"namespace {namespace.name}", namespace.describe()))
    return report  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def machines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test that crashes machines runs alone: any other one may have pods there, and its log goes with them."""
    alone = request.module.__name__.endswith("test_machines")
    with (tmp_path_factory.getbasetemp().parent / "machines").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Job's image, loaded into the cluster: E2E_IMAGE, or one of this working copy, named after its content."""
    name = environment("E2E_IMAGE") or f"redis-bootstrap:e2e-{_content()}"
    if command := environment("E2E_LOAD"):
        # All workers share the directory above their own. The first one loads the image, and the others wait for it.
        mark = tmp_path_factory.getbasetemp().parent / f"{name.replace('/', '_')}.loaded"
        with mark.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if not file.read():
                load(command, name)
                file.write("loaded")
    return name


@pytest.fixture
def namespace(image: str) -> Iterator[Namespace]:
    """A new namespace, deleted after the test unless E2E_KEEP is set."""
    made = Namespace(context=environment("E2E_CONTEXT"), name=f"redis-e2e-{secrets.token_hex(3)}", image=image)
    made.create()
    yield made
    if not environment("E2E_KEEP"):
        made.delete()


def _content() -> str:
    """A tag that changes with the content of the image, so no node uses an old image with the same name."""
    made_of = [ROOT / "Dockerfile", ROOT / "requirements.txt", *sorted((ROOT / "bootstrap").rglob("*.py"))]
    total: Any = hashlib.sha256()
    for file in made_of:
        total.update(file.read_bytes())
    return str(total.hexdigest()[:12])
