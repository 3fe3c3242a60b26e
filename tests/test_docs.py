"""The documents keep up with the code, and with each other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from bootstrap.__main__ import VERBS, main
from bootstrap.config import declared, variable_of

from . import docs_configuration

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
README_LINES_MAX = 140
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FINDINGS = ROOT / "docs" / "findings.md"
ENTRY_LABELS = ["Seen", "Likely cause", "Program", "You"]
CODE = r"[a-z]+(?:-[a-z]+)*"
NOT_CODES = {
    "client-output-buffer-limit",
    "cluster-allow-replica-migration",
    "cluster-announce-bus-port",
    "cluster-announce-hostname",
    "cluster-announce-ip",
    "cluster-announce-port",
    "cluster-node-timeout",
    "cluster-replica-no-failover",
    "cluster-require-full-coverage",
    "cluster-slave-no-failover",
    "gold-redis",
    "redis-app",
    "redis-auth",
    "redis-bootstrap",
    "redis-bootstrap-settings",
    "cluster-databases",
    "redis-cli",
    "tls-cluster",
    "unknown-endpoint",
    "redis-tls",
    "rename-command",
    "tls-replication",
    "self-heal",
    "redis-self-heal",
    "with-a-gap",
}
"""Words of findings.md that look like codes and are names of other things."""
OBSCURE_WORDS = re.compile(r"\b(whoever|aloud|heirs?|deaf|tellers|knock|doors|leash)\b", re.IGNORECASE)
BINARY_SUFFIXES = {".gz", ".ico", ".jpg", ".png", ".pyc"}


def name_of(path: Path) -> str:
    """A path as it reads from the root of the repository."""
    return str(path.relative_to(ROOT))


def anchors_of(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


def links() -> Iterator[tuple[Path, str]]:
    """Every link and picture of every page, with the page."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            yield page, target


def trees() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the program, parsed."""
    for path in sorted((ROOT / "bootstrap").rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def codes_of(tree: ast.Module) -> Iterator[str]:
    """The codes of findings and reasons: `code="…"`, and the members of an enum that has a `code`."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="code", value=ast.Constant(value=str(code))):
                yield code
            case ast.ClassDef(body=body) if any(isinstance(d, ast.FunctionDef) and d.name == "code" for d in body):
                names = [t for each in body if isinstance(each, ast.Assign) for t in each.targets]
                yield from (t.id.lower().replace("_", "-") for t in names if isinstance(t, ast.Name) and t.id.isupper())


def codes_of_verify(tree: ast.Module) -> Iterator[str]:
    """The codes of violations: the first argument of the function that makes one."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(args=[ast.Constant(value=str(code)), *_]) if re.fullmatch(CODE, code):
                yield code


def codes() -> set[str]:
    """Every code that a log or an outcome may show."""
    found = {code for _, tree in trees() for code in codes_of(tree)}
    (verify,) = [tree for path, tree in trees() if path == ROOT / "bootstrap" / "verify.py"]
    return found | set(codes_of_verify(verify))


def entries() -> dict[str, str]:
    """The entries of the catalogue by their codes."""
    parts = re.split(rf"^### `({CODE})`$", FINDINGS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_catalogue_names_every_finding_and_every_reason() -> None:
    """A code that a log shows is in docs/findings.md, and nothing there is of the past."""
    named = set(re.findall(rf"`({CODE})`", FINDINGS.read_text(encoding="utf-8")))
    found = codes()
    assert len(found) > 60
    assert found - named == set()
    assert {word for word in named - found if "-" in word} - NOT_CODES == set()


def test_every_entry_of_the_catalogue_tells_what_to_do() -> None:
    """What is seen, the likely cause, what the program does, what a person does: in this order, none empty."""
    assert entries().keys() - codes() == set()
    for code, text in entries().items():
        labels = re.findall(r"^- \*\*([A-Za-z ]+):\*\* \S", text, re.MULTILINE)
        assert labels == ENTRY_LABELS, code


def test_every_reason_has_an_entry_of_its_own() -> None:
    """A row of a table is enough for a violation that `verify` alone reports."""
    reasons = {code for path, tree in trees() if path.stem != "verify" for code in codes_of(tree)}
    assert reasons - entries().keys() == set()


def test_every_phase_of_a_plan_is_in_the_order_of_phases() -> None:
    """docs/architecture.md names every phase that `plan` may show."""
    calls = [node for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    phases = {
        str(keyword.value.value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "Phase"
        for keyword in call.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
    }
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    order = page.partition("## Phase order")[2].partition("\n## ")[0]
    assert "meet" in phases
    assert {name for name in phases if f"*{name}*" not in order} == set()


def test_the_table_of_settings_is_current() -> None:
    """Names, words and defaults are those of `--help`; `make docs` writes them."""
    page = docs_configuration.PAGE.read_text(encoding="utf-8")
    assert docs_configuration.current(page) == page


def test_the_table_of_settings_is_that_of_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same variables, words and defaults, in the same order. Each verb shows its own and the common ones."""
    monkeypatch.setenv("COLUMNS", "1000")
    rows = re.findall(r"^\| `(BOOTSTRAP_[A-Z_]+)` \| (.*) \| (.*) \|$", docs_configuration.table(), re.MULTILINE)
    seen = set()
    for verb in VERBS:
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        help_text = capsys.readouterr().out
        shown = re.findall(r"VALUE\]?\s+(.*) \[(BOOTSTRAP_[A-Z_]+); default: (.*)\]$", help_text, re.MULTILINE)
        own = {variable_of(name) for name, each in declared().items() if not each["verbs"] or verb in each["verbs"]}
        assert [row for row in rows if row[0] in own] == [
            (variable, words.replace("|", "\\|"), default) for words, variable, default in shown
        ]
        seen |= own
    assert seen == {variable for variable, _, _ in rows}


