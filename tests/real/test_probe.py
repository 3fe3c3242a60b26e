"""The probe's ways of failing: each ends in its own error, soon, and without the password."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bootstrap.clock import SystemClock
from bootstrap.local.programs import Program
from bootstrap.model.node import Address
from bootstrap.nodes import probe as probing
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.probe import ProbeFailed, probe
from tests.real.conftest import Testbed
from tests.real.test_bad_input import free_port, stranger

Labs = Callable[..., Testbed]


def test_a_door_that_is_closed_is_a_failed_probe(any_program: Program, lab: Labs) -> None:
    """So an access Service answers while none of its pods is ready: it is waited for, and no fault of this program."""
    six = lab(any_program)
    six.run("apply")
    with pytest.raises(ProbeFailed, match=r"a client cannot connect through 127\.0\.0\.1"):
        probe(six.view(), [Address("127.0.0.1", free_port())], Credentials(), clock=SystemClock())


def test_a_door_that_drips_bytes_does_not_hang_the_probe(
    any_program: Program, lab: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket ever times out, so the probe as a whole does."""
    six = lab(any_program)
    six.run("apply")
    monkeypatch.setattr(probing, "PROBE_LIMIT_S", 1.0)
    with (
        stranger(b"$100000\r\n" + b"x" * 1000, drip_s=0.3) as (host, port),
        pytest.raises(ProbeFailed, match="no answer within 1 s"),
    ):
        probe(six.view(), [Address(host, port)], Credentials(), clock=SystemClock())


def test_a_server_that_quotes_the_password_is_not_repeated(any_program: Program, lab: Labs, tmp_path: Path) -> None:
    """`unknown command AUTH, with args beginning with: …`: the words are told, the secret is not."""
    six = lab(any_program, config=('rename-command AUTH ""',))
    secret = tmp_path / "password"
    secret.write_text("S3cr3t'Pass")
    said = six.run("apply", BOOTSTRAP_PASSWORD_FILE=str(secret), BOOTSTRAP_DEADLINE_S="2")
    assert said.exit_code == 4
    assert "unknown command" in said.text.lower()
    assert "S3cr3t" not in said.text


def test_a_way_in_that_is_closed_is_no_success_of_the_next_run_either(any_program: Program, lab: Labs) -> None:
    """The cluster is healthy and nothing is to be written, but through the access Service nobody gets in: exit 1."""
    six = lab(any_program)
    through = {"BOOTSTRAP_ACCESS_SERVICE": "redis-service"}
    formed = six.run("apply", **through)
    assert [line["through"] for line in formed.lines if line["event"] == "probe_done"] == ["redis-service"]
    assert six.run("apply", **through).outcome["outcome"] == "unchanged"
    closed = six.run("apply", **through, BOOTSTRAP_PORT=str(free_port()), BOOTSTRAP_DEADLINE_S="2")
    assert (closed.exit_code, closed.outcome["reasons"][0]["code"]) == (1, "no-way-in")
    assert "connection refused" in closed.outcome["reasons"][0]["message"]
