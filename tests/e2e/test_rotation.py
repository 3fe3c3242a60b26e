"""Secrets change by the commands of docs/operations.md. Clients that connect and work all the time have no error."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.manifests.kustomize import COMPONENTS, KUBECTL, ROOT

from .harness import Namespace
from .redis_secrets import issue_anew

STEP_S = 660
"""For the commands of one step. applied.sh waits up to 300 s, for the servers and for the clients."""
PASSWORDS = ("password", "bootstrap-password", "server-password", "metrics-password")
SECTION = re.compile(r"^### (.+?)$(.*?)(?=^##)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("username", ["default", "app"])
def test_passwords_change_without_an_error(namespace: Namespace, tmp_path: Path, username: str) -> None:
    """All passwords. The cluster is healthy afterwards, replication runs, and the old passwords are gone.

    No connection of the user `default` is closed. Those of others are by Redis 7.0 (ACL LOAD), and connect again.
    """
    namespace.kubectl("create", "secret", "generic", "redis-auth", *literals(username))
    namespace.apply("minikube", components=[COMPONENTS / "auth"])
    assert namespace.ended().condition == "Complete"
    namespace.wait_for_servers()
    before = namespace.get("secret", "redis-auth")["data"]
    with namespace.staying_client() as told:
        follow("Passwords", namespace, tmp_path)
        namespace.run("again")
    assert done(told) == []
    assert username != "default" or told["closed"] == 0
    after = namespace.get("secret", "redis-auth")["data"]
    assert after.keys() == before.keys()
    assert [key for key in before if key.endswith("password") and before[key] == after[key]] == []
    assert namespace.run("last").outcome["outcome"] == "unchanged"


@pytest.mark.timeout(1800)
def test_the_authority_changes_without_an_error(namespace: Namespace, tmp_path: Path) -> None:
    """The new authority is trusted before certificates of it are shown, and the old one until none of it is shown."""
    namespace.apply("minikube", components=[COMPONENTS / "tls"])
    assert namespace.ended().condition == "Complete"
    namespace.wait_for_servers()
    issue_anew(tmp_path, namespace.name)
    with namespace.staying_client() as told:
        follow("Certificates", namespace, tmp_path)
        namespace.run("again")
    assert (done(told), told["closed"]) == ([], 0)
    assert namespace.run("last").outcome["outcome"] == "unchanged"


def literals(username: str) -> list[str]:
    """The first passwords of a test."""
    keys = {"username": username, "bootstrap-username": "bootstrap"}
    keys |= {key: f"the first {key}" for key in PASSWORDS}
    return [f"--from-literal={key}={value}" for key, value in keys.items()]


def follow(section: str, namespace: Namespace, directory: Path) -> None:
    """Types the commands of that section, in its order, in a directory with the files that it names."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(dict(SECTION.findall(text))[section])
    assert blocks
    (directory / "bin").mkdir()
    place = shlex.join([str(KUBECTL), "--context", namespace.context, "--namespace", namespace.name])
    (directory / "bin" / "kubectl").write_text(f'#!/bin/sh\nexec {place} "$@"\n', encoding="utf-8")
    (directory / "bin" / "kubectl").chmod(0o755)
    (directory / "k8s").symlink_to(ROOT / "k8s")
    for block in blocks:
        typed = re.sub(r"^\$ ", "", block, flags=re.MULTILINE)
        for placeholder, value in {
            "app=YOUR-APP": "app.kubernetes.io/name=e2e-client",
            "NAMESPACE": namespace.name,
        }.items():
            typed = typed.replace(placeholder, value)
        ended = subprocess.run(
            ["sh", "-euc", typed],
            cwd=directory,
            env={**os.environ, "PATH": f"{directory / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=STEP_S,
            check=False,
        )
        assert ended.returncode == 0, f"{typed}\n{ended.stdout}\n{ended.stderr}"
        assert ended.stdout.endswith("Now the next step.\n"), ended.stdout


def done(told: dict[str, object]) -> object:
    """The errors of the client, which has done something of each kind. Shown with -s."""
    print(told)
    kinds = told["done"]
    assert isinstance(kinds, dict)
    assert len(kinds) == 4, told
    return told["errors"]
