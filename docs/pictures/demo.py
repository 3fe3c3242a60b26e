"""`make demo` as a terminal shows it: recorded from a real run, stored as an asciicast, drawn as SVG.

The recording is the file that asciinema writes and plays (asciicast v2), so it can also be played with that program.
The drawing plays each line at the time when it came, once, and then stays; where animation is not wanted, or not
supported, it shows the end at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pictures import svg
from pictures.places import ROOT

COLUMNS = 118
LINES = 40
COMMAND = "make demo"
RUN = ("-m", "bootstrap", "local", "--once")
"""What the Makefile runs for it; a test compares."""
LIMIT_S = 120.0

Chunk = tuple[float, str]
"""Seconds since the start, and what was printed then."""
Recording = list[Chunk]


def record() -> Recording:
    """Run the demo on a terminal of its own and keep what it prints, and when."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOTSTRAP_")}
    environment = {**clean, "BOOTSTRAP_LOG": "console", "TERM": "xterm-256color"}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *RUN], stdin=follower, stdout=follower, stderr=follower, cwd=ROOT, env=environment
    )
    os.close(follower)
    recording: Recording = []
    try:
        for line in _lines(leader):
            # Neither the machine nor its user belongs in a picture: what lies in the repository is named from its root.
            recording.append((round(time.monotonic() - began, 2), line.replace(f"{ROOT}/", "")))
        if process.wait(LIMIT_S) != 0:
            raise SystemExit(f"the demo ended with {process.returncode}:\n{text_of(recording)}")
    finally:
        os.close(leader)
        if process.poll() is None:
            process.terminate()
            process.wait(LIMIT_S)
    return recording


def _lines(leader: int) -> Iterator[str]:
    """Each line as soon as it is whole."""
    rest = b""
    with suppress(OSError):  # how Linux says that the last process has closed the terminal
        while data := os.read(leader, 65536):
            *lines, rest = (rest + data).split(b"\n")
            yield from (line.decode() + "\n" for line in lines)
    if rest:
        yield rest.decode()


def text_of(recording: Recording) -> str:
    """Everything that was printed."""
    return "".join(text for _, text in recording)


def as_cast(recording: Recording) -> str:
    """As asciicast v2: a line of JSON about the terminal, then one for each thing printed."""
    head = {"version": 2, "width": COLUMNS, "height": LINES, "command": COMMAND}
    lines = [json.dumps(head), *(json.dumps([at_s, "o", text], ensure_ascii=False) for at_s, text in recording)]
    return "\n".join(lines) + "\n"


def from_cast(cast: str) -> Recording:
    """What `as_cast` made text of."""
    return [(at_s, text) for at_s, _, text in map(json.loads, cast.splitlines()[1:])]


_DEPENDS_ON_SPEED = {
    "looking_again",
    "not_yet_good",
    "phase_not_settled",
    "probe_waits",
    "step_rejected",
    "waiting_for_peers",
    "phase_done phase=serve",
}
"""Events that a slow machine adds to the same run, or leaves out: after a long *assign* all nodes serve already."""
_SUBSTITUTIONS = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"\r", ""),
    (r"127(\.\d+){3}:\d+", "ADDRESS"),
    (r"\b(redis|valkey) \d[\w.-]*", "VERSION"),
    (r"\b(Redis|Valkey) \d[\w.-]* \([^)]*\)", "SERVER"),
    (r"^\d\d:\d\d:\d\d", "TIME"),
    (r"\b(took_s=|in )\d+(\.\d+)?", r"\1SECONDS"),
    (r"\b(writes=)\d+", r"\1NUMBER"),
    (r"\b\d+ steps", "NUMBER steps"),
    (r"\b\d+\.\d+ [KMG]iB", "MEMORY"),
    (r"\bcluster [0-9a-f]{12}", "cluster ID"),
    (r"\b(program=)\S+", r"\1PROGRAM"),
    (r" +", " "),
    (r" $", ""),
)


def normalised(text: str) -> list[str]:
    """The lines of a run without what differs from run to run: times, addresses, ids, versions, sizes.

    Of each event, and of each phase, the first one stays: on a slow machine some are repeated.
    """
    for pattern, instead in _SUBSTITUTIONS:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    lines: list[str] = []
    seen: set[str] = set()
    for line in text.splitlines():
        if event := re.match(r"TIME \[\w+ *\] (\w+ (?:phase=\w+)?)", line):
            name = event[1].strip()
            if name.split()[0] in _DEPENDS_ON_SPEED or name in _DEPENDS_ON_SPEED or name in seen:
                continue
            seen.add(name)
        lines.append(line)
    return lines


# What follows draws.

