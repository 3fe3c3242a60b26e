"""k8s/applied.sh, with a kubectl that knows one Secret and runs commands in directories instead of pods."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.secret_files import KEYS, mount

from .kustomize import ROOT
from .servers import SHELLS

KUBECTL = """#!/bin/sh
# get secret → its keys; get pods → the pods; exec POD [-c redis] -- sh -c COMMAND DIRECTORY → in its directory
echo "$*" >>{home}/calls
case $1:$2 in
  get:secret) cat {home}/secret ;;
  get:pods) cat {home}/pods ;;
  exec:*)
    pod=$2; shift 2
    while [ "$1" != sh ]; do shift; done
    exec {shell} -c "$3" "{home}/$pod$4" ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Pods:
    """Two servers, a Secret, and kubectl."""

    home: Path

    def change(self, **keys: str) -> dict[str, bytes]:
        """Sets the Secret in Kubernetes, in no order of its keys."""
        files = {key.replace("_", "-"): value.encode() for key, value in {**KEYS, **keys}.items()}
        lines = [f"{key}={base64.b64encode(value).decode()}\n" for key, value in reversed(files.items())]
        (self.home / "secret").write_text("".join(lines))
        return files

    def apply(self, pod: str, files: Mapping[str, bytes]) -> None:
        """What a server's renew-auth.sh leaves: `seen` links to a version of the Secret."""
        mount(self.home / pod / "etc", files)
        seen = self.home / pod / "run/redis/seen"
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.unlink(missing_ok=True)
        seen.symlink_to((self.home / pod / "etc/..data").resolve())

    def ask(self, *arguments: str, shell: str = "sh") -> subprocess.CompletedProcess[str]:
        """Runs the script with no patience: it looks once."""
        file = self.home / "kubectl"
        file.write_text(KUBECTL.format(home=self.home, shell=shell))
        file.chmod(0o755)
        return subprocess.run(
            [*shell.split(), str(ROOT / "k8s/applied.sh"), *arguments],
            env={"PATH": os.environ["PATH"], "KUBECTL": str(file), "APPLIED_S": "0"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def pods(tmp_path: Path) -> Pods:
    """Both servers have applied the Secret."""
    made = Pods(tmp_path)
    (tmp_path / "pods").write_text("redis-app-0 redis-app-1 ")
    files = made.change()
    made.apply("redis-app-0", files)
    made.apply("redis-app-1", files)
    return made


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_says_go_on_when_all_servers_have_the_secret(pods: Pods, shell: str) -> None:
    """With two passwords, and a value that base64 breaks into lines."""
    files = pods.change(also_password="x" * 300, also_password_2="old")
    for pod in ("redis-app-0", "redis-app-1"):
        pods.apply(pod, files)
    ended = pods.ask("redis-auth", shell=shell)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("Now the next step.\n")


def test_one_server_behind_is_named_with_the_command_that_shows_why(pods: Pods) -> None:
    """Its kubelet has not brought the change, or the server has refused it: `seen` is the version before."""
    pods.apply("redis-app-0", pods.change(also_password="new"))
    ended = pods.ask("redis-auth")
    assert ended.returncode == 1
    assert "Now the next step" not in ended.stdout
    assert "not applied after 0 s: redis-app-1." in ended.stderr
    assert "logs redis-app-1 -c redis | grep 'not applied'" in ended.stderr


def test_a_mounted_secret_that_is_not_applied_yet_does_not_count(pods: Pods) -> None:
    """The kubelet has removed the version to which `seen` links."""
    files = pods.change(also_password="new")
    pods.apply("redis-app-0", files)
    mount(pods.home / "redis-app-1/etc", files)
    assert pods.ask("redis-auth").returncode == 1


def test_the_pods_of_clients_are_compared_where_they_mount_the_secret(pods: Pods) -> None:
    """The version that the kubelet shows now."""
    assert pods.ask("redis-auth", "app=shop", "/etc").returncode == 0
    pods.change(also_password="new")
    assert pods.ask("redis-auth", "app=shop", "/etc").returncode == 1


def test_no_pod_and_no_directory_are_errors(pods: Pods) -> None:
    """A wrong namespace must not look like success."""
    assert "DIRECTORY" in pods.ask("redis-auth", "app=shop").stderr
    (pods.home / "pods").write_text("")
    ended = pods.ask("redis-auth")
    assert (ended.returncode, "kubectl -n NAMESPACE" in ended.stderr) == (2, True)


def test_only_servers_that_mount_the_secret_are_waited_for(pods: Pods) -> None:
    """Two clusters of one namespace may have Secrets of their own, with the prefix of each. The end-to-end test of two
    clusters runs this with a real kubectl.
    """
    assert pods.ask("blue-redis-auth").returncode == 0
    calls = (pods.home / "calls").read_text()
    assert "get secret blue-redis-auth" in calls
    assert '{{if eq .secretName "blue-redis-auth"}}' in calls


def test_no_value_is_an_argument(pods: Pods) -> None:
    """Nor shown."""
    ended = pods.ask("redis-auth")
    seen = ended.stdout + ended.stderr + (pods.home / "calls").read_text()
    assert [value for key, value in KEYS.items() if key.endswith("password") and value in seen] == []
