"""One command: what it loads, and that every error becomes exactly one outcome."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bootstrap.clock import Deadline, SystemClock
from bootstrap.config import Settings
from bootstrap.errors import NotYet, Refused
from bootstrap.kube.integration import Integration
from bootstrap.model.outcome import Outcome
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.discover import Resolver
from bootstrap.run import command
from bootstrap.run.access import Access
from bootstrap.run.reconcile import Reconciler
from bootstrap.run.verbs import Verbs
from tests.fake_cluster import FakeCluster
from tests.run.runs import Notes

LOADED = """
import sys
from bootstrap.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit:
    print(*sorted(name for name in sys.modules if "." not in name or name.startswith("bootstrap.")), file=sys.stderr)
"""


@pytest.mark.parametrize("words", [("--help",), ("apply", "--help"), ("aply",)])
def test_help_and_wrong_usage_load_nothing_of_a_run(words: tuple[str, ...]) -> None:
    """Neither the libraries nor the rooms that only a run needs."""
    ended = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=True)
    loaded = set(ended.stderr.splitlines()[-1].split())
    assert "bootstrap.config" in loaded
    assert not loaded & {
        "redis",
        "dns",
        "structlog",
        "kubernetes",
        "bootstrap.run",
        "bootstrap.plan",
        "bootstrap.local",
    }


class Faulty(Verbs):
    """Verbs whose every part raises the given errors, in turn."""

    error: Exception = NotYet("not reached")
    outcome_error: Exception | None = None
    show_error: Exception | None = None

    def apply(self) -> Outcome:
        self.reconciler.steps_done = 7
        raise self.error

    def outcome(self, *words: Any, **more: Any) -> Outcome:
        if self.outcome_error is not None:
            raise self.outcome_error
        return Verbs.outcome(self, *words, **more)

    def show(self, outcome: Outcome) -> Outcome:
        if self.show_error is not None:
            raise self.show_error
        return outcome


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[Faulty]:
    """The class of verbs that the command gets; a test sets its errors."""

    class Mine(Faulty):
        pass

    @contextmanager
    def session(settings: Settings, **more: Any) -> Iterator[Verbs]:
        cluster, log = FakeCluster(6), Notes()
        yield Mine(
            settings=settings,
            clock=cluster,
            log=log,
            pods_alone=cluster,
            out=more["out"],
            console=False,
            reconciler=Reconciler(
                world=cluster,
                desired=settings.desired,
                deadline=Deadline.after(1.0, cluster),
                clock=cluster,
                log=log,
            ),
            access=Access(settings=settings, resolver=Resolver(()), credentials=Credentials(), clock=cluster, log=log),
            integration=Integration(),
            started_at=cluster.now(),
        )

    monkeypatch.setattr(command, "session", session)
    return Mine


def apply(tmp_path: Path, **variables: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the outcomes of a run; the termination message is the last of them."""
    file = tmp_path / "termination-log"
    file.touch()
    environ = {"BOOTSTRAP_TERMINATION_MESSAGE_FILE": str(file), "BOOTSTRAP_LOG": "json", **variables}
    out = io.StringIO()
    exit_code = command.run("apply", environ, {}, out=out, clock=SystemClock())
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert json.loads(file.read_text())["reasons"] == lines[-1]["reasons"]
    return exit_code, [line for line in lines if line["event"] == "outcome"]


def printed(tmp_path: Path, **variables: str) -> list[dict[str, Any]]:
    """Every line that a run prints."""
    out = io.StringIO()
    environ = {"BOOTSTRAP_TERMINATION_MESSAGE_FILE": str(tmp_path / "none"), "BOOTSTRAP_LOG": "json", **variables}
    command.run("apply", environ, {}, out=out, clock=SystemClock())
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_wrong_setting_has_one_outcome(tmp_path: Path) -> None:
    """Before there is a session: exit code 4, no step."""
    exit_code, (outcome,) = apply(tmp_path, BOOTSTRAP_SHARDS="2")
    assert (exit_code, outcome["outcome"], outcome["exit_code"], outcome["steps"]) == (4, "failed", 4, 0)
    assert [reason["code"] for reason in outcome["reasons"]] == ["setting"]


def test_a_misspelt_variable_is_named_although_another_is_wrong(tmp_path: Path) -> None:
    """It may be the cause."""
    lines = printed(tmp_path, BOOTSTRAP_SHARD="5", BOOTSTRAP_SHARDS="2")
    assert [(line["event"], line.get("name")) for line in lines] == [
        ("unknown_setting", "BOOTSTRAP_SHARD"),
        ("outcome", None),
    ]


@pytest.mark.parametrize(
    ("error", "exit_code", "word", "code"),
    [
        (NotYet("too slow"), 1, "failed", "failed"),
        (Refused("no"), 3, "refused", "failed"),
        (ZeroDivisionError(), 1, "failed", "internal"),
    ],
    ids=["an expected error", "a refusal", "a fault of this program"],
)
def test_an_error_of_a_verb_has_one_outcome_with_its_steps(
    tmp_path: Path, faulty: type[Faulty], error: Exception, exit_code: int, word: str, code: str
) -> None:
    """The outcome counts the writes that were done before the error."""
    faulty.error = error
    found, (outcome,) = apply(tmp_path)
    assert (found, outcome["outcome"], outcome["steps"]) == (exit_code, word, 7)
    assert [reason["code"] for reason in outcome["reasons"]] == [code]


def test_a_fault_in_the_outcome_itself_still_has_an_outcome(tmp_path: Path, faulty: type[Faulty]) -> None:
    """The Job always gets one."""
    faulty.outcome_error = ZeroDivisionError()
    exit_code, (outcome,) = apply(tmp_path)
    assert (exit_code, [reason["code"] for reason in outcome["reasons"]]) == (1, ["internal"])


def test_a_fault_after_the_run_has_one_outcome(tmp_path: Path, faulty: type[Faulty]) -> None:
    """The exit code and the last line agree."""
    faulty.show_error = ZeroDivisionError()
    exit_code, (outcome,) = apply(tmp_path)
    assert (exit_code, outcome["exit_code"]) == (1, 1)
    assert [reason["code"] for reason in outcome["reasons"]] == ["internal"]


def test_a_reader_that_has_gone_gets_no_outcome(tmp_path: Path, faulty: type[Faulty]) -> None:
    """With `| head`, printing more would fail again."""
    faulty.error = BrokenPipeError()
    with pytest.raises(BrokenPipeError):
        apply(tmp_path)
