"""Lists of slots in every text for people: ranges, and at most 200 characters, however torn the slots are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from bootstrap.model.desired import Desired
from bootstrap.model.plan import Refusal
from bootstrap.model.slots import SlotSet
from bootstrap.model.view import ClusterView
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.findings import findings
from bootstrap.plan.planner import plan
from bootstrap.plan.reinit import wiping
from bootstrap.run.report import plan_text, table
from bootstrap.verify import violations
from tests.builders import gossip, shape
from tests.fake_cluster import FakeCluster
from tests.plan.damage import DAMAGES, EMPTIED, LEFT_OVER, give_left_over, healthy, wipe

LIST = re.compile(r"(?:\$\(seq )?\d+(?:[- ]\d+\)?)?(?:,? (?:\$\(seq )?\d+(?:[- ]\d+\)?)?)+")
"""Numbers and ranges, one after the other, also as a shell takes them."""


def torn() -> FakeCluster:
    """Each third slot belongs to the same master."""
    cluster = healthy()
    for node in cluster.nodes[:3]:
        node.slots = SlotSet.of(*((slot, slot) for slot in range(node.ordinal, 16384, 3)))
    gossip(cluster)
    return cluster


def lose_a_shard(cluster: FakeCluster) -> None:
    wipe(cluster, 1)
    wipe(cluster, 4)


def leave_many_keys_over(cluster: FakeCluster) -> None:
    for slot in range(1, 3000, 3):
        give_left_over(cluster[0], slot, dead=1)


def mark_many_slots(cluster: FakeCluster) -> None:
    leave_many_keys_over(cluster)
    cluster[0].importing |= dict.fromkeys(range(1, 3000, 3), cluster[1].node_id)


def delete_many_slots(cluster: FakeCluster) -> None:
    cluster[1].slots -= SlotSet.of((0, 9000))


def delete_many_slots_everywhere(cluster: FakeCluster) -> None:
    cluster[1].slots -= SlotSet.of((0, 9000))
    gossip(cluster)


def load_files(cluster: FakeCluster) -> None:
    """Servers that know no cluster own the slots of the keys that they found in a file."""
    for node in cluster.nodes:
        node.known, node.master, node.epoch, node.keys = {}, None, 0, 5000
        node.slots = SlotSet.of(*((slot, slot) for slot in range(node.ordinal % 3, 9000, 3)))


def load_files_into_masters(cluster: FakeCluster) -> None:
    load_files(cluster)
    for ordinal in (3, 4, 5):
        wipe(cluster, ordinal)


OTHERS = {
    "a shard is lost": lose_a_shard,
    "many keys are left over": leave_many_keys_over,
    "many slots are marked": mark_many_slots,
    "many slots were deleted": delete_many_slots,
    "many slots were deleted everywhere": delete_many_slots_everywhere,
    "files were loaded": load_files,
    "files were loaded into masters": load_files_into_masters,
}


def texts(view: ClusterView, desired: Desired) -> Iterator[str]:
    """What `plan`, `apply`, `reinit`, `verify` and the table say about it."""
    for decision in (plan(view, desired), wiping(view, desired, "0" * 12)):
        if isinstance(decision, Refusal):
            yield from (text for reason in decision.reasons for text in (reason.message, reason.remedy))
        else:
            yield plan_text(decision, view)
    yield from (finding.message for finding in findings(Assessment(view, desired)))
    yield from (text for reason in violations(view, desired) for text in (reason.message, reason.remedy))
    yield table(view)


EVERY = {**DAMAGES, **LEFT_OVER, **EMPTIED, **OTHERS}
ACCEPTED = replace(shape(3, 1), accept_loss="the present state")
CASES = {name: (damage, shape(3, 1)) for name, damage in EVERY.items()}
CASES |= {f"{name}, fewer shards": (damage, shape(2, 2)) for name, damage in OTHERS.items()}
CASES |= {f"{name}, accepted": (damage, ACCEPTED) for name, damage in OTHERS.items()}


@pytest.mark.parametrize(("damage", "desired"), CASES.values(), ids=CASES)
def test_no_text_lists_slots_over_more_than_200_characters(
    damage: Callable[[FakeCluster], None], desired: Desired
) -> None:
    cluster = torn()
    damage(cluster)
    view = cluster.look()
    if desired.accept_loss:
        desired = replace(desired, accept_loss=view.fingerprint())
    found = [listed[0] for text in texts(view, desired) for listed in LIST.finditer(text)]
    assert found
    assert max(map(len, found)) <= 200
