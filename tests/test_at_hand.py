"""What the tests on real servers stand on."""

from __future__ import annotations

from tests.at_hand import CLIENTS, ON_CI, PROMISED, SERVERS


def test_there_is_a_server_and_a_client_to_test_with() -> None:
    """Without a server, the tests on real ones would vanish in silence; on CI none of the promised ones may lack."""
    assert SERVERS
    assert not ON_CI or (CLIENTS and SERVERS.keys() >= PROMISED)
