"""Every kustomization of the repository, as a fixture that a test only has to name."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kustomize import ROOT, Build, build, kustomizations


@pytest.fixture(params=kustomizations(), ids=lambda directory: directory.relative_to(ROOT).as_posix())
def built(request: pytest.FixtureRequest) -> Build:
    """One kustomization, built."""
    directory: Path = request.param
    return build(directory)
