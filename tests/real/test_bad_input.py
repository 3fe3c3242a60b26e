"""Wrong settings, unexpected peers, silent name servers: a clear message, the exit code, no traceback, no write."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bootstrap.local.nameserver import Behaviour
from bootstrap.local.programs import Program
from bootstrap.local.zone import Pod, Zone
from tests.real.strangers import free_port, stranger, wait_for_port
from tests.real.testbed import StartTestbed, Testbed


def run_process(variables: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the program as a user does, in a separate process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOTSTRAP_")}
    return subprocess.run(
        [sys.executable, "-m", "bootstrap", *words],
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"BOOTSTRAP_SHARDS": "2"}, "BOOTSTRAP_SHARDS '2' is not between 3 and 1000"),
        ({"BOOTSTRAP_SHARDS": "many"}, "BOOTSTRAP_SHARDS 'many' is not a whole number"),
        ({"BOOTSTRAP_REPLICAS_PER_SHARD": "-1"}, "BOOTSTRAP_REPLICAS_PER_SHARD '-1' is not between 0"),
        ({"BOOTSTRAP_DEADLINE_S": "nan"}, "BOOTSTRAP_DEADLINE_S 'nan' is not a number of seconds"),
        ({"BOOTSTRAP_NAMESERVER": "dns.example"}, "BOOTSTRAP_NAMESERVER 'dns.example' is not an address"),
        ({"BOOTSTRAP_NAMESERVER": "127.0.0.1:0"}, "BOOTSTRAP_NAMESERVER '127.0.0.1:0' is not an address"),
        ({"BOOTSTRAP_PASSWORD_FILE": "/no/such/file"}, "BOOTSTRAP_PASSWORD_FILE '/no/such/file' cannot be read"),
        ({"BOOTSTRAP_SERVICE": "Redis_Service"}, "BOOTSTRAP_SERVICE 'Redis_Service' is not a DNS label"),
        ({"BOOTSTRAP_KUBERNETES": "on", "BOOTSTRAP_NAMESERVER": "127.0.0.1:9"}, "BOOTSTRAP_KUBERNETES is on"),
    ],
)
def test_a_wrong_setting_is_named(variables: Mapping[str, str], message: str) -> None:
    """Exit 4, the setting and its value in the outcome, and nothing on standard error."""
    completed = run_process(variables, "apply")
    assert (completed.returncode, completed.stderr) == (4, "")
    assert message in completed.stdout.splitlines()[-1]
    assert '"event": "outcome"' in completed.stdout.splitlines()[-1]


def test_all_wrong_settings_are_named_in_one_run() -> None:
    """Three wrong settings give three reasons, so that a user does not find them one run after the other."""
    completed = run_process({"BOOTSTRAP_SHARDS": "1", "BOOTSTRAP_DEADLINE_S": "0", "BOOTSTRAP_LOG": "loud"}, "verify")
    for name in ("BOOTSTRAP_SHARDS", "BOOTSTRAP_DEADLINE_S", "BOOTSTRAP_LOG"):
        assert name in completed.stdout
    assert completed.returncode == 4


@pytest.mark.parametrize("words", [(), ("form",), ("apply", "--shard-count", "3"), ("apply", "extra")])
def test_wrong_usage_exits_with_2(words: tuple[str, ...]) -> None:
    """No verb, an unknown verb, an unknown flag, an extra word: usage on standard error."""
    completed = run_process({}, *words)
    assert completed.returncode == 2
    assert "usage:" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_a_misspelled_setting_is_reported(any_program: Program, start_testbed: StartTestbed) -> None:
    """`BOOTSTRAP_SHARD` is not a setting: a warning names it, and the run continues."""
    six = start_testbed(any_program)
    result = six.run("apply", BOOTSTRAP_SHARD="5")
    assert result.exit_code == 0
    assert [line["name"] for line in result.lines if line["event"] == "unknown_setting"] == ["BOOTSTRAP_SHARD"]


def test_a_flag_overrides_its_variable(any_program: Program, start_testbed: StartTestbed) -> None:
    """`--replicas-per-shard 0` overrides a variable with the value 1."""
    three = start_testbed(any_program, 3, 0)
    result = three.run("apply", "--replicas-per-shard", "0", BOOTSTRAP_REPLICAS_PER_SHARD="1")
    assert (result.exit_code, result.outcome["nodes"]) == (0, 3)


@pytest.mark.parametrize("behaviour", [Behaviour.SILENT, Behaviour.FAIL], ids=["silent", "failing"])
def test_a_name_server_that_does_not_answer_is_named(
    any_program: Program, start_testbed: StartTestbed, behaviour: Behaviour
) -> None:
    """Exit 1 at the deadline. The output names the name server's address."""
    six = start_testbed(any_program)
    six.cluster.nameserver.behave(behaviour)
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="3")
    assert result.exit_code == 1
    assert f"the name server {six.cluster.nameserver.address}" in result.text
    assert_untouched(six)


