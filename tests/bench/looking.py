"""Functions for all benches: they start a tool, and look at the servers independently of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bootstrap.local.cluster import LocalCluster
from bootstrap.model.node import Node
from bootstrap.model.view import ClusterView
from bootstrap.nodes.client import Nodes


def start(
    *words: str | Path, environment: Mapping[str, str] | None = None, out: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Starts a tool as a separate process with additional environment variables. Its standard error is discarded."""
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )


def start_apply(environment: Mapping[str, str], *, out: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Starts `apply` as in the image: from bytecode and with only the packages that it needs.

    The latter requires that $BENCH_PYTHON names a Python without other packages, as `make bench` sets it.
    """
    return _start_program("apply", environment=environment, out=out)


def start_import(
    environment: Mapping[str, str], source: str, *, out: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Starts `import` in the same way."""
    return _start_program("import", "--from", source, environment=environment, out=out)


def _start_program(*words: str, environment: Mapping[str, str], out: int) -> subprocess.Popen[bytes]:
    python = os.environ.get("BENCH_PYTHON", sys.executable)
    return start(python, "-m", "bootstrap", *words, environment={**environment, "PYTHONDONTWRITEBYTECODE": ""}, out=out)


def view_of(cluster: LocalCluster, nodes: Nodes) -> ClusterView:
    """The current state of every server."""
    places = [(server.name, ordinal, server.address) for ordinal, server in enumerate(cluster.servers)]
    answers = nodes.look(places)
    found = [answers[pod, address] for pod, _, address in places]
    return ClusterView(nodes=tuple(node for node in found if isinstance(node, Node)))
