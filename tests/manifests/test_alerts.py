"""The component `alerts`: its rules in Prometheus's own test tool, its series, and the headings that it names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.available_servers import ON_CI
from tests.test_docs import anchors_of

from .kube_state_metrics import METRICS
from .kustomize import COMPONENTS, ROOT, Build, Manifest, build_error, combine

PROMTOOL = shutil.which("promtool")
with_promtool = pytest.mark.skipif(not ON_CI and not PROMTOOL, reason="no promtool, of Debian's package prometheus")
SERVER = {"app_kubernetes_io_name": "redis-app", "namespace": "shop", "job": "shop/redis-app"}
BY_HAND, FORMING, HEALING, SCHEDULED = "again-1", "redis-bootstrap", "redis-self-heal", "redis-self-heal-29400000"


@pytest.fixture(scope="module")
def built() -> Build:
    """The component on the base."""
    return combine(COMPONENTS / "metrics", COMPONENTS / "alerts")


@pytest.fixture(scope="module")
def groups(built: Build) -> list[Manifest]:
    """The groups of rules."""
    found: list[Manifest] = built.one("PrometheusRule", "redis-cluster")["spec"]["groups"]
    return found


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """One series as promtool reads it: its name with labels, and a value for each minute."""
    inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{inside}}}", "values": values}


def of_pods(name: str, *values: str, **labels: str) -> list[dict[str, str]]:
    """The series of that name of redis-app-0, redis-app-1 and so on."""
    return [
        series(name, each, pod=f"redis-app-{number}", instance=f"10.0.0.{number}:9121", **SERVER, **labels)
        for number, each in enumerate(values)
    ]


def of_job(name: str, owner: str = "", **values: str) -> list[dict[str, str]]:
    """The series of kube-state-metrics about one Job; `values` by their names without `kube_job_`."""
    about = {"namespace": "shop", "job_name": name}
    kind = "CronJob" if owner else ""
    known = [series("kube_job_owner", "1x90", owner_kind=kind, owner_name=owner, **about)]
    for key, each in values.items():
        labels = {"condition": "true"} if key in ("failed", "complete") else {}
        known.append(series(f"kube_job_{key}", each, **about, **labels))
    return known


def of_cronjob(**values: str) -> list[dict[str, str]]:
    """The series about the CronJob of self-heal; `values` by their names without `kube_cronjob_`."""
    return [series(f"kube_cronjob_{key}", each, namespace="shop", cronjob=HEALING) for key, each in values.items()]


@dataclass(frozen=True, slots=True)
class Case:
    """What Prometheus has scraped, every minute from minute 0, and the alerts that fire `at` a minute."""

    what: str
    alert: str
    scraped: list[dict[str, str]]
    at: int
    fires: tuple[Mapping[str, str], ...] = ()
    """The labels that tell which: `pod`, `run` or `cronjob`; {} for an alert about the cluster."""


OK, SIZE = of_pods("redis_cluster_state", "1x90", "1x90", "1x90"), ("3x90", "3x90", "3x90")
MASTERS = of_pods("redis_instance_info", "1x90", "1x90", "1x90", role="master")
CASES = [
    Case(
        "one server of three reports fail",
        "RedisClusterNotOk",
        [
            *of_pods("redis_cluster_state", "1x90", "1 1 0x90", "1x90"),
            *of_pods("redis_cluster_known_nodes", "6x90", "6x90", "6x90"),
        ],
        at=4,
        fires=({"pod": "redis-app-1"},),
    ),
    Case(
        "a spare pod that knows nobody",
        "RedisClusterNotOk",
        [
            *of_pods("redis_cluster_state", "1x90", "1x90", "0x90"),
            *of_pods("redis_cluster_known_nodes", "2x90", "2x90", "1x90"),
        ],
        at=60,
    ),
    Case(
        "servers that were never formed to a cluster",
        "RedisClusterNotOk",
        [*of_pods("redis_cluster_state", "0x90", "0x90"), *of_pods("redis_cluster_known_nodes", "1x90", "1x90")],
        at=4,
        fires=({},),
    ),
    Case("a moment", "RedisClusterNotOk", of_pods("redis_cluster_state", "1 0 1x90"), at=2),
    Case(
        "every server misses the slots of one master",
        "RedisClusterSlotsNotCovered",
        of_pods("redis_cluster_slots_ok", "16384 10923x90", "16384 10923x90"),
        at=3,
        fires=({},),
    ),
    Case(
        "a server that is cut off sees the others as failed",
        "RedisClusterSlotsNotCovered",
        of_pods("redis_cluster_slots_ok", "16384x90", "0x90"),
        at=60,
    ),
    Case(
        "a master without a replica, a replica, and a spare pod",
        "RedisClusterMasterWithoutReplica",
        [
            *of_pods("redis_connected_slaves", "0x90", "0x90", "0x90"),
            *of_pods("redis_cluster_known_nodes", "6x90", "6x90", "1x90"),
            *of_pods("redis_cluster_size", "3x90", "3x90", "1x90"),
            *of_pods("redis_instance_info", "1x90", role="master"),
            *of_pods("redis_instance_info", "1x90", role="slave")[1:],
            series("redis_instance_info", "1x90", instance="10.0.0.1:9121", pod="redis-app-1", role="slave", **SERVER),
            series("redis_instance_info", "1x90", instance="10.0.0.2:9121", pod="redis-app-2", role="master", **SERVER),
        ],
        at=12,
        fires=({"pod": "redis-app-0"},),
    ),
    Case(
        "a cluster of masters alone, as declared",
        "RedisClusterMasterWithoutReplica",
        [
            *of_pods("redis_connected_slaves", "0x90", "0x90", "0x90"),
            *of_pods("redis_cluster_known_nodes", *SIZE),
            *of_pods("redis_cluster_size", *SIZE),
            *MASTERS,
        ],
        at=60,
    ),
    Case(
        "a link that is down, and one that is up",
        "RedisClusterReplicaLinkDown",
        of_pods("redis_master_link_up", "1 0x90", "1x90", master_host="10.0.0.7"),
        at=4,
        fires=({"pod": "redis-app-0"},),
    ),
    Case(
        "95 % and 50 % of maxmemory, and no limit",
        "RedisClusterMemoryNearMax",
        [
            *of_pods("redis_memory_used_bytes", "95x90", "50x90", "95x90"),
            *of_pods("redis_memory_max_bytes", "100x90", "100x90", "0x90"),
        ],
        at=6,
        fires=({"pod": "redis-app-0"},),
    ),
    *(
        Case(
            f"{name} on one of two",
            "RedisClusterSaveFailed",
            of_pods(name, "1x90", "1 0x90"),
            at=3,
            fires=({"pod": "redis-app-1"},),
        )
        for name in ("redis_aof_last_write_status", "redis_aof_last_bgrewrite_status", "redis_rdb_last_bgsave_status")
    ),
    *(
        Case(f"{name} is 0", "RedisClusterNoMetrics", of_pods(name, "1x90", "1 0x90"), 8, ({"pod": "redis-app-1"},))
        for name in ("redis_up", "up")
    ),
    Case(
        "the Job that forms the cluster was refused",
        "RedisClusterRunFailed",
        of_job(FORMING, status_start_time="60x90", failed="0 0 1x90"),
        at=14,
        fires=({"run": FORMING},),
    ),
    Case(
        "a failed run after good ones, then a good one by hand",
        "RedisClusterRunFailed",
        [
            *of_job("redis-self-heal-1", HEALING, status_start_time="10x90", complete="1x90"),
            *of_job(SCHEDULED, HEALING, status_start_time="_ _ 120x90", failed="_ _ 1x90"),
            *of_job(BY_HAND, FORMING, status_start_time="_x29 1800x90", complete="_x29 1x90"),
        ],
        at=20,
        fires=({"run": FORMING},),
    ),
    Case(
        "one failed run between good ones",
        "RedisClusterRunFailed",
        [
            *of_job(SCHEDULED, HEALING, status_start_time="_ _ 120x90", failed="_ _ 1x90"),
            *of_job("redis-self-heal-2", HEALING, status_start_time="_x7 420x90", complete="_x7 1x90"),
        ],
        at=6,
    ),
    Case(
        "a failed run, then a good one by hand",
        "RedisClusterRunFailed",
        [
            *of_job(SCHEDULED, HEALING, status_start_time="_ _ 120x90", failed="_ _ 1x90"),
            *of_job(BY_HAND, FORMING, status_start_time="_x29 1800x90", complete="_x29 1x90"),
        ],
        at=34,
    ),
    Case(
        "the Job of the good run is gone",
        "RedisClusterRunFailed",
        [
            *of_job(SCHEDULED, HEALING, status_start_time="120x90", failed="1x90"),
            *of_cronjob(status_last_successful_time="600x90"),
        ],
        at=60,
    ),
    Case(
        "another cluster's run, in the same namespace, failed and was then good",
        "RedisClusterRunFailed",
        [
            *of_job(SCHEDULED, HEALING, status_start_time="30x90", failed="1x90"),
            *of_job("again-2", "blue-redis-bootstrap", status_start_time="60x90", failed="1x90"),
            *of_job(FORMING, status_start_time="120x90", complete="1x90"),
        ],
        at=14,
        fires=({"run": "blue-redis-bootstrap"},),
    ),
    Case(
        "a Job that is no run",
        "RedisClusterRunFailed",
        of_job("backup", status_start_time="60x90", failed="1x90"),
        at=14,
    ),
    Case(
        "the last success is half an hour old",
        "RedisClusterNoGoodRun",
        of_cronjob(created="0x90", spec_suspend="0x90", status_last_successful_time="60x90"),
        at=32,
        fires=({"cronjob": HEALING},),
    ),
    Case(
        "never a success",
        "RedisClusterNoGoodRun",
        of_cronjob(created="0x90", spec_suspend="0x90"),
        at=32,
        fires=({"cronjob": HEALING},),
    ),
    Case(
        "suspended until three minutes ago",
        "RedisClusterNoGoodRun",
        of_cronjob(created="0x90", spec_suspend="1x57 0x30"),
        at=61,
    ),
    Case(
        "the CronJob for runs by hand, which stays suspended, beside it",
        "RedisClusterNoGoodRun",
        [
            *of_cronjob(created="0x90", spec_suspend="0x90", status_last_successful_time="60+60x90"),
            series("kube_cronjob_created", "0x90", namespace="shop", cronjob=FORMING),
            series("kube_cronjob_spec_suspend", "1x90", namespace="shop", cronjob=FORMING),
        ],
        at=80,
    ),
    Case("suspended", "RedisClusterNoGoodRun", of_cronjob(created="0x90", spec_suspend="1x90"), at=80),
    Case(
        "a success every five minutes",
        "RedisClusterNoGoodRun",
        of_cronjob(created="0x90", spec_suspend="0x90", status_last_successful_time="60+60x90"),
        at=80,
    ),
]


def promtool(*arguments: str) -> None:
    """Fails with its output where it fails."""
    done = subprocess.run([PROMTOOL or "promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules_file(groups: list[Manifest], directory: Path, *, annotations: bool) -> Path:
    """The rules as Prometheus reads them; without annotations where only the labels are compared."""
    left_out = () if annotations else ("annotations",)
    plain = [
        {**group, "rules": [{key: rule[key] for key in rule if key not in left_out} for rule in group["rules"]]}
        for group in groups
    ]
    file = directory / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": plain}), encoding="utf-8")
    return file


@with_promtool
def test_prometheus_accepts_the_rules(groups: list[Manifest], tmp_path: Path) -> None:
    """Expressions, durations and the templates of the annotations."""
    promtool("check", "rules", str(rules_file(groups, tmp_path, annotations=True)))


@with_promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_an_alert_fires_when_it_should_and_only_then(case: Case, groups: list[Manifest], tmp_path: Path) -> None:
    """Prometheus evaluates the rules over the series of the case."""
    rules_file(groups, tmp_path, annotations=False)
    severities = {
        rule["alert"]: rule["labels"]["severity"] for group in groups for rule in group["rules"] if "alert" in rule
    }
    expected = []
    for told in case.fires:
        labels: dict[str, str] = {"severity": severities[case.alert], "namespace": "shop", **told}
        if "pod" in told:
            labels |= {**SERVER, "instance": f"10.0.0.{told['pod'][-1]}:9121"}
            labels |= {"master_host": "10.0.0.7"} if case.alert == "RedisClusterReplicaLinkDown" else {}
        expected.append({"exp_labels": labels})
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": case.scraped,
                "alert_rule_test": [
                    {"eval_time": f"{case.at}m", "alertname": case.alert, "exp_alerts": expected},
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(json.dumps(test), encoding="utf-8")
    promtool("test", "rules", str(tmp_path / "test.yaml"))


def alerts(groups: list[Manifest]) -> list[dict[str, Any]]:
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_every_alert_has_a_case_in_which_it_fires(groups: list[Manifest]) -> None:
    """Otherwise nobody knows whether it ever would."""
    assert {rule["alert"] for rule in alerts(groups)} == {case.alert for case in CASES if case.fires}


def test_every_alert_names_the_heading_that_says_what_to_do(groups: list[Manifest]) -> None:
    """A heading of its own, with the name of the alert."""
    for rule in alerts(groups):
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor == rule["alert"].lower()
        assert anchor in anchors_of(ROOT / page)


def test_every_series_about_a_run_is_one_of_kube_state_metrics(groups: list[Manifest]) -> None:
    """Names that it documents, without settings of its own."""
    named = {name for group in groups for rule in group["rules"] for name in re.findall(r"\bkube_\w+", rule["expr"])}
    assert named
    assert named - METRICS == set()


def test_alerts_without_the_exporter_fail_the_build() -> None:
    """No alert about a server would ever fire. The message names the component and what is missing."""
    for order in (["alerts"], ["alerts", "metrics"]):
        message = build_error(*(COMPONENTS / name for name in order))
        assert "components/alerts': fieldPath `spec.template.spec.containers.[name=metrics]" in message
