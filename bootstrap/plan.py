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
from dataclasses import dataclass

from bootstrap.balance import leaving
from bootstrap.errors import Reason
from bootstrap.findings import Finding, findings
from bootstrap.losses import Loss, inherited, loss_accepted, losses
from bootstrap.model import DEFAULT_TIMEOUT_MS, ClusterView, Desired, Node
from bootstrap.moves import HalfMove, deaf, half_moves
from bootstrap.placement import exchange
from bootstrap.refusals import reasons_not_to_move, reasons_to_refuse
from bootstrap.resize import foreseen, resize
from bootstrap.settled import settled
from bootstrap.steps import (
    AddSlots,
    Announce,
    AwaitAgreement,
    AwaitEpochs,
    AwaitHeir,
    AwaitMesh,
    AwaitMigrations,
    AwaitReplication,
    AwaitServing,
    CarryOver,
    CloseSlot,
    Failover,
    Forget,
    MarkSlot,
    Meet,
    MoveKeys,
    NameOwner,
    Phase,
    Reattach,
    Replicate,
    SetConfig,
    SetEpoch,
    SetTimeout,
    Step,
    TakeSlot,
    Wait,
    Write,
    told_to,
)
from bootstrap.topology import Shard, layout

QUICK_TIMEOUT_MS = 1000
"""cluster-node-timeout while forming. Lower, and a handshake (which lives at least 1 s) gains nothing."""

ALL_PAIRS_MAX = 64
"""Nodes among which every pair is introduced: quickest, since nothing waits for gossip, up to some size. *Measured* on
2 cores: 60 nodes 0.6 s in place of 1.0 s with 16 introducers; 120 nodes are a storm of 6 s (redis-facts)."""

ELECTION_S = 10
"""An election takes the node timeout, until the others notice, and some seconds; this much later it is overdue."""

INTRODUCERS = 16
"""Nodes that introduce all others in a bigger cluster; gossip brings the rest together."""

