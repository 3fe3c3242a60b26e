"""Taking over a cluster: what is refused, what is planned, and simulations with lost packets and kills."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from bootstrap.model.memory import Memory
from bootstrap.model.node import Place
from bootstrap.model.old_side import Adoption, LoginTrouble, OldSide, Traits
from bootstrap.model.plan import Plan, Refusal
from bootstrap.model.steps import Leave, ManualFailover, Meet, Replicate, Wipe
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import AwaitElection
from bootstrap.nodes.choose import unreachable_peer
from bootstrap.nodes.failures import Failure
from bootstrap.plan.adoption import adopted, adopting, fingerprint_of_old, given_back
from bootstrap.plan.planner import plan
from tests.fake_cluster import Known
from tests.plan.old_cluster import SHAPE, TwoClusters, run_until_killed, taking_over


def codes(view: ClusterView, **declared: object) -> set[str]:
    """The reasons why a view is refused, where the fingerprint is right."""
    adoption = Adoption(**{"fingerprint": fingerprint_of_old(view), **declared})  # type: ignore[arg-type]
    decision = adopting(view, replace(SHAPE, adoption=adoption))
    return {reason.code for reason in decision.reasons} if isinstance(decision, Refusal) else set()


def with_side(view: ClusterView, **changes: object) -> ClusterView:
    assert view.old is not None
    return replace(view, old=replace(view.old, **changes))  # type: ignore[arg-type]


def with_nodes(view: ClusterView, *, old: bool, **changes: object) -> ClusterView:
    """The view with facts of every node of one side changed."""
    side = view.old_nodes if old else view.pods
    nodes = (replace(node, **changes) if node in side else node for node in view.nodes)  # type: ignore[arg-type]
    return replace(view, nodes=tuple(nodes))


def test_blank_pods_and_a_whole_cluster_may_be_joined() -> None:
    """Nothing stands against it, and the plan begins with introductions."""
    both = TwoClusters(6)
    decision = adopting(both.look(), taking_over(both))
    assert isinstance(decision, Plan)
    assert [phase.name for phase in decision.phases] == ["introduce", "attach", "copy", *["hand over"] * 3]
    assert decision.then_refused == ()


@pytest.mark.parametrize("fingerprint", ["", "0123456789ab"])
def test_the_plan_is_complete_without_the_persons_word_and_says_how_to_give_it(fingerprint: str) -> None:
    """`plan` shows what would be done; `apply` refuses for that one reason."""
    view = TwoClusters(6).look()
    decision = adopting(view, replace(SHAPE, adoption=Adoption(fingerprint=fingerprint)))
    assert isinstance(decision, Plan)
    assert decision.phases
    (reason,) = decision.then_refused
    assert reason.code == "adoption-not-confirmed"
    assert fingerprint_of_old(view) in reason.remedy
    assert "21 keys" in reason.message


def test_everything_that_stands_against_it_is_said_at_the_same_time() -> None:
    """The person's word included."""
    view = TwoClusters(2, shards=3).look()
    view = with_nodes(view, old=True, config={"tls-cluster": "yes"}, version="redis 8.2.3")
    view = with_nodes(view, old=False, version="redis 7.0.15")
    found = adopting(view, replace(SHAPE, adoption=Adoption()))
    assert isinstance(found, Refusal)
    assert {reason.code for reason in found.reasons} == {
        *("number-of-pods", "version-path", "tls-differs", "adoption-not-confirmed"),
    }


def traits(view: ClusterView, *, old: Traits | None = None, pods: Traits | None = None) -> ClusterView:
    known = {node.node_id: old or Traits() for node in view.old_nodes}
    return with_side(view, traits=known | {node.node_id: pods or Traits() for node in view.pods})


