"""When not to act. Each rule names what it saw, on which node, and what a person can do; all of them speak at once.

What cannot be told apart from its dangerous twin is refused. Whoever adds a repair takes a rule away or narrows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from bootstrap.errors import Reason
from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, NodeId, Role, mebibytes
from bootstrap.model.slots import SlotSet
from bootstrap.model.view import ClusterView
from bootstrap.plan.lost_members import loss_accepted, lost_members, slots_after_failover, unrecoverable_slots
from bootstrap.plan.open_slots import incoming_slots, open_slots, uncovered_slots_by_holder, uncovered_slots_with_keys
from bootstrap.plan.rebalance import slot_moves
from bootstrap.plan.topology import Shard, surplus


def reasons_to_refuse(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Reason]:
    """Every reason why no step may be taken from `view`; none means that the planner may go on."""
    return chain(
        _wrong_number_of_pods(view, desired),
        _two_clusters(view),
        _members_elsewhere(view),
        _keys_on_several(view),
        _slots_lost(view, desired),
        _moved_to_the_lost(view, desired),
        _keys_outside(view, _to_be_theirs(view)),
        _too_few_masters(view, desired, shards),
        _shrunk_too_early(view, desired),
        _no_copy_left(view, desired),
    )


def reasons_not_to_wipe(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    """What stands against forming anew, whatever a person has confirmed. The fingerprint names owners alone, so keys of
    a master without slots are never meant by it, wherever they belong.
    """
    return chain(_pods_beyond(view, desired), _members_elsewhere(view), _keys_outside(view, {}))


def clusters(view: ClusterView) -> tuple[tuple[Node, ...], ...]:
    """The nodes grouped by who knows whom, in ordinal order: a group is one cluster, or will be with its links up."""
    if any(not view.by_id.keys() - node.others.keys() - {node.node_id} for node in view.nodes[:1]):
        return (view.nodes,)  # the first one knows all others
    neighbours: dict[NodeId, set[NodeId]] = {node.node_id: set() for node in view.nodes}
    for node in view.nodes:
        for known in node.others.keys() & neighbours.keys():
            neighbours[node.node_id].add(known)
            neighbours[known].add(node.node_id)
    seen: set[NodeId] = set()
    groups: list[tuple[Node, ...]] = []
    for node in view.nodes:
        if node.node_id in seen:
            continue
        group, edge = {node.node_id}, [node.node_id]
        while edge:
            fresh = neighbours[edge.pop()] - group
            group |= fresh
            edge.extend(fresh)
        seen |= group
        groups.append(tuple(other for other in view.nodes if other.node_id in group))
    return tuple(groups)


def _wrong_number_of_pods(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    """Fewer cannot be the shape. More can, beside a formed cluster: those are drained, or blank and no part of it."""
    found = len(view.nodes) + len(view.unreachable) + (0 if view.claimed() else len(view.spares))
    if found < desired.nodes or (found > desired.nodes and not view.claimed()):
        yield _number_of_pods(found, desired)


def _number_of_pods(found: int, desired: Desired) -> Reason:
    return Reason(
        code="number-of-pods",
        message=f"{found} pods are listed, the shape of {desired.shards} shards with "
        f"{desired.replicas_per_shard} replicas each takes {desired.nodes}",
        remedy="make BOOTSTRAP_SHARDS x (1 + BOOTSTRAP_REPLICAS_PER_SHARD) equal to the StatefulSet's replicas",
    )


def _pods_beyond(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    """What is formed anew is formed on the pods of the shape, no more and no fewer."""
    found = len(view.nodes) + len(view.unreachable) + len(view.spares)
    if found != desired.nodes:
        yield _number_of_pods(found, desired)


def _two_clusters(view: ClusterView) -> Iterator[Reason]:
    """Groups of nodes that know nothing of each other. Joined, a slot that two of them own would keep the higher epoch
    and lose the other's keys, and a replica that follows nobody here would be given another master and flushed.

    Groups without such a slot or replica are no danger: so looks a forming that was killed, or one cluster whose parts
    have lost sight of each other.
    """
    groups = [group for group in clusters(view) if any(node.slots for node in group) or masterless_replicas(group)]
    owned = sum(len(node.slots) for group in groups for node in group)
    uncovered_slots_with_keys = any(masterless_replicas(group) for group in groups)
    if len(groups) < 2 or (owned == len(view.claimed()) and not uncovered_slots_with_keys):
        return
    for group in groups:
        masters = [node for node in group if node.slots]
        yield Reason(
            code="two-clusters",
            message=f"{', '.join(node.pod for node in group)}: a cluster of its own, with "
            f"{sum(len(node.slots) for node in masters)} slots and {sum(node.keys for node in group)} keys",
            remedy="decide which cluster is to stay; empty the pods of the other and delete their volumes",
            node=group[0].pod,
        )


def masterless_replicas(group: tuple[Node, ...]) -> bool:
    """True where a replica holds keys and nobody in its own group owns slots."""
    owners = any(node.slots for node in group)
    return not owners and any(node.keys and node.role is Role.REPLICA for node in group)


def _members_elsewhere(view: ClusterView) -> Iterator[Reason]:
    """A cluster that reaches beyond this Service: repairing it from here would cut off, or merge, what is not ours."""
    for node_id, known_by in view.unlisted().items():
        if node_id in view.alive_elsewhere:
            told = known_by[0].others[node_id]
            yield Reason(
                code="member-elsewhere",
                message=f"{node_id} answers at {told.address}; {', '.join(node.pod for node in known_by)} know it, "
                f"and BOOTSTRAP_SERVICE does not list it (slots: {told.slots or 'none'})",
                remedy="let the headless Service list that node, or take it out of the cluster, and run again",
                node=known_by[0].pod,
            )


def _keys_on_several(view: ClusterView) -> Iterator[Reason]:
    """Keys of one slot on more nodes than its owner and one other: nobody can say which of two values is the newer."""
    torn = {move.slot: (move.owner, *move.holders) for move in open_slots(view) if len(move.holders) > 1}
    torn |= {slot: holders for slot, holders in uncovered_slots_with_keys(view).items() if len(holders) > 1}
    for slot, holders in sorted(torn.items()):
        where = ", ".join(f"{node.pod} ({node.keys_in.get(slot, 0)} keys)" for node in holders)
        yield Reason(
            code="keys-on-several",
            message=f"slot {slot} has keys on several nodes: {where}",
            remedy=f"look at them with CLUSTER GETKEYSINSLOT {slot} 10, delete those that are not wanted, run again",
            node=holders[0].pod,
        )


def _slots_lost(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    """Slots of which no copy is left: their keys may be on a disk that can still come back. Given to somebody else the
    cluster would serve again, and the loss would be final. That is a person's decision, for this very state.

    Where every pod remembers the cluster and nobody is missing, no disk can come back: a slot without an owner is then
    only that, and gets one.
    """
    if loss_accepted(view, desired):
        return
    holders = [node for node in view.nodes if node.keys and (node.slots or node.role is Role.REPLICA)]
    missing = bool(view.unlisted()) or any(node.blank for node in view.nodes)
    lost = unrecoverable_slots(view)
    homed = uncovered_slots_by_holder(view).values()
    unowned = SlotSet.union_of([*slots_after_failover(view).values(), *homed, lost]).complement()
    unowned = unowned if holders and missing else SlotSet()
    if (lost or unowned) and not any(_two_clusters(view)):
        yield Reason(
            code="slots-lost",
            message=f"no copy is left of the slots {lost | unowned}: the nodes that held them are gone",
            remedy="bring back a pod that held them, with its disk; or accept that their keys are lost: "
            f"python -m bootstrap apply --accept-loss {view.fingerprint()}, or BOOTSTRAP_ACCEPT_LOSS in the settings",
        )


def _moved_to_the_lost(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    """Slots that were on their way to a master that is lost and owned none yet, so that nobody is elected in its place.
    Its replicas may have the only copy of the keys that had arrived; given another master they would drop it.
    """
    if loss_accepted(view, desired):
        return
    at_home = {slot for node in view.nodes if node.role is Role.MASTER for slot, _ in node.myself.importing}
    marks = [(slot, node, other) for node in view.nodes for slot, other in node.myself.migrating if slot not in at_home]
    for loss in lost_members(view):
        coming = [(slot, node) for slot, node, other in marks if other == loss.node_id]
        if loss.slots or not coming:
            continue
        slots = SlotSet.of(*((slot, slot) for slot, _ in coming))
        holders = [candidate for candidate in loss.candidates if candidate.keys]
        message = f"the slots {slots} were moving to a master that is lost"
        remedy = "bring back its disk; or accept that the keys which had arrived there are lost: "
        remedy += f"python -m bootstrap apply --accept-loss {view.fingerprint()}"
        if holders:
            message += f", and {holders[0].pod} has the only copy of what had arrived ({holders[0].keys} keys)"
            words = "; ".join(f"CLUSTER SETSLOT {slot} IMPORTING {node.node_id}" for slot, node in coming[:3])
            more = " and so on for each of them" if len(coming) > 3 else ""
            remedy = f"on {holders[0].pod}: CLUSTER FAILOVER TAKEOVER, then {words}{more}; then run again"
        yield Reason(code="moved-to-the-lost", message=message, remedy=remedy, node=holders[0].pod if holders else None)


def _to_be_theirs(view: ClusterView) -> Mapping[NodeId, SlotSet]:
    home, coming = uncovered_slots_by_holder(view), incoming_slots(view)
    return {node: home.get(node, SlotSet()) | coming.get(node, SlotSet()) for node in {*home, *coming}}


def _keys_outside(view: ClusterView, home: Mapping[NodeId, SlotSet]) -> Iterator[Reason]:
    """Masters without slots that hold keys, other than those of slots that are to be theirs."""
    for node in view.nodes:
        explained = sum(node.keys_in.get(slot, 0) for slot in home.get(node.node_id, ()))
        if node.keys > explained and node.role is Role.MASTER and not node.slots:
            remedy = "save what is worth saving, empty that node, and run again"
            if node.open_slots:
                remedy = (
                    "do not empty it: it imports slots, and may hold the only copy of their keys; finish that move "
                )
                remedy += "(redis-cli --cluster fix), or declare as many shards as there are masters with it"
            yield Reason(
                code="keys-outside",
                message=f"{node.pod} owns no slot and holds {node.keys} keys: joining it would hide or lose them",
                remedy=remedy,
                node=node.pod,
            )


def _too_few_masters(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Reason]:
    """Only a replica that its shard can do without is made a master of another one."""
    if len(shards) + len(surplus(view, desired, shards)) < desired.shards:
        yield Reason(
            code="too-few-masters",
            message=f"{len(shards)} nodes are masters, declared are {desired.shards}; the others are replicas, "
            "and too few of them can be spared",
            remedy=f"declare BOOTSTRAP_SHARDS={len(shards)} and the replicas for each that fit; "
            "new shards need new pods: raise the StatefulSet's replicas with the shape",
        )


def _shrunk_too_early(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    """Pods of a cluster that is to have fewer shards were taken away before their slots were moved. What is left could
    be drained on its own, with one copy less of each key; the disks of those pods have the rest.

    A pod that took the place of a lost one has never heard of that one, so it is no member beside it.
    """
    owners = [node for node, slots in slots_after_failover(view).items() if slots]
    lost = view.unlisted()
    members = len({teller.node_id for known_by in lost.values() for teller in known_by}) + len(lost)
    pods = len(view.nodes) + len(view.spares) + len(view.unreachable)
    shards = len(owners) + sum(1 for loss in lost_members(view) if loss.gone)
    if members > pods and shards > desired.shards:
        yield Reason(
            code="shrunk-too-early",
            message=f"the cluster has {members} members and {shards} shards, declared are {desired.shards}, and only "
            f"{pods} pods are left: some were taken away before they were drained",
            remedy=f"set the StatefulSet's replicas to {members} again, so that the pods come back with their disks, "
            "and run again: it says when fewer are safe",
        )


def reasons_not_to_move(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Reason]:
    """Slots that would not fit: a full server refuses keys, or worse, evicts some. Asked when they are to move next, so
    that no repair waits for memory.
    """
    coming: dict[NodeId, int] = {}
    for move in slot_moves(view, desired, [shard.master for shard in shards]):
        coming[move.target] = coming.get(move.target, 0) + view.bytes_of(move.source, move.slots)
    for node_id, size in coming.items():
        node = view.by_id[node_id]
        free = node.memory.max_bytes - node.memory.used_bytes
        if node.memory.max_bytes and size > free:
            yield Reason(
                code="no-room",
                message=f"{node.pod} would get about {mebibytes(size)} of data and has {mebibytes(max(0, free))} left "
                f"of its maxmemory",
                remedy="raise maxmemory (and the pods' memory), or declare more shards; where only shares are off, "
                "BOOTSTRAP_REBALANCE=off leaves them",
                node=node.pod,
            )


def _no_copy_left(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    """Going from some replicas to none: from then on a lost disk is lost keys."""
    copies = [node.pod for node in view.nodes if node.role is Role.REPLICA and node.keys]
    if desired.replicas_per_shard == 0 and copies and not (desired.without_copies or loss_accepted(view, desired)):
        yield Reason(
            code="no-copy-left",
            message=f"each shard's keys would be on one pod alone; {', '.join(copies)} hold copies now",
            remedy="declare BOOTSTRAP_REPLICAS_PER_SHARD=1 or more; or accept it: "
            f"python -m bootstrap apply --accept-loss {view.fingerprint()}, or BOOTSTRAP_ACCEPT_LOSS in the settings",
        )
