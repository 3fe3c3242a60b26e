"""Two clusters in memory: blank pods, and a cluster that they take over. Each learns of the other by packets alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from bootstrap.clock import Deadline
from bootstrap.errors import BootstrapError
from bootstrap.model.desired import Desired
from bootstrap.model.node import NodeId
from bootstrap.model.old_side import OLD_ORDINAL, Adoption, OldSide
from bootstrap.model.slots import even_split
from bootstrap.model.steps import Rejected, Write
from bootstrap.model.view import ClusterView
from bootstrap.run.adopting import adopt
from bootstrap.run.reconcile import Reconciler
from tests.builders import gossip, introduce
from tests.fake_cluster import FakeCluster, FakeNode, Killed
from tests.run.runs import Notes


class TwoClusters(FakeCluster):
    """The first `pods` nodes are pods; the others are the old cluster, found through the first of them and through what
    pods know.
    """

    def __init__(
        self, pods: int, *, shards: int = 3, replicas: int = 1, keys: int = 7, seed: int = 0, loss: float = 0.0
    ) -> None:
        super().__init__(pods + shards * (1 + replicas), seed=seed, loss=loss)
        self.pods = pods
        old = self.nodes[pods:]
        for node, slots in zip(old, even_split(shards), strict=False):
            node.slots, node.keys = slots, keys
        for index, node in enumerate(old):
            node.epoch, node.serving = index + 1, True
            if not node.slots:
                node.master, node.keys = old[index % shards].node_id, keys
        introduce(old)
        gossip(self)
        self.total = shards * keys
        self.on_write: Callable[[], None] = lambda: None

    @property
    def ours(self) -> list[FakeNode]:
        return self.nodes[: self.pods]

    @property
    def theirs(self) -> list[FakeNode]:
        return self.nodes[self.pods :]

    def look(self) -> ClusterView:
        view = super().look()
        pods = [node for node in view.nodes if node.ordinal < self.pods]
        old = [node for node in view.nodes if node.ordinal >= self.pods]
        first = old[0]
        known = {first.node_id, *first.others, *(each for pod in pods for each in pod.others)}
        old = [node for node in old if node.node_id in known and (node is not first or not node.blank)]
        side = OldSide(
            seeds="old:6379",
            first=frozenset({first.node_id}),
            left=int(first.blank),
        )
        named = (replace(n, ordinal=OLD_ORDINAL + n.ordinal, pod=str(n.address)) for n in old)
        return replace(view, nodes=(*pods, *named), old=side)

    def _keys_in(self, node: object, slots: object) -> dict[int, int]:
        return {}

    def refresh(self) -> ClusterView:
        return self.look()

    def alone(self) -> PodsAlone:
        """The same world, as a run without a declared adoption sees it."""
        return PodsAlone(self)

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        rejected = super().send(writes, view)
        self.on_write()
        return rejected

    def keys_of_owners(self) -> int:
        return sum(node.keys for node in self.nodes if node.slots)

    def owners(self) -> set[NodeId]:
        return {node.node_id for node in self.nodes if node.slots}


class PodsAlone:
    """The pods of two clusters: everything else is passed on."""

    def __init__(self, both: TwoClusters) -> None:
        self._both = both

    def look(self) -> ClusterView:
        return self._both.look().of_pods()

    refresh = look

    def __getattr__(self, name: str) -> object:
        return getattr(self._both, name)


SHAPE = Desired(shards=3, replicas_per_shard=1, timeout_ms=5000)


def taking_over(both: TwoClusters, desired: Desired = SHAPE, **declared: object) -> Desired:
    """The shape with an adoption that a person has confirmed."""
    from bootstrap.plan.adoption import fingerprint_of_old

    fingerprint = fingerprint_of_old(both.look())
    return replace(desired, adoption=Adoption(**{"fingerprint": fingerprint, **declared}))  # type: ignore[arg-type]


def run_until_killed(both: TwoClusters, desired: Desired, *, deadline_s: float = 300.0) -> ClusterView | str:
    """One run. Returns its last view, or why it ended: `killed`, or the codes of its reasons."""
    run = Reconciler(world=both, desired=desired, deadline=Deadline.after(deadline_s, both), clock=both, log=Notes())
    try:
        adopt(run, both.alone())  # type: ignore[arg-type]
    except Killed:
        return "killed"
    except BootstrapError as error:
        return ", ".join(reason.code for reason in error.reasons) or str(error)
    return run.view
