"""The findings of a plan: everything that differs from the declared shape, in words for a person."""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model import left_over
from bootstrap.model.desired import Desired
from bootstrap.model.node import NO_FAILOVER_NAMES, Node
from bootstrap.model.plan import Finding
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import AwaitAgreement, AwaitEpochs
from bootstrap.plan import upgrade
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.describe import several
from bootstrap.plan.lost_members import LostMember
from bootstrap.plan.quickening import left_quickened
from bootstrap.plan.rebalance import skew
from bootstrap.plan.settled import settled
from bootstrap.plan.verdict import judge, without_repetition


def findings(found: Assessment) -> Iterator[Finding]:
    """Everything that differs from the declared shape, the most basic first."""
    view = found.view
    if view.unreachable:
        yield Finding(code="pods-missing", message=f"without an answer: {view.describe_unreachable()}")
    if blank := [node.pod for node in view.nodes if node.blank]:
        yield Finding(code="blank-nodes", message=f"blank, not a member of any cluster: {', '.join(blank)}")
    owned_by_lost = SlotSet.union_of(lost.slots for lost in found.absent_members)
    if free := view.claimed().complement() - owned_by_lost:
        yield Finding(code="slots-uncovered", message=f"{several(len(free), 'slot')} without an owner: {free.listed()}")
    if pairs := len(found.unlinked):
        yield Finding(code="not-linked", message=f"{several(pairs, 'pair')} of nodes not linked in both directions")
    if not settled(AwaitAgreement(), view):
        message = "not all nodes agree on the owners of slots and the masters of replicas"
        yield Finding(code="beliefs-differ", message=message)
    if doubled := sum(len(node.slots) for node in view.nodes) - len(view.claimed()):
        yield Finding(code="slots-claimed-twice", message=f"{several(doubled, 'slot')} claimed by more than one node")
    for lost in found.absent_members:
        yield from _absent_master(lost) if view.unreachable else [_lost_member(lost, view)]
    for shard in found.shards:
        for replica in shard.replicas:
            yield from _replica(view.by_id[replica], view.by_id[shard.master])
    if waiting := [node.pod for node in view.nodes if not node.serving]:
        yield Finding(code="not-serving", message=f"cluster_state is not ok on {', '.join(waiting)}")
    for node in view.nodes:
        if node.writes_refused:
            message = f"{node.pod} refuses writes: {node.writes_refused}"
            yield Finding(code="writes-refused", message=message, node=node.pod)
    if not settled(AwaitEpochs(), view):
        yield Finding(code="equal-epochs", message="two masters have the same config epoch")
    for node_id, holders in found.outranked.items():
        yield _outranked(view.by_id[node_id], holders)
    if open_slots := view.open_slots():
        pods = ", ".join(node.pod for node in view.nodes if node.open_slots)
        yield Finding(
            code="open-slots", message=f"{several(len(open_slots), 'open slot')} ({open_slots.listed()}) on {pods}"
        )
    for each in left_over.find(view):
        yield Finding(code="keys-left-over", message=str(each), node=each.holder.pod)
    yield from _size(found)
    yield from _placement(found)
    yield from _drift(found)
    yield from notices(view, found.desired)


def notices(view: ClusterView, desired: Desired) -> Iterator[Finding]:
    """What no run changes and a person should know of; every verb reports it."""
    yield from upgrade.notices(view)
    yield from _unchecked(view, desired)
    yield from _libraries(view)


def _lost_member(lost: LostMember, view: ClusterView) -> Finding:
    known_by = several(len(lost.known_by), "node")
    message = f"no pod has the node id {view.name(lost.node_id)}, which {known_by} still list as a member"
    if lost.candidate:
        message += f"; it owned {lost.slots.listed()}, and {lost.candidate.pod} has the best copy"
    elif lost.slots:
        message += f"; it owned {lost.slots.listed()}, and no copy is left"
    return Finding(code="lost-member", message=message)


def _absent_master(absent: LostMember) -> Iterator[Finding]:
    """While pods are missing, a member without slots is not worth a finding: its pod is named already."""
    if absent.slots:
        message = f"the master of {absent.slots.listed()} is on a pod that does not answer, or has lost its disk"
        copy = f"{absent.candidate.pod} has the best copy" if absent.candidate else "no pod that answers has a copy"
        yield Finding(code="master-missing", message=f"{message}; {copy}")


def _replica(replica: Node, master: Node) -> Iterator[Finding]:
    if replica.myself.master_id != master.node_id:
        message = f"{replica.pod} is not yet a replica of {master.pod}"
        yield Finding(code="replica-missing", message=message, node=replica.pod)
    elif not replica.replication.link_up:
        state = "the first copy is in progress" if replica.replication.syncing else "the link is down"
        message = f"{replica.pod} does not follow its master {master.pod}: {state}"
        yield Finding(code="replica-link-down", message=message, node=replica.pod)


def _outranked(master: Node, holders: tuple[Node, ...]) -> Finding:
    own, held = master.myself.config_epoch, max(node.others[master.node_id].config_epoch for node in holders)
    voters = ", ".join(node.pod for node in holders)
    message = f"{voters} would elect no replica of {master.pod}: the config epoch known there is {held}, not {own}"
    return Finding(code="epochs-disagree", message=message, node=master.pod)