def peer() -> UnreachablePeer:
    return unreachable_peer("10.0.0.9:6379", 1_000_009, Failure(UnreachableReason.TIMEOUT))


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("old-node-silent", lambda v: with_side(v, silent=(peer(),))),
        ("old-not-whole", lambda v: replace(v, nodes=v.nodes[:-6] + v.nodes[-5:])),
        ("old-not-whole", lambda v: with_nodes(v, old=True, serving=False)),
        ("two-clusters", lambda v: with_nodes(v, old=False, keys=1)),
        ("modules-missing", lambda v: traits(v, old=Traits(modules=frozenset({"ReJSON"})))),
        ("passwords-differ", lambda v: with_side(v, logins=(LoginTrouble(replica="a", master="b", why="no"),))),
        ("ports-closed", lambda v: with_side(v, ports=("bus port 16379 of 10.0.0.9:6379: no answer",))),
        ("several-databases", lambda v: traits(with_nodes(v, old=True, databases=(0, 3)))),
        ("host-names", lambda v: traits(v, old=Traits(prefers_names=True, hostname="a.example"))),
        ("host-names", lambda v: traits(v, pods=Traits(prefers_names=True, hostname="a.example"))),
        (
            "no-room",
            lambda v: with_nodes(
                with_nodes(v, old=True, memory=Memory(dataset_bytes=2 << 20)),
                old=False,
                memory=Memory(max_bytes=1 << 20),
            ),
        ),
        (
            "version-path",
            lambda v: traits(
                with_nodes(with_nodes(v, old=True, version="redis 7.4.2"), old=False, version="valkey 9.1.2"),
                pods=Traits(strict_rdb=True),
            ),
        ),
    ],
)
def test_what_stands_against_joining(code: str, change: object) -> None:
    """Each is found before anything is written; without it, nothing is."""
    view = traits(TwoClusters(6).look())
    assert codes(view) == set()
    assert codes(change(view)) == {code}  # type: ignore[operator]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: traits(v, old=Traits(modules=frozenset({"vectorset"}))),
        lambda v: traits(v, old=Traits(modules=frozenset({"a"})), pods=Traits(modules=frozenset({"a", "b"}))),
        lambda v: traits(with_nodes(v, old=True, databases=(0, 3)), pods=Traits(databases=16)),
        lambda v: traits(v, old=Traits(prefers_names=True, hostname="a"), pods=Traits(hostname="b")),
        lambda v: traits(with_nodes(with_nodes(v, old=True, version="redis 7.4.2"), old=False, version="valkey 9.1.2")),
    ],
)
def test_what_does_not_stand_against_it(change: object) -> None:
    """A built-in module, a module that both have, databases that both have, names on both sides, a relaxed check."""
    assert codes(change(TwoClusters(6).look())) == set()  # type: ignore[operator]


def test_addresses_that_lead_to_the_pods_themselves_are_named() -> None:
    """The Service of the pods is not another cluster."""
    both = TwoClusters(6)
    view = replace(both.look().of_pods(), old=OldSide(seeds="redis-service:6379", own=6))
    assert codes(view) == {"adopts-itself"}
    alone = OldSide(seeds="redis:6379", no_cluster="10.0.0.9:6379 cluster mode is off", error="cluster mode is off")
    assert codes(replace(view, old=alone)) == {"not-a-cluster"}
    assert codes(replace(view, old=OldSide(seeds="redis:6379", left=1))) == {"old-cluster-gone"}
    assert codes(replace(view, old=OldSide(seeds="redis:6379", error="no answer"))) == {"old-cluster-silent"}


def test_the_ordinary_planner_never_sees_an_old_node() -> None:
    """It would drain it like a pod beyond the shape."""
    with pytest.raises(ValueError, match="another cluster"):
        plan(TwoClusters(6).look(), SHAPE)


def test_each_shard_gets_a_pod_and_the_next_masters_run_on_different_machines() -> None:
    """The pods of one shard run on different machines as well."""
    both = TwoClusters(6)
    both.places = {f"redis-app-{n}": Place(node=f"machine-{n % 3}", zone=f"zone-{n % 3}") for n in range(6)}
    view = after(both, "attach")
    decision = adopting(view, taking_over(both))
    assert isinstance(decision, Plan)
    followers: dict[str, list[str]] = {}
    for step in next(phase for phase in decision.phases if phase.name == "attach").steps:
        assert isinstance(step, Replicate)
        followers.setdefault(step.master, []).append(both.places[view.name(step.replica)].node)
    assert sorted(map(len, followers.values())) == [2, 2, 2]
    assert all(len(set(machines)) == 2 for machines in followers.values())
    masters = [
        both.places[view.name(step.candidate)].node
        for phase in decision.phases
        for step in phase.steps
        if isinstance(step, ManualFailover)
    ]
    assert len(set(masters)) == 3


def after(both: TwoClusters, phase: str) -> ClusterView:
    """The view in which that phase is the next one."""
    desired = taking_over(both)
    for _ in range(20):
        view = both.look()
        decision = adopting(view, desired)
        assert isinstance(decision, Plan)
        if decision.phases[0].name == phase:
            return view
        both.send([step for step in decision.phases[0].steps if isinstance(step, Meet | Replicate)], view)
        both.sleep(1.0)
    raise AssertionError(f"{phase} never comes")


def test_a_replica_that_is_behind_does_not_take_over() -> None:
    """The plan waits for it, or another one takes over."""
    both = TwoClusters(3)
    assert not isinstance(run_until_killed(both, taking_over(both)), str)
    view = both.look()
    owner = view.pods[0]
    behind = [n for n in view.old_nodes if n.myself.master_id == owner.node_id]
    far = replace(owner, replication=replace(owner.replication, offset=1 << 30))
    view = replace(view, nodes=tuple(far if node is owner else node for node in view.nodes))
    assert behind
    assert codes(view, back=True) == {"replica-behind"}


