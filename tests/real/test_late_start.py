"""A run that starts late, on real servers: nodes that have moved keep their roles, however late they are introduced."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from bootstrap.local.programs import Program
from bootstrap.model.node import Node, NodeId
from tests.real.clusters import TIMEOUT_MS, assert_healed, formed, replace_pods, settings_of, suspects_all
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until

Moment = Callable[[Node], bool]


def immediately(node: Node) -> bool:
    """The run waits already."""
    return True


MOMENTS = [immediately, suspects_all]


def roles(six: Testbed) -> dict[NodeId, tuple[NodeId | None, int]]:
    """Each node's master and config epoch: an election changes both."""
    return {node.node_id: (node.myself.master_id, node.myself.config_epoch) for node in six.view().nodes}


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_moved_nodes_keep_their_roles_however_late_the_run_starts(
    moment: Moment, program: Program, start_testbed: StartTestbed
) -> None:
    """No failover, every key, and the settings as declared: a majority of masters could have voted meanwhile."""
    six, keys = formed(program, start_testbed)
    before = roles(six)
    replace_pods(six, *range(6), wiped=False)
    wait_until(lambda: all(moment(node) for node in six.view().nodes))
    said = six.run("apply")
    assert_healed(six, said, keys)
    assert roles(six) == before
    assert settings_of(six) == {(TIMEOUT_MS, "no")}
    assert "quicken" in {line.get("phase") for line in said.lines}


def test_temporary_settings_of_a_killed_run_are_reported_and_restored(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """`verify` fails with their code; the next run restores failover and the timeout, and does nothing else."""
    six, _ = formed(any_program, start_testbed)
    for server in six.cluster.servers:
        with Redis(server.address.host, server.address.port, protocol=2) as node:
            node.config_set("cluster-node-timeout", 500)
            node.config_set("cluster-replica-no-failover", "yes")
    assert "temporary-settings" in {reason["code"] for reason in six.run("verify").outcome["reasons"]}
    again = six.run("apply")
    assert (again.outcome["outcome"], again.outcome["steps"]) == ("repaired", 12), again.text
    assert settings_of(six) == {(TIMEOUT_MS, "no")}
