"""What is not as declared, in words for a person: the first half of a plan, and the reason for the second."""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.desired import Desired
from bootstrap.model.node import Node
from bootstrap.model.plan import Finding
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.steps import AwaitAgreement, AwaitEpochs
from bootstrap.model.view import ClusterView
from bootstrap.plan.describe import several
from bootstrap.plan.lost_members import LostMember, lost_members
from bootstrap.plan.placement import judge
from bootstrap.plan.rebalance import leaving, skew
from bootstrap.plan.settled import settled
from bootstrap.plan.topology import Shard


def findings(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Finding]:
    """Everything that keeps `view` from the declared shape, the most basic first."""
    if blank := [node.pod for node in view.nodes if node.blank]:
        yield Finding(code="blank-nodes", message=f"blank, knowing no other node: {', '.join(blank)}")
    remembered = SlotSet.union_of(loss.slots for loss in lost_members(view))
    if free := view.claimed().complement() - remembered:
        yield Finding(code="slots-uncovered", message=f"{several(len(free), 'slot')} without an owner: {free}")
    if pairs := sum(1 for _ in view.unlinked()):
        yield Finding(code="not-linked", message=f"{several(pairs, 'pair')} of nodes not linked in both directions")
    if not settled(AwaitAgreement(), view):
        yield Finding(code="beliefs-differ", message="not all nodes agree who owns which slots and who follows whom")
    if doubled := sum(len(node.slots) for node in view.nodes) - len(view.claimed()):
        yield Finding(code="slots-claimed-twice", message=f"{several(doubled, 'slot')} claimed by more than one node")
    for loss in lost_members(view):
        yield _loss_finding(loss, view)
    for shard in shards:
        for replica in shard.replicas:
            yield from _replica_findings(view.by_id[replica], view.by_id[shard.master])
    if waiting := [node.pod for node in view.nodes if not node.serving]:
        yield Finding(code="not-serving", message=f"cluster_state is not ok on {', '.join(waiting)}")
    if not settled(AwaitEpochs(), view):
        yield Finding(code="equal-epochs", message="two masters have the same config epoch")
    if moving := view.open_slots():
        marked = ", ".join(node.pod for node in view.nodes if node.open_slots)
        yield Finding(code="open-slots", message=f"{several(len(moving), 'slot')} half moved ({moving}) on {marked}")
    yield from _size(view, desired)
    yield from _placement(view, desired)
    yield from _drift(view, desired)


def _size(view: ClusterView, desired: Desired) -> Iterator[Finding]:
    """Shards and pods too many or too few, and shards that are off their shares."""
    owners = sum(1 for node in view.nodes if node.slots)
    if view.claimed() == ALL_SLOTS and owners != desired.shards and not view.unlisted():
        yield Finding(code="shards-differ", message=f"{several(owners, 'shard')}, declared are {desired.shards}")
    if going := [node.pod for node in leaving(view, desired)]:
        yield Finding(code="pods-leave", message=f"the declared shape has no place for {', '.join(going)}")
    if view.spares:
        blank = ", ".join(node.pod for node in view.spares)
        yield Finding(code="spare-pods", message=f"beyond the shape and empty, no part of the cluster: {blank}")
    off = skew(view, desired)
    if off.slots_percent > desired.threshold_percent and view.claimed() == ALL_SLOTS and owners == desired.shards:
        message = f"a shard is {off.slots_percent:g} % off its share of slots, and {off.memory_percent:g} % of memory"
        yield Finding(code="skew", message=message)


def _placement(view: ClusterView, desired: Desired) -> Iterator[Finding]:
    """Only of a formed cluster: while it forms, or a member is lost, roles are still to be given."""
    found = judge(view)
    if found.verdict != "improvable" or view.claimed() != ALL_SLOTS or view.unlisted():
        return
    yield Finding(code="placement", message="; ".join(found.why))
    if desired.replace_replicas == "on" and desired.replicas_per_shard == 1:
        message = "with one replica each, an exchange leaves a shard without a copy for as long as the next one takes"
        message += ": BOOTSTRAP_REPLACE_REPLICAS=with-a-gap accepts that"
        yield Finding(code="replicas-not-exchanged", message=message)


def _drift(view: ClusterView, desired: Desired) -> Iterator[Finding]:
    """Settings that are not as declared, or not the same on all nodes; an address that is not where a node answers."""
    for node in view.nodes:
        if desired.timeout_ms is not None and node.timeout_ms not in (None, desired.timeout_ms):
            drift = f"cluster-node-timeout of {node.pod} is {node.timeout_ms} ms, declared are {desired.timeout_ms} ms"
            yield Finding(code="timeout-drift", message=drift, node=node.pod)
        for name, value in desired.config.items():
            if node.config.get(name, value) != value:
                drift = f"{name} of {node.pod} is {node.config[name]}, declared is {value}"
                yield Finding(code="config-drift", message=drift, node=node.pod)
        if node.myself.address not in (None, node.address):
            drift = f"{node.pod} answers at {node.address} and announces {node.myself.address}"
            yield Finding(code="announces-another-address", message=drift, node=node.pod)
    for name in sorted({name for node in view.nodes for name in node.config} - desired.config.keys()):
        values = sorted({node.config[name] for node in view.nodes if name in node.config})
        if len(values) > 1:
            yield Finding(code="config-differs", message=f"{name} is not the same on all nodes: {', '.join(values)}")


def _loss_finding(loss: LostMember, view: ClusterView) -> Finding:
    message = f"no pod carries {view.name(loss.node_id)}, which {several(len(loss.known_by), 'node')} still know"
    if loss.candidate:
        message += f"; it owned {loss.slots}, and {loss.candidate.pod} has the best copy"
    elif loss.slots:
        message += f"; it owned {loss.slots}, and no copy is left"
    return Finding(code="lost-member", message=message)


def _replica_findings(replica: Node, master: Node) -> Iterator[Finding]:
    if replica.myself.master_id != master.node_id:
        message = f"{replica.pod} is not yet a replica of {master.pod}"
        yield Finding(code="replica-missing", message=message, node=replica.pod)
    elif not replica.replication.link_up:
        how = "its copy is on its way" if replica.replication.syncing else "down"
        message = f"the link of {replica.pod} to its master {master.pod} is not up: {how}"
        yield Finding(code="replica-link-down", message=message, node=replica.pod)
