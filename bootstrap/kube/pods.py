"""The StatefulSet's pods as Kubernetes reports them: where they run, who owns them, and why one does not run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bootstrap.errors import ApiError, Forbidden, NotFound
from bootstrap.kube import pod_status
from bootstrap.kube.client import NODES, PODS, KubeClient, Object
from bootstrap.model.node import Place
from bootstrap.model.rollout import PodRevision, Revisions
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView

ERROR_MAX = 400
"""Characters of Kubernetes's messages about one pod."""
ZONE_LABEL = "topology.kubernetes.io/zone"
ROLE_LABEL, SHARD_LABEL = "redis-role", "redis-shard"
REVISION_LABEL = "controller-revision-hash"
"""Set by the StatefulSet: the revision of the template from which it has made the pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The fields of a pod that this program uses."""

    name: str
    place: Place
    """Its Kubernetes node, and the zone if the pod has the label: Kubernetes 1.35 and newer copy it from the node."""
    address: str
    """Its IP; "" before it has one."""
    addresses: frozenset[str]
    """All its IPs: a dual-stack pod has two."""
    error: str
    """Why it may not answer, in Kubernetes's own words; "" for a pod that runs."""
    labels: tuple[str | None, str | None]
    """The values of `redis-role` and `redis-shard`; None for no label."""
    owner_uid: str
    """The uid of its StatefulSet; "" for an orphan."""
    stopped: bool
    """The kubelet has reported that none of its containers runs."""
    claims: tuple[str, ...]
    """The names of its PersistentVolumeClaims."""
    revision: str
    """The revision of its StatefulSet from which it was made; "" where it has no such label."""
    image: str
    """The image of its first container, as its spec names it."""
    broken: str
    """Why its containers do not run although they should; part of `error`. "" while it starts, or terminates."""
    ready_at: datetime | None
    """When it became ready; None while it is not."""
    terminating: bool


class Pods:
    """The pods of one StatefulSet, matched by name."""

    def __init__(self, kube: KubeClient, statefulset: str, *, read_nodes: bool = False) -> None:
        self._kube = kube
        self._statefulset = statefulset
        self._name = re.compile(rf"{re.escape(statefulset)}-[0-9]+", re.ASCII)
        self._read_nodes = read_nodes

    def look(self) -> Mapping[str, Pod]:
        """Reads every pod of the StatefulSet, by name. Raises ApiError."""
        items = (item for item in self._kube.list(PODS) if self._name.fullmatch(item["metadata"]["name"]))
        return {item["metadata"]["name"]: _pod(item, self._owner_uid(item)) for item in items}

    def places(self, pods: Mapping[str, Pod] | None = None) -> Mapping[str, Place]:
        """The node and zone of every scheduled pod of `pods`, or of a new look, by the pod's name. Raises ApiError.

        The zone comes from the pod's label, else from another pod on that node, else from the Node (`read_nodes`).
        """
        found = self.look() if pods is None else pods
        places = {pod.name: pod.place for pod in found.values() if pod.place.node}
        zones = {place.node: place.zone for place in places.values() if place.zone}
        if self._read_nodes:
            unknown = {place.node for place in places.values()} - zones.keys()
            zones |= {node: self._zone(node) for node in sorted(unknown)}
        return {name: Place(node=place.node, zone=zones.get(place.node, "")) for name, place in places.items()}

    def explain(self, view: ClusterView) -> ClusterView:
        """The view with Kubernetes's explanation added to each unreachable peer, or the ApiError in place of it."""
        try:
            pods = self.look()
            unready = self._unready({pods[peer.pod].place.node for peer in view.unreachable if peer.pod in pods})
        except ApiError as error:
            explained = [_with(peer, str(error)) for peer in view.unreachable]
        else:
            explained = [self._explained(peer, pods.get(peer.pod), unready) for peer in view.unreachable]
        return replace(view, unreachable=tuple(explained))

    def _explained(self, peer: UnreachablePeer, pod: Pod | None, unready: Mapping[str, str]) -> UnreachablePeer:
        """The peer with Kubernetes's explanation, and whether Kubernetes reports that no server runs in its pod.

        Proof of that is: no such pod; a pod bound to no node; a pod none of whose containers runs, on a Ready node. The
        kubelet of a node that is not Ready, or whose state is not known, may have started the container since.
        """
        peer = _with(peer, _explanation(peer, pod))
        if not self._name.fullmatch(peer.pod) or not peer.why.silent:
            return peer
        if pod is None or not pod.place.node:
            return replace(peer, not_running=True)
        if why := unready.get(pod.place.node):
            return replace(_with(peer, why), machine=pod.place.node, claims=pod.claims)
        return replace(peer, not_running=pod.stopped and pod.place.node in unready)

    def _unready(self, nodes: AbstractSet[str]) -> Mapping[str, str]:
        """Why each of these nodes is not Ready, in its own words; "" for a Ready one. A node is missing where its state
        is not known: without `read_nodes`, or without the right to get nodes.
        """
        found: dict[str, str] = {}
        for node in sorted(nodes - {""}) if self._read_nodes else ():
            try:
                found[node] = _not_ready(node, self._kube.get(NODES, node))
            except NotFound:
                found[node] = f"Kubernetes has no node {node} any more"
            except Forbidden:
                break
        return found

    def _zone(self, node: str) -> str:
        with suppress(NotFound):  # a pod may outlive its node by some minutes
            labels = self._kube.get(NODES, node)["metadata"].get("labels") or {}
            return str(labels.get(ZONE_LABEL) or "")
        return ""

    def _owner_uid(self, item: Object) -> str:
        owners = item["metadata"].get("ownerReferences") or ()
        uids = (o["uid"] for o in owners if (o["kind"], o["name"]) == ("StatefulSet", self._statefulset))
        return str(next(uids, ""))


