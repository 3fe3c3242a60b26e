"""Runs that have to stand back: before what would risk data, and before each other."""

from __future__ import annotations

import json

from .harness import PODS_S, Namespace, until

NOT_YET = {"target": {"kind": "Job"}, "patch": '[{"op": "add", "path": "/spec/suspend", "value": true}]'}
"""The Job is there and waits for a word; runs for the asking are not held back."""
KEEP = {
    "target": {"kind": "CronJob"},
    "patch": '[{"op": "replace", "path": "/spec/successfulJobsHistoryLimit", "value": 2}]',
}
"""Runs for the asking are the CronJob's, which would take the first one away as soon as the second is done."""


def test_two_clusters_in_one_service_are_refused(namespace: Namespace) -> None:
    """Each owns the same slots and neither knows the other: the Job fails at once, names both, and writes nothing."""
    namespace.apply("minikube", patches=[NOT_YET])
    namespace.wait_for_servers(ready=False)
    for pod in ("redis-app-0", "redis-app-3"):
        assert namespace.redis(pod, "CLUSTER", "ADDSLOTSRANGE", "0", "16383") == "OK"
    namespace.kubectl("patch", "job", "redis-bootstrap", "-p", '{"spec": {"suspend": false}}')
    run = namespace.ended()
    assert (run.condition, run.reason, len(run.last_words)) == ("Failed", "PodFailurePolicy", 1)
    assert (run.outcome["outcome"], run.outcome["exit_code"], run.outcome["steps"]) == ("refused", 3, 0)
    told = json.dumps(run.outcome["reasons"])
    assert "redis-app-0" in told
    assert "redis-app-3" in told
    # Alone as before: one line for itself.
    assert [len(namespace.redis(f"redis-app-{n}", "CLUSTER", "NODES").splitlines()) for n in range(6)] == [1] * 6


def test_of_two_runs_at_once_one_waits_and_names_the_other(namespace: Namespace) -> None:
    """One holds the Lease while it waits for a pod that is missing; the other says who holds it, and goes second."""
    namespace.apply("minikube", patches=[NOT_YET, KEEP], replicas=[{"name": "redis-app", "count": 5}])
    jobs = ("one", "two")
    for job in jobs:
        namespace.start(job)
    second = until(
        lambda: next((job for job in jobs if "held by" in namespace.log(job)), None),
        "one of two runs says who holds the Lease",
        PODS_S,
    )
    (first,) = set(jobs) - {second}
    (holder,) = namespace.tries(first)
    assert f"held by {holder['metadata']['name']}" in namespace.log(second)
    namespace.kubectl("scale", "statefulset", "redis-app", "--replicas=6")
    assert [namespace.ended(job).outcome["outcome"] for job in (first, second)] == ["formed", "unchanged"]
