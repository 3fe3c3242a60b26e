"""Servers that run with one node id: the disk of one is a copy of the other's.

Introduced to the members of a cluster, a copy would take the place of the original or fight with it, so it is looked
for before any introduction: among the pods, and at the addresses where members believe the others to be. `run_id` is
new at every start of a server, so it shows that two answers come from two of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from bootstrap.model.node import Address, Copy, Node, NodeId
from bootstrap.model.view import ClusterView
from bootstrap.nodes.failures import Failure


def among_pods(answers: Iterable[Node]) -> Iterator[Copy]:
    """Pairs of servers among the answers of one look that have the same node id. Two addresses of one pod may lead to
    two servers, too: its former machine still runs it.
    """
    first: dict[NodeId, Node] = {}
    for node in sorted(answers, key=lambda node: (node.ordinal, node.address)):
        one = first.setdefault(node.node_id, node)
        if one.run_id != node.run_id and one.address != node.address:
            yield Copy(
                node_id=node.node_id, pod=one.pod, address=one.address, pod_of_other=node.pod, other=node.address
            )


def former_places(view: ClusterView) -> Mapping[Address, Node]:
    """Where members believe another one, or themselves, to be that answers elsewhere, and that member. A blank node has
    no copy, and a place where a listed pod answers is known.
    """
    taken = {node.address for node in view.nodes}
    found: dict[Address, Node] = {}
    for reporter in view.nodes:
        for line in reporter.members:
            node = view.by_id.get(line.node_id)
            if node and not node.blank and line.address and line.address not in taken:
                found[line.address] = node
    return found


def elsewhere(former: Mapping[Address, Node], answers: Mapping[Address, Node | Failure]) -> Iterator[Copy]:
    """Members that still answer where others believe them to be, beside the pod with their id."""
    for address, node in sorted(former.items()):
        answer = answers.get(address)
        if isinstance(answer, Node) and answer.node_id == node.node_id and answer.run_id != node.run_id:
            yield Copy(node_id=node.node_id, pod=node.pod, address=node.address, pod_of_other="", other=address)
