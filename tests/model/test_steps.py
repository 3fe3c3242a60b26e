"""When a step is settled: not when the server replied OK, but when every node that has to know of it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.steps import AddSlots, Meet, Replicate, SetEpoch, SetTimeout, Step, Write, recipient
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import AwaitAgreement, AwaitEpochs, AwaitMesh, AwaitReplication, AwaitServing
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

UNSETTLED: dict[str, tuple[Step, Callable[[ClusterView], ClusterView]]] = {
    "the newcomer has no link back": (MEET, lambda v: with_line(v, 4, 0, connected=False)),
    "the introducer has no link": (MEET, lambda v: with_line(v, 0, 4, connected=False)),
    "one node does not know the slots": (SLOTS, lambda v: with_line(v, 5, 0, slots=SlotSet())),
    "the owner itself lacks a slot": (SLOTS, lambda v: with_line(v, 0, 0, slots=SlotSet.of((0, 5459)))),
    "one node does not know the role": (FOLLOW, lambda v: with_line(v, 5, 3, master_id=None)),
    "the replica follows another": (FOLLOW, lambda v: with_line(v, 3, 3, master_id=IDS[1])),
    "the epoch is lower": (EPOCH, lambda v: with_line(v, 1, 1, config_epoch=1)),
    "the timeout is another": (TIMEOUT, lambda v: with_node(v, 1, timeout_ms=1000)),
    "one link of the mesh is down": (AwaitMesh(), lambda v: with_line(v, 5, 3, connected=False)),
    "one node reports another owner": (AwaitAgreement(), lambda v: with_line(v, 5, 2, slots=ALL_SLOTS)),
    "two masters have the same epoch": (AwaitEpochs(), lambda v: with_line(v, 0, 0, config_epoch=2)),
    "one node does not serve": (AwaitServing(), lambda v: with_node(v, 5, serving=False)),
    "a replica does not replicate yet": (
        AwaitReplication(),
        lambda v: with_node(v, 5, replication=v.nodes[0].replication),
    ),
}
by_name = pytest.mark.parametrize("name", UNSETTLED)


@by_name
def test_a_step_is_settled_where_all_nodes_know_of_it(name: str) -> None:
    """On a good cluster every step is settled."""
    assert settled(UNSETTLED[name][0], GOOD)


@by_name
def test_a_step_is_not_settled_while(name: str) -> None:
    """One node that does not know of it is enough."""
    step, spoil = UNSETTLED[name]
    assert not settled(step, spoil(GOOD))


@pytest.mark.parametrize("step", [MEET, EPOCH, TIMEOUT])
def test_a_write_to_a_node_that_does_not_answer_is_not_settled(step: Write) -> None:
    """A node that is not in the view knows nothing."""
    nodes = tuple(node for node in GOOD.nodes if node.node_id != recipient(step))
    assert not settled(step, ClusterView(nodes=nodes))


@by_name
def test_a_step_is_described_with_pods_in_place_of_ids(name: str) -> None:
    """A person knows pods, not node ids."""
    words = describe(UNSETTLED[name][0], GOOD)
    assert words[0].islower()
    assert not any(node_id[:8] in words for node_id in IDS)