def test_a_missing_name_server_is_named(any_program: Program, start_testbed: StartTestbed) -> None:
    """No process listens on that port: exit 1, with the address in the message."""
    six = start_testbed(any_program)
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="2", BOOTSTRAP_NAMESERVER="127.0.0.1:9")
    assert result.exit_code == 1
    assert "the name server 127.0.0.1:9" in result.text


def test_a_pod_without_a_record_is_waited_for_by_name(any_program: Program, start_testbed: StartTestbed) -> None:
    """DNS lists five of six pods. The sixth is named with the reason `no DNS record`."""
    six = start_testbed(any_program)
    zone = six.cluster.nameserver.zone
    six.cluster.nameserver.publish(Zone(pods=zone.pods[:5]))
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="3")
    assert result.exit_code == 1
    assert [reason["message"] for reason in result.outcome["reasons"]] == ["redis-app-5: no DNS record"]
    assert [line for line in result.lines if line["event"] == "waiting_for_peers"], "it is logged during the wait"
    assert_untouched(six)


def assert_untouched(six: Testbed) -> None:
    """No server was written to: all that answer are blank and have their original timeout."""
    view = six.view()
    assert view.nodes
    assert all(node.blank and node.timeout_ms == 5000 and node.myself.config_epoch == 0 for node in view.nodes)


def replace_last_peer(six: Testbed, host: str, port: int) -> None:
    """Makes DNS resolve redis-app-5 to another peer."""
    six.cluster.servers[5].kill()
    pods = [*six.cluster.nameserver.zone.pods[:5], Pod(name="redis-app-5", addresses=(host,), port=port)]
    six.cluster.nameserver.publish(Zone(pods=tuple(pods)))


def assert_reason(six: Testbed, words: str, exit_code: int, **variables: str) -> None:
    """The run ends with that exit code and that reason for redis-app-5. It has written to no server."""
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="4", **variables)
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["node"]) == (exit_code, "redis-app-5")
    assert words in reason["message"]
    assert reason["remedy"]
    assert_untouched(six)


def test_a_peer_that_refuses_connections(any_program: Program, start_testbed: StartTestbed) -> None:
    """Its process is gone: exit 1, because a retry can help."""
    six = start_testbed(any_program)
    six.cluster.servers[5].kill()
    assert_reason(six, "connection refused", 1)


def test_a_peer_that_hangs(any_program: Program, start_testbed: StartTestbed) -> None:
    """SIGSTOP: the peer accepts connections and never answers. Exit 1."""
    six = start_testbed(any_program)
    six.cluster.servers[5].pause()
    try:
        assert_reason(six, "no answer in time", 1)
    finally:
        six.cluster.servers[5].resume()


