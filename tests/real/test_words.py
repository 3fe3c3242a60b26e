"""Faults that no wait mends: named soon, once, in the servers' own words."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from bootstrap.local.programs import Program
from tests.real.testbed import StartTestbed


def test_a_password_that_every_pod_rejects_ends_the_run_soon(
    redis_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Exit 4 long before the deadline, with one reason that quotes the servers."""
    three = start_testbed(redis_program, 3, 0, config=("requirepass rightone", "masterauth rightone"))
    secret = tmp_path / "password"
    secret.write_text("wrongone")
    result = three.run("apply", BOOTSTRAP_DEADLINE_S="40", BOOTSTRAP_PASSWORD_FILE=str(secret))
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"]) == (4, "wrong-password")
    assert "WRONGPASS" in reason["message"] or "invalid" in reason["message"]
    assert "redis-app-0, redis-app-1, redis-app-2" in reason["message"]
    assert result.outcome["took_s"] < 40


def test_a_renamed_command_is_named(redis_program: Program, start_testbed: StartTestbed) -> None:
    """`rename-command CLUSTER ""` on every pod: exit 4 long before the deadline; it is not said to be no Redis."""
    three = start_testbed(redis_program, 3, 0, config=('rename-command CLUSTER ""',))
    result = three.run("apply", BOOTSTRAP_DEADLINE_S="40")
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"]) == (4, "unknown-command")
    assert "unknown command" in reason["message"]
    assert "CLUSTER" in reason["message"]
    assert "rename-command" in reason["remedy"]
    assert result.outcome["took_s"] < 40


def test_servers_without_a_free_connection_are_named_once(redis_program: Program, start_testbed: StartTestbed) -> None:
    """`maxclients` reached on every server: one reason with a code of its own, exit 1, since clients may leave."""
    three = start_testbed(redis_program, 3, 0, config=("maxclients 5",))
    crowd = []
    try:
        for server in three.cluster.servers:
            for _ in range(5):
                crowd.append(socket.create_connection((server.address.host, server.address.port)))
                with contextlib.suppress(OSError):
                    crowd[-1].sendall(b"PING\r\n")
                    crowd[-1].recv(100)
        result = three.run("apply", BOOTSTRAP_DEADLINE_S="3")
    finally:
        for each in crowd:
            each.close()
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"]) == (1, "too-many-clients")
    assert "max number of clients" in reason["message"]
    assert "maxclients" in reason["remedy"]
