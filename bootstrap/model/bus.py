"""Which nodes cannot reach each other on the cluster bus, in words. The data ports of all of them answer."""

from __future__ import annotations

from collections.abc import Sequence

from bootstrap.errors import AGAIN
from bootstrap.model.node import Node
from bootstrap.model.view import ClusterView

SHOWN = 3
"""Pods, ports or groups of pods in one list."""

_SUSPECTED = frozenset({"fail", "fail?"})

Missing = Sequence[tuple[Node, Node]]
"""Pairs of nodes of which the first cannot reach the second."""


def blocked(view: ClusterView) -> Missing:
    """The links that do not come up between nodes that know each other at their present addresses. One link alone that
    is down is a lost packet more often than a blocked port, and so is not reported.

    Where packets are dropped, a server reports a link on which it only tries to connect as connected (*measured*,
    Redis 7.0), so two nodes that suspect each other while both answer count, too. A node that has just been started
    again is suspected and suspects nobody.
    """
    missing = []
    for node in view.nodes:
        for peer in view.nodes:
            line, back = node.others.get(peer.node_id), peer.others.get(node.node_id)
            if line is None or line.address not in (peer.address, peer.myself.address):
                continue
            mutual = back is not None and line.flags & _SUSPECTED and back.flags & _SUSPECTED
            if mutual or not line.connected:
                missing.append((node, peer))
    return missing if len(missing) > 1 else []


def without_link(view: ClusterView) -> Missing:
    """Every link that is missing, also between nodes that have not been introduced to each other."""
    return [
        (one, other)
        for pair in view.unlinked()
        for one, other in (pair, pair[::-1])
        if not view.reaches(one.node_id, other.node_id)
    ]


def message(missing: Missing, view: ClusterView) -> str:
    """Who cannot reach whom, the port, and the likely cause."""
    return (
        f"{_who(missing, view)} on the cluster bus ({ports(missing)}), data ports answer: a NetworkPolicy, firewall or "
        "mesh blocks the bus"
    )


def remedy(missing: Missing) -> str:
    """What to allow."""
    return (
        f"allow TCP {ports(missing)} between the pods, in both directions: kubectl get networkpolicy lists the "
        f"policies; then {AGAIN}"
    )


def ports(missing: Missing) -> str:
    """The bus ports that cannot be reached: `port 16379`."""
    numbers = sorted({peer.bus_port for _, peer in missing})
    return f"port{'s' if len(numbers) > 1 else ''} {shortened([str(number) for number in numbers])}"


def shortened(texts: Sequence[str]) -> str:
    """The first of several texts, and how many are left out."""
    return ", ".join(texts if len(texts) <= SHOWN else [*texts[:SHOWN], f"and {len(texts) - SHOWN} more"])


def _who(missing: Missing, view: ClusterView) -> str:
    if len(missing) == len(view.nodes) * (len(view.nodes) - 1):
        return "no node can reach another"
    targets: dict[str, list[str]] = {}
    for one, other in missing:
        targets.setdefault(one.pod, []).append(other.pod)
    sources: dict[tuple[str, ...], list[str]] = {}
    for pod, peers in targets.items():
        sources.setdefault(tuple(peers), []).append(pod)
    lines = [f"{shortened(pods)} cannot reach {shortened(peers)}" for peers, pods in sources.items()]
    return "; ".join(lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more such groups"])
