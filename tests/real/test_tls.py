"""TLS on real servers: a whole cluster over it, and each misconfiguration, reported with its cause."""

from __future__ import annotations

import os
import pty
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, RedisCluster

from bootstrap.local.programs import Program, find_program
from bootstrap.local.servers import Server
from bootstrap.local.zone import Zone
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.failures import Failure
from tests.available_servers import BARE_PATH, ON_CI, SERVERS
from tests.certificates import OPENSSL, Authority, Certificate
from tests.real.sources import standalone
from tests.real.testbed import RunResult, StartTestbed, Testbed
from tests.system_names import resolved
from tests.waiting import wait_until

WITH_TLS = {name: path for name, path in SERVERS.items() if b"libssl" in path.resolve().read_bytes()}
"""Debian's servers are built with TLS; those from Python packages are not."""
NAMES_S = 10
BY_NAME = "cluster-preferred-endpoint-type hostname"
pytestmark = [
    pytest.mark.skipif(
        (BARE_PATH or not ON_CI) and not WITH_TLS, reason="no server program on this machine was built with TLS"
    ),
    pytest.mark.skipif(not ON_CI and OPENSSL is None, reason="certificates are made with openssl, which is missing"),
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Certificate:
    return authority.issue("redis")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A valid certificate, signed by an authority that neither the servers nor the program know."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger").issue("stranger")


@pytest.fixture
def tls_program() -> Program:
    return find_program(str(next(iter(WITH_TLS.values()))))


@pytest.fixture
def six(tls_program: Program, start_testbed: StartTestbed, good: Certificate) -> Testbed:
    """Six servers that use mutual TLS for every connection."""
    return start_testbed(tls_program, config=good.server_config())


@pytest.mark.parametrize("name", WITH_TLS)
def test_a_cluster_forms_over_mutual_tls(name: str, start_testbed: StartTestbed, good: Certificate) -> None:
    """Clients, bus and replication use TLS. The probe succeeds, a second run changes nothing, and no port is plain."""
    six = start_testbed(find_program(str(WITH_TLS[name])), config=good.server_config())
    result = six.run("apply", **good.variables())
    assert (result.exit_code, result.outcome["outcome"]) == (0, "formed"), result.text
    assert [line["shards"] for line in result.lines if line["event"] == "probe_done"] == [3]
    assert six.run("apply", **good.variables()).outcome["outcome"] == "unchanged"
    for port in (6379, 16379):
        assert completes_handshake(six.cluster.servers[0], port, good), f"port {port} uses TLS"


def test_clients_verify_the_names_that_servers_announce(
    tls_program: Program, start_testbed: StartTestbed, good: Certificate
) -> None:
    """redis-py with its defaults enters by a pod's name, is sent to names, and reaches every shard. The probe verifies
    the names, too.
    """
    six = start_testbed(tls_program, config=(*good.server_config(), BY_NAME))
    with resolved(six.cluster.nameserver.zone):
        announce_names(six, good)
        formed = six.run("apply", **good.variables())
        assert (formed.exit_code, formed.outcome["outcome"]) == (0, "formed"), formed.text
        assert six.run("apply", **good.variables()).outcome["outcome"] == "unchanged"
        with RedisCluster(host=host_name(six.cluster.servers[3]), **verifying(good)) as client:
            assert {node.host for node in client.get_primaries()} == set(map(host_name, six.cluster.servers[:3]))
            for number in range(100):
                client.set(f"key:{number}", number)
            assert [client.get(f"key:{number}") for number in range(100)] == [str(n).encode() for n in range(100)]
            assert {len(node.redis_connection.keys()) > 0 for node in client.get_primaries()} == {True}


