"""The command line as a person uses it: own processes, real servers, real signals, and nothing left at the end."""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import signal
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

import dns.resolver
import pytest

from bootstrap.config import Settings
from bootstrap.errors import NotYet, Refused, WrongUsage
from bootstrap.local import command
from bootstrap.local.programs import Program
from bootstrap.local.state_dir import is_up, read_remembered, read_up
from bootstrap.model.node import Address

from .conftest import Shell, ask, eventually, processes_in

REAL = ("-m", "bootstrap", "local")


def parsed(*arguments: str) -> argparse.Namespace:
    """What the parser makes of a command line."""
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
    assert f"6 servers answer, {program}" in out.getvalue()
    assert not processes_in(temporary)
    assert not any(temporary.iterdir())


def test_apply_is_told_everything_about_this_cluster(temporary: Path) -> None:
    """The settings are complete and valid: nothing that the environment says of another cluster shines through."""
    told: list[Mapping[str, str]] = []

    def apply(settings: Mapping[str, str]) -> int:
        told.append(settings)
        return 0

    assert command.run(parsed("--once", "--shards", "4", "--replicas", "0"), apply=apply, out=io.StringIO()) == 0
    foreign = {"BOOTSTRAP_SERVICE": "other", "BOOTSTRAP_USERNAME": "me", "BOOTSTRAP_TLS_CA_FILE": "/missing"}
    settings = Settings.from_env({**foreign, **told[0]})
    assert (settings.shards, settings.replicas_per_shard, settings.node_timeout_ms) == (4, 0, 5000)
    assert (settings.service, settings.kubernetes, settings.tls_ca_file) == ("redis-service", "off", None)
    assert settings.access_service == ""
    assert str(settings.nameserver) == told[0]["BOOTSTRAP_NAMESERVER"]


@pytest.mark.parametrize("mode", ["--once", "--detach"])
def test_failed_apply_gives_its_exit_code_and_leaves_nothing(shell: Shell, mode: str) -> None:
    """What apply could not do, no cluster stays up for."""
    code, out, _ = shell.run("--replicas", "0", mode, apply="3")
    assert code == 3
    assert "not formed (exit code 3)" in out
    assert shell.nothing_is_left()


