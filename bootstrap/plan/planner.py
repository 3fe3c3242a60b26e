"""`plan(view, desired)`: the phases that lead from the present state to the declared shape, or a refusal.

The order of the phases, with its reasons:

1. *prepare* sets config epochs, which a server accepts only while it knows no other node. *provision* copies functions
   and ACL users to a node that joins a cluster, before any client is sent to it. *quicken* sets a short timeout and
   no failover on nodes that have moved, so that they link without waiting and without a failover (`quickening`).
2. *meet* makes the full mesh before any node owns a slot. A run that is killed here has assigned nothing, and in the
   full mesh every later change reaches all nodes in one hop. *set owners* corrects the owner of slots on nodes that
   import them, because these nodes ignore gossip about it. *claim again* lets an owner claim slots that all others
   name as its own.
3. *agree* writes nothing: changes in flight between the nodes arrive.
4. *elect* lets a replica take over from a lost master, by the servers' own election where that can still happen.
5. *forget unrecoverable* removes lost masters whose slots a person has given up: the servers accept a new owner of a
   slot only after its old owner is forgotten.
6. *assign* gives slots to masters and masters to replicas, in one phase because neither depends on the other.
7. *forget* removes the other lost members, at every node at the same time. It comes after *elect* and *assign*: when a
   master is forgotten its replica can no longer be elected, and a replica cannot forget its master.
8. *bump epoch* corrects config epochs with which the masters would elect no replica. It comes after *agree*, because a
   master that has been replaced would take its slots back with it, and before any manual failover, which needs the
   votes. *serve* writes nothing: the servers' own rejoin delay passes.
9. *close elsewhere*, *close on owners*, *open slots*, *move keys*, *take slots*, *close slots* undo or finish
   interrupted moves. A node that does not serve accepts no keys, so they come after *serve*.
10. *cancel migrations*, *await migrations*, *move slots*, *manual failover*, *free replicas*, *leave* resize the
    cluster. Slots move only in a cluster that serves, and a pod leaves only a cluster that is whole without it.
11. *spread masters* fails over masters of which too many run on one machine, or in one zone, and *replace replicas*
    swaps replicas that run too close to their masters, when nothing else is to be done.
12. *settings* restores what differs from the declared configuration. It comes first in a cluster that is not forming,
    because data needs the failure detection that was declared. After *quicken* it comes as soon as all nodes serve.

While no node holds a key and none serves, *prepare* also lowers cluster-node-timeout, because the rejoin delay depends
on it; *settings* then comes last and restores the declared value (docs/architecture.md, the rejoin delay). A run
that is killed between the two leaves a wrong timeout, which the next run finds and corrects.

While pods do not answer, the steps that one of them could contradict are held back (`contradictors`), and the others
are done without waiting.

The plan depends on nothing but its arguments: the same view gives the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bootstrap.errors import Reason
from bootstrap.model import copies
from bootstrap.model.desired import Desired
from bootstrap.model.plan import Phase, Plan, Refusal
from bootstrap.model.steps import Replicate, SetConfig, SetTimeout, Step
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import AwaitAgreement, AwaitEpochs, AwaitMigrations, AwaitReplication, AwaitServing, Wait
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.assign import assign
from bootstrap.plan.clusters import one_announced_address
from bootstrap.plan.contradictors import without_missing
from bootstrap.plan.failover import bump_epochs, elect, forget, forget_unrecoverable
from bootstrap.plan.findings import findings
from bootstrap.plan.finish_moves import finish_moves, open_again, set_owners
from bootstrap.plan.membership import announce, meet, prepare, provision, quicken
from bootstrap.plan.placement import swap
from bootstrap.plan.quickening import left_quickened
from bootstrap.plan.refusals import reasons_not_to_move, reasons_to_refuse
from bootstrap.plan.resize import MOVE_SLOTS, foreseen, resize
from bootstrap.plan.settled import settled
from bootstrap.plan.stray_keys import keys_left_over, keys_on_several_nodes
from bootstrap.plan.unclaimed import claim_again

_SERVE = Phase(name="serve", why="a short timeout shortens the servers' own rejoin delay", steps=(AwaitServing(),))
"""Comes before the settings are restored, where `quicken` has changed them."""


def plan(view: ClusterView, desired: Desired) -> Plan | Refusal:
    """The way from `view` to `desired`. Where pods do not answer, the plan has only what none of them could contradict;
    nothing is refused but servers with one node id or one announced address, because their answers may refute each
    other reason.
    """
    if view.old_nodes:
        raise ValueError("nodes of another cluster are the business of `adopting`")
    found = Assessment(view, desired)
    if reasons := (*copies.reasons(view), *one_announced_address(found.view)):
        return Refusal(reasons=reasons)
    if found.view.unreachable:
        return _plan_without_missing(found)
    unclear = tuple(keys_on_several_nodes(found))
    if reasons := tuple(reasons_to_refuse(found)):
        return Refusal(reasons=(*reasons, *unclear))
    preparing, quickening = tuple(prepare(found)), tuple(quicken(found))
    linking = not_empty(_link(found, preparing, quickening))
    phases = not_empty(_repair(found))
    later: tuple[Reason, ...] = ()
    if (linking or phases) and not found.view.forming:
        ahead = not_empty(foreseen(found))
        later = tuple(reasons_not_to_move(found)) if any(phase.name == MOVE_SLOTS for phase in ahead) else ()
        phases += [] if later else ahead
    elif not (linking or phases or unclear):
        if settled(AwaitMigrations(), found.view) and (reasons := tuple(reasons_not_to_move(found))):
            return Refusal(reasons=reasons)
        phases = not_empty(resize(found)) or not_empty(_spread_masters(found)) or not_empty([_replace_replicas(found)])
    settings = not_empty([_settings(found, (*preparing, *quickening))])
    later += (*unclear, *keys_left_over(found))
    if later and not (linking or phases or settings):
        return Refusal(reasons=later)  # no repair touches these keys, so none waits for a person
    if found.quickening:
        ordered = [*linking, _SERVE, *settings, *phases]
    elif found.view.forming:
        ordered = [*linking, *phases, *settings]
    else:
        ordered = [*settings, *linking, *phases]
    return Plan(findings=tuple(findings(found)), phases=tuple(ordered), then_refused=later)


def _plan_without_missing(found: Assessment) -> Plan:
    """Repairs alone: a resize waits for every pod."""
    preparing = tuple(prepare(found))
    wanted = [_settings(found, preparing), *_link(found, preparing, ()), *_repair(found)]
    phases, held_back = without_missing(wanted, found)
    return Plan(findings=tuple(findings(found)), phases=phases, held_back=held_back)


def not_empty(phases: Iterable[Phase]) -> list[Phase]:
    """The phases that have steps."""
    return [phase for phase in phases if phase.steps]


def _link(found: Assessment, preparing: tuple[Step, ...], quickening: tuple[Step, ...]) -> Iterator[Phase]:
    """The phases that link all nodes, in their order; those without steps included."""
    yield Phase(
        name="prepare", why="a server accepts a config epoch only while it knows no other node", steps=preparing
    )
    yield Phase(
        name="provision",
        why="a new node needs the functions and users that the others have",
        steps=tuple(provision(found)),
    )
    yield Phase(
        name="quicken",
        why="nodes that suspect each other wait out their timeouts, and replace masters that are not lost",
        steps=quickening,
    )
    yield Phase(name="meet", why="the full mesh comes before any node owns a slot", steps=tuple(meet(found)))


def _repair(found: Assessment) -> Iterator[Phase]:
    """The phases that lead from linked nodes to a cluster in order, in their order; those without steps included."""
    assigning = tuple(assign(found))
    if found.view.forming and found.desired.timeout_ms is None:
        assigning = (*assigning, *announce(found, assigning))
    yield Phase(
        name="set owners",
        why="a node that imports a slot ignores gossip about its owner",
        steps=tuple(set_owners(found)),
    )
    yield Phase(
        name="claim again",
        why="gossip never clears an owner, so no other node can be given these slots",
        steps=tuple(claim_again(found.view, found.unclaimed_slots)),
    )
    yield from open_again(found)
    yield Phase(name="agree", why="changes in flight arrive before new ones are made", steps=tuple(_agree(found)))
    yield Phase(
        name="elect", why="the replica of a forgotten master can no longer be elected", steps=tuple(elect(found))
    )
    yield Phase(
        name="forget unrecoverable",
        why="slots are free once their owner is forgotten",
        steps=tuple(forget_unrecoverable(found)),
    )
    yield Phase(name="assign", why="in the full mesh all nodes learn of it immediately", steps=assigning)
    yield Phase(
        name="forget", why="no election and no replica needs the lost members any more", steps=tuple(forget(found))
    )
    yield from bump_epochs(found)
    yield Phase(
        name="serve",
        why="the servers' own rejoin delay has to pass",
        steps=tuple(_serve(found, after_a_change=bool(assigning))),
    )
    yield from finish_moves(found)


def _agree(found: Assessment) -> Iterator[Step]:
    """Looks at many nodes are not one moment: a failover that is seen half-way looks like a shard without a master. No
    change is based on a report that differs from the node's own, because the correction is still in flight.
    """
    if not settled(AwaitAgreement(), found.view):
        yield AwaitAgreement()


def _serve(found: Assessment, *, after_a_change: bool) -> Iterator[Step]:
    """The conditions that the servers reach by themselves once slots and roles are right."""
    waits: tuple[Wait, ...] = (AwaitAgreement(), AwaitReplication(), AwaitEpochs(), AwaitServing())
    return (wait for wait in waits if after_a_change or not settled(wait, found.view))


def _spread_masters(found: Assessment) -> Iterator[Phase]:
    """One phase for each failover: the first one is done, then the rest is planned again from what it has led to."""
    why = "no single machine or zone may be able to stop the cluster, and a failover moves no key"
    for failover in found.spreading:
        yield Phase(name="spread masters", why=why, steps=(failover, AwaitAgreement(), AwaitReplication()))


def _replace_replicas(found: Assessment) -> Phase:
    wanted = found.desired.replace_replicas
    pair = swap(found.view, with_a_gap=wanted == "with-a-gap") if wanted != "off" else None
    steps = (Replicate(replica=pair[0], master=pair[1]), AwaitReplication()) if pair else ()
    return Phase(name="replace replicas", why="one shard at a time; the second half of the swap follows", steps=steps)


def _settings(found: Assessment, changing: tuple[Step, ...]) -> Phase:
    """Settings that differ from the declared ones, and those that the steps `changing` are about to change."""
    why = "settings that differ from the declared ones are restored"
    return Phase(name="settings", why=why, steps=tuple(_differing_settings(found, changing)))


def _differing_settings(found: Assessment, changing: tuple[Step, ...]) -> Iterator[Step]:
    desired = found.desired
    no_failover = {step.node for step in changing if isinstance(step, SetConfig)}
    for node in found.view.nodes:
        if node.node_id in no_failover or left_quickened(node, desired):
            yield SetConfig(node=node.node_id, name=node.no_failover_name, value="no")
        for name, value in desired.config.items():
            if node.config.get(name, value) != value:
                yield SetConfig(node=node.node_id, name=name, value=value)
    if desired.timeout_ms is None:
        return
    lowered = {step.node for step in changing if isinstance(step, SetTimeout)}
    for node in found.view.nodes:
        if node.timeout_ms is not None and (node.timeout_ms != desired.timeout_ms or node.node_id in lowered):
            yield SetTimeout(node=node.node_id, timeout_ms=desired.timeout_ms)
