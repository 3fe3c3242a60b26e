"""What every bench does: it starts a tool, and looks at the servers by itself."""

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
    """A tool as a process of its own, with more in its environment; what it complains of is not kept."""
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )


def start_apply(environment: Mapping[str, str], *, out: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """`apply` as the image has it: from bytecode, and beside the packages that it needs where $BENCH_PYTHON names a
    Python with no others, as `make bench` does.
    """
    python = os.environ.get("BENCH_PYTHON", sys.executable)
    return start(
        python, "-m", "bootstrap", "apply", environment={**environment, "PYTHONDONTWRITEBYTECODE": ""}, out=out
    )


def view_of(cluster: LocalCluster, nodes: Nodes) -> ClusterView:
    """What every server says now."""
    places = [(server.name, ordinal, server.address) for ordinal, server in enumerate(cluster.servers)]
    answers = nodes.look(places)
    found = [answers[pod, address] for pod, _, address in places]
    return ClusterView(nodes=tuple(node for node in found if isinstance(node, Node)))
