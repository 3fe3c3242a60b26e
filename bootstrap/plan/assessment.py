"""The facts that decisions depend on, each derived once for one plan.

The functions that compute a fact are in the module of its topic and take their inputs as arguments; `Assessment` calls
them when the fact is first asked for. Phases, refusals and findings take one Assessment and compute none of this again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, NodeId
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import ManualFailover, MoveSlots
from bootstrap.model.view import ClusterView
from bootstrap.plan import (
    clusters,
    epochs,
    lost_members,
    open_slots,
    placement,
    quickening,
    rebalance,
    spread,
    topology,
    unclaimed,
)
from bootstrap.plan.lost_members import LostMember
from bootstrap.plan.open_slots import OpenSlot
from bootstrap.plan.placement import FailureDomains
from bootstrap.plan.topology import Shard


@dataclass(frozen=True)  # without slots: the facts below are cached
class Assessment:
    """A view of a cluster, its declared shape, and what follows from the two."""

    view: ClusterView
    """Blank pods beyond the shape are not part of it: `view.within(desired.nodes)`."""
    desired: Desired

    def __post_init__(self) -> None:
        object.__setattr__(self, "view", self.view.within(self.desired.nodes))

    # Reachability

    @cached_property
    def unlinked(self) -> tuple[tuple[Node, Node], ...]:
        """Pairs of nodes that lack a link in at least one direction, lower ordinals first."""
        return tuple(self.view.unlinked())

    @cached_property
    def groups(self) -> tuple[tuple[Node, ...], ...]:
        """The nodes grouped by which nodes know each other, in ordinal order."""
        return clusters.groups(self.view)

    @cached_property
    def conflicting_clusters(self) -> tuple[tuple[Node, ...], ...]:
        """Groups of nodes that cannot be joined without losing data; empty where there is no conflict."""
        return clusters.in_conflict(self.view)

    @cached_property
    def quickening(self) -> bool:
        """True where nodes that have moved are linked with temporary settings, which are set now or still in effect."""
        return quickening.under_way(self.view, self.desired, self.unlinked)

    # Lost members

    @cached_property
    def absent_members(self) -> tuple[LostMember, ...]:
        """Members that some node knows and no reachable pod has, in the order of their ids."""
        return lost_members.absent(self.view, lost_members.given_up(self.view, self.desired))

    @cached_property
    def lost_members(self) -> tuple[LostMember, ...]:
        """Absent members that no pod has any more. None while pods do not answer: any of them may have the id."""
        return () if self.view.unreachable else self.absent_members

    @cached_property
    def replaced(self) -> frozenset[NodeId]:
        """Lost members without slots: replicas, and masters that another node has replaced."""
        return frozenset(lost.node_id for lost in self.lost_members if not lost.slots)

    @cached_property
    def loss_accepted(self) -> bool:
        """True when a person has accepted the loss of slots for the cluster exactly as it is."""
        return lost_members.loss_accepted(self.view, self.desired)

    @cached_property
    def unrecoverable_slots(self) -> SlotSet:
        """Slots of absent members of which no copy is left on a node that answers."""
        return lost_members.unrecoverable_slots(self.absent_members)

    # Owners of slots

    @cached_property
    def slots_after_failover(self) -> Mapping[NodeId, SlotSet]:
        """What each node owns once every absent or stale master has been replaced, and each owner claims its slots."""
        after = lost_members.slots_after_failover(self.view, self.absent_members)
        return {node: slots | self.unclaimed_slots.get(node, SlotSet()) for node, slots in after.items()}

    @cached_property
    def slots_after_repair(self) -> Mapping[NodeId, SlotSet]:
        """What each node owns once uncovered slots, too, have gone to the one master that holds keys of them."""
        held = self.uncovered_slots_by_holder
        return {node: slots | held.get(node, SlotSet()) for node, slots in self.slots_after_failover.items()}

    @cached_property
    def future_owners(self) -> frozenset[NodeId]:
        """Nodes that own slots once all repairs are done, the moves of open slots included."""
        owners = {node for node, slots in self.slots_after_repair.items() if slots}
        return frozenset(owners | self.incoming_slots.keys())

    # Open and uncovered slots

    @cached_property
    def open_slots(self) -> tuple[OpenSlot, ...]:
        """Slots with a migrating or importing state and exactly one owner, in ascending order."""
        return tuple(open_slots.find(self.view))

    @cached_property
    def incoming_slots(self) -> Mapping[NodeId, SlotSet]:
        """Open slots that are to have a new owner, by that node."""
        return open_slots.incoming(self.open_slots)

    @cached_property
    def uncovered_slots_with_keys(self) -> Mapping[int, tuple[Node, ...]]:
        """Masters that hold keys of slots without an owner, by slot."""
        return open_slots.uncovered_with_keys(self.view)

    @cached_property
    def uncovered_slots_by_holder(self) -> Mapping[NodeId, SlotSet]:
        """Slots without an owner of which exactly one master holds keys, by that master."""
        return open_slots.uncovered_by_holder(self.uncovered_slots_with_keys, self.view)

    @cached_property
    def unclaimed_slots(self) -> Mapping[NodeId, SlotSet]:
        """Slots without an owner that all others name as one master's, by that master."""
        return unclaimed.find(self.view, self.uncovered_slots_with_keys)

    # Config epochs

    @cached_property
    def outranked(self) -> Mapping[NodeId, tuple[Node, ...]]:
        """Owners of slots for which other nodes hold a higher config epoch than their own, with these nodes."""
        return epochs.outranked(self.view)

    # Shape

    @cached_property
    def leaving(self) -> tuple[Node, ...]:
        """Nodes on pods beyond the declared shape: the highest ordinals, in ordinal order."""
        return tuple(node for node in self.view.nodes if node.ordinal >= self.desired.nodes)

    @cached_property
    def to_drain(self) -> frozenset[NodeId]:
        """Owners of slots that are more than the declared shards and give all their slots away."""
        return rebalance.to_drain(self.view, self.desired, self.slots_after_failover)

    @cached_property
    def failure_domains(self) -> FailureDomains:
        """The Kubernetes node and zone of each node."""
        return placement.failure_domains(self.view)

    @property
    def _shards_to_place(self) -> int:
        """The declared shards, without those whose master is on a missing pod and cannot be replaced from here."""
        missing = sum(1 for each in self.absent_members if each.no_copy_left) if self.view.unreachable else 0
        return max(0, self.desired.shards - missing)

    @cached_property
    def spreading(self) -> tuple[ManualFailover, ...]:
        """Failovers after which fewer machines or zones can stop the cluster; empty while they have to wait."""
        if spread.obstacle(self.view, self.desired.spread_masters):
            return ()
        late = frozenset(node.node_id for node, _ in spread.lagging(self.view))
        return spread.failovers(self.view, self.failure_domains, late)

    @cached_property
    def not_spreading_because(self) -> str:
        """Why such failovers are possible and not planned; "" where they are planned, or none would help."""
        if self.spreading or not spread.failovers(self.view, self.failure_domains, ()):
            return ""
        return spread.obstacle(self.view, self.desired.spread_masters) or spread.lag_in_words(self.view)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The shards that the cluster should have, sorted by the ordinal of their master."""
        return topology.layout(
            self.view,
            self.desired,
            shards=self._shards_to_place,
            owned=self.slots_after_repair,
            owners=self.future_owners,
            unassignable=SlotSet() if self.loss_accepted else self.unrecoverable_slots,
            replaced=self.replaced,
            to_drain=self.to_drain,
            domains=self.failure_domains,
        )

    @cached_property
    def surplus(self) -> tuple[Node, ...]:
        """Linked replicas on pods of the shape that no shard needs, in ordinal order."""
        return topology.surplus(self.view, self.desired, self.shards)

    @cached_property
    def slot_moves(self) -> tuple[MoveSlots, ...]:
        """The moves after which every shard has its share of slots; empty where none is needed or wanted."""
        return rebalance.slot_moves(
            self.view, self.desired, [shard.master for shard in self.shards], to_drain=self.to_drain
        )
