"""Wrong settings, strange peers, silent name servers: a clear message, the right exit code, no traceback, no write."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from bootstrap.local.nameserver import Behaviour
from bootstrap.local.programs import Program
from bootstrap.local.zone import Pod, Zone
from tests.real.conftest import Testbed

Labs = Callable[..., Testbed]


def run_apart(variables: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """The program as a user starts it, in a process of its own."""
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
    ("variables", "told"),
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
def test_a_wrong_setting_is_named(variables: Mapping[str, str], told: str) -> None:
    """Exit 4, the setting and its value in the outcome, and nothing on standard error."""
    ended = run_apart(variables, "apply")
    assert (ended.returncode, ended.stderr) == (4, "")
    assert told in ended.stdout.splitlines()[-1]
    assert '"event": "outcome"' in ended.stdout.splitlines()[-1]


def test_all_wrong_settings_are_named_at_once() -> None:
    """Three faults, three reasons: nobody has to run four times."""
    ended = run_apart({"BOOTSTRAP_SHARDS": "1", "BOOTSTRAP_DEADLINE_S": "0", "BOOTSTRAP_LOG": "loud"}, "verify")
    for name in ("BOOTSTRAP_SHARDS", "BOOTSTRAP_DEADLINE_S", "BOOTSTRAP_LOG"):
        assert name in ended.stdout
    assert ended.returncode == 4


@pytest.mark.parametrize("words", [(), ("form",), ("apply", "--shard-count", "3"), ("apply", "extra")])
def test_wrong_usage_exits_with_2(words: tuple[str, ...]) -> None:
    """No verb, an unknown verb, an unknown flag, a word too many: usage on standard error."""
    ended = run_apart({}, *words)
    assert ended.returncode == 2
    assert "usage:" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_slip_of_the_pen_is_told(any_program: Program, lab: Labs) -> None:
    """`BOOTSTRAP_SHARD` is no setting: a warning says so, and the run goes on."""
    six = lab(any_program)
    said = six.run("apply", BOOTSTRAP_SHARD="5")
    assert said.exit_code == 0
    assert [line["name"] for line in said.lines if line["event"] == "unknown_setting"] == ["BOOTSTRAP_SHARD"]


def test_a_flag_wins_over_its_variable(any_program: Program, lab: Labs) -> None:
    """`--replicas-per-shard 0` over a variable that says 1."""
    three = lab(any_program, 3, 0)
    said = three.run("apply", "--replicas-per-shard", "0", BOOTSTRAP_REPLICAS_PER_SHARD="1")
    assert (said.exit_code, said.outcome["nodes"]) == (0, 3)


@pytest.mark.parametrize("behaviour", [Behaviour.SILENT, Behaviour.FAIL], ids=["silent", "failing"])
def test_a_name_server_that_does_not_answer_is_named(any_program: Program, lab: Labs, behaviour: Behaviour) -> None:
    """Exit 1 at the deadline, with the name server's address and what it does."""
    six = lab(any_program)
    six.cluster.nameserver.behave(behaviour)
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="3")
    assert said.exit_code == 1
    assert f"the name server {six.cluster.nameserver.address}" in said.text
    assert_untouched(six)


def test_a_name_server_that_is_not_there_is_named(any_program: Program, lab: Labs) -> None:
    """Nobody listens on that port: exit 1, the address in the message."""
    six = lab(any_program)
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="2", BOOTSTRAP_NAMESERVER="127.0.0.1:9")
    assert said.exit_code == 1
    assert "the name server 127.0.0.1:9" in said.text


def test_a_pod_without_a_record_is_waited_for_by_name(any_program: Program, lab: Labs) -> None:
    """DNS lists five of six: the sixth is named, and `no DNS record` is the reason."""
    six = lab(any_program)
    zone = six.cluster.nameserver.zone
    six.cluster.nameserver.publish(Zone(pods=zone.pods[:5]))
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="3")
    assert said.exit_code == 1
    assert [reason["message"] for reason in said.outcome["reasons"]] == ["redis-app-5: no DNS record"]
    assert [line for line in said.lines if line["event"] == "waiting_for_peers"], "it says so while it waits, too"
    assert_untouched(six)


def assert_untouched(six: Testbed) -> None:
    """No server was written to: all that answer are blank, with the timeout that they had."""
    view = six.view()
    assert view.nodes
    assert all(node.blank and node.timeout_ms == 5000 and node.myself.config_epoch == 0 for node in view.nodes)


def replace_last_peer(six: Testbed, host: str, port: int) -> None:
    """DNS says that redis-app-5 is somebody else."""
    six.cluster.servers[5].kill()
    pods = [*six.cluster.nameserver.zone.pods[:5], Pod(name="redis-app-5", addresses=(host,), port=port)]
    six.cluster.nameserver.publish(Zone(pods=tuple(pods)))


