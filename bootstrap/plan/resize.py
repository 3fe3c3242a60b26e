"""Phases of a resize, which changes the number of shards or replicas of a cluster that needs no repair.

First slots move, then masters on pods that leave fail over to their replicas, then these pods leave. Each plan contains
one of these phases to be executed, because each changes what the next one has to do; the rest of it is foreseen.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.node import Role
from bootstrap.model.plan import Phase
from bootstrap.model.slots import ALL_SLOTS
from bootstrap.model.steps import CancelMigration, Leave, ManualFailover, Step
from bootstrap.model.waits import AwaitAgreement, AwaitMigrations
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.settled import settled

MOVE_SLOTS = "move slots"
"""The name of the phase that moves them."""


def resize(found: Assessment) -> Iterator[Phase]:
    """The next phase of the resize, and the phases that are foreseen after it. Each phase starts only when all earlier
    ones are done and all nodes agree.
    """
    steps: tuple[Step, ...]
    if failed := [(node, each) for node in found.view.nodes for each in node.migrations if each.failed]:
        steps = tuple(CancelMigration(node=node.node_id, task_id=each.task_id) for node, each in failed)
        yield Phase(name="cancel migrations", why="the server would retry a failed migration forever", steps=steps)
    elif not settled(AwaitMigrations(), found.view):
        why = "a run that was killed has started them"
        yield Phase(name="await migrations", why=why, steps=(AwaitMigrations(),))
    elif found.slot_moves:
        yield _moving(found)
        yield from _foreseen_departure(found)
    elif steps := tuple(_manual_failovers(found)):
        yield Phase(name="manual failover", why="a master on a pod that leaves is replaced by its replica", steps=steps)
        yield _foreseen_leaving(found)
    elif steps := tuple(_free_replicas(found)):
        yield Phase(name="free replicas", why="a new shard needs a master, and these replicas are surplus", steps=steps)
        yield _foreseen_leaving(found)
    elif steps := tuple(_leave(found)):
        yield Phase(name="leave", why="the cluster does not need these pods any more", steps=steps)


def foreseen(found: Assessment) -> Iterator[Phase]:
    """The resize that follows a repair, for a person to know. With lost owners or open slots it is not known yet."""
    if found.view.claimed() != ALL_SLOTS or found.view.open_slots():
        return
    if found.slot_moves:
        yield _moving(found)
    yield from _foreseen_departure(found)


def _moving(found: Assessment) -> Phase:
    why = "every shard gets its share, and as few slots as possible move"
    return Phase(name=MOVE_SLOTS, why=why, steps=found.slot_moves)


def _foreseen_departure(found: Assessment) -> Iterator[Phase]:
    """Failovers and departures that follow when all before them is done. They are planned again by then."""
    yield Phase(
        name="manual failover",
        why="foreseen: a master on a pod that leaves is replaced by its replica",
        steps=tuple(
            ManualFailover(candidate=shard.replicas[0], master=shard.master)
            for shard in found.shards
            if _master_leaves(shard.master, found) and shard.master not in found.to_drain and shard.replicas
        ),
    )
    yield _foreseen_leaving(found)


def _foreseen_leaving(found: Assessment) -> Phase:
    steps = tuple(Leave(node=node.node_id) for node in found.leaving)
    return Phase(name="leave", why="foreseen: when the cluster does not need these pods any more", steps=steps)


def _manual_failovers(found: Assessment) -> Iterator[Step]:
    for shard in found.shards:
        candidates = [replica for replica in shard.replicas if found.view.by_id[replica].replication.link_up]
        if _master_leaves(shard.master, found) and candidates:
            yield ManualFailover(candidate=candidates[0], master=shard.master)
            yield AwaitAgreement()


def _free_replicas(found: Assessment) -> Iterator[Step]:
    """Surplus replicas that become masters: they leave, come back blank, and join like any new node."""
    if _whole(found):
        missing = found.desired.shards - len(found.shards)
        yield from (Leave(node=node.node_id) for node in found.surplus[:missing])


def _leave(found: Assessment) -> Iterator[Step]:
    """Pods leave only a cluster that is whole without them. A replica leaves before its master: the keys that it still
    has of moved slots are deleted by replication alone.
    """
    view = found.view
    whole = len(found.shards) == found.desired.shards and _whole(found)
    followed = {node.myself.master_id for node in view.nodes}
    for node in found.leaving:
        replica = node.role is Role.REPLICA and node.myself.master_id in view.by_id
        if whole and not node.slots and (replica or not node.keys) and node.node_id not in followed:
            yield Leave(node=node.node_id)


def _whole(found: Assessment) -> bool:
    """True when every slot has an owner, and every shard has its replicas, all linked, on pods that stay."""
    return found.view.claimed() == ALL_SLOTS and all(
        len(shard.replicas) == found.desired.replicas_per_shard
        and not _master_leaves(shard.master, found)
        and all(found.view.by_id[replica].replication.link_up for replica in shard.replicas)
        for shard in found.shards
    )


def _master_leaves(master: str, found: Assessment) -> bool:
    return found.view.by_id[master].ordinal >= found.desired.nodes
