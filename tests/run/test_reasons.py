"""Reasons of a run: likely cause first, few steps, the next command."""

from __future__ import annotations

from dataclasses import replace

from bootstrap.errors import AGAIN, Interrupted, Reason
from bootstrap.model.node import Address
from bootstrap.model.steps import Meet, Replicate
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import AwaitMesh, AwaitReplication
from bootstrap.run.reasons import in_words, of_machines, of_rejection, of_unreachable, of_unsettled
from tests.builders import formed, shape
from tests.fake_cluster import FakeCluster


def meets(view: ClusterView) -> list[Meet]:
    """Node 0 meets every other node."""
    first, *others = view.nodes
    return [
        Meet(introducer=first.node_id, newcomer=node.node_id, address=node.address, bus_port=16379) for node in others
    ]


def test_nodes_without_any_link_point_to_the_cluster_bus() -> None:
    """Every node answers on its data port and reaches no other: the message names the bus and its port."""
    view = FakeCluster(6).look()
    reason = of_unsettled([*meets(view), AwaitMesh()], view)
    assert reason.code == "bus-blocked"
    assert reason.message.startswith("no node can reach another on the cluster bus (port 16379), data ports answer: ")
    assert "introduce redis-app-1" in reason.message
    assert reason.message.endswith("; and 3 more")
    assert "kubectl get networkpolicy" in reason.remedy


def test_missing_links_are_named() -> None:
    """One node out of six is cut off from the bus: who cannot reach whom, in both directions."""
    cluster = formed(shape())
    for node in cluster.nodes:
        node.known = {k: v for k, v in node.known.items() if cluster[5].node_id not in (k, node.node_id)}
    view = cluster.look()
    assert of_unsettled([AwaitMesh()], view).message.startswith(
        "redis-app-0, redis-app-1, redis-app-2, and 2 more cannot reach redis-app-5; redis-app-5 cannot reach "
        "redis-app-0, redis-app-1, redis-app-2, and 2 more on the cluster bus (port 16379), data ports answer: "
    )


def test_an_unreachable_peer_is_not_blamed_on_the_bus() -> None:
    """Its data port does not answer either."""
    gone = UnreachablePeer(pod="redis-app-6", ordinal=6, why=UnreachableReason.TIMEOUT)
    view = ClusterView(nodes=FakeCluster(6).look().nodes, unreachable=(gone,))
    assert of_unsettled([AwaitMesh()], view).message.startswith("not done in time: wait until every node is linked")


def test_a_slow_copy_is_named() -> None:
    """Its remedy is more time."""
    view = formed(shape()).look()
    step = Replicate(replica=view.nodes[3].node_id, master=view.nodes[0].node_id)
    reason = of_unsettled([step, AwaitReplication()], view)
    assert reason.message.startswith("not done in time: make redis-app-3 a replica of redis-app-0; wait until")
    assert "BOOTSTRAP_DEADLINE_S" in reason.remedy


def test_a_rejected_write_has_the_server_s_words_and_a_remedy() -> None:
    """A full server and a missing permission have remedies of their own."""
    full = of_rejection("move 5 slots", "redis-app-0", "ERR OOM command not allowed when used memory > 'maxmemory'")
    assert (full.code, "maxmemory" in full.remedy) == ("no-room", True)
    denied = of_rejection("assign slots 0-5", "redis-app-0", "NOPERM this user has no permissions")
    assert (denied.code, denied.message) == (
        "step-rejected",
        "not accepted: assign slots 0-5: NOPERM this user has no permissions",
    )
    assert "kubectl exec redis-app-0 -- redis-cli ACL SETUSER" in denied.remedy
    named = of_rejection("meet", "redis-app-0", "NOPERM User job has no permissions to run the 'cluster|meet' command")
    assert "ACL SETUSER job '+cluster|meet'; with the component auth" in named.remedy
    assert "auth.sh and the key users.acl" in named.remedy
    assert "kubectl logs redis-app-0" in of_rejection("assign slots 0-5", "redis-app-0", "ERR busy").remedy