def rollout_of(pods: Iterable[Pod]) -> str:
    """Why pods are being replaced, or will be, in words; "" where they show no sign of that.

    A pod of an older revision is replaced sooner or later: by a rolling update that goes on, or by a person where the
    update strategy is OnDelete or has a partition.
    """
    pods = tuple(pods)
    ending = ", ".join(sorted(pod.name for pod in pods if pod.terminating))
    revisions = {pod.revision for pod in pods if pod.revision}
    words = [f"{ending} terminates" if ending else ""]
    words.append(f"the pods have {len(revisions)} revisions of their StatefulSet" if len(revisions) > 1 else "")
    return "; ".join(filter(None, words))


def revisions_of(pods: Mapping[str, Pod], now: datetime) -> Revisions:
    """The pods as far as they show how far a rollout is; without orphans and pods without a revision."""
    return {
        name: PodRevision(
            revision=pod.revision,
            image=pod.image,
            broken=pod.broken[:ERROR_MAX],
            terminating=pod.terminating,
            ready_s=None if pod.ready_at is None else max(0.0, (now - pod.ready_at).total_seconds()),
        )
        for name, pod in pods.items()
        if pod.revision and pod.owner_uid
    }


def _pod(item: Object, owner_uid: str) -> Pod:
    metadata, status = item["metadata"], item.get("status") or {}
    labels = metadata.get("labels") or {}
    return Pod(
        name=metadata["name"],
        place=Place(node=item["spec"].get("nodeName") or "", zone=labels.get(ZONE_LABEL) or ""),
        address=status.get("podIP") or "",
        addresses=frozenset(
            {status.get("podIP"), *(each.get("ip") for each in status.get("podIPs") or ())} - {None, ""}
        ),
        error="; ".join(pod_status.errors(item)),
        labels=(labels.get(ROLE_LABEL), labels.get(SHARD_LABEL)),
        owner_uid=owner_uid,
        stopped=pod_status.stopped(status),
        claims=tuple(_claims(item)),
        revision=labels.get(REVISION_LABEL) or "",
        image=next((each.get("image") or "" for each in item["spec"].get("containers") or ()), ""),
        broken="" if metadata.get("deletionTimestamp") else "; ".join(pod_status.broken(item)),
        ready_at=pod_status.ready_at(status),
        terminating=bool(metadata.get("deletionTimestamp")),
    )


def _not_ready(name: str, node: Object) -> str:
    """Why a node is not Ready; "" where it is."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready: Mapping[str, Any] = next((condition for condition in conditions if condition["type"] == "Ready"), {})
    if ready.get("status") == "True":
        return ""
    return f"node {name} is not Ready ({pod_status.in_words(ready) or 'it has reported no state'})"


def _explanation(peer: UnreachablePeer, pod: Pod | None) -> str:
    """What Kubernetes reports about a peer that does not answer; for a running pod, where Kubernetes and DNS differ."""
    if pod is None:
        return "Kubernetes has no such pod"
    if pod.error:
        return pod.error
    where = f"the pod runs at {pod.address} on {pod.place.node}"
    if peer.why is UnreachableReason.NO_RECORD:
        return f"{where}, but the DNS does not list it: compare the Service's selector with the pod's labels"
    if peer.address and pod.address and peer.address.host not in pod.addresses and pod.address not in peer.detail:
        return f"{where}: the DNS still has the old address"
    return ""


def _with(peer: UnreachablePeer, error: str) -> UnreachablePeer:
    """The peer with the explanation added to its detail; adding it again changes nothing."""
    error = error[:ERROR_MAX]
    if not error or error in peer.detail:
        return peer
    return replace(peer, detail="; ".join(filter(None, (peer.detail, error))))


def _claims(item: Object) -> Iterator[str]:
    for volume in item["spec"].get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield claim["claimName"]
