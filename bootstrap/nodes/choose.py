"""Which of the servers at a pod's addresses is that pod's, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bootstrap.model.node import Address, Node, NodeId, Peer
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.nodes.failures import Failure

NETWORK = frozenset({UnreachableReason.CONNECTION_REFUSED, UnreachableReason.TIMEOUT, UnreachableReason.UNREACHABLE})
"""Reasons that come from the network: no server answered anything."""


def choose(answers: Mapping[Peer, Mapping[Address, Node | Failure]]) -> Mapping[Peer, Node | UnreachablePeer]:
    """For each peer the one node that is it, or why there is none; in ordinal order.

    A record may be stale and its address already another pod's. So a node that is the only answer of one peer is not
    taken for another peer's, and a peer that stays ambiguous waits for the DNS.
    """
    alive = {
        peer: _by_id(answer for answer in by_address.values() if isinstance(answer, Node))
        for peer, by_address in answers.items()
    }
    sure: dict[NodeId, list[Peer]] = {}
    for peer, nodes in alive.items():
        if len(nodes) == 1:
            sure.setdefault(next(iter(nodes)), []).append(peer)
    chosen: dict[Peer, Node | UnreachablePeer] = {}
    for peer in sorted(answers):
        own = [node for node_id, node in alive[peer].items() if sure.get(node_id, [peer]) == [peer]]
        if len(own) == 1:
            chosen[peer] = own[0]
        elif alive[peer]:
            detail = "stale DNS records, or an address that two pods share"
            chosen[peer] = unreachable_peer(peer.pod, peer.ordinal, Failure(UnreachableReason.AMBIGUOUS, detail))
        else:
            chosen[peer] = _silent(peer, answers[peer])
    return chosen


def _by_id(nodes: Iterable[Node]) -> Mapping[NodeId, Node]:
    """A dual-stack pod answers at two addresses: the one that it announces is taken, else the lowest."""
    found: dict[NodeId, Node] = {}
    for node in sorted(nodes, key=lambda node: (node.myself.address != node.address, node.address)):
        found.setdefault(node.node_id, node)
    return found


def _silent(peer: Peer, by_address: Mapping[Address, Node | Failure]) -> UnreachablePeer:
    """The most informative of several failures: one that a server reports before one of the network."""
    failures = [(address, answer) for address, answer in by_address.items() if isinstance(answer, Failure)]
    if not failures:
        return unreachable_peer(peer.pod, peer.ordinal, Failure(UnreachableReason.NO_RECORD))
    address, failure = min(failures, key=lambda pair: (pair[1].why in NETWORK, pair[0]))
    return unreachable_peer(peer.pod, peer.ordinal, failure, address)


def unreachable_peer(pod: str, ordinal: int, failure: Failure, address: Address | None = None) -> UnreachablePeer:
    """A peer that gave no answer, and why."""
    return UnreachablePeer(pod=pod, ordinal=ordinal, why=failure.why, address=address, detail=failure.detail)
