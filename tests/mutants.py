"""The score of `make mutants`: how many of the changes that mutmut made to the code some test noticed.

A mutant that no test can notice is argued as equivalent in `tests/equivalent_mutants.toml`, by the line that it
changes. Those are left out of the score, as are mutants that mypy refuses. All other survivors are printed.
"""

from __future__ import annotations

import ast
import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import ndiff
from pathlib import Path

MUTANTS = Path("mutants")
EQUIVALENT = Path(__file__).parent / "equivalent_mutants.toml"
WANTED_PERCENT = 90.0
KILLED, NOT_RUN, REFUSED_BY_MYPY = frozenset({1, 3}), None, 37
SURVIVED = frozenset({0, 5, 33})
"""Exit codes of mutmut: no test failed, or no test runs the function. Any other code is a timeout: noticed, too."""


@dataclass(frozen=True)
class Change:
    """What a mutant changes: the function, and its lines before and after, without indentation."""

    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.function}\n  - {self.before}\n  + {self.after}"


def changes(source: Path, names: dict[str, int | None]) -> Iterator[tuple[Change, int | None]]:
    """Each mutant of a file with its exit code. mutmut keeps all of them as functions of one module."""
    text = source.read_text(encoding="utf-8")
    lines = text.splitlines()
    functions = {
        node.name: lines[node.lineno : node.end_lineno]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    }
    for name, code in names.items():
        module, _, mutant = name.rpartition(".")
        original, _, _ = mutant.partition("__mutmut_")
        diff = list(ndiff(functions[f"{original}__mutmut_orig"], functions[mutant]))
        before, after = (" ".join(line[2:].strip() for line in diff if line.startswith(sign)) for sign in "-+")
        function = original.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
        yield Change(f"{module}.{function}", before, after), code


def equivalent() -> dict[Change, str]:
    """The changes that nobody can notice, with the reason."""
    entries = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["mutant"]
    return {Change(entry["function"], entry["before"], entry["after"]): entry["why"] for entry in entries}


def main() -> int:
    """Prints the survivors that nobody has argued about, and the score. Fails below 90 percent."""
    argued = equivalent()
    counted: Counter[str] = Counter()
    seen: set[Change] = set()
    for meta in sorted(MUTANTS.glob("bootstrap/**/*.meta")):
        codes = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        for change, code in changes(meta.with_suffix(""), codes) if codes else ():
            seen.add(change)
            if code is NOT_RUN:
                counted["not run"] += 1
            elif code == REFUSED_BY_MYPY:
                counted["refused by mypy"] += 1
            elif code not in SURVIVED:
                counted["killed" if code in KILLED else "timed out"] += 1
            elif change in argued:
                counted["equivalent"] += 1
            else:
                counted["survived"] += 1
                print(f"survived: {change}")
    for change in argued.keys() - seen:
        print(f"not in the code any more, remove it from {EQUIVALENT.name}: {change}")
    noticed = counted["killed"] + counted["timed out"]
    tested = noticed + counted["survived"]
    percent = 100 * noticed / tested if tested else 0.0
    print(f"{noticed} of {tested} mutants were noticed, {percent:.1f} %; {dict(sorted(counted.items()))}")
    return 0 if percent >= WANTED_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
