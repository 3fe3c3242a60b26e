"""The component memory: what it computes, what may override it, and a real server that starts with it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.available_servers import SERVERS
from tests.waiting import wait_until

from .kustomize import BASE, COMPONENTS, ROOT, build, build_text
from .servers import SHELLS, Server, answers, client_of, own_address

SCRIPT = COMPONENTS / "memory" / "memory.sh"
MIB = 1024 * 1024
RESERVED = 64 * MIB
LIMITS = [256, 300, 512, 1024, 2048, 4096, 65536]


def started_with(tmp_path: Path, limit: int, *arguments: str, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    """Runs the script with an entrypoint that prints its arguments."""
    entrypoint = tmp_path / "docker-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    entrypoint.chmod(0o755)
    return subprocess.run(
        [*shell.split(), str(SCRIPT), *arguments],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDIS_MEMORY_LIMIT": str(limit)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("limit", [limit * MIB for limit in LIMITS])
def test_all_that_a_server_may_use_fits_into_the_limit(tmp_path: Path, limit: int) -> None:
    """Every key may exist twice while the server has a child process, next to the buffer of a replica."""
    done = started_with(tmp_path, limit, "/etc/redis/redis.conf", "--cluster-announce-ip", "10.0.0.1")
    assert done.returncode == 0, done.stderr
    conf, _, maxmemory, _, policy, _, kind, hard, soft, seconds, *rest = done.stdout.splitlines()
    assert (conf, policy, kind, seconds) == ("/etc/redis/redis.conf", "noeviction", "replica", "60")
    assert limit - 2 <= 2 * int(maxmemory) + int(hard) + RESERVED <= limit
    assert int(hard) <= 256 * MIB
    assert int(soft) == int(hard) // 4
    # The last of two equal settings is used, so an overlay's own arguments win.
    assert rest == ["--cluster-announce-ip", "10.0.0.1"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_computes_the_same(tmp_path: Path, shell: str) -> None:
    """64 GiB do not fit into 32 bits."""
    done = started_with(tmp_path, 65536 * MIB, "redis.conf", shell=shell)
    assert done.stdout.splitlines()[1:3] == ["--maxmemory", str((65536 - 256 - 64) // 2 * MIB)]


def test_a_limit_that_is_too_small_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The container does not start, and its log says why."""
    done = started_with(tmp_path, 255 * MIB, "redis.conf")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is 255 MiB. Set it to 256 MiB or more" in done.stderr


def test_the_documented_table_is_what_the_script_computes(tmp_path: Path) -> None:
    """In docs/operations.md."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    heads, numbers = re.search(r"\| limit \|(.+)\|\n[|-]+\n\| `maxmemory` in MiB \|(.+)\|", page).groups()  # type: ignore[union-attr]
    units = {"Mi": MIB, "Gi": 1024 * MIB}
    limits = [int(text.strip()[:-2]) * units[text.strip()[-2:]] for text in heads.split("|")]
    computed = [int(started_with(tmp_path, limit, "redis.conf").stdout.splitlines()[2]) // MIB for limit in limits]
    assert [int(number) for number in numbers.split("|")] == computed


def test_one_number_sets_the_limit_and_the_request() -> None:
    """The patch in the first lines of the component works. Without a request Kubernetes takes the limit."""
    text = (SCRIPT.parent / "kustomization.yaml").read_text(encoding="utf-8")
    shown = yaml.safe_load("\n".join(line.removeprefix("#") for line in text.splitlines() if re.match(r"#   ", line)))
    built = build_text(resources=[BASE], components=[SCRIPT.parent], patches=shown["patches"])
    (server,) = built.one("StatefulSet", "redis-app")["spec"]["template"]["spec"]["containers"]
    assert server["resources"] == {"requests": {"cpu": "100m"}, "limits": {"memory": "4Gi"}}
    assert {"name": "REDIS_MEMORY_LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}} in server[
        "env"
    ]
    (before,) = build(BASE).one("StatefulSet", "redis-app")["spec"]["template"]["spec"]["containers"]
    assert server["args"] == before["args"]


@pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS.keys())
def test_every_server_starts_with_it(program: Path, tmp_path: Path) -> None:
    """`replica` is the name of that buffer since Redis 5.0, and the script is replaced by the server."""
    entrypoint = tmp_path / "docker-entrypoint.sh"
    entrypoint.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
    entrypoint.chmod(0o755)
    conf = tmp_path / "redis.conf"
    conf.write_text(f"dir {tmp_path}\nprotected-mode no\n")
    address = own_address()
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDIS_MEMORY_LIMIT": str(512 * MIB)}
    with subprocess.Popen(["sh", str(SCRIPT), str(conf), "--bind", address], env=environment) as process:
        try:
            server = Server(address, process, client_of(address))
            wait_until(lambda: answers(server), f"{program} answers")
            config = server.client.config_get("maxmemory*")
            assert (config["maxmemory"], config["maxmemory-policy"]) == (str(192 * MIB), "noeviction")
            buffers = str(server.client.config_get("client-output-buffer-limit"))
            assert re.search(rf"(slave|replica) {64 * MIB} {16 * MIB} 60", buffers)
        finally:
            process.kill()
