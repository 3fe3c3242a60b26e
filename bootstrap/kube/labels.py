"""Labels for the role and the shard of each pod, so that Services can select masters, replicas or one shard.

The labels show the state at the end of the latest run. After a failover they are stale until the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bootstrap.kube.client import PODS, KubeClient
from bootstrap.kube.pods import ROLE_LABEL, SHARD_LABEL, Pods
from bootstrap.model.view import ClusterView, shard_numbers

Labels = tuple[str | None, str | None]
"""The values of `redis-role` and `redis-shard`; None for no label."""


def labels_of(view: ClusterView) -> Mapping[str, Labels]:
    """The labels that each pod of the view should have; shards have the same numbers as in the table of nodes."""
    numbers = {node_id: str(number) for node_id, number in shard_numbers(view).items()}
    return {node.pod: (node.role.value, numbers.get(node.node_id)) for node in view.nodes}


def label(view: ClusterView, kube: KubeClient, pods: Pods, *, check_lock: Callable[[], None]) -> int:
    """Patches the pods whose labels differ; returns their number. Raises ApiError, and NotYet from `check_lock`."""
    existing = pods.look()
    differing = [
        (pod, wanted) for pod, wanted in labels_of(view).items() if pod in existing and existing[pod].labels != wanted
    ]
    for pod, (role, shard) in differing:
        check_lock()
        kube.patch(PODS, pod, {"metadata": {"labels": {ROLE_LABEL: role, SHARD_LABEL: shard}}})
    return len(differing)
