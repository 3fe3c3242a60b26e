"""What stands against the further states of an adoption: there is nothing to adopt, the word of a person is missing, a
shard cannot go back, or the old nodes cannot leave yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model.desired import Desired
from bootstrap.model.memory import mebibytes
from bootstrap.model.node import Node, NodeId
from bootstrap.model.old_side import OLD_ORDINAL
from bootstrap.model.plan import Refusal
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.versions import upgrade_path
from bootstrap.model.view import ClusterView, fingerprint_of
from bootstrap.plan import spread
from bootstrap.plan.describe import several
from bootstrap.plan.planner import plan

SHOWN = 3
"""Nodes in one reason."""
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
    if old and old.no_cluster:
        return Reason(
            code="not-a-cluster",
            message=f"{old.no_cluster}, so there is no cluster to take over",
            remedy="copy its keys: python -m bootstrap import --from HOST:PORT (docs/moving.md), or name a node of a "
            f"cluster in BOOTSTRAP_ADOPT; then {RUN_AGAIN}",
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


def another_cluster(groups: Sequence[Sequence[Node]]) -> Iterator[Reason]:
    """Nodes at the given addresses of another cluster than the one that the pods have joined: the word of a person
    was not about them. `groups`: the nodes by who knows whom.
    """
    for group in groups:
        if all(node.ordinal >= OLD_ORDINAL for node in group):
            names = ", ".join(node.pod for node in group[:SHOWN])
            yield Reason(
                code="another-cluster",
                message=f"{names} know none of the pods, which have joined another cluster before",
                remedy="name the cluster that is being taken over in BOOTSTRAP_ADOPT, or leave it empty once that has "
                f"been finished; an address may be another server's by now; then {RUN_AGAIN}",
                node=group[0].pod,
            )


def orphaned(view: ClusterView) -> Mapping[NodeId, SlotSet]:
    """Owners of slots that do not answer and that a node follows which does, with these slots: it will be elected."""
    missing = SlotSet.union_of(node.slots for node in view.nodes).complement()
    found: dict[NodeId, SlotSet] = {}
    for node in view.nodes:
        line = node.others.get(node.myself.master_id or "")
        if line is not None and line.node_id not in view.by_id and line.slots & missing:
            found[line.node_id] = line.slots & missing
    return found


def against_taking_over(view: ClusterView) -> Iterator[Reason]:
    """After the introduction, before a failover. A master that its replicas will replace is no reason."""
    owned = SlotSet.union_of(node.slots for node in view.nodes)
    if left := owned.complement() - SlotSet.union_of(orphaned(view).values()):
        silent = ", ".join(peer.pod for peer in view.old.silent) if view.old else ""
        yield Reason(
            code="old-not-whole",
            message=f"no node that answers owns the slots {left.listed()}, and none has a copy of them"
            + (f"; no answer: {silent}" if silent else ""),
            remedy=f"bring the old nodes back with their disks; the pods go on from here: {RUN_AGAIN}",
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
    owned = SlotSet.union_of(node.slots for node in view.pods)
    if owned != ALL_SLOTS:
        left = ", ".join(node.pod for node in view.old_nodes if node.slots) or "a node that does not answer"
        yield Reason(
            code="not-adopted-yet",
            message=f"the pods do not own the slots {owned.complement().listed()}; their owner: {left}",
            remedy=f"take them over first, with BOOTSTRAP_ADOPT_FINISH and BOOTSTRAP_ADOPT_BACK off: {RUN_AGAIN}",
        )
        return
    if joined_by_pods(view):
        yield from _without_a_copy(view)
    decision = plan(without_old(view), replace(desired, adoption=None, accept_loss="", accept_takeover=""))
    if isinstance(decision, Refusal):
        yield from decision.reasons


def joined_by_pods(view: ClusterView) -> bool:
    """Whether pods still know old nodes: these have not been forgotten yet."""
    old = {node.node_id for node in view.old_nodes}
    return any(node.others.keys() & old for node in view.pods)


def _without_a_copy(view: ClusterView) -> Iterator[Reason]:
    """An old server that leaves without a copy leaves nothing on its disk that could be gone back to."""
    for owner in (node for node in view.pods if node.slots):
        followers = [node for node in view.old_nodes if node.myself.master_id == owner.node_id]
        if owner.keys and not any(node.replication.link_up for node in followers):
            names = ", ".join(node.pod for node in followers) or "none"
            yield Reason(
                code="old-copy-missing",
                message=f"no old node has a copy of the slots of {owner.pod}, so no disk would keep them; old nodes "
                f"that follow it: {names}",
                remedy="the log of the old server says why its link is down. If the old disks need not have them, "
                f"stop all old servers: then they count as gone, and the pods forget them; then {RUN_AGAIN}",
                node=owner.pod,
            )


def without_old(view: ClusterView) -> ClusterView:
    """The pods as they will be once nobody knows the old nodes any more."""
    ids = {node.node_id for node in view.pods}
    nodes = tuple(
        replace(node, members=tuple(m for m in node.members if m.node_id in ids or m.in_handshake))
        for node in view.pods
    )
    return replace(view, nodes=nodes, old=None, alive_elsewhere=frozenset())
