"""Every kustomization of the repository, as one parametrized fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kustomize import ROOT, Build, build, combine, kustomizations, menu

EVERYTHING = ROOT / "all components"


@pytest.fixture(params=(*kustomizations(), EVERYTHING), ids=lambda directory: directory.relative_to(ROOT).as_posix())
def built(request: pytest.FixtureRequest) -> Build:
    """One kustomization, or all components together on top of the base."""
    directory: Path = request.param
    return combine(*menu()) if directory == EVERYTHING else build(directory)
