"""The verbs, as data. A step is one small thing to tell one node, or a condition to wait for; it acts on nothing.

`settled(step, view)` says when a step has come true. It is defined once and used three times: the planner skips with
it, the executor waits with it, and the tests' fake cluster is checked against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, assert_never

from bootstrap.model import Address, ClusterView, Node, NodeId, Role
from bootstrap.slots import SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimeout:
    """CONFIG SET cluster-node-timeout, milliseconds."""

    node: NodeId
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEpoch:
    """CLUSTER SET-CONFIG-EPOCH. The server takes it only while the node knows nobody and has epoch 0."""

    node: NodeId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meet:
    """CLUSTER MEET, told to the introducer. The address is an IP: the server resolves no names."""

    introducer: NodeId
    newcomer: NodeId
    address: Address
    bus_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddSlots:
    """CLUSTER ADDSLOTS: gives slots that nobody owns to a master."""

    node: NodeId
    slots: SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """CLUSTER REPLICATE: makes a node that holds nothing of its own the replica of a master."""

    replica: NodeId
    master: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """CLUSTER FAILOVER, told to a replica whose master is lost: FORCE asks the other masters for their votes, TAKEOVER
    asks nobody. TAKEOVER is safe only while the old master is certainly gone.
    """

    heir: NodeId
    lost: NodeId
    slots: SlotSet
    takeover: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """CLUSTER FORGET, told to one node. It must reach all within the ban of 60 s, or gossip brings the id back."""

    node: NodeId
    lost: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """CLUSTER MEET, told to a node once for each of the others, who know it already: the packet brings them at once
    what the node has become. By itself that may take seconds, since servers ping a node less often while others gossip
    that it is well. *Measured*, 60 nodes with a timeout of 5 s: all know after 1.0 s, in place of over 9 s.
    """

    node: NodeId
    others: tuple[tuple[Address, int], ...]
    """Address and bus port of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitMesh:
    """Wait until every node is linked to every other, in both directions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitAgreement:
    """Wait until every node says of every other what that one says of itself: its slots, and whom it follows; and until
    no slot is claimed twice. Among linked nodes the servers settle that by their epochs.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitHeir:
    """Wait until the masters have elected a replica of a lost master: somebody owns its slots."""

    lost: NodeId
    slots: SlotSet


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitEpochs:
    """Wait until no two masters have the same config epoch; the servers settle that among themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitReplication:
    """Wait until every replica's link to its master is up and its first copy complete. It may take minutes: sending
    REPLICATE again would start the copy anew.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitServing:
    """Wait until every node says `cluster_state:ok`."""


Local = SetTimeout | SetEpoch
"""Steps that concern one node alone; all others are settled only when gossip has carried them to every node."""

Write = SetTimeout | SetEpoch | Meet | AddSlots | Replicate | Failover | Forget | Announce
Wait = AwaitMesh | AwaitAgreement | AwaitHeir | AwaitEpochs | AwaitReplication | AwaitServing
Step = Write | Wait


class Rejected(NamedTuple):
    """A write that took no effect, as far as is known."""

    write: Write
    why: str
    answered: bool
    """True when the server itself said no; False when there was no answer, which says nothing about the next try."""


def told_to(step: Write) -> NodeId:
    """The node that a write is sent to."""
    match step:
        case SetTimeout() | SetEpoch() | AddSlots() | Announce() | Forget():
            return step.node
        case Meet():
            return step.introducer
        case Replicate():
            return step.replica
        case Failover():
            return step.heir
        case _:
            assert_never(step)


