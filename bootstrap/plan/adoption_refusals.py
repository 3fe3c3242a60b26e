"""What stands against joining a living cluster. Everything is said at the same time, and before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model.desired import Desired
from bootstrap.model.memory import mebibytes
from bootstrap.model.old_side import OLD_ORDINAL, Traits
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.versions import PathVerdict, upgrade_path
from bootstrap.model.view import ClusterView
from bootstrap.plan.describe import several

BUILT_IN = frozenset({"vectorset"})
"""Modules that are a part of Redis 8.0 and newer, and no reason as long as no key has their type."""


def against_joining(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    """Before the first introduction: all that would make the takeover fail, or a client."""
    return chain(
        silent_members(view),
        _not_whole(view),
        _pods_with_data(view),
        _too_few_pods(view, desired),
        _versions(view),
        _modules(view),
        _tls(view),
        _logins(view),
        _ports(view),
        _databases(view),
        _names(view),
        _no_room(view),
    )


def silent_members(view: ClusterView) -> Iterator[Reason]:
    """Members of the old cluster that give no answer."""
    for peer in view.old.silent if view.old else ():
        detail = f" ({peer.detail})" if peer.detail else ""
        yield Reason(
            code="old-node-silent",
            message=f"{peer.pod}, a member of the old cluster, gives no answer: {peer.why.value}{detail}",
            remedy="start it; if it is gone for good, on each node of the old cluster, within a minute: redis-cli "
            f"CLUSTER FORGET ID, with its id from CLUSTER NODES; then {RUN_AGAIN}",
            node=peer.pod,
        )


def _not_whole(view: ClusterView) -> Iterator[Reason]:
    """Nothing is taken over in the middle of a failover, a resharding or an outage."""
    old = view.old_nodes
    claimed = [slot for node in old for slot in node.slots]
    faults = []
    if len(set(claimed)) != len(ALL_SLOTS) or len(claimed) != len(ALL_SLOTS):
        missing = SlotSet.union_of(node.slots for node in old).complement().listed() or "none"
        faults.append(f"every slot must have one owner (slots without one: {missing})")
    if failing := [node.pod for node in old if not node.serving]:
        faults.append(f"cluster_state is fail on {', '.join(failing)}")
    if moving := [node.pod for node in old if node.open_slots or node.migrations]:
        faults.append(f"slots are on the move on {', '.join(moving)}")
    apart = [(one, other) for one, other in view.unlinked() if one.ordinal >= OLD_ORDINAL <= other.ordinal]
    if unlinked := [f"{one.pod} and {other.pod}" for one, other in apart]:
        faults.append(f"no link between {', '.join(unlinked[:3])}")
    if down := [node.pod for node in old if not node.replication.link_up]:
        faults.append(f"no link to their masters: {', '.join(down)}")
    if disputed := [node.pod for node in old if not view.agreed_on(node.node_id)]:
        faults.append(f"the nodes do not agree about {', '.join(disputed)}")
    if faults:
        yield Reason(
            code="old-not-whole",
            message=f"the old cluster is not whole: {'; '.join(faults)}",
            remedy="repair it first, with the tool that made it: redis-cli --cluster check HOST:PORT names the faults, "
            f"redis-cli --cluster fix HOST:PORT ends a resharding; then {RUN_AGAIN}",
        )


def _pods_with_data(view: ClusterView) -> Iterator[Reason]:
    if holders := [node for node in view.pods if node.keys]:
        held = ", ".join(f"{node.pod} ({several(node.keys, 'key')})" for node in holders)
        yield Reason(
            code="two-clusters",
            message=f"the pods hold keys of their own: {held}; two clusters with data are never joined",
            remedy="take over with blank pods, once nobody needs these keys: kubectl scale statefulset "
            f"{view.statefulset} --replicas=0; kubectl delete pvc data-{view.statefulset}-N for each pod, with "
            f"persistence; scale it up again; then {RUN_AGAIN}",
            node=holders[0].pod,
        )


def _too_few_pods(view: ClusterView, desired: Desired) -> Iterator[Reason]:
    shards = sum(1 for node in view.old_nodes if node.slots)
    pods = len(view.pods)
    if pods < shards:
        yield Reason(
            code="number-of-pods",
            message=f"the old cluster has {shards} shards, and there are {pods} pods: each shard needs one at least",
            remedy=f"declare BOOTSTRAP_SHARDS={shards} and the replicas for each, and as many pods: kubectl scale "
            f"statefulset {view.statefulset} --replicas={shards * (1 + desired.replicas_per_shard)}; another number of "
            f"shards can be declared after the takeover; then {RUN_AGAIN}",
        )


def _versions(view: ClusterView) -> Iterator[Reason]:
    """Pods that could not read the copy of an old master."""
    traits = view.old.traits if view.old else {}
    for one in dict.fromkeys(node.version for node in view.old_nodes):
        for pod in {node.version: node for node in reversed(view.pods)}.values():
            path = upgrade_path(one, pod.version, disks=False)
            strict = any(
                node.version == pod.version and traits.get(node.node_id, Traits()).strict_rdb for node in view.pods
            )
            if path.verdict is PathVerdict.NEEDS_SETTING and not strict:
                continue
            if not path.verdict.open or path.verdict is PathVerdict.NEEDS_SETTING:
                yield Reason(
                    code="version-path",
                    message=f"pods of {pod.version} cannot copy from the old cluster: {path}",
                    remedy=f"{path.remedy}; or import the keys: python -m bootstrap import; then {RUN_AGAIN}",
                    node=pod.pod,
                )


def _modules(view: ClusterView) -> Iterator[Reason]:
    traits = view.old.traits if view.old else {}
    needed = _union(traits.get(node.node_id, Traits()).modules for node in view.old_nodes) - BUILT_IN
    for pod in view.pods:
        if missing := sorted(needed - traits.get(pod.node_id, Traits(modules=needed)).modules):
            yield Reason(
                code="modules-missing",
                message=f"{pod.pod} lacks modules that the old cluster has loaded: {', '.join(missing)}",
                remedy="load them in the redis.conf of the pods (loadmodule), or use an image that has them; if no key "
                f"needs them, unload them from the old servers: redis-cli MODULE UNLOAD NAME; then {RUN_AGAIN}",
                node=pod.pod,
            )


def _tls(view: ClusterView) -> Iterator[Reason]:
    old = {node.config.get("tls-cluster", "no") for node in view.old_nodes}
    new = {node.config.get("tls-cluster", "no") for node in view.pods}
    if len(old | new) > 1:
        yield Reason(
            code="tls-differs",
            message=f"the cluster bus of the old cluster has TLS: {', '.join(sorted(old))}; that of the pods: "
            f"{', '.join(sorted(new))}; neither side understands the other",
            remedy="give both sides the same: the components tls and tls-plain-port add it to the pods, without them "
            f"they have none; both sides must trust the same authority; then {RUN_AGAIN}",
        )


def _logins(view: ClusterView) -> Iterator[Reason]:
    for each in view.old.logins if view.old else ():
        message = (
            f"{each.replica} could not copy from {each.master}, which rejects its masterauth: {each.why}"
            if each.replica
            else f"{each.master} rejects the password with which clients use the old cluster: {each.why}"
        )
        yield Reason(
            code="passwords-differ",
            message=message,
            remedy="for the move give the pods the password of the old cluster (the Secret redis-auth, or requirepass "
            f"and masterauth); it can be rotated after it (docs/security.md); then {RUN_AGAIN}",
            node=each.replica or each.master,
        )


def _ports(view: ClusterView) -> Iterator[Reason]:
    ports = view.old.ports if view.old else ()
    if ports:
        more = f" and {len(ports) - 4} more" if len(ports) > 4 else ""
        yield Reason(
            code="ports-closed",
            message=f"ports that every node must reach cannot be reached from here: {'; '.join(ports[:4])}{more}",
            remedy="let pods of both sides reach each other's port for clients and bus port: kubectl get networkpolicy "
            "--all-namespaces shows the policies (k8s/overlays/adopt opens the side of the pods, and has one for the "
            f"old namespace); then {RUN_AGAIN}",
        )


def _databases(view: ClusterView) -> Iterator[Reason]:
    traits = view.old.traits if view.old else {}
    highest = max((number for node in view.old_nodes for number in node.databases), default=0)
    for pod in view.pods:
        if highest >= (has := traits.get(pod.node_id, Traits(databases=highest + 1)).databases):
            yield Reason(
                code="several-databases",
                message=f"the old cluster has keys in database {highest}, and {pod.pod} has {several(has, 'database')}",
                remedy=f"set cluster-databases {highest + 1} in the redis.conf of the pods (Valkey 9 and newer); Redis "
                f"has one database in cluster mode; then {RUN_AGAIN}",
                node=pod.pod,
            )


def _names(view: ClusterView) -> Iterator[Reason]:
    """A server that sends clients to names sends them to `?` for a member without one."""
    traits = view.old.traits if view.old else {}
    for one, other, side in (
        (view.old_nodes, view.pods, "the old cluster"),
        (view.pods, view.old_nodes, "the pods"),
    ):
        prefer = [node for node in one if traits.get(node.node_id, Traits()).prefers_names]
        nameless = [node.pod for node in other if not traits.get(node.node_id, Traits(hostname="-")).hostname]
        if prefer and nameless:
            yield Reason(
                code="host-names",
                message=f"{side} sends clients to host names (cluster-preferred-endpoint-type hostname), and these "
                f"nodes announce none, so that clients would be sent to the host '?': {', '.join(nameless[:6])}",
                remedy="let both sides announce names (the component hostnames does it for the pods; CONFIG SET "
                "cluster-announce-hostname NAME on a running server), or send clients to addresses during the move: "
                f"CONFIG SET cluster-preferred-endpoint-type ip; then {RUN_AGAIN}",
            )


def _no_room(view: ClusterView) -> Iterator[Reason]:
    biggest = max((node.memory.dataset_bytes for node in view.old_nodes if node.slots), default=0)
    for pod in view.pods:
        if pod.memory.max_bytes and pod.memory.max_bytes < biggest:
            yield Reason(
                code="no-room",
                message=f"the biggest old shard has {mebibytes(biggest)} of data, and {pod.pod} has a maxmemory of "
                f"{mebibytes(pod.memory.max_bytes)}",
                remedy="raise maxmemory and the memory limit of the pods (the component memory sets both by one "
                f"number); then {RUN_AGAIN}",
                node=pod.pod,
            )


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
