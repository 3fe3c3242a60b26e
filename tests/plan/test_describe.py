"""Each step as a sentence: the same for `plan`, the log and a rejected write."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from bootstrap.model.node import Address, SlotMigration
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
from bootstrap.plan.describe import describe
from tests.builders import formed, shape, with_node

VIEW = formed(shape()).look()
ONE, TWO = (node.node_id for node in VIEW.nodes[:2])
LOST = "f" * 40
SLOTS = SlotSet.of((0, 9), (20, 20))

WORDS: list[tuple[Step, str]] = [
    (SetTimeout(node=ONE, timeout_ms=500), "set cluster-node-timeout of redis-app-0 to 500 ms"),
    (
        SetConfig(node=ONE, name="cluster-require-full-coverage", value="no"),
        "set cluster-require-full-coverage of redis-app-0 to no",
    ),
    (SetEpoch(node=ONE, epoch=7), "set the config epoch of redis-app-0 to 7"),
    (BumpEpoch(node=ONE), "give redis-app-0 a config epoch above all others"),
    (
        Meet(introducer=ONE, newcomer=TWO, address=Address("10.0.0.2", 6379), bus_port=16379),
        "introduce redis-app-1 at 10.0.0.2:6379 to redis-app-0",
    ),
    (AddSlots(node=ONE, slots=SLOTS), "assign slots 0-9 20 to redis-app-0"),
    (Replicate(replica=TWO, master=ONE), "make redis-app-1 a replica of redis-app-0"),
    (Reattach(replica=TWO, master=ONE), "reconnect redis-app-1 to its master redis-app-0"),
    (
        Failover(candidate=TWO, lost=LOST, slots=SLOTS, takeover=True),
        "promote redis-app-1 in place of the lost ffffffff…, without votes (too few masters are left)",
    ),
    (
        Failover(candidate=TWO, lost=LOST, slots=SLOTS, takeover=False),
        "promote redis-app-1 in place of the lost ffffffff…, by the votes of the other masters",
    ),
    (Forget(node=ONE, lost=LOST), "let redis-app-0 forget the lost ffffffff…"),
    (
        SetSlotState(node=ONE, slot=7, other=TWO, importing=True),
        "open slot 7 on redis-app-0 as importing from redis-app-1",
    ),
    (
        SetSlotState(node=ONE, slot=7, other=TWO, importing=False),
        "open slot 7 on redis-app-0 as migrating to redis-app-1",
    ),
    (SetSlotOwner(node=ONE, owner=TWO, slots=SLOTS), "set redis-app-1 as the owner of slots 0-9 20 on redis-app-0"),
    (
        MoveKeys(source=ONE, target=TWO, slot=7, address=Address("10.0.0.2", 6379), databases=(0,)),
        "move the keys of slot 7 from redis-app-0 to redis-app-1",
    ),
    (TakeSlot(node=ONE, slot=7), "make redis-app-0 the owner of slot 7"),
    (CloseSlot(node=ONE, slot=7), "close slot 7 on redis-app-0"),
    (MoveSlots(source=ONE, target=TWO, slots=SLOTS), "move 11 slots from redis-app-0 to redis-app-1: 0-9 20"),
    (
        MoveSlots(source=ONE, target=TWO, slots=SlotSet.of((7, 7))),
        "move 1 slot from redis-app-0 to redis-app-1: 7",
    ),
    (CancelMigration(node=ONE, task_id="abc"), "cancel the migration task abc on redis-app-0"),
    (ManualFailover(candidate=TWO, master=ONE), "fail over from the master redis-app-0 to its replica redis-app-1"),
    (
        Provision(node=TWO, origin=ONE, address=Address("10.0.0.1", 6379), libraries=("geo", "top"), users=("app",)),
        "copy from redis-app-0 to redis-app-1: the function library geo, the function library top, the ACL user app",
    ),
    (EndPause(node=ONE), "let the former master redis-app-0 end the pause of its clients"),
    (Retire(node=ONE), "let redis-app-0 write a snapshot and leave the cluster: its files keep the keys"),
    (AwaitCopies(nodes=(TWO,)), "wait until every replica has a copy of its master"),
    (AwaitCopies(nodes=(LOST,)), f"wait until {LOST[:8]}… has a copy of its master"),
    (Leave(node=ONE), "remove redis-app-0 from the cluster: it becomes blank"),
    (Wipe(node=ONE, flush=True), "wipe redis-app-0: all its keys, its slots and its list of members"),
    (Wipe(node=TWO, flush=False), "wipe redis-app-1: its copy and its list of members"),
    (Announce(node=ONE, others=()), "let redis-app-0 announce its role, slots and epoch to all other nodes"),
    (AwaitMesh(), "wait until every node is linked to every other"),
    (AwaitAgreement(), "wait until all nodes agree on the owners of slots and the masters of replicas"),
    (AwaitElection(lost=LOST, slots=SLOTS), "wait until a replica of the lost ffffffff… is elected"),
    (AwaitEpochs(), "wait until all masters have different config epochs"),
    (AwaitReplication(), "wait until every replica has its copy and its link is up"),
    (AwaitMigrations(), "wait until the servers have moved the slots that they migrate"),
    (AwaitServing(), "wait until every node reports cluster_state:ok"),
]


@pytest.mark.parametrize(("step", "words"), WORDS, ids=[words for _, words in WORDS])
def test_words(step: Step, words: str) -> None:
    """With pods in place of node ids."""
    assert describe(step, VIEW) == words


def test_every_step_has_its_words() -> None:
    assert {type(step) for step, _ in WORDS} == {*get_args(Write), *get_args(Wait)}


def test_a_wait_names_what_it_waits_for() -> None:
    """The replicas without a link, and the slots on their way."""
    view = VIEW
    for ordinal in (3, 5):
        view = with_node(view, ordinal, replication=replace(view.nodes[ordinal].replication, link_up=False))
    down = "wait until every replica has its copy and its link is up (down: redis-app-3, redis-app-5)"
    assert describe(AwaitReplication(), view) == down
    for ordinal, (first, last) in enumerate(((0, 9), (20, 20))):
        running = SlotMigration(
            task_id=str(ordinal),
            slots=SlotSet.of((first, last)),
            source=ONE,
            target=TWO,
            importing=True,
            state="started",
            retries=True,
        )
        view = with_node(view, ordinal, migrations=(running,))
    assert describe(AwaitMigrations(), view) == "wait until the servers have moved the slots 0-9 20"
