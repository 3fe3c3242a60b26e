"""The tests that `.ci/without-servers` does not repeat have the same result with every PATH."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bootstrap.local.programs import find_program
from tests.bare_path import ONLY_BUILDS, PACKAGED, TESTS, USES_PATH, guarded

HARMLESS = {
    *("__future__", "collections.abc", "copy", "functools", "itertools", "json", "pathlib", "random", "re", "typing"),
    *("kubernetes_validate", "pytest", "yaml", "bootstrap", "bootstrap.config"),
}
"""Modules that start no program and look for none."""
STARTS_KUBECTL = TESTS / "manifests" / "kustomize.py"


def imported_by(file: Path) -> set[str]:
    """The modules that the file imports; those of its own package with a dot before them."""
    found = set()
    for each in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(each, ast.Import):
            found |= {name.name for name in each.names}
        elif isinstance(each, ast.ImportFrom):
            found.add("." * each.level + (each.module or ""))
    return found


@pytest.mark.parametrize("file", sorted(ONLY_BUILDS), ids=lambda file: file.stem)
def test_a_module_that_only_builds_starts_nothing_but_kubectl(file: Path) -> None:
    """Neither do the modules beside it that it imports."""
    waiting, seen = [file], {STARTS_KUBECTL}
    while waiting:
        seen.add(here := waiting.pop())
        names = imported_by(here)
        beside = {name for name in names if name.startswith(".")}
        assert names - beside <= HARMLESS, here
        waiting += {here.parent / f"{name.removeprefix('.')}.py" for name in beside} - seen


def test_kubectl_is_on_every_path() -> None:
    """The bare PATH lacks what has Redis or Valkey in its name, and kubectl is all that builds start."""
    text = STARTS_KUBECTL.read_text(encoding="utf-8")
    assert text.count("subprocess.run(") == 1
    assert '[KUBECTL, "kustomize", str(directory)]' in text
    assert "unwanted=(-iname '*redis*' -o -iname '*valkey*')" in (TESTS.parent / ".ci/without-servers").read_text()


def test_a_test_about_a_packaged_server_must_not_look_for_another() -> None:
    """Its own server is found, and so is every program that is not a server."""
    program = next(iter(PACKAGED.values()))
    with guarded():
        assert find_program(str(program)).path == program
        assert shutil.which("sh")
        for another in ("redis-server", "/usr/bin/valkey-server", "redis-cli"):
            with pytest.raises(AssertionError, match=f"looks for {another}"):
                shutil.which(another)
        with pytest.raises(AssertionError, match="looks for redis-server"):
            find_program()
    assert find_program().version


def test_other_processes_of_tests_on_real_servers_look_for_no_server() -> None:
    """The guard sees only the process of the test. Of the program's verbs, `local` alone looks for a server; scripts of
    the manifests may, and so may what gets a PATH of its own.
    """
    risky = re.compile(r"""CLIENTS|["']PATH["']|["']local["']|tests\.(local|manifests|secret_files)""")
    files = {file for file in (TESTS / "real").glob("*.py") if risky.search(file.read_text(encoding="utf-8"))}
    assert files == USES_PATH


def test_what_may_differ_is_repeated() -> None:
    """The default server, those of PATH, a module that uses PATH, a sample over all servers, each module not listed."""
    modules = ["real/test_forming.py", "real/test_auth.py", "real/test_kills.py", "manifests/test_servers.py"]
    packaged = next(iter(PACKAGED))
    whole, bare = (collected(bare, *modules, "manifests/test_builds.py") for bare in ("false", "true"))
    left_out = whole - bare
    assert bare < whole
    assert {name.partition("::")[0] for name in left_out} == {"real/test_forming.py", "manifests/test_builds.py"}
    assert not [name for name in bare if name.startswith("manifests/test_builds.py")]
    of_real = {name for name in left_out if name.startswith("real/")}
    assert (
        f"real/test_forming.py::test_six_servers_become_a_cluster_and_a_second_run_changes_nothing[{packaged}]"
        in of_real
    )
    assert [name for name in of_real if "-on-path" in name or not any(server in name for server in PACKAGED)] == []


def collected(bare: str, *modules: str) -> set[str]:
    """The tests that pytest collects from these modules."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *modules],
        cwd=TESTS,
        env={**os.environ, "TEST_BARE_PATH": bare},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return {line.removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line}
