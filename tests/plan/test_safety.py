"""No plan puts data at risk, whatever the state of the cluster."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings

from bootstrap.model.desired import Desired
from bootstrap.model.node import NodeId, Role
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import (
    AddSlots,
    Announce,
    AwaitElection,
    CloseSlot,
    Failover,
    Forget,
    Meet,
    MoveKeys,
    Reattach,
    Replicate,
    SetEpoch,
    SetSlotOwner,
    SetSlotState,
    SetTimeout,
    Step,
    TakeSlot,
    Wait,
)
from bootstrap.model.view import ClusterView
from bootstrap.plan.planner import plan
from tests.builders import (
    half_formed,
    steps_of,
)
from tests.fake_cluster import FakeCluster


@given(half_formed())
@settings(deadline=None, max_examples=150)
def test_no_plan_ever_puts_data_at_risk(state: tuple[FakeCluster, Desired]) -> None:
    """No slot is assigned twice or taken from an owner, no owner or holder of keys becomes a replica, and so on."""
    cluster, desired = state
    view = cluster.look()
    assert list(dangers(view, steps_of(plan(view, desired)))) == []


def dangers(view: ClusterView, steps: list[Step]) -> Iterator[str]:
    """Steps that a server might accept and that would lose data."""
    nodes, given_away = view.by_id, SlotSet()
    moved_on: set[NodeId] = set()
    epochs = [member.config_epoch for node in view.nodes for member in node.members]
    for step in steps:
        match step:
            case AddSlots():
                if step.slots & (view.claimed() | given_away) or not step.slots:
                    yield f"{step} assigns what is not free"
                if nodes[step.node].role is not Role.MASTER:
                    yield f"{step} assigns slots to a replica"
                given_away |= step.slots
            case Replicate():
                replica = nodes[step.replica]
                if replica.slots or (replica.keys and replica.role is Role.MASTER):
                    yield f"{step} flushes keys that only that node has"
                candidate = step.master in moved_on or any(isinstance(each, AwaitElection) for each in steps)
                if step.master == step.replica or not (candidate or nodes[step.master].role is Role.MASTER):
                    yield f"{step} follows a node that is not a master"
                moved_on.add(step.replica)
            case SetEpoch():
                if nodes[step.node].others or nodes[step.node].myself.config_epoch or step.epoch in epochs:
                    yield f"{step} would be rejected, or doubles an epoch"
                epochs.append(step.epoch)
            case Meet():
                if step.address != nodes[step.newcomer].address or step.introducer == step.newcomer:
                    yield f"{step} introduces another node"
            case Announce():
                others = {node.address for node in view.nodes if node.node_id != step.node}
                if others != {address for address, _ in step.others}:
                    yield f"{step} meets nodes that are not the others"
            case SetTimeout():
                if step.timeout_ms < 5000 and any(node.keys or node.serving for node in view.nodes):
                    yield f"{step} lowers a timeout while keys depend on it"
            case Forget():
                if step.lost in nodes or step.lost in view.alive_elsewhere:
                    yield f"{step} forgets a node that is present"
                if nodes[step.node].myself.master_id == step.lost and step.node not in moved_on:
                    yield f"{step} forgets the master of its node"
            case Reattach():
                if step.replica not in view.stuck or nodes[step.replica].replication.syncing:
                    yield f"{step} starts a copy again"
            case SetSlotState() | TakeSlot():
                if step.slot not in view.open_slots():
                    yield f"{step} begins a move"
            case SetSlotOwner():
                importer = nodes[step.node]
                owned_by_others = SlotSet.union_of(n.slots for n in view.nodes if n.node_id != step.owner)
                if step.slots - nodes[step.owner].slots or step.slots & owned_by_others:
                    yield f"{step} sets a node that is not the only owner"
                if step.slots - importer.open_slots:
                    yield f"{step} corrects a node that gossip reaches"
            case MoveKeys():
                if step.target == step.source or step.slot not in nodes[step.source].slots:
                    yield f"{step} moves keys of a slot that the source does not own"
            case CloseSlot():
                masters = [node for node in view.nodes if node.role is Role.MASTER and step.slot not in node.slots]
                if sum(bool(node.keys_in.get(step.slot)) for node in masters) > 1:
                    yield f"{step} hides keys"
            case Failover():
                moved_on.add(step.candidate)
                if step.lost in nodes or step.lost in view.alive_elsewhere or view.unreachable:
                    yield f"{step} replaces a master that may still serve"
            case AwaitElection():
                moved_on |= {node.node_id for node in view.nodes if node.myself.master_id == step.lost}
            case _:
                assert isinstance(step, Wait), step
