"""Events, labels and places of a whole run: a fake cluster with simulated time, and an API server over HTTPS."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bootstrap.errors import ApiError, Misconfigured, Reason
from bootstrap.kube import client as kube
from bootstrap.kube.in_kubernetes import PLACES_FOR_S, InKubernetes
from bootstrap.kube.integration import integration_for
from bootstrap.kube.last_run import annotations_of
from bootstrap.model.node import Address, Place
from bootstrap.run.report import outcome_of
from bootstrap.verify import violations
from tests.kube.api import KubeApi, pod
from tests.kube.servers import SETTINGS, Servers, converge
from tests.run.runs import SHAPE, Notes, run_on


def test_an_event_that_cannot_be_written_changes_nothing(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """Two warnings in the log name the missing right; the run succeeds."""
    servers, log = Servers(), Notes()
    api.forbidden.add(("get", "events"))
    around, run = inside(servers, log=log), run_on(servers)
    view = converge(around, run)
    around.record(outcome_of("formed", view, exit_code=0, steps=1, took_s=1.0))
    assert [line["reason"] for line in log.of("event_not_written")] == ["BootstrapStarted", "BootstrapFormed"]
    assert "get events.events.k8s.io" in str(log.of("event_not_written")[0]["why"])


def test_the_outcome_is_found_at_the_lease(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """After the Job and its log are gone: the word, the times, and the code of each reason once."""
    servers = Servers()
    around, run = inside(servers), run_on(servers)
    view = converge(around, run)
    reasons = [Reason(code=code, message="m", remedy="r") for code in ("slots-lost", "lost-member", "slots-lost")]
    around.record(outcome_of("refused", view, exit_code=3, steps=1, took_s=1.234, reasons=reasons))
    (lease,) = api.of("leases")
    ended = lease["metadata"]["annotations"].pop("redis-bootstrap/ended-at")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ended)
    change = json.loads(lease["metadata"]["annotations"].pop("redis-bootstrap/changes"))
    assert (change["outcome"], change["steps"], change["ended-at"]) == ("refused", "1", ended)
    assert lease["metadata"]["annotations"] == {
        "redis-bootstrap/outcome": "refused",
        "redis-bootstrap/exit-code": "3",
        "redis-bootstrap/steps": "1",
        "redis-bootstrap/took-s": "1.23",
        "redis-bootstrap/reasons": "slots-lost,lost-member",
    }


def test_runs_that_changed_something_stay_at_the_lease(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """The last ten, the newest first, however many runs find nothing to do. What somebody else wrote is dropped."""
    name, view = "redis-bootstrap/changes", converge(inside(Servers()), run_on(Servers()))
    before: dict[str, str] = {name: "not of this program"}
    for number in range(1, 13):
        repaired = outcome_of("repaired", view, exit_code=0, steps=number, took_s=1.0)
        quiet = outcome_of("unchanged", view, exit_code=0, steps=0, took_s=0.1)
        for each in (repaired, quiet, quiet):
            before |= annotations_of(each, datetime.now(UTC), pod=f"run-{number}", before=before)
    kept = [json.loads(line) for line in before[name].splitlines()]
    assert [(each["pod"], each["steps"]) for each in kept] == [(f"run-{n}", str(n)) for n in range(12, 2, -1)]
    assert before["redis-bootstrap/outcome"] == "unchanged"


def test_an_outcome_that_cannot_be_written_changes_nothing(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """A warning; the run has succeeded all the same."""
    servers, log = Servers(), Notes()
    around, run = inside(servers, log=log), run_on(servers)
    view = converge(around, run)
    api.failing["update", "leases"] = 503
    around.record(outcome_of("formed", view, exit_code=0, steps=1, took_s=1.0))
    assert len(log.of("lease_not_annotated")) == 1


def test_a_run_that_only_looks_leaves_no_event(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """`plan` and `verify` take no lock, write nothing, and send Kubernetes no Event."""
    servers = Servers()
    inside(servers).record(outcome_of("planned", servers.look(), exit_code=0, steps=0, took_s=1.0))
    assert api.asked == []


def test_labels_are_set_where_they_are_wanted(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """At the end of a run, while it still holds the Lease; without the setting no pod is patched."""
    servers = Servers()
    converge(inside(servers), run_on(servers))
    assert api.times("patch", "pods") == 0
    log = Notes()
    converge(inside(servers, settings=replace(SETTINGS, role_labels=True), log=log), run_on(servers))
    assert log.of("pods_labelled") == [{"pods": 6}]
    order = [asked.what for asked in api.asked]
    last_patch = max(number for number, what in enumerate(order) if what == ("patch", "pods"))
    assert ("update", "leases") in order[last_patch:], "released after the last patch"


def test_outside_kubernetes_the_integration_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method does nothing, but labels that are on and cannot be set are a misconfiguration."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    servers = Servers()
    around = integration_for(SETTINGS, clock=servers, log=Notes())
    run = run_on(servers)
    assert violations(converge(around, run), SHAPE) == ()
    assert around.explain(run.view) is run.view
    assert around.with_places(run.view) is run.view
    with pytest.raises(Misconfigured, match="BOOTSTRAP_ROLE_LABELS"):
        integration_for(replace(SETTINGS, role_labels=True), clock=servers, log=Notes())


def test_inside_a_pod_kubernetes_is_used(api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet provides the service account and the variables."""
    monkeypatch.setattr(kube, "ACCOUNT", api.folder)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    servers = Servers()
    around = integration_for(SETTINGS, clock=servers, log=Notes())
    assert isinstance(around, InKubernetes)
    api.put("pods", "redis-app-0", pod("redis-app-0", node="node7"))
    assert around.with_places(servers.look()).places == {"redis-app-0": Place(node="node7")}
    api.put("pods", "redis-app-0", pod("redis-app-0", node="node8"))
    assert around.with_places(servers.look()).places == {"redis-app-0": Place(node="node7")}, "read once"
    servers[0].address = Address("10.0.9.1", 6379)
    assert around.with_places(servers.look()).places == {"redis-app-0": Place(node="node8")}, "read again: a pod moved"


