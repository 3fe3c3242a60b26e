"""Links of replicas to their masters that never come up: named soon, with the likely cause and the replica's log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from bootstrap.local.programs import Program, find_program
from bootstrap.local.servers import Server, start_all
from bootstrap.model.slots import SlotSet
from tests.available_servers import SERVERS
from tests.certificates import OPENSSL, Authority
from tests.real.clusters import formed
from tests.real.network import Network, missing_requirement, send_from_own_address
from tests.real.test_tls import WITH_TLS
from tests.real.testbed import RunResult, StartTestbed, Testbed
from tests.waiting import wait_until

PASSWORD = "first-secret"


def the_reason(result: RunResult, exit_code: int) -> dict[str, Any]:
    """The only reason of a run that ended for a link, with the command that shows the log of a replica."""
    assert result.exit_code == exit_code, result.text
    (reason,) = result.outcome["reasons"]
    assert reason["code"] == "replica-not-linked"
    assert "kubectl logs redis-app-" in reason["remedy"]
    reported: dict[str, Any] = reason
    return reported


def with_password(three: Testbed, tmp_path: Path) -> Testbed:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    three.environment["BOOTSTRAP_PASSWORD_FILE"] = str(secret)
    return three


def test_a_missing_masterauth_is_named_long_before_the_deadline(
    redis_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Exit 4, and one reason for all replicas. `verify` names the cause as well, without waiting for 10 s."""
    three = start_testbed(redis_program, config=(f"requirepass {PASSWORD}",))
    result = with_password(three, tmp_path).run("apply", BOOTSTRAP_DEADLINE_S="120")
    reason = the_reason(result, 4)
    assert "redis-app-3 to its master redis-app-0" in reason["message"]
    assert "masterauth is not set" in reason["message"]
    assert "kubectl logs redis-app-3" in reason["remedy"]
    assert "masterauth" in reason["remedy"]
    assert result.outcome["took_s"] < 60
    down = [each for each in three.run("verify").outcome["reasons"] if each["code"] == "replica-link-down"]
    assert [each["node"] for each in down] == ["redis-app-3", "redis-app-4", "redis-app-5"]
    assert all("masterauth is not set" in each["message"] for each in down)