@pytest.mark.parametrize("hosts", [("gold-redis.default.svc",), ("*.redis-service", "*.elsewhere.svc.cluster.local")])
def test_a_certificate_without_the_announced_names_is_named_by_every_run(
    tls_program: Program, start_testbed: StartTestbed, authority: Authority, hosts: tuple[str, ...]
) -> None:
    """The cluster forms. Clients that verify could not use it, so that run and the next one end with exit code 4. With
    another certificate, and no restart, the same run succeeds.
    """
    wrong = authority.issue("wrong", hosts=hosts)
    six = start_testbed(tls_program, config=(*wrong.server_config(), BY_NAME))
    with resolved(six.cluster.nameserver.zone):
        announce_names(six, wrong, check=False)
    for writes in (True, False):
        said = six.run("apply", **wrong.variables())
        (reason,) = said.outcome["reasons"]
        assert (said.exit_code, reason["code"], bool(said.outcome["steps"])) == (4, "endpoint-certificate", writes)
        # The probe enters by any pod.
        name = r"redis-app-[0-5]\.redis-service\.default\.svc\.cluster\.local"
        assert re.search(rf"certificate is not valid for '{name}'", reason["message"])
        assert "*.redis-service.default.svc.cluster.local and put it into the Secret redis-tls" in reason["remedy"]
        assert said.outcome["took_s"] < 20
    right = authority.issue("right")
    for server in six.cluster.servers:
        with Redis(server.address.host, **{**verifying(wrong), "ssl_check_hostname": False}) as client:
            client.config_set("tls-cert-file", str(right.cert), "tls-key-file", str(right.key))
    assert six.run("apply", **wrong.variables()).outcome["outcome"] == "unchanged"


@pytest.mark.parametrize("name", WITH_TLS)
def test_slots_move_over_tls(name: str, start_testbed: StartTestbed, good: Certificate) -> None:
    """From three shards to four, with keys. MIGRATE and the servers' own migration use TLS, too."""
    four = start_testbed(find_program(str(WITH_TLS[name])), 4, 0, config=good.server_config())
    zone = four.cluster.nameserver.zone
    four.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert replace(four, shards=3).run("apply", **good.variables()).exit_code == 0
    with resolved(zone):
        announce_names(four, good)
        client = RedisCluster(host=host_name(four.cluster.servers[0]), **verifying(good))
    with resolved(zone), client:
        for number in range(200):
            client.set(f"key:{number}", number)
        four.cluster.nameserver.publish(zone)
        result = four.run("apply", **good.variables())
        assert (result.exit_code, result.outcome["outcome"], result.outcome["shards"]) == (0, "scaled", 4), result.text
        assert [client.get(f"key:{number}") for number in range(200)] == [str(n).encode() for n in range(200)]


def test_no_client_certificate_is_needed_if_the_servers_require_none(
    tls_program: Program, start_testbed: StartTestbed, good: Certificate
) -> None:
    """`tls-auth-clients no`: the certificate of the authority is enough."""
    six = start_testbed(tls_program, config=good.server_config(clients="no"))
    result = six.run("apply", BOOTSTRAP_TLS_CA_FILE=str(good.ca))
    assert result.exit_code == 0, result.text


def test_a_bus_with_tls_on_one_side_alone_is_named(six: Testbed, good: Certificate) -> None:
    """`tls-cluster no` on one of six servers: not a NetworkPolicy. Afterwards the same run forms the cluster."""
    odd = six.cluster.servers[5]
    before, odd.config = odd.config, (*odd.config, "tls-cluster no")
    odd.terminate()
    odd.start()
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="5", **good.variables())
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"]) == (1, "bus-blocked"), result.text
    assert "tls-cluster is yes on redis-app-" in reason["message"]
    assert "and no on redis-app-5" in reason["message"]
    assert "NetworkPolicy" not in reason["message"]
    odd.config = before
    odd.terminate()
    odd.start()
    assert six.run("apply", **good.variables()).exit_code == 0


def test_a_server_of_another_authority_is_not_trusted(six: Testbed, stranger: Certificate) -> None:
    """Exit 4, with OpenSSL's description of what is wrong with the certificate."""
    assert_tls_error(
        six.run("apply", BOOTSTRAP_DEADLINE_S="1", **stranger.variables()), "the server's certificate is not accepted: "
    )


