"""Where the sources of the pictures are, and where the pictures go."""

from pathlib import Path

PICTURES = Path(__file__).resolve().parent
BENCHMARKS = PICTURES.parent / "benchmarks"
ROOT = PICTURES.parents[1]
