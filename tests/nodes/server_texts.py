"""The replies of real servers in `texts/`, one file per version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def sections(path: Path) -> Mapping[str, str]:
    """The texts of one file by their titles."""
    parts = path.read_text(encoding="utf-8").split("=== ")[1:]
    return {title: text for title, _, text in (part.partition("\n") for part in parts)}


TEXTS = {
    path.stem.replace("_", " "): sections(path) for path in sorted((Path(__file__).parent / "texts").glob("*.txt"))
}
