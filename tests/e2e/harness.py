"""A namespace of its own on a real cluster, and what a person would do there: kubectl, with a limit on everything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from tests.manifests.kustomize import KUBECTL, OVERLAYS, Manifest, written

from .redis_secrets import SECRETS

T = TypeVar("T")

KUBECTL_S = 120
"""For one call; a `kubectl delete` waits until the object is gone."""
RUN_S = 360
"""For a run of the Job: its own deadline is 300 s, and an image may have to be pulled first."""
PODS_S = 180
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
LET_IN = {"gold-redis-client": "true"}
"""By the component network-policy."""
OURS = {"app.kubernetes.io/part-of": "redis-cluster-e2e"}
FORBIDDEN = re.compile(r"does not let this account|HTTP 403|[Ff]orbidden")
CLIENT = Path(__file__).with_name("client.py")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One Job that has ended: its condition, what its pods said, one after the other, and what they left behind."""

    condition: str
    reason: str
    log: str
    last_words: tuple[str, ...]

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """The last line of the log."""
        said: dict[str, Any] = json.loads(self.log.splitlines()[-1])
        assert said["event"] == "outcome", self.log
        return said

    def events(self, name: str) -> tuple[dict[str, Any], ...]:
        """The log's lines of that event."""
        lines = (json.loads(line) for line in self.log.splitlines() if line.startswith("{"))
        return tuple(line for line in lines if line["event"] == name)

    @property
    def roles(self) -> dict[str, str]:
        """Each pod's master, a master's is itself: by the table at the end of the log."""
        lines = [line.split() for line in self.log.splitlines()]
        start = next(number for number, words in enumerate(lines) if words[:3] == ["POD", "ROLE", "SHARD"])
        rows = [words[:3] for words in lines[start + 1 :] if not words[0].startswith("{")]
        masters = {shard: pod for pod, role, shard in rows if role == "master"}
        return {pod: masters[shard] for pod, _, shard in rows}

    @property
    def masters(self) -> set[str]:
        """The pods of the masters."""
        return set(self.roles.values())

    @property
    def forbidden(self) -> tuple[str, ...]:
        """The log's lines about requests that Kubernetes did not let through; the program tells all of them."""
        return tuple(line for line in self.log.splitlines() if FORBIDDEN.search(line))


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """One namespace of one cluster, which is named in every call: whatever the current context is, it is not used."""

    context: str
    name: str
    image: str

    def kubectl(self, *words: str, stdin: str | None = None, limit_s: float = KUBECTL_S) -> str:
        """What kubectl printed. Fails the test where kubectl failed."""
        done = self._kubectl(words, stdin, limit_s)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def refused(self, *words: str, stdin: str | None = None) -> str:
        """What kubectl complained of. Fails the test where it did not."""
        done = self._kubectl(words, stdin, KUBECTL_S)
        assert done.returncode != 0, f"kubectl {' '.join(words)}: {done.stdout}"
        return done.stderr

    def _kubectl(self, words: Sequence[str], stdin: str | None, limit_s: float) -> subprocess.CompletedProcess[str]:
        place = ["--context", self.context, "--namespace", self.name]
        return subprocess.run(
            [KUBECTL, *place, *words],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    def get(self, *words: str) -> Any:
        """`kubectl get`, as data."""
        return json.loads(self.kubectl("get", *words, "-o", "json") or "null")

    def create(self) -> None:
        """The namespace, with the restricted Pod Security Standard enforced."""
        metadata = {"name": self.name, "labels": RESTRICTED | OURS}
        self.kubectl(
            "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        )

    def create_all(self, manifests: Iterable[Manifest]) -> None:
        """Objects of a test's own."""
        self.kubectl(
            "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        )

    def delete(self) -> None:
        """All of it, without waiting for it."""
        self.kubectl("delete", "namespace", self.name, "--wait=false", "--ignore-not-found")

    def apply(self, overlay: str, **fields: Any) -> str:
        """`kubectl apply -k` of an overlay, with this run's image and the given fields of a kustomization on top."""
        name, tag = self.image.rsplit(":", 1)
        images = [{"name": "redis-bootstrap", "newName": name, "newTag": tag}]
        with written(resources=[OVERLAYS / overlay], images=images, **fields) as directory:
            self._bring_secrets(self.kubectl("kustomize", str(directory)))
            return self.kubectl("apply", "-k", str(directory))

    def _bring_secrets(self, manifests: str) -> None:
        """Those that the manifests name are the user's to bring, beforehand."""
        for name, data_of in SECRETS.items():
            if f"secretName: {name}\n" in manifests and not self.get("secret", name, "--ignore-not-found"):
                metadata = {"name": name}
                self.create_all([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data_of()}])

    def run(self, name: str) -> Run:
        """A run for the asking, from its start to its end."""
        self.start(name)
        return self.ended(name)

    def start(self, name: str) -> None:
        """A run for the asking."""
        self.kubectl("create", "job", "--from=cronjob/redis-bootstrap", name)

    def ended(self, job: str = "redis-bootstrap", limit_s: float = RUN_S) -> Run:
        """That Job, once it is complete or has failed."""

        def end() -> Manifest | None:
            conditions = self.get("job", job)["status"].get("conditions", [])
            return next((each for each in conditions if each["type"] in ("Complete", "Failed")), None)

        condition = until(end, f"job {job} ends", limit_s)
        return Run(
            condition=condition["type"],
            reason=condition.get("reason", ""),
            log=self.log(job),
            last_words=tuple(self._last_words(job)),
        )

    def log(self, job: str) -> str:
        """What the pods of that Job have said so far."""
        return "".join(self.kubectl("logs", pod["metadata"]["name"]) for pod in self.tries(job) if _has_run(pod))

    def _last_words(self, job: str) -> Iterator[str]:
        for pod in self.tries(job):
            for status in pod["status"].get("containerStatuses", []):
                if "terminated" in status["state"]:
                    yield status["state"]["terminated"].get("message", "")

    def tries(self, job: str) -> list[Manifest]:
        """The pods of that Job, the first try first."""
        pods: list[Manifest] = self.get("pods", "-l", f"job-name={job}")["items"]
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def servers(self) -> dict[str, Manifest]:
        """The pods of the StatefulSet, by name."""
        pods = self.get("pods", "-l", "app.kubernetes.io/name=redis-app")["items"]
        return {pod["metadata"]["name"]: pod for pod in pods}

    def wait_for_servers(self, count: int = 6, *, ready: bool = True, but: frozenset[str] = frozenset()) -> None:
        """Until that many pods run (and are ready), none of which has a uid of `but`."""

        def good(pod: Manifest) -> bool:
            status = next(iter(pod["status"].get("containerStatuses", [])), {"started": False, "ready": False})
            here = pod["metadata"]["uid"] not in but and "deletionTimestamp" not in pod["metadata"]
            return bool(here and status["started"] and (status["ready"] or not ready))

        words = "ready" if ready else "up"
        until(lambda: sum(map(good, self.servers().values())) == count, f"{count} pods are {words}", PODS_S)

    def redis(self, pod: str, *words: str) -> str:
        """What that server answers."""
        return self.kubectl("exec", pod, "-c", "redis", "--", "redis-cli", *words).strip()

    def client(self, *words: str, name: str = "client", labels: dict[str, str] | None = None) -> str:
        """What a cluster client says that runs in a pod of its own and enters through the Service gold-redis.

        The pod is made when it is first asked; without `labels` it has those by which clients are let in.
        """
        if not self.get("pod", name, "--ignore-not-found"):
            self.create_all([_client_pod(self.image, name, LET_IN if labels is None else labels)])
            self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={PODS_S}s", limit_s=PODS_S + 5)
        program = CLIENT.read_text(encoding="utf-8")
        return self.kubectl("exec", "-i", name, "--", "python", "-", *words, stdin=program).strip()

    def story(self) -> str:
        """What one would look at after a failure: objects, Events, and the log of every container."""
        parts = [
            self._kubectl(("get", "pods,pvc,jobs", "-o", "wide"), None, KUBECTL_S).stdout,
            self._kubectl(("get", "events", "--sort-by=.lastTimestamp"), None, KUBECTL_S).stdout,
        ]
        for pod in self.get("pods")["items"]:
            name = pod["metadata"]["name"]
            said = self._kubectl(("logs", name, "--all-containers", "--prefix", "--tail=60"), None, KUBECTL_S)
            parts.append(said.stdout or said.stderr)
        return "\n".join(parts)


def until(look: Callable[[], T | None], what: str, limit_s: float) -> T:
    """What `look` found, as soon as it finds something; looks twice a second, at most so long."""
    end = time.monotonic() + limit_s
    while not (found := look()):
        assert time.monotonic() < end, f"not within {limit_s:g} s: {what}"
        time.sleep(0.5)
    return found


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


def environment(name: str) -> str:
    """A variable; "" where it is not set."""
    return os.environ.get(name, "")


def _has_run(pod: Manifest) -> bool:
    return any("waiting" not in status["state"] for status in pod["status"].get("containerStatuses", []))


def _client_pod(image: str, name: str, labels: dict[str, str]) -> Manifest:
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
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": name, "secret": {"secretName": name, "optional": True}} for name in SECRETS],
        },
    }
