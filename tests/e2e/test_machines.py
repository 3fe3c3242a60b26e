"""Machines of a real cluster that crash, one after the other, while a client writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.manifests.kustomize import COMPONENTS
from tests.waiting import wait_until

from .harness import PODS_S, RUN_S, Namespace, environment, on_machine
from .requirements import needs_disks
from .test_repair import BY_HAND

ZONE_AWARE = COMPONENTS / "zone-aware"
ROUNDS = 3
WRITES_S = 75.0
"""Longer than Kubernetes takes to report a machine as lost."""
BEFORE = 50
"""Keys that are written before the crash."""
PAUSE_MAX_S = 45.0
"""For clients. The node timeout is 5 s, an election takes some more; without a majority the pause does not end."""


crashes = pytest.mark.skipif(
    not (environment("E2E_CRASH") and environment("E2E_START")),
    reason="needs E2E_CRASH and E2E_START, commands that crash and start the machine {node}",
)


@crashes
@pytest.mark.timeout(1800)
def test_after_each_repair_one_more_crash_costs_seconds(namespace: Namespace) -> None:
    """Three times: the machine with most masters crashes, clients go on, it comes back, and a run spreads the masters.

    No write that a replica had acknowledged, too, is lost.
    """
    needs_disks(namespace, "production")
    namespace.apply("production", patches=[BY_HAND])
    assert namespace.ended().condition == "Complete"
    namespace.wait_for_servers()
    if len(set(machines(namespace).values())) < 3:
        pytest.skip("needs pods on three machines")
    run = namespace.run("before")
    assert stopping(run.outcome) == []
    copied: list[int] = []
    first, crashed = 0, ""
    for number in range(ROUNDS):
        crashed = next_machine(namespace, run.masters, but=crashed)
        found = crash_while_writing(namespace, crashed, first, client=f"client-{number}")
        assert found["longest_s"] < PAUSE_MAX_S, found["longest_s"]
        copied, first = [*copied, *found["copied"]], found["next"]
        run = namespace.run(f"heal-{number}")
        assert (run.condition, stopping(run.outcome)) == ("Complete", []), run.log
        namespace.wait_for_servers()
    assert namespace.client("found", json.dumps(copied), name="reader") == str(len(copied))


@crashes
@pytest.mark.timeout(1200)
def test_the_others_serve_without_a_machine_that_never_returns(namespace: Namespace) -> None:
    """A machine is dead for good and all other pods have restarted: the pods that are there serve every key, and the
    run names the machine. Its pods are given up as docs/operations.md says; they come back blank, and nothing is lost.
    """
    needs_disks(namespace, "production")
    namespace.apply("production", components=[ZONE_AWARE], namespace=namespace.name, patches=[BY_HAND])
    assert namespace.ended().condition == "Complete"
    namespace.wait_for_servers()
    where = machines(namespace)
    if len(set(where.values())) < 3:
        pytest.skip("needs pods on three machines")
    assert namespace.client("write", "0", str(BEFORE), name="writer") == str(BEFORE)
    run = namespace.run("before")
    dead = next_machine(namespace, run.masters, but="")
    lost = sorted(pod for pod, machine in where.items() if machine == dead)
    others = sorted(where.keys() - set(lost))
    short = {"data": {"BOOTSTRAP_DEADLINE_S": "60"}}
    namespace.kubectl("patch", "configmap", "redis-bootstrap-settings", "--patch", json.dumps(short))
    try:
        on_machine(environment("E2E_CRASH"), dead)
        wait_until(lambda: not ready(namespace, dead), f"{dead} is not ready", PODS_S)
        uids = {pod["metadata"]["uid"] for pod in namespace.servers().values()}
        namespace.kubectl("delete", "pods", *others, "--force", "--grace-period=0")
        namespace.wait_for_servers(len(others), ready=False, but=frozenset(uids))
        namespace.start("without")
        elsewhere = machines(namespace)[others[0]]
        reading = partial(namespace.client, "read", "0", str(BEFORE), name="reader", node=elsewhere)
        wait_until(lambda: succeeds(reading, str(BEFORE)), "every key is read", PAUSE_MAX_S)
        said = wait_until(lambda: namespace.first_outcome("without"), "the first try ends", RUN_S)
        assert (said["exit_code"], said["serving"]) == (1, True), said
        assert sorted(reason["node"] for reason in said["reasons"] if "node" in reason) == lost
        (machine,) = (reason for reason in said["reasons"] if reason["code"] == "machine-not-ready")
        assert dead in machine["message"]
        assert all(f"data-{pod}" in machine["remedy"] for pod in lost), machine["remedy"]
        namespace.kubectl("delete", "pvc", *(f"data-{pod}" for pod in lost), "--wait=false")
        namespace.kubectl("delete", "pod", *lost, "--force", "--grace-period=0")
        assert namespace.ended("without").outcome["outcome"] == "repaired"
        namespace.wait_for_servers()
        assert reading() == str(BEFORE)
        assert dead not in machines(namespace).values()
    finally:
        on_machine(environment("E2E_START"), dead)


def succeeds(reading: Callable[[], str], expected: str) -> bool:
    """Whether the client ends without an error, and with that output."""
    try:
        return reading() == expected
    except AssertionError:
        return False


def crash_while_writing(namespace: Namespace, machine: str, first: int, *, client: str) -> dict[str, Any]:
    """What a client on another machine reports: it writes before, during and after the crash."""
    elsewhere = min(set(machines(namespace).values()) - {machine})
    namespace.client("write", str(first), str(first + 1), name=client, node=elsewhere)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(namespace.client, "endure", str(WRITES_S), str(first), name=client)
        try:
            there = ("read", str(first + BEFORE), str(first + BEFORE + 1))
            wait_until(lambda: namespace.client(*there, name=client) == "1", "the client writes", PODS_S)
            on_machine(environment("E2E_CRASH"), machine)
            found: dict[str, Any] = json.loads(writing.result())
        finally:
            on_machine(environment("E2E_START"), machine)
    wait_until(lambda: ready(namespace, machine), f"{machine} is ready", PODS_S)
    return found


def next_machine(namespace: Namespace, masters: Collection[str], *, but: str) -> str:
    """The machine with most masters, other than the one that crashed last."""
    where = machines(namespace)
    counts = Counter(dict.fromkeys(sorted(set(where.values()) - {but}), 0))
    counts.update(where[pod] for pod in sorted(masters) if where[pod] != but)
    return counts.most_common(1)[0][0]


def machines(namespace: Namespace) -> dict[str, str]:
    """The machine of each server."""
    return {name: str(pod["spec"]["nodeName"]) for name, pod in namespace.servers().items()}


def ready(namespace: Namespace, machine: str) -> bool:
    """Whether Kubernetes reports that machine as ready."""
    conditions = namespace.get("node", machine)["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def stopping(outcome: dict[str, Any]) -> list[str]:
    """Machines and zones that could stop the cluster."""
    return [point["name"] for point in outcome["placement"]["single_points"] if point["stops"]]
