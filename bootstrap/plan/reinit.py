"""`wiping(view, desired, confirm)`: the phases in which `reinit` wipes a confirmed cluster, or a refusal.

A person confirms with the fingerprint of the present state: the masters and their slots. Replicas are wiped first, and
all masters last, at the same time: a master without a replica cannot be replaced by a node that the fingerprint does
not name. A run that was killed half-way leaves some masters. Each of them still remembers the whole cluster, the wiped
nodes included, so the same fingerprint is valid for the rest, and no mark has to be kept anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.errors import Reason
from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, Role
from bootstrap.model.plan import Finding, Phase, Plan, Refusal
from bootstrap.model.steps import Wipe
from bootstrap.model.view import ClusterView, fingerprint_of
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.describe import several
from bootstrap.plan.planner import plan
from bootstrap.plan.refusals import reasons_not_to_wipe


def wiping(view: ClusterView, desired: Desired, confirm: str) -> Plan | Refusal:
    """The nodes to wipe before the cluster can be formed anew; an empty plan where no data is left to lose."""
    if reasons := tuple(reasons_not_to_wipe(Assessment(view, desired))):
        return Refusal(reasons=reasons)
    not_blank = [node for node in view.nodes if not node.blank]
    if not _confirmed(view, confirm):
        at_stake = not_blank and not _unfinished_forming(view, desired)
        return Refusal(reasons=tuple(_would_destroy(view, confirm))) if at_stake else Plan()
    phases = (
        Phase(
            name="wipe replicas",
            why="a master without a replica cannot be replaced meanwhile",
            steps=tuple(Wipe(node=node.node_id, flush=False) for node in not_blank if node.role is Role.REPLICA),
        ),
        Phase(
            name="wipe masters",
            why="the nodes that the fingerprint names come last",
            steps=tuple(Wipe(node=node.node_id, flush=True) for node in not_blank if node.role is Role.MASTER),
        ),
    )
    pods = ", ".join(f"{node.pod} ({several(node.keys, 'key')})" for node in not_blank)
    finding = Finding(code="confirmed", message=f"to be wiped, as confirmed: {pods}")
    return Plan(findings=(finding,), phases=tuple(phase for phase in phases if phase.steps))


def _unfinished_forming(view: ClusterView, desired: Desired) -> bool:
    """True for a forming that was interrupted: no key anywhere, no member lost, and steps left to do."""
    empty = not view.unlisted() and not any(node.keys for node in view.nodes)
    return empty and isinstance(decision := plan(view, desired), Plan) and bool(decision)


def _confirmed(view: ClusterView, confirm: str) -> bool:
    """True for the fingerprint of the present cluster, or of the one of which the masters here are the rest."""
    return bool(confirm) and (confirm == view.fingerprint() or any(_remembers(n, view, confirm) for n in view.nodes))


def _remembers(node: Node, view: ClusterView, confirm: str) -> bool:
    """True for an owner of slots whose list of all owners has that fingerprint and contains every owner here."""
    listed = {member.node_id: member.slots for member in node.members if member.slots}
    owners = {node.node_id: node.slots for node in view.nodes if node.slots}
    return bool(node.slots) and owners.items() <= listed.items() and fingerprint_of(listed) == confirm


def _would_destroy(view: ClusterView, confirm: str) -> Iterator[Reason]:
    """What would be lost, master by master, then replicas that may hold the last copy of their keys."""
    present = view.fingerprint()
    if confirm:
        message = f"the fingerprint of the cluster is {present or 'empty (no node owns slots)'}, not {confirm}; "
        message += "nothing has been wiped"
        pod = view.nodes[0].pod
        remedy = f"check that this is the cluster to wipe: kubectl exec {pod} -- redis-cli CLUSTER NODES shows its "
        remedy += f"masters and slots, kubectl exec {pod} -- redis-cli --scan keys of one node"
        yield Reason(code="not-that-cluster", message=message, remedy=remedy)
    remedy = (
        f"if all of that may be lost, in the cluster: put fingerprint={present} into k8s/reinit/kustomization.yaml, "
        f"then kubectl apply -k k8s/reinit; elsewhere: python -m bootstrap reinit --confirm {present}"
    )
    if not present:
        remedy = (
            "empty each pod by hand, once nobody needs its keys (kubectl exec POD -- redis-cli --scan lists them): "
            "kubectl exec POD -- redis-cli FLUSHALL (masters only), kubectl exec POD -- redis-cli CLUSTER RESET HARD"
        )
    for node in view.nodes:
        if node.slots or (node.keys and node.role is Role.MASTER):
            message = f"reinit would destroy the master {node.pod}: {several(len(node.slots), 'slot')} "
            message += f"({node.slots.listed()}), {several(node.keys, 'key')}"
            yield Reason(code="would-destroy", message=message, remedy=remedy, node=node.pod)
    owners = {node.node_id for node in view.nodes if node.slots}
    for node in view.nodes:
        if present and node.keys and node.role is Role.REPLICA and node.myself.master_id not in owners:
            message = f"reinit would destroy {node.pod}, perhaps the last copy of {several(node.keys, 'key')}: "
            message += "it is a replica whose master owns no slot here"
            yield Reason(code="would-destroy", message=message, remedy=remedy, node=node.pod)
    if not present:
        holders = ", ".join(node.pod for node in view.nodes if not node.blank)
        message = f"no node owns slots, so there is no fingerprint to confirm; not blank: {holders}"
        yield Reason(code="would-destroy", message=message, remedy=remedy)
