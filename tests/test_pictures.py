"""The pictures of the documentation fit what they were drawn from, and the benches store what the plots need."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pictures import demo, parts, plots
from pictures.__main__ import DRAWN
from pictures.places import BENCHMARKS, PICTURES, ROOT
from tests.bench.results import store
from tests.manifests.kustomize import OVERLAYS, Manifest, build

REMEDY = "run `make pictures` and look at what it has changed"
PLOTTED = ("forming", "moving")


def drawn(name: str) -> str:
    """A picture as it is committed."""
    return (PICTURES / f"{name}.svg").read_text(encoding="utf-8")


def results(bench: str) -> dict[str, Any]:
    """What `make bench` has stored."""
    stored: dict[str, Any] = json.loads((BENCHMARKS / f"{bench}.json").read_text(encoding="utf-8"))
    return stored


def recorded() -> demo.Recording:
    """The recording of the demo as it is committed."""
    return demo.from_cast((PICTURES / "demo.cast").read_text(encoding="utf-8"))


def manifests() -> list[Manifest]:
    """The manifests that are drawn, to be changed at will."""
    return copy.deepcopy(list(build(OVERLAYS / "minikube").manifests))


def test_the_script_draws_every_picture_that_is_committed() -> None:
    assert {path.stem for path in PICTURES.glob("*.svg")} == set(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_stands_alone_and_has_words_for_screen_readers(name: str) -> None:
    root = ElementTree.fromstring(drawn(name))
    words = [root.findtext(f"{{http://www.w3.org/2000/svg}}{each}") for each in ("title", "desc")]
    assert all(words)
    outside = [value for each in root.iter() for key, value in each.items() if "href" in key and value[0] != "#"]
    assert outside == []
    assert str(ROOT) not in drawn(name)


def test_who_talks_to_whom_is_drawn_from_the_manifests_of_now() -> None:
    assert parts.draw(manifests()) == drawn("parts"), REMEDY


def test_a_renamed_service_is_drawn_under_its_new_name() -> None:
    text = json.dumps(manifests()).replace("gold-redis", "silver-redis")
    assert parts.draw(json.loads(text)) == drawn("parts").replace("gold-redis", "silver-redis")


def test_more_replicas_are_drawn_as_more_pods() -> None:
    objects = manifests()
    servers = next(each for each in objects if each["kind"] == "StatefulSet")
    servers["spec"]["replicas"] = 8
    assert ">redis-app-7<" in parts.draw(objects)
    assert ">redis-app-7<" not in drawn("parts")


@pytest.mark.parametrize(
    ("kind", "name", "change", "why"),
    [
        ("Service", "redis-service", lambda spec: spec.update(clusterIP=""), "not headless"),
        ("Service", "gold-redis", lambda spec: spec["selector"].update(role="other"), "selects other pods"),
        ("StatefulSet", "redis-app", lambda spec: spec.update(serviceName="other"), "from another Service"),
    ],
)
def test_manifests_that_no_longer_fit_together_are_not_drawn(
    kind: str, name: str, change: Callable[[Manifest], object], why: str
) -> None:
    objects = manifests()
    change(next(each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))["spec"])
    with pytest.raises(parts.NoLongerFits, match=why):
        parts.draw(objects)


def test_the_demo_is_drawn_from_its_recording() -> None:
    assert demo.draw(recorded()) == drawn("demo"), REMEDY
    assert demo.from_cast(demo.as_cast(recorded())) == recorded()


def test_a_demo_of_now_prints_what_its_recording_shows() -> None:
    """A real cluster is formed, on a terminal; compared is all but times, addresses, ids, versions and sizes."""
    now = demo.normalised(demo.text_of(demo.record()))
    assert now == demo.normalised(demo.text_of(recorded())), REMEDY


def test_the_recording_is_of_what_make_demo_runs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (recipe,) = [line for line in makefile.splitlines() if line.endswith(f"python {' '.join(demo.RUN)}")]
    assert "BOOTSTRAP_LOG:-console" in recipe


def test_a_slow_run_is_still_the_run_that_was_recorded() -> None:
    """What a busy machine adds or repeats is not a difference; another word is."""
    said = demo.text_of(recorded())
    lines = said.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if "phase_done" in line)
    waited = "01:02:03 [info     ] phase_not_settled    phase=meet took_s=5.0\n"
    slow = "".join([*lines[: at + 1], waited, *lines[at:]]).replace("39 steps", "41 steps")
    assert demo.normalised(slow) == demo.normalised(said)
    assert demo.normalised(said.replace("formed: ", "built: ")) != demo.normalised(said)


def test_long_lines_go_on_in_the_next_row_as_on_a_terminal() -> None:
    rows = ElementTree.fromstring(demo.draw([(0.5, "x" * (demo.COLUMNS + 1) + "\r\n")])).iter(
        "{http://www.w3.org/2000/svg}text"
    )
    assert [len(row.text or "") for row in rows] == [1, len(demo.COMMAND), demo.COLUMNS, 1]


@pytest.mark.parametrize("bench", PLOTTED)
def test_a_plot_is_drawn_from_the_stored_results_and_the_code_of_now(bench: str) -> None:
    """The plot carries a digest of both, so that this needs no plotting library."""
    assert f"<!-- source: {plots.digest(results(bench))} -->" in drawn(f"bench-{bench}"), REMEDY


@pytest.mark.parametrize("bench", PLOTTED)
def test_another_figure_is_another_source(bench: str) -> None:
    stored = results(bench)
    stored["rows"][0]["figures"]["apply"]["median_s"] += 0.01
    assert plots.digest(stored) != plots.digest(results(bench))


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.json")), ids=lambda path: path.stem)
def test_stored_rows_say_how_they_were_measured(path: Path) -> None:
    """Either every round and its circumstances, or that the figures are older than the store; ratios are of medians."""
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        if "source" not in row:
            assert {"date", "python", "cores", "load_at_start"} <= set(row)
            assert all(len(figure["rounds_s"]) == row["rounds"] for figure in row["figures"].values())
        base = next(iter(row["figures"].values()))["median_s"]
        for tool, ratio in row.get("ratios", {}).items():
            assert ratio == pytest.approx(row["figures"][tool]["median_s"] / base, abs=0.01)


def test_a_row_measured_again_replaces_its_own_kind_alone(tmp_path: Path) -> None:
    """The same server in another patch release is the same kind; another size, or server, is another one."""
    path = tmp_path / "new" / "moving.json"
    for server, keys in [("Valkey 9.1.2", 75), ("Redis 8.10.2", 1000), ("Redis 8.2.3", 75), ("Redis 8.10.2", 75)]:
        store(path, "moving", {"server": server, "keys": keys, "figures": {}})
    store(path, "moving", {"server": "Redis 8.10.3", "keys": 75, "figures": {"apply": 1}})
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [(row["server"], row["keys"], bool(row["figures"])) for row in rows] == [
        ("Redis 8.2.3", 75, False),
        ("Redis 8.10.3", 75, True),
        ("Valkey 9.1.2", 75, False),
        ("Redis 8.10.2", 1000, False),
    ]
    assert [each.name for each in path.parent.iterdir()] == [path.name]
