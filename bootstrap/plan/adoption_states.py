"""What stands against the further states of an adoption: there is nothing to adopt, the word of a person is missing, a
shard cannot go back, or the old nodes cannot leave yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model.desired import Desired
from bootstrap.model.memory import mebibytes
from bootstrap.model.plan import Refusal
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.versions import upgrade_path
from bootstrap.model.view import ClusterView, fingerprint_of
from bootstrap.plan import spread
from bootstrap.plan.adoption_refusals import silent_members
from bootstrap.plan.describe import several
from bootstrap.plan.planner import plan

PASSES = frozenset({"old-cluster-silent", "old-node-silent", "replica-behind"})
"""Reasons that may end by themselves: a run fails because of them, and is tried again."""
_OVERLAY = "k8s/overlays/adopt"


def edited(value: str) -> str:
    """How a person changes a value of the overlay, and runs with it."""
    return f"put {value} into {_OVERLAY}/kustomization.yaml, then kubectl apply -k {_OVERLAY}, then {RUN_AGAIN}"


def nothing_to_adopt(view: ClusterView) -> Reason:
    """No cluster is left at the given addresses, and the pods do not serve either."""
    old = view.old
    seeds = old.seeds if old else ""
    if old and old.own:
        return Reason(
            code="adopts-itself",
            message=f"at {seeds}, which BOOTSTRAP_ADOPT names, answer pods of this StatefulSet, not another cluster",
            remedy="set BOOTSTRAP_ADOPT to HOST:PORT of a node of the old cluster, or to the name of its headless "
            f"Service with the port; to form a new cluster, leave it empty; then {RUN_AGAIN}",
        )
    if old and old.left:
        return Reason(
            code="old-cluster-gone",
            message=f"the servers at {seeds} are in no cluster any more, and the pods do not own every slot",
            remedy=f"if the old cluster runs elsewhere, correct BOOTSTRAP_ADOPT; else leave it empty; then {RUN_AGAIN}",
        )
    return Reason(
        code="old-cluster-silent",
        message=f"no server answers at {seeds}, which BOOTSTRAP_ADOPT names: {old.error if old else ''}",
        remedy="compare the address, the port and the password of the old cluster (BOOTSTRAP_ADOPT_PASSWORD_FILE where "
        "it differs from that of the pods); kubectl get networkpolicy --all-namespaces shows whether a policy keeps "
        f"this pod out; then {RUN_AGAIN}",
    )


def unconfirmed(view: ClusterView, desired: Desired) -> Reason:
    """Two clusters are joined only by a person's word about the one that owns the data."""
    owners = [node for node in view.old_nodes if node.slots]
    present = fingerprint_of({node.node_id: node.slots for node in owners})
    given = desired.adoption.fingerprint if desired.adoption else ""
    keys = several(sum(node.keys for node in owners), "key")
    other = f", not {given}" if given else ""
    return Reason(
        code="adoption-not-confirmed",
        message=f"the pods would join the old cluster ({several(len(owners), 'shard')}, {keys}) and take it over; its "
        f"fingerprint is {present or 'empty (no node owns slots)'}{other}",
        remedy=f"if that is the cluster to take over, in Kubernetes: {edited(f'fingerprint={present}')}; elsewhere: "
        f"python -m bootstrap apply --adopt {present}",
    )


def against_taking_over(view: ClusterView) -> Iterator[Reason]:
    """After the introduction, before a failover."""
    owned = SlotSet.union_of(node.slots for node in view.nodes)
    if owned != ALL_SLOTS:
        yield from silent_members(view)
        yield Reason(
            code="old-not-whole",
            message=f"no node that answers owns the slots {owned.complement().listed()}",
            remedy="bring the old nodes back, whose names and addresses CLUSTER NODES shows; the pods go on from here: "
            f"{RUN_AGAIN}",
        )


def against_going_back(view: ClusterView) -> Iterator[Reason]:
    """Each shard needs an old node with all of its data."""
    late = {node.node_id: behind for node, behind in spread.lagging(view)}
    for owner in (node for node in view.pods if node.slots):
        copies = [node for node in view.old_nodes if node.myself.master_id == owner.node_id]
        linked = [node for node in copies if node.replication.link_up]
        in_step = [node for node in linked if node.node_id not in late]
        if in_step:
            continue
        if linked:
            behind = ", ".join(f"{node.pod} is {mebibytes(late[node.node_id])} behind" for node in linked)
            remedy = f"the run is tried again once it has caught up: {RUN_AGAIN}"
            message = f"no old node is in step with {owner.pod}: {behind}"
            yield Reason(code="replica-behind", message=message, remedy=remedy, node=owner.pod)
            continue
        names = ", ".join(node.pod for node in copies) or "none"
        paths = {str(upgrade_path(owner.version, node.version, disks=False)) for node in copies}
        yield Reason(
            code="no-way-back",
            message=f"no old node has a copy of the slots of {owner.pod}; old nodes that follow it: {names}"
            + (f"; {'; '.join(sorted(paths))}" if paths else ""),
            remedy=f"the log of the old server says why its link is down; where no copy can be had, leave "
            f"BOOTSTRAP_ADOPT_BACK off and stay with the pods; then {RUN_AGAIN}",
            node=owner.pod,
        )


def against_finishing(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    """The pods have to be a whole cluster without the old nodes."""
    if left := [node.pod for node in view.old_nodes if node.slots]:
        yield Reason(
            code="not-adopted-yet",
            message=f"the old nodes {', '.join(left)} still own slots",
            remedy=f"take them over first, with BOOTSTRAP_ADOPT_FINISH and BOOTSTRAP_ADOPT_BACK off: {RUN_AGAIN}",
        )
        return
    decision = plan(without_old(view), replace(desired, adoption=None))
    if isinstance(decision, Refusal):
        yield from decision.reasons


def without_old(view: ClusterView) -> ClusterView:
    """The pods as they will be once nobody knows the old nodes any more."""
    ids = {node.node_id for node in view.pods}
    nodes = tuple(
        replace(node, members=tuple(m for m in node.members if m.node_id in ids or m.in_handshake))
        for node in view.pods
    )
    return replace(view, nodes=nodes, old=None, alive_elsewhere=frozenset())
