"""The DNS and every node → one `ClusterView`. An unreachable peer is a fact in the view, not an exception."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TYPE_CHECKING

from bootstrap.model import left_over
from bootstrap.model.bus import shortened
from bootstrap.model.links import LinkTrouble
from bootstrap.model.node import Address, Endpoint, Node, NodeId, Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import MoveSlots, Rejected, Write, recipient
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.nodes import copies as copies_of
from bootstrap.nodes.choose import NETWORK, choose, unreachable_peer
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.discover import Listing, Names, Resolver, discover
from bootstrap.nodes.failures import Failure

if TYPE_CHECKING:
    from bootstrap.nodes.migration.transfer import SlotTransfer


class Observer:
    """A run's access to the cluster: `look` and `refresh` read, `send` and `move` write. It remembers the last look's
    DNS answer.
    """

    def __init__(self, *, resolver: Resolver, nodes: Nodes, names: Names, wanted: int) -> None:
        """`wanted`: the number of pods that the declared shape takes."""
        self._resolver = resolver
        self._nodes = nodes
        self._names = names
        self._wanted = wanted
        self._listing = Listing()
        self._elsewhere: frozenset[NodeId] = frozenset()
        self._silent: tuple[UnreachablePeer, ...] = ()
        self._deserted: set[Address] = set()
        """Former places of members where nothing answered before."""

    def look(self) -> ClusterView:
        """Asks the DNS for the peers, then every peer for its state."""
        self._listing = discover(self._resolver, self._names, self._wanted)
        self._elsewhere, self._silent = frozenset(), ()
        view = self._ask_all()
        self._silent = (*view.unreachable, *view.silent_spares)
        view = self._with_copies(view)
        view = self._with_keys(view, view.slots_to_count())
        view = self._with_names(view)
        view = self._with_left_over(view)
        view = self._with_provisions(view)
        # While pods are missing, introductions come first, and do not wait for addresses where nothing answers.
        if view.unlisted() and not (view.unreachable and any(view.unlinked())):
            self._elsewhere = self._alive_elsewhere(view)
            view = replace(view, alive_elsewhere=self._elsewhere)
        return view

    def refresh(self) -> ClusterView:
        """Asks the peers of the last look again, without the DNS: for watching whether a step is settled.

        Those that did not answer then are not asked: a hung server would hold up each of these queries.
        """
        view = self._ask_all()
        return self._with_names(self._with_keys(view, view.open_slots()))

    def check_endpoints(self, endpoints: Sequence[Address]) -> list[str]:
        """Why a client cannot connect through each of the addresses; "" where a node answers."""
        answers = self._nodes.look((str(endpoint), -1, endpoint) for endpoint in endpoints)
        found = (answers[str(endpoint), endpoint] for endpoint in endpoints)
        return [str(answer) if isinstance(answer, Failure) else "" for answer in found]

    def client_endpoints(self, view: ClusterView) -> Mapping[Address, frozenset[Endpoint]]:
        """Where each node of the view sends its clients; a node that does not report it is left out."""
        return self._nodes.endpoints(node.address for node in view.nodes)

    def link_troubles(
        self, view: ClusterView, replicas: AbstractSet[NodeId], broken_off: AbstractSet[NodeId]
    ) -> Mapping[NodeId, LinkTrouble]:
        """The likely causes for replicas whose links are down; replicas of a master that does not answer are left out.
        `broken_off`: those that began to copy and stopped.
        """
        pairs = {}
        for node in view.nodes:
            if node.node_id in replicas and (master := view.by_id.get(node.myself.master_id or "")):
                pairs[node.node_id] = (node, master)
        return self._nodes.link_troubles(pairs, broken_off) if pairs else {}

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        """Sends every write to its node, once. Returns the writes that were not accepted, and why."""
        return list(self._nodes.send(_by_address(writes, view)))

    def denied_writes(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        """The writes that would be rejected for lack of a right. Nothing is changed."""
        return list(self._nodes.denied_writes(_by_address(writes, view)))

    def move(self, moves: Sequence[MoveSlots], view: ClusterView) -> SlotTransfer:
        """A transfer of slots. Nothing is sent before it is advanced."""
        return self._nodes.move(moves, view)

    def _ask_all(self) -> ClusterView:
        silent = {peer.ordinal for peer in self._silent}
        peers = [peer for peer in self._listing.peers if peer.ordinal not in silent]
        answers = self._nodes.look((peer.pod, peer.ordinal, address) for peer in peers for address in peer.addresses)
        chosen = choose({peer: {a: answers[peer.pod, a] for a in peer.addresses} for peer in peers})
        nodes = tuple(answer for answer in chosen.values() if isinstance(answer, Node))
        # Also beyond the wanted ordinals: a listed pod that does not answer may hold data that else counts as lost.
        failed = tuple(answer for answer in chosen.values() if isinstance(answer, UnreachablePeer))
        missing = tuple(self._missing({peer.ordinal for peer in peers} | silent))
        unreachable = tuple(sorted((*self._silent, *failed, *missing), key=lambda peer: peer.ordinal))
        copies = tuple(copies_of.among_pods(answer for answer in answers.values() if isinstance(answer, Node)))
        view = ClusterView(nodes=nodes, unreachable=unreachable, alive_elsewhere=self._elsewhere, copies=copies)
        return view.without_silent_spares(self._wanted)

    def _with_copies(self, view: ClusterView) -> ClusterView:
        """The view with the members that also answer at their former addresses. Each such address is asked until
        nothing answers there; a server that loads its data may be the member.
        """
        known = self._deserted.union(*((copy.address, copy.other) for copy in view.copies))
        former = {a: node for a, node in copies_of.former_places(view).items() if a not in known}
        if not former:
            return view
        answers = self._nodes.look_briefly(former)
        self._deserted |= {a for a, each in answers.items() if isinstance(each, Failure) and each.why.silent}
        return replace(view, copies=(*view.copies, *copies_of.elsewhere(former, answers)))

    def _missing(self, listed: set[int]) -> Iterator[UnreachablePeer]:
        """Wanted pods that the DNS does not list, and why."""
        why, detail, empty, others = UnreachableReason.NO_RECORD, "", None, bool(self._listing.unexpected_names)
        if self._listing.error:
            why = UnreachableReason.DNS_TRUNCATED if self._listing.truncated else UnreachableReason.DNS_SILENT
            detail = self._listing.error
        elif self._listing.unexpected_names:
            unexpected = shortened(self._listing.unexpected_names)
            detail = f"the Service {self._names.service} lists other names: {unexpected}"
        elif self._listing.nameless and not listed:
            why = UnreachableReason.SERVICE_NAME
            detail = f"{self._names.statefulset} has another serviceName than {self._names.service}"
        elif not listed:
            empty = (self._names.service, self._names.namespace)
            detail = f"the Service {empty[0]} in the namespace {empty[1]} lists no pod"
        for ordinal in range(self._wanted):
            if ordinal not in listed:
                peer = unreachable_peer(f"{self._names.statefulset}-{ordinal}", ordinal, Failure(why, detail))
                yield replace(peer, empty_service=empty, other_names=others and why is UnreachableReason.NO_RECORD)

    def _with_keys(self, view: ClusterView, slots: SlotSet) -> ClusterView:
        """The view with the number of keys that each master holds of each slot. A master that does not answer is
        unreachable.
        """
        asked = {node.address: node.databases for node in view.nodes if node.role is Role.MASTER and node.keys}
        if not slots or not asked:
            return view
        counts = self._nodes.count(asked, slots)
        view = _without_failed(view, counts)
        nodes = []
        for node in view.nodes:
            found = counts.get(node.address, {})
            nodes.append(replace(node, keys_in={} if isinstance(found, Failure) else found))
        return replace(view, nodes=tuple(nodes))

    def _with_left_over(self, view: ClusterView) -> ClusterView:
        """The view with the keys that each master holds of slots other than its own. They are not counted while a
        peer is missing: then nothing is decided, and such a look is repeated several times a second.
        """
        if view.unreachable:
            return view
        counts = self._nodes.count_left_over(
            {node.address: node.slots for node in view.nodes if node.role is Role.MASTER and node.keys}
        )
        view = _without_failed(view, counts)
        nodes = []
        for node in view.nodes:
            found = counts.get(node.address, {})
            nodes.append(replace(node, left_over={} if isinstance(found, Failure) else found))
        return replace(view, nodes=tuple(nodes))

    def _with_names(self, view: ClusterView) -> ClusterView:
        """The view with the slots of `half_open` whose two masters hold no key in common; they are left out where a
        master did not tell its keys.
        """
        half_open = left_over.half_open(view)
        asked: dict[Address, list[int]] = {}
        for slot, pair in half_open.items():
            for node in pair:
                asked.setdefault(node.address, []).append(slot)
        if not asked:
            return view
        answers = self._nodes.names({node.address: node.databases for node in view.nodes}, asked)
        apart = []
        for slot, (owner, other) in half_open.items():
            one, two = answers[owner.address], answers[other.address]
            if isinstance(one, Failure) or isinstance(two, Failure):
                continue
            here, there = one[slot], two[slot]
            if here is not None and there is not None and here.isdisjoint(there):
                apart.append((slot, slot))
        return replace(view, apart=SlotSet.of(*apart))

    def _with_provisions(self, view: ClusterView) -> ClusterView:
        """The view with each node's function libraries and ACL users, where a blank node stands beside owners of slots.
        Where one node does not report them, none are known of any node, so that no node is given an incomplete set.
        """
        asked = {node.address: node for node in view.nodes if node.slots or node.blank}
        if not view.claimed() or not any(node.blank for node in asked.values()):
            return view
        answers = self._nodes.provisions(asked)
        reported = {address: each for address, each in answers.items() if not isinstance(each, Failure)}
        complete = len(reported) == len(asked)
        functions = complete and all(libraries is not None for libraries, _ in reported.values())
        acl = complete and all(users is not None for _, users in reported.values())
        nodes = []
        for node in view.nodes:
            libraries, users = reported.get(node.address, (None, None))
            nodes.append(
                replace(
                    node,
                    libraries=(libraries or frozenset()) if functions else frozenset(),
                    users=(users or frozenset()) if acl else frozenset(),
                )
            )
        return replace(view, nodes=tuple(nodes))

    def _alive_elsewhere(self, view: ClusterView) -> frozenset[NodeId]:
        """Members that no listed pod carries, while something answers at an address where other nodes know them: the
        member itself, or a server that does not identify itself (it loads, or wants another password) and so may be
        the member.
        """
        known = {
            (node_id, node.others[node_id].address)
            for node_id, known_by in view.unlisted().items()
            for node in known_by
        }
        places = {(node_id, address) for node_id, address in known if address is not None}
        answers = self._nodes.look((node_id, -1, address) for node_id, address in places)
        return frozenset(
            node_id
            for (node_id, _), answer in answers.items()
            if (answer.why not in NETWORK if isinstance(answer, Failure) else answer.node_id == node_id)
        )


def _by_address(writes: Iterable[Write], view: ClusterView) -> dict[Address, list[Write]]:
    found: dict[Address, list[Write]] = {}
    for write in writes:
        found.setdefault(view.by_id[recipient(write)].address, []).append(write)
    return found


def _without_failed(view: ClusterView, answers: Mapping[Address, object]) -> ClusterView:
    """The view with each node that did not answer a further question as unreachable."""
    failed = {node.node_id: f for node in view.nodes if isinstance(f := answers.get(node.address), Failure)}
    silent = (
        unreachable_peer(n.pod, n.ordinal, failed[n.node_id], n.address) for n in view.nodes if n.node_id in failed
    )
    nodes = tuple(node for node in view.nodes if node.node_id not in failed)
    return replace(view, nodes=nodes, unreachable=(*view.unreachable, *silent)) if failed else view
