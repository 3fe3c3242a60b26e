"""Failures of the probe: each ends soon, in its own error, and without the password."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap.clock import SystemClock
from bootstrap.local.programs import Program
from bootstrap.model.node import Address
from bootstrap.nodes import probe as probing
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.probe import ProbeFailed, probe
from tests.real.strangers import free_port, stranger
from tests.real.testbed import StartTestbed


def test_a_closed_endpoint_fails_the_probe(any_program: Program, start_testbed: StartTestbed) -> None:
    """An access Service refuses connections while none of its pods is ready. The run waits: this is not its error."""
    six = start_testbed(any_program)
    six.run("apply")
    with pytest.raises(ProbeFailed, match=r"a client cannot connect through 127\.0\.0\.1"):
        probe(six.view(), [Address("127.0.0.1", free_port())], Credentials(), clock=SystemClock())


def test_an_endpoint_that_sends_single_bytes_does_not_hang_the_probe(
    any_program: Program, start_testbed: StartTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket ever times out, so the probe as a whole has a time limit."""
    six = start_testbed(any_program)
    six.run("apply")
    monkeypatch.setattr(probing, "PROBE_LIMIT_S", 1.0)
    with (
        stranger(b"$100000\r\n" + b"x" * 1000, drip_s=0.3) as (host, port),
        pytest.raises(ProbeFailed, match="no answer within 1 s"),
    ):
        probe(six.view(), [Address(host, port)], Credentials(), clock=SystemClock())


def test_a_password_that_a_server_quotes_is_not_shown(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """`unknown command AUTH, with args beginning with: …`: the message is reported without the secret."""
    six = start_testbed(any_program, config=('rename-command AUTH ""',))
    secret = tmp_path / "password"
    secret.write_text("S3cr3t'Pass")
    result = six.run("apply", BOOTSTRAP_PASSWORD_FILE=str(secret), BOOTSTRAP_DEADLINE_S="2")
    assert result.exit_code == 4
    assert "unknown command" in result.text.lower()
    assert "S3cr3t" not in result.text


def test_a_closed_access_service_also_fails_a_run_on_a_healthy_cluster(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """The cluster is healthy and needs no write, but no client can connect through the access Service: exit 1."""
    six = start_testbed(any_program)
    through = {"BOOTSTRAP_ACCESS_SERVICE": "redis-service"}
    formed = six.run("apply", **through)
    assert [line["through"] for line in formed.lines if line["event"] == "probe_done"] == ["redis-service"]
    assert six.run("apply", **through).outcome["outcome"] == "unchanged"
    closed = six.run("apply", **through, BOOTSTRAP_PORT=str(free_port()), BOOTSTRAP_DEADLINE_S="2")
    assert (closed.exit_code, closed.outcome["reasons"][0]["code"]) == (1, "no-way-in")
    assert "connection refused" in closed.outcome["reasons"][0]["message"]


def test_an_access_service_without_an_address_is_no_success(any_program: Program, start_testbed: StartTestbed) -> None:
    """Neither for the run that has formed the cluster nor for the next one, which has nothing to do."""
    six = start_testbed(any_program)
    for steps in (True, False):
        said = six.run("apply", BOOTSTRAP_ACCESS_SERVICE="no-such-service", BOOTSTRAP_DEADLINE_S="10")
        (reason,) = said.outcome["reasons"]
        assert (said.exit_code, reason["code"], bool(said.outcome["steps"])) == (1, "no-way-in", steps), said.text
        assert "the DNS has no address of no-such-service." in reason["message"]