def test_a_wrong_masterauth_is_named_and_no_password_shown(
    redis_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    three = start_testbed(redis_program, config=(f"requirepass {PASSWORD}", "masterauth another-secret"))
    result = with_password(three, tmp_path).run("apply", BOOTSTRAP_DEADLINE_S="120")
    assert "rejects masterauth" in the_reason(result, 4)["message"]
    assert PASSWORD not in result.text
    assert "another-secret" not in result.text


def test_a_link_that_is_repaired_while_a_run_waits_ends_it_well(
    redis_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """A person sets the password after 12 s: the run goes on, and is no failure."""
    three = start_testbed(redis_program, config=(f"requirepass {PASSWORD}",))

    def repair() -> None:
        for server in three.cluster.servers:
            with Redis(server.address.host, server.address.port, password=PASSWORD, protocol=2) as node:
                node.config_set("masterauth", PASSWORD)

    person = threading.Timer(12, repair)
    person.start()
    result = with_password(three, tmp_path).run("apply", BOOTSTRAP_DEADLINE_S="120")
    person.join()
    assert result.exit_code == 0, result.text
    assert [line for line in result.lines if line["event"] == "replica_not_linked"]


def test_a_user_that_may_not_copy_is_named(
    any_program_since_7: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    users = (f"user default on >{PASSWORD} ~* &* +@all", f"user copier on >{PASSWORD} +ping +replconf")
    three = start_testbed(any_program_since_7, config=(*users, "masteruser copier", f"masterauth {PASSWORD}"))
    reason = the_reason(with_password(three, tmp_path).run("apply", BOOTSTRAP_DEADLINE_S="120"), 4)
    assert "masteruser of the replica lacks a right on the master" in reason["message"]
    assert "psync" in reason["message"]


@pytest.mark.skipif(not WITH_TLS or OPENSSL is None, reason="no server with TLS, or no openssl")
@pytest.mark.parametrize("tls_replication", ["yes", "no"])
def test_tls_of_replication_on_one_side_alone_is_named(
    start_testbed: StartTestbed, tmp_path: Path, tls_replication: str
) -> None:
    """`tls-replication no` where only TLS is spoken, and the other way round."""
    certificate = Authority(tmp_path / "authority").issue("redis")
    program = find_program(str(next(iter(WITH_TLS.values()))))
    if tls_replication == "no":
        config = (*certificate.server_config(), "tls-replication no")
        variables = certificate.variables()
    else:
        files = (line for line in certificate.server_config() if line.startswith(("tls-cert", "tls-key", "tls-ca")))
        config, variables = ("tls-port 6380", *files, "tls-replication yes"), {}
    six = start_testbed(program, config=config)
    reason = the_reason(six.run("apply", BOOTSTRAP_DEADLINE_S="120", **variables), 4)
    assert f"tls-replication {tls_replication}" in reason["message"]


def test_a_replica_that_is_older_than_its_master_is_named(start_testbed: StartTestbed) -> None:
    """It cannot read its master's snapshots. The run ends with 1: an upgrade may be under way."""
    if "redis-6.2" not in SERVERS or "redis-8.2" not in SERVERS:
        pytest.skip("not on this machine: Redis 6.2 and Redis 8.2")
    new, old = (find_program(str(SERVERS[name])) for name in ("redis-8.2", "redis-6.2"))
    six = start_testbed(new)
    replicas = six.cluster.servers[3:]
    for server in replicas:
        server.kill()
        (server.directory / "nodes.conf").unlink()
        server.program = old
    start_all(replicas)
    reason = the_reason(six.run("apply", BOOTSTRAP_DEADLINE_S="120"), 1)
    assert "older than its master" in reason["message"]
    assert "redis 6.2" in reason["message"]
    assert "kubectl logs redis-app-3" in reason["remedy"]


def test_copies_that_break_off_again_and_again_are_named(redis_program: Program, start_testbed: StartTestbed) -> None:
    """The master closes the replica, since more is written during the copy than its output buffer takes."""
    limits = ("repl-backlog-size 16384", "client-output-buffer-limit replica 20000 0 0", "repl-timeout 60")
    six, _ = formed(redis_program, start_testbed, *limits, "save ''")
    master, replica = six.cluster.servers[0], six.cluster.servers[3]
    with writing_to(master):
        replica.kill()
        replica.start()
        result = six.run("apply", BOOTSTRAP_DEADLINE_S="40")
    reason = the_reason(result, 1)
    assert "each copy breaks off" in reason["message"]
    assert "client-output-buffer-limit" in reason["remedy"]
    assert "kubectl logs redis-app-0" in reason["remedy"]


@contextmanager
def writing_to(master: Server) -> Iterator[None]:
    """Writes to a master all the time, whose copies take seconds."""
    done = threading.Event()
    slots = SlotSet.of((0, 5460))
    names = [name for name in (f"w:{number}" for number in range(3000)) if slot_of(name) in slots]

    def write() -> None:
        with Redis(master.address.host, master.address.port, protocol=2) as node:
            while not done.is_set():
                for name in names:
                    try:
                        node.set(name, "x" * 500)
                    except RedisError:
                        done.wait(0.1)

    with Redis(master.address.host, master.address.port, protocol=2) as node:
        node.config_set("rdb-key-save-delay", 3000)
        writer = threading.Thread(target=write)
        writer.start()
        wait_until(lambda: node.dbsize() > len(names))
        try:
            yield
        finally:
            done.set()
            writer.join()
            node.config_set("rdb-key-save-delay", 0)


def slot_of(name: str) -> int:
    from redis.crc import key_slot

    return int(key_slot(name.encode()))


def test_a_way_to_the_master_that_is_blocked_for_the_replica_alone(
    redis_program: Program, start_testbed: StartTestbed
) -> None:
    """No server shows it, and the program reaches both: the reason says so, and names a NetworkPolicy."""
    if missing := missing_requirement():
        pytest.skip(missing)
    with Network() as network:
        six = start_testbed(redis_program)
        for server in six.cluster.servers:
            send_from_own_address(server)
        network.cut_data(six.cluster.servers[0], six.cluster.servers[3])
        reason = the_reason(six.run("apply", BOOTSTRAP_DEADLINE_S="20"), 1)
    assert reason["node"] == "redis-app-3"
    assert "neither server shows the cause" in reason["message"]
    assert "kubectl get networkpolicy" in reason["remedy"]
