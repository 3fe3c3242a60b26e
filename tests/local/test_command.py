"""The command line in processes of its own, with real servers and real signals, and with nothing left at the end."""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import dns.resolver
import pytest

from bootstrap.config import Settings
from bootstrap.errors import NotYet, Refused, WrongUsage
from bootstrap.local import command
from bootstrap.local.programs import Program
from bootstrap.local.state_dir import is_running, read_record, read_running
from bootstrap.model.node import Address
from tests.waiting import wait_until

from .conftest import Shell, ask, processes_in

REAL = ("-m", "bootstrap", "local")


def parsed(*arguments: str) -> argparse.Namespace:
    """The arguments of a command line."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(arguments)


def srv_of(settings: Mapping[str, str]) -> list[Address]:
    """The peers that the local DNS lists: each SRV record's port, at its target's address."""
    resolver = dns.resolver.Resolver(configure=False)
    host, _, port = settings["BOOTSTRAP_NAMESERVER"].rpartition(":")
    resolver.nameservers, resolver.port, resolver.lifetime = [host], int(port), 10
    service = (
        f"{settings['BOOTSTRAP_SERVICE']}.{settings['BOOTSTRAP_NAMESPACE']}.svc.{settings['BOOTSTRAP_CLUSTER_DOMAIN']}."
    )
    found = resolver.resolve(f"_{settings['BOOTSTRAP_PORT_NAME']}._tcp.{service}", "SRV")
    return sorted(Address(resolver.resolve(each.target, "A")[0].to_text(), each.port) for each in found)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory of runs inside this process."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("mode", [(), ("--one-address",)])
def test_once_gives_apply_real_peers_and_leaves_nothing(
    temporary: Path, program: Program, mode: tuple[str, ...]
) -> None:
    """While apply runs, DNS lists every server and every server answers; afterwards there is no process and no file."""
    seen: list[Address] = []

    def apply(settings: Mapping[str, str]) -> int:
        seen.extend(srv_of(settings))
        assert all(ask(address, "PING") == "+PONG" for address in seen)
        assert len(processes_in(temporary)) == 6
        return 0

    out = io.StringIO()
    assert command.run(parsed("--once", "--server", str(program.path), *mode), apply=apply, out=out) == 0
    assert len(seen) == 6
    assert len({address.host for address in seen}) == (1 if mode else 6)
    assert len({address.port for address in seen}) == (6 if mode else 1)
    assert f"6 servers answer: {program}." in out.getvalue()
    assert not processes_in(temporary)
    assert not any(temporary.iterdir())


def test_apply_gets_complete_settings(temporary: Path) -> None:
    """They are valid, and they override variables of the environment that are for another cluster."""
    received: list[Mapping[str, str]] = []

    def apply(settings: Mapping[str, str]) -> int:
        received.append(settings)
        return 0

    assert command.run(parsed("--once", "--shards", "4", "--replicas", "0"), apply=apply, out=io.StringIO()) == 0
    foreign = {"BOOTSTRAP_SERVICE": "other", "BOOTSTRAP_USERNAME": "me", "BOOTSTRAP_TLS_CA_FILE": "/missing"}
    settings = Settings.from_env({**foreign, **received[0]})
    assert (settings.shards, settings.replicas_per_shard, settings.node_timeout_ms) == (4, 0, 5000)
    assert (settings.service, settings.kubernetes, settings.tls_ca_file) == ("redis-service", "off", None)
    assert settings.access_service == ""
    assert str(settings.nameserver) == received[0]["BOOTSTRAP_NAMESERVER"]


@pytest.mark.parametrize("mode", ["--once", "--detach"])
def test_failed_apply_gives_its_exit_code_and_leaves_nothing(shell: Shell, mode: str) -> None:
    """No cluster stays running that apply did not form."""
    code, out, _ = shell.run("--replicas", "0", mode, apply="3")
    assert code == 3
    assert "not formed: apply ended with exit code 3." in out
    assert shell.nothing_is_left()


def test_error_in_apply_leaves_nothing(temporary: Path) -> None:
    """An error of apply passes through after the cleanup."""

    def apply(_: Mapping[str, str]) -> int:
        raise NotYet("no luck")

    with pytest.raises(NotYet, match="no luck"):
        command.run(parsed("--once", "--replicas", "0"), apply=apply, out=io.StringIO())
    assert not processes_in(temporary)
    assert not any(temporary.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_cluster_stays_up_until_a_signal_and_leaves_nothing(shell: Shell, number: signal.Signals) -> None:
    """The output names how to connect and how to stop. A stop by a signal exits with 0."""
    process = shell.start("--replicas", "0")
    shown = shell.read_until(process, "stop  ")
    first = srv_of(shell.settings())[0]
    assert f"redis-cli -c -h {first.host} -p {first.port}" in shown
    assert f"DNS server  {shell.settings()['BOOTSTRAP_NAMESERVER']}" in shown
    assert "(removed when the cluster stops)" in shown
    for _ in range(5):
        process.send_signal(number)  # repeated signals do not interrupt the cleanup
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert shell.nothing_is_left()


def test_interrupted_start_leaves_nothing(shell: Shell) -> None:
    """Ctrl-C while no server answers yet."""
    silent = shell.temporary.parent / "silent"
    silent.write_text("#!/bin/sh\n[ $1 = --version ] && exec echo 'Redis server v=7.0.0'\nexec sleep 1000\n")
    silent.chmod(0o755)
    process = shell.start("--server", str(silent))
    wait_until(lambda: len(processes_in(shell.temporary)) == 6)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")
    assert "Stopped before the cluster was formed" in out
    assert shell.nothing_is_left()


@pytest.mark.parametrize("mode", [(), ("--detach",)])
def test_interrupted_apply_leaves_nothing(shell: Shell, mode: tuple[str, ...]) -> None:
    """Ctrl-C reaches apply as KeyboardInterrupt, and the servers are stopped."""
    process = shell.start("--replicas", "0", *mode, apply="wait")
    shell.read_until(process, "applying")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")
    assert "Stopped before the cluster was formed" in out
    assert shell.nothing_is_left()


@pytest.mark.parametrize("moment_ms", [0, 60, 120, 180, 260])
@pytest.mark.parametrize("mode", [("--once",), ("--detach",)])
def test_signal_at_any_moment_leaves_nothing(shell: Shell, moment_ms: int, mode: tuple[str, ...]) -> None:
    """From before the first line of Python to after the forming."""
    process = shell.start("--replicas", "0", *mode)
    threading.Event().wait(moment_ms / 1000)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    if process.returncode == 0 and mode == ("--detach",):
        shell.run("down")
    wait_until(shell.nothing_is_left)


@pytest.mark.parametrize("mode", [(), ("--detach",)])
def test_killed_command_takes_its_servers_and_directory_along(shell: Shell, mode: tuple[str, ...]) -> None:
    """SIGKILL cannot be caught: other processes notice it. Before it is formed, a detached cluster ends, too."""
    process = shell.start("--replicas", "0", *mode, apply="wait")
    shell.read_until(process, "applying")
    assert len(processes_in(shell.temporary)) >= 3
    process.kill()
    process.wait(30)
    wait_until(shell.nothing_is_left)


def test_kept_directory_starts_the_same_cluster_again(shell: Shell, tmp_path: Path) -> None:
    """The same nodes at the same addresses, in the recorded shape."""
    kept = tmp_path / "kept"
    code, out, _ = shell.run("--once", "--shards", "4", "--replicas", "0", "--dir", str(kept))
    assert code == 0
    assert f"The data is kept in {kept}" in out
    assert not is_running(kept)
    first = (kept / "redis-app-3" / "nodes.conf").read_text().split()[0]
    before = read_record(kept)

    process = shell.start("--dir", str(kept))
    shell.read_until(process, "stop  ")
    assert read_record(kept) == before
    assert before is not None
    assert srv_of(shell.settings()) == sorted(before.addresses)
    assert ask(before.addresses[3], "CLUSTER MYID") == first
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not processes_in(kept)


def test_kept_cluster_moves_when_an_address_is_taken(shell: Shell, tmp_path: Path) -> None:
    """All of its nodes get new addresses and keep their data, like pods."""
    kept = tmp_path / "kept"
    shell.run("--once", "--replicas", "0", "--dir", str(kept))
    before = read_record(kept)
    assert before is not None
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((before.addresses[0].host, 6379))
        taken.listen()
        assert shell.run("--once", "--dir", str(kept))[0] == 0
    after = read_record(kept)
    assert after is not None
    assert not set(after.addresses) & set(before.addresses)


def test_kept_cluster_on_one_address_stays_on_it(shell: Shell, tmp_path: Path) -> None:
    """The next start does not need the option again."""
    kept = tmp_path / "kept"
    shell.run("--once", "--replicas", "0", "--dir", str(kept), "--one-address")
    before = read_record(kept)
    assert shell.run("--once", "--dir", str(kept))[0] == 0
    assert read_record(kept) == before


def test_smaller_shape_than_the_data_is_refused(temporary: Path) -> None:
    """Nodes and their slots would be missing. The recorded shape does not change."""
    kept = temporary / "kept"
    command.run(parsed("--once", "--replicas", "1", "--dir", str(kept)), apply=lambda _: 0, out=io.StringIO())
    with pytest.raises(Refused, match="holds 6 nodes"):
        command.run(parsed("--once", "--replicas", "0", "--dir", str(kept)), apply=lambda _: 0, out=io.StringIO())
    remembered = read_record(kept)
    assert remembered is not None
    assert (remembered.shards, remembered.replicas) == (3, 1)
    assert not is_running(kept)


def test_larger_shape_is_recorded_once_it_is_formed(temporary: Path) -> None:
    """More servers join the old ones. When apply refuses, the next start uses the old shape."""
    kept = temporary / "kept"

    def run(*arguments: str, code: int = 0) -> int:
        return command.run(parsed("--once", "--dir", str(kept), *arguments), apply=lambda _: code, out=io.StringIO())

    assert run("--replicas", "0") == 0
    small = read_record(kept)
    assert run("--replicas", "1", code=3) == 3
    refused = read_record(kept)
    assert small is not None
    assert refused is not None
    assert (refused.replicas, refused.addresses[:3]) == (0, small.addresses)
    assert run("--replicas", "1") == 0
    grown = read_record(kept)
    assert grown is not None
    assert (grown.replicas, grown.addresses[:3], len(grown.addresses)) == (1, small.addresses, 6)


def test_detached_cluster_runs_until_down(shell: Shell) -> None:
    """Started, shown, refused a second time, stopped, and stopped again."""
    code, out, err = shell.run("--replicas", "0", "--detach")
    assert (code, err) == (0, "")
    assert f"{shlex.quote(sys.executable)} -m bootstrap local down" in out
    assert f"{shlex.quote(sys.executable)} -m bootstrap verify" in out
    peers = srv_of(shell.settings())
    assert [ask(peer, "PING") for peer in peers] == ["+PONG"] * 3

    code, out, _ = shell.run("status")
    assert code == 0
    assert out.count(" answers") == 3

    for again in ("--detach", "--replicas=0"):
        code, _, err = shell.run(again)
        assert code == 2
        assert re.fullmatch(
            r"a local cluster is already running in (\S+) \(process \d+\);"
            rf" stop it with: {re.escape(sys.executable)} -m bootstrap local down --dir \1\n",
            err,
        )

    code, out, _ = shell.run("down")
    assert code == 0
    assert out.endswith("Its temporary data is removed.\n")
    assert shell.nothing_is_left()
    code, out, _ = shell.run("down")
    hint = "For a cluster that was started with --dir, give the same --dir."
    default = shell.temporary / f"redis-cluster-local-{os.getuid()}"
    assert (code, out) == (0, f"No cluster is running in {default}. {hint}\n")
    assert shell.run("status")[0] == 1


def test_detached_cluster_with_kept_data_leaves_only_the_data(shell: Shell, tmp_path: Path) -> None:
    """`down` with the same --dir stops it; the data is kept for the next start."""
    kept = tmp_path / "kept data"
    code, out, _ = shell.run("--replicas", "0", "--detach", "--dir", str(kept))
    assert code == 0
    assert f"local down --dir {shlex.quote(str(kept))}" in out
    assert shell.run("down")[0] == 0  # the default directory, not this one
    assert is_running(kept)
    code, out, _ = shell.run("down", "--dir", str(kept))
    assert (code, out) == (0, f"Stopped the cluster in {kept}. The data is kept.\n")
    assert not processes_in(kept)
    assert (kept / "redis-app-0" / "nodes.conf").exists()


def test_cluster_in_the_foreground_can_be_stopped_by_down(shell: Shell) -> None:
    """`down` stops a cluster whichever process runs it."""
    process = shell.start("--replicas", "0")
    shell.read_until(process, "stop  ")
    assert shell.run("status")[0] == 0
    assert shell.run("down")[0] == 0
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert shell.nothing_is_left()


def test_status_names_the_server_that_does_not_answer(shell: Shell) -> None:
    """One server is killed, and the exit code is 1."""
    shell.run("--replicas", "0", "--detach")
    directory = next(shell.temporary.iterdir())
    (victim,) = processes_in(directory / "redis-app-1")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: shell.run("status")[0] == 1)
    out = shell.run("status")[1]
    assert re.search(r"redis-app-1\s+127\.\S+\s+does not answer", out)
    assert out.count(" answers") == 2
    shell.run("down")


def test_killed_daemon_ends_its_servers_and_frees_the_directory(shell: Shell) -> None:
    """No server outlives the background process, and the next start works."""
    shell.run("--replicas", "0", "--detach")
    directory = next(shell.temporary.iterdir())
    running = read_running(directory)
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    wait_until(shell.nothing_is_left)
    assert shell.run("status")[0] == 1
    assert shell.run("--replicas", "0", "--detach")[0] == 0
    assert shell.run("down")[0] == 0
    assert shell.nothing_is_left()


def test_process_with_a_reused_id_is_not_signalled(shell: Shell, tmp_path: Path) -> None:
    """The recorded process id belongs to another process now: `down` finds nothing to stop."""
    kept = tmp_path / "kept"
    shell.run("--once", "--replicas", "0", "--dir", str(kept))
    (kept / "up.json").write_text(f'{{"pid": {os.getpid()}, "started": "1", "nameserver": "127.0.0.1:1"}}')
    assert shell.run("down", "--dir", str(kept))[:2] == (0, f"No cluster is running in {kept}.\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--shards", "2"), 2, "--shards 2: must be 3 or more, the fewest masters of a Redis Cluster"),
        (("--replicas", "-1"), 2, "--replicas -1: must be 0 or more"),
        (("--shards", "200"), 2, "more than 250 servers"),
        (("--once", "--detach"), 2, "exclude each other"),
        (("--server", "/missing/server"), 4, "'/missing/server' does not exist"),
        (("--server", "true"), 4, "not a Redis or Valkey server"),
        (("--dir", "/proc/nowhere"), 4, "/proc/nowhere cannot be used"),
        (("--dir", "/dev/null"), 4, "/dev/null cannot be used"),
        (("--dir", "/usr"), 4, "holds files that are not of a local cluster"),
        (("--dir", "/usr", "--detach"), 4, "holds files that are not of a local cluster"),
        (("--server", "true", "--detach"), 4, "not a Redis or Valkey server"),
    ],
)
def test_wrong_input_is_one_clear_line(shell: Shell, arguments: tuple[str, ...], code: int, message: str) -> None:
    """No traceback, the right exit code and nothing started, also when the background process finds the error."""
    got, out, err = shell.run(*arguments)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert message in err
    assert shell.nothing_is_left()


@pytest.mark.parametrize("arguments", [("sideways",), ("--shards", "many"), ("--unknown",)])
def test_unknown_words_are_wrong_usage(shell: Shell, arguments: tuple[str, ...]) -> None:
    """The message of argparse names them."""
    code, out, err = shell.run(*arguments)
    assert (code, out) == (2, "")
    assert arguments[-1] in err


def test_wrong_usage_is_raised_before_anything_is_created(temporary: Path) -> None:
    """The caller prints the message; no directory was created."""
    with pytest.raises(WrongUsage):
        command.run(parsed("--shards", "1"), apply=lambda _: 0, out=io.StringIO())
    assert not any(temporary.iterdir())


def test_default_directory_with_other_files_is_refused(shell: Shell) -> None:
    """Its name can be guessed: files of other users in it are neither used nor removed."""
    directory = shell.temporary / f"redis-cluster-local-{os.getuid()}"
    directory.mkdir()
    (directory / "trap").write_text("")
    code, _, err = shell.run("--replicas", "0")
    assert code == 4
    assert "holds files that are not of a local cluster" in err
    assert (directory / "trap").exists()


def test_real_apply_forms_a_cluster_once_and_ends(shell: Shell, program: Program) -> None:
    """The whole command, as `make demo` runs it."""
    code, out, err = shell.run("--once", "--server", str(program.path), program=REAL)
    assert (code, err) == (0, "")
    assert '"outcome": "formed"' in out
    assert shell.nothing_is_left()


def test_real_cluster_keeps_its_data_and_can_be_verified_by_hand(shell: Shell, tmp_path: Path) -> None:
    """The printed check works unchanged. After a restart on other addresses, apply repairs it and the key exists."""
    kept = tmp_path / "kept"
    code, out, _ = shell.run("--detach", "--dir", str(kept), program=REAL)
    assert code == 0
    check = re.search(r"check +(.*)", out)
    assert check is not None
    *assignments, _, _, _, verb = shlex.split(check[1])
    assert verb == "verify"
    shell_verify = Shell(shell.temporary)
    verified = shell_verify.run(program=("-c", _VERIFY, *assignments))
    assert verified[0] == 0, verified
    remembered = read_record(kept)
    assert remembered is not None
    answers = {ask(address, "SET key value") for address in remembered.addresses}
    assert "+OK" in answers
    assert shell.run("down", "--dir", str(kept))[0] == 0

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((remembered.addresses[0].host, 6379))
        taken.listen()
        code, out, _ = shell.run("--detach", "--dir", str(kept), program=REAL)
    assert code == 0
    assert '"outcome": "repaired"' in out
    moved = read_record(kept)
    assert moved is not None
    assert "value" in {ask(address, "GET key") for address in moved.addresses}
    assert shell.run("down", "--dir", str(kept))[0] == 0

    code, out, _ = shell.run("--once", "--dir", str(kept), program=REAL)
    assert code == 0
    assert '"outcome": "unchanged"' in out
    assert not processes_in(kept)


_VERIFY = """
import os, runpy, sys
os.environ.update(argument.split("=", 1) for argument in sys.argv[1:])
sys.argv[1:] = ["verify"]
runpy.run_module("bootstrap", run_name="__main__")
"""
