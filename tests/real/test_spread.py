"""Masters that crowd on one machine, on real servers with a Kubernetes API that knows where they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from redis import Redis

from bootstrap.kube.pods import REVISION_LABEL, ZONE_LABEL
from bootstrap.local.programs import Program
from tests.kube.api import KubeApi, pod
from tests.real.checker import Checker
from tests.real.clusters import client
from tests.real.test_kubernetes import ON
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until

THREE = ("node1", "node2", "node3", "node2", "node3", "node1")
ENOUGH = 200
"""Operations of clients before and after the failover."""


def on_machines(api: KubeApi, *machines: str, **labels: str) -> None:
    """Each pod on its machine, each machine in a zone of its own."""
    for ordinal, machine in enumerate(machines):
        all_labels = {ZONE_LABEL: f"zone-{machine}", REVISION_LABEL: "redis-app-1", **labels}
        api.put("pods", f"redis-app-{ordinal}", pod(f"redis-app-{ordinal}", node=machine, labels=all_labels))


def crowd(six: Testbed, machines: Sequence[str], machine: str) -> None:
    """Each shard with a copy on the machine has its master there, as after a crash of the others."""
    for node in six.view().nodes:
        if machines[node.ordinal] == machine and not node.slots:
            with Redis(node.address.host, node.address.port, protocol=2) as replica:
                replica.execute_command("CLUSTER FAILOVER")
    wait_until(lambda: all(node.slots for node in six.view().nodes if machines[node.ordinal] == machine))
    wait_until(lambda: six.run("verify").exit_code == 0)
    # Redis 6.2 lets a former master read nothing for 10 s after its failover.
    with client(six) as writer:
        for number in range(100):
            writer.set(f"crowd:{number}", number)
        for master in writer.get_primaries():
            wait_until(partial(writer.execute_command, "WAIT", 1, 1000, target_nodes=master))


def formed_on(api: KubeApi, program: Program, start_testbed: StartTestbed) -> Testbed:
    on_machines(api, *THREE)
    six = start_testbed(program)
    assert six.run("apply", **ON).outcome["outcome"] == "formed"
    crowd(six, THREE, "node2")
    return six


def stopping(outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
    points = outcome["placement"]["single_points"]
    return [(point["domain"], point["name"]) for point in points if point["stops"]]


def test_masters_are_spread_while_clients_write(api: KubeApi, program: Program, start_testbed: StartTestbed) -> None:
    """One failover, no key moves, no write is lost; then no machine and no zone can stop the cluster."""
    six = formed_on(api, program, start_testbed)
    with Checker([server.address for server in six.cluster.servers]) as checker:
        checker.wait_for(ENOUGH)
        assert stopping(six.run("plan", **ON).outcome) == [("node", "node2"), ("zone", "zone-node2")]
        said = six.run("apply", **ON)
        checker.wait_for(ENOUGH)
    assert (said.exit_code, said.outcome["outcome"], said.outcome["steps"]) == (0, "repaired", 1), said.text
    assert [line["phase"] for line in said.lines if line["event"] == "phase_done"] == ["spread masters"]
    assert said.outcome["placement"]["single_points"] == []
    assert "survives the failure of any one machine, and of any one zone" in said.text
    assert (checker.lost(), checker.stale) == ([], [])
    machines = [THREE[node.ordinal] for node in six.view().nodes if node.slots]
    assert sorted(machines) == ["node1", "node2", "node3"]
    again = six.run("apply", **ON)
    assert (again.outcome["outcome"], again.outcome["steps"]) == ("unchanged", 0), again.text


def test_masters_stay_during_a_rollout(api: KubeApi, any_program: Program, start_testbed: StartTestbed) -> None:
    """Pods of two revisions: exit 0, nothing written, the cause is in the log. After the rollout they are spread."""
    six = formed_on(api, any_program, start_testbed)
    newer = {ZONE_LABEL: "zone-node1", REVISION_LABEL: "redis-app-2"}
    api.put("pods", "redis-app-5", pod("redis-app-5", node="node1", labels=newer))
    said = six.run("apply", **ON)
    assert (said.outcome["outcome"], said.outcome["steps"]) == ("unchanged", 0), said.text
    assert "no master fails over now: the pods have 2 revisions of their StatefulSet" in said.text
    assert stopping(said.outcome)[0] == ("node", "node2")
    assert "single points of failure: node node2 stops the cluster (2 of 3 masters run there)" in said.text
    on_machines(api, *THREE, **{REVISION_LABEL: "redis-app-2"})
    off = six.run("apply", BOOTSTRAP_SPREAD_MASTERS="off", **ON)
    assert (off.outcome["outcome"], stopping(off.outcome)[0]) == ("unchanged", ("node", "node2"))
    assert six.run("apply", **ON).outcome["outcome"] == "repaired"


def test_the_crash_of_a_machine_after_a_repair_is_survived(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed
) -> None:
    """Without the spread this crash would stop the cluster: here the servers elect new masters by themselves."""
    six = formed_on(api, any_program, start_testbed)
    assert six.run("apply", **ON).outcome["outcome"] == "repaired"
    crashed = [six.cluster.servers[ordinal] for ordinal, machine in enumerate(THREE) if machine == "node2"]
    left = [server for server in six.cluster.servers if server not in crashed]
    for server in crashed:
        server.kill()
    wait_until(lambda: sum(len(node.slots) for node in six.view(*left).nodes if node.serving) == 16384)
    for server in crashed:
        server.start()
    said = six.run("apply", **ON)
    assert said.exit_code == 0, said.text
    assert stopping(said.outcome) == []


def test_a_failed_run_shows_the_places(api: KubeApi, any_program: Program, start_testbed: StartTestbed) -> None:
    """A pod does not answer: the verdict is about the others, and the table shows the machine of each."""
    six = formed_on(api, any_program, start_testbed)
    six.cluster.servers[5].kill()
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="2", **ON)
    assert (said.exit_code, said.outcome["outcome"]) == (1, "failed")
    placement = said.outcome["placement"]
    assert placement["verdict"] != "unknown"
    assert "not counted, because they do not answer: redis-app-5" in placement["why"]
    assert stopping(said.outcome)[0] == ("node", "node2")
    row = next(line.split() for line in said.text.splitlines() if line.startswith("redis-app-5"))
    assert row[-2:] == ["node1", "zone-node1"]