def test_no_pod_that_is_behind_takes_over() -> None:
    """Where another pod of the shard is in step, that one does; else the run waits."""
    both = TwoClusters(6)
    view = after(both, "hand over")
    first = next(node for node in view.old_nodes if node.slots)
    busy = with_offset(view, first.node_id, 1 << 30)
    decision = adopting(busy, taking_over(both))
    assert isinstance(decision, Plan)
    assert decision.phases[0].name == "copy"
    behind, *others = [node.node_id for node in view.pods if node.myself.master_id == first.node_id]
    (other,) = others
    decision = adopting(with_offset(busy, other, 1 << 30), taking_over(both))
    assert isinstance(decision, Plan)
    assert decision.phases[0].steps == (ManualFailover(candidate=other, master=first.node_id),)
    assert behind != other


def with_offset(view: ClusterView, node_id: str, offset: int) -> ClusterView:
    nodes = (
        replace(node, replication=replace(node.replication, offset=offset)) if node.node_id == node_id else node
        for node in view.nodes
    )
    return replace(view, nodes=tuple(nodes))


def test_lost_members_of_the_pods_own_are_no_sign_that_the_two_have_joined() -> None:
    """They have formed a cluster before, and one has lost its disk since. The word of a person is needed."""
    both = TwoClusters(6)
    for node, slots in zip(both.ours, both.theirs[:3], strict=False):
        node.slots = slots.slots
        node.known["f" * 40] = Known(node.address)
    decision = adopting(both.look(), replace(SHAPE, adoption=Adoption()))
    assert isinstance(decision, Plan)
    assert [reason.code for reason in decision.then_refused] == ["adoption-not-confirmed"]
    assert decision.phases[0].name == "dissolve"


def test_a_third_cluster_is_never_joined() -> None:
    """The fingerprint was about the first one: the pods have joined that, and the addresses lead to another by now."""
    both = TwoClusters(6)
    assert not isinstance(run_until_killed(both, taking_over(both)), str)
    other = TwoClusters(0, seed=9)
    view, there = both.look(), other.look()
    strangers = tuple(replace(node, ordinal=node.ordinal + 50) for node in there.nodes)
    mixed = replace(view, nodes=(*view.nodes, *strangers))
    for declared in (Adoption(), Adoption(back=True), Adoption(finish=True), Adoption(fingerprint=there.fingerprint())):
        decision = adopting(mixed, replace(SHAPE, adoption=declared))
        assert isinstance(decision, Refusal)
        assert {reason.code for reason in decision.reasons} == {"another-cluster"}
    pods_gone = replace(mixed, nodes=(*view.pods, *strangers))
    assert codes(pods_gone) >= {"two-clusters"}, "the pods hold the first one's keys"


def without_owner(view: ClusterView) -> tuple[ClusterView, str]:
    """An old owner does not answer any more."""
    owner = next(node for node in view.old_nodes if node.slots)
    return replace(view, nodes=tuple(node for node in view.nodes if node is not owner)), owner.node_id


def test_a_lost_old_master_is_replaced_by_election() -> None:
    """Its replicas answer, a pod among them: the run waits for them, and asks for no one to forget the master."""
    both = TwoClusters(6)
    view, owner = without_owner(after(both, "hand over"))
    decision = adopting(view, taking_over(both))
    assert isinstance(decision, Plan)
    (step,) = decision.phases[0].steps
    assert isinstance(step, AwaitElection)
    assert step.lost == owner
    alone = replace(view, nodes=tuple(node for node in view.nodes if node.myself.master_id != owner))
    assert codes(alone) == {"old-not-whole"}


def test_finishing_waits_for_a_lost_owner_as_well() -> None:
    """No planner is asked about a cluster from which an owner of slots has been erased."""
    both = TwoClusters(6)
    view, _ = without_owner(after(both, "hand over"))
    assert codes(view, finish=True) == {"not-adopted-yet"}


def test_finishing_leaves_a_copy_of_each_shard_on_the_old_disks() -> None:
    """Without a link, an old node may have lost its keys."""
    both = TwoClusters(6)
    view = run_until_killed(both, taking_over(both))
    assert isinstance(view, ClusterView)
    owner = next(node for node in view.pods if node.slots)
    down = [node for node in view.old_nodes if node.myself.master_id == owner.node_id]
    cut = tuple(
        replace(node, replication=replace(node.replication, link_up=False)) if node in down else node
        for node in view.nodes
    )
    assert codes(replace(view, nodes=cut), finish=True) == {"old-copy-missing"}
    assert codes(view, finish=True) == set()


