"""DNS and every node → one `ClusterView`. An unreachable peer is a fact in the view, not an exception."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from bootstrap.model.node import Address, Node, NodeId, Peer, Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import MoveSlots, Rejected, Write, recipient
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.discover import Listing, Names, Resolver, discover
from bootstrap.nodes.failures import Failure
from bootstrap.nodes.migration.transfer import SlotTransfer

_NETWORK = frozenset({UnreachableReason.CONNECTION_REFUSED, UnreachableReason.TIMEOUT, UnreachableReason.UNREACHABLE})
"""Silences in which no server said a word."""


class Observer:
    """The eyes and the one hand of a run: `look` and `glance` see, `tell` writes."""

    def __init__(self, *, resolver: Resolver, nodes: Nodes, names: Names, wanted: int) -> None:
        self._resolver = resolver
        self._nodes = nodes
        self._names = names
        self._wanted = wanted
        self._listing = Listing()
        self._elsewhere: frozenset[NodeId] = frozenset()

    def look(self) -> ClusterView:
        """Asks the DNS who is there, then asks each of them."""
        self._listing = discover(self._resolver, self._names, self._wanted)
        self._elsewhere = frozenset()
        view = self._ask_all()
        view = self._with_keys(view, view.slots_to_count())
        view = self._with_equipment(view)
        if view.unlisted() and not view.unreachable:
            self._elsewhere = self._alive_elsewhere(view)
            view = replace(view, alive_elsewhere=self._elsewhere)
        return view

    def refresh(self) -> ClusterView:
        """Asks the peers of the last look again, without the DNS: for watching something come true."""
        view = self._ask_all()
        return self._with_keys(view, view.open_slots())

    def _with_keys(self, view: ClusterView, slots: SlotSet) -> ClusterView:
        """The view with the masters' numbers of keys in each of the slots; whoever does not say is not there."""
        asked = {node.address: node.databases for node in view.nodes if node.role is Role.MASTER and node.keys}
        if not slots or not asked:
            return view
        counts = self._nodes.count(asked, slots)
        nodes, unreachable = [], list(view.unreachable)
        for node in view.nodes:
            found = counts.get(node.address, {})
            if isinstance(found, Failure):
                why, detail = found.why, found.detail
                unreachable.append(
                    UnreachablePeer(pod=node.pod, ordinal=node.ordinal, why=why, address=node.address, detail=detail)
                )
            else:
                nodes.append(replace(node, keys_in=found) if found else node)
        return replace(view, nodes=tuple(nodes), unreachable=tuple(unreachable))

    def _with_equipment(self, view: ClusterView) -> ClusterView:
        """The view with what functions and users there are, where a blank node stands beside owners of slots. What one
        of them does not say is not known of any: nothing is given to anybody then.
        """
        asked = {node.address: node for node in view.nodes if node.slots or node.blank}
        if not view.claimed() or not any(node.blank for node in asked.values()):
            return view
        told = {a: answer for a, answer in self._nodes.provisions(asked).items() if not isinstance(answer, Failure)}
        whole = len(told) == len(asked)
        functions = whole and all(libraries is not None for libraries, _ in told.values())
        acl = whole and all(users is not None for _, users in told.values())
        nodes = (
            replace(
                node,
                libraries=(told[node.address][0] or frozenset()) if functions and node.address in told else frozenset(),
                users=(told[node.address][1] or frozenset()) if acl and node.address in told else frozenset(),
            )
            for node in view.nodes
        )
        return replace(view, nodes=tuple(nodes))

    def move(self, moves: Sequence[MoveSlots], view: ClusterView) -> SlotTransfer:
        """Slots to be moved; see `execute.Transfer`."""
        return self._nodes.move(moves, view)

    def _ask_all(self) -> ClusterView:
        peers = self._listing.peers
        answers = self._nodes.look((peer.pod, peer.ordinal, address) for peer in peers for address in peer.addresses)
        chosen = choose({peer: {a: answers[peer.pod, a] for a in peer.addresses} for peer in peers})
        nodes = tuple(answer for answer in chosen.values() if isinstance(answer, Node))
        # Also beyond the wanted ordinals: a pod that is listed and silent may carry what would else count as lost.
        silent = tuple(answer for answer in chosen.values() if isinstance(answer, UnreachablePeer))
        missing = tuple(self._missing({peer.ordinal for peer in peers}))
        unreachable = tuple(sorted((*silent, *missing), key=lambda unreachable: unreachable.ordinal))
        return ClusterView(nodes=nodes, unreachable=unreachable, alive_elsewhere=self._elsewhere)

    def _alive_elsewhere(self, view: ClusterView) -> frozenset[NodeId]:
        """Members that no listed pod carries, and where the others know them, something answers: the member itself, or
        a server that does not say who it is (it loads, or wants another password) and so may be the member.
        """
        known = {
            (node_id, t.others[node_id].address) for node_id, known_by in view.unlisted().items() for t in known_by
        }
        places = {(node_id, address) for node_id, address in known if address is not None}
        answers = self._nodes.look((node_id, -1, address) for node_id, address in places)
        return frozenset(
            node_id
            for (node_id, _), answer in answers.items()
            if (answer.why not in _NETWORK if isinstance(answer, Failure) else answer.node_id == node_id)
        )

    def check_endpoints(self, endpoints: Sequence[Address]) -> list[str]:
        """What keeps somebody out at each of the addresses; "" where a node answers."""
        answers = self._nodes.look((str(door), -1, door) for door in endpoints)
        return [str(answer) if isinstance(answer := answers[str(door), door], Failure) else "" for door in endpoints]

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        """Sends every write to its node, each once. Returns those that were not accepted and why."""
        by_address: dict[Address, list[Write]] = {}
        for write in writes:
            by_address.setdefault(view.by_id[recipient(write)].address, []).append(write)
        return list(self._nodes.send(by_address))

    def _missing(self, listed: set[int]) -> Iterator[UnreachablePeer]:
        why, detail = UnreachableReason.NO_RECORD, ""
        if self._listing.error:
            why, detail = UnreachableReason.DNS_SILENT, self._listing.error
        elif self._listing.unexpected_names:
            detail = f"{self._names.service} lists other names: {', '.join(self._listing.unexpected_names)}"
        for ordinal in range(self._wanted):
            if ordinal not in listed:
                pod = f"{self._names.statefulset}-{ordinal}"
                yield UnreachablePeer(pod=pod, ordinal=ordinal, why=why, detail=detail)


