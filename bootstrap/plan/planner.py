"""From what is to what should be: `plan(view, desired)` names what it found and the phases that mend it, or refuses.

The order of the phases is the heart of it:

1. *prepare*: config epochs, while no node knows another (the server takes them only then); *equip*: functions and ACL
   users for who joins a cluster, while nobody is sent there yet.
2. *meet*: the full mesh before anything is owned. A run that dies here has claimed nothing, and with the mesh up every
   later fact reaches all nodes in one hop.
3. *agree*: nothing is written; what is on its way between the nodes arrives.
4. *elect*: a replica takes the place of a lost master, by the servers' own election where that can still happen.
5. *let go*: lost members whose slots a person has given up.
6. *shape*: slots and roles, both at once, since neither needs the other.
7. *forget*: the other lost members, at every node at once. Not before: a forgotten master can no longer be voted out,
   and a replica cannot forget its master.
8. *serve*: nothing is written; the servers' own rejoin delay passes.
9. *open*, *move*, *take*, *shut*, *close*: slots whose move was left half-way. Who does not serve takes no keys.
10. *cancel*, *await*, *move slots*, *hand over*, *free*, *leave*: another number of shards or of replicas. Slots move
    only in a cluster that serves, and a pod leaves only one that is whole without it.
11. *settings*: what drifted from the declared configuration.

While no node holds a key and none serves, *prepare* also lowers cluster-node-timeout, which is what that rejoin delay
is measured by, and *settings* puts the declared value back (redis-facts: 1.2 s in place of 5.1 s). A run killed between
the two leaves a drift that the next run finds and mends.

The core is blind and deaf: no socket, clock, logger or environment. The same view gives the same plan.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.desired import Desired
from bootstrap.model.plan import Phase, Plan, Refusal
from bootstrap.model.steps import (
    AwaitAgreement,
    AwaitEpochs,
    AwaitMigrations,
    AwaitReplication,
    AwaitServing,
    Replicate,
    SetConfig,
    SetTimeout,
    Step,
    Wait,
)
from bootstrap.model.view import ClusterView
from bootstrap.plan.failover import elect, forget, let_go
from bootstrap.plan.findings import findings
from bootstrap.plan.membership import announce, forming, meet, prepare, provision
from bootstrap.plan.open_slots import finish_moves, name_owners, open_slots
from bootstrap.plan.placement import swap
from bootstrap.plan.refusals import reasons_not_to_move, reasons_to_refuse
from bootstrap.plan.resize import foreseen, resize
from bootstrap.plan.settled import settled
from bootstrap.plan.topology import layout, shape


def plan(view: ClusterView, desired: Desired) -> Plan | Refusal:
    """The way from `view` to `desired`. Every peer must be in the view: waiting for them comes before planning."""
    view = view.within(desired.nodes)
    shards = layout(view, desired)
    if reasons := tuple(reasons_to_refuse(view, desired, shards)):
        return Refusal(reasons=reasons)
    fresh = forming(view)
    shaping = tuple(shape(view, desired, shards))
    if fresh and desired.timeout_ms is None:
        shaping = (*shaping, *announce(view, shaping))
    phases = [
        Phase(name="prepare", why="epochs can be set only on strangers", steps=tuple(prepare(view, desired))),
        Phase(name="equip", why="who joins has to have what the others have", steps=tuple(provision(view))),
        Phase(name="meet", why="the mesh comes before anything is owned", steps=tuple(meet(view))),
        Phase(
            name="name owners", why="who imports a slot learns nothing of it by gossip", steps=tuple(name_owners(view))
        ),
        Phase(name="agree", why="a change in flight is let through before another is made", steps=tuple(_agree(view))),
        Phase(name="elect", why="a forgotten master can no longer be voted out", steps=tuple(elect(view))),
        Phase(
            name="let go",
            why="slots are free once their owner is forgotten",
            steps=tuple(let_go(view, desired)),
        ),
        Phase(name="shape", why="with the mesh up, all nodes learn of it at once", steps=shaping),
        Phase(name="forget", why="nobody follows or awaits the lost any more", steps=tuple(forget(view))),
        Phase(
            name="serve", why="the servers wait out their own rejoin delay", steps=tuple(_serve(view, bool(shaping)))
        ),
        *finish_moves(tuple(open_slots(view))),
    ]
    if not any(phase.steps for phase in phases):
        if settled(AwaitMigrations(), view) and (reasons := tuple(reasons_not_to_move(view, desired, shards))):
            return Refusal(reasons=reasons)
        phases += resize(view, desired, shards)
    elif not forming(view):
        phases += foreseen(view, desired, shards)
    if desired.replace_replicas != "off" and not any(phase.steps for phase in phases):
        phases.append(
            Phase(
                name="replace",
                why="one shard at a time; the other half of the exchange comes next",
                steps=tuple(_replace(view, desired)),
            )
        )
    drift = Phase(name="settings", why="the declared configuration holds", steps=tuple(_settings(view, desired)))
    # While forming, the declared timeout comes last, since the rejoin delay is measured by it; otherwise first, since
    # keys deserve the failure detection that was declared.
    ordered = [*phases, drift] if fresh else [drift, *phases]
    return Plan(
        findings=tuple(findings(view, desired, shards)),
        phases=tuple(phase for phase in ordered if phase.steps),
    )


def _agree(view: ClusterView) -> Iterator[Step]:
    """Looks at many nodes are not one moment: half seen, a failover looks like a shard without a master. What a node
    believes of another and that one does not say of itself is on its way; nothing is built on it.
    """
    if not settled(AwaitAgreement(), view):
        yield AwaitAgreement()


def _serve(view: ClusterView, after_a_change: bool) -> Iterator[Step]:  # noqa: FBT001 - a plain yes or no
    """What has to come true by itself once the shape is right."""
    waits: tuple[Wait, ...] = (AwaitAgreement(), AwaitReplication(), AwaitEpochs(), AwaitServing())
    return (wait for wait in waits if after_a_change or not settled(wait, view))


def _replace(view: ClusterView, desired: Desired) -> Iterator[Step]:
    if found := swap(view, with_a_gap=desired.replace_replicas == "with-a-gap"):
        replica, master = found
        yield Replicate(replica=replica, master=master)
        yield AwaitReplication()


def _settings(view: ClusterView, desired: Desired) -> Iterator[Step]:
    """Settings that differ from the declared ones, and timeouts that *prepare* is about to change."""
    for node in view.nodes:
        for name, value in desired.config.items():
            if node.config.get(name, value) != value:
                yield SetConfig(node=node.node_id, name=name, value=value)
    if desired.timeout_ms is None:
        return
    lowered = {step.node for step in prepare(view, desired) if isinstance(step, SetTimeout)}
    for node in view.nodes:
        if node.timeout_ms is not None and (node.timeout_ms != desired.timeout_ms or node.node_id in lowered):
            yield SetTimeout(node=node.node_id, timeout_ms=desired.timeout_ms)
