"""When a step has taken effect. This is defined once and used three times: the planner skips settled steps, the run
waits until steps are settled, and the fake cluster of the tests is checked against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from bootstrap.model.node import Node, NodeId, Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import (
    AddSlots,
    Announce,
    BumpEpoch,
    CancelMigration,
    CloseSlot,
    EndPause,
    Failover,
    Forget,
    Leave,
    ManualFailover,
    Meet,
    MoveKeys,
    MoveSlots,
    Provision,
    Reattach,
    Replicate,
    Retire,
    SetConfig,
    SetEpoch,
    SetSlotOwner,
    SetSlotState,
    SetTimeout,
    Step,
    TakeSlot,
    Wipe,
    Write,
)
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import (
    AwaitAgreement,
    AwaitCopies,
    AwaitElection,
    AwaitEpochs,
    AwaitMesh,
    AwaitMigrations,
    AwaitReplication,
    AwaitServing,
    Wait,
)
from bootstrap.plan.epochs import outranked


def settled(step: Step, view: ClusterView) -> bool:
    """True when every node that has to know of the effect knows it. A node that a step names and that is missing from
    the view knows nothing. A wait is about all nodes that answer: what has to be true of the others is not known.
    """
    if isinstance(step, Wait):
        return bool(view.nodes) and _wait_settled(step, view)
    return _write_settled(step, view)


def _write_settled(step: Write, view: ClusterView) -> bool:
    nodes = view.by_id
    match step:
        case SetTimeout():
            return step.node in nodes and nodes[step.node].timeout_ms == step.timeout_ms
        case SetConfig():
            return step.node in nodes and nodes[step.node].config.get(step.name) == step.value
        case SetEpoch():
            return step.node in nodes and nodes[step.node].myself.config_epoch >= step.epoch
        case BumpEpoch():
            return step.node in nodes and step.node not in outranked(view)
        case Meet():
            return view.linked(step.introducer, step.newcomer)
        case AddSlots():
            return step.node in nodes and all(not step.slots - line.slots for line in _lines(step.node, view))
        case Replicate():
            lines = _lines(step.replica, view)
            return step.replica in nodes and all(line.master_id == step.master for line in lines)
        case Reattach():
            return step.replica in nodes and _link_recovers(nodes[step.replica])
        case EndPause():
            return step.node in nodes  # no server tells whether it pauses its clients
        case SetSlotState():
            own = nodes[step.node].myself if step.node in nodes else None
            state = (own.importing if step.importing else own.migrating) if own else ()
            return (step.slot, step.other) in state
        case SetSlotOwner():
            members = nodes[step.node].members if step.node in nodes else ()
            named = next((member for member in members if member.node_id == step.owner), None)
            return named is not None and not step.slots - named.slots
        case MoveKeys():
            return step.source in nodes and not nodes[step.source].keys_in.get(step.slot)
        case TakeSlot():
            return step.node in nodes and all(step.slot in line.slots for line in _lines(step.node, view))
        case CloseSlot():
            followers = (node for node in view.nodes if node.myself.master_id == step.node)
            open_on = (node for node in (nodes.get(step.node), *followers) if node and step.slot in node.open_slots)
            return step.node in nodes and not any(open_on)
        case MoveSlots():
            return step.target in nodes and all(not step.slots - line.slots for line in _lines(step.target, view))
        case CancelMigration():
            return step.node in nodes and all(each.task_id != step.task_id for each in nodes[step.node].migrations)
        case ManualFailover():
            return (
                step.candidate in nodes
                and nodes[step.candidate].role is Role.MASTER
                and bool(nodes[step.candidate].slots)
            )
        case Provision():
            return step.node in nodes  # a refresh does not read libraries and users; the next look does
        case Wipe() | Leave() | Retire():
            return not view.unreachable and step.node not in nodes
        case Failover():
            return not step.slots - view.claimed()
        case Forget():
            return step.node in nodes and step.lost not in nodes[step.node].others
        case Announce():
            return step.node in nodes and view.agreed_on(step.node)
        case _:
            assert_never(step)


def _wait_settled(step: Wait, view: ClusterView) -> bool:
    match step:
        case AwaitElection():
            return not step.slots - view.claimed()
        case AwaitMesh():
            return not any(view.unlinked())
        case AwaitAgreement():
            claimed_once = sum(len(node.slots) for node in view.nodes) == len(view.claimed())
            return claimed_once and view.agreed
        case AwaitEpochs():
            epochs = [node.myself.config_epoch for node in view.nodes if node.role is Role.MASTER and node.slots]
            return len(set(epochs)) == len(epochs)
        case AwaitReplication():
            return all(node.replication.role is node.role and node.replication.link_up for node in view.nodes)
        case AwaitCopies():
            nodes = [view.by_id.get(node_id) for node_id in step.nodes]
            return all(node and node.replication.role is node.role and node.replication.link_up for node in nodes)
        case AwaitMigrations():
            return not any(node.migrations for node in view.nodes)
        case AwaitServing():
            return all(node.serving for node in view.nodes)
        case _:
            assert_never(step)


def _link_recovers(replica: Node) -> bool:
    return replica.replication.link_up or replica.replication.syncing


def _lines(node_id: NodeId, view: ClusterView) -> Iterator[_Line]:
    """How each node reports `node_id`, the node itself included; empty for a node that does not know it."""
    for node in view.nodes:
        line = node.myself if node.node_id == node_id else node.others.get(node_id)
        yield _Line(line.slots, line.master_id) if line else _Line(SlotSet(), None)


@dataclass(frozen=True, slots=True)
class _Line:
    slots: SlotSet
    master_id: NodeId | None
