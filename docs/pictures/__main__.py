"""`make pictures`: draws every picture, or those named on the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from pictures import demo, parts, plots
from pictures.places import BENCHMARKS, PICTURES


def draw_parts() -> str:
    """From the manifests."""
    return parts.draw(parts.manifests())


def draw_demo() -> str:
    """From a new recording, which is stored beside it."""
    recording = demo.record()
    (PICTURES / "demo.cast").write_text(demo.as_cast(recording), encoding="utf-8")
    return demo.draw(recording)


def draw_forming() -> str:
    """From the stored results."""
    return plots.forming(json.loads((BENCHMARKS / "forming.json").read_text(encoding="utf-8")))


def draw_moving() -> str:
    """From the stored results."""
    return plots.moving(json.loads((BENCHMARKS / "moving.json").read_text(encoding="utf-8")))


DRAWN: dict[str, Callable[[], str]] = {
    "parts": draw_parts,
    "demo": draw_demo,
    "bench-forming": draw_forming,
    "bench-moving": draw_moving,
}


def main() -> None:
    """Writes docs/pictures/NAME.svg."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(DRAWN)}")
    names = parser.parse_args().names or list(DRAWN)
    if unknown := set(names) - set(DRAWN):
        parser.error(f"no such picture: {', '.join(sorted(unknown))}")
    for name in names:
        (PICTURES / f"{name}.svg").write_text(DRAWN[name](), encoding="utf-8")
        print(f"docs/pictures/{name}.svg")


if __name__ == "__main__":
    main()
