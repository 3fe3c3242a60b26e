"""Clients on this machine, outside of the pod network, with TLS and their libraries' checks of names.

Load balancers are not part of a test cluster. Services get `externalIPs` instead, and E2E_ROUTE is the command that
leads packets for such an address to a machine of the cluster: `ip route {verb} {address} via {via}`, with the verbs
replace and del. The clients' own /etc/hosts has the names; it is mounted for them alone.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from bootstrap.model.slots import SLOT_COUNT
from tests.manifests.kustomize import COMPONENTS, TRANSFORMER, Manifest
from tests.waiting import wait_until

from .harness import CLIENT, PODS_S, Namespace, environment
from .redis_secrets import OUTSIDE, SECRETS
from .requirements import needs_disks

PODS = [f"redis-app-{ordinal}" for ordinal in range(6)]
ADDRESSES = {pod: f"198.51.100.{number}" for number, pod in enumerate(PODS, 10)}
"""Of a range for documentation, so nothing else is there."""
CLIENT_S = 300
PAUSE_S = 20
"""No write waits longer than that during a restart of every pod, one after another."""
FIRST_NODE_PORT = 30060
MARK = {"disableNameSuffixHash": True, "annotations": {"config.kubernetes.io/local-config": "true"}}
DOMAIN = [{"name": "redis-hostnames", "literals": [f"domain={OUTSIDE}"], "options": MARK}]
ANYWHERE = {"op": "add", "path": "/spec/ingress/0/from/-", "value": {"ipBlock": {"cidr": "0.0.0.0/0"}}}


@dataclass(frozen=True)
class Outside:
    """This machine: its hosts file for clients, and the files of the Secrets."""

    directory: Path
    hosts: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Starts a program that resolves the names."""
        file = self.directory / "hosts"
        lines = [f"{address} {pod}.{OUTSIDE}" for pod, address in self.hosts.items()]
        file.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]), encoding="ascii")
        mounted = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        return subprocess.Popen(
            [*mounted, "sh", "-c", script, str(file), *command],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, stdin: str = "", **variables: str) -> str:
        """Runs it to its end, and returns its output."""
        with self.start(*command, **variables) as process:
            output, error = process.communicate(stdin, timeout=CLIENT_S)
        assert process.returncode == 0, f"{command}: {output}\n{error}"
        return output

    def python(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the cluster client of the other tests: redis-py with its defaults."""
        return self.start(sys.executable, str(CLIENT), *arguments, **self._variables())

    def client(self, *arguments: str) -> str:
        """Runs it to its end."""
        return self.run(sys.executable, str(CLIENT), *arguments, **self._variables()).strip()

    def _variables(self) -> dict[str, str]:
        entry = [f"{PODS[0]}.{OUTSIDE}", 6379]
        settings = {"entry": entry, "secrets": str(self.directory), **self.settings}
        return {"E2E_OUTSIDE_CLIENT": json.dumps(settings)}

    def redis_cli(self, pod: str, *arguments: str, stdin: str = "") -> str:
        """`redis-cli -c` with TLS, that enters by this pod."""
        auth, tls, host = self.directory / "redis-auth", self.directory / "redis-tls", f"{pod}.{OUTSIDE}"
        options = ["-c", "--tls", "--cacert", str(tls / "ca.crt"), "--sni", host, "-h", host]
        options += ["--cert", str(tls / "tls.crt"), "--key", str(tls / "tls.key")]
        options += ["--user", (auth / "username").read_text(encoding="ascii")]
        password = (auth / "password").read_text(encoding="ascii")
        return self.run("redis-cli", *options, *arguments, stdin=stdin, REDISCLI_AUTH=password).strip()

    def role(self, pod: str) -> str:
        """The role of that pod's server: `master` or `slave`."""
        return self.redis_cli(pod, "ROLE").splitlines()[0]


@pytest.mark.skipif(not environment("E2E_ROUTE"), reason="needs E2E_ROUTE: ip route {verb} {address} via {via}")
@pytest.mark.skipif(not shutil.which("redis-cli") or not shutil.which("unshare"), reason="needs redis-cli and unshare")
@pytest.mark.timeout(1800)
def test_clients_outside_reach_every_slot_through_a_restart_and_a_failover(
    namespace: Namespace, tmp_path: Path
) -> None:
    """redis-cli and redis-py write and read a key in every slot. Every pod restarts while a client writes."""
    needs_disks(namespace, "production")
    namespace.apply(
        "production",
        components=[COMPONENTS / "outside"],
        configMapGenerator=DOMAIN,
        patches=[
            *external_ips(),
            {"target": {"kind": "NetworkPolicy", "name": "redis-app"}, "patch": text(ANYWHERE)},
            {"target": {"kind": "Job", "name": "redis-bootstrap"}, "patch": text(aliases())},
        ],
        transformers=[TRANSFORMER],
    )
    formed = namespace.ended()
    assert (formed.condition, formed.outcome["outcome"]) == ("Complete", "formed"), formed.log
    namespace.wait_for_servers()
    outside = Outside(with_secrets(namespace, tmp_path), ADDRESSES)
    with routes(namespace):
        assert outside.client("fill") == outside.client("look") == str(SLOT_COUNT)
        assert by_redis_cli(outside, "SET {key} {key}") == ["OK"] * SLOT_COUNT
        assert by_redis_cli(outside, "GET {key}") == ["{" + tag + "}" for tag in tags()]

        with outside.python("endure", "0", "0") as writer:
            restart(namespace)
            new = wait_until(lambda: replica(outside), "a replica answers", PODS_S)
            assert outside.redis_cli(new, "CLUSTER", "FAILOVER") == "OK"
            wait_until(lambda: outside.role(new) == "master", f"{new} has taken over", PODS_S)
            output, error = writer.communicate(timeout=CLIENT_S)
        assert writer.returncode == 0, error
        told = json.loads(output)
        print({**told, "copied": len(told["copied"])})
        assert told["longest_s"] < PAUSE_S
        assert outside.client("found", json.dumps(told["copied"])) == str(len(told["copied"]))
        assert outside.client("look") == str(SLOT_COUNT)
        assert by_redis_cli(outside, "GET {key}") == ["{" + tag + "}" for tag in tags()]
    # The failover may have left two masters on one machine.
    assert namespace.run("again").condition == "Complete"
    last = namespace.run("last")
    assert (last.outcome["outcome"], last.forbidden) == ("unchanged", ())


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_clients_outside_translate_node_ports(namespace: Namespace, tmp_path: Path) -> None:
    """redis-py with `address_remap` writes and reads a key in every slot. It compares names, too."""
    namespace.apply("minikube", components=[COMPONENTS / "outside-nodeport", COMPONENTS / "tls"])
    assert namespace.ended().condition == "Complete"
    namespace.wait_for_servers()
    machines = {pod: manifest["status"]["hostIP"] for pod, manifest in namespace.servers().items()}
    settings = {"entry": [f"{PODS[0]}.{OUTSIDE}", FIRST_NODE_PORT], "nodeports": [OUTSIDE, FIRST_NODE_PORT]}
    outside = Outside(with_secrets(namespace, tmp_path), machines, settings)
    assert outside.client("fill") == outside.client("look") == str(SLOT_COUNT)


def external_ips() -> list[Manifest]:
    """Each Service gets its address, in place of a load balancer."""
    return [
        {
            "target": {"kind": "Service", "name": pod},
            "patch": text({"op": "add", "path": "/spec/externalIPs", "value": [address]}),
        }
        for pod, address in ADDRESSES.items()
    ]


def aliases() -> Manifest:
    """The names inside, in place of the DNS of a company: the Job finds them in /etc/hosts."""
    value = [{"ip": address, "hostnames": [f"{pod}.{OUTSIDE}"]} for pod, address in ADDRESSES.items()]
    return {"op": "add", "path": "/spec/template/spec/hostAliases", "value": value}


def text(operation: Manifest) -> str:
    """A patch with this operation."""
    return json.dumps([operation])


def with_secrets(namespace: Namespace, directory: Path) -> Path:
    """Writes the Secrets as they are mounted in pods, to this directory."""
    for name in SECRETS:
        if secret := namespace.get("secret", name, "--ignore-not-found"):
            (directory / name).mkdir()
            (directory / name / "..data").symlink_to(".")
            for key, value in secret["data"].items():
                (directory / name / key).write_bytes(base64.b64decode(value))
    return directory


@contextmanager
def routes(namespace: Namespace) -> Iterator[None]:
    """Leads packets for the address of each pod to the machine on which it runs. Its disk keeps it there."""
    machines = {pod: manifest["status"]["hostIP"] for pod, manifest in namespace.servers().items()}

    def lead(verb: str) -> None:
        for pod, address in ADDRESSES.items():
            command = environment("E2E_ROUTE").format(verb=verb, address=address, via=machines[pod])
            subprocess.run(command, shell=True, check=True, capture_output=True, timeout=30)

    lead("replace")
    try:
        yield
    finally:
        lead("del")


def restart(namespace: Namespace) -> None:
    """Every pod, one after another, and waits until all are new and ready."""
    before = frozenset(pod["metadata"]["uid"] for pod in namespace.servers().values())
    namespace.kubectl("rollout", "restart", "statefulset", "redis-app")
    limit_s = 2 * PODS_S
    namespace.kubectl("rollout", "status", "statefulset", "redis-app", f"--timeout={limit_s}s", limit_s=limit_s + 5)
    namespace.wait_for_servers(but=before)


def replica(outside: Outside) -> str | None:
    """A pod whose server is a replica."""
    return next((pod for pod in PODS if outside.role(pod) == "slave"), None)


def tags() -> list[str]:
    """A word in each slot, by slot, so that redis-cli follows few redirections."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < SLOT_COUNT:
        found.setdefault(key_slot(f"cli:{number}".encode()), f"cli:{number}")
        number += 1
    return [found[slot] for slot in sorted(found)]


def by_redis_cli(outside: Outside, command: str) -> list[str]:
    """The replies of redis-cli to that command for a key in every slot. It is redirected to names on its way."""
    commands = "".join(command.format(key="{" + tag + "}") + "\n" for tag in tags())
    lines = outside.redis_cli(PODS[-1], stdin=commands).splitlines()
    redirections = [line for line in lines if line.startswith("-> Redirected")]
    assert len(redirections) >= 2
    assert all(line.endswith(f".{OUTSIDE}:6379") for line in redirections)
    return [line for line in lines if not line.startswith("-> Redirected")]
