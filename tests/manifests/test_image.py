"""The image: the Dockerfile fits the manifests, and the requirements are locked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from itertools import pairwise

from packaging.requirements import Requirement

from .kustomize import BASE, ROOT, build

INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    if line and not line.startswith("#")
]
REQUIREMENTS = (ROOT / "requirements.txt").read_text(encoding="utf-8")
PROGRAM = """
import json, pkgutil, ssl, sys, importlib, unittest.mock
from pathlib import Path
import bootstrap
for module in pkgutil.walk_packages(bootstrap.__path__, "bootstrap."):
    importlib.import_module(module.name)
from bootstrap.kube.client import KubeClient
with unittest.mock.patch.object(ssl, "create_default_context"), unittest.mock.patch.object(ssl, "SSLContext"):
    KubeClient("127.0.0.1", 443, "default")
from kubernetes.client import ApiException
files = (getattr(module, "__file__", None) for module in sys.modules.values())
print(json.dumps([Path(file).as_posix() for file in files if file]))
"""
"""Imports every module of the program and all that a run loads later, and prints the files of all loaded modules."""
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", REQUIREMENTS, re.MULTILINE))


def test_the_image_runs_as_the_user_that_the_job_names() -> None:
    """Both are numeric: the kubelet cannot check whether a user name is root."""
    context = build(BASE).one("Job", "redis-bootstrap")["spec"]["template"]["spec"]["securityContext"]
    (user,) = [argument for name, argument in INSTRUCTIONS if name == "USER"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_the_program_is_the_first_process() -> None:
    """Both instructions are in exec form: a shell would not forward the signal that ends the pod."""
    (entrypoint,) = [json.loads(argument) for name, argument in INSTRUCTIONS if name == "ENTRYPOINT"]
    (command,) = [json.loads(argument) for name, argument in INSTRUCTIONS if name == "CMD"]
    assert [*entrypoint, *command] == ["python", "-m", "bootstrap", "apply"]


def test_the_final_stage_installs_nothing() -> None:
    """It only copies files from the builder stage."""
    last = max(number for number, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM")
    assert "RUN" not in [name for name, _ in INSTRUCTIONS[last:]]
    assert all("--from=" in argument for name, argument in INSTRUCTIONS[last:] if name == "COPY")


def test_the_build_context_has_only_the_files_that_are_copied() -> None:
    """.dockerignore is an allow list. Other files of a working copy, such as secrets, never reach the build."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    rules = [line for line in lines if line and not line.startswith("#")]
    copied = {argument.split()[0] for name, argument in INSTRUCTIONS if name == "COPY" and "--from=" not in argument}
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied


def test_the_program_loads_nothing_that_the_image_lacks() -> None:
    """Of the package kubernetes, the image leaves out what no run imports, and the bytecode of other modules."""
    (install,) = [argument for name, argument in INSTRUCTIONS if name == "RUN" and "pip" in argument]
    removed = [path.partition("site-packages/")[2] + "/" for path in re.findall(r"/venv/lib/python\S+", install)]
    (uncompiled,) = re.findall(r"-x '([^']+)'", install)
    assert removed == ["kubernetes/aio/", "kubernetes/client/api/"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert [file for file in loaded if "kubernetes/client/configuration.py" in file]
    assert [file for file in loaded if any(part in file for part in removed)] == []
    assert [file for file in loaded if re.search(uncompiled, file)] == []


def test_every_requirement_is_locked_by_hash() -> None:
    """Each one has one version, followed by at least one hash."""
    lines = [line for line in REQUIREMENTS.splitlines() if not line.startswith("#")]
    assert lines
    for line, following in pairwise([*lines, ""]):
        assert re.match(r"[a-z0-9-]+==|    --hash=sha256:[0-9a-f]{64}", line), line
        assert line.startswith("    ") or following.startswith("    --hash="), line


def test_requirements_name_no_registry() -> None:
    """The environment of the build decides where packages come from."""
    assert "//" not in REQUIREMENTS
    assert "index-url" not in REQUIREMENTS.replace("--no-emit-index-url", "")


def test_the_lock_satisfies_the_dependencies_of_the_package() -> None:
    """The locked versions satisfy pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(LOCKED[requirement.name]), requirement
