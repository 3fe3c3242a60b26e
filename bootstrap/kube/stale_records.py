"""DNS records that contradict Kubernetes: the address of a pod may be a pod of another team by now.

A blank server there looks like a pod that has lost its disk, and would be given a copy of the data. So what answers at
an address that Kubernetes does not give the pod is not taken for the pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bootstrap.model.node import Node
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView


def without_stale(view: ClusterView, addresses: Mapping[str, frozenset[str]]) -> ClusterView:
    """The view in which each node that answers at an address other than its pod's is unreachable. `addresses` has the
    addresses of every pod, as Kubernetes reports them; none for a pod that has not started.

    Where no pod answers at its own address, the Service lists addresses of another kind, as those of machines or
    proxies, and nothing can be compared.
    """
    stale = [node for node in view.pods if node.address.host not in addresses.get(node.pod, ())]
    if len(stale) == len(view.pods) or not stale:
        return view
    moved_to = frozenset().union(*(addresses.get(node.pod, ()) for node in stale))
    peers = (*view.unreachable, *(_peer(node, addresses) for node in stale))
    nodes = tuple(node for node in view.nodes if node not in stale)
    unlisted = replace(view, nodes=nodes).unlisted()
    places = {
        node_id: {line.address.host for node in known_by if (line := node.others[node_id]).address}
        for node_id, known_by in unlisted.items()
    }
    return replace(
        view,
        nodes=nodes,
        unreachable=tuple(sorted(peers, key=lambda peer: peer.ordinal)),
        # What answers at the address that Kubernetes gives such a pod is that pod.
        alive_elsewhere=frozenset(i for i in view.alive_elsewhere if not places.get(i, set()) & moved_to),
    )


def _peer(node: Node, addresses: Mapping[str, frozenset[str]]) -> UnreachablePeer:
    where = ", ".join(sorted(addresses.get(node.pod, ())))
    known = f"Kubernetes has the pod at {where}" if where else "Kubernetes has no such pod, or it has no address yet"
    return UnreachablePeer(
        pod=node.pod,
        ordinal=node.ordinal,
        why=UnreachableReason.AMBIGUOUS,
        address=node.address,
        detail=f"a stale record, or a pod of another cluster: {known}",
    )
