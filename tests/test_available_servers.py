"""What the tests on real servers stand on."""

from __future__ import annotations

import pytest

from bootstrap.local.programs import identify
from tests.available_servers import CLIENTS, ON_CI, PROMISED, SERVERS


def test_there_is_a_server_and_a_client_to_test_with() -> None:
    """Without a server, the tests on real ones would vanish in silence; on CI none of the promised ones may lack."""
    assert SERVERS
    assert not ON_CI or (CLIENTS and SERVERS.keys() >= PROMISED)


@pytest.mark.parametrize("name", [name for name in SERVERS if not name.endswith("-on-path")])
def test_a_server_is_what_its_name_says(name: str) -> None:
    """Also the one that an environment variable names."""
    program = identify(SERVERS[name])
    assert f"{program.name}-{program.version}.".lower().startswith(f"{name}.")
