"""Which tests `.ci/without-servers` leaves out: those to which a PATH without Redis and Valkey makes no difference.

There are two kinds of them. They run with the whole PATH only, and what is said here about them is checked there:

- Tests that only build kustomizations. The one program that their module starts is kubectl, which is on that PATH too.
- Tests about one server, which the fixture `program` or `acl_program` takes from a Python package: the same file with
  every PATH. While such a test runs, looking for another server fails it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.available_servers import SERVERS

TESTS = Path(__file__).parent
ONLY_BUILDS = frozenset(
    TESTS / "manifests" / f"test_{name}.py"
    for name in ("builds", "components", "pod_security", "security", "two_clusters")
)
"""Modules of tests that start no program but kubectl; tests/test_bare_path.py checks that."""
USES_PATH = frozenset(
    TESTS / "real" / f"test_{name}.py" for name in ("atomic", "auth", "kubernetes", "left_over_keys", "upgrade")
)
"""Modules of tests/real that start programs which look for a server or a client on PATH."""
PACKAGED = {name: path for name, path in SERVERS.items() if not name.endswith("-on-path")}
"""The servers that do not come from PATH."""


def makes_no_difference(item: pytest.Item) -> bool:
    """Whether the test has the same result with every PATH."""
    return item.path in ONLY_BUILDS or has_a_packaged_server(item)


def has_a_packaged_server(item: pytest.Item) -> bool:
    """Whether it is a test in tests/real about one server of a package, in a module that uses no other from PATH.

    A parameter of the test itself does not count: some tests give a sample of their cases to each server of SERVERS in
    turn, so their cases depend on how many servers there are.
    """
    if item.path.parent != TESTS / "real" or item.path in USES_PATH or not isinstance(item, pytest.Function):
        return False
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    named = {parameters[fixture] for fixture in ("program", "acl_program") if fixture in parameters}
    return bool(named) and named <= PACKAGED.keys()


@contextmanager
def guarded() -> Iterator[None]:
    """Looking for a program of Redis or Valkey is an error here, except for a server of a package by its path."""
    real = shutil.which

    def which(command: str, *arguments: Any, **options: Any) -> str | None:
        of_redis = any(word in Path(command).name.lower() for word in ("redis", "valkey"))
        if of_redis and Path(command) not in PACKAGED.values():
            raise AssertionError(
                f"looks for {command}: the test has the fixture `program`, so it is not repeated with another PATH;"
                " use `any_program` in a test of its own"
            )
        return real(command, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", which)
        yield
