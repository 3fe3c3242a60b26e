"""Events: their content, their number, and their length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.errors import Reason
from bootstrap.kube.client import KubeClient
from bootstrap.kube.events import NOTE_MAX, EventRecorder, cut, note_of, reason_of
from bootstrap.model.outcome import Outcome
from bootstrap.run.report import outcome_of
from tests.builders import formed, shape
from tests.kube.api import NAMESPACE, Asked, KubeApi

Client = Callable[..., KubeClient]


def outcome(word: str, exit_code: int = 0, took_s: float = 1.5, *reasons: Reason) -> Outcome:
    view = formed(shape()).look()
    return outcome_of(word, view, exit_code=exit_code, steps=39, took_s=took_s, reasons=reasons)


def recorder(client: Client, instance: str = "redis-bootstrap-x") -> EventRecorder:
    return EventRecorder(client(), statefulset="redis-app", instance=instance)


def test_an_event_is_about_the_statefulset(api: KubeApi, client: Client) -> None:
    """With all fields that Kubernetes requires, and the uid by which `kubectl describe` finds it."""
    recorder(client).record("BootstrapFormed", "3 shards", good=True, uid="uid-1")
    (event,) = api.of("events")
    del event["metadata"]["resourceVersion"]
    assert event.pop("eventTime").endswith("Z")
    assert event["metadata"].pop("name").startswith("redis-app.")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": NAMESPACE},
        "type": "Normal",
        "reason": "BootstrapFormed",
        "note": "3 shards",
        "action": "Bootstrap",
        "reportingController": "redis-cluster-bootstrap",
        "reportingInstance": "redis-bootstrap-x",
        "regarding": {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "name": "redis-app",
            "namespace": NAMESPACE,
            "uid": "uid-1",
        },
    }


def test_the_same_text_becomes_a_series(api: KubeApi, client: Client) -> None:
    """Runs every five minutes, each in a pod of its own: one Event, counted. Another text is another Event."""
    for number in range(12):
        recorder(client, f"run-{number}").record("BootstrapUnchanged", "3 shards", good=True, uid="uid-1")
    (event,) = api.of("events")
    assert event["series"]["count"] == 12
    assert event["series"]["lastObservedTime"] > event["eventTime"]
    recorder(client).record("BootstrapUnchanged", "4 shards", good=True, uid="uid-1")
    recorder(client).record(
        "BootstrapUnchanged", "3 shards", good=True, uid="a StatefulSet of that name that came later"
    )
    assert sorted(event.get("series", {}).get("count", 1) for event in api.of("events")) == [1, 1, 12]


def test_two_concurrent_runs_record_the_same_event(api: KubeApi, client: Client) -> None:
    """Another run creates the Event between this run's read and write: that is not an error."""

    def meanwhile(asked: Asked) -> None:
        if asked.what == ("create", "events"):
            api.put("events", (asked.body or {})["metadata"]["name"], asked.body or {})

    api.meanwhile = meanwhile
    recorder(client).record("BootstrapStarted", "3 shards", good=True, uid="uid-1")
    assert len(api.of("events")) == 1


@pytest.mark.parametrize("word", ["started", "formed", "repaired", "scaled", "reinitialised", "refused", "failed"])
def test_a_reason_is_one_word_in_camel_case(word: str) -> None:
    """As Kubernetes's own reasons are."""
    assert reason_of(word) == f"Bootstrap{word.title()}"


def test_a_healthy_cluster_always_has_the_same_note() -> None:
    """A text that varies from run to run would make one Event per run."""
    assert note_of(outcome("unchanged", took_s=1.5)) == note_of(outcome("unchanged", took_s=0.3))
    assert "39 steps in 1.5 s" in note_of(outcome("formed"))
    assert outcome("formed").cluster in note_of(outcome("formed"))


def test_a_failure_has_every_reason_and_remedy_in_its_note() -> None:
    """As in the outcome."""
    one = Reason(code="a", message="slots 0-99 have no copy", remedy="--accept-loss")
    other = Reason(code="b", message="two clusters", remedy="see to it")
    note = note_of(outcome("refused", 3, 1.5, one, other))
    assert note == "slots 0-99 have no copy → --accept-loss; two clusters → see to it"


@given(st.text(max_size=3000))
@settings(deadline=None)
def test_a_note_always_fits(text: str) -> None:
    """1024 bytes, and no partial character; a short note is unchanged."""
    note = cut(text)
    assert len(note.encode()) <= NOTE_MAX
    assert note == text if len(text.encode()) <= NOTE_MAX else note.endswith("…")
    assert text.startswith((note, note.removesuffix("…")))


def test_a_note_of_many_reasons_fits() -> None:
    """With hundreds of reasons the first ones remain."""
    reasons = tuple(Reason(code="c", message=f"redis-app-{n}: größer", remedy="wait") for n in range(300))
    note = note_of(replace(outcome("failed", 1), reasons=reasons))
    assert note.startswith("redis-app-0: größer → wait; redis-app-1")
    assert NOTE_MAX - 4 <= len(note.encode()) <= NOTE_MAX
