"""A namespace on a real cluster, and kubectl for the actions of a person in it. Every call has a time limit."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from tests.manifests.kustomize import KUBECTL, OVERLAYS, Manifest, written
from tests.waiting import wait_until

from .redis_secrets import SECRETS

T = TypeVar("T")

KUBECTL_S = 120
"""For one call. `kubectl delete` waits until the object is deleted."""
RUN_S = 360
"""For a run of the Job: its deadline is 300 s, and the image may have to be pulled first."""
PODS_S = 180
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
LET_IN = {"gold-redis-client": "true"}
"""The label of clients that the component network-policy admits."""
OURS = {"app.kubernetes.io/part-of": "redis-cluster-e2e"}
FORBIDDEN = re.compile(r"does not let this account|HTTP 403|[Ff]orbidden")
CLIENT = Path(__file__).with_name("client.py")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One Job that has ended: its condition, and the logs and termination messages of its pods in order."""

    condition: str
    reason: str
    log: str
    termination_messages: tuple[str, ...]

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """The last line of the log."""
        outcome: dict[str, Any] = json.loads(self.log.splitlines()[-1])
        assert outcome["event"] == "outcome", self.log
        return outcome

    def events(self, name: str) -> tuple[dict[str, Any], ...]:
        """The lines of the log for that event."""
        lines = (json.loads(line) for line in self.log.splitlines() if line.startswith("{"))
        return tuple(line for line in lines if line["event"] == name)

    @property
    def roles(self) -> dict[str, str]:
        """The master of each pod, from the table at the end of the log. A master is its own master."""
        lines = [line.split() for line in self.log.splitlines()]
        start = next(number for number, words in enumerate(lines) if words[:3] == ["POD", "ROLE", "SHARD"])
        rows = [words[:3] for words in lines[start + 1 :] if words[0].startswith("redis-app-")]
        masters = {shard: pod for pod, role, shard in rows if role == "master"}
        return {pod: masters[shard] for pod, _, shard in rows}

    @property
    def masters(self) -> set[str]:
        """The pods of the masters."""
        return set(self.roles.values())

    @property
    def forbidden(self) -> tuple[str, ...]:
        """The lines of the log about requests that Kubernetes has denied. The program logs all of them."""
        return tuple(line for line in self.log.splitlines() if FORBIDDEN.search(line))


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """One namespace of one cluster. Every call names the context, so the current context is never used."""

    context: str
    name: str
    image: str

    def kubectl(self, *arguments: str, stdin: str | None = None, limit_s: float = KUBECTL_S) -> str:
        """The output of kubectl. The test fails if kubectl fails."""
        done = self._kubectl(arguments, stdin, limit_s)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        """The error of kubectl. The test fails if kubectl succeeds."""
        done = self._kubectl(arguments, stdin, KUBECTL_S)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)}: {done.stdout}"
        return done.stderr

    def _kubectl(self, arguments: Sequence[str], stdin: str | None, limit_s: float) -> subprocess.CompletedProcess[str]:
        place = ["--context", self.context, "--namespace", self.name]
        return subprocess.run(
            [KUBECTL, *place, *arguments],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    def get(self, *arguments: str) -> Any:
        """The parsed output of `kubectl get`."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json") or "null")

    def create(self) -> None:
        """Creates the namespace, with the restricted Pod Security Standard enforced."""
        metadata = {"name": self.name, "labels": RESTRICTED | OURS}
        self.kubectl(
            "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        )

    def create_all(self, manifests: Iterable[Manifest]) -> None:
        """Creates the objects of a test."""
        self.kubectl(
            "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        )

    def delete(self) -> None:
        """Deletes the namespace without waiting for the end."""
        self.kubectl("delete", "namespace", self.name, "--wait=false", "--ignore-not-found")

    def apply(self, overlay: str, **fields: Any) -> str:
        """`kubectl apply -k` of an overlay, with this run's image and the given fields of a kustomization on top."""
        images = [_renamed("redis-bootstrap", self.image)]
        if server := environment("E2E_SERVER"):
            images += [_renamed("redis", server), _renamed("valkey/valkey", server)]
        with written(resources=[OVERLAYS / overlay], images=images, **fields) as directory:
            self._create_secrets(self.kubectl("kustomize", str(directory)))
            return self.kubectl("apply", "-k", str(directory))

    def _create_secrets(self, manifests: str) -> None:
        """Creates the Secrets that the manifests name, with any prefix, as a user would."""
        for suffix, data_of in SECRETS.items():
            for name in set(re.findall(rf"secretName: ((?:\S+-)?{suffix})\n", manifests)):
                if self.get("secret", name, "--ignore-not-found"):
                    continue
                metadata = {"name": name}
                secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
                self.create_all([{**secret, "stringData": data_of(self.name)}])

    def run(self, name: str) -> Run:
        """Starts a run from the CronJob and waits for its end."""
        self.start(name)
        return self.ended(name)

    def start(self, name: str) -> None:
        """Starts a run from the CronJob."""
        self.kubectl("create", "job", "--from=cronjob/redis-bootstrap", name)

    def ended(self, job: str = "redis-bootstrap", limit_s: float = RUN_S) -> Run:
        """Waits until that Job is complete or has failed."""

        def end() -> Manifest | None:
            conditions = self.get("job", job)["status"].get("conditions", [])
            return next((each for each in conditions if each["type"] in ("Complete", "Failed")), None)

        condition = wait_until(end, f"job {job} ends", limit_s)
        return Run(
            condition=condition["type"],
            reason=condition.get("reason", ""),
            log=self.log(job),
            termination_messages=tuple(self._termination_messages(job)),
        )

    def log(self, job: str) -> str:
        """The logs of the pods of that Job so far."""
        return "".join(self.kubectl("logs", pod["metadata"]["name"]) for pod in self.tries(job) if _has_run(pod))

    def _termination_messages(self, job: str) -> Iterator[str]:
        for pod in self.tries(job):
            for status in pod["status"].get("containerStatuses", []):
                if "terminated" in status["state"]:
                    yield status["state"]["terminated"].get("message", "")

    def first_outcome(self, job: str = "redis-bootstrap") -> dict[str, Any] | None:
        """The outcome of the first pod of a Job, from its termination message; None before its end."""
        for pod in self.tries(job)[:1]:
            for status in pod["status"].get("containerStatuses", []):
                if "terminated" in status["state"]:
                    outcome: dict[str, Any] = json.loads(status["state"]["terminated"]["message"])
                    return outcome
        return None

    def tries(self, job: str) -> list[Manifest]:
        """The pods of that Job, in order of their creation."""
        pods: list[Manifest] = self.get("pods", "-l", f"job-name={job}")["items"]
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def servers(self) -> dict[str, Manifest]:
        """The pods of the StatefulSet, by name."""
        pods = self.get("pods", "-l", "app.kubernetes.io/name=redis-app")["items"]
        return {pod["metadata"]["name"]: pod for pod in pods}

    def wait_for_servers(self, count: int = 6, *, ready: bool = True, but: frozenset[str] = frozenset()) -> None:
        """Waits until that many pods run (and are ready). Pods with a uid in `but` do not count."""

        def good(pod: Manifest) -> bool:
            status = next(iter(pod["status"].get("containerStatuses", [])), {"started": False, "ready": False})
            here = pod["metadata"]["uid"] not in but and "deletionTimestamp" not in pod["metadata"]
            return bool(here and status["started"] and (status["ready"] or not ready))

        state = "ready" if ready else "up"
        wait_until(lambda: sum(map(good, self.servers().values())) == count, f"{count} pods are {state}", PODS_S)

    def redis(self, pod: str, *arguments: str) -> str:
        """Runs redis-cli in that pod, and returns its output."""
        return self.kubectl("exec", pod, "-c", "redis", "--", "redis-cli", *arguments).strip()

    def client(
        self, *arguments: str, name: str = "client", labels: dict[str, str] | None = None, node: str = ""
    ) -> str:
        """Runs the cluster client in a pod of its own, and returns its output. It connects to the Service gold-redis.

        The first call creates the pod. By default it has the label of clients that network-policy admits.
        It runs on that node, if one is given.
        """
        self.client_pod(name, labels, node)
        program = CLIENT.read_text(encoding="utf-8")
        return self.kubectl("exec", "-i", name, "--", "python", "-", *arguments, stdin=program).strip()

    @contextmanager
    def staying_client(self, name: str = "client") -> Iterator[dict[str, Any]]:
        """A client that connects and writes all the time. What it has to tell is there after the end."""
        self.client_pod(name)
        program = CLIENT.read_text(encoding="utf-8")
        place = [KUBECTL, "--context", self.context, "--namespace", self.name]
        told = dict[str, Any]()
        with subprocess.Popen(
            [*place, "exec", "-i", name, "--", "python", "-c", program, "stay"],
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

    def client_pod(self, name: str, labels: dict[str, str] | None = None, node: str = "") -> None:
        """Creates the pod of a client, unless it is there, and waits until it is ready."""
        if not self.get("pod", name, "--ignore-not-found"):
            self.create_all([_client_pod(self.image, name, LET_IN if labels is None else labels, node)])
            self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={PODS_S}s", limit_s=PODS_S + 5)

    def describe(self) -> str:
        """The objects, the Events and the log of every container, for the report of a failure."""
        parts = [
            self._kubectl(("get", "pods,pvc,jobs", "-o", "wide"), None, KUBECTL_S).stdout,
            self._kubectl(("get", "events", "--sort-by=.lastTimestamp"), None, KUBECTL_S).stdout,
        ]
        for pod in self.get("pods")["items"]:
            name = pod["metadata"]["name"]
            log = self._kubectl(("logs", name, "--all-containers", "--prefix", "--tail=60"), None, KUBECTL_S)
            parts.append(log.stdout or log.stderr)
        return "\n".join(parts)


def load(command: str, image: str) -> None:
    """Runs the command that makes the image available to the cluster, at the root of the repository."""
    root = OVERLAYS.parents[1]
    done = subprocess.run(
        command.replace("{image}", image),
        shell=True,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"


def on_machine(command: str, node: str) -> None:
    """Runs the command for a machine of the cluster: E2E_CRASH or E2E_START."""
    done = subprocess.run(
        command.replace("{node}", node), shell=True, capture_output=True, text=True, timeout=KUBECTL_S, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"


def _renamed(name: str, image: str) -> dict[str, str]:
    """The field of a kustomization that replaces an image."""
    new, tag = image.rsplit(":", 1)
    return {"name": name, "newName": new, "newTag": tag}


def environment(name: str) -> str:
    """The environment variable, or "" if it is not set."""
    return os.environ.get(name, "")


def _has_run(pod: Manifest) -> bool:
    return any("waiting" not in status["state"] for status in pod["status"].get("containerStatuses", []))


def _client_pod(image: str, name: str, labels: dict[str, str], node: str) -> Manifest:
    confined = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    mounts = [{"name": name, "mountPath": f"/etc/{name}", "readOnly": True} for name in SECRETS]
    container = {
        "name": "client",
        "image": image,
        "command": ["sleep", "infinity"],
        "securityContext": confined,
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "e2e-client", **labels}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": name, "secret": {"secretName": name, "optional": True}} for name in SECRETS],
        },
    }
