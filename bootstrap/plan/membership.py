"""Phases that make the listed pods members of one cluster: config epochs, functions and users, temporary settings, and
CLUSTER MEET.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.model.steps import Announce, Meet, Provision, SetConfig, SetEpoch, SetTimeout, Step, Write, recipient
from bootstrap.model.waits import AwaitMesh
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.quickening import masters_apart, short_timeout_ms

QUICK_TIMEOUT_MS = 1000
"""cluster-node-timeout while forming, milliseconds. A handshake lives at least 1 s, so a lower value gains nothing."""

ALL_PAIRS_MAX = 64
"""Up to so many nodes every pair is introduced, which is fastest because nothing waits for gossip. *Measured* on 2
cores: 60 nodes take 0.6 s instead of 1.0 s with 16 introducers; 120 nodes saturate the CPU for 6 s
(docs/architecture.md)."""

INTRODUCERS = 16
"""Nodes that are introduced to all others in a bigger cluster; gossip makes the remaining links."""

MEETS_MAX = 2000
"""Introductions in one phase where gossip has not linked the nodes that the introducers know."""


def prepare(found: Assessment) -> Iterator[Step]:
    """Short timeouts and distinct config epochs; only while forming. A blank node that joins a cluster of owners takes
    its epochs from it.
    """
    nodes, timeout_ms = found.view.nodes, found.desired.timeout_ms
    if not found.view.forming:
        return
    if timeout_ms and not found.quickening and not any(node.serving for node in nodes):
        for node in nodes:
            if node.timeout_ms and node.timeout_ms > QUICK_TIMEOUT_MS:
                yield SetTimeout(node=node.node_id, timeout_ms=min(timeout_ms, QUICK_TIMEOUT_MS))
    used = {member.config_epoch for node in nodes for member in node.members}
    free = (epoch for epoch in range(1, 2 * len(nodes) + len(used) + 1) if epoch not in used)
    for node in nodes:
        if len(node.members) == 1 and node.myself.config_epoch == 0:
            yield SetEpoch(node=node.node_id, epoch=next(free))


def provision(found: Assessment) -> Iterator[Step]:
    """Function libraries and ACL users that every owner of slots has and a blank node lacks."""
    owners = [node for node in found.view.nodes if node.slots]
    if not owners:
        return
    libraries = frozenset.intersection(*(node.libraries for node in owners))
    users = frozenset.intersection(*(node.users for node in owners))
    for node in found.view.nodes:
        if node.blank and (libraries - node.libraries or users - node.users):
            yield Provision(
                node=node.node_id,
                origin=owners[0].node_id,
                address=owners[0].address,
                libraries=tuple(sorted(libraries - node.libraries)),
                users=tuple(sorted(users - node.users)),
            )


def quicken(found: Assessment) -> Iterator[Step]:
    """The temporary settings, on every node that lacks one: the timeout first, and never in a cluster in service."""
    if not (found.quickening and masters_apart(found.unlinked)):
        return
    timeout_ms = short_timeout_ms(found.view)
    for node in found.view.nodes:
        if node.timeout_ms != timeout_ms:
            yield SetTimeout(node=node.node_id, timeout_ms=timeout_ms)
        if not node.quickened:
            yield SetConfig(node=node.node_id, name=node.no_failover_name, value="yes")


def meet(found: Assessment) -> Iterator[Step]:
    """Each introducer meets every later node to which it has no link. The packet carries the introducer's id and
    address, so it also corrects a node that knows this pod by an old address.
    """
    nodes, pairs = found.view.nodes, found.unlinked
    if not pairs:
        return
    introducers = {node.node_id for node in nodes[: INTRODUCERS if len(nodes) > ALL_PAIRS_MAX else None]}
    by_introducers = tuple(pair for pair in pairs if pair[0].node_id in introducers)
    for one, other in by_introducers or pairs[:MEETS_MAX]:
        yield Meet(introducer=one.node_id, newcomer=other.node_id, address=other.address, bus_port=other.bus_port)
    yield AwaitMesh()


def announce(found: Assessment, changes: tuple[Step, ...]) -> Iterator[Step]:
    """Nodes that change announce it to all others, because pings alone are too slow for it. In a big cluster so many
    packets would saturate the CPU.
    """
    nodes = found.view.nodes
    if len(nodes) > ALL_PAIRS_MAX:
        return
    for node_id in {recipient(step): None for step in changes if isinstance(step, Write)}:
        others = tuple((node.address, node.bus_port) for node in nodes if node.node_id != node_id)
        yield Announce(node=node_id, others=others)
