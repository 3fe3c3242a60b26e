"""Masters that refuse writes: every run says so, not only the one that has probed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from bootstrap.local.programs import Program
from tests.real.clusters import formed
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until


def save_fails(six: Testbed) -> None:
    """Its dump cannot be put in place: a directory has that name. Writes are refused once a save has failed."""
    server = six.cluster.servers[0]
    dump = server.directory / "dump.rdb"
    dump.unlink(missing_ok=True)
    (dump / "in the way").mkdir(parents=True)
    with Redis(server.address.host, server.address.port) as redis:
        redis.config_set("save", "3600 1")
        redis.execute_command("BGSAVE")
        wait_until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err")


def memory_is_full(six: Testbed) -> None:
    with client(six) as redis:
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", 1_000_000)


def replicas_are_too_few(six: Testbed) -> None:
    with client(six) as redis:
        redis.config_set("min-replicas-to-write", 2)


def client(six: Testbed) -> Redis:
    address = six.cluster.servers[0].address
    return Redis(address.host, address.port)


@pytest.mark.parametrize("fault", [save_fails, memory_is_full, replicas_are_too_few])
def test_no_run_calls_it_well(
    fault: Callable[[Testbed], None], any_program_since_6: Program, start_testbed: StartTestbed
) -> None:
    """`apply` twice, `verify` and `plan` name the master and the reason."""
    six, _ = formed(any_program_since_6, start_testbed)
    fault(six)
    for words in (("apply",), ("apply",), ("verify",)):
        said = six.run(*words)
        (reason,) = said.outcome["reasons"]
        assert (said.exit_code, reason["code"], reason["node"]) == (1, "writes-refused", "redis-app-0"), said.text
    assert "redis-app-0 refuses writes" in six.run("plan").text


def test_a_failed_save_that_refuses_nothing_is_no_fault(
    any_program_since_6: Program, start_testbed: StartTestbed
) -> None:
    """Without save points, and where writes go on after a failed save."""
    six, _ = formed(any_program_since_6, start_testbed)
    save_fails(six)
    with client(six) as redis:
        redis.config_set("stop-writes-on-bgsave-error", "no")
        assert six.run("apply").outcome["outcome"] == "unchanged"
        redis.config_set("stop-writes-on-bgsave-error", "yes")
        redis.config_set("save", "")
    assert six.run("verify").exit_code == 0
