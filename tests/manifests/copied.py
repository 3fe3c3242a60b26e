"""What the CronJobs have from the Job."""

from __future__ import annotations

import copy

from .kustomize import Build, name_of


def assert_copied(built: Build, job: str = "redis-bootstrap") -> None:
    """Every CronJob makes the Job's pod, and the one that starts runs by itself leaves a run at work alone."""
    of_job = built.one("Job", job)["spec"]
    for cron in built.of_kind("CronJob"):
        name, made = name_of(cron), copy.deepcopy(cron["spec"]["jobTemplate"]["spec"])
        if name.endswith("redis-self-heal"):
            environment = made["template"]["spec"]["containers"][0]["env"]
            assert environment.pop() == {"name": "BOOTSTRAP_WHEN_LOCKED", "value": "leave"}
            assert made.pop("backoffLimit") == 0
            assert made.pop("activeDeadlineSeconds") < of_job["activeDeadlineSeconds"]
        assert made.items() <= of_job.items()
        assert {"template", "podFailurePolicy"} <= made.keys()
