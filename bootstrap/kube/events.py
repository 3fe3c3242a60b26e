"""Events about the StatefulSet, where `kubectl describe` looks: what a run's outcome tells, and nothing depends on it.

What is said again in the same words becomes a series of one Event, so that a run every few minutes leaves not one more
line than a single run: Kubernetes shows how often, and when last.
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
"""Bytes; Kubernetes takes no longer note."""
INSTANCE_MAX = 128
_ENDS_WELL = ("formed", "repaired", "scaled", "reinitialised")


def reason_of(word: str) -> str:
    """An outcome's word as Events have it: `formed` → `BootstrapFormed`."""
    return f"Bootstrap{word.capitalize()}"


def note_of(outcome: Outcome) -> str:
    """The outcome in a person's words. Nothing in it changes from one healthy run to the next."""
    if outcome.reasons:
        told = (f"{reason.message} → {reason.remedy}" for reason in outcome.reasons)
        return cut("; ".join(told))
    note = f"{outcome.shards} shards on {outcome.nodes} nodes, {outcome.slots_covered} slots covered"
    if outcome.outcome in _ENDS_WELL:
        note += f", {outcome.steps} steps in {outcome.took_s} s"
    return cut(f"{note}, cluster {outcome.cluster or '-'}")


def cut(note: str) -> str:
    """At most 1024 bytes of it."""
    raw = note.encode()
    return note if len(raw) <= NOTE_MAX else raw[: NOTE_MAX - 3].decode(errors="ignore") + "…"


class EventRecorder:
    """The pen of one run: `instance` is its pod."""

    def __init__(self, kube: KubeClient, *, statefulset: str, instance: str) -> None:
        self._kube = kube
        self._statefulset = statefulset
        self._instance = instance[:INSTANCE_MAX]

    def record(self, reason: str, note: str, *, good: bool, uid: str) -> None:
        """One Event about the StatefulSet with that uid, or one more in its series. Raises ApiError."""
        told = json.dumps([self._statefulset, uid, reason, note])
        name = f"{self._statefulset}.{hashlib.sha256(told.encode()).hexdigest()[:16]}"
        try:
            count = int((self._kube.get(EVENTS, name).get("series") or {}).get("count") or 1)
        except NotFound:
            with suppress(Conflict):  # two runs that say the same at once: it is said
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