def test_a_peer_with_cluster_mode_off(any_program: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """Exit 4, because a retry cannot help."""
    six = start_testbed(any_program)
    with serving(any_program, tmp_path / "alone", "cluster-enabled no") as (host, port):
        replace_last_peer(six, host, port)
        assert_reason(six, "cluster mode is off", 4)


def test_a_peer_that_requires_a_password(any_program: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """No password is set: exit 4, and the remedy names the setting."""
    six = start_testbed(any_program)
    with serving(any_program, tmp_path / "locked", "requirepass secret") as (host, port):
        replace_last_peer(six, host, port)
        assert_reason(six, "requires a password", 4)


def test_a_wrong_password(any_program: Program, start_testbed: StartTestbed, tmp_path: Path) -> None:
    """Exit 4. Every peer is named, and neither password is shown."""
    six = start_testbed(any_program, config=("requirepass rightone", "masterauth rightone"))
    secret = tmp_path / "password"
    secret.write_text("wrongone")
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="2", BOOTSTRAP_PASSWORD_FILE=str(secret))
    assert result.exit_code == 4
    assert {reason["code"] for reason in result.outcome["reasons"]} == {"wrong-password"}
    assert "wrongone" not in result.text
    assert "rightone" not in result.text


def test_a_peer_that_is_a_sentinel(start_testbed: StartTestbed, redis_program: Program, tmp_path: Path) -> None:
    """A Sentinel uses the protocol but is not a node: exit 4."""
    six = start_testbed(redis_program)
    config = tmp_path / "sentinel.conf"
    port = free_port()
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n")
    sentinel = subprocess.Popen(
        [redis_program.path, config, "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port)
        replace_last_peer(six, "127.0.0.1", port)
        assert_reason(six, "is a Sentinel", 4)
    finally:
        sentinel.kill()
        sentinel.wait(10)


STRANGERS: Mapping[str, bytes] = {
    "a web server": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "noise": bytes(range(256)) * 8,
    "an endless array": b"*1\r\n" * 100_000,
    "a huge length": b"$999999999999\r\nabc\r\n",
    "a wrong length": b"$abc\r\n",
    "an ssh server": b"SSH-2.0-OpenSSH_9.2\r\n",
    "answers of another kind": b":1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n",
    "texts that are not CLUSTER NODES": b"$5\r\nhello\r\n" * 6,
}


@pytest.mark.parametrize("kind", sorted(STRANGERS))
def test_a_peer_that_sends_garbage(any_program: Program, start_testbed: StartTestbed, kind: str) -> None:
    """For each kind of bytes there is a reason with the pod's name, no traceback, and no write."""
    six = start_testbed(any_program)
    with stranger(STRANGERS[kind]) as (host, port):
        replace_last_peer(six, host, port)
        result = six.run("apply", BOOTSTRAP_DEADLINE_S="3")
        (reason,) = result.outcome["reasons"]
        assert reason["node"] == "redis-app-5"
        assert (result.exit_code, reason["code"]) in ((4, "not-redis"), (1, "timeout"), (1, "unreachable")), reason
        assert_untouched(six)


def test_a_peer_that_sends_single_bytes_cannot_stall_a_run(any_program: Program, start_testbed: StartTestbed) -> None:
    """One byte every half second never causes a socket timeout, but the whole answer has a time limit."""
    six = start_testbed(any_program)
    with stranger(b"$1000\r\n" + b"x" * 1000, drip_s=0.5) as (host, port):
        replace_last_peer(six, host, port)
        assert_reason(six, "", 1)


@contextlib.contextmanager
def serving(program: Program, directory: Path, *config: str) -> Iterator[tuple[str, int]]:
    """Runs one more server with its own configuration."""
    from bootstrap.local.addresses import reserve
    from bootstrap.local.servers import Server

    with reserve(1) as places:
        server = Server(program, directory, places.addresses[0], config=config)
        try:
            server.start()
            yield server.address.host, server.address.port
        finally:
            server.terminate()
