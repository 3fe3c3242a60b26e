"""The table of settings in docs/configuration.md, generated from the settings themselves: `make docs`."""

from __future__ import annotations

from pathlib import Path

from bootstrap.config import declared, variable_of

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
BEGIN, END = "<!-- settings: begin; `make docs` writes this part -->", "<!-- settings: end -->"


def table() -> str:
    """One row per setting, in the order and with the words of `--help`."""
    rows = ["| variable | meaning | default |", "|---|---|---|"]
    for name, setting in declared().items():
        cells = (f"`{variable_of(name)}`", setting["help"], setting["shown"])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def current(page: str) -> str:
    """The page with the present table between its markers. Raises ValueError where a marker is missing."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
