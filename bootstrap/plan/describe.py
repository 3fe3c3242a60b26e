"""A step as a sentence, with pods in place of node ids: for plans, logs and reasons."""

from __future__ import annotations

from typing import assert_never

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
from bootstrap.plan.settled import settled


def describe(step: Step, view: ClusterView) -> str:
    """The step in words, with pods in place of node ids."""
    return _describe_wait(step, view) if isinstance(step, Wait) else _describe_write(step, view)


def _describe_write(step: Write, view: ClusterView) -> str:
    match step:
        case SetTimeout():
            return f"set cluster-node-timeout of {view.name(step.node)} to {step.timeout_ms} ms"
        case SetConfig():
            return f"set {step.name} of {view.name(step.node)} to {step.value}"
        case SetEpoch():
            return f"set the config epoch of {view.name(step.node)} to {step.epoch}"
        case BumpEpoch():
            return f"give {view.name(step.node)} a config epoch above all others"
        case Meet():
            return f"introduce {view.name(step.newcomer)} at {step.address} to {view.name(step.introducer)}"
        case AddSlots():
            return f"assign slots {step.slots.listed()} to {view.name(step.node)}"
        case Replicate():
            return f"make {view.name(step.replica)} a replica of {view.name(step.master)}"
        case Reattach():
            return f"reconnect {view.name(step.replica)} to its master {view.name(step.master)}"
        case SetSlotState() if step.importing:
            return f"open slot {step.slot} on {view.name(step.node)} as importing from {view.name(step.other)}"
        case SetSlotState():
            return f"open slot {step.slot} on {view.name(step.node)} as migrating to {view.name(step.other)}"
        case SetSlotOwner():
            return f"set {view.name(step.owner)} as the owner of slots {step.slots.listed()} on {view.name(step.node)}"
        case MoveKeys():
            return f"move the keys of slot {step.slot} from {view.name(step.source)} to {view.name(step.target)}"
        case TakeSlot():
            return f"make {view.name(step.node)} the owner of slot {step.slot}"
        case CloseSlot():
            return f"close slot {step.slot} on {view.name(step.node)}"
        case Wipe():
            what = "all its keys, its slots" if step.flush else "its copy"
            return f"wipe {view.name(step.node)}: {what} and its list of members"
        case MoveSlots():
            count = several(len(step.slots), "slot")
            return f"move {count} from {view.name(step.source)} to {view.name(step.target)}: {step.slots.listed()}"
        case CancelMigration():
            return f"cancel the migration task {step.task_id} on {view.name(step.node)}"
        case ManualFailover():
            return f"fail over from the master {view.name(step.master)} to its replica {view.name(step.candidate)}"
        case EndPause():
            return f"let the former master {view.name(step.node)} end the pause of its clients"
        case Provision():
            carried = [f"the function library {name}" for name in step.libraries]
            carried += [f"the ACL user {name}" for name in step.users]
            return f"copy from {view.name(step.origin)} to {view.name(step.node)}: {', '.join(carried)}"
        case Leave():
            return f"remove {view.name(step.node)} from the cluster: it becomes blank"
        case Retire():
            return f"let {view.name(step.node)} write a snapshot and leave the cluster: its files keep the keys"
        case Failover():
            how = "without votes (too few masters are left)" if step.takeover else "by the votes of the other masters"
            return f"promote {view.name(step.candidate)} in place of the lost {view.name(step.lost)}, {how}"
        case Forget():
            return f"let {view.name(step.node)} forget the lost {view.name(step.lost)}"
        case Announce():
            return f"let {view.name(step.node)} announce its role, slots and epoch to all other nodes"
        case _:
            assert_never(step)


def _describe_wait(step: Wait, view: ClusterView) -> str:
    match step:
        case AwaitElection():
            return f"wait until a replica of the lost {view.name(step.lost)} is elected"
        case AwaitMesh():
            return "wait until every node is linked to every other"
        case AwaitAgreement():
            return "wait until all nodes agree on the owners of slots and the masters of replicas"
        case AwaitEpochs():
            return "wait until all masters have different config epochs"
        case AwaitReplication():
            down = ", ".join(node.pod for node in view.nodes if not node.replication.link_up)
            return "wait until every replica has its copy and its link is up" + (f" (down: {down})" if down else "")
        case AwaitCopies():
            late = [view.name(node) for node in step.nodes if not settled(AwaitCopies(nodes=(node,)), view)]
            return f"wait until {', '.join(late) or 'every replica'} has a copy of its master"
        case AwaitMigrations():
            moving = SlotSet.union_of(each.slots for node in view.nodes for each in node.migrations)
            return f"wait until the servers have moved the slots {moving.listed() or 'that they migrate'}"
        case AwaitServing():
            return "wait until every node reports cluster_state:ok"
        case _:
            assert_never(step)


def several(count: int, word: str) -> str:
    """`1 slot`, `2 slots`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
