"""One copy of every shard within the limits of places: no choice is cheaper, and none is missed."""

from __future__ import annotations

from collections import Counter
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.plan.flow import Option, cheapest

ZONES = {"n1": "a", "n2": "a", "n3": "b", "n4": "c"}


@st.composite
def shards(draw: st.DrawFn) -> list[list[Option]]:
    """Up to four shards with up to three copies each; the first copy of each is its cheapest."""
    places = st.lists(st.sampled_from(sorted(ZONES)), min_size=1, max_size=3)
    found = []
    for machines in draw(st.lists(places, min_size=1, max_size=4)):
        costs = sorted(draw(st.integers(0, 9)) for _ in machines)
        found.append([Option(machine=m, zone=ZONES[m], cost=cost) for m, cost in zip(machines, costs, strict=True)])
    return found


def within(chosen: list[Option], machine_limits: dict[str, int], zone_limits: dict[str, int]) -> bool:
    machines = Counter(option.machine for option in chosen)
    zones = Counter(option.zone for option in chosen)
    return all(machines[name] <= most for name, most in machine_limits.items()) and all(
        zones[name] <= most for name, most in zone_limits.items()
    )


@given(
    shards(),
    st.dictionaries(st.sampled_from(sorted(ZONES)), st.integers(0, 2)),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)),
)
@settings(max_examples=300, deadline=None)
def test_no_choice_is_cheaper(
    options: list[list[Option]], machine_limits: dict[str, int], zone_limits: dict[str, int]
) -> None:
    """Compared with every choice; places without a limit take any number."""
    every = [list(choice) for choice in product(*options) if within(list(choice), machine_limits, zone_limits)]
    found = cheapest(options, machine_limits, zone_limits)
    if found is None:
        assert every == []
        return
    chosen = [copies[index] for copies, index in zip(options, found, strict=True)]
    assert chosen in every
    assert sum(option.cost for option in chosen) == min(sum(option.cost for option in choice) for choice in every)


def test_a_shard_makes_room_for_one_that_has_no_other_place() -> None:
    """Also where that moves two more, and where three of them were in one place."""
    apart = [Option(machine=name, zone="a", cost=cost) for cost, name in enumerate(("n1", "n2", "n3"))]
    only = [Option(machine="n1", zone="a", cost=5)]
    one_each = dict.fromkeys(("n1", "n2", "n3", "n4"), 1)
    assert cheapest([apart[:2], apart[1:], only], one_each, {}) == (1, 1, 0)
    assert cheapest([apart, apart, apart], one_each, {}) is not None
    assert cheapest([apart, apart, only, only], one_each, {}) is None
    three = cheapest([apart[:2], apart[:2], apart[:2], only], {"n1": 3}, {})
    assert three is not None
    assert sorted(three) == [0, 0, 0, 1]
    assert cheapest([only, only], {"n1": 2}, {"a": 1}) is None


def test_shards_leave_a_full_zone_one_after_the_other() -> None:
    """Each for a shard that has no copy elsewhere."""
    both = [Option(machine="n1", zone="a", cost=0), Option(machine="n3", zone="b", cost=1)]
    only = [Option(machine="n2", zone="a", cost=0)]
    assert cheapest([both, both, only, only], {}, {"a": 2}) == (1, 1, 0, 0)
    assert cheapest([both, both, both, only, only, only], {}, {"a": 3}) == (1, 1, 1, 0, 0, 0)
    assert cheapest([both, only, only, only], {}, {"a": 2}) is None
