"""When the effect of a step is known to everybody who has to know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from bootstrap.model.node import Address, Role, SlotMigration
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
from tests.builders import formed, shape, with_line, with_node

VIEW = formed(shape()).look()
ONE, TWO, THREE, FOUR, FIVE, _ = (node.node_id for node in VIEW.nodes)
LOST = "f" * 40
HERE = Address("10.0.0.1", 6379)
FIRST = SlotSet.of((0, 5460))

Spoil = Callable[[ClusterView], ClusterView]


def replication(view: ClusterView, ordinal: int, **changes: object) -> ClusterView:
    return with_node(view, ordinal, replication=replace(view.nodes[ordinal].replication, **changes))  # type: ignore[arg-type]


def migrating(view: ClusterView, *task_ids: str) -> ClusterView:
    running = (
        SlotMigration(task_id=each, slots=FIRST, source=ONE, target=TWO, importing=True, state="started", retries=True)
        for each in task_ids
    )
    return with_node(view, 0, migrations=tuple(running))


def without(view: ClusterView, *ordinals: int) -> ClusterView:
    return replace(view, nodes=tuple(node for node in view.nodes if node.ordinal not in ordinals))


def known_lost(view: ClusterView) -> ClusterView:
    stranger = replace(view.nodes[0].members[-1], node_id=LOST)
    return with_node(view, 0, members=(*view.nodes[0].members, stranger))


def forgotten(view: ClusterView, reporter: int, about: int) -> ClusterView:
    node_id = view.nodes[about].node_id
    return with_node(view, reporter, members=tuple(m for m in view.nodes[reporter].members if m.node_id != node_id))


def promoted(view: ClusterView, slots: SlotSet) -> ClusterView:
    return with_line(view, 3, 3, flags=frozenset({"myself", "master"}), master_id=None, slots=slots)


def claimed_twice(view: ClusterView) -> ClusterView:
    """All nodes agree that slot 0 has two owners."""
    for reporter in range(len(view.nodes)):
        view = with_line(view, reporter, 1, slots=SlotSet.of((0, 0), (5461, 10922)))
    return view


def equal_epoch_without_slots(view: ClusterView) -> ClusterView:
    """A master that owns nothing contradicts nobody."""
    return with_line(promoted(view, SlotSet()), 3, 3, config_epoch=1)


CASES: list[tuple[Step, Spoil, Spoil]] = [
    (SetTimeout(node=ONE, timeout_ms=500), lambda v: v, lambda v: with_node(v, 0, timeout_ms=500)),
    (
        SetConfig(node=ONE, name="x", value="yes"),
        lambda v: with_node(v, 0, config={"x": "no"}),
        lambda v: with_node(v, 0, config={"x": "yes"}),
    ),
    (SetEpoch(node=ONE, epoch=5), lambda v: v, lambda v: with_line(v, 0, 0, config_epoch=5)),
    (SetEpoch(node=ONE, epoch=5), lambda v: v, lambda v: with_line(v, 0, 0, config_epoch=6)),
    (BumpEpoch(node=ONE), lambda v: with_line(v, 2, 0, config_epoch=9), lambda v: v),
    (
        Meet(introducer=ONE, newcomer=TWO, address=HERE, bus_port=1),
        lambda v: with_line(v, 0, 1, connected=False),
        lambda v: v,
    ),
    (
        Meet(introducer=ONE, newcomer=TWO, address=HERE, bus_port=1),
        lambda v: with_line(v, 1, 0, connected=False),
        lambda v: v,
    ),
    (AddSlots(node=ONE, slots=FIRST), lambda v: with_line(v, 0, 0, slots=SlotSet.of((0, 5459))), lambda v: v),
    (AddSlots(node=ONE, slots=FIRST), lambda v: with_line(v, 4, 0, slots=SlotSet()), lambda v: v),
    (AddSlots(node=ONE, slots=FIRST), lambda v: forgotten(v, 4, 0), lambda v: v),
    (Replicate(replica=FOUR, master=ONE), lambda v: with_line(v, 3, 3, master_id=TWO), lambda v: v),
    (Replicate(replica=FOUR, master=ONE), lambda v: with_line(v, 2, 3, master_id=None), lambda v: v),
    (Replicate(replica=FOUR, master=ONE), lambda v: forgotten(v, 2, 3), lambda v: v),
    (Reattach(replica=FOUR, master=ONE), lambda v: replication(v, 3, link_up=False), lambda v: v),
    (
        Reattach(replica=FOUR, master=ONE),
        lambda v: replication(v, 3, link_up=False),
        lambda v: replication(v, 3, link_up=False, syncing=True),
    ),
    (
        SetSlotState(node=ONE, slot=7, other=TWO, importing=True),
        lambda v: with_line(v, 0, 0, importing=((7, THREE),), migrating=((7, TWO),)),
        lambda v: with_line(v, 0, 0, importing=((7, TWO),)),
    ),
    (
        SetSlotState(node=ONE, slot=7, other=TWO, importing=False),
        lambda v: with_line(v, 0, 0, migrating=((8, TWO),), importing=((7, TWO),)),
        lambda v: with_line(v, 0, 0, migrating=((7, TWO),)),
    ),
    (
        SetSlotOwner(node=TWO, owner=ONE, slots=SlotSet.of((7, 9))),
        lambda v: with_line(v, 1, 0, slots=SlotSet.of((8, 9))),
        lambda v: v,
    ),
    (SetSlotOwner(node=TWO, owner=ONE, slots=FIRST), lambda v: forgotten(v, 1, 0), lambda v: v),
    (
        MoveKeys(source=ONE, target=TWO, slot=7, address=HERE, databases=(0,)),
        lambda v: with_node(v, 0, keys_in={7: 1}),
        lambda v: with_node(v, 0, keys_in={7: 0, 8: 1}),
    ),
    (TakeSlot(node=ONE, slot=7), lambda v: with_line(v, 0, 0, slots=SlotSet()), lambda v: v),
    (TakeSlot(node=ONE, slot=7), lambda v: with_line(v, 5, 0, slots=SlotSet()), lambda v: v),
    (CloseSlot(node=ONE, slot=7), lambda v: with_line(v, 0, 0, importing=((7, TWO),)), lambda v: v),
    (
        CloseSlot(node=ONE, slot=7),
        lambda v: with_line(v, 3, 3, migrating=((7, TWO),)),
        lambda v: with_line(v, 4, 4, migrating=((7, TWO),)),
    ),
    (MoveSlots(source=TWO, target=ONE, slots=FIRST), lambda v: with_line(v, 3, 0, slots=SlotSet()), lambda v: v),
    (CancelMigration(node=ONE, task_id="a"), lambda v: migrating(v, "b", "a"), lambda v: migrating(v, "b")),
    (ManualFailover(candidate=FOUR, master=ONE), lambda v: v, lambda v: promoted(v, FIRST)),
    (ManualFailover(candidate=FOUR, master=ONE), lambda v: promoted(v, SlotSet()), lambda v: promoted(v, FIRST)),
    (EndPause(node=FOUR), lambda v: without(v, 3), lambda v: v),
    (Retire(node=FOUR), lambda v: v, lambda v: without(v, 3)),
    (
        AwaitCopies(nodes=(FOUR,)),
        lambda v: replication(v, 3, link_up=False),
        lambda v: replication(v, 4, link_up=False),
    ),
    (AwaitCopies(nodes=(FOUR,)), lambda v: without(v, 3), lambda v: v),
    (Leave(node=FOUR), lambda v: v, lambda v: without(v, 3)),
    (Wipe(node=FOUR, flush=True), lambda v: v, lambda v: without(v, 3)),
    (
        Failover(candidate=FOUR, lost=LOST, slots=FIRST, takeover=True),
        lambda v: with_line(v, 0, 0, slots=SlotSet.of((1, 5460))),
        lambda v: v,
    ),
    (Forget(node=ONE, lost=LOST), known_lost, lambda v: v),
    (Announce(node=ONE, others=()), lambda v: with_line(v, 4, 0, slots=SlotSet()), lambda v: v),
    (AwaitElection(lost=LOST, slots=FIRST), lambda v: with_line(v, 0, 0, slots=SlotSet()), lambda v: v),
    (AwaitMesh(), lambda v: with_line(v, 4, 3, connected=False), lambda v: v),
    (AwaitAgreement(), lambda v: with_line(v, 4, 0, slots=SlotSet()), lambda v: v),
    (AwaitAgreement(), claimed_twice, lambda v: v),
    (AwaitEpochs(), lambda v: with_line(v, 0, 0, config_epoch=2), lambda v: with_line(v, 3, 3, config_epoch=2)),
    (AwaitEpochs(), lambda v: with_line(v, 0, 0, config_epoch=2), equal_epoch_without_slots),
    (AwaitReplication(), lambda v: replication(v, 4, link_up=False), lambda v: v),
    (AwaitReplication(), lambda v: replication(v, 4, role=Role.MASTER), lambda v: v),
    (AwaitMigrations(), lambda v: migrating(v, "a"), lambda v: v),
    (AwaitServing(), lambda v: with_node(v, 4, serving=False), lambda v: v),
]


def name(step: object) -> str:
    return type(step).__name__ if isinstance(step, get_args(Step)) else ""


@pytest.mark.parametrize(("step", "before", "after"), CASES, ids=name)
def test_a_step_is_settled_once_everybody_knows(step: Step, before: Spoil, after: Spoil) -> None:
    """Not by part of them, and not by a similar state."""
    assert not settled(step, before(VIEW))
    assert settled(step, after(VIEW))


def test_every_step_is_covered() -> None:
    """All but a copy of functions and users: only the next look reads them."""
    assert {type(step) for step, _, _ in CASES} | {Provision} == {*get_args(Write), *get_args(Wait)}


@pytest.mark.parametrize(("step", "before", "after"), CASES, ids=name)
def test_without_an_answer_nothing_is_settled(step: Step, before: Spoil, after: Spoil) -> None:
    """A node that a write names and that does not answer knows nothing; no wait is over where no node answers."""
    if isinstance(step, Wait):
        assert not settled(step, ClusterView())
        return
    match step:
        case Leave() | Retire() | Wipe():
            gone = VIEW
        case Failover():
            gone = without(VIEW, 0)
        case Replicate() | Reattach() | ManualFailover():
            gone = without(after(VIEW), 3)
        case SetSlotOwner():
            gone = without(after(VIEW), 1)
        case EndPause():
            gone = without(VIEW, 3)
        case _:
            gone = without(after(VIEW), 0)
    assert not settled(step, gone)


def test_a_copy_of_functions_and_users_is_left_to_the_next_look() -> None:
    """Where the node answers."""
    step = Provision(node=TWO, origin=ONE, address=HERE, libraries=("geo",), users=())
    assert settled(step, VIEW)
    assert not settled(step, without(VIEW, 1))


def test_a_wiped_node_may_be_one_that_does_not_answer() -> None:
    """While a pod does not answer it is not known whether that is the one, restarted."""
    cluster = formed(shape())
    cluster[5].alive = False
    for step in (Wipe(node=LOST, flush=True), Leave(node=LOST)):
        assert settled(step, VIEW)
        assert not settled(step, cluster.look())