def test_every_unreachable_peer_has_a_reason_with_its_name_in_the_remedy() -> None:
    """Every kind of failure has a remedy."""
    peers = [
        UnreachablePeer(pod="redis-app-7", ordinal=7, why=why, address=Address("10.0.0.7", 6379))
        for why in UnreachableReason
    ]
    reasons = of_unreachable(peers)
    assert [reason.code for reason in reasons] == [why.code for why in UnreachableReason]
    assert all(reason.remedy and "{" not in reason.remedy for reason in reasons)
    assert sum("redis-app-7" in reason.remedy for reason in reasons) >= 9


def test_running_again_has_a_command_that_works_each_time() -> None:
    """A Job's name is unique, and after exit code 1 the Job retries by itself."""
    assert AGAIN.startswith("the Job retries by itself")
    assert AGAIN.endswith("kubectl create job --from=cronjob/redis-bootstrap again-$(date +%s)")
    assert Interrupted("SIGTERM").reasons[0].remedy == AGAIN


def test_a_server_without_a_password_is_recognised() -> None:
    """In the words of Redis 5, and of Redis 6 and newer."""
    for reply in (
        "AUTH <password> called without any password configured for the default user. Are you sure",
        "Client sent AUTH, but no password is set",
    ):
        peer = UnreachablePeer(pod="p-1", ordinal=1, why=UnreachableReason.WRONG_PASSWORD, detail=reply)
        assert "unset BOOTSTRAP_PASSWORD_FILE" in peer.remedy
        assert "kubectl exec p-1 -- redis-cli CONFIG GET requirepass" in peer.remedy


def test_many_reasons_are_cut_on_one_line() -> None:
    """The first eight, and the number of the others."""
    reasons = [Reason(code="c", message=f"m{number}", remedy="r") for number in range(10)]
    assert in_words(reasons) == "m0; m1; m2; m3; m4; m5; m6; m7; and 2 more"
    assert in_words(reasons[:8]) == "m0; m1; m2; m3; m4; m5; m6; m7"


def test_a_dead_machine_is_named_with_the_way_to_do_without_it() -> None:
    """The commands are given only where pods that answer serve every slot, and no missing pod is known to own one."""
    cluster = formed(shape())
    for ordinal in (3, 4):
        cluster[ordinal].alive = False
    view = cluster.look()
    peers = tuple(replace(p, machine="node2", claims=(f"data-{p.pod}",)) for p in view.unreachable)
    (reason,) = of_machines(replace(view, unreachable=peers))
    assert (reason.code, reason.node) == ("machine-not-ready", None)
    assert "redis-app-3, redis-app-4 wait for the machine node2" in reason.message
    assert "kubectl delete pvc data-redis-app-3 data-redis-app-4 --wait=false" in reason.remedy
    assert "kubectl delete pod redis-app-3 redis-app-4 --force --grace-period=0" in reason.remedy
    assert of_machines(view) == []
    cluster[0].alive, cluster[3].alive = False, True
    view = cluster.look()
    peers = tuple(replace(p, machine="node2", claims=(f"data-{p.pod}",)) for p in view.unreachable)
    (reason,) = of_machines(replace(view, unreachable=peers))
    assert "kubectl delete" not in reason.remedy
    assert "delete no claim" in reason.remedy


def test_pods_with_the_same_answer_that_only_a_setting_changes_have_one_reason() -> None:
    """A wrong password is one mistake, not six. Pods that fail for reasons of their own stay apart."""
    words = "WRONGPASS invalid username-password pair or user is disabled."
    peers = [
        UnreachablePeer(pod=f"redis-app-{n}", ordinal=n, why=UnreachableReason.WRONG_PASSWORD, detail=words)
        for n in range(12)
    ]
    silent = [
        UnreachablePeer(pod=f"redis-app-{n}", ordinal=n, why=UnreachableReason.CONNECTION_REFUSED) for n in (12, 13)
    ]
    one, *others = of_unreachable([*peers, *silent])
    assert one.message.startswith("redis-app-0, redis-app-1, ")
    assert one.message.endswith(f"redis-app-7 and 4 more: rejects the user name or password ({words})")
    assert one.node is None
    assert [reason.node for reason in others] == ["redis-app-12", "redis-app-13"]