def test_a_rollout_that_begins_during_a_run_is_seen(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """The pods are read again after some seconds. If Kubernetes does not answer then, that counts as a rollout."""
    servers = Servers()
    around = inside(servers)
    assert around.with_places(servers.look()).rollout == ""
    ending = pod("redis-app-3", node="node3")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.put("pods", "redis-app-3", ending)
    assert around.with_places(servers.look()).rollout == "", "not at every look"
    servers.time += PLACES_FOR_S
    assert around.with_places(servers.look()).rollout == "redis-app-3 terminates"
    api.failing["list", "pods"] = 503
    servers.time += PLACES_FOR_S
    view = around.with_places(servers.look())
    assert view.rollout.startswith("Kubernetes does not report whether pods are being replaced")
    assert view.places["redis-app-3"] == Place(node="node3"), "where a pod runs does not change"


def test_places_are_known_while_pods_are_missing(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """A failed run shows them; one that goes on without them would assign roles for ever, so then they are required."""
    servers, log = Servers(), Notes()
    around = inside(servers, log=log)
    servers[5].alive = False
    assert len(around.with_places(servers.look()).places) == 6
    servers[4].alive = False
    api.failing["list", "pods"] = 503
    assert around.with_places(servers.look()).places == {}
    assert len(log.of("places_unknown")) == 1
    for node in servers.nodes:
        node.alive = True
    with pytest.raises(ApiError):
        around.with_places(servers.look())


def test_places_that_may_not_be_read_are_asked_for_once(api: KubeApi, inside: Callable[..., InKubernetes]) -> None:
    """Roles then follow the ordinals, and no master fails over."""
    servers, log = Servers(), Notes()
    around = inside(servers, log=log)
    api.forbidden.add(("list", "pods"))
    for _ in range(3):
        servers.time += PLACES_FOR_S
        assert around.with_places(servers.look()).places == {}
    assert (len(log.of("places_unknown")), api.times("list", "pods")) == (1, 1)