def settled(step: Step, view: ClusterView) -> bool:
    """True when every node that must know of the step's effect does. A node that the view lacks knows nothing."""
    nodes = view.by_id
    if isinstance(step, Wait) and (view.absent or not nodes):
        return False
    match step:
        case SetTimeout():
            return step.node in nodes and nodes[step.node].timeout_ms == step.timeout_ms
        case SetEpoch():
            return step.node in nodes and nodes[step.node].myself.config_epoch >= step.epoch
        case Meet():
            known = step.introducer in nodes and step.newcomer in nodes
            return known and linked(nodes[step.introducer], nodes[step.newcomer])
        case AddSlots():
            return step.node in nodes and all(not step.slots - told.slots for told in _tellings(step.node, view))
        case Replicate():
            tellings = _tellings(step.replica, view)
            return step.replica in nodes and all(told.master_id == step.master for told in tellings)
        case Failover() | AwaitHeir():
            return not step.slots - view.claimed()
        case Forget():
            return step.node in nodes and step.lost not in nodes[step.node].others
        case Announce():
            return step.node in nodes and _agreed(nodes[step.node], view)
        case AwaitMesh():
            return not any(unlinked_pairs(view))
        case AwaitAgreement():
            claimed_once = sum(len(node.slots) for node in view.nodes) == len(view.claimed())
            return claimed_once and all(_agreed(node, view) for node in view.nodes)
        case AwaitEpochs():
            epochs = [node.myself.config_epoch for node in view.nodes if node.role is Role.MASTER and node.slots]
            return len(set(epochs)) == len(epochs)
        case AwaitReplication():
            return all(node.replication.role is node.role and node.replication.link_up for node in view.nodes)
        case AwaitServing():
            return all(node.serving for node in view.nodes)
        case _:
            assert_never(step)


def linked(one: Node, other: Node) -> bool:
    """True when each of two nodes knows the other by its id, is connected to it, and does not suspect it."""
    return _reaches(one, other) and _reaches(other, one)


def unlinked_pairs(view: ClusterView) -> Iterator[tuple[Node, Node]]:
    """Pairs of nodes that lack a link in some direction, lower ordinals first."""
    return ((one, other) for one, other in combinations(view.nodes, 2) if not linked(one, other))


def sentence(step: Step, view: ClusterView) -> str:
    """The step in words, with pods in place of ids."""
    match step:
        case SetTimeout():
            return f"set cluster-node-timeout of {view.name(step.node)} to {step.timeout_ms} ms"
        case SetEpoch():
            return f"give {view.name(step.node)} the config epoch {step.epoch}"
        case Meet():
            return f"introduce {view.name(step.newcomer)} at {step.address} to {view.name(step.introducer)}"
        case AddSlots():
            return f"assign slots {step.slots} to {view.name(step.node)}"
        case Replicate():
            return f"make {view.name(step.replica)} a replica of {view.name(step.master)}"
        case Failover():
            how = "without asking the others, who cannot vote" if step.takeover else "by the votes of the others"
            return f"promote {view.name(step.heir)} in place of the lost {view.name(step.lost)}, {how}"
        case Forget():
            return f"let {view.name(step.node)} forget the lost {view.name(step.lost)}"
        case AwaitHeir():
            return f"wait until a replica of the lost {view.name(step.lost)} is elected"
        case Announce():
            return f"let {view.name(step.node)} tell all others at once what it has become"
        case AwaitMesh():
            return "wait until every node is linked to every other"
        case AwaitAgreement():
            return "wait until all nodes agree who owns which slots and who follows whom"
        case AwaitEpochs():
            return "wait until the masters' config epochs differ"
        case AwaitReplication():
            down = ", ".join(node.pod for node in view.nodes if not node.replication.link_up)
            return "wait until every replica has a copy and its link is up" + (f" (down: {down})" if down else "")
        case AwaitServing():
            return "wait until every node says cluster_state:ok"
        case _:
            assert_never(step)


def _reaches(one: Node, other: Node) -> bool:
    told = one.others.get(other.node_id)
    return told is not None and told.connected and not told.suspected


def _agreed(node: Node, view: ClusterView) -> bool:
    """True when nobody who knows the node says anything else of it than it says itself."""
    own = node.myself
    others = (other.others.get(node.node_id) for other in view.nodes)
    return all(
        told.slots == own.slots and told.master_id == own.master_id and told.role is own.role for told in others if told
    )


def _tellings(node_id: NodeId, view: ClusterView) -> Iterator[_Telling]:
    """What each node says of `node_id`, the node itself included; one that does not know it says nothing of worth."""
    for node in view.nodes:
        told = node.myself if node.node_id == node_id else node.others.get(node_id)
        yield _Telling(told.slots, told.master_id) if told else _Telling(SlotSet(), None)


@dataclass(frozen=True, slots=True)
class _Telling:
    slots: SlotSet
    master_id: NodeId | None
