"""The servers that the tests on real servers need."""

from __future__ import annotations

import shutil

import pytest

from bootstrap.local.programs import identify
from tests.available_servers import BARE_PATH, CLIENTS, ON_CI, PROMISED, SERVERS


def test_there_is_a_server_and_a_client_to_test_with() -> None:
    """Without a server, the tests on real ones would be skipped unnoticed. On CI, none of PROMISED is missing."""
    assert SERVERS
    assert not ON_CI or (CLIENTS and SERVERS.keys() >= PROMISED)


@pytest.mark.skipif(not BARE_PATH, reason="PATH may have servers: .ci/without-servers takes them away")
def test_a_bare_path_has_no_server_and_no_client() -> None:
    """Else the default server would be another one than on a machine with only Python."""
    programs = ("redis-server", "valkey-server", "redis-cli", "valkey-cli")
    assert [program for program in programs if shutil.which(program)] == []


@pytest.mark.parametrize("name", [name for name in SERVERS if not name.endswith("-on-path")])
def test_a_server_has_the_version_in_its_name(name: str) -> None:
    """So does the one that an environment variable names."""
    program = identify(SERVERS[name])
    assert f"{program.name}-{program.version}.".lower().startswith(f"{name}.")
