"""A node that leaves a cluster: which files the server rewrites, and when that counts as done."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bootstrap.nodes.commands import Command
from bootstrap.nodes.membership import leave


class Files:
    """A server that records its commands. A background write lasts for two questions and ends as the next of `ends`."""

    def __init__(self, *, append_only: bool, ends: Sequence[str] = (), busy: int = 0) -> None:
        self.received: list[str] = []
        self._name = "aof_last_bgrewrite_status" if append_only else "rdb_last_bgsave_status"
        self._append_only, self._busy = append_only, busy
        self._ends, self._status = list(ends), "ok"

    def ask(self, commands: Sequence[Command]) -> list[object]:
        return [self._answer(" ".join(map(str, words))) for words in commands]

    def _answer(self, words: str) -> object:
        if words == "INFO persistence":
            self._busy = max(0, self._busy - 1)
            lines = (
                f"aof_enabled:{self._append_only:d}",
                f"x_in_progress:{self._busy > 0:d}",
                f"{self._name}:{self._status}",
            )
            return "\r\n".join(lines)
        self.received.append(words)
        if words.startswith("BG"):
            if self._busy:
                return RuntimeError("already in progress")
            self._busy, self._status = 3, self._ends.pop(0) if self._ends else "ok"
        return "OK"


class StillClock:
    """Waits take no time."""

    def now(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        """Returns immediately."""

    def check(self) -> None:
        """Never interrupts."""


STILL = StillClock()


@pytest.mark.parametrize(("append_only", "written"), [(True, ["BGREWRITEAOF", "SAVE"]), (False, ["BGSAVE"])])
def test_the_files_are_written_right_after_the_reset(append_only: bool, written: list[str]) -> None:
    """The file that a restart reads, by a command in the packet of the reset."""
    server = Files(append_only=append_only)
    assert leave(server.ask, clock=STILL) is None
    assert server.received == ["CLUSTER RESET HARD", *written]


def test_the_reset_waits_while_the_server_writes_by_itself() -> None:
    """It would reject a second write, and the file that it is writing holds the old keys."""
    server = Files(append_only=False, busy=9)
    assert leave(server.ask, clock=STILL) is None
    assert server.received == ["CLUSTER RESET HARD", "BGSAVE"]


@pytest.mark.parametrize("append_only", [True, False])
def test_a_file_that_could_not_be_written_is_written_again(append_only: bool) -> None:
    """On a full disk, for example: the end of a write is not its success."""
    again = "BGREWRITEAOF" if append_only else "BGSAVE"
    server = Files(append_only=append_only, ends=["err", "ok"])
    assert leave(server.ask, clock=STILL) is None
    assert server.received.count(again) == 2
    never = Files(append_only=append_only, ends=["err"] * 100)
    assert isinstance(leave(never.ask, clock=STILL), TimeoutError)