def _size(found: Assessment) -> Iterator[Finding]:
    """Shards and pods too many or too few, and shards that are off their shares."""
    view, desired = found.view, found.desired
    owners = sum(1 for node in view.nodes if node.slots)
    if view.claimed() == ALL_SLOTS and owners != desired.shards and not view.unlisted():
        message = f"{several(owners, 'shard')} with slots, {desired.shards} declared"
        yield Finding(code="shards-differ", message=message)
    if found.leaving:
        pods = ", ".join(node.pod for node in found.leaving)
        yield Finding(code="pods-leave", message=f"beyond the declared shape, still members of the cluster: {pods}")
    if view.spares:
        pods = ", ".join(node.pod for node in view.spares)
        yield Finding(code="spare-pods", message=f"beyond the declared shape, blank, not part of the cluster: {pods}")
    if view.silent_spares:
        pods = ", ".join(f"{peer.pod} ({peer.why.value})" for peer in view.silent_spares)
        message = f"beyond the declared shape, without an answer, not part of the cluster: {pods}"
        yield Finding(code="spare-pods", message=message)
    off = skew(view, desired)
    if off.slots_percent > desired.threshold_percent and view.claimed() == ALL_SLOTS and owners == desired.shards:
        message = f"a shard is {off.slots_percent:g} % off its share of slots, and {off.memory_percent:g} % of memory"
        yield Finding(code="skew", message=message)


def _placement(found: Assessment) -> Iterator[Finding]:
    """Only for a formed cluster: while it forms, or has a lost member, roles are still to be assigned."""
    view, desired = found.view, found.desired
    verdict = judge(view)
    if view.claimed() != ALL_SLOTS or view.unlisted():
        return
    points = without_repetition(view, verdict.single_points)
    crowded = f"single points of failure: {'; '.join(str(point) for point in points if point.stops)}"
    if found.spreading:
        yield Finding(code="masters-crowded", message=crowded)
    elif found.not_spreading_because:
        message = f"{crowded}; no master fails over now: {found.not_spreading_because}"
        yield Finding(code="masters-not-spread", message=message)
    if verdict.verdict != "improvable":
        return
    yield Finding(code="placement", message="; ".join(verdict.why))
    if desired.replace_replicas == "on" and desired.replicas_per_shard == 1:
        message = "with one replica per shard, a swap leaves a shard without a copy until the next copy is complete; "
        message += "BOOTSTRAP_REPLACE_REPLICAS=with-a-gap accepts that"
        yield Finding(code="replicas-not-exchanged", message=message)


def _unchecked(view: ClusterView, desired: Desired) -> Iterator[Finding]:
    """Declared settings that some nodes do not report: nobody knows whether they have the declared value."""
    declared = {"cluster-node-timeout": desired.timeout_ms is not None} | dict.fromkeys(desired.config, True)
    for name in (name for name, wanted in declared.items() if wanted):
        silent = [
            node.pod
            for node in view.nodes
            if (node.timeout_ms is None if name == "cluster-node-timeout" else name not in node.config)
        ]
        if silent:
            message = f"{name} is declared and could not be checked on {', '.join(silent)}, which do not report it"
            yield Finding(code="setting-not-checked", message=message)


def _libraries(view: ClusterView) -> Iterator[Finding]:
    """Function libraries are not part of replication between masters: each master has its own."""
    counts = {node.pod: node.library_count for node in view.nodes if node.slots and node.library_count is not None}
    if len(set(counts.values())) > 1:
        most = max(counts, key=lambda pod: counts[pod] or 0)
        each = ", ".join(f"{pod} {count}" for pod, count in counts.items())
        message = (
            f"the masters have different numbers of function libraries: {each}; FCALL fails where one is missing: "
            f"kubectl exec {most} -- redis-cli FUNCTION LIST WITHCODE shows it, and FUNCTION LOAD on each other master "
            "adds it"
        )
        yield Finding(code="libraries-differ", message=message, node=most)


def _drift(found: Assessment) -> Iterator[Finding]:
    """Settings that differ from the declared ones or between nodes; addresses that differ from the announced ones."""
    nodes, desired = found.view.nodes, found.desired
    for node in nodes:
        if left_quickened(node, desired):
            message = f"{node.pod} has the temporary settings of a run that was killed: "
            message += f"cluster-node-timeout {node.timeout_ms} and {node.no_failover_name} yes"
            yield Finding(code="temporary-settings", message=message, node=node.pod)
        elif desired.timeout_ms is not None and node.timeout_ms not in (None, desired.timeout_ms):
            drift = f"cluster-node-timeout of {node.pod} is {node.timeout_ms} ms, declared is {desired.timeout_ms} ms"
            yield Finding(code="timeout-drift", message=drift, node=node.pod)
        for name, value in desired.config.items():
            if node.config.get(name, value) != value:
                drift = f"{name} of {node.pod} is {node.config[name]}, declared is {value}"
                yield Finding(code="config-drift", message=drift, node=node.pod)
        if node.myself.address not in (None, node.address):
            drift = f"{node.pod} answers at {node.address} and announces {node.myself.address}"
            yield Finding(code="announces-another-address", message=drift, node=node.pod)
    for name in sorted({n for node in nodes for n in node.config} - {*desired.config, *NO_FAILOVER_NAMES}):
        values = sorted({node.config[name] for node in nodes if name in node.config})
        if len(values) > 1:
            yield Finding(code="config-differs", message=f"{name} is not the same on all nodes: {', '.join(values)}")
