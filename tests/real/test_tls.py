"""TLS on real servers: a whole cluster over it, and each way in which it can be set up wrong, named as what it is."""

from __future__ import annotations

import os
import pty
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from redis import RedisCluster

from bootstrap.local.programs import Program, find_program
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.failures import Failure
from tests.available_servers import BARE_PATH, ON_CI, SERVERS
from tests.certificates import OPENSSL, Authority, Certificate
from tests.real.conftest import RunResult, Testbed

Labs = Callable[..., Testbed]
WITH_TLS = {name: path for name, path in SERVERS.items() if b"libssl" in path.resolve().read_bytes()}
"""Debian's servers are built with TLS; those from Python packages are not."""
pytestmark = [
    pytest.mark.skipif(
        (BARE_PATH or not ON_CI) and not WITH_TLS, reason="no server program here that was built with TLS"
    ),
    pytest.mark.skipif(not ON_CI and OPENSSL is None, reason="certificates are made with openssl, which is not here"),
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Certificate:
    return authority.issue("redis")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Good in itself, and signed by an authority of which nobody here knows."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger").issue("stranger")


@pytest.fixture
def tls_program() -> Program:
    return find_program(str(next(iter(WITH_TLS.values()))))


@pytest.fixture
def six(tls_program: Program, lab: Labs, good: Certificate) -> Testbed:
    """Six servers that do everything over mutual TLS."""
    return lab(tls_program, config=good.server_config())


@pytest.mark.parametrize("name", WITH_TLS)
def test_a_cluster_forms_with_all_of_it_over_mutual_tls(name: str, lab: Labs, good: Certificate) -> None:
    """Clients, bus and replication; a client has proved it, a second run changes nothing, and no port is plain."""
    six = lab(find_program(str(WITH_TLS[name])), config=good.server_config())
    said = six.run("apply", **good.variables())
    assert (said.exit_code, said.outcome["outcome"]) == (0, "formed"), said.text
    assert [line["shards"] for line in said.lines if line["event"] == "probe_done"] == [3]
    assert six.run("apply", **good.variables()).outcome["outcome"] == "unchanged"
    host = six.cluster.servers[0].address.host
    for port in (6379, 16379):
        assert shaken_hands(host, port, good), f"port {port} speaks TLS"


@pytest.mark.parametrize("name", WITH_TLS)
def test_slots_move_over_tls(name: str, lab: Labs, good: Certificate) -> None:
    """From three shards to four, with keys, by MIGRATE or by the servers' own migration: these connections too."""
    four = lab(find_program(str(WITH_TLS[name])), 4, 0, config=good.server_config())
    zone = four.cluster.nameserver.zone
    four.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert replace(four, shards=3).run("apply", **good.variables()).exit_code == 0
    host = four.cluster.servers[0].address.host
    with RedisCluster(
        host=host,
        ssl=True,
        ssl_check_hostname=False,
        ssl_ca_certs=str(good.ca),
        ssl_certfile=str(good.cert),
        ssl_keyfile=str(good.key),
    ) as client:
        for number in range(200):
            client.set(f"key:{number}", number)
        four.cluster.nameserver.publish(zone)
        said = four.run("apply", **good.variables())
        assert (said.exit_code, said.outcome["outcome"], said.outcome["shards"]) == (0, "scaled", 4), said.text
        assert [client.get(f"key:{number}") for number in range(200)] == [str(n).encode() for n in range(200)]


def test_where_servers_ask_for_no_certificate_none_is_needed(
    tls_program: Program, lab: Labs, good: Certificate
) -> None:
    """`tls-auth-clients no`: the authority alone opens the door."""
    six = lab(tls_program, config=good.server_config(clients="no"))
    said = six.run("apply", BOOTSTRAP_TLS_CA_FILE=str(good.ca))
    assert said.exit_code == 0, said.text


def test_a_server_of_another_authority_is_not_trusted(six: Testbed, stranger: Certificate) -> None:
    """Exit 4, with OpenSSL's words for what is wrong with the certificate."""
    assert_told(
        six.run("apply", BOOTSTRAP_DEADLINE_S="1", **stranger.variables()), "the server's certificate is not accepted: "
    )


def test_authorities_that_the_machine_trusts_are_not_ours(
    six: Testbed, stranger: Certificate, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are not compared, so whoever has any certificate of a public authority could else pass for a node."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    assert_told(
        six.run("apply", BOOTSTRAP_DEADLINE_S="1", **stranger.variables()), "the server's certificate is not accepted: "
    )


def test_a_missing_certificate_of_ours_is_asked_for(six: Testbed, good: Certificate) -> None:
    """In TLS 1.3 the server says so only after our part of the handshake; it is heard all the same, at every node."""
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="3", BOOTSTRAP_TLS_CA_FILE=str(good.ca))
    assert_told(said, "the server requires a client certificate, and none is set")


def test_a_certificate_that_the_servers_do_not_know_is_said_to_be_ours(
    six: Testbed, good: Certificate, stranger: Certificate
) -> None:
    """It is the client's that is wrong here, not theirs."""
    wrong = Certificate(stranger.cert, stranger.key, good.ca)
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="3", **wrong.variables())
    assert_told(said, "the server does not know the authority that signed the client certificate")


def test_an_expired_certificate_is_called_expired(
    six: Testbed, tls_program: Program, lab: Labs, authority: Authority, good: Certificate
) -> None:
    """The servers', and the program's own."""
    old = authority.issue("old", days=-1)
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="3", **old.variables())
    assert_told(said, "the client certificate has expired")
    expired = lab(tls_program, config=old.server_config(clients="no"))  # or nobody would see that they are up
    said = expired.run("apply", BOOTSTRAP_DEADLINE_S="1", **good.variables())
    assert_told(said, "the server's certificate is not accepted: certificate has expired")


