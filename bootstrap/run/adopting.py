"""Taking over a cluster: the loop of look, plan and write on both sides, until the declared state is reached."""

from __future__ import annotations

from functools import partial

from bootstrap.clock import Backoff
from bootstrap.errors import AGAIN, NotYet, Reason, Refused
from bootstrap.model.memory import mebibytes
from bootstrap.model.plan import Phase, Refusal
from bootstrap.model.view import ClusterView
from bootstrap.plan.adoption import COPY, adopted, adopting, given_back, joined, linked_old_copies
from bootstrap.plan.adoption_states import PASSES, edited
from bootstrap.plan.settled import settled
from bootstrap.run.ports import World
from bootstrap.run.reasons import in_words
from bootstrap.run.reconcile import Reconciler
from bootstrap.verify import violations


def adopt(run: Reconciler, alone: World) -> ClusterView:
    """Brings both sides to the declared state and returns the view that proves it; or, where no old node is left, a
    view in which the pods may still need something. From then on the run sees the pods alone, as `alone` does. Raises
    Refused (with every reason), NotYet or Misconfigured.
    """
    backoff = Backoff(run.clock, run.log)
    copying_since: float | None = None
    while True:
        view, decision = run.decide(planner=adopting)
        if run.first_view is None:
            run.begin_with(view, decision)
        if isinstance(decision, Refusal):
            run.check_lock()
            passes = all(reason.code in PASSES for reason in decision.reasons)
            raise (NotYet if passes else Refused).because(decision.reasons)
        if decision.then_refused:
            raise Refused.because(decision.then_refused)
        if not two_sides(view):
            run.use(alone)
            return view
        if not decision:
            if given_back(view) and not joined(view):
                return view  # two clusters that do not know each other
            bad = violations(view, run.desired)
            if not bad:
                return view
            backoff.wait("not_yet_good", partial(in_words, bad), partial(NotYet.because, bad), deadline=run.deadline)
            continue
        phase = decision.phases[0]
        run.links.check(phase, run.links.explained(view, run.world, run.log))
        if phase.name != COPY:
            copying_since = None
            run.do(phase, view)
            continue
        # The time of a copy does not count: it depends on the size of the data alone.
        began = run.clock.now()
        copying_since = began if copying_since is None else copying_since
        reason = _still_copying(phase, view)
        limit = run.deadline if began - copying_since < run.move_limit_s else run.deadline.sooner(0.0)
        backoff.wait("copying", partial(str, reason.message), partial(NotYet.because, (reason,)), deadline=limit)
        run.deadline = run.deadline.later(run.clock.now() - began)


def two_sides(view: ClusterView) -> bool:
    """Whether an old cluster is there. One of which no node answers any more is not."""
    return bool(view.old_nodes)


def word_of(view: ClusterView) -> str:
    """The outcome of a run that has reached its state while both sides are there."""
    return "adopted" if adopted(view) or not given_back(view) else "returned" if joined(view) else "unchanged"


def advice(view: ClusterView) -> str:
    """What serves, how to go back, and how to finish."""
    linked, of = linked_old_copies(view)
    if given_back(view):
        if not joined(view):
            return f"the old nodes serve, and the pods have not joined them. To take over: {edited('back=off')}"
        return (
            f"the old nodes serve and the pods follow them. To take over again: {edited('back=off')}; elsewhere: "
            "python -m bootstrap apply without --adopt-back"
        )
    return (
        f"the pods serve every slot, and {linked} of {of} old nodes follow them. To go back: {edited('back=on')}; "
        "elsewhere: python -m bootstrap apply --adopt-back on (BOOTSTRAP_ADOPT_BACK). To finish, once you are sure, "
        "which ends the way back: finish=on in the same way, or --adopt-finish on (BOOTSTRAP_ADOPT_FINISH)"
    )


def finished_advice(view: ClusterView) -> str:
    """What to do once the old nodes have left; `view` is the one before."""
    linked, of = linked_old_copies(view)
    silent = ", ".join(peer.pod for peer in view.old.silent) if view.old else ""
    return (
        f"the old nodes have left, {linked} of {of} with a copy of their shard on disk; they can be removed. "
        + (f"Forgotten without an answer: {silent}. " if silent else "")
        + "Then leave BOOTSTRAP_ADOPT empty, and let clients connect to the pods' own Service"
    )


def _still_copying(phase: Phase, view: ClusterView) -> Reason:
    late = [
        node for step in phase.steps for node in view.pods if not settled(step, view) and not node.replication.link_up
    ]
    masters = {node.myself.master_id or "" for node in late}
    size = sum(node.memory.dataset_bytes for node in view.nodes if node.node_id in masters)
    names = ", ".join(node.pod for node in late) or "the pods"
    return Reason(
        code="copying",
        message=f"{names} copy from their masters, {mebibytes(size)} in all",
        remedy=f"a greater BOOTSTRAP_MOVE_DEADLINE_S lets a run wait longer; the copies go on without it: {AGAIN}",
    )
