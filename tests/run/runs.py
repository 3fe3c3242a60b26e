"""Runs on the fake cluster, and a log that keeps its lines."""

from __future__ import annotations

from bootstrap.clock import Deadline
from bootstrap.model.desired import Desired
from bootstrap.model.node import NodeId
from bootstrap.model.view import ClusterView
from bootstrap.run.reconcile import Reconciler
from tests.fake_cluster import FakeCluster

SHAPE = Desired(shards=3, replicas_per_shard=1, timeout_ms=5000)


class Notes:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))

    warning = info

    def of(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.lines if name == event]


def run_on(cluster: FakeCluster, desired: Desired = SHAPE, *, deadline_s: float = 300.0) -> Reconciler:
    return Reconciler(
        world=cluster,
        desired=desired,
        deadline=Deadline.after(deadline_s, cluster),
        clock=cluster,
        log=Notes(),
    )


def run_on_without_goodbye(cluster: FakeCluster, desired: Desired = SHAPE, *, deadline_s: float = 300.0) -> None:
    """As with SIGKILL, the run does not clean up after itself."""
    run = run_on(cluster, desired, deadline_s=deadline_s)
    run._converge()


def masters_of(view: ClusterView) -> dict[NodeId, str]:
    return {node.node_id: node.pod for node in view.nodes if node.slots}
