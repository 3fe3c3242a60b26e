"""The cluster that is to be taken over, beside the pods: `BothSides` is a `World` in whose views both are nodes.

The old members are found through the addresses that a person gave, and through the pods once these have joined. Their
passwords may differ from those of the pods, so each side has its own connections.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from bootstrap.model.bus import BUS_OFFSET
from bootstrap.model.links import LinkTrouble
from bootstrap.model.node import Address, Endpoint, Node, NodeId
from bootstrap.model.old_side import OLD_ORDINAL, OldSide
from bootstrap.model.steps import MoveSlots, Rejected, Write, recipient
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.nodes.choose import unreachable_peer
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import DEFAULT_USER, Credentials
from bootstrap.nodes.discover import NoAnswer, Resolver
from bootstrap.nodes.failures import Failure
from bootstrap.nodes.observe import Observer
from bootstrap.nodes.traits import clients_locked_out, failing_logins, login_of, traits_of

if TYPE_CHECKING:
    from bootstrap.nodes.migration.transfer import SlotTransfer

CONNECT_S = 1.5
"""Seconds in which a port has to accept a connection."""
_WORKERS_MAX = 16


class BothSides:
    """The pods and the old cluster. Writes go to each node by the connections of its side."""

    def __init__(
        self,
        *,
        pods: Observer,
        nodes: Nodes,
        old: Nodes,
        credentials: tuple[Credentials, Credentials],
        seeds: Sequence[Address],
        resolver: Resolver,
        zones: Sequence[str],
    ) -> None:
        """`nodes` and `old`: the connections to the pods and to the old cluster; `credentials`: theirs, in that order.
        `seeds`: hosts and ports that a person gave; `zones`: domains in which a short host name is looked up.
        """
        self._pods, self._nodes, self._old = pods, nodes, old
        self._credentials = credentials
        self._seeds, self._resolver, self._zones = seeds, resolver, zones
        self._members: dict[NodeId, Address] = {}
        """The old members and their addresses, as the last look found them."""
        self._side = OldSide(seeds=", ".join(map(str, seeds)))

    def look(self) -> ClusterView:
        """Looks up the peers and the old members, queries each, and finds out what decides about a takeover."""
        view = self._pods.look()
        own = {node.address for node in (*view.nodes, *view.spares)}
        places, errors = self._addresses()
        answers = self._old.look(("", OLD_ORDINAL, place) for place in sorted(places - own))
        seeds = [answer for answer in answers.values() if isinstance(answer, Node)]
        errors += [f"{place}: {each}" for (_, place), each in answers.items() if isinstance(each, Failure)]
        pods = {node.node_id for node in (*view.nodes, *view.spares)}
        theirs = _members(seeds, but=pods)
        theirs |= {n.node_id: n.address for n in seeds if n.node_id not in pods and n.others}
        ours = _members(view.nodes, but=pods)  # old nodes, once the pods have joined; else lost members of their own
        have_joined = bool(theirs.keys() & ours.keys()) or any(seed.others.keys() & pods for seed in seeds)
        self._members = ours | theirs if have_joined or not seeds else theirs
        silent, nodes = self._ask_members(view)
        silent = silent if have_joined or seeds else ()
        self._side = OldSide(
            seeds=self._side.seeds,
            first=frozenset(node.node_id for node in seeds),
            silent=silent,
            left=sum(1 for node in seeds if node.blank and node.node_id not in pods),
            own=len(places & own),
            no_cluster="; ".join(
                f"{place} {each.why.value}"
                for (_, place), each in answers.items()
                if isinstance(each, Failure) and each.why in (UnreachableReason.SENTINEL, UnreachableReason.CLUSTER_OFF)
            ),
            error="" if seeds or places & own else "; ".join(errors),
        )
        view = self._beside(view, nodes)
        return self._with_traits(view) if view.old_nodes else view

    def refresh(self) -> ClusterView:
        """Queries the peers and the members of the latest look again."""
        view = self._pods.refresh()
        _, nodes = self._ask_members(view)
        return self._beside(view, nodes)

    def check_endpoints(self, endpoints: Sequence[Address]) -> list[str]:
        """For each address of a pod or Service, why no node answers there; "" where one does."""
        return self._pods.check_endpoints(endpoints)

    def client_endpoints(self, view: ClusterView) -> Mapping[Address, frozenset[Endpoint]]:
        """Where each pod sends its clients. What the old nodes say about them is the old cluster's."""
        return self._pods.client_endpoints(replace(view, nodes=view.pods))

    def link_troubles(
        self, view: ClusterView, replicas: AbstractSet[NodeId], broken_off: AbstractSet[NodeId]
    ) -> Mapping[NodeId, LinkTrouble]:
        """The likely causes for replicas whose links are down. Each replica is asked by the connections of its side."""
        found: dict[NodeId, LinkTrouble] = {}
        for nodes, side in ((self._nodes, view.pods), (self._old, view.old_nodes)):
            pairs = {
                node.node_id: (node, master)
                for node in side
                if node.node_id in replicas and (master := view.by_id.get(node.myself.master_id or ""))
            }
            found |= nodes.link_troubles(pairs, broken_off) if pairs else {}
        return found

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        """Sends each write once; returns those that were not accepted, with the reason."""
        return [rejected for nodes, by_address in self._by_side(writes, view) for rejected in nodes.send(by_address)]

    def denied_writes(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        """The writes that servers would reject for lack of a right; changes nothing."""
        return [no for nodes, by_address in self._by_side(writes, view) for no in nodes.denied_writes(by_address)]

    def move(self, moves: Sequence[MoveSlots], view: ClusterView) -> SlotTransfer:
        """Slots move between pods alone, once no old node is left."""
        return self._pods.move(moves, view)

    def _by_side(
        self, writes: Iterable[Write], view: ClusterView
    ) -> Iterator[tuple[Nodes, Mapping[Address, Sequence[Write]]]]:
        of_pods: dict[Address, list[Write]] = {}
        of_old: dict[Address, list[Write]] = {}
        for write in writes:
            node = view.by_id[recipient(write)]
            side = of_old if node.ordinal >= OLD_ORDINAL else of_pods
            side.setdefault(node.address, []).append(write)
        yield from ((nodes, side) for nodes, side in ((self._nodes, of_pods), (self._old, of_old)) if side)

    def _addresses(self) -> tuple[set[Address], list[str]]:
        """The addresses of the given hosts, and why a host has none."""
        found: set[Address] = set()
        errors: list[str] = []
        for seed in self._seeds:
            try:
                found |= {Address(each, seed.port) for each in self._hosts(seed.host)}
            except (OSError, NoAnswer) as error:
                errors.append(f"{seed.host}: {getattr(error, 'strerror', None) or error}")
        return found, errors

    def _hosts(self, host: str) -> Sequence[str]:
        """The addresses of a host: by the DNS of the cluster, in its domains first, else as this machine finds them."""
        if ":" in host or host.replace(".", "").isdigit():
            return (host,)
        for zone in self._zones:
            if found := self._resolver.hosts(f"{host}.{zone}" if zone else f"{host}."):
                return found
        return sorted({str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})

    def _ask_members(self, view: ClusterView) -> tuple[tuple[UnreachablePeer, ...], tuple[Node, ...]]:
        """The old members that do not answer, and those that do, in the order of their addresses."""
        pods = {node.node_id for node in (*view.nodes, *view.spares)}
        ordered = sorted((address, node_id) for node_id, address in self._members.items() if node_id not in pods)
        answers = self._old.look((node_id, OLD_ORDINAL + at, place) for at, (place, node_id) in enumerate(ordered))
        nodes, silent = [], []
        for at, (place, node_id) in enumerate(ordered):
            answer = answers[node_id, place]
            if isinstance(answer, Node) and answer.node_id == node_id:
                nodes.append(replace(answer, pod=str(place)))
            else:
                why = answer if isinstance(answer, Failure) else Failure(UnreachableReason.AMBIGUOUS, "another node")
                silent.append(unreachable_peer(str(place), OLD_ORDINAL + at, why, place))
        return tuple(silent), tuple(nodes)

    def _beside(self, view: ClusterView, nodes: Sequence[Node]) -> ClusterView:
        """The view of the pods with the old nodes after them."""
        ids = {node.node_id for node in nodes}
        return replace(
            view,
            nodes=(*view.nodes, *nodes),
            alive_elsewhere=view.alive_elsewhere - ids,
            old=self._side,
        )

    def _with_traits(self, view: ClusterView) -> ClusterView:
        """The view with what decides about joining the two sides, as far as it can be found out."""
        sides = ((self._nodes, view.pods), (self._old, view.old_nodes))
        asked = {
            node.node_id: found
            for nodes, side in sides
            for node, found in zip(side, nodes.ask([n.address for n in side], traits_of), strict=True)
        }
        known = {node_id: each for node_id, each in asked.items() if not isinstance(each, Failure)}
        unchecked = [f"{view.name(i)}: {each}" for i, each in asked.items() if isinstance(each, Failure)]
        unchecked += [f"{view.name(i)}: {each.unknown}" for i, each in known.items() if each.unknown]
        logins = {node.node_id: login_of(known[node.node_id]) for node in view.nodes if node.node_id in known}
        users = {node_id: frozenset(each.users) for node_id, each in known.items()}
        if self._old is self._nodes and not self._credentials[0].username:
            nodes = (replace(node, users=users.get(node.node_id, frozenset())) for node in view.nodes)
            view = replace(view, nodes=tuple(nodes))
        else:
            unchecked += _users_left(view, users)
        trouble = (
            *failing_logins(view, logins, self._credentials[0]),
            *clients_locked_out(view, {i: each.users for i, each in known.items()}, self._credentials),
        )
        side = replace(
            view.old or self._side,
            traits={node_id: each.traits for node_id, each in known.items()},
            logins=trouble,
            ports=tuple(_closed(view.old_nodes)),
            unchecked=tuple(dict.fromkeys(unchecked)),
        )
        return replace(view, old=side)


def _members(reporters: Iterable[Node], *, but: AbstractSet[NodeId]) -> dict[NodeId, Address]:
    """The members that these nodes know, beside the pods, and where: as the first of them reports it."""
    found: dict[NodeId, Address] = {}
    for node in reporters:
        for node_id, line in node.others.items():
            if node_id not in but and line.address is not None:
                found.setdefault(node_id, line.address)
    return found


def _users_left(view: ClusterView, users: Mapping[NodeId, frozenset[str]]) -> Iterator[str]:
    """ACL users that pods lack, where this run cannot copy them: it logs in as a user without that right, or with
    another password to the old nodes.
    """
    here = frozenset.intersection(*(users.get(node.node_id, frozenset()) for node in view.pods)) if view.pods else set()
    there = frozenset().union(*(users.get(node.node_id, frozenset()) for node in view.old_nodes))
    if missing := sorted(there - here - {DEFAULT_USER}):
        yield f"clients may use these ACL users of the old cluster, which the pods may lack: {', '.join(missing)}"


def _closed(nodes: Sequence[Node]) -> Iterator[str]:
    """The bus ports that accept no connection from here, and why."""

    def try_bus(node: Node) -> str:
        port = node.bus_port or node.address.port + BUS_OFFSET
        try:
            with socket.create_connection((node.address.host, port), timeout=CONNECT_S):
                return ""
        except OSError as error:
            return f"bus port {port} of {node.pod}: {error.strerror or 'no answer in time'}"

    if nodes:
        with ThreadPoolExecutor(max_workers=min(_WORKERS_MAX, len(nodes))) as workers:
            yield from filter(None, workers.map(try_bus, nodes))
