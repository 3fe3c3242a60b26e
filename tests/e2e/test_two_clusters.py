"""Two clusters in one namespace, each from an overlay with a namePrefix and the label of its instance."""

from __future__ import annotations

import json
import os
import shlex
import subprocess

import pytest

from tests.manifests.kustomize import COMPONENTS, INSTANCE, KUBECTL, ROOT, of_its_own
from tests.waiting import wait_until

from .harness import PODS_S, Namespace
from .requirements import needs_disks

NAMES = ("blue", "green")
TAKEN = ("persistence", "auth", "prefixed-secrets", "network-policy", "high-availability", "role-labels")
SHAPE = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "redis-bootstrap-settings"},
    "data": {"BOOTSTRAP_SHARDS": "3", "BOOTSTRAP_REPLICAS_PER_SHARD": "0"},
}
KEYS = 20
APPLIED_S = 120


@pytest.mark.timeout(1500)
def test_two_clusters_in_one_namespace_know_nothing_of_each_other(namespace: Namespace) -> None:
    """They form at the same time, with passwords of their own, and each keeps its own data.

    All pods of both come back at the same time, so with addresses that were the other cluster's.
    """
    needs_disks(namespace, "production")
    for name in NAMES:
        apply(namespace, name)
    for name in NAMES:
        run = namespace.ended(f"{name}-redis-bootstrap")
        assert (run.outcome["outcome"], run.outcome["nodes"], run.forbidden) == ("formed", 3, ())
    leases = namespace.get("leases")["items"]
    assert sorted(each["metadata"]["name"] for each in leases) == [f"{name}-redis-bootstrap" for name in NAMES]
    for name in NAMES:
        ready(namespace, name)
        budget = namespace.get("poddisruptionbudget", f"{name}-redis-app")
        assert budget["status"]["expectedPods"] == 3
        for key in range(KEYS):
            assert ask(namespace, name, "SET", f"key:{key}", name) == "OK"

    # The other cluster is out of reach, while a client that the policies admit reaches all six servers.
    assert "could not connect" in ask(namespace, "blue", "PING", service="green-gold-redis").lower()
    addresses = [pod["status"]["podIP"] for pod in namespace.servers().values()]
    assert namespace.client("reach", "6379", *addresses) == "6"

    namespace.kubectl("delete", "pods", "-l", "app.kubernetes.io/name=redis-app")
    for name in NAMES:
        again = f"{name}-again"
        namespace.kubectl("create", "job", f"--from=cronjob/{name}-redis-bootstrap", again)
        run = namespace.ended(again)
        assert (run.outcome["exit_code"], run.outcome["nodes"], run.forbidden) == (0, 3, ())
        ready(namespace, name)
        assert {ask(namespace, name, "GET", f"key:{key}") for key in range(KEYS)} == {name}
    assert applied(namespace, "blue-redis-auth") == [f"blue-redis-app-{number}" for number in range(3)]


def apply(namespace: Namespace, name: str) -> None:
    """Three masters. The Secret of that name is created with passwords of its own."""
    namespace.apply(
        "minikube",
        components=[COMPONENTS / each for each in TAKEN],
        replicas=[{"name": "redis-app", "count": 3}],
        patches=[{"patch": json.dumps(SHAPE)}],
        **of_its_own(name),
    )


def ready(namespace: Namespace, name: str) -> None:
    """Waits until all three pods of that cluster are ready."""

    def count() -> int:
        pods = namespace.get("pods", "-l", f"app.kubernetes.io/name=redis-app,{INSTANCE}={name}")["items"]
        states = [status for pod in pods for status in pod["status"].get("containerStatuses", [])]
        return sum(status["ready"] for status in states)

    wait_until(lambda: count() == 3, f"the pods of {name} are ready", PODS_S)


def ask(namespace: Namespace, name: str, *command: str, service: str = "") -> str:
    """Runs redis-cli as the clients' user in a pod of that cluster, through its Service or another one."""
    through = service or f"{name}-gold-redis"
    login = f'timeout 10 redis-cli -c -h {through} --no-auth-warning -a "$(cat /etc/redis-auth/password)"'
    script = f"{login} {shlex.join(command)} 2>&1 || echo could not connect"
    return namespace.kubectl("exec", f"{name}-redis-app-0", "-c", "redis", "--", "sh", "-c", script).strip()


def applied(namespace: Namespace, secret: str) -> list[str]:
    """The pods that k8s/applied.sh has compared."""
    command = f"{KUBECTL} --context {namespace.context} --namespace {namespace.name}"
    done = subprocess.run(
        ["sh", str(ROOT / "k8s/applied.sh"), secret],
        env={**os.environ, "KUBECTL": command, "APPLIED_S": str(APPLIED_S)},
        capture_output=True,
        text=True,
        timeout=APPLIED_S + 60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "in use by all of" in line]
    return sorted(line.partition(": ")[2].split())
