"""The status of a pod in words: why its containers do not run, in those of Kubernetes and of the server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from bootstrap.kube.client import Object

SERVER_WORDS_MAX = 240
"""Characters of the last words of a server."""
COMPLAINTS_MAX = 3
"""The cause, and up to two consequences: `Can't handle RDB format version 12`, of which file, and that it is fatal."""
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
_COMPLAINT = re.compile(r"can't|cannot|error|fail|fatal|bad |wrong|unrecoverable|no such|denied|abort", re.IGNORECASE)
_WHOM = " restarting failed container="
"""What the kubelet's words for CrashLoopBackOff go on with: container, pod and uid."""
_LINE_START = re.compile(r"^[0-9]+:[A-Z] .{11,24} [*#.-] ")
"""The process, role and time before a line of a server's log."""


def errors(item: Object) -> Iterator[str]:
    """Why a pod may not answer: terminating, unschedulable, evicted, waiting (with the kubelet's reason), ended or
    restarting. Nothing for a pod that runs.
    """
    status = item.get("status") or {}
    node, terminating = item["spec"].get("nodeName"), item["metadata"].get("deletionTimestamp")
    if terminating:
        yield f"terminating on {node}" if node else "terminating"
    found = [*broken(item)]
    yield from found
    if not (found or terminating or status.get("phase") == "Running"):
        containers = status.get("containerStatuses") or ()
        starting = {(each.get("state") or {}).get("waiting", {}).get("reason") for each in containers} - {None}
        yield ": ".join([str(status.get("phase") or "Unknown"), *sorted(starting)])


def broken(item: Object) -> Iterator[str]:
    """Why a pod's containers do not run although they should: what does not pass while a pod starts or ends."""
    status = item.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield in_words(condition)
            return
    if status.get("reason"):  # of the kubelet, such as Evicted, or of the node controller, such as NodeLost
        yield in_words(status)
        return
    init_containers, containers = status.get("initContainerStatuses") or (), status.get("containerStatuses") or ()
    yield from _stuck(each for each in init_containers if _exit_code(each) != 0)
    yield from _stuck(containers)


def _stuck(containers: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Why each container that should run does not."""
    for each in containers:
        state, previous = each.get("state") or {}, (each.get("lastState") or {}).get("terminated")
        waiting, ended = state.get("waiting"), state.get("terminated")
        last = f"container {each['name']} last ended with {_exit(previous)}" if previous else ""
        if waiting and waiting.get("reason") and waiting["reason"] not in _STARTING:
            yield ", ".join(filter(None, (in_words(waiting).partition(_WHOM)[0], last)))
        elif ended:
            yield f"container {each['name']} ended with {_exit(ended)}"
        elif last and not each.get("ready"):
            yield f"{last} and was restarted {each.get('restartCount', 0)} times"


def stopped(status: Mapping[str, Any]) -> bool:
    """True where every container is reported, as waiting or terminated."""
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    running = any((each.get("state") or {}).keys().isdisjoint({"waiting", "terminated"}) for each in containers)
    return bool(status.get("containerStatuses")) and not running


def _exit_code(container: Mapping[str, Any]) -> int | None:
    """0 for an init container that has succeeded, None for one that has not ended."""
    ended = (container.get("state") or {}).get("terminated") or {}
    return ended.get("exitCode")


def _exit(ended: Mapping[str, Any]) -> str:
    """How a container ended, with the last words of its server: the manifests let the kubelet keep the end of its log
    as the termination message (`terminationMessagePolicy`).
    """
    reason = f" ({ended['reason']})" if ended.get("reason") else ""
    words = _last_words(str(ended.get("message") or "")) if ended.get("exitCode") else ""
    return f"exit code {ended.get('exitCode')}{reason}{f': {words}' if words else ''}"


def _last_words(log: str) -> str:
    """The last complaints in the end of a server's log, else its last line; without process, role and time."""
    lines = [_LINE_START.sub("", line).strip() for line in log.splitlines() if line.strip()]
    complaints = [line for line in lines if _COMPLAINT.search(line) and not line.startswith("WARNING")]
    return " | ".join(complaints[-COMPLAINTS_MAX:] or lines[-1:])[:SERVER_WORDS_MAX]


def ready_at(status: Mapping[str, Any]) -> datetime | None:
    """When the pod became ready. The time of the API server has whole seconds and ends in Z."""
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "True":
            with suppress(ValueError):
                return datetime.fromisoformat(str(condition.get("lastTransitionTime"))).astimezone(UTC)
    return None


def in_words(status: Mapping[str, Any]) -> str:
    """The reason and the message of a status or a condition."""
    return ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key))
