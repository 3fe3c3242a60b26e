"""Stores the results of a bench as JSON: one file per bench, one row per server and size, with all rounds.

A row that is measured again replaces the stored row of the same server and size. Another patch release counts as the
same server. All other rows stay, so one server can be measured alone.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Row = dict[str, Any]
SIZES = ("nodes", "keys")
"""The fields that distinguish the rows of one server."""
VERSION_TIMEOUT_S = 10


def facts() -> Row:
    """The circumstances of a row, recorded when its measurement starts."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def seconds(rounds_s: Sequence[float]) -> Row:
    """The rounds of one tool, and their median."""
    return {"median_s": round(statistics.median(rounds_s), 3), "rounds_s": [round(each, 3) for each in rounds_s]}


def ratio(figures: Mapping[str, Row], tool: str, other: str) -> float:
    """The median of one tool, divided by the median of another."""
    return round(float(figures[tool]["median_s"] / figures[other]["median_s"]), 3)


def version_of(client: str | Path) -> str:
    """The name and version of a redis-cli or valkey-cli, as it prints them."""
    shown = subprocess.run([client, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=True)
    return " ".join(shown.stdout.split()[:2])


def store(path: Path | None, bench: str, row: Row) -> None:
    """Writes the row to the file, if a path is given. The file is replaced as a whole or not at all."""
    if path is None:
        return
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    merged = sorted([*(each for each in rows if _key(each) != _key(row)), row], key=_key)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"bench": bench, "rows": merged}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _key(row: Mapping[str, Any]) -> tuple[int, str, tuple[int, ...]]:
    """Size, then the server's name, then its version without the patch release."""
    size = next((int(row[name]) for name in SIZES if name in row), 0)
    name, version = str(row["server"]).split()
    return size, name, tuple(int(part) for part in re.findall(r"\d+", version)[:2])
