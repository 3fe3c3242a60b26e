"""The plots of what `make bench` has stored under docs/benchmarks, drawn by matplotlib.

The tests run without matplotlib. So each plot carries a digest of the rows it was drawn from and of this file, and a
test compares that with what is in the repository now.
"""

from __future__ import annotations

import hashlib
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictures import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Results = Mapping[str, Any]

INK, QUIET, GRID, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
OTHER, OURS, OURS_LIGHT, OURS_ALONE = "#9a6700", "#0969da", "#80b5f0", "#8250df"
FOOT_COLUMNS = 110
STYLE: Any = {
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "svg.fonttype": "path",
    "svg.hashsalt": "redis-cluster-bootstrap",
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}


def digest(results: Results) -> str:
    """Of everything that a plot depends on: the rows, and the code that draws them."""
    rows = json.dumps(results, sort_keys=True).encode()
    return hashlib.sha256(rows + Path(__file__).read_bytes()).hexdigest()


def forming(results: Results) -> str:
    """Seconds by number of nodes: `redis-cli --cluster create` and `apply`, as lines."""
    from matplotlib.figure import Figure

    rows: Sequence[Row] = results["rows"]
    servers = list(dict.fromkeys(row["server"] for row in rows))
    # One server is enough for the comparison; of several the one with most sizes is drawn.
    server = max(servers, key=lambda each: sum(row["server"] == each for row in rows))
    rows = [row for row in rows if row["server"] == server]
    series = (
        ("redis-cli", f"{rows[0]['tool']} --cluster create", OTHER, "s-"),
        ("apply, timeouts left alone", "apply, timeouts left alone", OURS_LIGHT, "o--"),
        ("apply", "apply", OURS, "o-"),
        ("apply on a healthy cluster", "apply on a healthy cluster", OURS_ALONE, "^-"),
    )
    with _style():
        figure = Figure(figsize=(8, 4.8))
        axes = figure.subplots()
        for tool, label, colour, line in series:
            sizes = [row["nodes"] for row in rows]
            medians = [_median(row, tool) for row in rows]
            axes.plot(sizes, medians, line, color=colour, label=label, linewidth=2, markersize=6)
            _spread(axes, sizes, [row["figures"][tool] for row in rows], colour)
        axes.set_xticks([row["nodes"] for row in rows])
        axes.set_xlabel("nodes (half of them masters)")
        axes.set_ylabel("seconds until every node is ok\nand every replica linked")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=GRID)
        axes.set_axisbelow(True)
        _frame(figure, f"Forming a cluster of {server} servers (lower is faster)", left_inch=0.85, above_inch=0.75)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.01, 0.93), ncols=2, frameon=False)
        said = "; ".join(
            f"{row['nodes']} nodes: " + ", ".join(f"{label} {_median(row, tool):g} s" for tool, label, _, _ in series)
            for row in rows
        )
        return _svg(figure, rows, f"Time to form a cluster of {server} servers", said, digest(results))


def moving(results: Results) -> str:
    """Seconds by server: the server's own tool and `apply`, as bars; a panel for each number of keys."""
    from matplotlib.figure import Figure

    rows: Sequence[Row] = results["rows"]
    sizes = sorted({row["keys"] for row in rows})
    servers = list(dict.fromkeys(_label(row) for row in rows))
    with _style():
        figure = Figure(figsize=(8, 1.75 + 0.6 * len(servers)))
        panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        for axes, size in zip(panels, sizes, strict=True):
            _bars(axes, [row for row in rows if row["keys"] == size], servers)
            axes.set_title(f"{size:,} keys", loc="left")
        panels[0].set_yticks(range(len(servers)), servers)
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        title = "Moving 4096 slots to an empty master (shorter is faster)"
        _frame(figure, title, left_inch=1.25, above_inch=0.6)
        place = (0.01, 1 - 0.35 / figure.get_figheight())
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=place, ncols=3, frameon=False)
        said = "; ".join(
            f"{row['server']}, {row['keys']} keys: {row['tool']} {_median(row, 'own tool'):g} s, "
            f"apply {_median(row, 'apply'):g} s"
            for row in rows
        )
        return _svg(figure, rows, "Time to move 4096 slots to an empty master", said, digest(results))


