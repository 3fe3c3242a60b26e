"""The Job: its retry policy, its limits, its copy in the CronJob, and the next `kubectl apply -k` while it exists."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bootstrap.config import Settings, unknown_variables
from bootstrap.errors import Misconfigured, NotYet, Refused, WrongUsage

from .copied import assert_copied
from .kustomize import BASE, OVERLAYS, ROOT, TRANSFORMER, Build, Manifest, build, build_text, kustomization

FIRST_BACKOFF_S = 10
"""Kubernetes waits 10 s before the second try, and doubles the time before each further try."""
PULL_AND_START_S = 120


@pytest.fixture
def job(built: Build) -> Manifest:
    """The spec of the Job in it."""
    spec: Manifest = built.one("Job", "redis-bootstrap")["spec"]
    return spec


def test_errors_that_no_retry_can_fix_fail_the_job_immediately(job: Manifest) -> None:
    """The exit codes are those of the program. Exit code 1 (`not yet`) is retried up to backoffLimit."""
    (rule,) = [rule for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert rule["onExitCodes"]["operator"] == "In"
    assert set(rule["onExitCodes"]["values"]) == {each.exit_code for each in (WrongUsage, Refused, Misconfigured)}
    assert NotYet.exit_code not in rule["onExitCodes"]["values"]
    # A rule for a container that does not exist would never match.
    assert rule["onExitCodes"]["containerName"] in [each["name"] for each in job["template"]["spec"]["containers"]]
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_a_disrupted_pod_does_not_count_as_a_try(job: Manifest) -> None:
    """A drained machine does not use up the tries."""
    (rule,) = [rule for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "Ignore"]
    assert rule["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_every_try_can_use_its_whole_deadline(built: Build, job: Manifest) -> None:
    """The deadline of each Job leaves room for all tries, each of them until its own deadline."""
    settings = built.one("ConfigMap", "redis-bootstrap-settings")["data"]
    deadline_s = float(settings["BOOTSTRAP_DEADLINE_S"]) + float(settings["BOOTSTRAP_MOVE_DEADLINE_S"])
    for made in (job, *(each["spec"]["jobTemplate"]["spec"] for each in built.of_kind("CronJob"))):
        tries = made["backoffLimit"] + 1
        backoffs_s = FIRST_BACKOFF_S * (2 ** made["backoffLimit"] - 1)
        assert made["activeDeadlineSeconds"] >= tries * deadline_s + backoffs_s + PULL_AND_START_S


def test_a_finished_job_is_deleted_after_its_log_could_be_read(job: Manifest) -> None:
    """Not before a person can read its log, and not so late that the next `kubectl apply -k` runs nothing."""
    assert 60 <= job["ttlSecondsAfterFinished"] <= 180


def test_logs_of_runs_from_the_cron_jobs_stay(built: Build) -> None:
    """Only the number of later ones of the same CronJob ends them."""
    for cron in built.of_kind("CronJob"):
        assert "ttlSecondsAfterFinished" not in cron["spec"]["jobTemplate"]["spec"]
        assert cron["spec"]["successfulJobsHistoryLimit"] >= 10
        assert cron["spec"]["failedJobsHistoryLimit"] >= 5


def test_the_job_runs_apply_with_limits_of_its_own(job: Manifest) -> None:
    """A run that uses too much does not slow the servers on its machine."""
    (container,) = job["template"]["spec"]["containers"]
    assert container["args"] == ["apply"]
    assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def test_the_program_understands_every_setting(built: Build) -> None:
    """The program reads the ConfigMap: no name is unknown, and no value is out of range."""
    settings = built.one("ConfigMap", "redis-bootstrap-settings")["data"]
    assert unknown_variables(settings) == ()
    desired = Settings.from_env(settings).desired
    assert desired.shards == int(settings["BOOTSTRAP_SHARDS"])
    assert desired.timeout_ms == int(settings["BOOTSTRAP_NODE_TIMEOUT_MS"])


def test_the_namespace_is_the_pods_own(job: Manifest) -> None:
    """It comes from the downward API, because a manifest does not know where it is applied."""
    (container,) = job["template"]["spec"]["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["BOOTSTRAP_NAMESPACE"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_no_change_of_settings_or_redis_conf_touches_the_job() -> None:
    """A Job's template is immutable: if a setting changed it, `kubectl apply -k` would fail while the Job exists."""
    before = build(BASE)
    settings = before.one("ConfigMap", "redis-bootstrap-settings")
    after = build_text(
        resources=[BASE],
        patches=[{"patch": yaml.safe_dump({**settings, "data": dict.fromkeys(settings["data"], "7")})}],
        configMapGenerator=[{"name": "redis-config", "behavior": "merge", "literals": ["redis.conf=port 7"]}],
    )
    assert set(after.one("ConfigMap", "redis-bootstrap-settings")["data"].values()) == {"7"}
    assert after.one("Job", "redis-bootstrap") == before.one("Job", "redis-bootstrap")
    # A new redis.conf rolls the servers, because their template names the new hash.
    assert after.one("StatefulSet", "redis-app") != before.one("StatefulSet", "redis-app")