FONT_PX = 13.0
ADVANCE_PX = 7.83
"""The width of a character: 0.602 em, as in most monospaced fonts; `textLength` holds the others to it."""
LEADING_PX = 18.0
MARGIN_PX = 18.0
BAR_PX = 34.0
BACKGROUND, BAR, FOREGROUND, DIM = "#0d1117", "#21262d", "#e6edf3", "#8b949e"
BUTTONS = ("#ff5f57", "#febc2e", "#28c840")
COLOURS = {31: "#ff7b72", 32: "#56d364", 33: "#e3b341", 34: "#79c0ff", 35: "#d2a8ff", 36: "#56d4dd", 37: "#e6edf3"}
STYLE = (
    "<style>text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    f"font-size:{FONT_PX:g}px;white-space:pre}}"
    "@media (prefers-reduced-motion:no-preference){g.line{animation:come 1ms backwards}}"
    "@keyframes come{from{opacity:0}}</style>"
)


@dataclass(frozen=True, slots=True)
class Style:
    """What the escape sequences so far have set."""

    colour: int | None = None
    bold: bool = False
    dim: bool = False

    def after(self, codes: Iterable[int]) -> Style:
        """The style after one escape sequence. Raises ValueError for a code that is not drawn."""
        style = self
        for code in codes:
            match code:
                case 0:
                    style = Style()
                case 1:
                    style = replace(style, bold=True)
                case 2:
                    style = replace(style, dim=True)
                case 22:
                    style = replace(style, bold=False, dim=False)
                case 39:
                    style = replace(style, colour=None)
                case _ if code in COLOURS:
                    style = replace(style, colour=code)
                case _:
                    raise ValueError(f"escape sequence {code} is not drawn")
        return style

    def attributes(self) -> str:
        """As attributes of an SVG element."""
        fill = COLOURS[self.colour] if self.colour else DIM if self.dim else None
        return (f' fill="{fill}"' if fill else "") + (' font-weight="bold"' if self.bold else "")


Cell = tuple[str, Style]
Row = tuple[float, list[Cell]]


def draw(recording: Recording) -> str:
    """The terminal as SVG, with the command above what it printed."""
    prompt: Row = (
        0.0,
        [("$", Style(colour=32, bold=True)), (" ", Style()), *((letter, Style()) for letter in COMMAND)],
    )
    rows = [prompt, *_rows(recording)]
    width = 2 * MARGIN_PX + COLUMNS * ADVANCE_PX
    height = BAR_PX + 2 * MARGIN_PX + len(rows) * LEADING_PX
    last = "".join(letter for letter, _ in rows[-1][1])
    title, description = f"A terminal with a run of {COMMAND}", f"It ends with: {last}"
    return svg.document(width, height, title, description, _content(rows, width, height))


def _content(rows: Sequence[Row], width: float, height: float) -> Iterator[str]:
    yield STYLE
    yield f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{BACKGROUND}"/>'
    yield f'<path d="M0 {BAR_PX:g}V8a8 8 0 0 1 8-8H{width - 8:g}a8 8 0 0 1 8 8V{BAR_PX:g}z" fill="{BAR}"/>'
    for number, colour in enumerate(BUTTONS):
        yield f'<circle cx="{20 + 20 * number}" cy="{BAR_PX / 2:g}" r="6" fill="{colour}"/>'
    yield f'<g fill="{FOREGROUND}">'
    for number, row in enumerate(rows):
        yield _line(row, BAR_PX + MARGIN_PX + (number + 0.75) * LEADING_PX)
    yield "</g>"


def _rows(recording: Recording) -> list[Row]:
    """The lines of the terminal, each with the time of its first character; long ones go on in the next, as there."""
    rows: list[Row] = []
    row: list[Cell] = []
    came_s, style = 0.0, Style()
    for at_s, text in recording:
        for escape_codes, letter in re.findall(r"\x1b\[([0-9;]*)m|([^\x1b])", text.replace("\r", "")):
            if not letter:
                style = style.after(int(code or 0) for code in escape_codes.split(";"))
            elif letter == "\n":
                rows.append((came_s if row else at_s, row))
                row = []
            else:
                if len(row) == COLUMNS:
                    rows.append((came_s, row))
                    row = []
                came_s = came_s if row else at_s
                row.append((letter, style))
    return [*rows, (came_s, row)] if row else rows


def _line(row: Row, y: float) -> str:
    at_s, cells = row
    spans: list[str] = []
    column = 0
    while column < len(cells):
        style = cells[column][1]
        end = next((at for at in range(column, len(cells)) if cells[at][1] != style), len(cells))
        text = "".join(letter for letter, _ in cells[column:end])
        if shown := text.strip():
            start = column + len(text) - len(text.lstrip())
            spans.append(
                f'<text x="{MARGIN_PX + start * ADVANCE_PX:.2f}" y="{y:g}" '
                f'textLength="{len(shown) * ADVANCE_PX:.2f}"{style.attributes()}>{svg.text(shown)}</text>'
            )
        column = end
    return f'<g class="line" style="animation-delay:{at_s:.2f}s">{"".join(spans)}</g>'
