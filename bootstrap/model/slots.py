"""Sets of hash slots. A key lives in one of 16384 slots, and a cluster serves when every slot has one owner.

A set is kept as sorted, disjoint ranges with a gap between each two. That is how servers print it, and a shard of a
thousand slots takes one pair of integers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

SLOT_COUNT = 16384
LISTED_CHARACTERS = 200
"""The longest list of slots in a message."""


@dataclass(frozen=True, slots=True)
class SlotSet:
    """An immutable set of slots; `ranges` are inclusive pairs, ascending, with a gap between each two."""

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, *ranges: tuple[int, int]) -> SlotSet:
        """The union of inclusive ranges in any order, overlapping or not.

        Raises ValueError for a range that is reversed or leaves 0…16383.
        """
        merged: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if not 0 <= first <= last < SLOT_COUNT:
                raise ValueError(f"no slot range: {first}-{last}")
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    @classmethod
    def union_of(cls, sets: Iterable[SlotSet]) -> SlotSet:
        """Every slot that is in at least one of `sets`."""
        return cls.of(*(pair for slots in sets for pair in slots.ranges))

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __contains__(self, slot: object) -> bool:
        if not isinstance(slot, int):
            return False
        before = bisect_right(self.ranges, (slot, SLOT_COUNT))
        return before > 0 and slot <= self.ranges[before - 1][1]

    def __or__(self, other: SlotSet) -> SlotSet:
        if not other.ranges:
            return self
        return SlotSet.of(*self.ranges, *other.ranges)

    def __and__(self, other: SlotSet) -> SlotSet:
        # What two sets have in common keeps the gaps of both: there is nothing to sort or merge.
        return SlotSet(tuple(_common(self.ranges, other.ranges)))

    def __sub__(self, other: SlotSet) -> SlotSet:
        if not self.ranges or not other.ranges:
            return self
        return self & other.complement()

    def complement(self) -> SlotSet:
        """Every slot that is not in this set."""
        gaps: list[tuple[int, int]] = []
        free = 0
        for first, last in self.ranges:
            if free < first:
                gaps.append((free, first - 1))
            free = last + 1
        if free < SLOT_COUNT:
            gaps.append((free, SLOT_COUNT - 1))
        return SlotSet(tuple(gaps))

    def lowest(self, count: int) -> SlotSet:
        """The `count` lowest slots of this set, or all of it when it has fewer."""
        taken: list[tuple[int, int]] = []
        for first, last in self.ranges:
            if count <= 0:
                break
            piece = (first, min(last, first + count - 1))
            taken.append(piece)
            count -= piece[1] - first + 1
        return SlotSet(tuple(taken))

    def __str__(self) -> str:
        return " ".join(f"{first}-{last}" if first != last else str(first) for first, last in self.ranges)

    def listed(self) -> str:
        """For messages: the ranges, cut where they take more than `LISTED_CHARACTERS`, and how many slots follow."""
        if len(whole := str(self)) <= LISTED_CHARACTERS:
            return whole
        ranges = list(self.ranges[: LISTED_CHARACTERS // 2])  # each range and its blank take two characters or more
        while len(shown := str(SlotSet(tuple(ranges)))) > LISTED_CHARACTERS - len(" and 16384 more"):
            ranges.pop()
        return f"{shown} and {len(self) - len(SlotSet(tuple(ranges)))} more"


ALL_SLOTS = SlotSet(((0, SLOT_COUNT - 1),))


def even_split(shards: int) -> tuple[SlotSet, ...]:
    """16384 slots cut into `shards` adjacent ranges whose sizes differ by at most one, lowest first.

    Raises ValueError unless 1 <= shards <= 16384.
    """
    if not 1 <= shards <= SLOT_COUNT:
        raise ValueError(f"cannot split {SLOT_COUNT} slots over {shards} shards")
    # Rounding each cut (and not the size) spreads the remainder and gives 0-5460, 5461-10922, 10923-16383 for three,
    # the split that redis-cli and the Redis documentation show.
    cuts = [(index * SLOT_COUNT * 2 + shards) // (2 * shards) for index in range(shards + 1)]
    return tuple(SlotSet(((low, high - 1),)) for low, high in pairwise(cuts))


def _common(left: tuple[tuple[int, int], ...], right: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    i = j = 0
    while i < len(left) and j < len(right):
        first, last = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if first <= last:
            yield first, last
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