def test_a_setting_that_stays_after_the_end_hinders_no_repair() -> None:
    """The old addresses are silent, and a pod has lost its disk: that is the ordinary planner's business."""
    both = TwoClusters(6)
    assert not isinstance(run_until_killed(both, taking_over(both)), str)
    assert not isinstance(run_until_killed(both, taking_over(both, finish=True)), str)
    both.ours[5].known.pop(both.ours[0].node_id)
    view = both.look().of_pods()
    lost = replace(view, old=OldSide(seeds="old:6379", error="no answer", silent=(peer(),)))
    decision = adopting(lost, taking_over(both))
    assert decision == plan(view, replace(SHAPE, adoption=None))
    assert isinstance(decision, Plan)
    assert decision.phases


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("pods", "shards", "replicas"), [(6, 3, 1), (3, 3, 1), (7, 3, 0), (10, 5, 1)])
def test_there_and_back_and_away(pods: int, shards: int, replicas: int, seed: int) -> None:
    """With lost packets: every key stays with the owner of its slot, and no server is wiped."""
    both = TwoClusters(pods, shards=shards, replicas=replicas, seed=seed, loss=0.2)
    desired = taking_over(both)
    both.on_write = partial(unharmed, both)
    for back in (False, True, False):
        state = replace(desired, adoption=replace(desired.adoption or Adoption(), back=back))
        view = run_until_killed(both, state)
        assert not isinstance(view, str), view
        assert (given_back if back else adopted)(view)
    shape = replace(desired, shards=shards, replicas_per_shard=pods // shards - 1)
    view = run_until_killed(both, replace(shape, adoption=Adoption(finish=True)))
    assert not isinstance(view, str), view
    assert view.old_nodes == ()
    assert both.keys_of_owners() == both.total
    assert {node.node_id for node in both.ours} >= both.owners()
    assert sum(both.disks.values()) == both.total * (1 + replicas)
    assert not any(isinstance(write, Wipe) for write in both.written)


def unharmed(both: TwoClusters) -> None:
    """No client misses a key: a failover is the only change of owners, and its candidate had a copy."""
    assert both.keys_of_owners() == both.total
    claimed = Counter(slot for node in both.nodes for first, last in node.slots.ranges for slot in (first, last))
    assert not claimed or max(claimed.values()) == 1


STATES = {"adopted": Adoption(), "back": Adoption(back=True), "finished": Adoption(finish=True)}
REACHED: dict[str, Callable[[ClusterView], bool]] = {
    "adopted": adopted,
    "back": given_back,
    "finished": lambda view: not view.old_nodes,
}


@pytest.mark.parametrize("state", STATES)
def test_killed_at_any_write_the_next_run_goes_on(state: str) -> None:
    """Before and after each write. No key is lost on the way, and the declared state is reached by the same command."""
    kills, number = 0, 0
    while True:
        before = bool(number % 2)
        both = TwoClusters(6, seed=number, loss=0.1)
        desired = taking_over(both)
        if state != "adopted":
            assert not isinstance(run_until_killed(both, desired), str)
        fingerprint = desired.adoption.fingerprint if desired.adoption else ""
        desired = replace(desired, adoption=replace(STATES[state], fingerprint=fingerprint))
        both.on_write = partial(unharmed, both)
        both.kill_at, both.kill_before = len(both.written) + number // 2, before
        found = run_until_killed(both, desired)
        both.kill_at = None
        if found != "killed":
            break
        kills += 1
        view = run_until_killed(both, desired)
        assert not isinstance(view, str), (number, view)
        assert both.keys_of_owners() == both.total
        assert REACHED[state](view), number
        assert not any(isinstance(write, Wipe | Leave) for write in both.written)
        if state == "finished":
            assert len(both.disks) == 6
        number += 1 if number < 40 else 7
    assert kills > {"adopted": 40, "back": 4, "finished": 30}[state]


def test_pods_that_have_formed_a_cluster_without_keys_are_dissolved_first() -> None:
    """They were applied before somebody declared the adoption. A server that holds a key rejects it."""
    both = TwoClusters(6)
    for node, slots in zip(both.ours, both.theirs[:3], strict=False):
        node.slots = slots.slots
    view = run_until_killed(both, taking_over(both))
    assert not isinstance(view, str), view
    assert adopted(view)


def test_back_where_nothing_was_joined_changes_nothing() -> None:
    """The old nodes serve already."""
    both = TwoClusters(6)
    view = run_until_killed(both, taking_over(both, back=True))
    assert not isinstance(view, str)
    assert both.written == []


def test_finishing_before_the_takeover_is_refused() -> None:
    """It would forget owners of slots."""
    both = TwoClusters(6)
    assert run_until_killed(both, taking_over(both, finish=True)) == "not-adopted-yet"
    assert both.written == []
