"""The image: the Dockerfile fits the manifests, and the requirements are locked."""

from __future__ import annotations

import json
import re
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
