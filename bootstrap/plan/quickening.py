"""Temporary settings with which nodes that have moved find each other without a failover, and without waiting for one.

A node that is not introduced within a node timeout after its start marks the others as failing. The first masters that
meet then agree on that: a replica takes over although no master is lost, and every other master is accepted again only
after twice the node timeout. With a short timeout, and without failover, on every node they link and serve in two
seconds, in the roles that they had, however late they are introduced (docs/architecture.md).

Meanwhile no lost master would be replaced, so this is done only while every slot has its owner among the nodes that
answer, and the cluster is not in service. The settings are restored as soon as all nodes serve. On each node the
timeout is lowered first and restored last: wherever a run is killed, a node without failover is known by its timeout
(`Node.quickened`), and the next plan restores both. That takes a declared timeout; without one nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from bootstrap.model.desired import Desired
from bootstrap.model.node import SHORT_TIMEOUT_MS, SHORT_TIMEOUT_MS_MANY, Node
from bootstrap.model.slots import ALL_SLOTS
from bootstrap.model.view import ClusterView

FEW_NODES = 16
"""Up to so many nodes the shortest timeout is set. *Measured*: with 60 nodes on two busy cores, introductions with
500 ms were repeated for 6 to 30 s, and with 1000 ms they were not (docs/architecture.md)."""


def under_way(view: ClusterView, desired: Desired, unlinked: Sequence[tuple[Node, Node]]) -> bool:
    """True where the temporary settings are to be set, or to stay until all nodes serve. They never stay where a link
    is missing in a cluster that is in service: the node behind it may have to be replaced.
    """
    if not _possible(view, desired):
        return False
    begun = any(node.quickened for node in view.nodes)
    if unlinked:
        return (begun or masters_apart(unlinked)) and not in_service(view)
    return begun and not all(node.serving for node in view.nodes)


def masters_apart(unlinked: Sequence[tuple[Node, Node]]) -> bool:
    """True where two masters with slots lack a link. Other nodes neither vote nor fail over for the lack of theirs."""
    return any(one.slots and other.slots for one, other in unlinked)


def in_service(view: ClusterView) -> bool:
    """True where some node that reports ok is linked to a majority of the masters with slots. Without any link a node
    reports ok, too, from 2 s after its start until it suspects the others (*measured*: docs/architecture.md).
    """
    owners = [node.node_id for node in view.nodes if node.slots]
    for node in view.nodes:
        reached = sum(1 for owner in owners if owner == node.node_id or view.linked(node.node_id, owner))
        if node.serving and reached > len(owners) // 2:
            return True
    return False


def left_quickened(node: Node, desired: Desired) -> bool:
    """True for a node with the temporary settings. Where no timeout is declared this program sets none, so the same
    values are a person's choice.
    """
    return desired.timeout_ms is not None and node.quickened and node.timeout_ms != desired.timeout_ms


def short_timeout_ms(view: ClusterView) -> int:
    """The temporary cluster-node-timeout for a cluster of this size, milliseconds."""
    return SHORT_TIMEOUT_MS if len(view.nodes) <= FEW_NODES else SHORT_TIMEOUT_MS_MANY


def _possible(view: ClusterView, desired: Desired) -> bool:
    """True where nothing needs the servers' own failover, and every setting can be restored."""
    return (
        desired.quicken
        and desired.timeout_ms is not None
        and desired.timeout_ms > short_timeout_ms(view)
        and not view.unreachable
        and view.claimed() == ALL_SLOTS
        and all(node.timeout_ms is not None and _restorable(node) for node in view.nodes)
    )


def _restorable(node: Node) -> bool:
    """False where CONFIG is denied, and where a person keeps the node from taking over."""
    return node.quickened or node.config.get(node.no_failover_name) == "no"
