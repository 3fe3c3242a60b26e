"""Wiping a cluster on purpose: `wiping(view, desired, confirm)` says in which order, or refuses.

A person confirms with the fingerprint of the cluster as it stands: its masters and their slots. Copies go first,
masters last and all at once: with its replica gone no master can be replaced by one that the fingerprint does not name.
A run that died half-way leaves some masters, and each of them still remembers the whole cluster, the wiped ones
included: so the same fingerprint is good for the rest of it, and no mark has to be left anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootstrap.errors import Reason
from bootstrap.model.desired import Desired
from bootstrap.model.node import Node, Role
from bootstrap.model.plan import Finding, Phase, Plan, Refusal
from bootstrap.model.steps import Wipe
from bootstrap.model.view import ClusterView, fingerprint_of
from bootstrap.plan.describe import several
from bootstrap.plan.planner import plan
from bootstrap.plan.refusals import reasons_not_to_wipe


def wiping(view: ClusterView, desired: Desired, confirm: str) -> Plan | Refusal:
    """What is to be wiped before the cluster can be formed anew; an empty plan where nothing is left to lose."""
    if reasons := tuple(reasons_not_to_wipe(view, desired)):
        return Refusal(reasons=reasons)
    doomed = [node for node in view.nodes if not node.blank]
    if not _confirmed(view, confirm):
        lost = doomed and not _unfinished(view, desired)
        return Refusal(reasons=tuple(_destroyed(view, confirm))) if lost else Plan()
    masters = [node for node in doomed if node.role is Role.MASTER]
    copies = [node for node in doomed if node.role is Role.REPLICA]
    phases = (
        Phase(
            name="wipe copies",
            why="without its replica no master can be replaced meanwhile",
            steps=tuple(Wipe(node=node.node_id, flush=False) for node in copies),
        ),
        Phase(
            name="wipe masters",
            why="what the fingerprint names goes last",
            steps=tuple(Wipe(node=node.node_id, flush=True) for node in masters),
        ),
    )
    found = Finding(code="confirmed", message=f"to be wiped, as confirmed: {', '.join(_in_words(view))}")
    return Plan(findings=(found,), phases=tuple(phase for phase in phases if phase.steps))


def _unfinished(view: ClusterView, desired: Desired) -> bool:
    """True for a forming that was interrupted: no key anywhere, nobody lost, and something left to do."""
    empty = not view.unlisted() and not any(node.keys for node in view.nodes)
    return empty and isinstance(decision := plan(view, desired), Plan) and bool(decision)


def _confirmed(view: ClusterView, confirm: str) -> bool:
    """True for the fingerprint of the cluster as it stands, or of the whole of which the masters here are the rest."""
    return bool(confirm) and (confirm == view.fingerprint() or any(_remembers(n, view, confirm) for n in view.nodes))


def _remembers(teller: Node, view: ClusterView, confirm: str) -> bool:
    """What a master that still owns slots knows of all owners has that fingerprint, and no other owner is here."""
    told = {member.node_id: member.slots for member in teller.members if member.slots}
    owners = {node.node_id: node.slots for node in view.nodes if node.slots}
    return bool(teller.slots) and owners.items() <= told.items() and fingerprint_of(told) == confirm


def _destroyed(view: ClusterView, confirm: str) -> Iterator[Reason]:
    """What would be lost, master by master."""
    now = view.fingerprint()
    if confirm:
        message = (
            f"the cluster as it stands is {now or 'without owners of slots'}, not {confirm}; nothing of it is wiped"
        )
        yield Reason(code="not-that-cluster", message=message, remedy="look at what it is now: run plan")
    remedy = f"python -m bootstrap reinit --confirm {now}, if all of that may go" if now else "empty the pods by hand"
    for node in view.nodes:
        if node.slots or (node.keys and node.role is Role.MASTER):
            message = f"reinit would destroy the master {node.pod}: {several(len(node.slots), 'slot')} ({node.slots})"
            message += f", {several(node.keys, 'key')}"
            yield Reason(code="would-destroy", message=message, remedy=remedy, node=node.pod)
    owners = {node.node_id for node in view.nodes if node.slots}
    for node in view.nodes:
        if now and node.keys and node.role is Role.REPLICA and node.myself.master_id not in owners:
            message = f"reinit would destroy {node.pod}, perhaps the last copy of {several(node.keys, 'key')}: "
            message += "it is a replica whose master owns no slot here"
            yield Reason(code="would-destroy", message=message, remedy=remedy, node=node.pod)
    if not now:
        holders = ", ".join(node.pod for node in view.nodes if not node.blank)
        message = f"no node owns slots, so there is nothing to confirm; not blank: {holders}"
        yield Reason(code="would-destroy", message=message, remedy=remedy)


def _in_words(view: ClusterView) -> Iterator[str]:
    return (f"{node.pod} ({several(node.keys, 'key')})" for node in view.nodes if not node.blank)
