"""Members that no pod carries: which of their replicas have a copy, who votes, and when an election is overdue."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bootstrap.model.node import Address, Node
from bootstrap.model.slots import SlotSet
from bootstrap.model.view import ClusterView
from bootstrap.plan.epochs import outranked, would_vote
from bootstrap.plan.failover import overdue
from bootstrap.plan.lost_members import LostMember, absent, slots_after_failover, stale_masters
from tests.builders import formed, gossip, shape, with_line, with_node
from tests.fake_cluster import FakeCluster
from tests.plan.damage import healthy, wipe

SECOND = SlotSet.of((5461, 10922))
ELSEWHERE = Address("10.0.0.77", 6379)


def without_the_second_master(replicas: int = 1) -> ClusterView:
    """It came back without its disk at another address; its replicas hold keys, and have no link."""
    cluster = formed(shape(3, replicas))
    for node in cluster.nodes:
        node.keys = 7
    wipe(cluster, 1)
    view = cluster.look()
    for ordinal in range(4, len(view.nodes), 3):
        view = copying(view, ordinal, link_up=False)
    return view


def copying(view: ClusterView, ordinal: int, keys: int = 7, **changes: object) -> ClusterView:
    replication = replace(view.nodes[ordinal].replication, **changes)  # type: ignore[arg-type]
    return with_node(view, ordinal, replication=replication, keys=keys)


def the_lost(view: ClusterView) -> LostMember:
    (lost,) = absent(view)
    return lost


def ordinals(nodes: tuple[Node, ...]) -> list[int]:
    return [node.ordinal for node in nodes]


def test_the_replica_with_the_most_data_comes_first() -> None:
    """Then the lowest ordinal."""
    view = without_the_second_master(2)
    assert ordinals(the_lost(view).candidates) == [4, 7]
    assert the_lost(view).candidate is view.nodes[4]
    more = copying(view, 7, offset=view.nodes[4].replication.offset + 1)
    assert ordinals(the_lost(more).candidates) == [7, 4]
    assert (the_lost(more).slots, the_lost(more).no_copy_left) == (SECOND, False)


def test_the_newest_report_about_a_lost_member_counts() -> None:
    """An older one may name slots that have moved since; of equal ones that of the lowest ordinal."""
    view = without_the_second_master()
    lost = the_lost(view).node_id
    reporter = view.nodes[3]
    epoch = reporter.others[lost].config_epoch + 1

    def reported(epoch: int) -> ClusterView:
        lines = (
            replace(m, slots=SlotSet.of((5461, 5470)), config_epoch=epoch) if m.node_id == lost else m
            for m in reporter.members
        )
        return with_node(view, 3, members=tuple(lines))

    assert the_lost(reported(epoch)).slots == SlotSet.of((5461, 5470))
    assert the_lost(reported(epoch - 1)).slots == SECOND
    assert the_lost(reported(epoch - 2)).slots == SECOND


LINKED, SYNCING, DOWN = {"link_up": True}, {"link_up": False, "syncing": True}, {"link_up": False}


@pytest.mark.parametrize(
    ("link", "source", "keys", "lost"),
    [
        (LINKED, 0, 7, True),  # a master of another shard
        (LINKED, 3, 7, True),  # a replica
        (LINKED, 1, 7, False),  # the former master itself: it has lost its nodes.conf alone
        (LINKED, 1, 0, True),  # it came back empty
        (SYNCING, 1, 0, True),
        (SYNCING, 0, 7, False),  # the copy is not complete, so the old data are still there
        (DOWN, 1, 0, False),  # no copy was made, and the shard was empty before
        (DOWN, 0, 7, False),
        (LINKED, None, 7, False),  # nobody that answers is at that address
    ],
)
def test_a_replica_that_has_copied_from_another_server_has_no_copy(
    link: dict[str, bool], source: int | None, keys: int, lost: bool
) -> None:
    """A replica connects to an address, whatever server answers there."""
    view = without_the_second_master()
    address = ELSEWHERE if source is None else view.nodes[source].address
    view = copying(view, 4, keys, master=address, **link)
    found = the_lost(view)
    assert found.no_copy_left is lost
    assert ordinals(found.candidates) == ([] if lost else [4])
    assert [(one.ordinal, other.ordinal) for one, other in found.overwritten] == ([(4, source)] if lost else [])


def test_an_announced_address_is_that_of_its_node_too() -> None:
    """Where it answers at another one; and where another node answers, that one counts."""
    view = copying(without_the_second_master(), 4, master=ELSEWHERE, link_up=True)
    assert not the_lost(view).no_copy_left
    announced = with_line(view, 0, 0, address=ELSEWHERE)
    assert the_lost(announced).no_copy_left
    taken = with_node(announced, 1, address=ELSEWHERE)
    assert not the_lost(taken).no_copy_left


def test_each_replica_is_looked_at() -> None:
    """Also after one whose source is not known, or whose link was never made."""
    view = copying(without_the_second_master(2), 4, master=ELSEWHERE, link_up=True)
    view = copying(view, 7, master=view.nodes[0].address, link_up=True)
    assert ordinals(the_lost(view).candidates) == [4]
    view = copying(view, 4, master=None, link_up=True)
    assert ordinals(the_lost(view).candidates) == [4]


def test_what_a_person_has_given_up_comes_last_and_not_never() -> None:
    """The replica that copied from elsewhere takes over where no other one is left."""
    view = copying(without_the_second_master(2), 4, master=ELSEWHERE, link_up=False)
    view = copying(view, 7, master=view.nodes[0].address, link_up=True, offset=10**6)
    (lost,) = absent(view, frozenset({the_lost(view).node_id}))
    assert ordinals(lost.candidates) == [4, 7]


def test_a_replaced_master_that_does_not_know_it_owns_nothing() -> None:
    """All of its slots have an owner with a higher config epoch. With one slot of its own it is none."""
    cluster = healthy()
    assert stale_masters(cluster.look()) == frozenset()
    cluster[4].master, cluster[4].slots, cluster[4].epoch = None, cluster[1].slots, 9
    view = cluster.look()
    assert stale_masters(view) == {view.nodes[1].node_id}
    owned = slots_after_failover(view, ())
    assert (owned[view.nodes[1].node_id], owned[view.nodes[4].node_id]) == (SlotSet(), SECOND)
    cluster[4].slots -= SlotSet.of((5461, 5461))
    assert stale_masters(cluster.look()) == frozenset()
    cluster[4].slots |= SlotSet.of((5461, 5461))
    cluster[4].epoch = cluster[1].epoch
    assert stale_masters(cluster.look()) == frozenset()


def test_an_election_is_overdue_after_twice_the_timeout_and_ten_seconds() -> None:
    """Of the replica's own timeout; where it is not known, of the servers' default of 15 s."""
    view = without_the_second_master()

    def after(down_s: int, timeout_ms: int | None = 5000) -> bool:
        down = copying(view, 4, down_s=down_s)
        return overdue(with_node(down, 4, timeout_ms=timeout_ms).nodes[4], down)

    assert [after(seconds) for seconds in (1, 20, 21)] == [False, False, True]
    assert [after(seconds, 15000) for seconds in (21, 40, 41)] == [False, False, True]
    assert [after(seconds, None) for seconds in (21, 40, 41)] == [False, False, True]
    assert not overdue(view.nodes[4], view)
    assert overdue(view.nodes[4], replace(view, stuck=frozenset({view.nodes[4].node_id})))


def test_a_master_votes_unless_it_knows_a_higher_epoch_for_a_slot() -> None:
    """Higher than the one that the replica holds for the lost master; of other slots it does not matter."""
    view = without_the_second_master()
    lost, candidate = the_lost(view), view.nodes[4]
    assert would_vote(view.nodes[0], lost, candidate)
    own = view.nodes[0].others[lost.node_id].config_epoch
    higher = with_line(view, 0, 2, config_epoch=own + 5)
    assert would_vote(higher.nodes[0], lost, candidate), "another one's slots"
    claims = with_line(higher, 0, 2, slots=SlotSet.of((10922, 16383)))
    assert not would_vote(claims.nodes[0], lost, candidate)
    equal = with_line(claims, 0, 2, config_epoch=own)
    assert would_vote(equal.nodes[0], lost, candidate)
    stranger = replace(candidate, members=tuple(m for m in candidate.members if m.node_id != lost.node_id))
    assert would_vote(claims.nodes[0], lost, stranger), "nothing is known, so nothing is done about it"


def test_only_a_higher_epoch_outranks_an_owner() -> None:
    """Held by another node, for a node with slots."""
    view = formed(shape()).look()
    assert outranked(view) == {}
    own = view.nodes[0].myself.config_epoch
    for other in (1, 3):
        view = with_line(view, other, 0, config_epoch=own + 1)
    assert {view.by_id[node].ordinal: ordinals(holders) for node, holders in outranked(view).items()} == {0: [1, 3]}
    replica = with_line(formed(shape()).look(), 1, 4, config_epoch=99)
    assert outranked(replica) == {}
    lower = with_line(formed(shape()).look(), 1, 0, config_epoch=0)
    assert outranked(lower) == {}


def test_gossip_ends_what_a_failover_began() -> None:
    """Once all nodes know the new owner, no member is lost and nobody is stale."""
    cluster: FakeCluster = healthy()
    cluster[4].master, cluster[4].slots, cluster[4].epoch = None, cluster[1].slots, 9
    cluster[1].slots, cluster[1].master = SlotSet(), cluster[4].node_id
    gossip(cluster)
    assert (absent(cluster.look()), stale_masters(cluster.look())) == ((), frozenset())
