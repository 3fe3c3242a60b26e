"""The invariants of a good cluster, written independently of the planner: the two share only nouns, so neither hides
the other's mistakes. A run claims success only when `violations` is empty; it is also the oracle of the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model import bus, copies, left_over, links, versions
from bootstrap.model.desired import Desired
from bootstrap.model.node import Address, Node, NodeId, Role
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.unreachable import UnreachablePeer, in_groups, in_words
from bootstrap.model.view import ClusterView

_PODS_SHOWN = 3
_APPLY = f"apply repairs this, or names the reason why it cannot: {RUN_AGAIN}; elsewhere: python -m bootstrap apply"
_BY_UNREACHABLE = frozenset(
    {
        *("not-serving", "slots-uncovered", "owners-disagree", "number-of-masters", "number-of-replicas"),
        *("replica-of-nobody", "unlisted-member", "handshake"),
    }
)
"""Violations that a pod which does not answer causes as well. While there is one, `apply` only waits for it."""


_NOT_YET_DECLARED = frozenset(
    {"number-of-pods", "number-of-masters", "number-of-replicas", "unlisted-member"}
) | frozenset({"replica-not-online", "timeout-drift", "config-drift", "keys-left-over"})
"""Of a cluster that has been taken over and whose old nodes are still members."""
_OF_OLD_NODES = frozenset({"not-serving", "owners-disagree", "roles-disagree"})
"""What has to hold of these nodes, too. Whether they have a copy decides about the way back alone."""


def violations(view: ClusterView, desired: Desired) -> tuple[Reason, ...]:
    """Every invariant that does not hold, in words, node by node; empty for a good cluster of the declared shape. Blank
    pods beyond the shape are not part of the cluster. Beside servers that share a node id nothing else is reported:
    what the members say about one of them is about the other as well.
    """
    if cloned := tuple(copies.reasons(view)):
        return cloned
    view = view.within(desired.nodes)
    found: tuple[Reason, ...] = tuple(
        chain(
            _unreachable(view),
            _bus(view),
            versions.clashes({node.pod: node.version for node in view.nodes}, view.statefulset),
            _serving(view),
            _writes(view),
            _coverage(view),
            _same_owners(view),
            _links(view),
            _roles(view, desired),
            _replication(view),
            _epochs(view),
            _unlisted(view),
            _handshakes(view),
            _open_slots(view),
            _left_over(view),
            _settings(view, desired),
        )
    )
    if view.old_nodes:
        names, declared = {node.pod for node in view.old_nodes}, (r for r in found if r.code not in _NOT_YET_DECLARED)
        found = tuple(r for r in declared if r.node not in names or r.code in _OF_OLD_NODES)
    return tuple(_explained(reason, view.unreachable) for reason in found) if view.unreachable else found


def _bad(code: str, message: str, node: str | None = None, remedy: str = _APPLY) -> Reason:
    return Reason(code=code, message=message, remedy=remedy, node=node)


def _explained(reason: Reason, unreachable: Sequence[UnreachablePeer]) -> Reason:
    """The reason with the pods that do not answer as its probable cause, and with their remedy."""
    if reason.code not in _BY_UNREACHABLE:
        return reason
    pods = ", ".join(peer.pod for peer in unreachable[:_PODS_SHOWN])
    more = f" and {len(unreachable) - _PODS_SHOWN} more" if len(unreachable) > _PODS_SHOWN else ""
    verb = "does" if len(unreachable) == 1 else "do"
    what = "probably the id of" if reason.code == "unlisted-member" else "probably because of"
    message = f"{reason.message}: {what} {pods}{more}, which {verb} not answer"
    return replace(reason, message=message, remedy=unreachable[0].remedy)


def _unreachable(view: ClusterView) -> Iterator[Reason]:
    for group in in_groups(view.unreachable):
        pod = group[0].pod if len(group) == 1 else None
        yield _bad("unreachable", in_words(group), pod, group[0].remedy)


def _serving(view: ClusterView) -> Iterator[Reason]:
    for node in view.nodes:
        if not node.serving:
            yield _bad("not-serving", f"{node.pod} reports cluster_state:fail", node.pod)


def _writes(view: ClusterView) -> Iterator[Reason]:
    for node in view.nodes:
        if node.writes_refused:
            remedy = (
                f"kubectl exec {node.pod} -- df -h /data, and kubectl logs {node.pod} --tail=50, show the cause; make "
                "room on the disk, or raise maxmemory. After a failed save it accepts writes again once one succeeds: "
                f"kubectl exec {node.pod} -- redis-cli BGSAVE; then {RUN_AGAIN}"
            )
            yield _bad("writes-refused", f"{node.pod} refuses writes: {node.writes_refused}", node.pod, remedy)


def _coverage(view: ClusterView) -> Iterator[Reason]:
    claimed = sum(len(node.slots) for node in view.nodes)
    union = SlotSet.union_of(node.slots for node in view.nodes)
    if union != ALL_SLOTS:
        yield _bad("slots-uncovered", f"no node owns the slots {union.complement().listed()}")
    if claimed != len(union):
        yield _bad("slots-claimed-twice", f"{claimed - len(union)} slots are claimed by more than one node")


def _same_owners(view: ClusterView) -> Iterator[Reason]:
    owned = {node.node_id: node.slots for node in view.nodes if node.slots}
    for node in view.nodes:
        reported = {member.node_id: member.slots for member in node.members if member.slots}
        if reported != owned:
            message = f"{node.pod} reports other owners of slots than the owners themselves"
            yield _bad("owners-disagree", message, node.pod)


def _bus(view: ClusterView) -> Iterator[Reason]:
    if missing := bus.blocked(view):
        yield _bad("bus-blocked", bus.message(missing, view), remedy=bus.remedy(missing))


def _links(view: ClusterView) -> Iterator[Reason]:
    in_one_reason = {(node.node_id, peer.node_id) for node, peer in bus.blocked(view)}
    for node in view.nodes:
        lines = {member.node_id: member for member in node.members}
        for peer in view.nodes:
            line = lines.get(peer.node_id)
            if line is None:
                yield _bad("not-known", f"{node.pod} does not know {peer.pod}", node.pod)
            elif (node.node_id, peer.node_id) in in_one_reason:
                continue
            elif not line.connected:
                yield _bad("link-down", f"{node.pod} has no link to {peer.pod}", node.pod, _check_bus(peer))
            elif line.address not in (peer.address, _announced(peer)):
                message = f"{node.pod} has the address {line.address} for {peer.pod}, which answers at {peer.address}"
                yield _bad("link-elsewhere", message, node.pod)
            elif line.flags & {"fail", "fail?", "handshake", "noaddr"}:
                flags = ",".join(sorted(line.flags))
                yield _bad("suspected", f"{node.pod} marks {peer.pod} as {flags}", node.pod, _check_bus(peer))
            elif bus.unanswered(node, line):
                message = f"{node.pod} has had no answer from {peer.pod} for {line.unanswered_ms // 1000} s"
                yield _bad("link-down", message, node.pod, _check_bus(peer))


def _check_bus(peer: Node) -> str:
    return (
        f"apply links the nodes again: {RUN_AGAIN}; if they stay apart, a NetworkPolicy (kubectl get networkpolicy), "
        f"firewall or service mesh blocks the cluster bus (port {peer.bus_port})"
    )


def _roles(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    if (pods := len(view.nodes) + len(view.unreachable)) != desired.nodes:
        remedy = (
            f"kubectl get statefulset {view.statefulset} shows the number of pods; kubectl get configmap "
            f"redis-bootstrap-settings -o yaml, the declared shape; {_APPLY}"
        )
        yield _bad("number-of-pods", f"listed pods: {pods}, declared: {desired.nodes}", remedy=remedy)
    masters = {node.node_id: node for node in view.nodes if node.role is Role.MASTER}
    if len(masters) != desired.shards:
        yield _bad("number-of-masters", f"masters: {len(masters)}, declared: {desired.shards}")
    followers = Counter(node.myself.master_id for node in view.nodes if node.role is Role.REPLICA)
    for node_id, master in masters.items():
        if not master.slots:
            yield _bad("master-without-slots", f"{master.pod} is a master without slots", master.pod)
        if followers[node_id] != desired.replicas_per_shard:
            count = f"{followers[node_id]} replica{'' if followers[node_id] == 1 else 's'}"
            message = f"{master.pod} has {count}, declared: {desired.replicas_per_shard}"
            yield _bad("number-of-replicas", message, master.pod)
    for node in view.nodes:
        for member in node.members:
            if (peer := _node(view, member.node_id)) is None:
                continue
            if member.role is not peer.role:
                yield _bad("roles-disagree", f"{node.pod} reports {peer.pod} as a {member.role.value}", node.pod)
            elif member.master_id != peer.myself.master_id:
                message = f"{node.pod} reports another master of {peer.pod} than that itself"
                yield _bad("roles-disagree", message, node.pod)


def _replication(view: ClusterView) -> Iterator[Reason]:
    """What a replica reports, what its master reports, and the address from which it copies must agree."""
    for replica in view.nodes:
        if replica.role is Role.MASTER:
            if replica.replication.role is not Role.MASTER:
                yield _bad("replication", f"{replica.pod} is a master that replicates from another node", replica.pod)
            continue
        master = _node(view, replica.myself.master_id)
        if master is None or master.role is not Role.MASTER:
            yield _bad("replica-of-nobody", f"{replica.pod} follows a node that is not a master here", replica.pod)
        elif not replica.replication.link_up:
            message = f"the replication link of {replica.pod} to its master {master.pod} is down"
            if trouble := view.link_troubles.get(replica.node_id):
                remedy = links.remedy(trouble.cause, replica.pod, master.pod)
                yield _bad("replica-link-down", f"{message}; the likely cause: {trouble.why}", replica.pod, remedy)
            else:
                yield _bad("replica-link-down", message, replica.pod)
        elif replica.replication.master not in (None, master.address, _announced(master)):
            address = replica.replication.master
            yield _bad("replication", f"{replica.pod} copies from {address}, which is not {master.pod}", replica.pod)
        elif len(master.replication.online_replicas) < _followers(view, master):
            message = f"{master.pod} does not yet report all of its replicas as online"
            yield _bad("replica-not-online", message, master.pod)


def _epochs(view: ClusterView) -> Iterator[Reason]:
    epochs = Counter(node.myself.config_epoch for node in view.nodes if node.role is Role.MASTER)
    for epoch, count in epochs.items():
        if count > 1:
            yield _bad("equal-epochs", f"{count} masters have the config epoch {epoch}")
    own = {node.node_id: node for node in view.nodes if node.slots}
    for node in view.nodes:
        for member in node.members:
            master = own.get(member.node_id)
            if master is not None and member.config_epoch > master.myself.config_epoch:
                message = f"{node.pod} holds the config epoch {member.config_epoch} for {master.pod}, whose own is "
                message += f"{master.myself.config_epoch}, so it would elect no replica of {master.pod}"
                yield _bad("epochs-disagree", message, node.pod)


def _unlisted(view: ClusterView) -> Iterator[Reason]:
    listed = {node.node_id for node in view.nodes}
    for node in view.nodes:
        for member in node.members:
            if member.node_id not in listed and not member.in_handshake:
                message = f"{node.pod} lists the member {member.node_id}, which is the id of no pod that answers"
                yield _bad("unlisted-member", message, node.pod)


def _handshakes(view: ClusterView) -> Iterator[Reason]:
    """A node in handshake is somebody that would become a member if it answered. Redis 5.0 starts handshakes by itself
    with every unknown address that it hears of, also with that of a lost member (*measured*, 5.0.6). An introduction to
    a member that cannot be reached on the bus leaves one behind, too: that is in the reason of the bus.
    """
    blocked = bus.blocked(view)
    for node in view.nodes:
        introduced = {peer.address for one, peer in blocked if one is node}
        found = {member.address for member in node.members if member.in_handshake} - introduced
        if places := sorted(map(str, found)):
            yield _bad(
                "handshake",
                f"{node.pod} tries to reach a node that it does not know at {', '.join(places)}",
                node.pod,
                "the server gives up by itself, after its cluster-node-timeout; if this lasts, something introduces "
                "that address again and again (CLUSTER MEET), or a node still lists it: "
                f"kubectl exec {node.pod} -- redis-cli cluster nodes",
            )


def _open_slots(view: ClusterView) -> Iterator[Reason]:
    for node in view.nodes:
        if node.myself.migrating or node.myself.importing:
            message = f"{node.pod} has open slots (migrating or importing), left by an unfinished move"
            yield _bad("open-slots", message, node.pod)


def _left_over(view: ClusterView) -> Iterator[Reason]:
    """Keys that no client can see. `apply` neither shows nor deletes them, so its remedy is not to run again."""
    for each in left_over.find(view):
        yield _bad("keys-left-over", str(each), each.holder.pod, each.remedy)


def _settings(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    for node in view.nodes:
        if desired.timeout_ms is not None and node.timeout_ms not in (None, desired.timeout_ms):
            drift = f"cluster-node-timeout of {node.pod} is {node.timeout_ms} ms, declared is {desired.timeout_ms} ms"
            yield _bad("timeout-drift", drift, node.pod)
            if node.quickened:
                message = f"{node.pod} takes part in no failover ({node.no_failover_name} yes), left by a killed run"
                yield _bad("temporary-settings", message, node.pod)
        for name, value in desired.config.items():
            if node.config.get(name, value) != value:
                yield _bad("config-drift", f"{name} of {node.pod} is {node.config[name]}, not {value}", node.pod)


def _node(view: ClusterView, node_id: NodeId | None) -> Node | None:
    return next((node for node in view.nodes if node.node_id == node_id), None)


def _announced(node: Node) -> Address | None:
    """The address that a node announces, which may differ from the one at which it answers."""
    return node.myself.address


def _followers(view: ClusterView, master: Node) -> int:
    return sum(1 for node in view.nodes if node.myself.master_id == master.node_id)
