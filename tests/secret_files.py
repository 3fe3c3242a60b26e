"""The Secret of the component `auth` as files, and the files that its script writes for a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

COMPONENT = Path(__file__).resolve().parents[1] / "k8s" / "components" / "auth"
KEYS: Mapping[str, str] = {
    "username": "default",
    "password": "of-the-clients",
    "bootstrap-username": "bootstrap",
    "bootstrap-password": "of-the-job",
    "server-password": "of-the-servers",
}


def mount(directory: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files of a Secret as the kubelet does: into a new directory, and then moves one link to it."""
    version = directory / f"..{uuid.uuid4().hex}"
    version.mkdir(parents=True)
    for name, content in files.items():
        (version / name).write_bytes(content)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    current = directory / "..data"
    before = directory / current.readlink() if current.is_symlink() else None
    (directory / "..new").symlink_to(version.name)
    (directory / "..new").replace(current)
    for link in directory.iterdir():
        if not link.name.startswith("..") and not link.exists():
            link.unlink()
    if before:
        shutil.rmtree(before)


@dataclass(frozen=True, slots=True)
class Secret:
    """The directory that the kubelet mounts, and the directory in memory that the script writes to."""

    mounted: Path
    written: Path

    @classmethod
    def of(cls, directory: Path, **changed: str | None) -> Secret:
        """The default keys with changes. None leaves a key out. Example: `of(tmp_path, also_password="old")`."""
        secret = cls(directory / "secret", directory / "run")
        secret.written.mkdir(parents=True)
        secret.change(**{**{key.replace("-", "_"): value for key, value in KEYS.items()}, **changed})
        return secret

    def change(self, **keys: str | None) -> None:
        """Sets keys, or removes them with None."""
        self.mounted.mkdir(parents=True, exist_ok=True)
        files = {file.name: file.read_bytes() for file in self.mounted.iterdir() if not file.name.startswith("..")}
        for name, value in keys.items():
            key = "users.acl" if name == "users_acl" else name.replace("_", "-")
            files.pop(key, None)
            if value is not None:
                files[key] = value.encode()
        mount(self.mounted, files)

    def render(self, shell: str = "sh", path: str = "") -> subprocess.CompletedProcess[str]:
        """Runs the script as the init container does, with that shell and that PATH."""
        return subprocess.run(
            [*shell.split(), str(COMPONENT / "auth.sh"), str(self.mounted), str(self.written)],
            env={"PATH": path or os.environ.get("PATH", os.defpath)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def users(self) -> dict[str, list[str]]:
        """The rules of the written ACL file, by user."""
        lines = (self.written / "users.acl").read_text(encoding="utf-8").splitlines()
        return {words[1]: words[2:] for words in map(str.split, lines) if words}

    @property
    def server_config(self) -> tuple[str, ...]:
        """The arguments that the component adds for a server, as lines of redis.conf."""
        return (f"include {self.written}/auth.conf", f"aclfile {self.written}/users.acl", "masteruser server")

    @property
    def variables(self) -> dict[str, str]:
        """The variables that the component sets for the Job."""
        username = (self.mounted / "bootstrap-username").read_text(encoding="utf-8")
        return {
            "BOOTSTRAP_USERNAME": username,
            "BOOTSTRAP_PASSWORD_FILE": str(self.mounted / "bootstrap-password"),
        }
