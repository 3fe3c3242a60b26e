"""Pods take over a cluster that is not ours: another namespace, a password, formed by hand, with a client at work."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.manifests.kustomize import COMPONENTS, KUBECTL, OVERLAYS, Manifest
from tests.waiting import wait_until

from .harness import CLIENT, KUBECTL_S, PODS_S, Namespace, Run, environment

OLD = "old-redis"
OLD_IMAGE = environment("E2E_OLD_SERVER") or "redis:7.0"
NEW_IMAGES = [environment("E2E_SERVER")] if environment("E2E_SERVER") else ["valkey/valkey:9.1", "redis:8.2"]
PAUSE_MAX_S = 2.0


@pytest.fixture
def old(namespace: Namespace) -> Iterator[Namespace]:
    """The namespace of the old cluster, deleted after the test."""
    made = replace(namespace, name=f"{namespace.name}-old")
    made.create()
    yield made
    made.delete()


@pytest.mark.parametrize("server", NEW_IMAGES)
def test_a_cluster_is_taken_over_with_a_client_at_work(
    namespace: Namespace, old: Namespace, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, back, there again, and finished. No acknowledged write that a replica had is lost."""
    monkeypatch.setenv("E2E_SERVER", server)
    password, server_password = secrets.token_hex(16), secrets.token_hex(16)
    form_by_hand(old, password, server_password)
    create_secrets(namespace, password, server_password)
    host = f"{OLD}.{old.name}.svc.cluster.local"
    declared = {"BOOTSTRAP_ADOPT": f"{host}:6379"}
    apply(namespace, declared)
    refused = namespace.ended()
    (reason,) = refused.outcome["reasons"]
    assert (refused.outcome["exit_code"], reason["code"]) == (3, "adoption-not-confirmed"), refused.log
    fingerprint = re.search(r"fingerprint=([0-9a-f]{12})", reason["remedy"])
    assert fingerprint, reason
    declared["BOOTSTRAP_ADOPT_FINGERPRINT"] = fingerprint[1]
    namespace.client_pod("client")
    with enduring_client(namespace, f"{OLD}-0.{host}") as told:
        for name, more, word in (
            ("there", {}, "adopted"),
            ("back", {"BOOTSTRAP_ADOPT_BACK": "on"}, "returned"),
            ("again", {}, "adopted"),
            ("finish", {"BOOTSTRAP_ADOPT_FINISH": "on"}, "finished"),
        ):
            run = with_settings(namespace, name, declared | more)
            assert run.outcome["outcome"] == word, run.log
        plain = with_settings(namespace, "plain", {})
        assert (plain.outcome["outcome"], plain.outcome["steps"]) == ("unchanged", 0), plain.log
    copied = told["copied"]
    assert len(copied) > 100
    assert told["longest_s"] < PAUSE_MAX_S
    assert namespace.client("found", json.dumps(copied), name="reader") == str(len(copied))
    lines = old.redis(f"{OLD}-0", "--no-auth-warning", "-a", password, "cluster", "nodes").splitlines()
    assert len(lines) == 1, "it has left"


def apply(namespace: Namespace, declared: dict[str, str]) -> None:
    """The overlay, with the password of the old cluster and the given settings."""
    patch: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "redis-bootstrap-settings"},
        "data": {"BOOTSTRAP_ADOPT_BACK": "off", "BOOTSTRAP_ADOPT_FINISH": "off", **declared},
    }
    password = (OVERLAYS / "adopt" / "password-patch.yaml").read_text(encoding="utf-8")
    patches = [{"patch": json.dumps(patch)}, {"patch": password}]
    transformers = [OVERLAYS.parent / "transformers" / "cronjob-from-job"]
    namespace.apply("adopt", components=[COMPONENTS / "auth"], patches=patches, transformers=transformers)


