"""When not to act: rules about keys and slots whose last copy a wrong step would destroy. `refusals` applies them."""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model.node import Role
from bootstrap.model.slots import SlotSet
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.describe import several
from bootstrap.plan.lost_members import LostMember


def _accept(found: Assessment) -> str:
    """How a person accepts the loss, for the cluster exactly as it is."""
    fingerprint = found.view.fingerprint()
    data = f'{{"data":{{"BOOTSTRAP_ACCEPT_LOSS":"{fingerprint}"}}}}'
    return (
        f"in the cluster: kubectl patch configmap redis-bootstrap-settings --type merge -p '{data}', then {RUN_AGAIN}; "
        f"elsewhere: python -m bootstrap apply --accept-loss {fingerprint}"
    )


def two_clusters(found: Assessment) -> Iterator[Reason]:
    """Groups of nodes that do not know each other and would lose data if they were joined."""
    for group in found.conflicting_clusters:
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
    if lost or unowned:
        yield Reason(
            code="slots-lost",
            message=f"no copy is left of the slots {(lost | unowned).listed()}: the nodes that held them are gone",
            remedy="bring back a pod that held them, with its disk: kubectl get pods,pvc; or accept that their keys "
            f"are lost, {_accept(found)}",
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
