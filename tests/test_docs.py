"""The documents keep up with the code."""

from __future__ import annotations

import re
from pathlib import Path

from bootstrap.model.unreachable import UnreachableReason

ROOT = Path(__file__).parents[1]
NOT_FOR_PEOPLE = {"failed", "internal", "confirmed"}
"""Codes that only say that something else went wrong, or that all is as wanted."""


def test_the_catalogue_names_every_finding_and_every_reason() -> None:
    """Whoever meets a code in a log finds it in docs/findings.md, and nothing there is of the past."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "bootstrap").rglob("*.py") if path.stem != "verify"]
    codes = {code for text in sources for code in re.findall(r'code="([a-z-]+)"', text)} - NOT_FOR_PEOPLE
    codes |= {absence.code for absence in UnreachableReason}
    catalogue = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", catalogue))
    assert codes - told == set()
    words = {"apply", "plan", "reasons", "reinit", "fail", "verify", "with-a-gap"}
    assert {word for word in told - codes - words if "-" in word} == set()