def test_authorities_that_the_machine_trusts_are_not_accepted(
    six: Testbed, stranger: Certificate, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes are reached by address, so no name is compared. Otherwise any certificate of a public authority would be
    accepted as a node's.
    """
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    assert_tls_error(
        six.run("apply", BOOTSTRAP_DEADLINE_S="1", **stranger.variables()), "the server's certificate is not accepted: "
    )


def test_a_missing_client_certificate_is_reported(six: Testbed, good: Certificate) -> None:
    """In TLS 1.3 the server sends this error only after the client's handshake. The run reports it for every node."""
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="3", BOOTSTRAP_TLS_CA_FILE=str(good.ca))
    assert_tls_error(result, "the server requires a client certificate, and none is set")


def test_a_client_certificate_that_the_servers_do_not_know_is_reported(
    six: Testbed, good: Certificate, stranger: Certificate
) -> None:
    """The client's certificate is wrong here, not the servers'."""
    wrong = Certificate(stranger.cert, stranger.key, good.ca)
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="3", **wrong.variables())
    assert_tls_error(result, "the server does not know the authority that signed the client certificate")


def test_an_expired_certificate_is_reported_as_expired(
    six: Testbed, tls_program: Program, start_testbed: StartTestbed, authority: Authority, good: Certificate
) -> None:
    """This applies to the servers' certificate and to the program's own."""
    old = authority.issue("old", days=-1)
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="3", **old.variables())
    assert_tls_error(result, "the client certificate has expired")
    expired = start_testbed(tls_program, config=old.server_config(clients="no"))  # so that the start can be seen
    result = expired.run("apply", BOOTSTRAP_DEADLINE_S="1", **good.variables())
    assert_tls_error(result, "the server's certificate is not accepted: certificate has expired")


def test_a_missing_tls_setting_is_reported(six: Testbed) -> None:
    """The program sees a connection reset and reports the cause."""
    assert_tls_error(
        six.run("apply", BOOTSTRAP_DEADLINE_S="2"), "the server speaks TLS, and BOOTSTRAP_TLS_CA_FILE is not set"
    )


def test_a_plain_port_is_reported(any_program: Program, start_testbed: StartTestbed, good: Certificate) -> None:
    """A plain server takes a handshake for half a command and waits for the rest, so it looks like a hanging server."""
    result = start_testbed(any_program).run("apply", BOOTSTRAP_DEADLINE_S="4", **good.variables())
    assert_tls_error(result, "the server answers without TLS on this port, and BOOTSTRAP_TLS_CA_FILE is set")


def test_a_server_that_hangs_is_not_a_tls_error(six: Testbed, good: Certificate) -> None:
    """The server may come back: exit 1, and the look at it ends in time."""
    six.cluster.servers[5].pause()
    try:
        result = six.run("apply", BOOTSTRAP_DEADLINE_S="4", **good.variables())
    finally:
        six.cluster.servers[5].resume()
    assert (result.exit_code, [reason["code"] for reason in result.outcome["reasons"]]) == (1, ["timeout"])


def test_a_server_that_ends_between_two_looks_is_not_a_tls_error(six: Testbed, good: Certificate) -> None:
    """The process of the server has completed, so connections are refused, as without TLS."""
    server = six.cluster.servers[5]
    nodes = Nodes(Credentials(ca_file=good.ca, cert_file=good.cert, key_file=good.key))
    place = (server.name, 5, server.address)
    try:
        assert not isinstance(nodes.look([place])[server.name, server.address], Failure)
        server.kill()
        failures = {str(nodes.look([place])[server.name, server.address]) for _ in range(3)}
    finally:
        nodes.close()
    assert not any("TLS" in failure for failure in failures), failures