def test_error_in_apply_leaves_nothing(temporary: Path) -> None:
    """Whatever apply raises passes through, after the cleaning up."""

    def apply(_: Mapping[str, str]) -> int:
        raise NotYet("no luck")

    with pytest.raises(NotYet, match="no luck"):
        command.run(parsed("--once", "--replicas", "0"), apply=apply, out=io.StringIO())
    assert not processes_in(temporary)
    assert not any(temporary.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_cluster_stays_up_until_a_signal_and_leaves_nothing(shell: Shell, number: signal.Signals) -> None:
    """It says how to connect and how to stop; being stopped is its good end."""
    process = shell.start("--replicas", "0")
    shown = shell.read_until(process, "stop  ")
    first = srv_of(shell.settings())[0]
    assert f"redis-cli -c -h {first.host} -p {first.port}" in shown
    assert f"nameserver  {shell.settings()['BOOTSTRAP_NAMESERVER']}" in shown
    assert "(removed at the end)" in shown
    for _ in range(5):
        process.send_signal(number)  # whoever is impatient does not break the cleaning up
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert shell.nothing_is_left()


def test_interrupted_start_leaves_nothing(shell: Shell) -> None:
    """Ctrl-C while a server has not yet answered."""
    silent = shell.temporary.parent / "silent"
    silent.write_text("#!/bin/sh\n[ $1 = --version ] && exec echo 'Redis server v=7.0.0'\nexec sleep 1000\n")
    silent.chmod(0o755)
    process = shell.start("--server", str(silent))
    eventually(lambda: len(processes_in(shell.temporary)) == 6)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")
    assert "Stopped before the cluster was formed" in out
    assert shell.nothing_is_left()


@pytest.mark.parametrize("mode", [(), ("--detach",)])
def test_interrupted_apply_leaves_nothing(shell: Shell, mode: tuple[str, ...]) -> None:
    """Ctrl-C reaches apply as KeyboardInterrupt, and the servers go with it."""
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
    """From before the first line of Python to after the forming, whichever moment it hits."""
    process = shell.start("--replicas", "0", *mode)
    threading.Event().wait(moment_ms / 1000)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    if process.returncode == 0 and mode == ("--detach",):
        shell.run("down")
    eventually(shell.nothing_is_left)


@pytest.mark.parametrize("mode", [(), ("--detach",)])
def test_killed_command_takes_its_servers_and_directory_along(shell: Shell, mode: tuple[str, ...]) -> None:
    """SIGKILL cannot be caught: others notice it. A detached cluster is only detached once it is formed."""
    process = shell.start("--replicas", "0", *mode, apply="wait")
    shell.read_until(process, "applying")
    assert len(processes_in(shell.temporary)) >= 3
    process.kill()
    process.wait(30)
    eventually(shell.nothing_is_left)


def test_kept_directory_starts_the_same_cluster_again(shell: Shell, tmp_path: Path) -> None:
    """The same nodes at the same addresses, in the shape of last time."""
    kept = tmp_path / "kept"
    code, out, _ = shell.run("--once", "--shards", "4", "--replicas", "0", "--dir", str(kept))
    assert code == 0
    assert f"The data stays in {kept}" in out
    assert not is_up(kept)
    first = (kept / "redis-app-3" / "nodes.conf").read_text().split()[0]
    before = read_remembered(kept)

    process = shell.start("--dir", str(kept))
    shell.read_until(process, "stop  ")
    assert read_remembered(kept) == before
    assert before is not None
    assert srv_of(shell.settings()) == sorted(before.addresses)
    assert ask(before.addresses[3], "CLUSTER MYID") == first
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not processes_in(kept)


def test_kept_cluster_moves_when_an_address_is_taken(shell: Shell, tmp_path: Path) -> None:
    """All of its nodes go elsewhere with their data, as pods do."""
    kept = tmp_path / "kept"
    shell.run("--once", "--replicas", "0", "--dir", str(kept))
    before = read_remembered(kept)
    assert before is not None
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((before.addresses[0].host, 6379))
        taken.listen()
        assert shell.run("--once", "--dir", str(kept))[0] == 0
    after = read_remembered(kept)
    assert after is not None
    assert not set(after.addresses) & set(before.addresses)


def test_kept_cluster_on_one_address_stays_on_it(shell: Shell, tmp_path: Path) -> None:
    """Without having to say so again."""
    kept = tmp_path / "kept"
    shell.run("--once", "--replicas", "0", "--dir", str(kept), "--one-address")
    before = read_remembered(kept)
    assert shell.run("--once", "--dir", str(kept))[0] == 0
    assert read_remembered(kept) == before


def test_smaller_shape_than_the_data_is_refused(temporary: Path) -> None:
    """Nodes would be left out together with their slots; the remembered shape stays."""
    kept = temporary / "kept"
    command.run(parsed("--once", "--replicas", "1", "--dir", str(kept)), apply=lambda _: 0, out=io.StringIO())
    with pytest.raises(Refused, match="holds 6 nodes"):
        command.run(parsed("--once", "--replicas", "0", "--dir", str(kept)), apply=lambda _: 0, out=io.StringIO())
    remembered = read_remembered(kept)
    assert remembered is not None
    assert (remembered.shards, remembered.replicas) == (3, 1)
    assert not is_up(kept)


def test_larger_shape_counts_once_it_is_formed(temporary: Path) -> None:
    """More servers join the old ones; when apply refuses, the next start is for the old shape again."""
    kept = temporary / "kept"

    def run(*arguments: str, code: int = 0) -> int:
        return command.run(parsed("--once", "--dir", str(kept), *arguments), apply=lambda _: code, out=io.StringIO())

    assert run("--replicas", "0") == 0
    small = read_remembered(kept)
    assert run("--replicas", "1", code=3) == 3
    refused = read_remembered(kept)
    assert small is not None
    assert refused is not None
    assert (refused.replicas, refused.addresses[:3]) == (0, small.addresses)
    assert run("--replicas", "1") == 0
    grown = read_remembered(kept)
    assert grown is not None
    assert (grown.replicas, grown.addresses[:3], len(grown.addresses)) == (1, small.addresses, 6)


def test_detached_cluster_runs_until_it_is_taken_down(shell: Shell) -> None:
    """Up, looked at, refused a second time, down, and down again."""
    code, out, err = shell.run("--replicas", "0", "--detach")
    assert (code, err) == (0, "")
    assert "python -m bootstrap local down" in out
    peers = srv_of(shell.settings())
    assert [ask(peer, "PING") for peer in peers] == ["+PONG"] * 3

    code, out, _ = shell.run("status")
    assert code == 0
    assert out.count(" answers") == 3

    for again in ("--detach", "--replicas=0"):
        code, _, err = shell.run(again)
        assert code == 2
        assert re.fullmatch(r"a local cluster is already up in \S+ \(process \d+\); `local down` stops it\n", err)

    code, out, _ = shell.run("down")
    assert code == 0
    assert "nothing is left" in out
    assert shell.nothing_is_left()
    assert shell.run("down")[:2] == (0, f"Nothing is up in {shell.temporary}/redis-cluster-local-{os.getuid()}.\n")
    assert shell.run("status")[0] == 1


def test_detached_cluster_with_kept_data_leaves_only_the_data(shell: Shell, tmp_path: Path) -> None:
    """`down` with the directory that was told; the data is for next time."""
    kept = tmp_path / "kept data"
    code, out, _ = shell.run("--replicas", "0", "--detach", "--dir", str(kept))
    assert code == 0
    assert f"local down --dir {shlex.quote(str(kept))}" in out
    assert shell.run("down")[0] == 0  # another directory: this one is not meant
    assert is_up(kept)
    code, out, _ = shell.run("down", "--dir", str(kept))
    assert (code, out) == (0, f"Stopped the cluster in {kept}, data kept.\n")
    assert not processes_in(kept)
    assert (kept / "redis-app-0" / "nodes.conf").exists()


def test_cluster_in_the_foreground_can_be_taken_down_from_elsewhere(shell: Shell) -> None:
    """`down` does not care who runs it."""
    process = shell.start("--replicas", "0")
    shell.read_until(process, "stop  ")
    assert shell.run("status")[0] == 0
    assert shell.run("down")[0] == 0
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert shell.nothing_is_left()


def test_status_names_the_server_that_does_not_answer(shell: Shell) -> None:
    """One killed server, and the exit code says that not all is well."""
    shell.run("--replicas", "0", "--detach")
    directory = next(shell.temporary.iterdir())
    (victim,) = processes_in(directory / "redis-app-1")
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: shell.run("status")[0] == 1)
    out = shell.run("status")[1]
    assert re.search(r"redis-app-1\s+127\.\S+\s+does not answer", out)
    assert out.count(" answers") == 2
    shell.run("down")


