"""Which nodes know each other, and groups of nodes that are different clusters and must not be joined."""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model.node import Address, Node, NodeId, Role
from bootstrap.model.view import ClusterView


def groups(view: ClusterView) -> tuple[tuple[Node, ...], ...]:
    """The nodes grouped by which nodes know each other, in ordinal order. Each group is one cluster, or becomes one as
    soon as its links are up.
    """
    if any(not view.by_id.keys() - node.others.keys() - {node.node_id} for node in view.nodes[:1]):
        return (view.nodes,)  # the first node knows all others
    neighbours: dict[NodeId, set[NodeId]] = {node.node_id: set() for node in view.nodes}
    for node in view.nodes:
        for known in node.others.keys() & neighbours.keys():
            neighbours[node.node_id].add(known)
            neighbours[known].add(node.node_id)
    seen: set[NodeId] = set()
    found: list[tuple[Node, ...]] = []
    for node in view.nodes:
        if node.node_id in seen:
            continue
        group, edge = {node.node_id}, [node.node_id]
        while edge:
            fresh = neighbours[edge.pop()] - group
            group |= fresh
            edge.extend(fresh)
        seen |= group
        found.append(tuple(other for other in view.nodes if other.node_id in group))
    return tuple(found)


def in_conflict(view: ClusterView) -> tuple[tuple[Node, ...], ...]:
    """Groups of nodes that do not know each other and of which one would lose data if they were joined.

    A slot that two groups own would keep the owner with the higher epoch, and the other owner would delete its keys. A
    replica without a master in its group would be given another master, and flushed. Groups without such a slot or
    replica can be joined: a forming that was killed looks like that, and so does one cluster whose parts have lost
    contact with each other.
    """
    involved = [group for group in groups(view) if _owns_slots(group) or masterless_replicas(group)]
    owned = sum(len(node.slots) for group in involved for node in group)
    masterless = any(masterless_replicas(group) for group in involved)
    if len(involved) < 2 or (owned == len(view.claimed()) and not masterless):
        return ()
    return tuple(involved)


def masterless_replicas(group: tuple[Node, ...]) -> bool:
    """True where a replica in the group holds keys and no node in the group owns slots."""
    return not _owns_slots(group) and any(node.keys and node.role is Role.REPLICA for node in group)


def _owns_slots(group: tuple[Node, ...]) -> bool:
    return any(node.slots for node in group)


def copies(view: ClusterView) -> Iterator[Reason]:
    """Servers with one node id. Whatever is sent to one of them reaches the other members in the name of both."""
    for copy in view.copies:
        short = f"{copy.node_id[:8]}…"
        if copy.pod_of_other:
            yield Reason(
                code="cloned-node",
                message=f"{copy.pod} at {copy.address} and {copy.pod_of_other} at {copy.other} are two servers with "
                f"the node id {short}: the disk of one is a copy of the other's",
                remedy=f"find the original: the other members know {short} at its address (kubectl exec POD -- "
                "redis-cli CLUSTER NODES); then give the copy an empty disk: kubectl delete pvc data-POD --wait=false; "
                f"kubectl delete pod POD; then {RUN_AGAIN}",
                node=copy.pod,
            )
        else:
            yield Reason(
                code="copied-cluster",
                message=f"a copy of this cluster runs at {copy.other}: a server there has the node id {short} of "
                f"{copy.pod} at {copy.address}, and the members believe it to be there. Nothing has been changed",
                remedy="decide which of the two is to live, and stop the other; if these pods are the copy, their own "
                "cluster needs node ids of its own: start it with empty disks and load the data as a client does. A "
                f"pod of your own that is about to end needs some seconds for it; then {RUN_AGAIN}",
                node=copy.pod,
            )


def one_announced_address(view: ClusterView) -> Iterator[Reason]:
    """Nodes that announce the same address: each introduction of one of them would reach another."""
    announced: dict[Address, list[Node]] = {}
    for node in view.nodes:
        if node.myself.address is not None:
            announced.setdefault(node.myself.address, []).append(node)
    for address, nodes in sorted(announced.items()):
        if len(nodes) > 1:
            pods = ", ".join(node.pod for node in nodes)
            where = ", ".join(str(node.address) for node in nodes)
            yield Reason(
                code="one-announced-address",
                message=f"{pods} answer at {where} and all announce the address {address} to the other nodes",
                remedy="give each server its own address: without cluster-announce-ip a server finds it. The setting "
                "must be the pod's IP (fieldRef status.podIP); with hostNetwork each pod needs a machine of its own: "
                f"kubectl exec {nodes[0].pod} -- redis-cli CONFIG GET cluster-announce-ip; then {RUN_AGAIN}",
                node=nodes[0].pod,
            )
