"""Real server processes: they start, report their errors, stop, and do not outlive the process that started them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootstrap.errors import NotYet
from bootstrap.local.addresses import BUS_OFFSET, reserve
from bootstrap.local.process_guard import ProcessGuard
from bootstrap.local.programs import Program
from bootstrap.local.servers import Server, kill_all, start_all, stop_all
from bootstrap.model.node import Address

from .conftest import ROOT, ask, eventually, processes_in


@pytest.fixture
def addresses() -> Iterator[tuple[Address, ...]]:
    """Three free addresses."""
    with reserve(3) as reservation:
        yield reservation.addresses


@pytest.fixture
def server(program: Program, tmp_path: Path, addresses: tuple[Address, ...]) -> Iterator[Server]:
    """One server of each program, not yet started."""
    made = Server(program, tmp_path / "redis-app-0", addresses[0])
    yield made
    made.kill()


@pytest.fixture
def plain(default_program: Program, tmp_path: Path, addresses: tuple[Address, ...]) -> Iterator[Server]:
    """One server of one program, for tests in which all would behave alike."""
    made = Server(default_program, tmp_path / "redis-app-0", addresses[0])
    yield made
    made.kill()


def test_started_server_is_a_cluster_node_with_our_settings(server: Server) -> None:
    """It answers on its own address, in cluster mode, with the declared node timeout."""
    server.start()
    assert ask(server.address, "PING") == "+PONG"
    assert ask(server.address, "CONFIG GET cluster-node-timeout") == "5000"
    assert ask(server.address, "CONFIG GET appendonly") == "yes"
    assert ask(server.address, "CONFIG GET cluster-announce-ip") == server.address.host
    assert len(ask(server.address, "CLUSTER MYID")) == 40


def test_moved_server_is_the_same_node(server: Server, addresses: tuple[Address, ...]) -> None:
    """It has another address and the same data, which holds the node id."""
    server.start()
    node_id = ask(server.address, "CLUSTER MYID")
    server.move(addresses[1])
    assert server.address == addresses[1]
    assert ask(addresses[1], "CLUSTER MYID") == node_id
    with pytest.raises(ConnectionRefusedError):
        ask(addresses[0], "PING")


def test_paused_server_does_not_answer_until_it_is_resumed(server: Server) -> None:
    """Its process exists and its port is open, as with a hanging node."""
    server.start()
    server.pause()
    assert server.alive
    assert not server.answers()
    server.resume()
    eventually(server.answers)


def test_paused_server_can_be_terminated_in_order(server: Server) -> None:
    """It is resumed so that it handles the signal; the termination does not last until its limit."""
    server.start()
    server.pause()
    began = time.monotonic()
    server.terminate(timeout_s=60)
    assert not server.alive
    assert time.monotonic() - began < 30
    assert "ready to exit" in server.log_tail()


def test_server_that_ignores_sigterm_is_killed_at_the_limit(plain: Server) -> None:
    """SIGKILL ends it."""
    plain.start()
    child = plain.pid
    plain.request_end = plain.pause  # type: ignore[method-assign]  # as a server that is stuck
    plain.terminate(timeout_s=0.1)
    assert not plain.alive
    assert not Path(f"/proc/{child}").exists()


def test_ending_twice_or_before_the_start_is_harmless(plain: Server) -> None:
    """A cleanup does not need to know what was started."""
    plain.terminate()
    plain.kill()
    plain.start()
    plain.kill()
    plain.kill()
    plain.terminate()
    plain.pause()
    assert not plain.alive


def test_running_server_is_not_started_twice(plain: Server) -> None:
    """Two servers would damage the data in one directory."""
    plain.start()
    with pytest.raises(NotYet, match="already running"):
        plain.start()


def test_server_that_wants_a_password_answers(program: Program, tmp_path: Path, addresses: tuple[Address, ...]) -> None:
    """NOAUTH is an answer. Other users cannot read the file with the password."""
    server = Server(program, tmp_path / "redis-app-0", addresses[0], config=("requirepass secret",))
    try:
        server.start()
        assert ask(server.address, "PING").startswith("-NOAUTH")
        assert (server.directory / "server.conf").stat().st_mode & 0o077 == 0
    finally:
        server.kill()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_server_with_tls_only_answers(default_program: Program, tmp_path: Path, addresses: tuple[Address, ...]) -> None:
    """Mutual TLS on the usual port, and no port without TLS."""
    linked = subprocess.run(["ldd", str(default_program.path)], capture_output=True, text=True, check=False)
    if "libssl" not in linked.stdout:
        pytest.skip("the server was built without TLS")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=test", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    server = Server(
        default_program,
        tmp_path / "redis-app-0",
        addresses[0],
        config=(
            "port 0",
            "tls-port 6379",
            "tls-cluster yes",
            f"tls-cert-file {certificate}",
            f"tls-key-file {key}",
            f"tls-ca-cert-file {certificate}",
        ),
    )
    try:
        server.start()
        assert server.answers()
        server.pause()
        assert not server.answers()
    finally:
        server.kill()


def test_directory_may_have_any_name(default_program: Program, tmp_path: Path, addresses: tuple[Address, ...]) -> None:
    """Blanks, quotes and backslashes are quoted for redis.conf."""
    server = Server(default_program, tmp_path / "a \"b\" 'c' \\n é" / "redis-app-0", addresses[0])
    try:
        server.start()
        eventually((server.directory / "nodes.conf").exists)
    finally:
        server.kill()


@pytest.mark.parametrize("offset", [0, BUS_OFFSET])
def test_taken_address_is_reported_from_the_servers_log(server: Server, offset: int) -> None:
    """Another program has the port or the bus port. The error comes before the deadline."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((server.address.host, server.address.port + offset))
        taken.listen()
        with pytest.raises(NotYet, match=r"redis-app-0 \(127\..*exited with status 1.*[Ii]n use"):
            server.start()


