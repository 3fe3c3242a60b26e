"""Who could contradict a step: the missing pods whose answer could show that it is wrong.

A plan is made with the pods that answer. Where others are missing, it keeps exactly the steps that none of them could
contradict, and holds back the rest:

- *Introductions* of members of one cluster, and reconnecting a replica to its own master, change no fact: nobody.
- *A failover by votes* is decided by the other masters: nobody, once each node that answers has lost contact with the
  old master and the candidate's copy is known to be complete. While a server on a missing pod answers something (it
  loads its data), that pod.
- *A failover without votes* needs proof that the missing masters do not run: Kubernetes reports it of every missing pod
  (it is not known which pod has which id), or a person has confirmed it for these masters. Silence is no proof.
- *A blank pod that joins as a replica*: nobody. The missing pods have some seconds to start first, because a copy that
  starts too early would be one too many.
- *Everything else* (who owns which slot, who follows whom, who is a member, forming, moving, resizing): every missing
  pod. So is everything where no node is known to own a slot, or where it is not known that there is only one cluster.
"""

from __future__ import annotations

from collections.abc import Iterable

from bootstrap.model.node import Node, Role
from bootstrap.model.plan import HeldBack, Phase
from bootstrap.model.steps import Failover, Meet, Provision, Reattach, Replicate, SetConfig, SetTimeout, Step, Write
from bootstrap.model.unreachable import UnreachablePeer
from bootstrap.model.waits import AwaitAgreement, AwaitElection, AwaitMesh, Wait
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.failover import confirmed_takeovers, overdue
from bootstrap.plan.lost_members import LostMember, stale_masters

Missing = tuple[UnreachablePeer, ...]


def contradictors(step: Step, found: Assessment) -> Missing:
    """The missing pods that could contradict a step; none where it may be done without them."""
    missing = found.view.unreachable
    if not missing or not _cluster_exists(found):
        return missing
    match step:
        case AwaitMesh() | AwaitAgreement() | AwaitElection() | Reattach() | Provision():
            return ()
        case SetConfig():  # without failover, nobody replaces a missing master
            node = found.view.by_id[step.node]
            return missing if (step.name, step.value) == (node.no_failover_name, "yes") else ()
        case SetTimeout():
            return () if step.timeout_ms == found.desired.timeout_ms else missing
        case Meet():
            return () if _may_meet(step, found) else missing
        case Failover():
            return _against_failover(step, found)
        case Replicate():
            if _joins(step, found):
                return tuple(peer for peer in missing if not peer.overdue)
            return missing
        case _:
            return missing


def without_missing(phases: Iterable[Phase], found: Assessment) -> tuple[tuple[Phase, ...], tuple[HeldBack, ...]]:
    """The phases without the steps that a missing pod could contradict, and these steps. A wait stays only in a phase
    from which no write is held back: it would wait for them.
    """
    kept, held = [], []
    for phase in phases:
        against = {step: contradictors(step, found) for step in phase.steps}
        writes = tuple(step for step in phase.steps if isinstance(step, Write) and against[step])
        steps = tuple(s for s in phase.steps if not against[s] and not (writes and isinstance(s, Wait)))
        if steps:
            kept.append(Phase(name=phase.name, why=phase.why, steps=steps))
        if writes:
            held.append(HeldBack(phase=phase.name, steps=writes, pods=_pods(against[step] for step in writes)))
    return tuple(kept), tuple(held)


def _pods(against: Iterable[Missing]) -> tuple[str, ...]:
    peers = {peer.ordinal: peer.pod for each in against for peer in each}
    return tuple(peers[ordinal] for ordinal in sorted(peers))


def _cluster_exists(found: Assessment) -> bool:
    """True where a node that answers owns slots, or knows who does. Forming waits for every pod, to its end."""
    owned = bool(found.view.claimed()) or any(each.slots for each in found.absent_members)
    return owned and not found.view.forming


def _one_cluster(found: Assessment) -> bool:
    """True where all nodes that are not blank know each other, directly or by others: a missing pod may own slots that
    a second group owns as well.
    """
    return len(_clusters(found)) == 1


def _clusters(found: Assessment) -> list[tuple[Node, ...]]:
    return [group for group in found.groups if not all(node.blank for node in group)]


def _may_meet(step: Meet, found: Assessment) -> bool:
    """True for two nodes of one group, and for a blank node and the only cluster."""
    nodes = {step.introducer, step.newcomer}
    if any(nodes <= {node.node_id for node in group} for group in found.groups):
        return True
    strangers = [node for group in _clusters(found) for node in group if node.node_id in nodes]
    return _one_cluster(found) and len(strangers) <= 1


def _joins(step: Replicate, found: Assessment) -> bool:
    """True for a node without slots, keys and open slots that becomes a replica of a master that owns slots."""
    nodes = found.view.by_id
    if step.replica not in nodes or step.master not in nodes or not _one_cluster(found):
        return False
    replica, master = nodes[step.replica], nodes[step.master]
    followed = any(node.myself.master_id == step.replica for node in nodes.values())
    empty = not (replica.slots or replica.keys or replica.open_slots or followed)
    return empty and replica.role is Role.MASTER and bool(master.slots) and step.master not in stale_masters(found.view)


def _against_failover(step: Failover, found: Assessment) -> Missing:
    missing = found.view.unreachable
    lost = next((each for each in found.absent_members if each.node_id == step.lost), None)
    if lost is None or not _one_cluster(found) or not _certainly_failed(lost, found) or not _has_a_copy(step, found):
        return missing
    if starting := tuple(peer for peer in missing if not peer.why.silent):
        return starting
    if step.takeover and step.lost not in confirmed_takeovers(found):
        return tuple(peer for peer in missing if not peer.not_running)
    return ()


def _certainly_failed(lost: LostMember, found: Assessment) -> bool:
    """True where nothing answers at the addresses that others know of it, and every node that answers and knows it has
    lost contact with it: one with a link would show that it runs.
    """
    lines = [node.others[lost.node_id] for node in lost.known_by]
    contact = any(line.connected and not line.suspected and "noaddr" not in line.flags for line in lines)
    return lost.node_id not in found.view.alive_elsewhere and not contact


def _has_a_copy(step: Failover, found: Assessment) -> bool:
    """True where the candidate's copy was once complete, and the failover is overdue. A server that was started again
    reports no time since it lost its master; then its keys come from its disk. A master that was replaced while it was
    down has never copied from its successor, which is missing now: what the successor has is newer.
    """
    candidate = found.view.by_id[step.candidate]
    link = candidate.replication
    copied = bool(link.down_s or candidate.keys)
    return copied and step.candidate not in found.view.demoted and overdue(candidate, found.view)
