"""Users that lack a right: a run finds out before its first write, and a run with nothing to write finds out, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from bootstrap.local.programs import Program
from bootstrap.local.servers import Server
from bootstrap.model.steps import Wipe
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from bootstrap.verify import violations
from tests.real.clusters import TIMEOUT_MS, client, formed, replace_pods
from tests.real.sizes import assert_good, declared, listed, started
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until


def job_without(six: Testbed, folder: Path, denied: str, *servers: Server) -> dict[str, str]:
    """The login of a user with all rights, without one on these servers, or on all."""
    for server in six.cluster.servers:
        rules = ["on", ">S3cret", "~*", "&*", "+@all", *([denied] if server in servers or not servers else [])]
        with Redis(server.address.host, server.address.port) as node:
            node.execute_command("ACL", "SETUSER", "job", *rules)
    password = folder / "password"
    password.write_text("S3cret")
    return {"BOOTSTRAP_USERNAME": "job", "BOOTSTRAP_PASSWORD_FILE": str(password), "BOOTSTRAP_DEADLINE_S": "40"}


def save_fails(server: Server) -> None:
    """A directory has the name of its dump. Writes, FLUSHALL among them, are refused once a save has failed."""
    dump = server.directory / "dump.rdb"
    dump.unlink(missing_ok=True)
    (dump / "in the way").mkdir(parents=True)
    with Redis(server.address.host, server.address.port) as redis:
        redis.config_set("save", "3600 1")
        redis.execute_command("BGSAVE")
        wait_until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err")


def replicas_are_needed(server: Server) -> None:
    """It has the replica that it needs, until that is wiped."""
    with Redis(server.address.host, server.address.port) as redis:
        redis.config_set("min-replicas-to-write", 1)


@pytest.mark.parametrize("denied", ["-flushall", "-cluster|reset", "-save", "-multi", "-exec"])
def test_a_user_that_may_not_wipe_wipes_nothing(
    denied: str, any_program_since_7: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Every server is asked before the first write: exit 4, no step, every key and member is there."""
    six, keys = formed(any_program_since_7, start_testbed)
    fingerprint = six.run("plan").outcome["cluster"]
    login = job_without(six, tmp_path, denied, six.cluster.servers[1])
    said = six.run("reinit", "--confirm", fingerprint, **login)
    reason = said.outcome["reasons"][0]
    assert (said.exit_code, said.outcome["steps"], reason["code"]) == (4, 0, "step-rejected"), said.text
    assert "redis-app-1" in reason["remedy"]
    assert violations(six.view(), replace(six.desired, timeout_ms=TIMEOUT_MS)) == ()
    with client(six) as reader:
        assert {name: reader.get(name) for name in keys} == keys


@pytest.mark.parametrize("fault", [save_fails, replicas_are_needed])
def test_a_master_that_would_refuse_to_be_wiped_stays_as_it_is(
    fault: Callable[[Server], None], any_program_since_7: Program, start_testbed: StartTestbed
) -> None:
    """Nor is any other node wiped: exit 1, no step, every key is there."""
    six, keys = formed(any_program_since_7, start_testbed)
    fingerprint = six.run("plan").outcome["cluster"]
    fault(six.cluster.servers[1])
    said = six.run("reinit", "--confirm", fingerprint)
    assert (said.exit_code, said.outcome["steps"]) == (1, 0), said.text
    assert "redis-app-1" in said.outcome["reasons"][0]["message"]
    with client(six) as reader:
        assert {name: reader.get(name) for name in keys} == keys


def test_steps_counts_a_wipe_that_was_done_in_part(any_program_since_7: Program, start_testbed: StartTestbed) -> None:
    """A server loses the right between the question and the write: its reset counts, since its copy is gone."""
    six, _ = formed(any_program_since_7, start_testbed)
    view = six.view()
    replica = next(node for node in view.nodes if not node.slots)
    with Redis(replica.address.host, replica.address.port) as node:
        node.execute_command("ACL", "SETUSER", "default", "-flushall")
    nodes = Nodes(Credentials())
    try:
        (rejected,) = nodes.send({replica.address: [Wipe(node=replica.node_id, flush=False)]})
    finally:
        nodes.close()
    assert rejected.why.startswith("NOPERM")
    assert rejected.partly


@pytest.mark.parametrize("denied", ["-set", "-get", "-del"])
def test_a_probe_that_failed_fails_again(
    denied: str, any_program_since_7: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """`apply` on the healthy cluster, and `verify`: neither writes, and both find what a client could not do."""
    six, keys = formed(any_program_since_7, start_testbed)
    login = job_without(six, tmp_path, denied)
    for verb in ("apply", "verify"):
        said = six.run(verb, **{**login, "BOOTSTRAP_DEADLINE_S": "5"})
        assert (said.exit_code, said.outcome["reasons"][0]["code"], said.outcome["steps"]) == (4, "probe-denied", 0), (
            said.text
        )
    assert sum(node.keys for node in six.view().nodes if node.slots) == len(keys)


def test_without_transactions_the_dry_probe_only_reads(
    any_program_since_7: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """A user of an older installation may not send MULTI. That is no fault of the cluster."""
    six, _ = formed(any_program_since_7, start_testbed)
    said = six.run("apply", **job_without(six, tmp_path, "-multi"))
    assert said.outcome["outcome"] == "unchanged", said.text


def test_without_transactions_a_cluster_forms_all_the_same(
    any_program_since_7: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """What cannot be found out beforehand is no obstacle: forming sends no transaction."""
    six = start_testbed(any_program_since_7)
    said = six.run("apply", **job_without(six, tmp_path, "-multi"))
    assert said.outcome["outcome"] == "formed", said.text


@pytest.mark.parametrize("denied", ["-cluster|setslot", "-migrate", "-cluster|getkeysinslot", "-cluster|replicate"])
def test_what_growing_needs_is_known_before_the_first_write(
    denied: str, migrating_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Exit 4 with the right to grant, and the cluster is as it was: no new member, no open slot."""
    if tuple(int(number) for number in migrating_program.version.split(".")[:1]) < (7,):
        pytest.skip("rights for single subcommands are of Redis 7.0")
    eight, keys = started(migrating_program, start_testbed, 3, 1, servers=8)
    listed(eight, 8)
    login = job_without(eight, tmp_path, denied)
    said = declared(eight, 4, 1).run("apply", **login)
    assert (said.exit_code, said.outcome["steps"]) == (4, 0), said.text
    assert denied.removeprefix("-") in said.outcome["reasons"][0]["remedy"]
    listed(eight, 6)
    assert_good(eight, keys)


def test_what_shrinking_needs_is_known_before_the_first_slot_moves(
    any_program_since_7: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Without CLUSTER RESET no pod can leave, so nothing is drained."""
    eight, keys = started(any_program_since_7, start_testbed, 4, 1, servers=8)
    said = declared(eight, 3, 1).run("apply", **job_without(eight, tmp_path, "-cluster|reset"))
    assert (said.exit_code, said.outcome["steps"]) == (4, 0), said.text
    assert_good(eight, keys)


def test_a_repair_does_what_it_may(any_program_since_7: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """Without the right to forget a lost member, its replica still takes over, and clients are served."""
    six, _ = formed(any_program_since_7, start_testbed)
    replace_pods(six, 1, wiped=True)
    said = six.run("apply", **job_without(six, tmp_path, "-cluster|forget"))
    assert (said.exit_code, said.outcome["serving"]) == (4, True), said.text
    assert "cluster|forget" in said.outcome["reasons"][0]["remedy"]
    assert six.view().nodes[4].slots
