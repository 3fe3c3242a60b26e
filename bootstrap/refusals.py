"""When not to act. Each rule names what it saw, on which node, and what a person can do; all of them speak at once.

What cannot be told apart from its dangerous twin is refused. Whoever adds a repair takes a rule away or narrows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from bootstrap.errors import Reason
from bootstrap.model import ClusterView, Desired, Node, NodeId, Role
from bootstrap.topology import Shard


def reasons_to_refuse(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Reason]:
    """Every reason why no step may be taken from `view`; none means that the planner may go on."""
    return chain(
        _wrong_number_of_pods(view, desired),
        _two_clusters(view),
        _unlisted_members(view),
        _slots_claimed_twice(view),
        _open_slots(view),
        _slots_lost(view),
        _keys_outside(view),
        _shape_differs(view, desired, shards),
    )


def clusters(view: ClusterView) -> tuple[tuple[Node, ...], ...]:
    """The nodes grouped by who knows whom, in ordinal order: a group is one cluster, or will be with its links up."""
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
    found = len(view.nodes) + len(view.absent)
    if found != desired.nodes:
        yield Reason(
            code="number-of-pods",
            message=f"{found} pods are listed, the shape of {desired.shards} shards with "
            f"{desired.replicas_per_shard} replicas each takes {desired.nodes}",
            remedy="make BOOTSTRAP_SHARDS x (1 + BOOTSTRAP_REPLICAS_PER_SHARD) equal to the StatefulSet's replicas",
        )


def _two_clusters(view: ClusterView) -> Iterator[Reason]:
    """Groups that know nothing of each other and both own slots. Joined, the lower epoch would lose its slots and keys.

    Groups without any key and without a slot in common are no danger: so looks a forming that was killed.
    """
    owners = [group for group in clusters(view) if any(node.slots for node in group)]
    if len(owners) < 2:
        return
    owned = sum(len(node.slots) for group in owners for node in group)
    if owned == len(view.claimed()) and not any(node.keys for group in owners for node in group):
        return
    for group in owners:
        masters = [node for node in group if node.slots]
        yield Reason(
            code="two-clusters",
            message=f"{', '.join(node.pod for node in masters)}: a cluster of its own, with "
            f"{sum(len(node.slots) for node in masters)} slots and {sum(node.keys for node in masters)} keys",
            remedy="decide which cluster is to stay; empty the pods of the other and delete their volumes",
            node=masters[0].pod,
        )


def _unlisted_members(view: ClusterView) -> Iterator[Reason]:
    for node_id, tellers in view.unlisted().items():
        told = tellers[0].others[node_id]
        yield Reason(
            code="unlisted-member",
            message=f"known to {', '.join(node.pod for node in tellers)}, carried by no pod that answers: {node_id} "
            f"at {told.address or 'no address'} (slots: {told.slots or 'none'})",
            remedy="bring that node back under the headless Service, or make the others forget it if it is gone",
            node=tellers[0].pod,
        )


def _slots_claimed_twice(view: ClusterView) -> Iterator[Reason]:
    for index, one in enumerate(view.nodes):
        for other in view.nodes[index + 1 :]:
            if both := one.slots & other.slots:
                yield Reason(
                    code="slots-claimed-twice",
                    message=f"{one.pod} and {other.pod} both claim the slots {both}",
                    remedy="if the two are linked, they settle it: run again; if not, decide whose keys stay",
                    node=one.pod,
                )


def _open_slots(view: ClusterView) -> Iterator[Reason]:
    for node in view.nodes:
        if opened := sorted({slot for slot, _ in (*node.myself.migrating, *node.myself.importing)}):
            yield Reason(
                code="open-slots",
                message=f"{node.pod} has slots that are half moved: {', '.join(map(str, opened))}",
                remedy="finish or undo that move with `redis-cli --cluster fix`, then run again",
                node=node.pod,
            )


def _slots_lost(view: ClusterView) -> Iterator[Reason]:
    """Slots without an owner in a cluster that holds keys: their keys may be on a disk that can still come back.
    Assigned to somebody else, they would be lost for good.
    """
    free = view.claimed().complement()
    holders = [node for node in view.nodes if node.keys and (node.slots or node.role is Role.REPLICA)]
    if free and holders and not any(_two_clusters(view)):
        yield Reason(
            code="slots-lost",
            message=f"no node owns the slots {free}, and the cluster holds keys",
            remedy="bring back the pod that owned them, with its disk",
        )


def _keys_outside(view: ClusterView) -> Iterator[Reason]:
    for node in view.nodes:
        if node.keys and node.role is Role.MASTER and not node.slots:
            yield Reason(
                code="keys-outside",
                message=f"{node.pod} owns no slot and holds {node.keys} keys: joining it would hide or lose them",
                remedy="save what is worth saving, empty that node, and run again",
                node=node.pod,
            )


def _shape_differs(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Reason]:
    owners = [node for node in view.nodes if node.slots]
    if len(shards) < desired.shards:
        yield Reason(
            code="too-few-masters",
            message=f"{len(shards)} nodes are masters, declared are {desired.shards}; the others are replicas, "
            "and none of them is made a master without being asked",
            remedy=f"declare BOOTSTRAP_SHARDS={len(shards)} and the replicas for each that fit",
        )
    if len(owners) > desired.shards:
        yield Reason(
            code="too-many-masters",
            message=f"{len(owners)} masters own slots, not {desired.shards}: {', '.join(n.pod for n in owners)}",
            remedy=f"declare BOOTSTRAP_SHARDS={len(owners)}, or move the slots off the masters that are too many",
        )
    for shard in shards:
        if not shard.slots:
            yield Reason(
                code="master-without-slots",
                message=f"{view.name(shard.master)} would be a master without slots: "
                f"{len(owners)} masters own all that are owned, {desired.shards} are declared",
                remedy=f"declare BOOTSTRAP_SHARDS={len(owners)}, or move slots to the new master",
                node=view.name(shard.master),
            )
