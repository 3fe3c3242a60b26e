"""Machines of a real cluster that crash, one after the other, while a client writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.waiting import wait_until

from .harness import PODS_S, Namespace, environment, on_machine
from .requirements import needs_disks
from .test_repair import BY_HAND

ROUNDS = 3
WRITES_S = 75.0
"""Longer than Kubernetes takes to report a machine as lost."""
BEFORE = 50
"""Keys that are written before the crash."""
PAUSE_MAX_S = 45.0
"""For clients. The node timeout is 5 s, an election takes some more; without a majority the pause does not end."""


@pytest.mark.skipif(
    not (environment("E2E_CRASH") and environment("E2E_START")),
    reason="needs E2E_CRASH and E2E_START, commands that crash and start the machine {node}",
)
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
