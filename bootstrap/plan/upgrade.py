"""Servers of different versions: what runs where, how far a rollout is and whether it can go on, and the verdict on the
way from the old version to the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bootstrap.errors import AGAIN, Reason
from bootstrap.model.node import Node
from bootstrap.model.plan import Finding
from bootstrap.model.rollout import Rollout, rollout_in, shown
from bootstrap.model.versions import PathVerdict, UpgradePath, clashes, copy_path, upgrade_path
from bootstrap.model.view import ClusterView

WAITING_S = 120.0
"""Seconds after which a rollout that replaces no pod is reported to wait. A StatefulSet replaces the next pod within
seconds after the one before it is ready."""


def versions(view: ClusterView) -> Mapping[str, tuple[str, ...]]:
    """The pods that run each version, by ordinal; versions in the order of their first pods."""
    found: dict[str, tuple[str, ...]] = {}
    for node in sorted((*view.pods, *view.spares), key=lambda node: node.ordinal):
        found[node.version] = (*found.get(node.version, ()), node.pod)
    return found


def notices(view: ClusterView) -> Iterator[Finding]:
    """A rollout under way, or servers of different versions without one; the verdict on the way between the versions,
    unless it is good; versions that cannot be in one cluster, and replicas that cannot read a copy of their masters.
    """
    rollout, paths = rollout_in(view.revisions), upgrade_paths(view)
    if rollout:
        yield Finding(code="rollout", message=_under_way(rollout, view, paths))
    elif len(found := versions(view)) > 1:
        each = "; ".join(f"{version} on {shown(pods)}" for version, pods in found.items())
        message = f"the pods run {len(found)} versions: {each}"
        if view.revisions:
            message += "; all of them are of one revision: their image is a tag that has moved"
        yield Finding(code="mixed-versions", message=message)
    for path in paths:
        if path.remedy or path.verdict is not PathVerdict.GOOD:
            yield Finding(code="upgrade-path", message=f"{path}; {path.remedy}" if path.remedy else str(path))
    if len(versions(view)) == 1:
        return
    for reason in clashes({node.pod: node.version for node in view.nodes}, view.statefulset):
        yield Finding(code=reason.code, message=f"{reason.message}; {reason.remedy}")
    yield from _cannot_copy(view)


def stuck(view: ClusterView) -> Mapping[str, str]:
    """The pods at which a rollout stops, and why: their containers do not run, or their servers cannot take a copy."""
    rollout = rollout_in(view.revisions)
    if rollout is None:
        return {}
    found = dict(rollout.broken)
    for node in view.pods:
        trouble = view.link_troubles.get(node.node_id)
        if node.pod in rollout.updated and trouble and trouble.cause.of_version:
            found.setdefault(node.pod, f"it runs, and gets no copy of its master: {trouble.why}")
    return {pod: found[pod] for pod in rollout.updated if pod in found}


def reasons(view: ClusterView, namespace: str) -> tuple[Reason, ...]:
    """One reason for each pod at which a rollout stops, with the command that takes the rollout back."""
    rollout, pods = rollout_in(view.revisions), stuck(view)
    if rollout is None:
        return ()
    kubectl = f"kubectl --namespace {namespace}"
    found = []
    for pod, why in pods.items():
        image = rollout.revisions[pod].image
        message = f"the rollout stops at {pod}{f' (image {image})' if image else ''}: {why}"
        message += f"; {len(rollout.outdated)} of {len(rollout.revisions)} pods keep the revision before it"
        message += ", and clients are served" if view.serves else ""
        remedy = (
            f"{kubectl} rollout undo statefulset/{view.statefulset}, and set the image back in the overlay, because "
            "the next kubectl apply -k would start the rollout again; or correct the image there; "
            f"{kubectl} describe pod {pod} and {kubectl} logs {pod} --previous show more; then {AGAIN}"
        )
        found.append(Reason(code="rollout-stuck", message=message, remedy=remedy, node=pod))
    return tuple(found)


def upgrade_paths(view: ClusterView) -> tuple[UpgradePath, ...]:
    """The ways that a rollout under way takes: from each version that runs on pods of an older revision to the version
    of the newest one. While no pod of that answers, the tag of its image names the version.
    """
    rollout = rollout_in(view.revisions)
    if rollout is None:
        return ()
    running = {node.pod: node.version for node in (*view.pods, *view.spares)}
    old, new = ({pod: running.get(pod) for pod in pods} for pods in (rollout.outdated, rollout.updated))
    targets = sorted({version for version in new.values() if version})
    targets = targets or sorted({rollout.revisions[pod].version for pod in rollout.updated} - {""})
    sources = sorted({version for version in old.values() if version})
    return tuple(upgrade_path(source, target) for source in sources for target in targets if source != target)


def paths_to(wanted: str, view: ClusterView) -> tuple[UpgradePath, ...]:
    """The ways from each version that runs to a planned one; none where none is planned, or nothing else runs."""
    return tuple(upgrade_path(version, wanted) for version in versions(view) if wanted and version != wanted)


def _under_way(rollout: Rollout, view: ClusterView, paths: tuple[UpgradePath, ...]) -> str:
    running = {node.pod: node.version for node in (*view.pods, *view.spares)}
    counts: dict[str, int] = {}
    for pod in (*reversed(rollout.updated), *reversed(rollout.outdated)):
        words = f"run {running[pod]}" if pod in running else "do not answer"
        counts[words] = counts.get(words, 0) + 1
    total = len(rollout.revisions)
    each = [f"{count} {words}" for words, count in counts.items()]
    if len(counts) > 1:
        each[0] = each[0].replace(" ", f" of {total} pods ", 1)
        progress = ", ".join(each)
    else:
        progress = f"{len(rollout.updated)} of {total} pods are replaced; all {each[0].partition(' ')[2]}"
    message = f"rollout under way: {progress}"
    message += "".join(f"; {path.old} → {path.new}: {path.verdict.value}" for path in paths)
    if broken := rollout.broken:
        message += f"; it stops at {shown(tuple(broken))}"
    elif (waiting_s := rollout.waiting_s) >= WAITING_S:
        message += (
            f"; no pod has been replaced for {waiting_s / 60:.0f} min: the StatefulSet may have a partition, or the "
            f"update strategy OnDelete: kubectl get statefulset {view.statefulset} -o jsonpath={{.spec.updateStrategy}}"
        )
    return message


def _cannot_copy(view: ClusterView) -> Iterator[Finding]:
    """Replicas whose versions read no full copy of their masters. They follow as long as they need none."""
    for node in view.pods:
        master = view.by_id.get(node.myself.master_id or "")
        if master and not _copies(master, node):
            message = (
                f"{node.pod} ({node.version}) cannot read a full copy of its master {master.pod} ({master.version}): "
                "it follows only as long as its link does not break for long"
            )
            yield Finding(code="replica-too-old", message=message, node=node.pod)


def _copies(master: Node, replica: Node) -> bool:
    path = copy_path(master.version, replica.version)
    return path.verdict not in (PathVerdict.NO_WAY_BACK, PathVerdict.NOT_POSSIBLE)
