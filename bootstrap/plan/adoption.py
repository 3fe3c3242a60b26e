"""`adopting(view, desired)`: the phases in which pods take over a living cluster, give it back, or go on without it.

A pod joins the old cluster as a replica, copies, and takes its master's place by a manual failover, which loses no
write. The former master then follows the pod, so that there is a way back until a person ends it. What was declared is
a state, and each state is reached from any other:

- an adoption: pods own every slot, and the old nodes follow them;
- `back`: old nodes own every slot, and the pods follow them;
- `finish`: the old nodes are forgotten, and reset without a deletion; after that the ordinary planner goes on.

A person's word is needed once, for the first introduction: two clusters that know each other are one. Only a blank pod
is ever introduced. Nothing here deletes a key: the servers refuse the reset of a master that holds some, and an old
node writes a snapshot before its reset (`Retire`).

Only the first phase of a plan is executed. Where a run was killed does not matter: each phase follows from the view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, Role
from bootstrap.model.old_side import OLD_ORDINAL, Adoption
from bootstrap.model.plan import Phase, Plan, Refusal
from bootstrap.model.steps import EndPause, Forget, Leave, ManualFailover, Meet, Provision, Replicate, Retire, Step
from bootstrap.model.versions import upgrade_path
from bootstrap.model.view import ClusterView, fingerprint_of
from bootstrap.model.waits import AwaitAgreement, AwaitCopies, AwaitElection, AwaitMesh
from bootstrap.plan import spread
from bootstrap.plan.adoption_findings import what_is_there
from bootstrap.plan.adoption_placement import SlotsOf
from bootstrap.plan.adoption_placement import followers as followers_of
from bootstrap.plan.adoption_refusals import against_joining
from bootstrap.plan.adoption_states import (
    against_finishing,
    against_going_back,
    against_taking_over,
    another_cluster,
    nothing_to_adopt,
    orphaned,
    unconfirmed,
)
from bootstrap.plan.clusters import groups
from bootstrap.plan.placement import failure_domains
from bootstrap.plan.planner import not_empty, plan
from bootstrap.plan.settled import settled

COPY = "copy"
"""The name of the phase in which pods copy: it may take hours."""
MOMENT_S = 10
"""Seconds for which a link that cannot come up by a full copy is waited for."""


def adopting(view: ClusterView, desired: Desired) -> Plan | Refusal:
    """The way to the declared state. An empty plan: it is reached. Where no old node is left, that of the pods alone.

    Where only the person's word is missing, the plan is complete, and `then_refused` has that one reason.
    """
    declared, pods = desired.adoption or Adoption(), view.pods
    if not view.old_nodes:
        if SlotsOf(pods).all:
            return plan(view.of_pods(), replace(desired, adoption=None))
        return Refusal(reasons=(nothing_to_adopt(view),))
    if strange := tuple(another_cluster(groups(view))) if joined(view) else ():
        return Refusal(reasons=strange)
    found = tuple(what_is_there(view))
    if declared.finish:
        if reasons := tuple(against_finishing(view, desired)):
            return Refusal(reasons=reasons)
        return Plan(findings=found, phases=tuple(not_empty(_finish(view))))
    if declared.back:
        if not joined(view):
            return Plan(findings=found)
        if reasons := tuple(against_going_back(view)):
            return Refusal(reasons=reasons)
        return Plan(findings=found, phases=tuple(not_empty(_linked(view, _give_back(view)))))
    reasons = tuple(against_taking_over(view)) if joined(view) else tuple(against_joining(view, desired))
    asked = () if joined(view) or declared.fingerprint == fingerprint_of_old(view) else (unconfirmed(view, desired),)
    if reasons:
        return Refusal(reasons=(*reasons, *asked))
    return Plan(findings=found, phases=tuple(not_empty(_take_over(view))), then_refused=asked)


def joined(view: ClusterView) -> bool:
    """Whether pods are members of the old cluster: one that answers knows a pod, or a pod knows it. What else pods know
    may be their own lost members.
    """
    pods, old = {node.node_id for node in view.pods}, {node.node_id for node in view.old_nodes}
    return any(node.others.keys() & old for node in view.pods) or any(n.others.keys() & pods for n in view.old_nodes)


def adopted(view: ClusterView) -> bool:
    """Whether pods own every slot while old nodes are still members."""
    return SlotsOf(view.pods).all and bool(view.old_nodes)


def given_back(view: ClusterView) -> bool:
    """Whether old nodes own every slot."""
    return SlotsOf(view.old_nodes).all


def fingerprint_of_old(view: ClusterView) -> str:
    """The fingerprint of the old cluster: of the owners of its slots."""
    return fingerprint_of({node.node_id: node.slots for node in view.old_nodes if node.slots})


def _linked(view: ClusterView, then: Iterator[Phase]) -> Iterator[Phase]:
    """Introductions of members that have lost each other, then the rest."""
    yield Phase(
        name="introduce",
        why="in the full mesh all nodes learn of each change immediately",
        steps=tuple(_introductions(view)),
    )
    yield Phase(
        name="elect",
        why="a member that owned slots does not answer, and its replicas do",
        steps=tuple(AwaitElection(lost=lost, slots=slots) for lost, slots in orphaned(view).items()),
    )
    yield Phase(name="end pause", why="clients of a former master wait for nothing", steps=tuple(_end_pause(view)))
    if not settled(AwaitAgreement(), view):
        why = "changes in flight arrive before new ones are made"
        yield Phase(name="agree", why=why, steps=(AwaitAgreement(),))
    yield from then


def _take_over(view: ClusterView) -> Iterator[Phase]:
    """The phases from blank pods to pods that serve."""
    yield Phase(
        name="dissolve",
        why="the pods have formed a cluster without keys, and only blank ones can join another one",
        steps=tuple(Leave(node=node.node_id) for node in view.pods if not node.blank and not joined(view)),
    )
    yield Phase(name="provision", why="servers do not replicate ACL users", steps=tuple(_provision(view)))
    yield from _linked(view, _copies_and_failovers(view))


def _copies_and_failovers(view: ClusterView) -> Iterator[Phase]:
    followers = followers_of(view)
    yield Phase(
        name="attach",
        why="a replica on a pod can take its master's place without losing a write",
        steps=tuple(Replicate(replica=pod, master=master) for master, pods in followers.items() for pod in pods[1]),
    )
    pods = tuple(node.node_id for node in view.pods)
    if not settled(AwaitCopies(nodes=pods), view) or any(new for _, new in followers.values()):
        yield Phase(name=COPY, why="no replica that is behind takes over", steps=(AwaitCopies(nodes=pods),))
    yield _follow(view.old_nodes, view)
    late = {node.node_id for node, _ in spread.lagging(view)}
    taken: Counter[str] = Counter(failure_domains(view)[node.node_id].node for node in view.pods if node.slots)
    for owner in SlotsOf(view.old_nodes).owners:
        candidates = [view.by_id[pod] for pod in (*followers[owner.node_id][0], *followers[owner.node_id][1])]
        in_step = [node for node in candidates if node.node_id not in late]
        if in_step:
            yield from _hand_over(owner, _best(in_step, view, taken), "the former master follows the pod")
        elif candidates:
            wait = AwaitCopies(nodes=tuple(node.node_id for node in candidates))
            yield Phase(name=COPY, why="no replica that is behind takes over", steps=(wait,))


def _follow(nodes: Sequence[Node], view: ClusterView) -> Phase:
    """These nodes have to follow those of the other side that serve. One that cannot read a full copy of its master may
    still go on from where it was; that is waited for a moment only.
    """
    waited = []
    for node in nodes:
        master = view.by_id.get(node.myself.master_id or "")
        other_side = master is not None and (master.ordinal >= OLD_ORDINAL) is not (node.ordinal >= OLD_ORDINAL)
        if master is None or not other_side or settled(AwaitCopies(nodes=(node.node_id,)), view):
            continue
        for_a_moment = node.replication.down_s <= MOMENT_S and node.node_id not in view.link_troubles
        if upgrade_path(master.version, node.version, disks=False).verdict.open or for_a_moment:
            waited.append(node.node_id)
    steps = (AwaitCopies(nodes=tuple(waited)),) if waited else ()
    return Phase(name="follow", why="the way back stays open while the next shard is handed over", steps=steps)


def _end_pause(view: ClusterView) -> Iterator[Step]:
    """On former masters whose clients would wait although a pod has taken over. A killed run leaves that to the server,
    which ends it after 10 s.
    """
    for node in view.old_nodes:
        if node.version.startswith("redis 6.2.") and node.node_id in view.former_masters:
            yield EndPause(node=node.node_id)


def _hand_over(owner: Node, candidate: Node, then: str) -> Iterator[Phase]:
    """One failover. What follows it (an end of the pause, agreement, copies) comes before the next one."""
    yield Phase(
        name="hand over",
        why=f"one shard after the other; {then}",
        steps=(ManualFailover(candidate=candidate.node_id, master=owner.node_id),),
    )


def _best(candidates: Sequence[Node], view: ClusterView, taken: Counter[str]) -> Node:
    """One on the machine with the fewest masters, and the lowest ordinal among these."""
    where = failure_domains(view)
    best = min(candidates, key=lambda node: (taken[where[node.node_id].node], node.ordinal))
    taken[where[best.node_id].node] += 1
    return best


def _give_back(view: ClusterView) -> Iterator[Phase]:
    """Old nodes take the places of their masters, one after the other."""
    yield _follow(view.pods, view)
    for owner in SlotsOf(view.pods).owners:
        copies = [n for n in view.old_nodes if n.myself.master_id == owner.node_id and n.replication.link_up]
        if copies:
            best = max(copies, key=lambda node: (node.replication.offset, -node.ordinal))
            yield from _hand_over(owner, best, "the pod follows the old node")


def _finish(view: ClusterView) -> Iterator[Phase]:
    """The old nodes are forgotten by all pods in one round, within the ban of 60 s; then they are reset, those at the
    person's addresses last: a run that is killed in between finds the others through them.
    """
    old = {node.node_id for node in view.old_nodes} | {
        node_id for node_id in view.unlisted() if node_id not in view.by_id
    }
    yield Phase(
        name="forget",
        why="all pods forget the old nodes in the same round, else gossip brings them back",
        steps=tuple(
            Forget(node=pod.node_id, lost=node_id)
            for pod in view.pods
            for node_id in sorted(old)
            if node_id in pod.others
        ),
    )
    first = view.old.first if view.old else frozenset()
    for last in (False, True):
        yield Phase(
            name="retire",
            why="the old nodes leave with a snapshot of their keys on disk"
            + (", those at the given addresses last" if last else ""),
            steps=tuple(Retire(node=n.node_id) for n in view.old_nodes if (n.node_id in first) is last),
        )


def _introductions(view: ClusterView) -> Iterator[Step]:
    """Each pod to each node that it has no link with, pods first: their packets carry the addresses of pods."""
    pods = {node.node_id for node in view.pods}
    pairs = [(one, other) for one, other in view.unlinked() if pods & {one.node_id, other.node_id}]
    for one, other in pairs:
        yield Meet(introducer=one.node_id, newcomer=other.node_id, address=other.address, bus_port=other.bus_port)
    if pairs:
        yield AwaitMesh()


def _provision(view: ClusterView) -> Iterator[Step]:
    """ACL users that every old owner has and a pod lacks. Functions come with the copy."""
    owners = SlotsOf(view.old_nodes).owners
    if not owners or joined(view):
        return
    users = frozenset.intersection(*(node.users for node in owners))
    for pod in view.pods:
        if pod.users and users - pod.users:
            lacking = tuple(sorted(users - pod.users))
            origin = owners[0]
            yield Provision(
                node=pod.node_id, origin=origin.node_id, address=origin.address, libraries=(), users=lacking
            )


def linked_old_copies(view: ClusterView) -> tuple[int, int]:
    """How many old nodes follow a pod and are in step, and how many there are."""
    pods = {node.node_id for node in view.pods}
    following = [node for node in view.old_nodes if node.role is Role.REPLICA and node.myself.master_id in pods]
    return sum(1 for node in following if node.replication.link_up), len(view.old_nodes)
