"""The whole program on real servers, with a Kubernetes API: lock, Events, labels, and the rights that it uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bootstrap.kube.pods import REVISION_LABEL
from bootstrap.local.programs import Program
from bootstrap.local.zone import Zone
from tests.kube.api import Asked, KubeApi, pod
from tests.manifests.kustomize import BASE, build
from tests.real.processes import MEASURE
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until

ON = {"BOOTSTRAP_KUBERNETES": "on"}


def events(api: KubeApi) -> list[tuple[str, str, int]]:
    """Type, reason and count of each Event, in the order of their first occurrence."""
    ordered = sorted(api.of("events"), key=lambda event: str(event["eventTime"]))
    return [(event["type"], event["reason"], event.get("series", {}).get("count", 1)) for event in ordered]


def holder(api: KubeApi) -> str:
    (lease,) = api.of("leases")
    return str(lease["spec"]["holderIdentity"])


def test_runs_use_the_rights_of_the_role_and_no_others(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed
) -> None:
    """A first and a second run use every verb of every rule of k8s/base, and no other verb."""
    six = start_testbed(any_program)
    assert six.run("apply", **ON).outcome["outcome"] == "formed"
    assert six.run("apply", **ON).outcome["outcome"] == "unchanged"
    (role,) = build(BASE).of_kind("Role")
    granted = {(verb, plural) for rule in role["rules"] for plural in rule["resources"] for verb in rule["verbs"]}
    assert {asked.what for asked in api.asked} == granted
    named = {name for rule in role["rules"] for name in rule.get("resourceNames", ())}
    assert {asked.name for asked in api.asked if asked.plural == "leases" and asked.name} == named
    assert events(api) == [
        ("Normal", "BootstrapStarted", 2),
        ("Normal", "BootstrapFormed", 1),
        ("Normal", "BootstrapUnchanged", 1),
    ]
    assert holder(api) == ""


def test_each_right_is_needed(api: KubeApi, any_program: Program, start_testbed: StartTestbed) -> None:
    """Without any one of the Role's verbs a request fails. The log or the outcome names the verb."""
    six = start_testbed(any_program)
    (role,) = build(BASE).of_kind("Role")
    for verb, plural in [(v, p) for rule in role["rules"] for p in rule["resources"] for v in rule["verbs"]]:
        api.forbidden = set()
        assert six.run("apply", **ON).exit_code == 0
        if verb == "create":
            api.objects = {key: found for key, found in api.objects.items() if key[0] != plural}
        api.forbidden = {(verb, plural)}
        result = six.run("apply", **ON)
        assert f"let this account {verb} {plural}" in result.text, (verb, plural)
        assert result.exit_code == (4 if plural == "leases" else 0), (verb, plural)


def test_of_two_parallel_runs_one_forms_and_the_other_changes_nothing(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed
) -> None:
    """The second run acquires the Lease only after the first has released it. Then it has nothing to do."""
    six = start_testbed(any_program)
    import_module("kubernetes.client")  # a process has one run, and never imports it in two threads
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: six.run("apply", **ON), range(2)))
    assert sorted(result.outcome["outcome"] for result in results) == ["formed", "unchanged"]
    holders = [asked.body["spec"]["holderIdentity"] for asked in api.asked if asked.plural == "leases" and asked.body]
    turns = [one for one, before in zip(holders, [None, *holders], strict=False) if one != before]
    assert turns.count("") == 2, "each run released the Lease"
    assert [result.outcome["steps"] for result in results if result.outcome["outcome"] == "unchanged"] == [0]