def test_bad_configuration_is_reported_from_the_servers_log(
    program: Program, tmp_path: Path, addresses: tuple[Address, ...]
) -> None:
    """The message holds the line that the server rejects."""
    server = Server(program, tmp_path / "redis-app-0", addresses[0], config=("appendonly perhaps",))
    with pytest.raises(NotYet, match="appendonly perhaps"):
        server.start()


def test_reported_error_is_from_the_last_start(plain: Server) -> None:
    """The log holds all starts, the message only the last one."""
    plain.config = ("first-mistake yes",)
    with pytest.raises(NotYet, match="first-mistake"):
        plain.start()
    plain.config = ("second-mistake yes",)
    with pytest.raises(NotYet) as caught:
        plain.start()
    assert "second-mistake" in str(caught.value)
    assert "first-mistake" not in str(caught.value)


def test_server_that_never_answers_is_named_at_the_deadline(tmp_path: Path, addresses: tuple[Address, ...]) -> None:
    """Its process runs and does not listen."""
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 1000\n")
    silent.chmod(0o755)
    server = Server(Program(path=silent, name="Redis", version="7"), tmp_path / "redis-app-0", addresses[0])
    try:
        with pytest.raises(NotYet, match=r"no answer within 0.2 s: redis-app-0 \(127"):
            server.start(timeout_s=0.2)
    finally:
        server.kill()


def test_many_servers_start_and_stop_together(default_program: Program, tmp_path: Path) -> None:
    """In parallel, not one after the other."""
    with reserve(24) as reservation:
        servers = [
            Server(default_program, tmp_path / f"redis-app-{ordinal}", address)
            for ordinal, address in enumerate(reservation.addresses)
        ]
        try:
            start_all(servers)
            assert all(server.answers() for server in servers)
            stop_all(servers)
            assert not any(server.alive for server in servers)
        finally:
            kill_all(servers)


def test_server_outlives_the_thread_that_started_it(plain: Server) -> None:
    """Its life is bound to the process: a thread pool that starts servers may end."""
    starter = threading.Thread(target=plain.start)
    starter.start()
    starter.join()
    assert plain.answers()


HOLDER = """
import sys
from pathlib import Path
from bootstrap.local.process_guard import own_process_guard
from bootstrap.local.programs import identify
from bootstrap.local.servers import Server
from bootstrap.model.node import Address
program, directory, *hosts = sys.argv[1:]
for host in hosts:
    server = Server(identify(Path(program)), Path(directory) / host, Address(host, 6379))
    server.start()
server.pause()
own_process_guard().remove_at_end(Path(directory) / hosts[0])
own_process_guard().remove_at_end(Path(directory) / hosts[1])
own_process_guard().keep_at_end(Path(directory) / hosts[1])
print(own_process_guard().group, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_servers_do_not_outlive_the_process_that_holds_them(
    default_program: Program, tmp_path: Path, addresses: tuple[Address, ...], end: signal.Signals | None
) -> None:
    """Killed, ended by a signal, or at its normal end. One server is paused, and one directory is removed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, default_program.path, tmp_path, *(each.host for each in addresses)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    group = int(holder.stdout.readline())
    assert len(processes_in(tmp_path)) == 3
    if end is None:
        holder.stdin.close()
    else:
        holder.send_signal(end)
    holder.wait(30)
    eventually(lambda: not processes_in(tmp_path))
    eventually(lambda: not (tmp_path / addresses[0].host).exists())
    assert (tmp_path / addresses[1].host).exists()
    eventually(lambda: not _is_alive(group))
    holder.stdout.close()
    holder.stdin.close()


def test_lost_guard_is_replaced_for_the_next_server(plain: Server) -> None:
    """No process can join the group of a guard that was killed: a new guard is started."""
    guard = ProcessGuard()
    assert guard.alive
    os.kill(guard.group, signal.SIGKILL)
    eventually(lambda: not guard.alive)
    guard.release()
    plain.start()
    assert plain.answers()


def test_released_guard_ends_the_processes_of_its_group() -> None:
    """All that are left in the group are killed."""
    guard = ProcessGuard()
    child = subprocess.Popen(["sleep", "1000"], process_group=guard.group)
    guard.release()
    assert child.wait(30) == -signal.SIGKILL
    assert not guard.alive


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
