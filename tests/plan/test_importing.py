"""What stands against an import, and what its comparison means: without servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bootstrap.errors import Reason
from bootstrap.model.copying import Changed, Comparison, Counters, Counts, ImportReport, Source, SourceServer
from bootstrap.model.memory import Memory
from bootstrap.model.node import Address
from bootstrap.model.slots import SlotSet, even_split
from bootstrap.plan.importing import (
    Found,
    advice,
    clock_shift_ms,
    databases_of,
    differing_values,
    left_out,
    missing_keys,
    refusals,
)
from tests.builders import formed, shape, with_node

MIB = 1 << 20
SAME = Counters(run_id="a", changes=5, saved_at=100)


def server(number: int = 1, keys: Mapping[int, int] | None = None, counters: Counters = SAME) -> SourceServer:
    return SourceServer(
        address=Address(f"10.0.9.{number}", 6379),
        version="redis 7.0.15",
        keys={0: 10} if keys is None else keys,
        memory=Memory(used_bytes=31 * MIB, dataset_bytes=29 * MIB),
        startup_bytes=MIB,
        counters=counters,
        time_ms=1_000_000,
    )


SOURCE = Source(servers=(server(),))


def found(source: Source = SOURCE, **changes: object) -> Found:
    values = {"source": source, "view": formed(shape()).look(), "databases": {0: 0}, "rejected_databases": {}}
    return Found(**{**values, **changes})  # type: ignore[arg-type]


def report(source: Source = SOURCE, after: Source = SOURCE, **changes: object) -> ImportReport:
    values = {
        "before": source,
        "after": after,
        "databases": {0: 0},
        "counts": Counts(seen=10, copied=10),
        "late": 0,
        "missing": 0,
        "moved": False,
        "copied_sample": Comparison(compared=10),
        "existing_sample": Comparison(),
        "target_keys": 10,
    }
    return ImportReport(**{**values, **changes})  # type: ignore[arg-type]


def codes(reasons: tuple[Reason, ...]) -> list[str]:
    assert all(reason.message and reason.remedy for reason in reasons)
    return [reason.code for reason in reasons]


def test_nothing_stands_against_an_import_into_a_cluster_with_room() -> None:
    """Without maxmemory there is always room."""
    assert refusals(found()) == ()


def test_everything_that_stands_against_it_is_reported_together() -> None:
    """A person corrects all of it at the same time."""
    view = with_node(formed(shape()).look(), 1, run_id="a", memory=Memory(used_bytes=MIB, max_bytes=2 * MIB))
    source = Source(servers=(replace(server(), out_of_step="it has no link to its master"),), is_cluster=True)
    against = found(source, view=view, rejected_databases={3: "out of range"}, databases={3: 3}, unreadable="'k': Bad")
    assert codes(refusals(against)) == [
        *("source-is-target", "source-incomplete", "source-incomplete", "source-databases", "payload-rejected"),
        "no-room",
    ]


def test_a_server_that_does_not_show_its_run_is_not_taken_for_a_member() -> None:
    """Two servers without a run id are not the same one."""
    view = with_node(formed(shape()).look(), 1, run_id="")
    assert refusals(found(Source(servers=(server(counters=Counters()),)), view=view)) == ()


def test_slots_that_are_on_their_way_stand_against_it() -> None:
    """Neither of the two masters shows all keys of such a slot."""
    servers = [replace(server(number), slots=slots) for number, slots in enumerate(even_split(3))]
    servers[1] = replace(servers[1], open_slots=SlotSet.of((7000, 7001)))
    (reason,) = refusals(found(Source(servers=tuple(servers), is_cluster=True)))
    assert (reason.code, "7000-7001" in reason.message) == ("source-incomplete", True)


def test_a_cluster_whose_slots_all_have_owners_is_complete() -> None:
    """Its masters own all slots together."""
    servers = tuple(replace(server(number), slots=slots) for number, slots in enumerate(even_split(3)))
    assert refusals(found(Source(servers=servers, is_cluster=True))) == ()
    (reason,) = refusals(found(Source(servers=servers[:2], is_cluster=True)))
    assert (reason.code, "10923-16383" in reason.message) == ("source-incomplete", True)


@pytest.mark.parametrize(
    ("missing", "free", "fits"), [(1.0, 11, True), (1.0, 10, False), (0.5, 6, True), (0.0, 0, True)]
)
def test_each_shard_needs_room_for_its_share_of_what_it_lacks(missing: float, free: int, fits: bool) -> None:
    """30 MiB of keys make 10 MiB for a third of the slots, and a twentieth more to spare."""
    memory = Memory(used_bytes=MIB, max_bytes=MIB + free * MIB)
    view = with_node(formed(shape()).look(), 2, memory=memory)
    assert (refusals(found(view=view, missing_share=missing)) == ()) is fits


def test_databases_are_those_with_keys_unless_a_person_chooses() -> None:
    """What is not chosen is named at the end."""
    source = Source(servers=(server(keys={0: 3, 7: 1}), server(2, keys={7: 2})))
    assert source.keys == {0: 3, 7: 3}
    assert databases_of(source, {}) == {0: 0, 7: 7}
    assert databases_of(Source(servers=(server(keys={}),)), {}) == {0: 0}, "it may gain keys"
    assert databases_of(source, {7: 0}) == {7: 0}
    assert left_out(source, {7: 0}) == {0: 3}
    assert "3 in database 0" in advice(report(source, source), left_out(source, {7: 0}))


def test_clocks_that_agree_shift_nothing() -> None:
    """Two seconds are the time between two questions."""
    assert clock_shift_ms(SOURCE, 1_001_999) == 0
    assert clock_shift_ms(SOURCE, 1_060_000) == 60_000
    assert clock_shift_ms(SOURCE, 940_000) == -60_000


@pytest.mark.parametrize(
    ("after", "writes", "at_least", "quiet"),
    [
        (SAME, 0, False, True),
        (replace(SAME, changes=9), 4, False, False),
        (replace(SAME, changes=2, saved_at=200), 2, True, False),
        (replace(SAME, run_id="b", changes=3), 3, True, False),
        (replace(SAME, evicted=1), 0, False, False),
        (replace(SAME, expired=1), 0, False, True),
    ],
)
def test_writes_of_the_source_are_counted_by_its_own_counters(
    after: Counters, writes: int, at_least: bool, quiet: bool
) -> None:
    """A save and a restart begin a count anew, which makes it a lower bound. Keys that expire are no writes."""
    changed = Changed.between(SOURCE, Source(servers=(server(counters=after),)))
    assert (changed.writes, changed.at_least, changed.quiet) == (writes, at_least, quiet)


def test_another_number_of_masters_makes_the_count_a_lower_bound() -> None:
    """Nobody knows what the others have counted."""
    assert Changed.between(SOURCE, Source(servers=(server(), server(2)))).at_least
    assert Changed.between(Source(servers=(server(), server(2))), SOURCE).at_least


def test_a_good_comparison_says_nothing() -> None:
    """No reason, and nothing that a person has to know."""
    good = report()
    assert (missing_keys(good), differing_values(good, replace=False), advice(good, {})) == ((), (), "")


@pytest.mark.parametrize("changes", [{"missing": 3}, {"moved": True}])
def test_a_check_that_found_keys_missing_is_no_success(changes: dict[str, Any]) -> None:
    """Nor is one during which slots moved in the source."""
    assert codes(missing_keys(report(**changes))) == ["import-incomplete"]


def test_copied_keys_that_differ_are_named_with_the_writes_of_the_source() -> None:
    """The way to the values of the source is `--replace`, also where it was given."""
    later = Source(servers=(server(counters=replace(SAME, changes=6)),))
    sample = Comparison(compared=10, differing=("key:1", "key:2"))
    for given in (False, True):
        (reason,) = differing_values(report(SOURCE, later, copied_sample=sample), replace=given)
        assert reason.code == "values-differ"
        assert "'key:1', 'key:2'" in reason.message
        assert "1 write " in reason.message
        assert "--replace" in reason.remedy


def test_what_a_person_should_know_is_said_with_the_next_command() -> None:
    """Writes of the source, keys that stayed and differ, and keys that no client sees."""
    counts = Counts(seen=10, copied=3, existing=6, hidden=1)
    later = Source(servers=(server(counters=replace(SAME, changes=1, saved_at=200)),))
    existing = Comparison(compared=6, differing=("a",))
    text = advice(report(SOURCE, later, counts=counts, existing_sample=existing), {})
    for part in ("at least 1 write", "6 keys existed", "1 differ", "--replace", "1 key of masters"):
        assert part in text
    assert counts.done == 10
