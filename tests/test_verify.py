"""A good cluster has no violation; each invariant, broken alone, is named alone; the planner agrees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.model.desired import Desired
from bootstrap.model.links import LinkCause, LinkTrouble
from bootstrap.model.node import NO_FAILOVER_NAMES, SHORT_TIMEOUT_MS, Address, Role, SlotMigration
from bootstrap.model.plan import Plan
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.plan.planner import plan
from bootstrap.verify import violations
from tests.builders import formed, gossip, half_formed, shape, with_line, with_node
from tests.fake_cluster import FakeCluster, Known

STRANGER = Known(Address("10.0.0.99", 6379), connected=True)


def codes(view: ClusterView, desired: Desired) -> list[str]:
    return sorted({reason.code for reason in violations(view, desired)})


@given(st.integers(3, 8), st.integers(0, 3))
@settings(deadline=None, max_examples=20)
def test_a_good_cluster_of_any_shape_has_no_violation(shards: int, replicas: int) -> None:
    """Every invariant holds."""
    desired = shape(shards, replicas)
    assert violations(formed(desired).look(), desired) == ()


def test_an_empty_view_is_not_a_good_cluster() -> None:
    """Where no node answers, nothing is proved."""
    assert codes(ClusterView(), shape()) == ["number-of-masters", "number-of-pods", "slots-uncovered"]


def one_slot_less(view: ClusterView) -> ClusterView:
    """All nodes agree that slot 0 has no owner."""
    slots = SlotSet.of((1, 5460))
    for reporter in range(len(view.nodes)):
        view = with_line(view, reporter, 0, slots=slots)
    return view


def one_slot_twice(view: ClusterView) -> ClusterView:
    """All nodes agree that slot 0 has two owners."""
    slots = SlotSet.of((0, 0), (5461, 10922))
    for reporter in range(len(view.nodes)):
        view = with_line(view, reporter, 1, slots=slots)
    return view


def equal_epochs(view: ClusterView) -> ClusterView:
    return with_line(view, 0, 0, config_epoch=2)


def without_line(view: ClusterView, reporter: int, about: int) -> ClusterView:
    node_id = view.nodes[about].node_id
    return with_node(view, reporter, members=tuple(m for m in view.nodes[reporter].members if m.node_id != node_id))


def with_stranger(view: ClusterView) -> ClusterView:
    stranger = replace(view.nodes[0].members[-1], node_id="f" * 40)
    return with_node(view, 0, members=(*view.nodes[0].members, stranger))


def with_handshake(view: ClusterView) -> ClusterView:
    """Its id is random: it is neither that of a pod nor that of a lost member."""
    unknown = replace(view.nodes[0].members[-1], node_id="e" * 40, flags=frozenset({"handshake"}), connected=False)
    return with_node(view, 0, members=(*view.nodes[0].members, unknown))


def replication(view: ClusterView, ordinal: int, **changes: object) -> ClusterView:
    return with_node(view, ordinal, replication=replace(view.nodes[ordinal].replication, **changes))  # type: ignore[arg-type]


def one_absent(view: ClusterView) -> ClusterView:
    """A second server of a pod of the shape."""
    peer = UnreachablePeer(pod="redis-app-5", ordinal=5, why=UnreachableReason.CONNECTION_REFUSED)
    return replace(view, unreachable=(peer,))


REPLICA = frozenset({"slave"})


def with_two_handshakes(view: ClusterView) -> ClusterView:
    """At two addresses, of which one is tried twice."""
    unknown = replace(view.nodes[0].members[-1], flags=frozenset({"handshake"}), connected=False)
    elsewhere = (("d" * 40, "10.0.0.98"), ("e" * 40, "10.0.0.97"), ("c" * 40, "10.0.0.98"))
    lines = (replace(unknown, node_id=node_id, address=Address(host, 6379)) for node_id, host in elsewhere)
    return with_node(view, 0, members=(*view.nodes[0].members, *lines))


def blocked_bus(view: ClusterView) -> ClusterView:
    """Nobody has a link to a node, which has none either."""
    for other in range(len(view.nodes)):
        if other != 5:
            view = with_line(with_line(view, other, 5, connected=False), 5, other, connected=False)
    return view


def with_trouble(view: ClusterView) -> ClusterView:
    replica = view.nodes[4].node_id
    trouble = LinkTrouble(replica=replica, cause=LinkCause.NO_PASSWORD, detail="NOAUTH")
    return replace(replication(view, 4, link_up=False), link_troubles={replica: trouble})


def quickened(view: ClusterView) -> ClusterView:
    return with_node(view, 2, timeout_ms=SHORT_TIMEOUT_MS, config={NO_FAILOVER_NAMES[0]: "yes"})


BROKEN: dict[str, tuple[Callable[[ClusterView], ClusterView], list[str]]] = {
    "a pod does not answer": (one_absent, ["number-of-pods", "unreachable"]),
    "a node does not serve": (lambda v: with_node(v, 4, serving=False), ["not-serving"]),
    "a slot has no owner": (one_slot_less, ["slots-uncovered"]),
    "a slot has two owners": (one_slot_twice, ["slots-claimed-twice"]),
    "a node reports another owner": (lambda v: with_line(v, 5, 0, slots=SlotSet()), ["owners-disagree"]),
    "a node does not know another": (lambda v: without_line(v, 3, 5), ["not-known"]),
    "a link is down in one direction": (lambda v: with_line(v, 3, 5, connected=False), ["link-down"]),
    "a node is suspected": (lambda v: with_line(v, 3, 5, flags=REPLICA | {"fail?"}), ["suspected"]),
    "a node is marked as failed": (lambda v: with_line(v, 3, 5, flags=REPLICA | {"fail"}), ["suspected"]),
    "a node has no address": (lambda v: with_line(v, 3, 5, flags=REPLICA | {"noaddr"}), ["suspected"]),
    "a node reports another as a master": (
        lambda v: with_line(v, 3, 5, flags=frozenset({"master"})),
        ["roles-disagree"],
    ),
    "a replica's link is down": (lambda v: replication(v, 4, link_up=False), ["replica-link-down"]),
    "a replica copies from elsewhere": (lambda v: replication(v, 4, master=Address("10.0.0.1", 6379)), ["replication"]),
    "a master replicates": (lambda v: replication(v, 0, role=Role.REPLICA), ["replication"]),
    "a master misses a replica": (lambda v: replication(v, 0, online_replicas=()), ["replica-not-online"]),
    "two masters have the same epoch": (equal_epochs, ["equal-epochs"]),
    "a member is not a listed pod": (with_stranger, ["unlisted-member"]),
    "a node is in handshake": (with_handshake, ["handshake"]),
    "a slot is migrating": (lambda v: with_line(v, 0, 0, migrating=((1, "f" * 40),)), ["open-slots"]),
    "a slot is importing": (lambda v: with_line(v, 0, 0, importing=((9000, "f" * 40),)), ["open-slots"]),
    "a master holds keys of another one's slot": (
        lambda v: with_node(v, 0, keys=1, left_over={9000: 1}),
        ["keys-left-over"],
    ),
    "a timeout drifted": (lambda v: with_node(v, 2, timeout_ms=15000), ["timeout-drift"]),
    "a node refuses writes": (lambda v: with_node(v, 1, writes_refused="MISCONF no save"), ["writes-refused"]),
    "a node looks for another at a former address": (
        lambda v: with_line(v, 3, 5, address=Address("10.0.0.99", 6379)),
        ["link-elsewhere"],
    ),
    "a node has no answer of another": (lambda v: with_line(v, 3, 5, unanswered_ms=61_000), ["link-down"]),
    "the bus of a node is blocked": (blocked_bus, ["bus-blocked"]),
    "a node is introduced and its bus is blocked": (lambda v: blocked_bus(with_handshake(v)), ["bus-blocked"]),
    "another is introduced while a bus is blocked": (
        lambda v: blocked_bus(with_two_handshakes(v)),
        ["bus-blocked", "handshake"],
    ),
    "a node reports another master of a replica": (
        lambda v: with_line(v, 0, 5, master_id=v.nodes[1].node_id),
        ["roles-disagree"],
    ),
    "a replica's link is down for a known cause": (with_trouble, ["replica-link-down"]),
    "a voter holds a higher epoch": (lambda v: with_line(v, 4, 0, config_epoch=99), ["epochs-disagree"]),
    "a killed run left its settings": (quickened, ["temporary-settings", "timeout-drift"]),
    "two nodes are in handshake": (with_two_handshakes, ["handshake"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_broken_invariant_is_named_alone(name: str) -> None:
    """Each rule reports its own fault and no other."""
    spoil, expected = BROKEN[name]
    assert codes(spoil(formed(shape()).look()), shape()) == expected


def test_a_setting_that_is_declared_is_compared_and_an_unknown_one_is_not() -> None:
    """A node whose CONFIG is denied does not report its settings."""
    declared = replace(shape(), config={"cluster-require-full-coverage": "no"})
    view = with_node(formed(shape()).look(), 0, config={"cluster-require-full-coverage": "yes"})
    (reason,) = violations(with_node(view, 1, config={}), declared)
    assert (reason.code, reason.node) == ("config-drift", "redis-app-0")
    assert reason.message == "cluster-require-full-coverage of redis-app-0 is yes, not no"


def test_each_pod_that_does_not_answer_is_a_violation_or_all_with_one_remedy() -> None:
    """The first three are named as the cause of what follows."""
    cluster = formed(shape(4, 1))
    for count, named in ((1, "redis-app-7, which does"), (2, "redis-app-6, redis-app-7, which do")):
        cluster[8 - count].alive = False
        messages = [reason.message for reason in violations(cluster.look(), shape(4, 1))]
        assert any(f"probably because of {named} not answer" in message for message in messages)
        assert any(f"probably the id of {named} not answer" in message for message in messages)
    cluster[5].alive = False
    three = "probably because of redis-app-5, redis-app-6, redis-app-7, which do not answer"
    assert any(three in reason.message for reason in violations(cluster.look(), shape(4, 1)))
    cluster[4].alive = False
    four = "redis-app-4, redis-app-5, redis-app-6 and 1 more, which do not answer"
    assert any(four in reason.message for reason in violations(cluster.look(), shape(4, 1)))


def test_a_pod_that_does_not_answer_is_named_as_the_cause() -> None:
    """Of what follows from it: `apply` only waits for the pod, so its remedy stands for all of them."""
    cluster = formed(shape())
    cluster[4].alive = False
    reasons = violations(cluster.look(), shape())
    assert reasons[0].code == "unreachable"
    assert {reason.code for reason in reasons[1:]} == {"number-of-replicas", "unlisted-member"}
    assert {reason.remedy for reason in reasons} == {reasons[0].remedy}
    assert all(reason.message.endswith("redis-app-4, which does not answer") for reason in reasons[1:])
    (count,) = [reason.message for reason in reasons if reason.code == "number-of-replicas"]
    assert count.startswith("redis-app-1 has 0 replicas, declared: 1: ")


def test_keys_of_slots_that_are_on_their_way_are_not_left_over() -> None:
    """The slot is open, or servers migrate it, or a replica has what its master has: they may be where they belong."""
    view = with_node(formed(shape()).look(), 0, keys=1, left_over={9000: 1})
    assert codes(with_line(view, 0, 0, importing=((9000, view.nodes[1].node_id),)), shape()) == ["open-slots"]
    migration = SlotMigration(
        task_id="1",
        slots=SlotSet.of((8999, 9001)),
        source=view.nodes[1].node_id,
        target=view.nodes[0].node_id,
        importing=True,
        state="started",
        retries=True,
    )
    assert codes(with_node(view, 0, migrations=(migration,)), shape()) == []
    assert codes(with_node(formed(shape()).look(), 3, keys=1, left_over={9000: 1}), shape()) == []


def test_the_slots_of_left_over_keys_are_ranges_and_not_too_many() -> None:
    """A person reads which pods, how many keys, and the first of many ranges."""
    view = with_node(formed(shape()).look(), 0, left_over=dict.fromkeys(range(6000, 6400, 2), 3))
    (reason,) = violations(view, shape())
    assert reason.message.startswith("redis-app-0 holds 600 keys of the slots 6000 6002 6004 ")
    assert " more, owned by redis-app-1: no client can see them there" in reason.message
    assert len(reason.message) < 350


def test_replicas_and_masters_are_counted() -> None:
    """A surplus replica of one shard is missing in another, and a master without slots is not a declared one."""
    cluster = formed(shape())
    cluster[4].master = cluster[0].node_id
    gossip(cluster)
    assert codes(cluster.look(), shape()) == ["number-of-replicas"]
    cluster[4].master = None
    gossip(cluster)
    expected = ["master-without-slots", "number-of-masters", "number-of-replicas"]
    assert codes(cluster.look(), shape()) == expected


def test_a_replica_of_a_replica_has_no_master() -> None:
    """Redis allows it for a moment; a copy of a copy is not what was declared."""
    cluster = formed(shape())
    cluster[5].master = cluster[4].node_id
    gossip(cluster)
    assert codes(cluster.look(), shape()) == ["number-of-replicas", "replica-of-nobody"]


def test_a_timeout_that_is_not_declared_or_not_known_is_not_a_drift() -> None:
    """None means "leave alone" in the shape and "cannot be read" in the view."""
    view = formed(shape()).look()
    assert violations(with_node(view, 0, timeout_ms=None), shape()) == ()
    assert violations(with_node(view, 0, timeout_ms=15000), shape(timeout_ms=None)) == ()


def test_a_master_that_is_reached_at_another_address_than_it_announces_is_the_same() -> None:
    """Port-forwarded or dual-stack: the replica reports the announced address."""
    view = with_node(formed(shape()).look(), 0, address=Address("fd00::1", 6379))
    assert violations(view, shape()) == ()


@given(half_formed())
@settings(deadline=None, max_examples=150)
def test_planner_and_verify_agree_on_what_is_good(state: tuple[FakeCluster, Desired]) -> None:
    """A good cluster needs no step, and a plan without steps leaves only violations that gossip alone can resolve."""
    cluster, desired = state
    view = cluster.look()
    decision, bad = plan(view, desired), codes(view, desired)
    if not bad:
        assert decision == Plan()
    if decision == Plan():
        assert set(bad) <= BY_GOSSIP_ALONE


BY_GOSSIP_ALONE = {"roles-disagree", "replica-not-online", "equal-epochs", "owners-disagree", "handshake"}
"""Violations that no write could resolve sooner: the run waits for gossip."""


def test_one_node_that_owns_all_slots_is_not_three_shards() -> None:
    """All slots are covered, and the shape is wrong."""
    cluster = formed(shape(3, 0))
    for node in cluster.nodes:
        node.slots = SlotSet()
    cluster[0].slots = ALL_SLOTS
    gossip(cluster)
    assert codes(cluster.look(), shape(3, 0)) == ["master-without-slots"]
