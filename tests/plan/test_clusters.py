"""Which nodes are one cluster, which groups must not be joined, and servers that announce one address."""

from __future__ import annotations

from bootstrap.model.node import Address
from bootstrap.model.slots import SlotSet
from bootstrap.model.view import ClusterView
from bootstrap.plan.clusters import groups, in_conflict, one_announced_address
from tests.builders import formed, gossip, introduce, shape, with_line, with_node
from tests.fake_cluster import FakeCluster

SHARED = Address("10.0.0.1", 6379)
REMEDY = (
    "give each server its own address: without cluster-announce-ip a server finds it. The setting must be the pod's IP "
    "(fieldRef status.podIP); with hostNetwork each pod needs a machine of its own: kubectl exec {pod} -- redis-cli "
    "CONFIG GET cluster-announce-ip; then run again: kubectl create job --from=cronjob/redis-bootstrap "
    "again-$(date +%s)"
)


def ordinals(found: tuple[tuple[object, ...], ...]) -> list[list[int]]:
    return [[node.ordinal for node in group] for group in found]  # type: ignore[attr-defined]


def announcing(view: ClusterView, ordinal: int, address: Address | None, ip: str | None = "") -> ClusterView:
    """A node's own line of CLUSTER NODES has that address, and its setting cluster-announce-ip is `ip`."""
    return with_node(with_line(view, ordinal, ordinal, address=address), ordinal, announced_ip=ip)


def test_nodes_are_one_group_however_long_the_chain_between_them() -> None:
    """Each node knows the next one, in one direction only; the groups are in ordinal order."""
    cluster = FakeCluster(7)
    for one, other in ((5, 4), (4, 2), (2, 0), (1, 3)):
        introduce([cluster[one], cluster[other]])
        del cluster[other].known[cluster[one].node_id]
    assert ordinals(groups(cluster.look())) == [[0, 2, 4, 5], [1, 3], [6]]
    introduce([cluster[0], cluster[1]])
    introduce([cluster[5], cluster[6]])
    assert ordinals(groups(cluster.look())) == [[0, 1, 2, 3, 4, 5, 6]]
    introduce(cluster.nodes)
    assert ordinals(groups(cluster.look())) == [[0, 1, 2, 3, 4, 5, 6]]


def test_groups_conflict_where_both_own_a_slot_or_a_replica_has_lost_its_group() -> None:
    """Owners of different slots can be joined, and a replica without keys has nothing to lose."""
    cluster = FakeCluster(4)
    introduce(cluster.nodes[:2])
    introduce(cluster.nodes[2:])
    cluster[0].slots, cluster[2].slots = SlotSet.of((0, 99)), SlotSet.of((100, 199))
    assert in_conflict(cluster.look()) == ()
    cluster[2].slots = SlotSet.of((99, 199))
    assert ordinals(in_conflict(cluster.look())) == [[0, 1], [2, 3]]
    cluster[2].slots, cluster[3].master = SlotSet(), cluster[2].node_id
    gossip(cluster)
    assert in_conflict(cluster.look()) == ()
    cluster[3].keys = 1
    assert ordinals(in_conflict(cluster.look())) == [[0, 1], [2, 3]]
    cluster[0].slots = SlotSet()
    assert in_conflict(cluster.look()) == (), "there is no other group to be joined with"
    cluster[2].slots = SlotSet.of((0, 99))
    assert in_conflict(cluster.look()) == ()


def test_nodes_that_announce_one_address_are_refused() -> None:
    """Each introduction of one of them would reach another. The last of them has the setting to look at."""
    view = formed(shape()).look()
    assert list(one_announced_address(view)) == []
    view = announcing(announcing(view, 2, SHARED, "10.0.0.1"), 4, SHARED, "10.0.0.1")
    (reason,) = one_announced_address(view)
    assert (reason.code, reason.node) == ("one-announced-address", "redis-app-0")
    assert reason.message == (
        "redis-app-0, redis-app-2, redis-app-4 answer at 10.0.0.1:6379, 10.0.0.3:6379, 10.0.0.5:6379 and all announce "
        "the address 10.0.0.1:6379 to the other nodes"
    )
    assert reason.remedy == REMEDY.format(pod="redis-app-4")


def test_a_node_that_announces_the_address_of_another_is_refused() -> None:
    """The other one does not know its own address yet."""
    view = announcing(announcing(formed(shape()).look(), 0, None), 2, SHARED, "10.0.0.1")
    (reason,) = one_announced_address(view)
    assert (reason.code, reason.node) == ("one-announced-address", "redis-app-2")
    assert reason.message == (
        "redis-app-2 answers at 10.0.0.3:6379 and announces the address 10.0.0.1:6379, at which redis-app-0 answers"
    )
    assert reason.remedy == REMEDY.format(pod="redis-app-2")


def test_a_node_that_keeps_a_former_address_until_it_is_introduced_is_no_fault() -> None:
    """It has no fixed address, or its CONFIG is denied: it learns its own from an introduction."""
    view = formed(shape()).look()
    for ip in ("", None):
        assert list(one_announced_address(announcing(view, 2, SHARED, ip))) == []
    elsewhere = Address("10.0.0.99", 6379)
    for ip, refused in (("", 0), ("10.0.0.99", 1), (None, 1)):
        both = announcing(announcing(view, 2, elsewhere, ip), 4, elsewhere, ip)
        assert len(list(one_announced_address(both))) == refused, ip
    assert list(one_announced_address(announcing(view, 2, elsewhere, "10.0.0.99"))) == []
