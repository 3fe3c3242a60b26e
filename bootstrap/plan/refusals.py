"""When not to act: rules about pods, membership and size. Those about keys and slots are in `data_refusals` and
`stray_keys`.

Each rule names what it found, on which node, and what a person can do. All rules are applied, so that a person sees
every reason at the same time. A state that cannot be distinguished from a dangerous one is refused; a new repair
removes or narrows a rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model.memory import mebibytes
from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.view import ClusterView
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.data_refusals import moved_to_lost_master, no_copy_left, slots_lost, two_clusters
from bootstrap.plan.describe import several
from bootstrap.plan.stray_keys import (
    keys_left_over_on_the_way,
    keys_outside,
    keys_outside_or_moving,
    keys_without_owner,
)


def reasons_to_refuse(found: Assessment) -> Iterator[Reason]:
    """Every reason why no step may be taken; none means that the planner may continue."""
    return chain(
        _wrong_number_of_pods(found),
        two_clusters(found),
        _members_elsewhere(found),
        keys_without_owner(found),
        slots_lost(found),
        moved_to_lost_master(found),
        keys_outside_or_moving(found),
        _without_a_master(found),
        _too_few_masters(found),
        _shrunk_too_early(found),
        no_copy_left(found),
    )


def reasons_not_to_wipe(found: Assessment) -> Iterator[Reason]:
    """Reasons against `reinit`, whatever a person has confirmed. The fingerprint names owners of slots alone, so it
    never covers the keys of a master without slots, wherever they belong.
    """
    return chain(_pods_beyond(found), _members_elsewhere(found), keys_outside(found, {}))


def reasons_not_to_move(found: Assessment) -> Iterator[Reason]:
    """Reasons that are checked only when slots are to move next, so that no repair waits for them: keys that a target
    already holds of these slots, and slots that would not fit.
    """
    return chain(keys_left_over_on_the_way(found), _no_room(found))


def _no_room(found: Assessment) -> Iterator[Reason]:
    """A server without memory rejects keys, or evicts some."""
    incoming: dict[NodeId, int] = {}
    for move in found.slot_moves:
        incoming[move.target] = incoming.get(move.target, 0) + found.view.bytes_of(move.source, move.slots)
    for node_id, size in incoming.items():
        node = found.view.by_id[node_id]
        free = node.memory.max_bytes - node.memory.used_bytes
        if node.memory.max_bytes and size > free:
            yield Reason(
                code="no-room",
                message=f"{node.pod} would get about {mebibytes(size)} of data and has {mebibytes(max(0, free))} left "
                f"of its maxmemory",
                remedy=f"raise maxmemory: kubectl exec {node.pod} -- redis-cli CONFIG SET maxmemory BYTES, and the "
                "same in redis.conf, with the memory limit of the pods; or declare more shards, or "
                "BOOTSTRAP_REBALANCE=off where only shares are uneven: kubectl edit configmap "
                f"redis-bootstrap-settings; then {RUN_AGAIN}",
                node=node.pod,
            )


def _wrong_number_of_pods(found: Assessment) -> Iterator[Reason]:
    """Fewer pods than the shape takes are refused. More are allowed beside a formed cluster: they are drained, or they
    are blank and not part of it.
    """
    view, wanted = found.view, found.desired.nodes
    listed = len(view.nodes) + len(view.unreachable) + (0 if view.claimed() else len(view.spares))
    if listed < wanted or (listed > wanted and not view.claimed()):
        yield _number_of_pods(listed, found)


def _pods_beyond(found: Assessment) -> Iterator[Reason]:
    """A cluster is formed anew on exactly the pods of the shape."""
    listed = len(found.view.nodes) + len(found.view.unreachable) + len(found.view.spares)
    if listed != found.desired.nodes:
        yield _number_of_pods(listed, found)


def _number_of_pods(listed: int, found: Assessment) -> Reason:
    desired, name = found.desired, found.view.statefulset
    check = f"; the pods beyond it must hold no data: kubectl exec {name}-{desired.nodes} -- redis-cli DBSIZE"
    return Reason(
        code="number-of-pods",
        message=f"{listed} pods are listed, but {desired.shards} shards with {desired.replicas_per_shard} replicas "
        f"each take {desired.nodes}",
        remedy="make BOOTSTRAP_SHARDS x (1 + BOOTSTRAP_REPLICAS_PER_SHARD) equal to the StatefulSet's replicas: "
        "kubectl edit configmap redis-bootstrap-settings, or kubectl scale statefulset "
        f"{name} --replicas={desired.nodes}{check if listed > desired.nodes else ''}; then {RUN_AGAIN}",
    )


def _members_elsewhere(found: Assessment) -> Iterator[Reason]:
    """The cluster has members beyond this Service: a repair from here would cut them off."""
    for node_id, known_by in found.view.unlisted().items():
        if node_id in found.view.alive_elsewhere:
            line = known_by[0].others[node_id]
            host = line.address.host if line.address else node_id
            yield Reason(
                code="member-elsewhere",
                message=f"{node_id} answers at {line.address}, and {', '.join(node.pod for node in known_by)} list it "
                f"as a member, but BOOTSTRAP_SERVICE does not list it (slots: {line.slots.listed() or 'none'})",
                remedy="a stale DNS record, or a pod of another cluster, listed in its place passes by itself: "
                f"{RUN_AGAIN}; if it does not, kubectl get pods -A -o wide | grep {host} shows what runs there; "
                "if it belongs to this cluster, let the headless Service select it: kubectl get service -o wide shows "
                "the selector; if not, on each pod that lists it, within a minute: kubectl exec "
                f"{known_by[0].pod} -- redis-cli CLUSTER FORGET {node_id}; then {RUN_AGAIN}",
                node=known_by[0].pod,
            )


def _circles(view: ClusterView) -> Iterator[tuple[Node, ...]]:
    """Replicas that follow each other and no master, in ordinal order."""
    master_of = {node.node_id: node.myself.master_id for node in view.nodes if node.role is Role.REPLICA}
    left = set(master_of)
    for start in master_of:
        way: list[NodeId] = []
        at: NodeId | None = start
        while at in left and at is not None:
            left.discard(at)
            way.append(at)
            at = master_of[at]
        if at in way:
            circle = set(way[way.index(at) :])
            yield tuple(node for node in view.nodes if node.node_id in circle)


def _without_a_master(found: Assessment) -> Iterator[Reason]:
    """Which of them has the newest keys, nobody can tell, so a person chooses."""
    for circle in _circles(found.view):
        best = max(circle, key=lambda node: (node.replication.offset, node.keys, -node.ordinal))
        copies = ", ".join(f"{node.pod} ({several(node.keys, 'key')})" for node in circle)
        yield Reason(
            code="no-master",
            message=f"{copies} follow each other, so that their shard has no master; two servers that use one disk, or "
            "a copy of it, at the same time can leave that behind",
            remedy=f"choose the one with the newest keys, most likely {best.pod}; this makes it the master, and the "
            f"others copy from it: kubectl exec {best.pod} -- redis-cli CLUSTER FAILOVER TAKEOVER; then {RUN_AGAIN}",
            node=best.pod,
        )


def _too_few_masters(found: Assessment) -> Iterator[Reason]:
    """A replica becomes the master of a new shard only where its own shard does not need it."""
    masters = len(found.shards)
    if masters + len(found.surplus) < found.desired.shards and not any(_circles(found.view)):
        yield Reason(
            code="too-few-masters",
            message=f"{found.desired.shards} shards are declared and {masters} nodes are masters; the others are "
            "replicas, and too few of them are surplus",
            remedy=f"declare BOOTSTRAP_SHARDS={masters} and the replicas for each that fit: kubectl edit configmap "
            "redis-bootstrap-settings; or add pods for the new shards: kubectl scale statefulset "
            f"{found.view.statefulset} --replicas=N, with N = BOOTSTRAP_SHARDS x (1 + BOOTSTRAP_REPLICAS_PER_SHARD); "
            f"then {RUN_AGAIN}",
        )


def _without_a_pod(view: ClusterView) -> int:
    """The number of lost members whose place no pod has taken. A pod that takes one starts blank and never learns the
    id of the node that is gone; each takes one place.
    """
    places: dict[NodeId, NodeId] = {}

    def has_a_place(lost: NodeId, tried: set[NodeId]) -> bool:
        for node in (*view.nodes, *view.spares):
            if node.node_id not in tried and lost not in node.others:
                tried.add(node.node_id)
                if node.node_id not in places or has_a_place(places[node.node_id], tried):
                    places[node.node_id] = lost
                    return True
        return False

    return sum(not has_a_place(lost, set()) for lost in view.unlisted())


def _shrunk_too_early(found: Assessment) -> Iterator[Reason]:
    """Pods were removed before their slots were moved, and fewer shards are declared. The rest could be drained without
    them, but with one copy less of each key, while the disks of the removed pods have the others.
    """
    view, declared = found.view, found.desired.shards
    owners = [node for node, slots in found.slots_after_failover.items() if slots]
    pods = len(view.nodes) + len(view.spares) + len(view.unreachable)
    members = pods + _without_a_pod(view)
    shards = len(owners) + sum(1 for lost in found.lost_members if lost.no_copy_left)
    if members > pods and shards > declared:
        yield Reason(
            code="shrunk-too-early",
            message=f"the cluster has {members} members in {shards} shards, {declared} shards are declared, and only "
            f"{pods} pods are left: some pods were removed before their slots had been moved",
            remedy=f"bring the pods back with their disks: kubectl scale statefulset {view.statefulset} "
            f"--replicas={members}; then {RUN_AGAIN}; the outcome names the number of replicas once fewer are safe",
        )
