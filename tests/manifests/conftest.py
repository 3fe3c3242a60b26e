"""Every kustomization of the repository, as a fixture that a test only has to name."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kustomize import ROOT, Build, build, combine, kustomizations, menu

EVERYTHING = ROOT / "every component at once"


@pytest.fixture(params=(*kustomizations(), EVERYTHING), ids=lambda directory: directory.relative_to(ROOT).as_posix())
def built(request: pytest.FixtureRequest) -> Build:
    """One kustomization, built; or all components together, on top of the base."""
    directory: Path = request.param
    return combine(*menu()) if directory == EVERYTHING else build(directory)
