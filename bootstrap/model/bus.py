"""Which nodes cannot reach each other on the cluster bus, in words. The data ports of all of them answer."""

from __future__ import annotations

from collections.abc import Sequence

from bootstrap.errors import AGAIN, RUN_AGAIN
from bootstrap.model.node import DEFAULT_TIMEOUT_MS, Member, Node
from bootstrap.model.view import ClusterView

BUS_OFFSET = 10_000
"""The bus port is the port for clients plus this, unless cluster-port or cluster-announce-bus-port is set."""
SHOWN = 3
"""Pods, ports or groups of pods in one list."""

_SUSPECTED = frozenset({"fail", "fail?"})
_UNANSWERED_MS = 5000
"""Milliseconds. A shorter node timeout is temporary, and a busy machine may delay an answer for as long."""

Missing = Sequence[tuple[Node, Node]]
"""Pairs of nodes of which the first cannot reach the second."""


def unanswered(node: Node, line: Member) -> bool:
    """True where a peer has not answered for longer than the node timeout. Where only one direction is blocked, the
    peer's own packets still arrive, so a server never suspects it and reports the link as connected, but cannot send
    it anything: no vote reaches it, so it is not elected (*measured*, Redis 7.0).
    """
    return line.unanswered_ms > max(node.timeout_ms or DEFAULT_TIMEOUT_MS, _UNANSWERED_MS)


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
            if mutual or not line.connected or unanswered(node, line):
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
    with_tls, without_tls = _by_tls(missing)
    cause = "a NetworkPolicy, firewall or mesh blocks the bus"
    if elsewhere := _announced_elsewhere(missing):
        places = [f"{node.pod} announces {node.myself.address} and answers at {node.address}" for node in elsewhere]
        cause = f"{shortened(places)}, and the others connect to what it announces"
    elif with_tls and without_tls:
        cause = f"tls-cluster is yes on {shortened(with_tls)} and no on {shortened(without_tls)}"
    elif with_tls:
        cause += ", or the servers reject each other's certificates"
    return f"{_who(missing, view)} on the cluster bus ({ports(missing)}), data ports answer: {cause}"


def remedy(missing: Missing) -> str:
    """What to allow, or to correct."""
    with_tls, without_tls = _by_tls(missing)
    if elsewhere := _announced_elsewhere(missing):
        pod = elsewhere[0].pod
        return (
            f"correct cluster-announce-ip and cluster-announce-port to where the pod answers: kubectl exec {pod} -- "
            f"redis-cli CONFIG GET 'cluster-announce-*', CONFIG SET, and the same in redis.conf or the StatefulSet's "
            f"args; then {RUN_AGAIN}"
        )
    if with_tls and without_tls:
        return f"give tls-cluster one value in the redis.conf of all pods and restart them; then {RUN_AGAIN}"
    listed = (
        f"allow TCP {ports(missing)} between the pods, in both directions: kubectl get networkpolicy lists the policies"
    )
    if with_tls:
        listed += f"; kubectl logs {missing[0][1].pod} shows certificates that it rejects"
    if any(peer.bus_port != peer.address.port + BUS_OFFSET for _, peer in missing):
        listed += (
            "; if the servers listen on other ports, correct cluster-announce-bus-port: kubectl exec "
            f"{missing[0][1].pod} -- redis-cli CONFIG GET cluster*port"
        )
    return f"{listed}; then {AGAIN}"


def _announced_elsewhere(missing: Missing) -> list[Node]:
    """The nodes that cannot be reached and announce another address than the one at which they answer."""
    peers = {peer.node_id: peer for _, peer in missing}
    return [peer for peer in peers.values() if peer.myself.address not in (None, peer.address)]


def _by_tls(missing: Missing) -> tuple[list[str], list[str]]:
    """The pods whose bus speaks TLS, and those whose bus does not, as far as that is known."""
    found = {node.pod: node.config.get("tls-cluster") for pair in missing for node in pair}
    return [pod for pod, value in found.items() if value == "yes"], [p for p, value in found.items() if value == "no"]


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