def _frame(figure: Figure, title: str, *, left_inch: float, above_inch: float) -> None:
    """The title, and room for it, for the legend below it, for labels, and for the line at the foot."""
    width, height = figure.get_size_inches()
    figure.suptitle(title, x=0.015, y=1 - 0.1 / height, ha="left", va="top", fontsize=13)
    figure.subplots_adjust(
        left=left_inch / width, right=1 - 0.15 / width, bottom=0.9 / height, top=1 - (0.35 + above_inch) / height
    )


def _label(row: Row) -> str:
    return f"{row['server']}\n{row['tool']}"


def _bars(axes: Axes, rows: Sequence[Row], servers: Sequence[str]) -> None:
    """Two bars for each server, with the seconds at their ends; of `apply` the move itself is darker."""
    places = [servers.index(_label(row)) for row in rows]
    half = 0.38
    own, ours, move = ([_median(row, tool) for row in rows] for tool in ("own tool", "apply", "the move itself"))
    upper, lower = [place - half / 2 for place in places], [place + half / 2 for place in places]
    axes.barh(upper, own, half, color=OTHER, label="redis-cli or valkey-cli, as named")
    axes.barh(lower, ours, half, color=OURS_LIGHT, label="apply, start of Python included")
    axes.barh(lower, move, half, color=OURS, label="of that, the move itself")
    longest = 0.0
    for levels, tool in ((upper, "own tool"), (lower, "apply")):
        for level, row in zip(levels, rows, strict=True):
            seconds = _median(row, tool)
            end = max([seconds, *row["figures"][tool].get("rounds_s", ())])
            axes.annotate(f"{seconds:.2f}", (end, level), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
            longest = max(longest, end)
    _spread(axes, upper, [row["figures"]["own tool"] for row in rows], INK, across=True)
    _spread(axes, lower, [row["figures"]["apply"] for row in rows], INK, across=True)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("seconds")
    axes.set_xlim(0, 1.15 * longest)


def _median(row: Row, tool: str) -> float:
    return float(row["figures"][tool]["median_s"])


def _spread(axes: Axes, places: Sequence[float], figures: Sequence[Row], colour: str, *, across: bool = False) -> None:
    """A thin line from the fastest round to the slowest one, where rounds are stored."""
    for place, figure in zip(places, figures, strict=True):
        if rounds_s := figure.get("rounds_s"):
            draw = axes.hlines if across else axes.vlines
            draw(place, min(rounds_s), max(rounds_s), color=colour, linewidth=1)


def _circumstances(rows: Sequence[Row]) -> str:
    """What holds for all figures of a plot: how they were taken, where, and when."""
    rounds = sorted({row["rounds"] for row in rows})
    parts = ["medians of " + " or ".join(str(each) for each in rounds) + (" rounds" if rounds != [1] else " round")]
    if any("rounds_s" in figure for row in rows for figure in row["figures"].values()):
        parts.append("thin lines from the fastest to the slowest")
    parts.append(" or ".join(sorted({str(row["cores"]) for row in rows})) + " cores")
    if pythons := sorted({row["python"] for row in rows if "python" in row}):
        parts.append("Python " + ", ".join(pythons))
    if loads := [row["load_at_start"] for row in rows if "load_at_start" in row]:
        parts.append(f"load average before a row {min(loads):.1f} to {max(loads):.1f}")
    if dates := sorted({row["date"] for row in rows if "date" in row}):
        parts.append(dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}")
    how_far = "" if all("source" in row for row in rows) else "in part "
    parts += sorted({f"{how_far}{row['source']}" for row in rows if "source" in row})
    return "; ".join(parts)


def _style() -> Any:
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


def _svg(figure: Figure, rows: Sequence[Row], title: str, said: str, source: str) -> str:
    """The figure with a line about how it was measured, the same text for screen readers, and the digest."""
    circumstances = _circumstances(rows)
    foot = textwrap.fill(circumstances, FOOT_COLUMNS)
    figure.text(0.015, 0.1 / figure.get_figheight(), foot, fontsize=8, color=QUIET)
    drawn = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(drawn, format="svg", metadata=metadata)
    start, tag, rest = drawn.getvalue().partition("<svg ")
    attributes, end, body = rest.partition(">\n")
    words = svg.words(title, f"{said} ({circumstances})")
    attributes = f'role="img" aria-labelledby="title desc" {attributes}'
    whole = f"{start}{tag}{attributes}{end}<!-- source: {source} -->\n{words}\n{body}"
    return "\n".join(line.rstrip() for line in whole.splitlines()) + "\n"
