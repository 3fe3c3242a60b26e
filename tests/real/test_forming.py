"""Forming a cluster from blank servers of every kind, with the real program over real DNS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from redis import Redis

from bootstrap.local.programs import Program
from bootstrap.model.node import Role
from bootstrap.model.slots import even_split
from bootstrap.verify import violations
from tests.real.processes import MEASURE, start_apply
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until


def redis_of(testbed: Testbed, ordinal: int) -> Redis:
    address = testbed.cluster.servers[ordinal].address
    return Redis(address.host, address.port, socket_timeout=5, decode_responses=True, protocol=2)


def test_six_servers_become_a_cluster_and_a_second_run_changes_nothing(
    program: Program, start_testbed: StartTestbed
) -> None:
    """The roles are those of a manual setup, and the client probe succeeds. The second run writes nothing."""
    six = start_testbed(program)
    first = six.run("apply")
    assert (first.exit_code, first.outcome["outcome"]) == (0, "formed"), first.text
    view = six.view()
    assert violations(view, six.desired) == ()
    assert [str(node.slots) for node in view.nodes[:3]] == [str(slots) for slots in even_split(3)]
    masters = [node.node_id for node in view.nodes[:3]]
    assert [node.myself.master_id for node in view.nodes[3:]] == masters
    assert [line["shards"] for line in first.lines if line["event"] == "probe_done"] == [3]
    assert first.outcome | {"slots_covered": 16384, "nodes": 6, "shards": 3} == first.outcome
    before = [redis_of(six, ordinal).info("commandstats") for ordinal in range(6)]
    second = six.run("apply")
    assert (second.exit_code, second.outcome["outcome"], second.outcome["steps"]) == (0, "unchanged", 0)
    assert second.outcome["cluster"] == first.outcome["cluster"] == view.fingerprint()
    after = [redis_of(six, ordinal).info("commandstats") for ordinal in range(6)]
    assert {name for one, two in zip(before, after, strict=True) for name in changed(one, two)} <= READS


READS = {
    "cmdstat_info",
    "cmdstat_cluster",
    "cmdstat_cluster|nodes",
    "cmdstat_cluster|info",
    "cmdstat_cluster|slots",
    "cmdstat_multi",
    "cmdstat_discard",
    "cmdstat_config",
    "cmdstat_config|get",
    "cmdstat_command",
    "cmdstat_command|info",
    "cmdstat_cluster|migration",
    "cmdstat_cluster|getslotmigrations",
    "cmdstat_hello",
    "cmdstat_ping",
    "cmdstat_replconf",
    "cmdstat_client",
    "cmdstat_client|setinfo",
}
"""The commands that a run has executed on a healthy cluster, and those that its servers send to each other. The dry
probe discards its transaction, so its SET, GET and DEL are not among them. On Redis 6.2,
`cluster` and `config` stand for their subcommands; there the run's own `steps: 0` shows that they were reads."""


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    return {name for name, stats in after.items() if before.get(name) != stats}


@pytest.mark.parametrize(("shards", "replicas"), [(3, 0), (5, 2)], ids=["no replicas", "two replicas each"])
def test_other_shapes_form(any_program: Program, start_testbed: StartTestbed, shards: int, replicas: int) -> None:
    """Three masters without replicas, and fifteen nodes: five masters with two replicas each."""
    shape = start_testbed(any_program, shards, replicas)
    result = shape.run("apply")
    assert result.exit_code == 0, result.text
    assert violations(shape.whole_view(), shape.desired) == ()


def test_without_a_declared_timeout_the_servers_keep_theirs(any_program: Program, start_testbed: StartTestbed) -> None:
    """The servers keep their 15 s. The cluster still forms, after the servers' own delay."""
    six = start_testbed(any_program, config=("cluster-node-timeout 15000",))
    result = six.run("apply", BOOTSTRAP_NODE_TIMEOUT_MS="")
    assert result.exit_code == 0, result.text
    assert {node.timeout_ms for node in six.view().nodes} == {15000}
    assert "cluster-node-timeout" not in result.text


def test_ports_come_from_srv_records_if_all_servers_share_one_address(any_program: Program, tmp_path: Path) -> None:
    """On a machine with only 127.0.0.1 the ports differ, and the SRV records carry them."""
    from bootstrap.local.cluster import LocalCluster

    with LocalCluster(any_program, tmp_path, nodes=6, one_address=True) as cluster:
        assert {server.address.host for server in cluster.servers} == {"127.0.0.1"}
        shared = Testbed(cluster)
        result = shared.run("apply")
        assert result.exit_code == 0, result.text
        assert len({node.address.port for node in shared.view().nodes}) == 6


