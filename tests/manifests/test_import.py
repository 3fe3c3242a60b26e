"""The Job that copies keys of other servers: one value to edit, one command, and not part of any overlay."""

from __future__ import annotations

import re
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

from bootstrap.__main__ import main
from bootstrap.config import declared, variable_of

from .kustomize import BASE, ROOT, Build, Manifest, build, name_of
from .pod_security import violations
from .schema import validate

IMPORT = ROOT / "k8s" / "import"


def job_of(built: Build) -> Manifest:
    (job,) = built.manifests
    return job


def pod_of(built: Build) -> Any:
    return job_of(built)["spec"]["template"]["spec"]


def edited(directory: Path, *replaced: tuple[str, str]) -> Build:
    """The Job after a person has edited its kustomization."""
    for source in (IMPORT, ROOT / "k8s" / "job"):
        shutil.copytree(source, directory / source.name)
    file = directory / "import" / "kustomization.yaml"
    text = file.read_text(encoding="utf-8")
    for pattern, words in replaced:
        text, count = re.subn(pattern, words, text, flags=re.MULTILINE)
        assert count, pattern
    file.write_text(text, encoding="utf-8")
    return build(directory / "import")


def test_it_is_one_job_that_kubernetes_accepts() -> None:
    """Nothing else is applied with it, it passes the restricted level, and kubectl prints no warning."""
    built = build(IMPORT)
    assert built.warnings == ""
    validate(built)
    assert list(violations(pod_of(built))) == []


def test_unedited_it_copies_nothing() -> None:
    """The value in the repository is `none`, which the program refuses as a setting that is missing."""
    arguments = pod_of(build(IMPORT))["containers"][0]["args"]
    assert arguments == ["import", "--from", "none"]
    assert main(arguments, {"BOOTSTRAP_NAMESERVER": "127.0.0.1:1", "BOOTSTRAP_LOG": "json"}) == 4


def test_one_value_names_the_source(tmp_path: Path) -> None:
    """It is the argument as a person would type it, also several with commas."""
    built = edited(tmp_path, ("from=none", "from=old-redis.shop:6379,10.0.0.7:6379"))
    assert pod_of(built)["containers"][0]["args"] == ["import", "--from", "old-redis.shop:6379,10.0.0.7:6379"]
    assert name_of(job_of(built)) == "redis-import"


def test_but_for_its_arguments_and_limits_it_is_the_job_of_every_other_run() -> None:
    """The same image, account and retry policy. It has time for a great source, and memory for great values."""
    own = deepcopy(job_of(build(IMPORT))["spec"])
    usual = deepcopy(build(BASE).one("Job", "redis-bootstrap")["spec"])
    assert own.pop("activeDeadlineSeconds") > 4 * declared()["import_deadline_s"]["read"]("86400")
    usual.pop("activeDeadlineSeconds")
    for spec in (own, usual):
        container = spec["template"]["spec"]["containers"][0]
        container["resources"]["limits"].pop("memory")
        spec["template"]["spec"]["containers"] = [{**container, "args": [], "image": ""}]
    assert own == usual


def test_no_overlay_includes_it(built: Build) -> None:
    """A person applies it on purpose, by its own path."""
    assert not [name_of(job) for job in built.of_kind("Job") if "import" in name_of(job)]


def test_with_passwords_and_tls_at_both_sides_four_lines_are_uncommented(tmp_path: Path) -> None:
    """Every variable is a setting, and every file of a setting is mounted."""
    pod = pod_of(edited(tmp_path, (r"^  # (- path: [-\w]+-patch\.yaml)$", r"  \1")))
    (container,) = pod["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    known = {variable_of(name) for name in declared()}
    assert variables.keys() <= known
    assert {"BOOTSTRAP_PASSWORD_FILE", "BOOTSTRAP_TLS_CA_FILE"} < variables.keys()
    assert {"BOOTSTRAP_IMPORT_PASSWORD_FILE", "BOOTSTRAP_IMPORT_TLS_CA_FILE"} < variables.keys()
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    files = [path for name, path in variables.items() if name.endswith("_FILE") and path]
    assert {str(Path(path).parent) for path in files} == mounts
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    for patch in ("auth-patch.yaml", "tls-patch.yaml"):
        assert (IMPORT / patch).read_text() == (ROOT / "k8s" / "reinit" / patch).read_text()