def test_a_program_without_tls_is_told_that_the_servers_want_it(six: Testbed) -> None:
    """What it sees is a connection that is reset; what it says is why."""
    assert_told(
        six.run("apply", BOOTSTRAP_DEADLINE_S="2"), "the server speaks TLS, and BOOTSTRAP_TLS_CA_FILE is not set"
    )


def test_a_plain_port_is_found_out(any_program: Program, lab: Labs, good: Certificate) -> None:
    """A plain server takes a handshake for half a command and waits for the rest; that looks like one that hangs."""
    said = lab(any_program).run("apply", BOOTSTRAP_DEADLINE_S="4", **good.variables())
    assert_told(said, "the server answers without TLS on this port, and BOOTSTRAP_TLS_CA_FILE is set")


def test_a_server_that_hangs_is_no_fault_of_tls(six: Testbed, good: Certificate) -> None:
    """It may come back: exit 1, and the look at it ends in time."""
    six.cluster.servers[5].pause()
    try:
        said = six.run("apply", BOOTSTRAP_DEADLINE_S="4", **good.variables())
    finally:
        six.cluster.servers[5].resume()
    assert (said.exit_code, [reason["code"] for reason in said.outcome["reasons"]]) == (1, ["timeout"])


def test_a_server_that_goes_in_the_middle_is_no_fault_of_tls(six: Testbed, good: Certificate) -> None:
    """Between two looks its process ends: refused connections, as without TLS."""
    server = six.cluster.servers[5]
    nodes = Nodes(Credentials(ca_file=good.ca, cert_file=good.cert, key_file=good.key))
    place = (server.name, 5, server.address)
    try:
        assert not isinstance(nodes.look([place])[server.name, server.address], Failure)
        server.kill()
        gone = {str(nodes.look([place])[server.name, server.address]) for _ in range(3)}
    finally:
        nodes.close()
    assert not any("TLS" in silence for silence in gone), gone


@pytest.mark.parametrize(
    ("told", "change"),
    [
        ("BOOTSTRAP_TLS_CA_FILE '{junk}' holds no certificate", {"CA": "junk"}),
        ("BOOTSTRAP_TLS_CERT_FILE '{junk}' holds no certificate, or '{key}' holds no key", {"CERT": "junk"}),
        ("BOOTSTRAP_TLS_CERT_FILE '{cert}' holds no certificate, or '{junk}' holds no key", {"KEY": "junk"}),
        ("BOOTSTRAP_TLS_KEY_FILE '{other}' is not the key of the certificate in '{cert}'", {"KEY": "other"}),
        (
            "BOOTSTRAP_TLS_KEY_FILE '{locked}' is encrypted, and this program has no passphrase for it",
            {"CERT": "lock", "KEY": "locked"},
        ),
        ("BOOTSTRAP_TLS_KEY_FILE '/no/key' cannot be read", {"KEY": "missing"}),
    ],
    ids=["no authority", "no certificate", "no key", "another's key", "an encrypted key", "no file"],
)
def test_a_file_that_is_not_what_it_should_be_is_named_at_once(
    tmp_path: Path, authority: Authority, good: Certificate, told: str, change: Mapping[str, str]
) -> None:
    """Exit 4 before anybody is asked, nothing on standard error, nothing of the files in it, and no prompt."""
    (tmp_path / "junk").write_text("neither this nor that")
    locked = authority.issue("locked", passphrase="opensesame")
    paths = {
        "junk": tmp_path / "junk",
        "cert": good.cert,
        "key": good.key,
        "other": authority.issue("other").key,
        "lock": locked.cert,
        "locked": locked.key,
        "missing": Path("/no/key"),
    }
    variables = good.variables() | {f"BOOTSTRAP_TLS_{name}_FILE": str(paths[which]) for name, which in change.items()}
    ended = at_a_terminal({**variables, "BOOTSTRAP_NAMESERVER": "127.0.0.1:9", "BOOTSTRAP_LOG": "json"})
    assert (ended.returncode, ended.stderr) == (4, "")
    assert told.format(**paths) in ended.stdout.splitlines()[-1]
    assert "PRIVATE KEY" not in ended.stdout
    assert "neither this" not in ended.stdout


def at_a_terminal(variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The program with a terminal to ask at, and nobody who answers: a prompt would let it run into the limit."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOTSTRAP_")}
    ours, theirs = pty.openpty()
    try:
        return subprocess.run(
            [sys.executable, "-m", "bootstrap", "apply"],
            env={**clean, **variables},
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            start_new_session=True,
        )
    finally:
        os.close(ours)
        os.close(theirs)


def shaken_hands(host: str, port: int, certificate: Certificate) -> bool:
    """Whether that port takes part in a TLS handshake, and shows a certificate that the authority signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificate.ca)
    context.load_cert_chain(certificate.cert, certificate.key)
    with socket.create_connection((host, port), timeout=5) as plain, context.wrap_socket(plain) as secured:
        return bool(secured.getpeercert())


def assert_told(said: RunResult, words: str) -> None:
    """Exit 4, and every one of the six nodes is said to be kept away by that."""
    assert said.exit_code == 4, said.text
    messages = [reason["message"] for reason in said.outcome["reasons"]]
    assert len(messages) == 6
    assert all(f"the TLS handshake failed ({words}" in message or words in message for message in messages), messages
    assert {reason["code"] for reason in said.outcome["reasons"]} == {"tls"}
