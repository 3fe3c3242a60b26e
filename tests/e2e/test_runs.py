"""Runs that are refused because data is at risk, and runs that wait for each other."""

from __future__ import annotations

import json

from .harness import PODS_S, Namespace, until

SUSPENDED = {"target": {"kind": "Job"}, "patch": '[{"op": "add", "path": "/spec/suspend", "value": true}]'}
"""The Job is suspended. Runs from the CronJob are not."""
KEEP = {
    "target": {"kind": "CronJob"},
    "patch": '[{"op": "replace", "path": "/spec/successfulJobsHistoryLimit", "value": 2}]',
}
"""Runs from the CronJob belong to it, and it would delete the first one as soon as the second is complete."""


def test_two_clusters_in_one_service_are_refused(namespace: Namespace) -> None:
    """Both own the same slots and do not know each other: the Job fails immediately, names both, and writes nothing."""
    namespace.apply("minikube", patches=[SUSPENDED])
    namespace.wait_for_servers(ready=False)
    for pod in ("redis-app-0", "redis-app-3"):
        assert namespace.redis(pod, "CLUSTER", "ADDSLOTSRANGE", "0", "16383") == "OK"
    namespace.kubectl("patch", "job", "redis-bootstrap", "-p", '{"spec": {"suspend": false}}')
    run = namespace.ended()
    assert (run.condition, run.reason, len(run.termination_messages)) == ("Failed", "PodFailurePolicy", 1)
    assert (run.outcome["outcome"], run.outcome["exit_code"], run.outcome["steps"]) == ("refused", 3, 0)
    reasons = json.dumps(run.outcome["reasons"])
    assert "redis-app-0" in reasons
    assert "redis-app-3" in reasons
    # Each node still knows only itself.
    assert [len(namespace.redis(f"redis-app-{n}", "CLUSTER", "NODES").splitlines()) for n in range(6)] == [1] * 6


def test_of_two_parallel_runs_one_waits_and_names_the_other(namespace: Namespace) -> None:
    """One holds the Lease while it waits for a missing pod. The other one names the holder, and runs second."""
    namespace.apply("minikube", patches=[SUSPENDED, KEEP], replicas=[{"name": "redis-app", "count": 5}])
    jobs = ("one", "two")
    for job in jobs:
        namespace.start(job)
    second = until(
        lambda: next((job for job in jobs if "held by" in namespace.log(job)), None),
        "one of two runs names the holder of the Lease",
        PODS_S,
    )
    (first,) = set(jobs) - {second}
    (holder,) = namespace.tries(first)
    assert f"held by {holder['metadata']['name']}" in namespace.log(second)
    namespace.kubectl("scale", "statefulset", "redis-app", "--replicas=6")
    assert [namespace.ended(job).outcome["outcome"] for job in (first, second)] == ["formed", "unchanged"]
