"""When not to act: rules about keys and slots whose last copy a wrong step would destroy. `refusals` applies them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.slots import SlotSet
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.describe import several
from bootstrap.plan.lost_members import LostMember, loss_fingerprint

SHOWN = 3
"""Groups of pods in one message."""


def _accept(found: Assessment) -> str:
    """How a person accepts the loss, for the cluster exactly as it is."""
    fingerprint = loss_fingerprint(found.view)
    data = f'{{"data":{{"BOOTSTRAP_ACCEPT_LOSS":"{fingerprint}"}}}}'
    return (
        f"in the cluster: kubectl patch configmap redis-bootstrap-settings --type merge -p '{data}', then {RUN_AGAIN}; "
        f"elsewhere: python -m bootstrap apply --accept-loss {fingerprint}"
    )


def two_clusters(found: Assessment) -> Iterator[Reason]:
    """Groups of nodes that do not know each other and would lose data if they were joined."""
    loaded = [group[0] for group in found.conflicting_clusters if len(group) == 1 and loaded_from_file(group[0])]
    yield from _loaded_twice(loaded, found)
    for group in found.conflicting_clusters:
        if group[0] in loaded:
            continue
        slots, pod, where = sum(len(node.slots) for node in group), group[0].pod, group[0].address
        yield Reason(
            code="two-clusters",
            message=f"separate cluster on {', '.join(node.pod for node in group)}: {several(slots, 'slot')} and "
            f"{several(sum(node.keys for node in group), 'key')}",
            remedy=f"a stale DNS record, or a pod of another cluster: kubectl get pods -A -o wide | grep "
            f"{where.host} shows whose pod that is, redis-cli -h {where.host} -p {where.port} CLUSTER NODES its "
            f"members; if it is not {pod}, leave it alone, let the Service list only pods of this cluster (kubectl get "
            f"endpointslices) and {RUN_AGAIN}; if it is {pod} itself, its disk comes from another cluster: give it "
            "its own disk back (docs/findings.md, two-clusters)",
            node=pod,
        )


def _loaded_twice(loaded: list[Node], found: Assessment) -> Iterator[Reason]:
    """Servers that loaded keys from a file and know no cluster, whose slots others own, too."""
    alike: dict[str, list[Node]] = {}
    doubled = []
    for node in loaded:
        owners = [other for other in found.view.nodes if other is node or other.slots & node.slots]
        if len(owners) > 1:
            doubled.append(node)
            alike.setdefault(owners[0].pod, owners)
    if doubled:
        yield _doubled(doubled, alike.values())


def _doubled(loaded: list[Node], alike: Iterable[list[Node]]) -> Reason:
    groups = [" and ".join(f"{node.pod} ({several(node.keys, 'key')})" for node in owners) for owners in alike]
    more = f"; and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
    pod, where = loaded[-1].pod, loaded[-1].address.host
    client = f"kubectl exec {pod} -- redis-cli"
    return Reason(
        code="data-without-cluster",
        message=f"{', '.join(node.pod for node in loaded)} loaded keys from a file and "
        f"{'knows' if len(loaded) == 1 else 'know'} no cluster; the same slots belong to "
        f"{'; '.join(groups[:SHOWN])}{more}",
        remedy=f"kubectl get pod {pod} -o wide: if its IP is not {where}, that is a stale DNS record, or a pod of "
        f"another cluster: leave it alone and {RUN_AGAIN}; else each file belongs on the disk of one pod alone, and "
        "the others copy it as replicas: of each two pods keep the one whose keys are right, and once nobody needs the "
        f"keys of the other, empty that one, here {pod}: {client} FLUSHALL; {client} CLUSTER RESET HARD; then "
        f"{RUN_AGAIN}; a member that lost only its nodes.conf gets that file back instead",
        node=loaded[0].pod if len(loaded) == 1 else None,
    )


def slots_lost(found: Assessment) -> Iterator[Reason]:
    """Slots of which no copy is left, while their keys may be on a disk that can come back. With a new owner for them
    the cluster would serve again, and the loss would be final. A person decides that, for this state alone.

    Where every pod knows the cluster and no member is lost, no disk can come back: a slot without an owner then gets
    one.
    """
    if found.loss_accepted or found.conflicting_clusters:
        return
    view, lost = found.view, found.unrecoverable_slots
    data_left = any(node.keys and (node.slots or node.role is Role.REPLICA) for node in view.nodes)
    disk_missing = bool(view.unlisted()) or any(node.blank for node in view.nodes)
    held = found.uncovered_slots_by_holder.values()
    unowned = SlotSet.union_of([*found.slots_after_failover.values(), *held, lost]).complement()
    unowned = unowned if data_left and disk_missing else SlotSet()
    owners = [node for node in view.nodes if node.slots]
    if unowned and not view.unlisted() and owners and all(loaded_from_file(node) for node in owners):
        yield _without_a_cluster(owners, unowned, found)
    elif lost or unowned:
        yield Reason(
            code="slots-lost",
            message=f"no copy is left of the slots {(lost | unowned).listed()}: {_where_they_were(found)}",
            remedy="bring back a pod that held them, with its disk: kubectl get pods,pvc; or accept that their keys "
            f"are lost, {_accept(found)}",
        )


def _where_they_were(found: Assessment) -> str:
    copied: dict[NodeId, list[Node]] = {}
    for lost in found.absent_members:
        for replica, source in lost.overwritten if lost.no_copy_left else ():
            copied.setdefault(source.node_id, []).append(replica)
    came_back = []
    for node_id, replicas in copied.items():
        source, pods = found.view.by_id[node_id], " and ".join(replica.pod for replica in replicas)
        what = "is at the address of the lost master now" if source.slots else "came back empty at its address"
        came_back.append(
            f"{source.pod} {what}, and {pods}, which follow{'s' if len(replicas) == 1 else ''} that address, copied "
            "from there"
        )
    return "; ".join(came_back) or "the nodes that held them are gone"


def loaded_from_file(node: Node) -> bool:
    """True for a server that knows no cluster, and owns slots since it found keys of them in its file (dump.rdb or the
    append-only file): on start, servers take the slots of such keys that have no owner (*measured*, 7.0.15).
    """
    return bool(node.slots) and not node.others and node.current_epoch == 0 and len(node.slots) <= node.keys


def _without_a_cluster(owners: list[Node], unowned: SlotSet, found: Assessment) -> Reason:
    pods = ", ".join(f"{node.pod} ({several(node.keys, 'key')})" for node in owners)
    return Reason(
        code="data-without-cluster",
        message=f"{pods} loaded keys from a file and know no cluster; no pod holds a key of the other "
        f"{several(len(unowned), 'slot')}: {unowned.listed()}",
        remedy="if these files are all there is, accept that the other slots are empty, "
        f"{_accept(found)}; if one is missing, put it on the disk of a pod that has none, before the servers start "
        "(docs/findings.md, data-without-cluster)",
    )


def moved_to_lost_master(found: Assessment) -> Iterator[Reason]:
    """Slots that were being moved to a lost master that owned no slot yet, so that no replica is elected in its place.
    Its replicas may have the only copy of the keys that had arrived, and would delete it under another master.
    """
    if found.loss_accepted:
        return
    for lost in found.lost_members:
        if not lost.slots:
            yield from _moved_to(lost, found)


def _moved_to(lost: LostMember, found: Assessment) -> Iterator[Reason]:
    nodes = found.view.nodes
    imported = {slot for node in nodes if node.role is Role.MASTER for slot, _ in node.myself.importing}
    moving = [
        (slot, node)
        for node in nodes
        for slot, target in node.myself.migrating
        if target == lost.node_id and slot not in imported
    ]
    if not moving:
        return
    slots = SlotSet.of(*((slot, slot) for slot, _ in moving))
    holders = [candidate for candidate in lost.candidates if candidate.keys]
    message = f"the slots {slots.listed()} were being moved to a master that is lost"
    remedy = "bring back its disk: kubectl get pods,pvc; or accept that the keys which had arrived there are lost, "
    remedy += _accept(found)
    if holders:
        message += (
            f", and {holders[0].pod} has the only copy of the keys that had arrived ({several(holders[0].keys, 'key')})"
        )
        client = f"kubectl exec {holders[0].pod} -- redis-cli"
        commands = "; ".join(f"{client} CLUSTER SETSLOT {slot} IMPORTING {node.node_id}" for slot, node in moving[:3])
        more = " and so on for each of them" if len(moving) > 3 else ""
        remedy = f"{client} CLUSTER FAILOVER TAKEOVER, then {commands}{more}; then {RUN_AGAIN}"
    yield Reason(code="moved-to-the-lost", message=message, remedy=remedy, node=holders[0].pod if holders else None)


def no_copy_left(found: Assessment) -> Iterator[Reason]:
    """From some replicas to none: from then on a lost disk means lost keys."""
    desired = found.desired
    copies = [node.pod for node in found.view.nodes if node.role is Role.REPLICA and node.keys]
    if desired.replicas_per_shard == 0 and copies and not (desired.without_copies or found.loss_accepted):
        yield Reason(
            code="no-copy-left",
            message=f"without replicas each key would be on one pod alone; {', '.join(copies)} hold copies now",
            remedy="declare BOOTSTRAP_REPLICAS_PER_SHARD=1 or more: kubectl edit configmap redis-bootstrap-settings; "
            f"or accept it, {_accept(found)}",
        )
