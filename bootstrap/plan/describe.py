"""TODO"""

from __future__ import annotations

from typing import assert_never

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
    Wipe,
)
from bootstrap.model.view import ClusterView


def describe(step: Step, view: ClusterView) -> str:
    """The step in words, with pods in place of ids."""
    match step:
        case SetTimeout():
            return f"set cluster-node-timeout of {view.name(step.node)} to {step.timeout_ms} ms"
        case SetConfig():
            return f"set {step.name} of {view.name(step.node)} to {step.value}"
        case SetEpoch():
            return f"give {view.name(step.node)} the config epoch {step.epoch}"
        case Meet():
            return f"introduce {view.name(step.newcomer)} at {step.address} to {view.name(step.introducer)}"
        case AddSlots():
            return f"assign slots {step.slots} to {view.name(step.node)}"
        case Replicate():
            return f"make {view.name(step.replica)} a replica of {view.name(step.master)}"
        case Reattach():
            return f"let {view.name(step.replica)} connect anew to its master {view.name(step.master)}"
        case SetSlotState() if step.importing:
            return f"let {view.name(step.node)} import slot {step.slot} from {view.name(step.other)}"
        case SetSlotState():
            return f"let {view.name(step.node)} hand slot {step.slot} over to {view.name(step.other)}"
        case SetSlotOwner():
            return f"tell {view.name(step.node)} that {view.name(step.owner)} owns slots {step.slots}"
        case MoveKeys():
            return f"move the keys of slot {step.slot} from {view.name(step.source)} to {view.name(step.target)}"
        case TakeSlot():
            return f"make {view.name(step.node)} the owner of slot {step.slot}"
        case CloseSlot():
            return f"end the move of slot {step.slot} on {view.name(step.node)}"
        case Wipe():
            what = "all its keys, slots" if step.flush else "its copy"
            return f"wipe {view.name(step.node)}: {what} and its knowledge of the others"
        case MoveSlots():
            count = f"{len(step.slots)} slot{'' if len(step.slots) == 1 else 's'}"
            return f"move {count} from {view.name(step.source)} to {view.name(step.target)}: {step.slots}"
        case CancelMigration():
            return f"cancel the migration of slots {step.task_id} on {view.name(step.node)}"
        case ManualFailover():
            return f"let {view.name(step.candidate)} take over from its master {view.name(step.master)}"
        case Provision():
            carried = [f"the function library {name}" for name in step.libraries]
            carried += [f"the ACL user {name}" for name in step.users]
            return f"give {view.name(step.node)} what {view.name(step.origin)} has: {', '.join(carried)}"
        case Leave():
            return f"take {view.name(step.node)} out of the cluster: it is left empty, knowing no other node"
        case Failover():
            how = "without asking the others, who cannot vote" if step.takeover else "by the votes of the others"
            return f"promote {view.name(step.candidate)} in place of the lost {view.name(step.lost)}, {how}"
        case Forget():
            return f"let {view.name(step.node)} forget the lost {view.name(step.lost)}"
        case AwaitElection():
            return f"wait until a replica of the lost {view.name(step.lost)} is elected"
        case Announce():
            return f"let {view.name(step.node)} tell all others at once what it has become"
        case AwaitMesh():
            return "wait until every node is linked to every other"
        case AwaitAgreement():
            return "wait until all nodes agree who owns which slots and who follows whom"
        case AwaitEpochs():
            return "wait until the masters' config epochs differ"
        case AwaitReplication():
            down = ", ".join(node.pod for node in view.nodes if not node.replication.link_up)
            return "wait until every replica has a copy and its link is up" + (f" (down: {down})" if down else "")
        case AwaitMigrations():
            moving = sorted({str(each.slots) for node in view.nodes for each in node.migrations})
            return f"wait until the servers have moved the slots {', '.join(moving) or 'they were told to'}"
        case AwaitServing():
            return "wait until every node says cluster_state:ok"
        case _:
            assert_never(step)


def several(count: int, word: str) -> str:
    """`1 slot`, `2 slots`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
