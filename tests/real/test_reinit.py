"""Wiping a real cluster: only the confirmed one, completely, and while clients keep writing."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis, RedisError

from bootstrap.local.programs import Program
from bootstrap.model.steps import Wipe
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from bootstrap.verify import violations
from tests.real.clusters import TIMEOUT_MS, client, formed
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until


def assert_formed_anew(six: Testbed) -> None:
    assert violations(six.whole_view(), replace(six.desired, timeout_ms=TIMEOUT_MS)) == ()
    assert sum(node.keys for node in six.view().nodes) == 0


def test_reinit_names_the_data_and_destroys_it_only_when_confirmed(
    program: Program, start_testbed: StartTestbed
) -> None:
    """Without --confirm or with a wrong value: exit 3, nothing written. The right value wipes and forms a cluster."""
    six, keys = formed(program, start_testbed)
    refused = six.run("reinit")
    assert (refused.exit_code, refused.outcome["outcome"], refused.outcome["steps"]) == (3, "refused", 0), refused.text
    assert [reason["node"] for reason in refused.outcome["reasons"]] == ["redis-app-0", "redis-app-1", "redis-app-2"]
    fingerprint = refused.outcome["cluster"]
    assert fingerprint in refused.outcome["reasons"][0]["remedy"]
    wrong = six.run("reinit", "--confirm", "0123456789ab")
    assert (wrong.exit_code, wrong.outcome["steps"]) == (3, 0)
    with client(six) as reader:
        assert {name: reader.get(name) for name in keys} == keys
    result = six.run("reinit", "--confirm", fingerprint)
    assert (result.exit_code, result.outcome["outcome"]) == (0, "reinitialised"), result.text
    assert result.outcome["cluster"] != fingerprint
    assert_formed_anew(six)
    again = six.run("reinit", "--confirm", fingerprint)
    assert (again.exit_code, again.outcome["steps"]) == (3, 0), "the old value is valid only for the old cluster"


@pytest.mark.parametrize("wiped", [(3,), (3, 4, 5), (0, 3, 4, 5), (1, 2, 3, 4, 5)], ids=str)
def test_an_interrupted_reinit_is_finished_with_the_same_value(
    any_program: Program, start_testbed: StartTestbed, wiped: tuple[int, ...]
) -> None:
    """The run ended after some nodes were wiped. The fingerprint stays the same, also after all pods have restarted."""
    six, _ = formed(any_program, start_testbed)
    fingerprint = six.run("plan").outcome["cluster"]
    view = six.view()
    nodes = Nodes(Credentials())
    try:
        doomed = [view.nodes[ordinal] for ordinal in wiped]
        writes = {node.address: [Wipe(node=node.node_id, flush=node.ordinal < 3)] for node in doomed}
        assert nodes.send(writes) == []
    finally:
        nodes.close()
    for server in six.cluster.servers:
        server.kill()
        server.start()
    wait_until(lambda: len(six.view().nodes) == 6)
    result = six.run("reinit", "--confirm", fingerprint)
    assert (result.exit_code, result.outcome["outcome"]) == (0, "reinitialised"), result.text
    assert_formed_anew(six)


def test_clients_that_keep_writing_do_not_stop_reinit(program: Program, start_testbed: StartTestbed) -> None:
    """Each node is emptied and reset in one transaction, so no key can be written in between."""
    six, _ = formed(program, start_testbed)
    fingerprint = six.run("plan").outcome["cluster"]
    stop = threading.Event()

    def write(host: str, port: int) -> None:
        with Redis(host, port, socket_timeout=2, protocol=2) as node:
            number = 0
            while not stop.is_set():
                number += 1
                with suppress(RedisError):
                    node.set(f"key:{number}", "x")

    writers = [threading.Thread(target=write, args=(s.address.host, s.address.port)) for s in six.cluster.servers[:3]]
    for writer in writers:
        writer.start()
    try:
        result = six.run("reinit", "--confirm", fingerprint)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert (result.exit_code, result.outcome["outcome"]) == (0, "reinitialised"), result.text


@pytest.mark.parametrize("saves", [('save ""', "appendonly no"), ("appendonly yes",)], ids=["never", "to a log"])
def test_no_old_key_comes_back_after_a_restart(
    program: Program, start_testbed: StartTestbed, saves: tuple[str, ...]
) -> None:
    """Without automatic saves, FLUSHALL leaves an old dump.rdb as it is."""
    six, keys = formed(program, start_testbed, *saves)
    for server in six.cluster.servers:
        with Redis(server.address.host, server.address.port, protocol=2) as node:
            node.save()
    result = six.run("reinit", "--confirm", six.run("plan").outcome["cluster"])
    assert result.exit_code == 0, result.text
    for server in six.cluster.servers:
        server.kill()
        server.start()
    wait_until(lambda: len(six.view().nodes) == 6)
    assert six.run("apply").exit_code == 0
    with client(six) as reader:
        assert [name for name in keys if reader.exists(name)] == []


def test_a_declared_setting_that_cannot_be_read_is_said(
    any_program_since_7: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """A user without CONFIG: the cluster is good as far as it can be seen, and the log says what could not be."""
    six, _ = formed(any_program_since_7, start_testbed)
    for server in six.cluster.servers:
        with Redis(server.address.host, server.address.port) as node:
            node.execute_command("ACL", "SETUSER", "job", "on", ">S3cret", "~*", "&*", "+@all", "-config")
    password = tmp_path / "password"
    password.write_text("S3cret")
    login = {"BOOTSTRAP_USERNAME": "job", "BOOTSTRAP_PASSWORD_FILE": str(password)}
    for verb in ("apply", "verify"):
        said = six.run(verb, **login, BOOTSTRAP_NODE_TIMEOUT_MS=str(TIMEOUT_MS))
        (line,) = (line for line in said.lines if line["event"] == "setting_not_checked")
        assert (said.exit_code, "cluster-node-timeout" in line["why"]) == (0, True), said.text