MEETS_MAX = 2000
"""Introductions at once, where gossip has not brought together what the introducers know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was found and what is to be done about it, in order. No phases is health."""

    findings: tuple[Finding, ...] = ()
    phases: tuple[Phase, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why nothing may be done, every reason at once."""

    reasons: tuple[Reason, ...]


def plan(view: ClusterView, desired: Desired) -> Plan | Refusal:
    """The way from `view` to `desired`. Every peer must be in the view: waiting for them comes before planning."""
    view = view.within(desired.nodes)
    shards = layout(view, desired)
    if reasons := tuple(reasons_to_refuse(view, desired, shards)):
        return Refusal(reasons=reasons)
    fresh = forming(view)
    shape = tuple(_shape(view, desired, shards))
    if fresh and desired.timeout_ms is None:
        shape = (*shape, *_announce(view, shape))
    phases = [
        Phase(name="prepare", why="epochs can be set only on strangers", steps=tuple(_prepare(view, desired))),
        Phase(name="equip", why="who joins has to have what the others have", steps=tuple(_equip(view))),
        Phase(name="meet", why="the mesh comes before anything is owned", steps=tuple(_meet(view))),
        Phase(
            name="name owners", why="who imports a slot learns nothing of it by gossip", steps=tuple(_name_owners(view))
        ),
        Phase(name="agree", why="a change in flight is let through before another is made", steps=tuple(_agree(view))),
        Phase(name="elect", why="a forgotten master can no longer be voted out", steps=tuple(_elect(view))),
        Phase(
            name="let go",
            why="slots are free once their owner is forgotten",
            steps=tuple(_let_go(view, desired)),
        ),
        Phase(name="shape", why="with the mesh up, all nodes learn of it at once", steps=shape),
        Phase(name="forget", why="nobody follows or awaits the lost any more", steps=tuple(_forget(view))),
        Phase(name="serve", why="the servers wait out their own rejoin delay", steps=tuple(_serve(view, bool(shape)))),
        *_finish_moves(tuple(half_moves(view))),
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


def forming(view: ClusterView) -> bool:
    """True with no key anywhere, nobody lost, and not yet serving: nothing can be lost by what is done now."""
    at_stake = any(node.keys for node in view.nodes) or view.unlisted()
    return not at_stake and not all(node.serving for node in view.nodes)


def _prepare(view: ClusterView, desired: Desired) -> Iterator[Step]:
    """Only while forming: a blank node that joins an owner's cluster takes its epochs from it."""
    if not forming(view):
        return
    if desired.timeout_ms and not any(node.serving for node in view.nodes):
        for node in view.nodes:
            if node.timeout_ms and node.timeout_ms > QUICK_TIMEOUT_MS:
                yield SetTimeout(node=node.node_id, timeout_ms=min(desired.timeout_ms, QUICK_TIMEOUT_MS))
    used = {member.config_epoch for node in view.nodes for member in node.members}
    free = (epoch for epoch in range(1, 2 * len(view.nodes) + len(used) + 1) if epoch not in used)
    for node in view.nodes:
        if len(node.members) == 1 and node.myself.config_epoch == 0:
            yield SetEpoch(node=node.node_id, epoch=next(free))


def _meet(view: ClusterView) -> Iterator[Step]:
    """Each introducer meets every later node it lacks a link with. One packet carries the introducer's id and address,
    so it also tells a node that knew this pod by an old address where it is now.
    """
    pairs = tuple(view.unlinked())
    if not pairs:
        return
    introducers = {node.node_id for node in view.nodes[: INTRODUCERS if len(view.nodes) > ALL_PAIRS_MAX else None]}
    by_introducers = tuple(pair for pair in pairs if pair[0].node_id in introducers)
    for one, other in by_introducers or pairs[:MEETS_MAX]:
        yield Meet(introducer=one.node_id, newcomer=other.node_id, address=other.address, bus_port=other.bus_port)
    yield AwaitMesh()


def _shape(view: ClusterView, desired: Desired, shards: tuple[Shard, ...]) -> Iterator[Step]:
    owned = inherited(view)
    for shard in shards:
        if missing := shard.slots - owned[shard.master]:
            yield AddSlots(node=shard.master, slots=missing)
    for shard in shards:
        for replica in shard.replicas:
            if view.by_id[replica].myself.master_id != shard.master:
                yield Replicate(replica=replica, master=shard.master)
            elif replica in view.stuck or _asks_elsewhere(view.by_id[replica], view.by_id[shard.master]):
                yield Reattach(replica=replica, master=shard.master)
    for node in leaving(view, desired):
        yield from _mend_until_it_leaves(node, view, shards)


def _mend_until_it_leaves(node: Node, view: ClusterView, shards: tuple[Shard, ...]) -> Iterator[Step]:
    """A replica on a pod that leaves is given nothing new, and must not be in the way: with its link stuck, or behind a
    master that is lost and cannot be forgotten while it has a replica.
    """
    master = node.myself.master_id
    succeeded = {loss.node_id for loss in losses(view) if not loss.slots}
    if master and master in view.by_id and node.node_id in view.stuck:
        yield Reattach(replica=node.node_id, master=master)
    elif master in succeeded and shards:
        yield Replicate(replica=node.node_id, master=shards[0].master)


def _asks_elsewhere(replica: Node, master: Node) -> bool:
    """True for a replica whose link is down because it looks for its master where that was: gossip has brought it the
    new address, but not to its replication.
    """
    link = replica.replication
    here = (None, master.address, master.myself.address)
    return not (link.link_up or link.syncing) and link.master not in here


def _elect(view: ClusterView) -> Iterator[Step]:
    """A lost master's replicas stand for election by themselves once the other masters agree that it failed. Where
    that cannot happen, the best of them is told to: a majority of masters is lost, the lost one has no address any more
    (it is never pinged, so it never fails), or the election is overdue.

    TAKEOVER is safe here, since no pod carries the lost id and it does not answer where it was.
    """
    lost = losses(view)
    owners = sum(1 for node in view.nodes if node.slots)
    quorum = (owners + sum(1 for loss in lost if loss.slots)) // 2 + 1
    for loss in lost:
        if loss.heir is None:
            continue
        if owners >= quorum and _will_be_elected(loss, loss.heir):
            yield AwaitHeir(lost=loss.node_id, slots=loss.slots)
        else:
            heir, takeover = loss.heir.node_id, owners < quorum
            yield Failover(heir=heir, lost=loss.node_id, slots=loss.slots, takeover=takeover)


def _will_be_elected(loss: Loss, heir: Node) -> bool:
    unpinged = all("noaddr" in teller.others[loss.node_id].flags for teller in loss.tellers)
    timeout_s = (heir.timeout_ms or DEFAULT_TIMEOUT_MS) / 1000
    return not unpinged and heir.replication.down_s <= 2 * timeout_s + ELECTION_S


def _let_go(view: ClusterView, desired: Desired) -> Iterator[Step]:
    """Members that took the last copy of their slots with them, once a person has accepted that."""
    if loss_accepted(view, desired):
        for loss in losses(view):
            if loss.gone:
                yield from _forgetting(loss)


def _forget(view: ClusterView) -> Iterator[Step]:
    """All other lost members. Promote before forgetting, re-home before forgetting: both need the old id."""
    for loss in losses(view):
        if not loss.gone:
            yield from _forgetting(loss)


def _forgetting(loss: Loss) -> Iterator[Step]:
    return (Forget(node=teller.node_id, lost=loss.node_id) for teller in loss.tellers)


def _announce(view: ClusterView, shape: tuple[Step, ...]) -> Iterator[Step]:
    """Whoever changes tells the others, where pings are too slow for it. In a big cluster that would be a storm."""
    if len(view.nodes) > ALL_PAIRS_MAX:
        return
    for told in {told_to(step): None for step in shape if isinstance(step, Write)}:
        others = tuple((node.address, node.bus_port) for node in view.nodes if node.node_id != told)
        yield Announce(node=told, others=others)


def _name_owners(view: ClusterView) -> Iterator[Step]:
    """Who imports slots hears of their new owner from nobody else; see `deaf`."""
    for node, owner, slots in deaf(view):
        yield NameOwner(node=node.node_id, owner=owner.node_id, slots=slots)


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


def _finish_moves(moves: tuple[HalfMove, ...]) -> Iterator[Phase]:
    """Slot by slot the servers' own protocol, from wherever it was left. The keys are counted anew before a slot is
    taken: an owner that hears of its successor drops what it still holds of it. What nobody has begun or what is over
    comes first: the rest may wait for a server that has no room.
    """
    whys = {
        "shut": "no key may slip in after the keys were counted",
        "clear": "no mark is left where nothing is on its way",
        "open": "both sides have to know of a move before a key moves",
        "move": "a slot is handed over only when its old owner holds nothing of it",
        "take": "the new owner says so itself, with a new epoch",
        "close": "no mark is left of a move that is over",
    }
    for name, why in whys.items():
        if steps := tuple(step for move in moves for step in _finish_move(name, move)):
            yield Phase(name=name, why=why, steps=steps)


def _finish_move(phase: str, move: HalfMove) -> Iterator[Step]:
    slot, owner, target = move.slot, move.owner, move.target
    match phase:
        case "open" if target:
            if (slot, owner.node_id) not in target.myself.importing:
                yield MarkSlot(node=target.node_id, slot=slot, other=owner.node_id, importing=True)
            if (slot, target.node_id) not in owner.myself.migrating:
                yield MarkSlot(node=owner.node_id, slot=slot, other=target.node_id, importing=False)
        case "move" if target and owner.keys_in.get(slot):
            yield MoveKeys(
                source=owner.node_id,
                target=target.node_id,
                slot=slot,
                address=target.address,
                databases=owner.databases,
            )
        case "take" if target:
            yield TakeSlot(node=target.node_id, slot=slot)
        case "shut" if not move.holders:
            # While the owner marks it, clients that name a new key are sent to the other side. Only when that one takes
            # none any more does its number of keys mean anything, so the owner's mark stays until they are counted.
            yield from (CloseSlot(node=node.node_id, slot=slot) for node in move.marked if node != owner)
        case "clear" if not move.holders and owner in move.marked:
            yield CloseSlot(node=owner.node_id, slot=slot)
        case "close" if target:
            closing = {owner.node_id} | {node.node_id for node in move.marked if node != target}
            yield from (CloseSlot(node=node_id, slot=slot) for node_id in sorted(closing))


def _replace(view: ClusterView, desired: Desired) -> Iterator[Step]:
    if found := exchange(view, with_a_gap=desired.replace_replicas == "with-a-gap"):
        replica, master = found
        yield Replicate(replica=replica, master=master)
        yield AwaitReplication()


def _equip(view: ClusterView) -> Iterator[Step]:
    """Function libraries and ACL users that every owner of slots has and a blank node lacks."""
    owners = [node for node in view.nodes if node.slots]
    if not owners:
        return
    libraries = frozenset.intersection(*(node.libraries for node in owners))
    users = frozenset.intersection(*(node.users for node in owners))
    for node in view.nodes:
        if node.blank and (libraries - node.libraries or users - node.users):
            yield CarryOver(
                node=node.node_id,
                origin=owners[0].node_id,
                address=owners[0].address,
                libraries=tuple(sorted(libraries - node.libraries)),
                users=tuple(sorted(users - node.users)),
            )


def _settings(view: ClusterView, desired: Desired) -> Iterator[Step]:
    """Settings that differ from the declared ones, and timeouts that *prepare* is about to change."""
    for node in view.nodes:
        for name, value in desired.config.items():
            if node.config.get(name, value) != value:
                yield SetConfig(node=node.node_id, name=name, value=value)
    if desired.timeout_ms is None:
        return
    lowered = {step.node for step in _prepare(view, desired) if isinstance(step, SetTimeout)}
    for node in view.nodes:
        if node.timeout_ms is not None and (node.timeout_ms != desired.timeout_ms or node.node_id in lowered):
            yield SetTimeout(node=node.node_id, timeout_ms=desired.timeout_ms)
