"""Another number of shards or of replicas: the phases that lead there, once the cluster is in order otherwise.

The planner asks only when nothing else is to be done. Slots move first, then masters on pods that leave give way to
their replicas, then these pods leave; one of these phases at a time, since each changes what the next one is.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.desired import Desired
from bootstrap.model.node import Role
from bootstrap.model.plan import Phase
from bootstrap.model.slots import ALL_SLOTS
from bootstrap.model.steps import (
    AwaitAgreement,
    AwaitMigrations,
    CancelMigration,
    Leave,
    ManualFailover,
    MoveSlots,
    Step,
)
from bootstrap.model.view import ClusterView
from bootstrap.plan.rebalance import leaving, slot_moves, to_drain
from bootstrap.plan.settled import settled
from bootstrap.plan.topology import Shard, surplus


def resize(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Phase]:
    """Slots to where they should be, then masters off the pods that leave, then these pods out of the cluster: each
    only when all before it is done and agreed upon.
    """
    steps: tuple[Step, ...]
    if failed := [(node, each) for node in view.nodes for each in node.migrations if each.failed]:
        why = "the server would try it again for ever"
        steps = tuple(CancelMigration(node=node.node_id, task_id=each.task_id) for node, each in failed)
        yield Phase(name="cancel", why=why, steps=steps)
    elif not settled(AwaitMigrations(), view):
        yield Phase(name="await", why="a run that was killed has begun them", steps=(AwaitMigrations(),))
    elif moves := slot_moves(view, desired, [shard.master for shard in shards]):
        yield _moving(moves)
        yield from _goodbyes(view, desired, shards)
    elif steps := tuple(_hand_over(view, desired, shards)):
        yield Phase(name="hand over", why="a master on a pod that leaves gives way to its replica", steps=steps)
        yield _leaving(view, desired)
    elif steps := tuple(_free(view, desired, shards)):
        yield Phase(name="free", why="a shard more needs a master, and these are replicas too many", steps=steps)
        yield _leaving(view, desired)
    elif steps := tuple(_leave(view, desired, shards)):
        yield Phase(name="leave", why="nothing hangs on them any more", steps=steps)


def foreseen(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Phase]:
    """What comes when all before it is done, for a person to know; where somebody is lost or slots are open, nobody
    knows it yet.
    """
    known = view.claimed() == ALL_SLOTS and not (view.unlisted() or view.open_slots())
    if known and (moves := slot_moves(view, desired, [shard.master for shard in shards])):
        yield _moving(moves)
    if known:
        yield from _goodbyes(view, desired, shards)


def _goodbyes(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Phase]:
    """Who hands over and who leaves when all before it is done: for a person to know, planned anew by then."""
    emptied = to_drain(view, desired)
    yield Phase(
        name="hand over",
        why="foreseen, by what is known now: a master on a pod that leaves gives way to its replica",
        steps=tuple(
            ManualFailover(candidate=shard.replicas[0], master=shard.master)
            for shard in shards
            if view.by_id[shard.master].ordinal >= desired.nodes and shard.master not in emptied and shard.replicas
        ),
    )
    yield _leaving(view, desired)


def _leaving(view: ClusterView, desired: Desired) -> Phase:
    steps = tuple(Leave(node=node.node_id) for node in leaving(view, desired))
    return Phase(name="leave", why="foreseen: when nothing hangs on them any more", steps=steps)


def _moving(moves: tuple[MoveSlots, ...]) -> Phase:
    return Phase(name="move slots", why="every shard gets its share, and as few slots as can be move", steps=moves)


def _hand_over(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Step]:
    for shard in shards:
        candidates = [replica for replica in shard.replicas if view.by_id[replica].replication.link_up]
        if view.by_id[shard.master].ordinal >= desired.nodes and candidates:
            yield ManualFailover(candidate=candidates[0], master=shard.master)
            yield AwaitAgreement()


def _free(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Step]:
    """Replicas too many that are to be masters: they come back blank, and join like any newcomer."""
    if _whole(view, desired, shards):
        missing = desired.shards - len(shards)
        yield from (Leave(node=node.node_id) for node in surplus(view, desired, shards)[:missing])


def _whole(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> bool:
    """True when every slot is owned, and every shard has its replicas, all linked, on pods that stay."""
    return view.claimed() == ALL_SLOTS and all(
        len(shard.replicas) == desired.replicas_per_shard
        and view.by_id[shard.master].ordinal < desired.nodes
        and all(view.by_id[replica].replication.link_up for replica in shard.replicas)
        for shard in shards
    )


def _leave(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Step]:
    """Only from a cluster that is whole without them. A replica goes before its master: what it still holds of slots
    that were moved is deleted by replication alone.
    """
    whole = len(shards) == desired.shards and _whole(view, desired, shards)
    followed = {node.myself.master_id for node in view.nodes}
    for node in leaving(view, desired):
        copy = node.role is Role.REPLICA and node.myself.master_id in view.by_id
        if whole and not node.slots and (copy or not node.keys) and node.node_id not in followed:
            yield Leave(node=node.node_id)
