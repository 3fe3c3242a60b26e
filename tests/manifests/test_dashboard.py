"""The component `dashboard`: what Grafana's sidecar takes, and queries that Prometheus can parse."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from .kube_state_metrics import METRICS
from .kustomize import COMPONENTS, build, combine
from .test_alerts import promtool, with_promtool

VARIABLES = {"$__rate_interval": "5m", "$namespace": "shop", "$instance": ".*"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    (text,) = build(COMPONENTS / "dashboard").one("ConfigMap", "redis-cluster-dashboard")["data"].values()
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def expressions(dashboard: dict[str, Any]) -> list[str]:
    """Every query, with its variables replaced."""
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for variable, value in VARIABLES.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


def test_the_sidecar_of_grafana_finds_it() -> None:
    """By the label that its Helm chart looks for, in a file whose name ends in .json."""
    config_map = build(COMPONENTS / "dashboard").one("ConfigMap", "redis-cluster-dashboard")
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert [name.rpartition(".")[2] for name in config_map["data"]] == ["json"]


@with_promtool
def test_prometheus_can_parse_every_query(dashboard: dict[str, Any], tmp_path: Path) -> None:
    """As rules, because its tool checks rules. No variable is left."""
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions(dashboard))]
    assert not any("$" in rule["expr"] for rule in rules)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "rules.yaml"))


def test_every_series_of_kubernetes_and_every_rule_exists(dashboard: dict[str, Any]) -> None:
    """Those of the servers are compared with what the exporter reports, in test_metrics.py."""
    text = " ".join(expressions(dashboard))
    assert set(re.findall(r"\bkube_\w+", text)) - METRICS == set()
    groups = combine(COMPONENTS / "metrics", COMPONENTS / "alerts").one("PrometheusRule", "redis-cluster")["spec"][
        "groups"
    ]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    assert set(re.findall(r"\bredis_bootstrap:\w+", text)) - recorded == set()


def test_no_panel_covers_another(dashboard: dict[str, Any]) -> None:
    """Each has a number of its own and a place within the 24 columns."""
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = (one["x"] + one["w"] <= other["x"], other["x"] + other["w"] <= one["x"])
        assert any(apart) or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
