"""When a step has come true: not when the server said OK, but when every node that must know it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.steps import (
    AddSlots,
    AwaitAgreement,
    AwaitEpochs,
    AwaitMesh,
    AwaitReplication,
    AwaitServing,
    Meet,
    Replicate,
    SetEpoch,
    SetTimeout,
    Step,
    Write,
    recipient,
)
from bootstrap.model.view import ClusterView
from bootstrap.plan.describe import describe
from bootstrap.plan.settled import settled
from tests.builders import formed, shape, with_line, with_node

GOOD = formed(shape()).look()
IDS = [node.node_id for node in GOOD.nodes]
MEET = Meet(introducer=IDS[0], newcomer=IDS[4], address=GOOD.nodes[4].address, bus_port=16379)
SLOTS = AddSlots(node=IDS[0], slots=GOOD.nodes[0].slots)
FOLLOW = Replicate(replica=IDS[3], master=IDS[0])
EPOCH = SetEpoch(node=IDS[1], epoch=2)
TIMEOUT = SetTimeout(node=IDS[1], timeout_ms=5000)

UNDONE: dict[str, tuple[Step, Callable[[ClusterView], ClusterView]]] = {
    "the newcomer has no link back": (MEET, lambda v: with_line(v, 4, 0, connected=False)),
    "the introducer has no link": (MEET, lambda v: with_line(v, 0, 4, connected=False)),
    "one node has not heard of the slots": (SLOTS, lambda v: with_line(v, 5, 0, slots=SlotSet())),
    "the owner itself lacks a slot": (SLOTS, lambda v: with_line(v, 0, 0, slots=SlotSet.of((0, 5459)))),
    "one node has not heard of the role": (FOLLOW, lambda v: with_line(v, 5, 3, master_id=None)),
    "the replica follows another": (FOLLOW, lambda v: with_line(v, 3, 3, master_id=IDS[1])),
    "the epoch is lower": (EPOCH, lambda v: with_line(v, 1, 1, config_epoch=1)),
    "the timeout is another": (TIMEOUT, lambda v: with_node(v, 1, timeout_ms=1000)),
    "one link of the mesh is down": (AwaitMesh(), lambda v: with_line(v, 5, 3, connected=False)),
    "one node names another owner": (AwaitAgreement(), lambda v: with_line(v, 5, 2, slots=ALL_SLOTS)),
    "two masters have one epoch": (AwaitEpochs(), lambda v: with_line(v, 0, 0, config_epoch=2)),
    "one node does not serve": (AwaitServing(), lambda v: with_node(v, 5, serving=False)),
    "a replica has not begun": (
        AwaitReplication(),
        lambda v: with_node(v, 5, replication=v.nodes[0].replication),
    ),
}
by_name = pytest.mark.parametrize("name", UNDONE)


@by_name
def test_a_step_is_settled_where_all_know_of_it(name: str) -> None:
    """On a good cluster everything has come true."""
    assert settled(UNDONE[name][0], GOOD)


@by_name
def test_a_step_is_open_as_long_as(name: str) -> None:
    """One node that lacks it is enough."""
    step, spoil = UNDONE[name]
    assert not settled(step, spoil(GOOD))


@pytest.mark.parametrize("step", [MEET, EPOCH, TIMEOUT])
def test_what_is_told_to_a_node_that_is_gone_is_open(step: Write) -> None:
    """Who is not in the view knows nothing."""
    nodes = tuple(node for node in GOOD.nodes if node.node_id != recipient(step))
    assert not settled(step, ClusterView(nodes=nodes))


@by_name
def test_a_step_is_told_in_words_with_pods_in_place_of_ids(name: str) -> None:
    """A person knows pods, not node ids."""
    words = describe(UNDONE[name][0], GOOD)
    assert words[0].islower()
    assert not any(node_id[:8] in words for node_id in IDS)
