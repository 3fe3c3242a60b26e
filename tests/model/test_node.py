"""A node with the temporary settings of a run, told apart from one that a person has set up."""

from __future__ import annotations

import pytest

from tests.builders import with_node
from tests.fake_cluster import FakeCluster

NEWER, OLDER = "cluster-replica-no-failover", "cluster-slave-no-failover"


@pytest.mark.parametrize(
    ("config", "timeout_ms", "name", "quickened"),
    [
        ({NEWER: "yes", OLDER: "yes"}, 500, NEWER, True),
        ({OLDER: "yes"}, 500, OLDER, True),
        ({NEWER: "yes"}, 999, NEWER, True),
        ({NEWER: "no"}, 500, NEWER, False),
        ({NEWER: "yes"}, 1000, NEWER, False),
        ({NEWER: "yes"}, 5000, NEWER, False),
        ({}, 500, "", False),
        ({}, None, "", False),
    ],
)
def test_temporary_settings_are_known_by_both_values(
    config: dict[str, str], timeout_ms: int | None, name: str, quickened: bool
) -> None:
    """Old servers know the older name alone; where CONFIG is denied, nothing is known."""
    node = with_node(FakeCluster(1).look(), 0, config=config, timeout_ms=timeout_ms).nodes[0]
    assert (node.no_failover_name, node.quickened) == (name, quickened)
