"""Events about the StatefulSet, for `kubectl describe statefulset`. No decision depends on them.

An Event with the same text becomes a series: Kubernetes counts it and shows the latest time. So a run every few minutes
adds no more lines than a single run.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime

from bootstrap.errors import Conflict, NotFound
from bootstrap.kube.client import EVENTS, KubeClient, Object
from bootstrap.model.outcome import Outcome

CONTROLLER = "redis-cluster-bootstrap"
NOTE_MAX = 1024
"""Bytes; the limit of Kubernetes for a note."""
INSTANCE_MAX = 128
"""Characters; the limit of Kubernetes for the name of the reporting instance."""
_CHANGED = ("formed", "repaired", "scaled", "reinitialised", "adopted", "returned", "finished", "imported")


def reason_of(word: str) -> str:
    """The reason of an Event, from an outcome's word: `formed` → `BootstrapFormed`."""
    return f"Bootstrap{word.capitalize()}"


def note_of(outcome: Outcome) -> str:
    """The outcome as text. It is the same for each run on a healthy cluster, so that these runs make one series."""
    if outcome.reasons:
        return cut("; ".join(f"{reason.message} → {reason.remedy}" for reason in outcome.reasons))
    note = f"{outcome.shards} shards on {outcome.nodes} nodes, {outcome.slots_covered} slots covered"
    if outcome.outcome in _CHANGED:
        note += f", {outcome.steps} steps in {outcome.took_s} s"
    note += f", cluster {outcome.cluster or '-'}"
    stopping = [point for point in outcome.placement.single_points if point.stops]
    return cut(f"{note}; single point of failure: {stopping[0]}" if stopping else note)


def cut(note: str) -> str:
    """The note, cut to 1024 bytes of UTF-8."""
    raw = note.encode()
    return note if len(raw) <= NOTE_MAX else raw[: NOTE_MAX - 3].decode(errors="ignore") + "…"


class EventRecorder:
    """Records Events about one StatefulSet; `instance` is the pod of this run."""

    def __init__(self, kube: KubeClient, *, statefulset: str, instance: str) -> None:
        self._kube = kube
        self._statefulset = statefulset
        self._instance = instance[:INSTANCE_MAX]

    def record(self, reason: str, note: str, *, good: bool, uid: str) -> None:
        """Creates an Event about the StatefulSet with that uid, or counts one up. Raises ApiError."""
        identity = json.dumps([self._statefulset, uid, reason, note])
        name = f"{self._statefulset}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        try:
            count = int((self._kube.get(EVENTS, name).get("series") or {}).get("count") or 1)
        except NotFound:
            with suppress(Conflict):  # another run has just created the same Event
                self._kube.create(EVENTS, self._event(name, reason, note, good=good, uid=uid))
        else:
            series = {"count": count + 1, "lastObservedTime": _now()}
            self._kube.patch(EVENTS, name, {"series": series})

    def _event(self, name: str, reason: str, note: str, *, good: bool, uid: str) -> Object:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self._kube.namespace},
            "eventTime": _now(),
            "type": "Normal" if good else "Warning",
            "reason": reason,
            "note": note,
            "action": "Bootstrap",
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "name": self._statefulset,
                "namespace": self._kube.namespace,
                **({"uid": uid} if uid else {}),
            },
        }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
