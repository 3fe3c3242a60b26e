"""How far an import is: on a terminal and in the log."""

from __future__ import annotations

import io

from bootstrap.clock import SystemClock
from bootstrap.run.progress import Bar, CopyProgress


class Clock(SystemClock):
    """A clock that a test sets."""

    at = 100.0

    def now(self) -> float:
        return self.at


def test_rate_and_time_left_follow_from_what_is_done() -> None:
    """A quarter of the keys in ten seconds leaves thirty."""
    clock = Clock()
    progress = CopyProgress(keys_total=1000, began=clock.now())
    assert (progress.share, progress.left_s) == (0.0, None)
    clock.at += 10
    progress = progress.now(250, 10 << 20, clock)
    assert progress.as_fields() == {
        "keys": "250 of about 1000",
        "percent": 25,
        "data": "10 MiB",
        "rate": "25 keys/s, 1.0 MiB/s",
        "took_s": 10.0,
        "left_s": 30.0,
    }
    assert (
        progress.bar()
        == "[######..................]  25 %  250 of about 1000 keys, 10 MiB, 25 keys/s, 1.0 MiB/s, 30 s left"
    )


def test_a_source_that_changes_is_done_at_the_end_of_the_pass() -> None:
    """With more keys than it had, or fewer, or none."""
    clock = Clock()
    grown = CopyProgress(keys_total=10, began=clock.now()).now(25, 0, clock)
    assert (grown.share, grown.finished) == (1.0, False)
    empty = CopyProgress(keys_total=0, began=clock.now())
    assert (empty.share, empty.left_s) == (0.0, None)
    for each in (grown, empty):
        ended = each.now(3, 0, clock, ended=True)
        assert (ended.share, ended.finished, ended.as_fields()["percent"]) == (1.0, True, 100)


def test_a_bar_is_one_line_until_the_pass_has_ended() -> None:
    """It is drawn anew a few times a second, and a last time."""
    clock, out = Clock(), io.StringIO()
    bar = Bar(out, clock)
    progress = CopyProgress(keys_total=10, began=clock.now())
    for done in range(10):
        clock.at += 0.11
        bar(progress.now(done, 0, clock))
    bar(progress.now(10, 0, clock, ended=True))
    *drawn, rest = out.getvalue().split("\r")[1:]
    assert len(drawn) == 5
    assert not any("\n" in line for line in drawn)
    assert rest.endswith("\n")
    assert "100 %" in rest


def test_the_limit_names_the_setting() -> None:
    """And what was done."""
    reason = CopyProgress(keys_total=10, keys_done=4, began=0.0).too_late(60)
    assert (reason.code, "4 of about 10" in reason.message) == ("import-unfinished", True)
    assert "BOOTSTRAP_IMPORT_DEADLINE_S" in reason.remedy