@pytest.mark.parametrize("verb", ["apply", "plan", "verify"])
def test_a_rollout_that_cannot_go_on_is_named_first(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed, verb: str
) -> None:
    """The pod, why it does not start, and the command that takes the rollout back; the cluster serves."""
    six = start_testbed(any_program)
    assert six.run("apply", **ON).exit_code == 0
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "redis:8.99"'}
    container = {"name": "redis", "state": {"waiting": waiting}, "ready": False}
    broken: dict[str, Any] = {"phase": "Pending", "containerStatuses": [container]}
    for number in range(6):
        labels = {REVISION_LABEL: "redis-app-2b" if number == 5 else "redis-app-1a"}
        name = f"redis-app-{number}"
        api.put("pods", name, pod(name, labels=labels, **(broken if number == 5 else {})))
    six.cluster.servers[5].terminate()
    run = six.run(verb, BOOTSTRAP_DEADLINE_S="8", **ON)
    assert (run.exit_code, run.outcome["serving"]) == (1, True), run.text
    reason = run.outcome["reasons"][0]
    assert (reason["code"], reason["node"]) == ("rollout-stuck", "redis-app-5")
    assert 'ImagePullBackOff: Back-off pulling image "redis:8.99"' in reason["message"]
    assert "rollout undo statefulset/redis-app" in reason["remedy"]
    (line,) = (each for each in run.lines if each["event"] == "rollout")
    assert "1 of 6 pods do not answer, 5 run" in line["why"]
    assert "it stops at redis-app-5" in line["why"]


def test_labels_are_set_if_they_are_configured(api: KubeApi, any_program: Program, start_testbed: StartTestbed) -> None:
    """After forming, the labels of each pod are its role and its shard, as in the printed table."""
    six = start_testbed(any_program)
    result = six.run("apply", BOOTSTRAP_ROLE_LABELS="on", **ON)
    assert result.exit_code == 0, result.text
    found = [each["metadata"]["labels"] for each in api.of("pods")]
    rows = [line.split() for line in result.text.splitlines() if line.startswith("redis-app-")]
    in_table = {row[0]: {"redis-role": row[1], "redis-shard": row[2]} for row in rows}
    assert {each["metadata"]["name"]: labels for each, labels in zip(api.of("pods"), found, strict=True)} == in_table


def test_labels_that_cannot_be_set_fail_the_run(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed
) -> None:
    """The cluster is formed. The outcome names the missing right, and there is an Event."""
    six = start_testbed(any_program)
    api.forbidden.add(("patch", "pods"))
    result = six.run("apply", BOOTSTRAP_ROLE_LABELS="on", **ON)
    assert (result.exit_code, result.outcome["outcome"]) == (4, "failed")
    assert result.outcome["slots_covered"] == 16384
    assert "patch pods" in result.outcome["reasons"][0]["remedy"]
    assert events(api)[-1][:2] == ("Warning", "BootstrapFailed")
    assert holder(api) == ""


def test_a_refusal_is_an_event_with_its_reasons(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed
) -> None:
    """Seven pods are one too many: exit code 3, and a Warning whose note contains the reason of the outcome."""
    seven = start_testbed(any_program, servers=7)
    result = seven.run("apply", **ON)
    assert (result.exit_code, result.outcome["outcome"]) == (3, "refused")
    (event,) = [each for each in api.of("events") if each["reason"] == "BootstrapRefused"]
    assert event["type"] == "Warning"
    assert result.outcome["reasons"][0]["message"] in event["note"]


def test_no_secret_reaches_kubernetes(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """A wrong password is reported in the outcome and in an Event. Neither of them shows it."""
    six = start_testbed(any_program, config=("requirepass rightone", "masterauth rightone"))
    secret = tmp_path / "password"
    secret.write_text("wrongone")
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="2", BOOTSTRAP_PASSWORD_FILE=str(secret), **ON)
    assert result.exit_code == 4
    sent = repr(api.asked)
    assert "rejects the user name or password" in sent
    for hidden in ("wrongone", "rightone"):
        assert hidden not in sent
        assert hidden not in result.text
    assert "token-of-the-account" not in result.text