@pytest.mark.parametrize(
    ("message", "change"),
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
def test_an_invalid_file_is_named_before_any_connection(
    tmp_path: Path, authority: Authority, good: Certificate, message: str, change: Mapping[str, str]
) -> None:
    """Exit 4 before any request. Standard error is empty, no content of the files is shown, and there is no prompt."""
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
    completed = run_at_a_terminal({**variables, "BOOTSTRAP_NAMESERVER": "127.0.0.1:9", "BOOTSTRAP_LOG": "json"})
    assert (completed.returncode, completed.stderr) == (4, "")
    assert message.format(**paths) in completed.stdout.splitlines()[-1]
    assert "PRIVATE KEY" not in completed.stdout
    assert "neither this" not in completed.stdout


def run_at_a_terminal(variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs the program on a terminal without input: a prompt would make it exceed the time limit."""
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


def completes_handshake(server: Server, port: int, certificate: Certificate) -> bool:
    """True if the port completes a TLS handshake and shows a certificate of the authority for the name of the pod."""
    context = ssl.create_default_context(cafile=certificate.ca)
    context.load_cert_chain(certificate.cert, certificate.key)
    with (
        socket.create_connection((server.address.host, port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=host_name(server)) as secured,
    ):
        return bool(secured.getpeercert())


def host_name(server: Server) -> str:
    """The name of its pod in the cluster DNS."""
    return f"{server.name}.{Zone().service_name.removesuffix('.')}"


def verifying(certificate: Certificate) -> dict[str, Any]:
    """The options of redis-py for TLS. Everything that they do not name has its default."""
    files = {"ssl_ca_certs": certificate.ca, "ssl_certfile": certificate.cert, "ssl_keyfile": certificate.key}
    return {"ssl": True, "protocol": 2, **{option: str(file) for option, file in files.items()}}


def announce_names(six: Testbed, certificate: Certificate, *, check: bool = True) -> None:
    """Each server announces the name of its pod, and sends clients to names."""
    for server in six.cluster.servers:
        with Redis(host_name(server), **{**verifying(certificate), "ssl_check_hostname": check}) as client:
            client.config_set("cluster-announce-hostname", host_name(server))
            client.config_set("cluster-preferred-endpoint-type", "hostname")
    for server in six.cluster.servers:
        with Redis(host_name(server), **{**verifying(certificate), "ssl_check_hostname": check}) as client:
            wait_until(partial(knows_all_names, client), f"{server.name} knows the names of its peers", NAMES_S)


def knows_all_names(client: Redis) -> bool:
    """Whether this server knows a host name of every member of its cluster."""
    return all(node["hostname"] for node in client.execute_command("CLUSTER NODES").values())


def assert_tls_error(result: RunResult, words: str) -> None:
    """Exit 4, and this is the one reason, which names all pods."""
    assert result.exit_code == 4, result.text
    messages = [reason["message"] for reason in result.outcome["reasons"]]
    assert len(messages) == 1, "one reason for all pods, which give the same answer"
    assert all(f"the TLS handshake failed ({words}" in message or words in message for message in messages), messages
    assert {reason["code"] for reason in result.outcome["reasons"]} == {"tls"}


def test_keys_are_imported_over_tls_from_a_source_with_tls(six: Testbed, good: Certificate, tmp_path: Path) -> None:
    """Each side has settings of its own. Where those of the source are missing, the reason names them."""
    assert six.run("apply", **good.variables()).exit_code == 0
    config = [line for line in good.server_config(port=7001) if "cluster" not in line and "replication" not in line]
    with standalone(six.cluster.program, six, tmp_path, config=config) as server:
        with Redis(server.address.host, 7001, ssl=True, **client_files(good)) as client:
            client.mset({f"key:{number}": number for number in range(100)})
        words = ["import", "--from", str(server.address)]
        plain = six.run(*words, **good.variables())
        assert (plain.exit_code, plain.outcome["reasons"][0]["code"]) == (4, "source-unusable"), plain.text
        assert "BOOTSTRAP_IMPORT_TLS_CA_FILE" in plain.outcome["reasons"][0]["message"]
        names = {"ca": good.ca, "cert": good.cert, "key": good.key}
        secured = [word for name, path in names.items() for word in (f"--from-tls-{name}-file", str(path))]
        result = six.run(*words, *secured, **good.variables())
    assert (result.exit_code, result.outcome["outcome"]) == (0, "imported"), result.text
    assert result.outcome["imported"]["copied"] == 100


def client_files(certificate: Certificate) -> dict[str, Any]:
    """The options of a client that shows a certificate; host names are not its matter."""
    return {
        "ssl_ca_certs": str(certificate.ca),
        "ssl_certfile": str(certificate.cert),
        "ssl_keyfile": str(certificate.key),
        "ssl_check_hostname": False,
    }