def test_lost_keeper_takes_its_servers_along_and_the_place_is_free(shell: Shell) -> None:
    """Whatever kills the background process: no server without a keeper, and the next start works."""
    shell.run("--replicas", "0", "--detach")
    directory = next(shell.temporary.iterdir())
    up = read_up(directory)
    assert up is not None
    os.kill(up.pid, signal.SIGKILL)
    eventually(shell.nothing_is_left)
    assert shell.run("status")[0] == 1
    assert shell.run("--replicas", "0", "--detach")[0] == 0
    assert shell.run("down")[0] == 0
    assert shell.nothing_is_left()


def test_other_processes_id_in_the_directory_is_never_signalled(shell: Shell, tmp_path: Path) -> None:
    """The directory says a process id that now belongs to somebody else: `down` finds nothing to stop."""
    kept = tmp_path / "kept"
    shell.run("--once", "--replicas", "0", "--dir", str(kept))
    (kept / "up.json").write_text(f'{{"pid": {os.getpid()}, "started": "1", "nameserver": "127.0.0.1:1"}}')
    assert shell.run("down", "--dir", str(kept))[:2] == (0, f"Nothing is up in {kept}.\n")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--shards", "2"), 2, "--shards 2: a Redis Cluster has 3 masters or more"),
        (("--replicas", "-1"), 2, "--replicas -1: must be 0 or more"),
        (("--shards", "200"), 2, "more than 250 servers"),
        (("--once", "--detach"), 2, "exclude each other"),
        (("--server", "/missing/server"), 4, "'/missing/server' is not there"),
        (("--server", "true"), 4, "no Redis or Valkey server"),
        (("--dir", "/proc/nowhere"), 4, "/proc/nowhere cannot be used"),
        (("--dir", "/dev/null"), 4, "/dev/null cannot be used"),
        (("--dir", "/usr"), 4, "holds something else"),
        (("--dir", "/usr", "--detach"), 4, "holds something else"),
        (("--server", "true", "--detach"), 4, "no Redis or Valkey server"),
    ],
)
def test_wrong_input_is_one_clear_line(shell: Shell, arguments: tuple[str, ...], code: int, says: str) -> None:
    """No traceback, the right exit code, and nothing was started; also when the background process meets it."""
    got, out, err = shell.run(*arguments)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert says in err
    assert shell.nothing_is_left()


@pytest.mark.parametrize("arguments", [("sideways",), ("--shards", "many"), ("--unknown",)])
def test_unknown_words_are_wrong_usage(shell: Shell, arguments: tuple[str, ...]) -> None:
    """argparse says which."""
    code, out, err = shell.run(*arguments)
    assert (code, out) == (2, "")
    assert arguments[-1] in err


def test_wrong_usage_is_raised_before_anything_is_made(temporary: Path) -> None:
    """The caller prints it; no directory was touched."""
    with pytest.raises(WrongUsage):
        command.run(parsed("--shards", "1"), apply=lambda _: 0, out=io.StringIO())
    assert not any(temporary.iterdir())


def test_default_place_in_other_hands_is_refused(shell: Shell) -> None:
    """Its name can be guessed: what somebody else put there is neither used nor removed."""
    place = shell.temporary / f"redis-cluster-local-{os.getuid()}"
    place.mkdir()
    (place / "trap").write_text("")
    code, _, err = shell.run("--replicas", "0")
    assert code == 4
    assert "holds something else" in err
    assert (place / "trap").exists()


def test_real_apply_forms_a_cluster_once_and_ends(shell: Shell, program: Program) -> None:
    """The whole path, as `make demo` takes it."""
    code, out, err = shell.run("--once", "--server", str(program.path), program=REAL)
    assert (code, err) == (0, "")
    assert '"outcome": "formed"' in out
    assert shell.nothing_is_left()


def test_real_cluster_keeps_its_data_and_can_be_verified_by_hand(shell: Shell, tmp_path: Path) -> None:
    """The printed check works as it stands; after a restart elsewhere, apply heals and the key is still there."""
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
    remembered = read_remembered(kept)
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
    moved = read_remembered(kept)
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