def test_a_cluster_forms_with_a_password_and_with_a_user_name(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """The cluster forms with a password, and no line of the log contains it. The user name `default` works, too."""
    locked = start_testbed(any_program, config=("requirepass opensesame", "masterauth opensesame"))
    secret = tmp_path / "password"
    secret.write_text("opensesame\n")
    result = locked.run("apply", BOOTSTRAP_PASSWORD_FILE=str(secret))
    assert result.exit_code == 0, result.text
    assert "opensesame" not in result.text
    named = locked.run("apply", BOOTSTRAP_PASSWORD_FILE=str(secret), BOOTSTRAP_USERNAME="default")
    assert named.outcome["outcome"] == "unchanged"


def test_plan_shows_the_steps_and_executes_none(any_program: Program, start_testbed: StartTestbed) -> None:
    """`plan` on blank servers exits 0 and names the phases in order. The servers are still blank afterwards."""
    six = start_testbed(any_program)
    result = six.run("plan")
    assert (result.exit_code, result.outcome["outcome"], result.outcome["steps"]) == (0, "planned", 0)
    (planned,) = [line for line in result.lines if line["event"] == "plan"]
    assert [phase["phase"] for phase in planned["phases"]] == ["prepare", "meet", "assign", "serve", "settings"]
    assert "make redis-app-3 a replica of redis-app-0" in planned["phases"][2]["steps"]
    assert all(node.blank for node in six.view().nodes)
    six.run("apply")
    again = six.run("plan")
    assert (again.exit_code, again.outcome["outcome"]) == (0, "unchanged")


def test_verify_fails_on_blank_servers_and_passes_on_a_formed_cluster(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """Exit 1 with every violated invariant on blank servers, exit 0 on a formed cluster."""
    six = start_testbed(any_program)
    bad = six.run("verify")
    assert bad.exit_code == 1
    assert {"slots-uncovered", "not-serving", "not-known"} <= {reason["code"] for reason in bad.outcome["reasons"]}
    six.run("apply")
    assert six.run("verify").exit_code == 0


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of a test. Those that still run after it are killed."""
    programs: list[subprocess.Popen[str]] = []
    yield programs
    for program in programs:
        if program.poll() is None:
            program.kill()
        program.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_cleanly(
    any_program: Program, start_testbed: StartTestbed, started: list[subprocess.Popen[str]], number: signal.Signals
) -> None:
    """The run ends while forming. It restores the timeouts, its outcome is `interrupted`, and the next run finishes."""
    # The diskless delay makes the run wait for the replicas while the timeouts are lowered.
    six = start_testbed(any_program, config=("repl-diskless-sync-delay 60", "repl-diskless-sync yes"))
    program = start_apply(six, started)
    wait_until(lambda: {node.role for node in six.view().nodes} == {Role.MASTER, Role.REPLICA})
    assert {node.timeout_ms for node in six.view().nodes} == {1000}
    program.send_signal(number)
    text, errors = program.communicate(timeout=20)
    assert (program.returncode, errors) == (1, "")
    assert '"interrupted"' in text.splitlines()[-1]
    assert {node.timeout_ms for node in six.view().nodes} == {5000}
    for ordinal in range(6):
        redis_of(six, ordinal).config_set("repl-diskless-sync-delay", 0)
    assert six.run("apply").exit_code == 0


def test_a_killed_run_leaves_drift_that_the_next_run_repairs(
    any_program: Program, start_testbed: StartTestbed, started: list[subprocess.Popen[str]]
) -> None:
    """SIGKILL midway leaves a timeout of 1000 ms. The next run finishes forming and sets the declared 5000 ms."""
    six = start_testbed(any_program)
    program = start_apply(six, started)
    wait_until(lambda: {node.timeout_ms for node in six.view().nodes} == {1000})
    program.kill()
    program.wait(10)
    result = six.run("apply")
    assert result.exit_code == 0, result.text
    assert {node.timeout_ms for node in six.view().nodes} == {5000}
    assert violations(six.whole_view(), six.desired) == ()


def test_a_cluster_left_half_created_by_redis_cli_is_finished(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """Slots are assigned, no nodes have met. A killed `redis-cli --cluster create` leaves this and cannot resume."""
    six = start_testbed(any_program)
    for ordinal, slots in enumerate(even_split(3)):
        redis_of(six, ordinal).execute_command("CLUSTER", "ADDSLOTS", *slots)
    redis_of(six, 0).execute_command("CLUSTER", "SET-CONFIG-EPOCH", 1)
    result = six.run("apply")
    assert result.exit_code == 0, result.text
    assert violations(six.whole_view(), six.desired) == ()


def test_a_run_on_a_healthy_cluster_uses_little_memory(any_program: Program, start_testbed: StartTestbed) -> None:
    """The peak memory of a whole run, including the interpreter, stays below 50 MB."""
    six = start_testbed(any_program)
    six.run("apply")
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, sys.executable, "-m", "bootstrap", "apply"],
        env={**os.environ, **six.variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    peak_kb = int(measured.stdout.splitlines()[-1])
    assert peak_kb < 50_000