def choose(answers: Mapping[Peer, Mapping[Address, Node | Failure]]) -> Mapping[Peer, Node | UnreachablePeer]:
    """For each peer the one node that is it, or why there is none; in ordinal order.

    A record may be stale and its address already another pod's. So an id that is the only answer of one peer is not
    taken for another's, and what is left unclear waits for the DNS.
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
        mine = [node for node_id, node in alive[peer].items() if sure.get(node_id, [peer]) == [peer]]
        if len(mine) == 1:
            chosen[peer] = mine[0]
        elif alive[peer]:
            detail = "stale DNS records, or an address that two pods share"
            chosen[peer] = UnreachablePeer(
                pod=peer.pod, ordinal=peer.ordinal, why=UnreachableReason.AMBIGUOUS, detail=detail
            )
        else:
            chosen[peer] = _absent(peer, answers[peer])
    return chosen


def _by_id(nodes: Iterable[Node]) -> Mapping[NodeId, Node]:
    """A dual-stack pod answers at two addresses: the one that it announces is taken, else the lowest."""
    found: dict[NodeId, Node] = {}
    for node in sorted(nodes, key=lambda node: (node.myself.address != node.address, node.address)):
        found.setdefault(node.node_id, node)
    return found


def _absent(peer: Peer, by_address: Mapping[Address, Node | Failure]) -> UnreachablePeer:
    """The most telling of several silences: a server's own word before a network's."""
    silences = [(address, answer) for address, answer in by_address.items() if isinstance(answer, Failure)]
    if not silences:
        return UnreachablePeer(pod=peer.pod, ordinal=peer.ordinal, why=UnreachableReason.NO_RECORD)
    address, silence = min(silences, key=lambda pair: (pair[1].why in _NETWORK, pair[0]))
    return UnreachablePeer(pod=peer.pod, ordinal=peer.ordinal, why=silence.why, address=address, detail=silence.detail)
