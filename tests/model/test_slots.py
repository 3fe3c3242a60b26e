"""Sets of slots, compared with Python's own sets of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.model.slots import ALL_SLOTS, SLOT_COUNT, SlotSet, even_split

SLOT = st.integers(0, SLOT_COUNT - 1) | st.integers(0, 12)  # small ones too, so that ranges touch and overlap
RANGE = st.tuples(SLOT, SLOT).map(lambda pair: (min(pair), max(pair)))
RANGES = st.lists(RANGE, max_size=5)


def twin(ranges: list[tuple[int, int]]) -> set[int]:
    return {slot for first, last in ranges for slot in range(first, last + 1)}


@given(RANGES, RANGES)
def test_union_difference_and_intersection_are_those_of_sets(
    left: list[tuple[int, int]], right: list[tuple[int, int]]
) -> None:
    """The three operators give the same result as for a set of numbers, in the one form of equal sets."""
    one, other = SlotSet.of(*left), SlotSet.of(*right)
    assert all(made == SlotSet.of(*made.ranges) for made in (one | other, one & other, one - other))
    assert set(one | other) == twin(left) | twin(right)
    assert set(one & other) == twin(left) & twin(right)
    assert set(one - other) == twin(left) - twin(right)
    assert set(SlotSet.union_of([one, other])) == twin(left) | twin(right)


@given(RANGES, SLOT, st.integers(-1, SLOT_COUNT + 1))
def test_questions_about_one_set_are_answered_as_a_set_answers(
    ranges: list[tuple[int, int]], slot: int, count: int
) -> None:
    """Size, truth, membership, complement and the lowest few."""
    slots, numbers = SlotSet.of(*ranges), twin(ranges)
    assert (len(slots), bool(slots), slot in slots) == (len(numbers), bool(numbers), slot in numbers)
    assert list(slots) == sorted(numbers)
    assert set(slots.complement()) == set(range(SLOT_COUNT)) - numbers
    assert list(slots.lowest(count)) == sorted(numbers)[: max(0, count)]


@given(RANGES)
def test_equal_sets_have_one_form(ranges: list[tuple[int, int]]) -> None:
    """Ranges are ascending with a gap between each two, so that equal sets compare equal."""
    slots = SlotSet.of(*ranges)
    assert slots == SlotSet.of(*((slot, slot) for slot in twin(ranges)))
    assert all(slots.ranges[i][1] + 1 < slots.ranges[i + 1][0] for i in range(len(slots.ranges) - 1))


@given(RANGES)
def test_text_is_what_redis_prints(ranges: list[tuple[int, int]]) -> None:
    """`0-5460 7000`: reading it back gives the same set."""
    slots = SlotSet.of(*ranges)
    pairs = (word.partition("-")[::2] for word in str(slots).split())
    assert SlotSet.of(*((int(first), int(last or first)) for first, last in pairs)) == slots


@pytest.mark.parametrize("pair", [(3, 2), (-1, 4), (0, SLOT_COUNT)])
def test_an_invalid_range_is_rejected(pair: tuple[int, int]) -> None:
    """Reversed, or outside 0…16383."""
    with pytest.raises(ValueError, match="no slot range"):
        SlotSet.of(pair)


def test_only_numbers_are_in_a_set() -> None:
    """Nothing else is a slot."""
    assert "0" not in ALL_SLOTS


@given(st.integers(1, SLOT_COUNT))
def test_an_even_split_is_whole_and_even(shards: int) -> None:
    """Every slot once, in order, and the sizes of shares differ by at most one."""
    shares = even_split(shards)
    cuts = [pair for share in shares for pair in share.ranges]
    assert [first for first, _ in cuts] == [0, *(last + 1 for _, last in cuts[:-1])]
    assert (len(shares), cuts[-1][1]) == (shards, SLOT_COUNT - 1)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_three_shares_are_those_of_the_redis_documentation() -> None:
    """0-5460, 5461-10922, 10923-16383."""
    assert [str(share) for share in even_split(3)] == ["0-5460", "5461-10922", "10923-16383"]


@pytest.mark.parametrize("shards", [0, -1, SLOT_COUNT + 1])
def test_an_impossible_split_is_rejected(shards: int) -> None:
    """A share has at least one slot."""
    with pytest.raises(ValueError, match="cannot split"):
        even_split(shards)


def test_a_long_list_of_slots_is_cut_to_200_characters() -> None:
    """The first ranges, and how many slots follow; a list that fits is whole."""
    every_second = SlotSet.of(*((slot, slot) for slot in range(0, 16384, 2)))
    shown, _, more = every_second.listed().partition(" and ")
    assert len(every_second.listed()) <= 200
    assert len(shown.split()) + int(more.removesuffix(" more")) == 8192
    assert SlotSet.of((0, 5460), (9000, 9000)).listed() == "0-5460 9000"
