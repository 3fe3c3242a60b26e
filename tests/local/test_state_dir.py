"""A directory belongs to one running cluster at a time, records its shape, and is never confused with another."""

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
from bootstrap.local import state_dir
from bootstrap.local.state_dir import (
    ClusterDirectory,
    ClusterRecord,
    default_directory,
    is_running,
    read_record,
    read_running,
    started_at,
)
from bootstrap.model.node import Address

SHAPE = ClusterRecord(shards=3, replicas=0, addresses=(Address("127.9.9.1", 6379),), temporary=False)


def test_claimed_directory_cannot_be_claimed_again(tmp_path: Path) -> None:
    """The message names the directory, the process that runs the cluster, and the command that stops it."""
    directory = ClusterDirectory.claim(tmp_path / "data")
    try:
        assert is_running(tmp_path / "data")
        with pytest.raises(
            WrongUsage,
            match=rf"already running in {tmp_path}/data \(process {os.getpid()}\); .* --dir {tmp_path}/data$",
        ):
            ClusterDirectory.claim(tmp_path / "data")
    finally:
        directory.leave(remove=False)
    assert not is_running(tmp_path / "data")
    ClusterDirectory.claim(tmp_path / "data").leave(remove=True)
    assert not (tmp_path / "data").exists()


def test_lock_ends_with_its_process_even_after_sigkill(tmp_path: Path) -> None:
    """The files of a killed run do not look like a running cluster."""
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
    assert not is_running(tmp_path / "data")
    assert read_running(tmp_path / "data") is None
    ClusterDirectory.claim(tmp_path / "data").leave(remove=False)


def test_directory_that_is_removed_and_claimed_over_and_over_has_one_owner_at_a_time(tmp_path: Path) -> None:
    """Threads claim and remove it in parallel: each claim finds the directory free or taken, never half removed."""
    owners = 0
    most = 0
    counting = threading.Lock()

    def claim(_: int) -> None:
        nonlocal owners, most
        try:
            directory = ClusterDirectory.claim(tmp_path / "data")
        except WrongUsage:
            return
        with counting:
            owners += 1
            most = max(most, owners)
        (directory.path / "redis-app-0").mkdir()
        with counting:
            owners -= 1
        directory.leave(remove=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(claim, range(100)))
    assert most == 1
    assert not (tmp_path / "data").exists()


def test_directory_that_is_removed_many_times_in_a_row_can_be_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim waits for a removal to be over; it does not count how often one hits it."""
    removals = 40
    check = state_dir._check_content

    def remove_first(path: Path) -> None:
        nonlocal removals
        if removals:
            removals -= 1
            path.rmdir()
        check(path)

    monkeypatch.setattr(state_dir, "_check_content", remove_first)
    ClusterDirectory.claim(tmp_path / "data").leave(remove=True)
    assert removals == 0


def test_directory_that_is_removed_all_the_time_is_refused_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim does not wait without a limit."""
    monkeypatch.setattr(state_dir, "_REMOVED_TIMEOUT_S", 0.1)
    monkeypatch.setattr(state_dir, "_check_content", lambda path: (path.rmdir(), path.stat()))
    with pytest.raises(
        Misconfigured, match="data cannot be used as the directory of a cluster: No such file or directory"
    ):
        ClusterDirectory.claim(tmp_path / "data")


def test_saved_record_is_read_again(tmp_path: Path) -> None:
    """Shape and addresses, in their order."""
    directory = ClusterDirectory.claim(tmp_path)
    directory.save(SHAPE)
    directory.leave(remove=False)
    assert read_record(tmp_path) == SHAPE


def test_temporary_leftovers_are_removed_and_kept_data_is_not(tmp_path: Path) -> None:
    """A claim deletes the data of a temporary cluster whose run was killed, and no other data."""
    for temporary in (True, False):
        path = tmp_path / str(temporary)
        directory = ClusterDirectory.claim(path)
        directory.save(ClusterRecord(shards=3, replicas=0, addresses=(), temporary=temporary))
        (path / "redis-app-0").mkdir()
        (path / "redis-app-0" / "nodes.conf").write_text("a node")
        directory.leave(remove=False)
        again = ClusterDirectory.claim(path)
        assert (path / "redis-app-0").exists() is not temporary
        assert (again.record() is None) is temporary
        again.leave(remove=False)


def test_directory_of_an_earlier_version_can_be_claimed(tmp_path: Path) -> None:
    """It may hold the log file under its former name."""
    (tmp_path / "keeper.log").write_text("")
    ClusterDirectory.claim(tmp_path).leave(remove=False)


def test_directory_with_other_files_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    """A mistyped --dir must not put servers among a user's files."""
    (tmp_path / "letters").mkdir()
    with pytest.raises(Misconfigured, match="holds files that are not of a local cluster: letters"):
        ClusterDirectory.claim(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letters"]


@pytest.mark.parametrize("path", ["file", "file/below", "file-link"])
def test_path_that_is_not_a_directory_is_refused(tmp_path: Path, path: str) -> None:
    """A file, a path below a file, and a symbolic link to nothing."""
    (tmp_path / "file").write_text("")
    (tmp_path / "file-link").symlink_to("missing/directory")
    with pytest.raises(Misconfigured, match=r"file.* cannot be used as the directory of a cluster: "):
        ClusterDirectory.claim(tmp_path / path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"format": 1}', '{"format": 1, "shards": 3, "addresses": [{"host": "x"}]}', "\0"],
)
def test_damaged_record_is_refused(tmp_path: Path, content: str) -> None:
    """Otherwise another cluster would start over the data of the first. The directory is unlocked again."""
    (tmp_path / "cluster.json").write_text(content)
    with pytest.raises(Misconfigured, match=r"cluster.json is damaged"):
        ClusterDirectory.claim(tmp_path)
    assert not is_running(tmp_path)


def test_record_of_another_version_is_refused(tmp_path: Path) -> None:
    """Its fields may have another meaning."""
    (tmp_path / "cluster.json").write_text('{"format": 2}')
    with pytest.raises(Misconfigured, match="another version"):
        ClusterDirectory.claim(tmp_path)


def test_other_process_with_the_same_id_does_not_count_as_running(tmp_path: Path) -> None:
    """The start time differs: it is another process and gets no signal."""
    directory = ClusterDirectory.claim(tmp_path)
    running = read_running(tmp_path)
    assert running is not None
    assert (running.pid, running.started) == (os.getpid(), started_at(os.getpid()))
    for change in ({"started": "1"}, {"pid": 2**22 + 1}, {"started": ""}):
        (tmp_path / "up.json").write_text(
            json.dumps({"pid": running.pid, "started": running.started, "nameserver": "", **change})
        )
        assert read_running(tmp_path) is None
    directory.leave(remove=False)


def test_start_time_distinguishes_processes() -> None:
    """The start time of this process does not change; a process that does not exist has none."""
    assert started_at(os.getpid())
    assert started_at(os.getpid()) == started_at(os.getpid())
    assert started_at(os.getpid()) != started_at(1)
    assert started_at(2**22 + 1) is None


def test_default_directory_is_in_the_temporary_one_and_the_users_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`down` and `status` look there when --dir is not given."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_directory() == tmp_path / f"redis-cluster-local-{os.getuid()}"