def test_every_variable_that_a_page_names_is_a_setting() -> None:
    """A variable that was renamed or mistyped is set to no effect."""
    known = set(re.findall(r"^\| `(BOOTSTRAP_[A-Z_]+)`", docs_configuration.table(), re.MULTILINE))
    named = {
        (name_of(page), variable)
        for page in PAGES
        for variable in re.findall(r"BOOTSTRAP_[A-Z_]+[A-Z]", page.read_text(encoding="utf-8"))
    }
    assert {(page, variable) for page, variable in named if variable not in known} == set()


def test_every_manifest_that_a_page_names_is_there() -> None:
    """Directories and files of k8s/, as a person would type them."""
    named = {
        (name_of(page), path)
        for page in PAGES
        for path in re.findall(r"\bk8s/[a-z0-9./_-]*[a-z0-9]", page.read_text(encoding="utf-8"))
    }
    assert {(page, path) for page, path in named if not (ROOT / path).exists()} == set()


def test_every_make_target_that_a_page_names_is_there() -> None:
    """In a span of code or at a prompt."""
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        (name_of(page), target)
        for page in PAGES
        for target in re.findall(r"(?:`|^\$ )make ([a-z0-9]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {(page, target) for page, target in named if target not in targets} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file of the repository, and in a page to one of its headings. Links to the outside are not followed."""
    broken = []
    for where, target in links():
        if where != page or re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        there = (page.parent / file).resolve() if file else page
        if not there.is_relative_to(ROOT) or not there.exists() or (anchor and anchor not in anchors_of(there)):
            broken.append(target)
    assert broken == []


def test_every_picture_has_words_for_those_who_do_not_see_it() -> None:
    """An alternative text of some words."""
    for page in PAGES:
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert len(words.split()) > 3, f"{name_of(page)}: {target}"


def test_every_page_is_reachable_from_the_readme() -> None:
    """A page that nothing links to is not read."""
    seen: set[Path] = set()
    open_pages = [README]
    while open_pages:
        page = open_pages.pop()
        if page not in seen:
            seen.add(page)
            targets = [target.partition("#")[0] for where, target in links() if where == page and ":" not in target]
            open_pages += [(page.parent / file).resolve() for file in targets if file.endswith(".md")]
    assert set(PAGES) - seen == set()


def test_the_readme_fits_on_a_few_screens() -> None:
    """What takes longer has a page under docs/."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= README_LINES_MAX


@pytest.mark.parametrize("where", ["README.md", "docs", "k8s", "bootstrap"])
def test_no_obscure_words(where: str) -> None:
    """Words that a person on call has to guess at."""
    path = ROOT / where
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    found = [
        f"{name_of(file)}:{number}: {match[0]}"
        for file in files
        if file.suffix not in BINARY_SUFFIXES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (match := OBSCURE_WORDS.search(line))
    ]
    assert found == []
