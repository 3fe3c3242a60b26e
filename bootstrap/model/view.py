"""TODO"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, groupby

from bootstrap.model.node import Node, NodeId, Place, Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.unreachable import UnreachablePeer

_SUSPECTED = frozenset({"fail", "fail?"})


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """All nodes at one look, sorted by pod ordinal, and the peers that did not answer."""

    nodes: tuple[Node, ...] = ()
    unreachable: tuple[UnreachablePeer, ...] = ()
    alive_elsewhere: frozenset[NodeId] = frozenset()
    """Members that no listed pod carries and that answered at the address where the others know them."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Where pods run, by pod; a pod of which that is not known is missing."""
    stuck: frozenset[NodeId] = frozenset()
    """Replicas that this run has watched for a while with their link neither up nor copying."""
    spares: tuple[Node, ...] = ()
    """Blank pods that the shape has no place for, beside a cluster that needs none of them; see `within`."""

    @cached_property
    def by_id(self) -> Mapping[NodeId, Node]:
        """The reachable nodes by their ids."""
        return {node.node_id: node for node in self.nodes}

    def name(self, node_id: NodeId) -> str:
        """The pod that carries an id, or the id's beginning where no reachable pod does."""
        node = self.by_id.get(node_id)
        return node.pod if node else f"{node_id[:8]}…"

    def agreed_on(self, node_id: NodeId) -> bool:
        """True when nobody says of that node what it does not say of itself."""
        return node_id not in self._beliefs[0]

    @property
    def agreed(self) -> bool:
        """True when that is so of every node."""
        return not self._beliefs[0]

    def linked(self, one: NodeId, other: NodeId) -> bool:
        """True when each of two nodes reaches the other. A node that is not in the view reaches nobody."""
        reached = self._beliefs[1]
        return other in reached.get(one, ()) and one in reached.get(other, ())

    def unlinked(self) -> Iterator[tuple[Node, Node]]:
        """Pairs of nodes that lack a link in some direction, lower ordinals first."""
        reached = self._beliefs[1]
        if all(len(ids) == len(self.nodes) - 1 for ids in reached.values()):
            return
        for one, other in combinations(self.nodes, 2):
            if not self.linked(one.node_id, other.node_id):
                yield one, other

    @cached_property
    def _beliefs(self) -> tuple[frozenset[NodeId], Mapping[NodeId, frozenset[NodeId]]]:
        """Of whom somebody says what that one does not, and whom each node reaches.

        Reaching: it knows that one's id and address, is connected to it, and does not suspect it. A link to where a pod
        was looks connected for a whole node timeout, where nobody refuses what is sent there; so the address counts.

        One pass and few calls: of a thousand nodes there are a million lines.
        """
        doubted, reached = set(), {}
        truth = {
            node.node_id: (node.slots, node.myself.master_id, node.role, (node.address, node.myself.address))
            for node in self.nodes
        }
        for node in self.nodes:
            ids = []
            for node_id, told in node.others.items():
                if (own := truth.get(node_id)) is None:
                    continue
                slots, master_id, role, addresses = own
                flags = told.flags
                if told.connected and _SUSPECTED.isdisjoint(flags) and told.address in addresses:
                    ids.append(node_id)
                if (
                    told.slots.ranges != slots.ranges
                    or told.master_id != master_id
                    or ("slave" in flags) is not (role is Role.REPLICA)
                ):
                    doubted.add(node_id)
            reached[node.node_id] = frozenset(ids)
        return frozenset(doubted), reached

    def within(self, pods: int) -> ClusterView:
        """The view of a cluster that takes so many pods: blank ones beyond them are spares, no part of it. Where nobody
        owns a slot yet there is no cluster to be beside.
        """
        spares = tuple(node for node in self.nodes if node.ordinal >= pods and node.blank)
        if not spares or not self.claimed():
            return self
        nodes = tuple(node for node in self.nodes if node not in spares)
        return replace(self, nodes=nodes, spares=(*self.spares, *spares))

    def unlisted(self) -> Mapping[NodeId, tuple[Node, ...]]:
        """Ids that some node knows and no reachable pod carries, with the nodes that know them."""
        return self._unlisted

    @cached_property
    def _unlisted(self) -> Mapping[NodeId, tuple[Node, ...]]:
        here = self.by_id.keys()
        strangers: dict[NodeId, list[Node]] = {}
        for node in self.nodes:
            for node_id in node.others.keys() - here:
                strangers.setdefault(node_id, []).append(node)
        return {node_id: tuple(strangers[node_id]) for node_id in sorted(strangers)}

    def describe_unreachable(self) -> str:
        """Who does not answer and why, on one line; pods with the same reason are told together."""

        def reason(unreachable: UnreachablePeer) -> tuple[str, str]:
            return (unreachable.why.value, unreachable.detail)

        lines = []
        for (why, detail), several in groupby(
            sorted(self.unreachable, key=lambda a: (reason(a), a.ordinal)), key=reason
        ):
            pods = ", ".join(unreachable.pod for unreachable in several)
            lines.append(f"{pods}: {why}" + (f" ({detail})" if detail else ""))
        return "; ".join(lines)

    def fingerprint(self) -> str:
        """A short name for the cluster as it stands: 12 hexadecimal digits over its masters' ids and slots; "" for
        none.
        """
        return fingerprint_of({node.node_id: node.slots for node in self.nodes if node.slots})

    def claimed(self) -> SlotSet:
        """Slots that at least one reachable node says are its own."""
        return self._claimed

    @cached_property
    def _claimed(self) -> SlotSet:
        return SlotSet.union_of(node.slots for node in self.nodes)

    def open_slots(self) -> SlotSet:
        """Slots that some node marks as migrating or importing."""
        return SlotSet.union_of(node.open_slots for node in self.nodes)

    def slots_to_count(self) -> SlotSet:
        """Slots of which it matters who holds keys: half moved ones, and ones without an owner while there are keys."""
        orphaned = self.claimed().complement() if any(node.keys for node in self.nodes) else SlotSet()
        return self.open_slots() | orphaned

    def bytes_of(self, owner: NodeId, slots: SlotSet) -> int:
        """Estimated bytes of data in some of an owner's slots: the owner's data set, in proportion to its slots."""
        node = self.by_id[owner]
        return node.memory.dataset_bytes * len(slots) // max(1, len(node.slots))


def fingerprint_of(owners: Mapping[NodeId, SlotSet]) -> str:
    """12 hexadecimal digits over the masters' ids and slots; "" where nobody owns any."""
    owned = sorted(f"{node_id} {slots}" for node_id, slots in owners.items())
    return hashlib.sha256("\n".join(owned).encode()).hexdigest()[:12] if owned else ""


def shard_numbers(view: ClusterView) -> Mapping[NodeId, int]:
    """The number of each node's shard. Shards are counted by their lowest slots: a failover changes no number."""
    owners = sorted((node.slots.ranges[0], node.node_id) for node in view.nodes if node.slots)
    number = {node_id: number for number, (_, node_id) in enumerate(owners)}
    master_of = {node.node_id: node.node_id if node.slots else node.myself.master_id for node in view.nodes}
    return {node_id: number[master] for node_id, master in master_of.items() if master in number}