def with_settings(namespace: Namespace, name: str, declared: dict[str, str]) -> Run:
    """A run with these settings alone about an adoption."""
    unset = dict.fromkeys(("BOOTSTRAP_ADOPT", "BOOTSTRAP_ADOPT_FINGERPRINT"), "")
    unset |= dict.fromkeys(("BOOTSTRAP_ADOPT_BACK", "BOOTSTRAP_ADOPT_FINISH"), "off")
    data = json.dumps({"data": unset | declared})
    namespace.kubectl("patch", "configmap", "redis-bootstrap-settings", "--patch", data)
    return namespace.run(name)


def create_secrets(namespace: Namespace, password: str, server_password: str) -> None:
    """That of the component auth, with the old password for clients, and that of the old release."""
    auth = {"username": "default", "password": password, "server-password": server_password}
    auth |= {"bootstrap-username": "bootstrap", "bootstrap-password": secrets.token_hex(16)}
    for name, data in (("redis-auth", auth), ("old-redis-cluster", {"redis-password": password})):
        namespace.create_all([{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}])


def form_by_hand(old: Namespace, password: str, server_password: str) -> None:
    """Six plain servers, made a cluster by redis-cli. They get the user with which the pods copy."""
    old.create_all(plain_servers(old, password))
    args = ("--no-auth-warning", "-a", password)

    def addresses() -> list[str]:
        pods = old.get("pods", "-l", f"app={OLD}")["items"]
        ready = [
            pod["status"]["podIP"]
            for pod in pods
            if all(s.get("ready") for s in pod["status"].get("containerStatuses", [{}]))
        ]
        return ready if len(ready) == 6 else []

    found = wait_until(addresses, "six old servers are ready", PODS_S)
    places = [f"{address}:6379" for address in found]
    old.redis(f"{OLD}-0", *args, "--cluster", "create", *places, "--cluster-replicas", "1", "--cluster-yes")
    for number in range(6):
        pod = f"{OLD}-{number}"
        wait_until(partial(is_ok, old, pod, args), f"{pod} is ok", PODS_S)
        rules = ("on", f">{server_password}", "+psync", "+replconf", "+ping")
        assert old.redis(pod, *args, "acl", "setuser", "server", *rules) == "OK"


def is_ok(old: Namespace, pod: str, args: tuple[str, ...]) -> bool:
    return "cluster_state:ok" in old.redis(pod, *args, "cluster", "info")


def plain_servers(old: Namespace, password: str) -> list[Manifest]:
    labels = {"app": OLD}
    command = ["redis-server", "--cluster-enabled", "yes", "--dir", "/data", "--appendonly", "yes"]
    command += ["--requirepass", password, "--masterauth", password, "--cluster-node-timeout", "5000"]
    container: dict[str, Any] = {
        "name": "redis",
        "image": OLD_IMAGE,
        "command": command,
        "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    user = {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999, "runAsNonRoot": True}
    spec = {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    ports = [{"name": "client", "port": 6379}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": OLD},
            "spec": {"clusterIP": "None", "selector": labels, "ports": ports, "publishNotReadyAddresses": True},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": OLD},
            "spec": {
                "serviceName": OLD,
                "replicas": 6,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        },
    ]


@contextmanager
def enduring_client(namespace: Namespace, entry: str) -> Iterator[dict[str, Any]]:
    """A client that began at the old cluster and writes until the end. What it has to tell is there after the end."""
    program = CLIENT.read_text(encoding="utf-8")
    where = "E2E_OUTSIDE_CLIENT=" + json.dumps({"entry": [entry, 6379]})
    place = [KUBECTL, "--context", namespace.context, "--namespace", namespace.name]
    told = dict[str, Any]()
    with subprocess.Popen(
        [*place, "exec", "-i", "client", "--", "env", where, "python", "-c", program, "endure", "0", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield told
            output, _ = process.communicate(timeout=KUBECTL_S)
            told |= json.loads(output)
        finally:
            process.kill()