def assert_told(six: Testbed, words: str, exit_code: int, **variables: str) -> None:
    """The run ends with that exit code, says that of redis-app-5, and has touched nobody."""
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="4", **variables)
    (reason,) = said.outcome["reasons"]
    assert (said.exit_code, reason["node"]) == (exit_code, "redis-app-5")
    assert words in reason["message"]
    assert reason["remedy"]
    assert_untouched(six)


def test_a_peer_that_refuses_connections(any_program: Program, lab: Labs) -> None:
    """Its process is gone: exit 1, try again."""
    six = lab(any_program)
    six.cluster.servers[5].kill()
    assert_told(six, "connection refused", 1)


def test_a_peer_that_hangs(any_program: Program, lab: Labs) -> None:
    """Stopped by SIGSTOP, so that it accepts and never answers: exit 1."""
    six = lab(any_program)
    six.cluster.servers[5].pause()
    try:
        assert_told(six, "no answer in time", 1)
    finally:
        six.cluster.servers[5].resume()


def test_a_peer_with_cluster_mode_off(any_program: Program, lab: Labs, tmp_path: Path) -> None:
    """Exit 4: no retry can help."""
    six = lab(any_program)
    with serving(any_program, tmp_path / "alone", "cluster-enabled no") as (host, port):
        replace_last_peer(six, host, port)
        assert_told(six, "cluster mode is off", 4)


def test_a_peer_that_wants_a_password(any_program: Program, lab: Labs, tmp_path: Path) -> None:
    """None is set: exit 4, and the remedy names the setting."""
    six = lab(any_program)
    with serving(any_program, tmp_path / "locked", "requirepass secret") as (host, port):
        replace_last_peer(six, host, port)
        assert_told(six, "requires a password", 4)


def test_a_wrong_password(any_program: Program, lab: Labs, tmp_path: Path) -> None:
    """Exit 4; every peer is named, and neither password is shown."""
    six = lab(any_program, config=("requirepass rightone", "masterauth rightone"))
    secret = tmp_path / "password"
    secret.write_text("wrongone")
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="2", BOOTSTRAP_PASSWORD_FILE=str(secret))
    assert said.exit_code == 4
    assert {reason["code"] for reason in said.outcome["reasons"]} == {"wrong-password"}
    assert "wrongone" not in said.text
    assert "rightone" not in said.text


def test_a_peer_that_is_a_sentinel(lab: Labs, redis_program: Program, tmp_path: Path) -> None:
    """A Sentinel speaks the protocol and is no node: exit 4."""
    six = lab(redis_program)
    config = tmp_path / "sentinel.conf"
    port = free_port()
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n")
    sentinel = subprocess.Popen(
        [redis_program.path, config, "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port)
        replace_last_peer(six, "127.0.0.1", port)
        assert_told(six, "is a Sentinel", 4)
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
    "texts that are no CLUSTER NODES": b"$5\r\nhello\r\n" * 6,
}


@pytest.mark.parametrize("kind", sorted(STRANGERS))
def test_a_peer_that_speaks_garbage(any_program: Program, lab: Labs, kind: str) -> None:
    """Whatever comes over the wire: a reason with the pod's name, no traceback, nothing written."""
    six = lab(any_program)
    with stranger(STRANGERS[kind]) as (host, port):
        replace_last_peer(six, host, port)
        said = six.run("apply", BOOTSTRAP_DEADLINE_S="3")
        (reason,) = said.outcome["reasons"]
        assert reason["node"] == "redis-app-5"
        assert (said.exit_code, reason["code"]) in ((4, "not-redis"), (1, "timeout"), (1, "unreachable")), reason
        assert_untouched(six)


def test_a_peer_that_drips_bytes_cannot_hold_up_a_run(any_program: Program, lab: Labs) -> None:
    """One byte each half second never times a socket out: the whole answer has a limit."""
    six = lab(any_program)
    with stranger(b"$1000\r\n" + b"x" * 1000, drip_s=0.5) as (host, port):
        replace_last_peer(six, host, port)
        assert_told(six, "", 1)


@contextlib.contextmanager
def stranger(answer: bytes, drip_s: float = 0.0) -> Iterator[tuple[str, int]]:
    """Somebody who answers every connection with the same bytes, at once or one by one, and then keeps it open."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for piece in [answer] if not drip_s else [answer[i : i + 1] for i in range(len(answer))]:
                connection.sendall(piece)
                if over.wait(drip_s):
                    return
            over.wait(60)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@contextlib.contextmanager
def serving(program: Program, directory: Path, *config: str) -> Iterator[tuple[str, int]]:
    """One more server with its own configuration."""
    from bootstrap.local.addresses import reserve
    from bootstrap.local.servers import Server

    with reserve(1) as places:
        server = Server(program, directory, places.addresses[0], config=config)
        try:
            server.start()
            yield server.address.host, server.address.port
        finally:
            server.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    import time

    end = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < end
        time.sleep(0.02)
