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


def one_announced_address(view: ClusterView) -> Iterator[Reason]:
    """Nodes that announce the same address, or the one at which another node answers: each introduction of one of them
    would reach another. Left out are nodes that keep their former address until they are introduced: servers without a
    fixed address learn their own from an introduction.
    """
    announced: dict[Address, list[Node]] = {}
    for node in view.nodes:
        if node.myself.address is not None:
            announced.setdefault(node.myself.address, []).append(node)
    for address, nodes in sorted(announced.items()):
        unknown = [node for node in nodes if node.address != address and node.announced_ip is None]
        fixed = [n for n in nodes if n.address == address or n.announced_ip or (n in unknown and len(unknown) > 1)]
        answering = [node for node in view.nodes if node.address == address and node not in fixed]
        if len(fixed) > 1 or (fixed and answering):
            at_home = [node for node in fixed if node.address == address]
            wrong = [node for node in fixed if node not in at_home]
            yield (
                _one_address(address, wrong, at_home or answering)
                if len(wrong) == 1
                else _one_address(address, fixed, answering)
            )


def _one_address(address: Address, announcing: list[Node], answering: list[Node]) -> Reason:
    pods = ", ".join(node.pod for node in announcing)
    where = ", ".join(str(node.address) for node in announcing)
    if len(announcing) > 1:
        message = f"{pods} answer at {where} and all announce the address {address} to the other nodes"
    else:
        message = f"{pods} answers at {where} and announces the address {address}, at which {answering[0].pod} answers"
    return Reason(
        code="one-announced-address",
        message=message,
        remedy="give each server its own address: without cluster-announce-ip a server finds it. The setting must be "
        "the pod's IP (fieldRef status.podIP); with hostNetwork each pod needs a machine of its own: kubectl exec "
        f"{announcing[-1].pod} -- redis-cli CONFIG GET cluster-announce-ip; then {RUN_AGAIN}",
        node=announcing[0].pod,
    )