def test_the_job_writes_its_lease_and_events_and_nothing_else() -> None:
    """The base has the rights that it uses (another test records them). A component that needs more adds them. No right
    reaches beyond the namespace, and the rights on Leases are for one name, except `create`.
    """
    (role,) = build(BASE).of_kind("Role")
    rights = {plural: rule["verbs"] for rule in role["rules"] for plural in rule["resources"] if plural != "leases"}
    assert rights == {"pods": ["list"], "events": ["create", "get", "patch"]}
    leases = [(rule.get("resourceNames"), rule["verbs"]) for rule in role["rules"] if rule["resources"] == ["leases"]]
    assert leases == [([Settings().lease], ["get", "update"]), (None, ["create"])]
    assert build(BASE).of_kind("ClusterRole") == ()


def test_the_cron_jobs_create_the_same_job(built: Build) -> None:
    """In every kustomization their template is that of the Job, so a rerun is the same run."""
    assert_copied(built)


def test_a_run_that_cannot_start_keeps_no_later_one_from_starting() -> None:
    """Nor does a later one end one that moves slots: the Lease orders them."""
    cron = build(ROOT / "k8s" / "components" / "self-heal").one("CronJob", "redis-self-heal")["spec"]
    assert cron["concurrencyPolicy"] == "Allow"
    waiting_s = cron["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert waiting_s / 300 < 15, "as many pods may wait for a machine at the same time"


PATCHED = {
    "imagePullSecrets": [{"name": "registry"}],
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "nodeSelector": {"pool": "tools"},
}
LIMITS = {"cpu": "2", "memory": "1Gi"}
OVERLAY: dict[str, Any] = {
    "namePrefix": "blue-",
    "namespace": "elsewhere",
    "images": [{"name": "redis-bootstrap", "newName": "registry.example.org/redis-bootstrap", "newTag": "1"}],
    "patches": [
        {
            "patch": yaml.safe_dump(
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "metadata": {"name": "redis-bootstrap"},
                    "spec": {"template": {"spec": PATCHED}},
                }
            )
        },
        {
            "target": {"kind": "Job", "name": "redis-bootstrap"},
            "patch": yaml.safe_dump(
                [{"op": "replace", "path": "/spec/template/spec/containers/0/resources/limits", "value": LIMITS}]
            ),
        },
    ],
}
"""A user's overlay that patches the Job."""


def check_patched(built: Build) -> None:
    job = built.one("Job", "blue-redis-bootstrap")["spec"]
    pod = job["template"]["spec"]
    assert {key: pod[key] for key in PATCHED} == PATCHED
    assert pod["containers"][0]["resources"]["limits"] == LIMITS
    assert pod["containers"][0]["image"] == "registry.example.org/redis-bootstrap:1"
    assert_copied(built, "blue-redis-bootstrap")


@pytest.mark.parametrize(
    "below", [ROOT, OVERLAYS / "minikube", OVERLAYS / "production"], ids=["root", "minikube", "production"]
)
def test_a_patch_of_the_job_reaches_the_cron_jobs(below: Path) -> None:
    """One line in an overlay copies the patched Job, however the patch is written."""
    check_patched(build_text(resources=[below], transformers=[TRANSFORMER], **OVERLAY))


@pytest.mark.parametrize("overlay", ["minikube", "nfs", "production"])
def test_a_patch_in_a_copy_of_an_overlay_reaches_the_cron_jobs(overlay: str) -> None:
    """The overlays have that line, so a person who copies one and patches the Job needs to know nothing."""
    content = kustomization(OVERLAYS / overlay)
    for part in ("resources", "components", "transformers"):
        content[part] = [(OVERLAYS / overlay / each).resolve() for each in content.get(part, [])]
    content["patches"] = [*content.get("patches", []), *OVERLAY["patches"]]
    built = build_text(**content)
    assert built.one("Job", "redis-bootstrap")["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "tools"}
    assert_copied(built)


@pytest.mark.skipif(not shutil.which("git"), reason="no git on this machine")
def test_a_patch_of_the_job_reaches_the_cron_job_of_a_remote_base(tmp_path: Path) -> None:
    """The overlay names a repository and a tag, as the README shows. Kustomize clones it with git."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    shutil.copy(ROOT / "kustomization.yaml", tmp_path)
    for command in (
        "init --quiet",
        "add .",
        "-c user.name=a -c user.email=a@example.org commit --quiet -m a",
        "tag v1",
    ):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True, timeout=30)
    built = build_text(
        resources=[f"file://{tmp_path}//k8s/overlays/production?ref=v1"],
        transformers=[f"file://{tmp_path}//k8s/transformers/cronjob-from-job?ref=v1"],
        **OVERLAY,
    )
    check_patched(built)


def test_no_run_starts_by_itself_without_self_heal() -> None:
    """The CronJob of the base is for `kubectl create job --from`, and stays suspended. The component has its own."""
    self_heal = build(ROOT / "k8s" / "components" / "self-heal")
    assert [each["spec"]["suspend"] for each in build(BASE).of_kind("CronJob")] == [True]
    assert self_heal.one("CronJob", "redis-bootstrap")["spec"]["suspend"] is True
    assert self_heal.one("CronJob", "redis-self-heal")["spec"]["suspend"] is False
