"""An assessment derives the facts of a plan, each of them once."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bootstrap.plan import clusters, lost_members, open_slots, rebalance, topology
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.planner import plan
from tests.builders import Scenario, formed, scenario, shape

SCENARIOS = [scenario(path) for path in sorted((Path(__file__).parent / "scenarios").glob("*.txt"))]
DERIVED = [
    (clusters, "in_conflict"),
    (lost_members, "absent"),
    (lost_members, "slots_after_failover"),
    (open_slots, "find"),
    (open_slots, "uncovered_with_keys"),
    (rebalance, "to_drain"),
    (rebalance, "slot_moves"),
    (topology, "layout"),
    (topology, "surplus"),
]


@pytest.mark.parametrize("found", SCENARIOS, ids=lambda found: found.name.replace("_", " "))
def test_one_plan_derives_each_fact_once(found: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these walks over all nodes; of a thousand nodes, one walk after the other adds up."""
    calls: Counter[str] = Counter()

    def counted(derive: Any, name: str, *args: Any, **named: Any) -> Any:
        calls[name] += 1
        return derive(*args, **named)

    for module, name in DERIVED:
        monkeypatch.setattr(module, name, partial(counted, getattr(module, name), f"{module.__name__}.{name}"))
    plan(found.view(), found.desired)
    assert calls
    assert set(calls.values()) == {1}


def test_spare_pods_are_not_assessed() -> None:
    """Blank pods beyond the shape, beside a formed cluster, are not part of it."""
    cluster = formed(shape())
    cluster.nodes.append(cluster._blank(6))
    found = Assessment(cluster.look(), shape())
    assert [node.ordinal for node in found.view.nodes] == list(range(6))
    assert [node.ordinal for node in found.view.spares] == [6]
    assert found.leaving == ()
