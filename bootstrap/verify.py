"""What makes a cluster good, written apart from the planner: it shares only the nouns with it, so neither hides the
other's mistakes. Success is claimed only when `violations` is empty; it is also the oracle of the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from bootstrap.errors import Reason
from bootstrap.model.desired import Desired
from bootstrap.model.node import Address, Node, NodeId, Role
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.view import ClusterView

_AGAIN = "run `apply` again; it repairs what can be repaired and says what cannot"


def violations(view: ClusterView, desired: Desired) -> tuple[Reason, ...]:
    """Everything that keeps `view` from being a good cluster of the declared shape, in words, node by node. Blank pods
    beyond the shape are no part of it.
    """
    view = view.within(desired.nodes)
    return tuple(
        chain(
            _absent(view),
            _serving(view),
            _coverage(view),
            _same_owners(view),
            _links(view),
            _roles(view, desired),
            _replication(view),
            _epochs(view),
            _strangers(view),
            _open_slots(view),
            _settings(view, desired),
        )
    )


def _bad(code: str, message: str, node: str | None = None, remedy: str = _AGAIN) -> Reason:
    return Reason(code=code, message=message, remedy=remedy, node=node)


def _absent(view: ClusterView) -> Iterator[Reason]:
    for unreachable in view.unreachable:
        yield _bad(
            "unreachable",
            str(unreachable),
            unreachable.pod,
            "see why the pod does not answer: kubectl describe pod, kubectl logs",
        )


def _serving(view: ClusterView) -> Iterator[Reason]:
    for node in view.nodes:
        if not node.serving:
            yield _bad("not-serving", f"{node.pod} says cluster_state:fail", node.pod)


def _coverage(view: ClusterView) -> Iterator[Reason]:
    claimed = sum(len(node.slots) for node in view.nodes)
    union = SlotSet.union_of(node.slots for node in view.nodes)
    if union != ALL_SLOTS:
        yield _bad("slots-uncovered", f"no node owns the slots {union.complement()}")
    if claimed != len(union):
        yield _bad("slots-claimed-twice", f"{claimed - len(union)} slots are claimed by more than one node")


def _same_owners(view: ClusterView) -> Iterator[Reason]:
    truth = {node.node_id: node.slots for node in view.nodes if node.slots}
    for node in view.nodes:
        told = {member.node_id: member.slots for member in node.members if member.slots}
        if told != truth:
            yield _bad(
                "owners-disagree", f"{node.pod} names other owners of slots than the owners themselves", node.pod
            )


def _links(view: ClusterView) -> Iterator[Reason]:
    for node in view.nodes:
        lines = {member.node_id: member for member in node.members}
        for peer in view.nodes:
            line = lines.get(peer.node_id)
            if line is None:
                yield _bad("not-known", f"{node.pod} does not know {peer.pod}", node.pod)
            elif not line.connected:
                yield _bad("link-down", f"{node.pod} has no link to {peer.pod}", node.pod)
            elif line.address not in (peer.address, _announced(peer)):
                yield _bad("link-elsewhere", f"{node.pod} looks for {peer.pod} at {line.address}", node.pod)
            elif line.flags & {"fail", "fail?", "handshake", "noaddr"}:
                flags = ",".join(sorted(line.flags))
                yield _bad("suspected", f"{node.pod} takes {peer.pod} for {flags}", node.pod)


def _roles(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    if len(view.nodes) + len(view.unreachable) != desired.nodes:
        yield _bad(
            "number-of-pods", f"{len(view.nodes) + len(view.unreachable)} pods are listed, {desired.nodes} are declared"
        )
    masters = {node.node_id: node for node in view.nodes if node.role is Role.MASTER}
    if len(masters) != desired.shards:
        yield _bad("number-of-masters", f"{len(masters)} nodes are masters, {desired.shards} are declared")
    followers = Counter(node.myself.master_id for node in view.nodes if node.role is Role.REPLICA)
    for node_id, master in masters.items():
        if not master.slots:
            yield _bad("master-without-slots", f"{master.pod} is a master and owns no slot", master.pod)
        if followers[node_id] != desired.replicas_per_shard:
            count = f"{followers[node_id]} replicas, {desired.replicas_per_shard} are declared"
            yield _bad("number-of-replicas", f"{master.pod} has {count}", master.pod)
    for node in view.nodes:
        for member in node.members:
            if (there := _node(view, member.node_id)) and member.role is not there.role:
                yield _bad("roles-disagree", f"{node.pod} takes {there.pod} for a {member.role.value}", node.pod)


def _replication(view: ClusterView) -> Iterator[Reason]:
    """A replica's own word, its master's word, and the address that it copies from must agree."""
    for replica in view.nodes:
        if replica.role is Role.MASTER:
            if replica.replication.role is not Role.MASTER:
                yield _bad("replication", f"{replica.pod} is a master that replicates from another node", replica.pod)
            continue
        master = _node(view, replica.myself.master_id)
        if master is None or master.role is not Role.MASTER:
            yield _bad("replica-of-nobody", f"{replica.pod} follows a node that is no master here", replica.pod)
        elif not replica.replication.link_up:
            yield _bad(
                "replica-link-down", f"the link of {replica.pod} to its master {master.pod} is down", replica.pod
            )
        elif replica.replication.master not in (None, master.address, _announced(master)):
            where = replica.replication.master
            yield _bad("replication", f"{replica.pod} copies from {where}, which is not {master.pod}", replica.pod)
        elif _seen_online(master) < _followers(view, master):
            yield _bad(
                "replica-not-online", f"{master.pod} does not yet count all of its replicas as online", master.pod
            )


def _epochs(view: ClusterView) -> Iterator[Reason]:
    epochs = Counter(node.myself.config_epoch for node in view.nodes if node.role is Role.MASTER)
    for epoch, count in epochs.items():
        if count > 1:
            yield _bad("equal-epochs", f"{count} masters have the config epoch {epoch}")


def _strangers(view: ClusterView) -> Iterator[Reason]:
    here = {node.node_id for node in view.nodes}
    for node in view.nodes:
        for member in node.members:
            if member.node_id not in here and not member.in_handshake:
                yield _bad(
                    "unlisted-member", f"{node.pod} knows {member.node_id}, which no listed pod carries", node.pod
                )


def _open_slots(view: ClusterView) -> Iterator[Reason]:
    for node in view.nodes:
        if node.myself.migrating or node.myself.importing:
            yield _bad("open-slots", f"{node.pod} has slots that are half moved", node.pod)


def _settings(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    for node in view.nodes:
        if desired.timeout_ms is not None and node.timeout_ms not in (None, desired.timeout_ms):
            drift = f"cluster-node-timeout of {node.pod} is {node.timeout_ms} ms, declared are {desired.timeout_ms} ms"
            yield _bad("timeout-drift", drift, node.pod)
        for name, value in desired.config.items():
            if node.config.get(name, value) != value:
                yield _bad("config-drift", f"{name} of {node.pod} is {node.config[name]}, not {value}", node.pod)


def _node(view: ClusterView, node_id: NodeId | None) -> Node | None:
    return next((node for node in view.nodes if node.node_id == node_id), None)


def _announced(node: Node) -> Address | None:
    """A node may announce another address than the one it was reached at."""
    return node.myself.address


def _seen_online(master: Node) -> int:
    return len(master.replication.online_replicas)


def _followers(view: ClusterView, master: Node) -> int:
    return sum(1 for node in view.nodes if node.myself.master_id == master.node_id)
