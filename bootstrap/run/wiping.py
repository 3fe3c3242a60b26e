"""Wiping a cluster that a person has confirmed: the loop of look, plan and write until nothing is left to wipe."""

from __future__ import annotations

from functools import partial

from bootstrap.errors import Refused
from bootstrap.model.plan import Refusal
from bootstrap.plan.reinit import wiping
from bootstrap.run.reconcile import Reconciler


def wipe(run: Reconciler, confirm: str) -> bool:
    """Wipes every node of the cluster with that fingerprint; True when there was something to wipe. Raises Refused,
    with what would be destroyed, for another fingerprint, and Misconfigured where a server would deny a wipe.
    """
    wiped = False
    while True:
        view, decision = run.decide(planner=partial(wiping, confirm=confirm))
        if run.first_view is None:
            run.begin_with(view, decision)
        if isinstance(decision, Refusal):
            raise Refused.because(decision.reasons)
        if not decision:
            return wiped
        run.rights.check(decision, view)
        wiped = True
        run.do(decision.phases[0], view)
