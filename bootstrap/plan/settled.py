"""When a step has come true. Defined once and used three times: the planner skips with it, the executor waits with it,
and the tests' fake cluster is checked against it.
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
    AwaitAgreement,
    AwaitElection,
    AwaitEpochs,
    AwaitMesh,
    AwaitMigrations,
    AwaitReplication,
    AwaitServing,
    CancelMigration,
    CloseSlot,
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
    SetConfig,
    SetEpoch,
    SetSlotOwner,
    SetSlotState,
    SetTimeout,
    Step,
    TakeSlot,
    Wait,
    Wipe,
)
from bootstrap.model.view import ClusterView


def settled(step: Step, view: ClusterView) -> bool:
    """True when every node that must know of the step's effect does. A node that the view lacks knows nothing."""
    nodes = view.by_id
    if isinstance(step, Wait) and (view.unreachable or not nodes):
        return False
    match step:
        case SetTimeout():
            return step.node in nodes and nodes[step.node].timeout_ms == step.timeout_ms
        case SetConfig():
            return step.node in nodes and nodes[step.node].config.get(step.name) == step.value
        case SetEpoch():
            return step.node in nodes and nodes[step.node].myself.config_epoch >= step.epoch
        case Meet():
            return view.linked(step.introducer, step.newcomer)
        case AddSlots():
            return step.node in nodes and all(not step.slots - told.slots for told in _tellings(step.node, view))
        case Replicate():
            tellings = _tellings(step.replica, view)
            return step.replica in nodes and all(told.master_id == step.master for told in tellings)
        case Reattach():
            return step.replica in nodes and _link_moves(nodes[step.replica])
        case SetSlotState():
            mark = (step.slot, step.other)
            marks = nodes[step.node].myself if step.node in nodes else None
            return marks is not None and mark in (marks.importing if step.importing else marks.migrating)
        case SetSlotOwner():
            told = nodes[step.node].others.get(step.owner) if step.node in nodes else None
            return told is not None and not step.slots - told.slots
        case MoveKeys():
            return step.source in nodes and not nodes[step.source].keys_in.get(step.slot)
        case TakeSlot():
            return step.node in nodes and all(step.slot in told.slots for told in _tellings(step.node, view))
        case CloseSlot():
            followers = (node for node in view.nodes if node.myself.master_id == step.node)
            marked = (node for node in (nodes.get(step.node), *followers) if node and step.slot in node.open_slots)
            return step.node in nodes and not any(marked)
        case MoveSlots():
            return step.target in nodes and all(not step.slots - told.slots for told in _tellings(step.target, view))
        case CancelMigration():
            return step.node in nodes and all(each.task_id != step.task_id for each in nodes[step.node].migrations)
        case ManualFailover():
            return (
                step.candidate in nodes
                and nodes[step.candidate].role is Role.MASTER
                and bool(nodes[step.candidate].slots)
            )
        case Provision():
            return step.node in nodes  # a glance does not ask for it; the next look does
        case Wipe() | Leave():
            return not view.unreachable and step.node not in nodes
        case Failover() | AwaitElection():
            return not step.slots - view.claimed()
        case Forget():
            return step.node in nodes and step.lost not in nodes[step.node].others
        case Announce():
            return step.node in nodes and view.agreed_on(step.node)
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
        case AwaitMigrations():
            return not any(node.migrations for node in view.nodes)
        case AwaitServing():
            return all(node.serving for node in view.nodes)
        case _:
            assert_never(step)


def _link_moves(replica: Node) -> bool:
    return replica.replication.link_up or replica.replication.syncing


def _tellings(node_id: NodeId, view: ClusterView) -> Iterator[_Telling]:
    """What each node says of `node_id`, the node itself included; one that does not know it says nothing of worth."""
    for node in view.nodes:
        told = node.myself if node.node_id == node_id else node.others.get(node_id)
        yield _Telling(told.slots, told.master_id) if told else _Telling(SlotSet(), None)


@dataclass(frozen=True, slots=True)
class _Telling:
    slots: SlotSet
    master_id: NodeId | None
