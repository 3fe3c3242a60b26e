"""Servers with one node id, in words: the disk of one is a copy of the other's. Whatever is sent to one of them reaches
the other members in the name of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model.node import Copy
from bootstrap.model.view import ClusterView

SHOWN = 3
"""Servers in one message."""


def reasons(view: ClusterView) -> Iterator[Reason]:
    """One reason for each pair of pods, and one for all servers outside the Service."""
    for copy in view.copies:
        if copy.pod_of_other == copy.pod:
            yield _started_twice(copy)
        elif copy.pod_of_other:
            yield _cloned(copy)
    if outside := [copy for copy in view.copies if not copy.pod_of_other]:
        yield _copied_cluster(outside)


def _cloned(copy: Copy) -> Reason:
    return Reason(
        code="cloned-node",
        message=f"{copy.pod} at {copy.address} and {copy.pod_of_other} at {copy.other} are two servers with the node "
        f"id {copy.node_id[:8]}…: the disk of one is a copy of the other's",
        remedy="find the copy: kubectl get pvc -o custom-columns="
        "NAME:.metadata.name,FROM:.spec.dataSource.name,CREATED:.metadata.creationTimestamp; what the members know "
        "does not show it, since they take the address from which they heard last; then give the copy an empty disk: "
        f"kubectl delete pvc data-POD --wait=false; kubectl delete pod POD; then {RUN_AGAIN}",
        node=copy.pod,
    )


def _started_twice(copy: Copy) -> Reason:
    return Reason(
        code="cloned-node",
        message=f"{copy.pod} runs twice: two servers with the node id {copy.node_id[:8]}… answer, at {copy.address} "
        f"and at {copy.other}",
        remedy=f"kubectl get pod {copy.pod} -o wide shows which of the two is the pod; the other one is left of a pod "
        "that was deleted by force: end its server on its machine, which kubectl get nodes shows as NotReady; then "
        f"{RUN_AGAIN}",
        node=copy.pod,
    )


def _copied_cluster(copies: Sequence[Copy]) -> Reason:
    places = ", ".join(
        f"{copy.other} (the node id {copy.node_id[:8]}… of {copy.pod} at {copy.address})" for copy in copies[:SHOWN]
    )
    more = f" and {len(copies) - SHOWN} more" if len(copies) > SHOWN else ""
    return Reason(
        code="copied-cluster",
        message=f"a copy of this cluster runs at {places}{more}, where members believe these nodes to be",
        remedy=f"find out whose servers these are: kubectl get pods -A -o wide | grep {copies[0].other.host}; decide "
        "which of the two clusters is to live, and stop the other; if these pods are the copy, start them with empty "
        "disks, so that they get node ids of their own, and load the data as a client does. A pod of your own that is "
        f"about to end needs some seconds for it; then {RUN_AGAIN}",
        node=copies[0].pod if len(copies) == 1 else None,
    )
