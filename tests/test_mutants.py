"""The list of mutants that no test can notice is about the present code, and the score counts what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import mutants
from tests.mutants import Change, changes, equivalent

ROOT = Path(__file__).parent.parent
MUTATED = '''\
def x_half__mutmut_orig(count: int) -> int:
    """Half of it."""
    rest = count % 2
    return count // 2 + rest


def x_half__mutmut_1(count: int) -> int:
    """Half of it."""
    rest = None
    return count // 2 + rest


def x_half__mutmut_2(count: int) -> int:
    """Half of it."""
    rest = count % 2
    return count // 2 - rest
'''


@pytest.mark.parametrize("change", equivalent(), ids=str)
def test_an_argument_is_about_a_line_of_the_code(change: Change) -> None:
    """And has its reason."""
    module = change.function.split("._")[0] if "._" in change.function else change.function.rpartition(".")[0]
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    assert change.before in " ".join(line.strip() for line in source.splitlines())
    assert change.before != change.after
    assert equivalent()[change]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the mutants of one function, as mutmut leaves it."""
    folder = tmp_path / "bootstrap" / "plan"
    folder.mkdir(parents=True)
    (folder / "sums.py").write_text(MUTATED, encoding="utf-8")
    monkeypatch.setattr(mutants, "MUTANTS", tmp_path)
    monkeypatch.setattr(mutants, "equivalent", dict)
    return folder / "sums.py"


def write_codes(source: Path, *codes: int | None) -> None:
    names = (f"bootstrap.plan.sums.x_half__mutmut_{number}" for number in range(1, len(codes) + 1))
    text = json.dumps({"exit_code_by_key": dict(zip(names, codes, strict=True))})
    source.with_suffix(".py.meta").write_text(text, encoding="utf-8")


def test_a_mutant_is_named_by_its_function_and_the_line_that_it_changes(results: Path) -> None:
    found = dict(changes(results, {"bootstrap.plan.sums.x_half__mutmut_2": 0}))
    change = Change("bootstrap.plan.sums.half", "return count // 2 + rest", "return count // 2 - rest")
    assert found == {change: 0}


@pytest.mark.parametrize(
    ("codes", "score", "exit_code"),
    [
        ((1, 1), "2 of 2 mutants were noticed, 100.0 %", 0),
        ((1, -24), "2 of 2 mutants were noticed, 100.0 %", 0),
        ((1, 0), "1 of 2 mutants were noticed, 50.0 %", 1),
        ((1, 33), "1 of 2 mutants were noticed, 50.0 %", 1),
        ((1, 37), "1 of 1 mutants were noticed, 100.0 %", 0),
        ((1, None), "1 of 1 mutants were noticed, 100.0 %", 0),
        ((None, None), "0 of 0 mutants were noticed, 0.0 %", 1),
    ],
)
def test_the_score_is_that_of_the_mutants_which_were_run(
    results: Path, capsys: pytest.CaptureFixture[str], codes: tuple[int | None, ...], score: str, exit_code: int
) -> None:
    """Those that mypy refuses are left out; a timeout is noticed; a function that no test runs is not."""
    write_codes(results, *codes)
    assert mutants.main() == exit_code
    assert score in capsys.readouterr().out


def test_an_argued_mutant_is_left_out_and_any_other_survivor_is_shown(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a line that is not in the code any more."""
    gone = Change("bootstrap.plan.sums.third", "return 1", "return 2")
    argued = Change("bootstrap.plan.sums.half", "return count // 2 + rest", "return count // 2 - rest")
    monkeypatch.setattr(mutants, "equivalent", lambda: {argued: "why", gone: "why"})
    write_codes(results, 0, 0)
    assert mutants.main() == 1
    shown = capsys.readouterr().out
    assert "survived: bootstrap.plan.sums.half\n  - rest = count % 2\n  + rest = None" in shown
    assert "0 of 1 mutants were noticed" in shown
    assert "not in the code any more, remove it from equivalent_mutants.toml: bootstrap.plan.sums.third" in shown
