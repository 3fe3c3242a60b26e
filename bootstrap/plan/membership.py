"""TODO"""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.desired import Desired
from bootstrap.model.steps import (
    Announce,
    AwaitMesh,
    Meet,
    Provision,
    SetEpoch,
    SetTimeout,
    Step,
    Write,
    recipient,
)
from bootstrap.model.view import ClusterView

QUICK_TIMEOUT_MS = 1000
"""cluster-node-timeout while forming. Lower, and a handshake (which lives at least 1 s) gains nothing."""

ALL_PAIRS_MAX = 64
"""Nodes among which every pair is introduced: quickest, since nothing waits for gossip, up to some size. *Measured* on
2 cores: 60 nodes 0.6 s in place of 1.0 s with 16 introducers; 120 nodes are a storm of 6 s (redis-facts)."""

INTRODUCERS = 16
"""Nodes that introduce all others in a bigger cluster; gossip brings the rest together."""

MEETS_MAX = 2000
"""Introductions at once, where gossip has not brought together what the introducers know."""


def forming(view: ClusterView) -> bool:
    """True with no key anywhere, nobody lost, and not yet serving: nothing can be lost by what is done now."""
    at_stake = any(node.keys for node in view.nodes) or view.unlisted()
    return not at_stake and not all(node.serving for node in view.nodes)


def prepare(view: ClusterView, desired: Desired) -> Iterator[Step]:
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


def meet(view: ClusterView) -> Iterator[Step]:
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


def announce(view: ClusterView, shape: tuple[Step, ...]) -> Iterator[Step]:
    """Whoever changes tells the others, where pings are too slow for it. In a big cluster that would be a storm."""
    if len(view.nodes) > ALL_PAIRS_MAX:
        return
    for told in {recipient(step): None for step in shape if isinstance(step, Write)}:
        others = tuple((node.address, node.bus_port) for node in view.nodes if node.node_id != told)
        yield Announce(node=told, others=others)


def provision(view: ClusterView) -> Iterator[Step]:
    """Function libraries and ACL users that every owner of slots has and a blank node lacks."""
    owners = [node for node in view.nodes if node.slots]
    if not owners:
        return
    libraries = frozenset.intersection(*(node.libraries for node in owners))
    users = frozenset.intersection(*(node.users for node in owners))
    for node in view.nodes:
        if node.blank and (libraries - node.libraries or users - node.users):
            yield Provision(
                node=node.node_id,
                origin=owners[0].node_id,
                address=owners[0].address,
                libraries=tuple(sorted(libraries - node.libraries)),
                users=tuple(sorted(users - node.users)),
            )
