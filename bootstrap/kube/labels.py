"""Labels that tell a pod's role and shard, for Services that select masters, replicas or one shard.

They are as true as the last run: after a failover they lag behind until the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bootstrap.kube.client import PODS, KubeClient
from bootstrap.kube.pods import ROLE_LABEL, SHARD_LABEL, Pods
from bootstrap.model.view import ClusterView, shard_numbers

Labels = tuple[str | None, str | None]
"""`redis-role` and `redis-shard`; None: without that label."""


def labels_of(view: ClusterView) -> Mapping[str, Labels]:
    """What each pod of the view should carry: its role, and its shard's number as the table has it."""
    numbers = {node_id: str(number) for node_id, number in shard_numbers(view).items()}
    return {node.pod: (node.role.value, numbers.get(node.node_id)) for node in view.nodes}


def label(view: ClusterView, kube: KubeClient, pods: Pods, *, check_lock: Callable[[], None]) -> int:
    """Sets the labels that differ; returns on how many pods. Raises ApiError, and what `check_lock` raises."""
    here = pods.look()
    differing = [(pod, wanted) for pod, wanted in labels_of(view).items() if pod in here and here[pod].labels != wanted]
    for pod, (role, shard) in differing:
        check_lock()
        kube.patch(PODS, pod, {"metadata": {"labels": {ROLE_LABEL: role, SHARD_LABEL: shard}}})
    return len(differing)
