"""A directory belongs to one running cluster at a time, says what it holds, and is never confused with another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bootstrap.errors import Misconfigured, WrongUsage
from bootstrap.local.state_dir import (
    ClusterDirectory,
    Remembered,
    default_directory,
    is_up,
    read_remembered,
    read_up,
    started_at,
)
from bootstrap.model.node import Address

SHAPE = Remembered(shards=3, replicas=0, addresses=(Address("127.9.9.1", 6379),), temporary=False)


def test_claimed_directory_cannot_be_claimed_again(tmp_path: Path) -> None:
    """The message names the directory and the process that has it."""
    home = ClusterDirectory.claim(tmp_path / "data")
    try:
        assert is_up(tmp_path / "data")
        with pytest.raises(WrongUsage, match=rf"already up in {tmp_path}/data \(process {os.getpid()}\)"):
            ClusterDirectory.claim(tmp_path / "data")
    finally:
        home.leave(remove=False)
    assert not is_up(tmp_path / "data")
    ClusterDirectory.claim(tmp_path / "data").leave(remove=True)
    assert not (tmp_path / "data").exists()


def test_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    """What a killed run leaves behind does not look like a running cluster."""
    code = (
        "import os,sys; from pathlib import Path; from bootstrap.local.state_dir import ClusterDirectory; "
        "ClusterDirectory.claim(Path(sys.argv[1]))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", f"{code}; os.kill(os.getpid(), 9)", tmp_path / "data"],
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert killed.returncode == -9
    assert (tmp_path / "data" / "up.json").exists()
    assert not is_up(tmp_path / "data")
    assert read_up(tmp_path / "data") is None
    ClusterDirectory.claim(tmp_path / "data").leave(remove=False)


def test_directory_that_is_removed_and_claimed_over_and_over_has_one_owner_at_a_time(tmp_path: Path) -> None:
    """Claim and removal by many at once: each claim finds it free or taken, never half of each."""
    owners = 0
    most = 0
    counting = threading.Lock()

    def claim(_: int) -> None:
        nonlocal owners, most
        try:
            home = ClusterDirectory.claim(tmp_path / "data")
        except WrongUsage:
            return
        with counting:
            owners += 1
            most = max(most, owners)
        (home.path / "redis-app-0").mkdir()
        with counting:
            owners -= 1
        home.leave(remove=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(claim, range(100)))
    assert most == 1
    assert not (tmp_path / "data").exists()


def test_what_is_remembered_is_read_again(tmp_path: Path) -> None:
    """Shape and addresses, in their order."""
    home = ClusterDirectory.claim(tmp_path)
    home.remember(SHAPE)
    home.leave(remove=False)
    assert read_remembered(tmp_path) == SHAPE


def test_temporary_leftovers_are_removed_and_kept_data_is_not(tmp_path: Path) -> None:
    """Only what was promised to nobody is thrown away."""
    for temporary in (True, False):
        directory = tmp_path / str(temporary)
        home = ClusterDirectory.claim(directory)
        home.remember(Remembered(shards=3, replicas=0, addresses=(), temporary=temporary))
        (directory / "redis-app-0").mkdir()
        (directory / "redis-app-0" / "nodes.conf").write_text("a node")
        home.leave(remove=False)
        again = ClusterDirectory.claim(directory)
        assert (directory / "redis-app-0").exists() is not temporary
        assert (again.remembered() is None) is temporary
        again.leave(remove=False)


def test_directory_with_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A slip of the finger must not mix servers into someone's files."""
    (tmp_path / "letters").mkdir()
    with pytest.raises(Misconfigured, match="holds something else than a local cluster: letters"):
        ClusterDirectory.claim(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letters"]


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_path_that_is_no_directory_is_refused(tmp_path: Path, path: str) -> None:
    """A file, or something below one."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match=r"file.* cannot be used: "):
        ClusterDirectory.claim(tmp_path / path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"format": 1}', '{"format": 1, "shards": 3, "addresses": [{"host": "x"}]}', "\0"],
)
def test_damaged_memory_is_refused(tmp_path: Path, content: str) -> None:
    """Rather than starting another cluster over the data of the first; and the directory is free again."""
    (tmp_path / "cluster.json").write_text(content)
    with pytest.raises(Misconfigured, match=r"cluster.json is damaged"):
        ClusterDirectory.claim(tmp_path)
    assert not is_up(tmp_path)


def test_memory_of_another_release_is_refused(tmp_path: Path) -> None:
    """Its words may have another meaning."""
    (tmp_path / "cluster.json").write_text('{"format": 2}')
    with pytest.raises(Misconfigured, match="another release"):
        ClusterDirectory.claim(tmp_path)


def test_process_with_a_reused_id_is_not_taken_for_ours(tmp_path: Path) -> None:
    """Same id, another start time: it is somebody else, and will not be signalled."""
    home = ClusterDirectory.claim(tmp_path)
    up = read_up(tmp_path)
    assert up is not None
    assert (up.pid, up.started) == (os.getpid(), started_at(os.getpid()))
    for change in ({"started": "1"}, {"pid": 2**22 + 1}, {"started": ""}):
        (tmp_path / "up.json").write_text(
            json.dumps({"pid": up.pid, "started": up.started, "nameserver": "", **change})
        )
        assert read_up(tmp_path) is None
    home.leave(remove=False)


def test_start_time_tells_processes_apart() -> None:
    """This process has one and keeps it; a process that is not there has none."""
    assert started_at(os.getpid())
    assert started_at(os.getpid()) == started_at(os.getpid())
    assert started_at(os.getpid()) != started_at(1)
    assert started_at(2**22 + 1) is None


def test_default_directory_is_in_the_temporary_one_and_the_users_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where `down` and `status` look when no directory is told."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_directory() == tmp_path / f"redis-cluster-local-{os.getuid()}"
