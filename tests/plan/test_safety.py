"""No plan puts data at risk, whatever the state of the cluster."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings

from bootstrap.model.desired import Desired
from bootstrap.model.node import NodeId, Role
from bootstrap.model.plan import Plan, Refusal
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.steps import (
    AddSlots,
    Announce,
    BumpEpoch,
    CloseSlot,
    Failover,
    Forget,
    Meet,
    MoveKeys,
    MoveSlots,
    Reattach,
    Replicate,
    SetConfig,
    SetEpoch,
    SetSlotOwner,
    SetSlotState,
    SetTimeout,
    Step,
    TakeSlot,
)
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import AwaitElection, Wait
from bootstrap.plan.planner import plan
from tests.builders import (
    half_formed,
    steps_of,
)
from tests.fake_cluster import NO_FAILOVER, FakeCluster


@given(half_formed())
@settings(deadline=None, max_examples=150)
def test_no_plan_ever_puts_data_at_risk(state: tuple[FakeCluster, Desired]) -> None:
    """No slot is assigned twice or taken from an owner, no owner or holder of keys becomes a replica, and so on."""
    cluster, desired = state
    view = cluster.look()
    assert list(dangers(view, steps_of(plan(view, desired)))) == []


@given(half_formed())
@settings(deadline=None, max_examples=150)
def test_every_plan_ends_with_failover_and_the_declared_timeout(state: tuple[FakeCluster, Desired]) -> None:
    """Wherever a node has temporary settings, or gets them, the same plan restores failover first and the timeout last;
    nothing but linking, and waiting until all nodes serve, comes before that.
    """
    cluster, desired = state
    view = cluster.look()
    decision = plan(view, desired)
    if isinstance(decision, Refusal) or desired.timeout_ms is None:
        return
    steps = steps_of(decision)
    lowered = {step.node for step in steps if isinstance(step, SetTimeout) and step.timeout_ms == 500}
    for node in view.nodes:
        if node.quickened or node.node_id in lowered:
            own = [step for step in steps if isinstance(step, SetConfig | SetTimeout) and step.node == node.node_id]
            assert own[-2:] == [
                SetConfig(node=node.node_id, name=NO_FAILOVER, value="no"),
                SetTimeout(node=node.node_id, timeout_ms=5000),
            ]
            names = [phase.name for phase in decision.phases]
            before = set(names[: names.index("settings")])
            assert view.forming or before <= {"prepare", "provision", "quicken", "meet", "serve"}


@given(half_formed())
@settings(deadline=None, max_examples=60)
def test_failover_stays_off_in_no_state_that_needs_it(state: tuple[FakeCluster, Desired]) -> None:
    """A slot has no owner that answers, or a link is missing in a cluster in service: the settings come first."""
    cluster, desired = state
    view = cluster.look()
    decision = plan(view, desired)
    needed = view.claimed() != ALL_SLOTS or (any(view.unlinked()) and in_service(view))
    left = any(node.quickened for node in view.nodes) and desired.timeout_ms
    if isinstance(decision, Plan) and needed and left and not view.forming:
        assert decision.phases[0].name == "settings"


@given(half_formed())
@settings(deadline=None, max_examples=300)
def test_no_plan_shows_a_key_that_no_client_could_see(state: tuple[FakeCluster, Desired]) -> None:
    """A node with left-over keys of a slot neither gets the slot nor has it opened."""
    cluster, desired = state
    view = cluster.look()
    dead = {
        (node.node_id, slot)
        for node, seen in zip(cluster.nodes, view.nodes, strict=True)
        for slot in node.dead
        if not any(owner.migrates(slot, seen) for owner in view.nodes) and slot not in node.slots
    }
    shown = {
        (target, slot)
        for step in steps_of(plan(view, desired))
        for target, slots in receiving(step)
        for slot in slots
        if slot in view.claimed()
    }
    assert shown & dead == set()


def receiving(step: Step) -> Iterator[tuple[NodeId, SlotSet]]:
    """A node whose keys of some slots clients find because of a step."""
    match step:
        case AddSlots():
            yield step.node, step.slots
        case MoveSlots():
            yield step.target, step.slots
        case TakeSlot():
            yield step.node, SlotSet.of((step.slot, step.slot))
        case SetSlotState():
            yield step.node if step.importing else step.other, SlotSet.of((step.slot, step.slot))


def in_service(view: ClusterView) -> bool:
    """Most masters are linked to a node that serves."""
    owners = {node.node_id for node in view.nodes if node.slots}
    for node in view.nodes:
        linked = {owner for owner in owners if view.linked(node.node_id, owner)} | ({node.node_id} & owners)
        if node.serving and 2 * len(linked) > len(owners):
            return True
    return False


def _no_failover(node: NodeId) -> SetConfig:
    return SetConfig(node=node, name=NO_FAILOVER, value="yes")


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
            case BumpEpoch():
                held = [n.others[step.node].config_epoch for n in view.nodes if step.node in n.others]
                if max(held, default=0) <= nodes[step.node].myself.config_epoch:
                    yield f"{step} is not needed"
                if len(view.claimed()) != sum(len(node.slots) for node in view.nodes):
                    yield f"{step} may return slots to a master that has been replaced"
            case Meet():
                if step.address != nodes[step.newcomer].address or step.introducer == step.newcomer:
                    yield f"{step} introduces another node"
            case Announce():
                others = {node.address for node in view.nodes if node.node_id != step.node}
                if others != {address for address, _ in step.others}:
                    yield f"{step} meets nodes that are not the others"
            case SetTimeout():
                if step.timeout_ms == 1000 and any(node.keys or node.serving for node in view.nodes):
                    yield f"{step} lowers a timeout while keys depend on it"
                if step.timeout_ms == 500 and in_service(view):
                    yield f"{step} lowers a timeout while clients depend on it"
                if step.timeout_ms == 500 and _no_failover(step.node) not in steps and not nodes[step.node].quickened:
                    yield f"{step} lowers a timeout that makes replicas take over"
            case SetConfig() if step.value == "yes":
                if in_service(view) or view.claimed() != ALL_SLOTS:
                    yield f"{step} switches failover off while it is needed"
            case SetConfig():
                if not nodes[step.node].quickened and _no_failover(step.node) not in steps:
                    yield f"{step} switches failover on where a person switched it off"
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
                if step.node == step.owner:
                    if step.slots & view.claimed():
                        yield f"{step} claims slots that have an owner"
                    continue
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
