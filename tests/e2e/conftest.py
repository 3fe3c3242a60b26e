"""Which cluster, which image; a namespace for each test; and what is printed when one fails."""

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

NOT_ASKED_FOR = "needs a cluster: E2E_CONTEXT names a context of the kubeconfig, E2E_LOAD says how it gets the image"
HERE = Path(__file__).parent
TEST_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a cluster that was named, every test here is skipped, and says so."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S))
            if not environment("E2E_CONTEXT") or not (environment("E2E_LOAD") or environment("E2E_IMAGE")):
                item.add_marker(pytest.mark.skip(reason=NOT_ASKED_FOR))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure shows the Events and logs of its namespace."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    namespace = getattr(item, "funcargs", {}).get("namespace")
    if report.failed and report.when == "call" and isinstance(namespace, Namespace):
        report.sections.append((f"namespace {namespace.name}", namespace.story()))
    return report  # type: ignore[return-value]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Job's image, which the cluster has: E2E_IMAGE, or one of this working copy, named after what is in it."""
    name = environment("E2E_IMAGE") or f"redis-bootstrap:e2e-{_content()}"
    if command := environment("E2E_LOAD"):
        # All workers share the directory above their own; the first one loads, the others wait for it.
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
    """A new namespace; gone after the test unless E2E_KEEP is set."""
    made = Namespace(context=environment("E2E_CONTEXT"), name=f"redis-e2e-{secrets.token_hex(3)}", image=image)
    made.create()
    yield made
    if not environment("E2E_KEEP"):
        made.delete()


def _content() -> str:
    """A tag that changes with what the image is made of: no node takes an old image of the same name for it."""
    made_of = [ROOT / "Dockerfile", ROOT / "requirements.txt", *sorted((ROOT / "bootstrap").rglob("*.py"))]
    total: Any = hashlib.sha256()
    for file in made_of:
        total.update(file.read_bytes())
    return str(total.hexdigest()[:12])
