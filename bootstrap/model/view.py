"""The cluster as all reachable nodes describe it in one look, with the facts that need no declared shape."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, groupby

from bootstrap.model.links import LinkTrouble
from bootstrap.model.node import Copy, Node, NodeId, Place, Role
from bootstrap.model.old_side import OLD_ORDINAL, OldSide
from bootstrap.model.rollout import Revisions
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.unreachable import UnreachablePeer

_SUSPECTED = frozenset({"fail", "fail?"})


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """All nodes in one look, sorted by pod ordinal, and the peers that did not answer."""

    nodes: tuple[Node, ...] = ()
    unreachable: tuple[UnreachablePeer, ...] = ()
    alive_elsewhere: frozenset[NodeId] = frozenset()
    """Ids of members that the Service does not list and that answered at the address that other members report."""
    copies: tuple[Copy, ...] = ()
    """Servers with one node id."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Where pods run, by pod; pods with an unknown place are missing."""
    rollout: str = ""
    """Why pods are about to be replaced, or may be, in words; "" where nothing suggests that."""
    revisions: Revisions = field(default_factory=dict)
    """The pods of the StatefulSet as Kubernetes reports them, also those that do not answer."""
    stuck: frozenset[NodeId] = frozenset()
    """Replicas whose link this run has watched for a while, and which was neither up nor copying."""
    link_troubles: Mapping[NodeId, LinkTrouble] = field(default_factory=dict)
    """Why the links of replicas do not come up, by replica; only of those that have been down for a while, and that the
    run has asked about.
    """
    apart: SlotSet = field(default_factory=SlotSet)
    """Slots of `left_over.half_open` of whose keys none was found on both masters."""
    demoted: frozenset[NodeId] = frozenset()
    """Replicas that owned slots earlier in this run and have had no link since: their copy may be older than their
    master's."""
    former_masters: frozenset[NodeId] = frozenset()
    """Nodes that owned slots earlier in this run and are replicas now, and that have not been sent an EndPause."""
    spares: tuple[Node, ...] = ()
    """Blank pods beyond the declared shape, beside a cluster that does not need them; see `within`."""
    silent_spares: tuple[UnreachablePeer, ...] = ()
    """Pods beyond the declared shape that do not answer and are no members; see `without_silent_spares`."""
    old: OldSide | None = None
    """A cluster that is to be taken over, where one is declared. Its nodes come after the pods, and a node's address is
    its name.
    """

    @cached_property
    def by_id(self) -> Mapping[NodeId, Node]:
        """The reachable nodes by their ids."""
        return {node.node_id: node for node in self.nodes}

    def name(self, node_id: NodeId) -> str:
        """The pod with that node id, or the first eight digits of the id where no reachable pod has it."""
        node = self.by_id.get(node_id)
        return node.pod if node else f"{node_id[:8]}…"

    @property
    def pods(self) -> tuple[Node, ...]:
        """The nodes without those of a cluster that is to be taken over."""
        return tuple(node for node in self.nodes if node.ordinal < OLD_ORDINAL)

    @property
    def old_nodes(self) -> tuple[Node, ...]:
        """The nodes of a cluster that is to be taken over, or has been and follows."""
        return tuple(node for node in self.nodes if node.ordinal >= OLD_ORDINAL)

    def of_pods(self) -> ClusterView:
        """The view without a cluster that is to be taken over."""
        return replace(self, nodes=self.pods, old=None) if self.old else self

    @property
    def statefulset(self) -> str:
        """The name of the pods without their ordinals: that of their StatefulSet."""
        silent = (*self.unreachable, *self.silent_spares)
        pods = [*(node.pod for node in (*self.pods, *self.spares)), *(peer.pod for peer in silent)]
        return pods[0].rpartition("-")[0] if pods else "redis-app"

    def agreed_on(self, node_id: NodeId) -> bool:
        """True when every node that knows that node reports its slots, master and role as it does itself, as far as it
        can: see `_reports_master`.
        """
        return node_id not in self._reports[0]

    @property
    def agreed(self) -> bool:
        """True when `agreed_on` holds for every node."""
        return not self._reports[0]

    def reaches(self, one: NodeId, other: NodeId) -> bool:
        """True when a node has a working link to another one, whether or not that has one back."""
        return other in self._reports[1].get(one, ())

    def linked(self, one: NodeId, other: NodeId) -> bool:
        """True when each of two nodes can reach the other. A node that is not in the view reaches no other node."""
        reached = self._reports[1]
        return other in reached.get(one, ()) and one in reached.get(other, ())

    def unlinked(self) -> Iterator[tuple[Node, Node]]:
        """Pairs of nodes that lack a link in some direction, lower ordinals first."""
        reached = self._reports[1]
        if all(len(ids) == len(self.nodes) - 1 for ids in reached.values()):
            return
        for one, other in combinations(self.nodes, 2):
            if not self.linked(one.node_id, other.node_id):
                yield one, other

    @cached_property
    def _reports(self) -> tuple[frozenset[NodeId], Mapping[NodeId, frozenset[NodeId]]]:
        """Nodes whose self-description differs from what a peer reports about them, and the nodes each node can reach.

        A node reaches another one when it knows its id and its present address, is connected to it and does not suspect
        it. The address counts because a link to a pod's old address looks connected for a whole node timeout where
        packets to that address are dropped and not refused.

        One pass with few calls: a thousand nodes report a million lines.
        """
        disputed, reached = set(), {}
        own_facts = {
            node.node_id: (node.slots, node.myself.master_id, node.role, (node.address, node.myself.address))
            for node in self.nodes
        }
        for node in self.nodes:
            ids = []
            for node_id, line in node.others.items():
                if (own := own_facts.get(node_id)) is None:
                    continue
                slots, master_id, role, addresses = own
                flags = line.flags
                if line.connected and _SUSPECTED.isdisjoint(flags) and line.address in addresses:
                    ids.append(node_id)
                if (
                    line.slots.ranges != slots.ranges
                    or (line.master_id != master_id and self._reports_master(node, master_id))
                    or ("slave" in flags) is not (role is Role.REPLICA)
                ):
                    disputed.add(node_id)
            reached[node.node_id] = frozenset(ids)
        return frozenset(disputed), reached

    def _reports_master(self, reporter: Node, master_id: NodeId | None) -> bool:
        """Whether a node is able to report that master. A server sets the master of a replica only to a node that it
        knows. It is introduced to every pod, but it may never learn of a lost master: Redis 5.0 answers gossip about an
        unknown node with a handshake, which nobody completes (*measured*, 5.0.6), and no server learns by gossip of a
        node that it has forgotten or that has no address. Waiting for such a report would not end.
        """
        return master_id is None or master_id in self.by_id or master_id in reporter.others

    def within(self, pods: int) -> ClusterView:
        """The view of a cluster that takes `pods` pods: blank pods with higher ordinals are spares and not part of it.
        Where no node owns a slot yet, there is no cluster, and the view stays as it is.
        """
        view = self.without_silent_spares(pods)
        spares = tuple(node for node in view.nodes if node.ordinal >= pods and node.blank)
        if not spares or not view.claimed():
            return view
        nodes = tuple(node for node in view.nodes if node not in spares)
        return replace(view, nodes=nodes, spares=(*view.spares, *spares))

    def without_silent_spares(self, pods: int) -> ClusterView:
        """The view in which pods beyond the first `pods` that do not answer are not missing: all pods of the shape
        answer, they own all slots, and they know no member beside themselves.
        """
        silent = tuple(peer for peer in self.unreachable if peer.ordinal >= pods)
        if not silent or len(silent) < len(self.unreachable) or self.claimed() != ALL_SLOTS or self.unlisted():
            return self
        return replace(self, unreachable=(), silent_spares=(*self.silent_spares, *silent))

    def unlisted(self) -> Mapping[NodeId, tuple[Node, ...]]:
        """Ids that some node knows and no reachable pod has, sorted, with the nodes that know them."""
        return self._unlisted

    @cached_property
    def _unlisted(self) -> Mapping[NodeId, tuple[Node, ...]]:
        known_by: dict[NodeId, list[Node]] = {}
        for node in self.nodes:
            for node_id in node.others.keys() - self.by_id.keys():
                known_by.setdefault(node_id, []).append(node)
        return {node_id: tuple(known_by[node_id]) for node_id in sorted(known_by)}

    @cached_property
    def forming(self) -> bool:
        """True where no step can lose data: no key anywhere, no member lost, and not every node serves."""
        at_stake = any(node.keys for node in self.nodes) or self.unlisted()
        return not at_stake and not all(node.serving for node in self.nodes)

    def describe_unreachable(self) -> str:
        """The pods that do not answer and why, on one line; pods with the same reason are named together."""

        def reason(peer: UnreachablePeer) -> tuple[str, str]:
            return (peer.why.value, peer.detail)

        parts = []
        for (why, detail), peers in groupby(
            sorted(self.unreachable, key=lambda peer: (reason(peer), peer.ordinal)), key=reason
        ):
            pods = ", ".join(peer.pod for peer in peers)
            parts.append(f"{pods}: {why}" + (f" ({detail})" if detail else ""))
        return "; ".join(parts)

    def fingerprint(self) -> str:
        """A short name for the present state: 12 hexadecimal digits over the ids and slots of the masters; "" where no
        node owns a slot.
        """
        return fingerprint_of({node.node_id: node.slots for node in self.nodes if node.slots})

    def claimed(self) -> SlotSet:
        """Slots that at least one reachable node reports as its own."""
        return self._claimed

    @cached_property
    def _claimed(self) -> SlotSet:
        return SlotSet.union_of(node.slots for node in self.nodes)

    def open_slots(self) -> SlotSet:
        """Slots that some node marks as migrating or importing."""
        return SlotSet.union_of(node.open_slots for node in self.nodes)

    @property
    def serves(self) -> bool:
        """True where clients are served: every slot has an owner, and each member that answers reports itself ok."""
        return self.claimed() == ALL_SLOTS and all(node.serving for node in self.nodes if not node.blank)

    def slots_to_count(self) -> SlotSet:
        """Slots whose keys have to be counted on each node: open ones and, while any node has keys, uncovered ones."""
        uncovered = self.claimed().complement() if any(node.keys for node in self.nodes) else SlotSet()
        return self.open_slots() | uncovered

    def bytes_of(self, owner: NodeId, slots: SlotSet) -> int:
        """Estimated bytes of data in some slots of an owner: its data set in proportion to the number of its slots."""
        node = self.by_id[owner]
        return node.memory.dataset_bytes * len(slots) // max(1, len(node.slots))


def fingerprint_of(owners: Mapping[NodeId, SlotSet]) -> str:
    """12 hexadecimal digits over the masters' ids and slots; "" where no node owns any."""
    owned = sorted(f"{node_id} {slots}" for node_id, slots in owners.items())
    return hashlib.sha256("\n".join(owned).encode()).hexdigest()[:12] if owned else ""


def shard_numbers(view: ClusterView) -> Mapping[NodeId, int]:
    """The number of each node's shard, from 0, in the order of their lowest slots: a failover changes no number."""
    owners = sorted((node.slots.ranges[0], node.node_id) for node in view.nodes if node.slots)
    number = {node_id: number for number, (_, node_id) in enumerate(owners)}
    master_of = {node.node_id: node.node_id if node.slots else node.myself.master_id for node in view.nodes}
    return {node_id: number[master] for node_id, master in master_of.items() if master in number}
