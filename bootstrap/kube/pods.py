"""What Kubernetes says of the StatefulSet's pods: where they run, whom they belong to, and what keeps one away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from bootstrap.errors import ApiError, NotFound
from bootstrap.kube.client import NODES, PODS, KubeClient, Object
from bootstrap.model.node import Place
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView

TROUBLE_MAX = 200
"""Characters of what Kubernetes says of one pod."""
ZONE_LABEL = "topology.kubernetes.io/zone"
ROLE_LABEL, SHARD_LABEL = "redis-role", "redis-shard"
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What is asked for of one pod."""

    name: str
    place: Place
    """Its zone as far as the pod itself tells it: Kubernetes 1.35 and newer copy the label from the node."""
    address: str
    """Its IP; "" before it has one."""
    error: str
    """Why it may not answer, in Kubernetes's words; "" for a pod that runs."""
    labels: tuple[str | None, str | None]
    """`redis-role` and `redis-shard`; None where it has none."""
    owner_uid: str
    """The uid of its StatefulSet; "" for an orphan."""


class Pods:
    """The pods of one StatefulSet, read with the Job's own service account."""

    def __init__(self, kube: KubeClient, statefulset: str, *, read_nodes: bool = False) -> None:
        self._kube = kube
        self._statefulset = statefulset
        self._name = re.compile(rf"{re.escape(statefulset)}-[0-9]+", re.ASCII)
        self._read_nodes = read_nodes

    def look(self) -> Mapping[str, Pod]:
        """Every pod of the StatefulSet by its name. Raises ApiError."""
        mine = (item for item in self._kube.list(PODS) if self._name.fullmatch(item["metadata"]["name"]))
        return {item["metadata"]["name"]: _pod(item, self._owner_uid(item)) for item in mine}

    def places(self) -> Mapping[str, Place]:
        """Where every pod runs that has a Kubernetes node. A zone is known from the pod, or from another pod of that
        node, or from the Node where that may be read (`read_nodes`). Raises ApiError.
        """
        places = {pod.name: pod.place for pod in self.look().values() if pod.place.node}
        zones = {place.node: place.zone for place in places.values() if place.zone}
        if self._read_nodes:
            unknown = {place.node for place in places.values()} - zones.keys()
            zones |= {node: self._zone(node) for node in sorted(unknown)}
        return {name: Place(node=place.node, zone=zones.get(place.node, "")) for name, place in places.items()}

    def explain(self, view: ClusterView) -> ClusterView:
        """The view, with Kubernetes's own words for each absent pod, and where it and the DNS disagree."""
        try:
            pods = self.look()
        except ApiError as error:
            troubles = dict.fromkeys((unreachable.pod for unreachable in view.unreachable), str(error))
        else:
            troubles = {
                unreachable.pod: _of(unreachable, pods.get(unreachable.pod)) for unreachable in view.unreachable
            }
        return replace(
            view, unreachable=tuple(_with(unreachable, troubles[unreachable.pod]) for unreachable in view.unreachable)
        )

    def _zone(self, node: str) -> str:
        with suppress(NotFound):  # a pod may outlive its node by some minutes
            labels = self._kube.get(NODES, node)["metadata"].get("labels") or {}
            return str(labels.get(ZONE_LABEL) or "")
        return ""

    def _owner_uid(self, item: Object) -> str:
        owners = item["metadata"].get("ownerReferences") or ()
        mine = (o["uid"] for o in owners if (o["kind"], o["name"]) == ("StatefulSet", self._statefulset))
        return str(next(mine, ""))


def _pod(item: Object, owner_uid: str) -> Pod:
    metadata, status = item["metadata"], item.get("status") or {}
    labels = metadata.get("labels") or {}
    return Pod(
        name=metadata["name"],
        place=Place(node=item["spec"].get("nodeName") or "", zone=labels.get(ZONE_LABEL) or ""),
        address=status.get("podIP") or "",
        error="; ".join(_troubles(item)),
        labels=(labels.get(ROLE_LABEL), labels.get(SHARD_LABEL)),
        owner_uid=owner_uid,
    )


def _of(unreachable: UnreachablePeer, pod: Pod | None) -> str:
    """What Kubernetes says of an absent peer. Where it calls the pod running, that it is the DNS which lags."""
    if pod is None:
        return "no such pod"
    if pod.error:
        return pod.error
    where = f"it runs at {pod.address} on {pod.place.node}"
    if unreachable.why is UnreachableReason.NO_RECORD:
        return f"{where}, which the DNS does not know: does the Service select it?"
    if unreachable.address and pod.address and unreachable.address.host != pod.address:
        return f"{where}: the DNS has not caught up"
    return ""


def _with(unreachable: UnreachablePeer, error: str) -> UnreachablePeer:
    """The peer with Kubernetes's words added to what is known of it, once."""
    error = error[:TROUBLE_MAX]
    if not error or error in unreachable.detail:
        return unreachable
    return replace(unreachable, detail="; ".join(filter(None, (unreachable.detail, error))))


def _troubles(item: Object) -> Iterator[str]:
    """Terminating, unschedulable, evicted, waiting (with the kubelet's reason), ended or restarting; none of a pod that
    runs.
    """
    status = item.get("status") or {}
    node, leaving = item["spec"].get("nodeName"), item["metadata"].get("deletionTimestamp")
    if leaving:
        yield f"terminating on {node}" if node else "terminating"
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield _words(condition)
            return
    if status.get("reason"):  # the kubelet's, such as Evicted, or the node controller's, such as NodeLost
        yield _words(status)
        return
    before, containers = status.get("initContainerStatuses") or (), status.get("containerStatuses") or ()
    stuck = [*_stuck(each for each in before if _exit_code(each) != 0), *_stuck(containers)]
    yield from stuck
    if not (stuck or leaving or status.get("phase") == "Running"):
        starting = {(each.get("state") or {}).get("waiting", {}).get("reason") for each in containers} - {None}
        yield ": ".join([str(status.get("phase") or "Unknown"), *sorted(starting)])


def _stuck(containers: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The containers that do not run as they should."""
    for each in containers:
        state, before = each.get("state") or {}, (each.get("lastState") or {}).get("terminated")
        waiting, ended = state.get("waiting"), state.get("terminated")
        last = f"container {each['name']} ended last with {_exit(before)}" if before else ""
        if waiting and waiting.get("reason") and waiting["reason"] not in _STARTING:
            yield ", ".join(filter(None, (_words(waiting), last)))
        elif ended:
            yield f"container {each['name']} ended with {_exit(ended)}"
        elif last and not each.get("ready"):
            yield f"{last}, and was restarted {each.get('restartCount', 0)} times"


def _exit_code(container: Mapping[str, Any]) -> int | None:
    """0 for an init container that has done its work."""
    ended = (container.get("state") or {}).get("terminated") or {}
    return ended.get("exitCode")


def _exit(ended: Mapping[str, Any]) -> str:
    reason = f" ({ended['reason']})" if ended.get("reason") else ""
    return f"exit code {ended.get('exitCode')}{reason}"


def _words(said: Mapping[str, Any]) -> str:
    return ": ".join(str(said[key]) for key in ("reason", "message") if said.get(key))
