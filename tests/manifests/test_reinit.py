"""The Job that wipes the cluster: one value to edit, one command, and not part of any overlay."""

from __future__ import annotations

import re
import shutil
from copy import deepcopy
from pathlib import Path

import pytest

from bootstrap.__main__ import main

from .kustomize import BASE, ROOT, Build, Manifest, build, name_of
from .pod_security import violations
from .schema import validate

REINIT = ROOT / "k8s" / "reinit"


def job_of(built: Build) -> Manifest:
    (job,) = built.manifests
    return job


def edited(directory: Path, fingerprint: str) -> Manifest:
    """The Job after a person has entered the fingerprint."""
    for source in (REINIT, ROOT / "k8s" / "job"):
        shutil.copytree(source, directory / source.name)
    file = directory / "reinit" / "kustomization.yaml"
    text = file.read_text(encoding="utf-8")
    assert text.count("fingerprint=none") == 1
    file.write_text(text.replace("fingerprint=none", f"fingerprint={fingerprint}"), encoding="utf-8")
    return job_of(build(directory / "reinit"))


def test_it_is_one_job_that_kubernetes_accepts() -> None:
    """Nothing else is applied with it, it passes the restricted level, and kubectl prints no warning."""
    built = build(REINIT)
    assert built.warnings == ""
    validate(built)
    assert list(violations(job_of(built)["spec"]["template"]["spec"])) == []


def test_unedited_it_confirms_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The value in the repository is `none`. That run reports what would be destroyed, and the next step."""
    assert job_of(build(REINIT))["spec"]["template"]["spec"]["containers"][0]["args"] == ["reinit", "--confirm", "none"]
    environment = {"BOOTSTRAP_DEADLINE_S": "1", "BOOTSTRAP_NAMESERVER": "127.0.0.1:1", "BOOTSTRAP_LOG": "json"}
    assert main(["reinit", "--confirm", "none"], environment) == 1, "the arguments are valid, and no node is there"


def test_another_value_is_another_job(tmp_path: Path) -> None:
    """A Job is immutable: with the same name, applying the edited value would fail while the first Job exists."""
    job = edited(tmp_path, "0123456789ab")
    assert name_of(job) == "redis-reinit-0123456789ab"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["reinit", "--confirm", "0123456789ab"]


def test_except_for_its_arguments_it_is_the_job_of_every_other_run() -> None:
    """The same image, account, limits and retry policy. A new run with the same value finishes one that was killed."""
    own = deepcopy(job_of(build(REINIT))["spec"])
    usual = deepcopy(build(BASE).one("Job", "redis-bootstrap")["spec"])
    for spec in (own, usual):
        container = spec["template"]["spec"]["containers"][0]
        spec["template"]["spec"]["containers"] = [{**container, "args": [], "image": ""}]
    assert own == usual


def test_no_overlay_includes_it(built: Build) -> None:
    """A person applies it on purpose, by its own path."""
    assert not [name_of(job) for job in built.of_kind("Job") if "reinit" in name_of(job)]
    assert [template for _, template in built.templates() if "reinit" in str(template)] == []


def test_with_passwords_and_tls_two_lines_are_uncommented(tmp_path: Path) -> None:
    """The Job then logs in as the clients' user, and has the certificate of the Job of `apply`."""
    for source in (REINIT, ROOT / "k8s" / "job"):
        shutil.copytree(source, tmp_path / source.name)
    file = tmp_path / "reinit" / "kustomization.yaml"
    text, count = re.subn(
        r"^  # (- path: \w+-patch\.yaml)$", r"  \1", file.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert count == 2
    file.write_text(text, encoding="utf-8")
    pod = job_of(build(tmp_path / "reinit"))["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = {each["name"]: each for each in container["env"]}
    assert settings["BOOTSTRAP_USERNAME"]["valueFrom"]["secretKeyRef"] == {"name": "redis-auth", "key": "username"}
    volumes = {each["name"]: each["secret"] for each in pod["volumes"] if "secret" in each}
    assert volumes["auth"]["items"] == [{"key": "password", "path": "password"}]
    assert {each["name"]: each["mountPath"] for each in container["volumeMounts"]}["tls"] == "/etc/redis-tls"
    component = ROOT / "k8s" / "components" / "tls" / "job-patch.yaml"
    assert (REINIT / "tls-patch.yaml").read_text(encoding="utf-8") == component.read_text(encoding="utf-8")