def test_a_pod_that_is_missing_is_explained(api: KubeApi, any_program: Program, start_testbed: StartTestbed) -> None:
    """The reason from Kubernetes is in the log during the wait, in the outcome, and in the Event."""
    six = start_testbed(any_program)
    six.cluster.servers[5].kill()
    zone = six.cluster.nameserver.zone
    six.cluster.nameserver.publish(Zone(pods=zone.pods[:5]))
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    api.put("pods", "redis-app-5", pod("redis-app-5", node="", phase="Pending", conditions=[why]))
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="3", **ON)
    message = "redis-app-5: no DNS record (Unschedulable: 0/3 nodes are available)"
    assert result.exit_code == 1
    assert result.outcome["reasons"][0]["message"] == message
    assert message in str([line["why"] for line in result.lines if line["event"] == "waiting_for_peers"])
    assert message in next(event["note"] for event in api.of("events") if event["reason"] == "BootstrapFailed")


def test_plan_and_verify_take_no_lock(api: KubeApi, any_program: Program, start_testbed: StartTestbed) -> None:
    """`plan` and `verify` write nothing. Their only request lists the pods, to learn where they run."""
    six = start_testbed(any_program)
    assert six.run("plan", **ON).outcome["outcome"] == "planned"
    assert six.run("verify", **ON).outcome["outcome"] == "failed"
    assert {asked.what for asked in api.asked} == {("list", "pods")}


INSIDE = """
import sys
from pathlib import Path
from bootstrap.kube import client as kube
kube.ACCOUNT = Path(sys.argv.pop(1))
from bootstrap.__main__ import _entry
sys.exit(_entry())
"""
"""The program as a separate process, with a service account at another path than in a pod."""


def start(six: Testbed, api: KubeApi, **variables: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOTSTRAP_")}
    return subprocess.Popen(
        [sys.executable, "-c", INSIDE, api.folder, "apply"],
        env={**clean, **six.variables, **ON, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_inside_kubernetes_uses_little_memory(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed
) -> None:
    """The limit includes lock, Events and pods. The client library takes 43 MB, the run 42 MB, and they share some."""
    six = start_testbed(any_program)
    six.run("apply")
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, sys.executable, "-c", INSIDE, api.folder, "apply"],
        env={**os.environ, **six.variables, **ON},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [asked.verb for asked in api.asked if asked.plural == "leases"] == ["get", "create", "update", "update"]
    assert int(measured.stdout.splitlines()[-1]) < 80_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_releases_the_lease(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed, number: signal.Signals
) -> None:
    """While the run waits for a pod: exit code 1, the Lease free immediately, an Event, nothing on standard error."""
    six = start_testbed(any_program)
    six.cluster.servers[5].kill()
    running = start(six, api)
    try:
        wait_until(lambda: ("Normal", "BootstrapStarted", 1) in events(api))
        assert holder(api) != ""
        running.send_signal(number)
        out, err = running.communicate(timeout=20)
    finally:
        running.kill()
        running.wait(10)
    assert (running.returncode, err) == (1, "")
    assert f"{number.name} ended the run" in out.splitlines()[-1]
    assert holder(api) == ""
    assert events(api)[-1] == ("Warning", "BootstrapFailed", 1)


def test_a_killed_run_blocks_the_next_one_for_a_while(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed
) -> None:
    """SIGKILL leaves the Lease held. A run that starts soon after waits, names the holder, and exits with code 1."""
    six = start_testbed(any_program)
    reached: list[Asked] = []
    api.meanwhile = lambda asked: reached.append(asked) if asked.what == ("create", "events") else None
    running = start(six, api)
    try:
        wait_until(lambda: bool(reached))
    finally:
        running.kill()
        running.communicate(timeout=10)
    dead_holder = holder(api)
    assert dead_holder
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="3", **ON)
    assert (result.exit_code, result.outcome["reasons"][0]["code"]) == (1, "lock-held")
    assert dead_holder in result.outcome["reasons"][0]["message"]
    assert holder(api) == dead_holder
