"""The image of the servers changes on a real cluster, while a client writes: each pod is replaced after the one before
it is in step, and a rollout that cannot go on stops at its first pod.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.manifests.kustomize import COMPONENTS, KUBECTL
from tests.waiting import wait_until

from .harness import CLIENT, KUBECTL_S, Namespace
from .requirements import needs_disks

ROLLOUT_S = 420
PAUSE_MAX_S = 15
"""For one key, with a busy machine. The pauses of a quiet one are in docs/moving.md."""
BEFORE, AFTER = "redis:7.0", "redis:8.2"
VALKEY = "valkey/valkey:9.1"
MISSING = "redis:8.2.999"


def at(image: str) -> dict[str, object]:
    """The edit in an overlay. Runs wait for 30 s."""
    servers = {
        "target": {"kind": "StatefulSet"},
        "patch": f"""
- {{op: replace, path: /spec/template/spec/containers/0/image, value: {image}}}
""",
    }
    settings = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: redis-bootstrap-settings}\n"
        'data: {BOOTSTRAP_DEADLINE_S: "30"}\n'
    )
    return {"components": [COMPONENTS / "persistence"], "patches": [servers, {"patch": settings}]}


def formed(namespace: Namespace, image: str) -> None:
    """A cluster of that image on disks, in which all servers are ready."""
    needs_disks(namespace, "persistence")
    namespace.apply("minikube", **at(image))
    wait_until(namespace.first_outcome, "the first run ends", ROLLOUT_S)
    namespace.wait_for_servers()


@contextmanager
def writing(namespace: Namespace, first: int) -> Iterator[dict[str, Any]]:
    """A client that writes numbered keys, each until it is acknowledged, from `first`. At the end: `next`, the longest
    pause, and how many of the acknowledged keys are missing.
    """
    namespace.client_pod("client")
    place = [KUBECTL, "--context", namespace.context, "--namespace", namespace.name]
    told = dict[str, Any]()
    command = [*place, "exec", "-i", "client", "--", "python", "-c", CLIENT.read_text(encoding="utf-8")]
    with subprocess.Popen(
        [*command, "endure", "0", str(first)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield told
            output, _ = process.communicate(timeout=KUBECTL_S)
        finally:
            process.kill()
    told |= json.loads(output)
    there = int(namespace.client("read", str(first), str(told["next"])))
    told["lost"] = told["next"] - first - there
    if file := os.environ.get("E2E_LEDGER"):
        with Path(file).open("a", encoding="utf-8") as ledger:
            print(namespace.name, told["next"] - first, told["lost"], told["longest_s"], file=ledger)


def rolled_out(namespace: Namespace) -> None:
    """Waits until the rollout is complete."""
    namespace.kubectl("rollout", "status", "statefulset/redis-app", f"--timeout={ROLLOUT_S}s", limit_s=ROLLOUT_S + 10)


def stuck_at(namespace: Namespace, job: str, *words: str) -> None:
    """A run while the first pod does not start: it names pod, reason and command, the others serve."""

    def broken() -> bool:
        statuses = namespace.servers()["redis-app-5"]["status"].get("containerStatuses", [])
        waiting = [status["state"]["waiting"]["reason"] for status in statuses if "waiting" in status["state"]]
        return any(reason in ("ImagePullBackOff", "CrashLoopBackOff") for reason in waiting)

    wait_until(broken, "redis-app-5 does not start", ROLLOUT_S)
    namespace.start(job)
    outcome = wait_until(lambda: namespace.first_outcome(job), f"the first try of {job} ends", ROLLOUT_S)
    (reason,) = (each for each in outcome["reasons"] if each["code"] == "rollout-stuck")
    assert (outcome["exit_code"], outcome["serving"], reason["node"]) == (1, True, "redis-app-5")
    for word in words:
        assert word in reason["message"], reason
    undo = f"kubectl --namespace {namespace.name} rollout undo statefulset/redis-app"
    assert reason["remedy"].startswith(undo)
    pods = namespace.servers()
    revisions = {pod: each["metadata"]["labels"]["controller-revision-hash"] for pod, each in pods.items()}
    assert len({revisions[f"redis-app-{number}"] for number in range(5)}) == 1, "only the first pod was replaced"
    namespace.kubectl("delete", "job", job)


def test_an_upgrade_loses_no_write_and_the_way_back_is_refused(namespace: Namespace) -> None:
    """Redis 7.0 to 8.2. Back to 7.0 stops at the first pod, whose server cannot read its files; undone, all is well."""
    formed(namespace, BEFORE)
    with writing(namespace, 0) as up:
        namespace.apply("minikube", **at(AFTER))
        wait_until(lambda: "terminat" in namespace.kubectl("get", "pods").lower(), "the first pod ends")
        namespace.start("during")
        rolled_out(namespace)
    assert (up["lost"], up["longest_s"] < PAUSE_MAX_S) == (0, True), up
    after = namespace.run("after")
    assert (after.condition, after.outcome["outcome"]) == ("Complete", "unchanged"), after.log
    assert not after.events("rollout")

    with writing(namespace, up["next"]) as back:
        namespace.apply("minikube", **at(BEFORE))
        stuck_at(namespace, "stuck", "CrashLoopBackOff", "RDB format version 12", "clients are served")
        namespace.kubectl("rollout", "undo", "statefulset/redis-app")
        rolled_out(namespace)
    assert (back["lost"], back["longest_s"] < PAUSE_MAX_S) == (0, True), back
    undone = namespace.run("undone")
    assert undone.condition == "Complete", undone.log
    assert undone.outcome["outcome"] in ("unchanged", "repaired"), "masters may hand over for their places"


def test_an_image_that_is_missing_stops_at_the_first_pod_and_another_server_takes_over(namespace: Namespace) -> None:
    """Redis 7.0 to an image that does not exist, undone, and then to Valkey 9.1."""
    formed(namespace, BEFORE)
    with writing(namespace, 0) as missing:
        namespace.apply("minikube", **at(MISSING))
        stuck_at(namespace, "stuck", "ImagePullBackOff", MISSING, "clients are served")
        namespace.kubectl("rollout", "undo", "statefulset/redis-app")
        rolled_out(namespace)
    assert (missing["lost"], missing["longest_s"] < PAUSE_MAX_S) == (0, True), missing

    with writing(namespace, missing["next"]) as valkey:
        namespace.apply("minikube", **at(VALKEY))
        rolled_out(namespace)
    assert (valkey["lost"], valkey["longest_s"] < PAUSE_MAX_S) == (0, True), valkey
    after = namespace.run("after")
    assert (after.condition, after.outcome["outcome"]) == ("Complete", "unchanged"), after.log
    assert "valkey 9.1" in after.log
    assert "redis 7.0" not in after.log
