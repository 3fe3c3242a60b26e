"""Keys beside the owner of their slots are counted with few commands, and never guessed while clients work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.connection import Connection

from bootstrap.model.slots import SlotSet
from bootstrap.nodes import counting
from bootstrap.nodes.commands import KEYSPACE, Command

OWN = SlotSet.of((0, 99))
Keys = dict[int, dict[int, int]]
"""By database and slot."""


@dataclass
class Server:
    """Answers the commands of a pipeline; before each INFO and each round of counts, a client may change its keys."""

    keys: Keys
    changes: list[Callable[[Keys], None]] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)
    """How many slots each round counted."""
    _database: int = 0

    def pipeline(self, _: Connection) -> Server:
        return self

    def __call__(self, commands: Sequence[Command]) -> list[Any]:
        (command,) = commands
        if command == KEYSPACE:
            self._change()
            lines = (f"db{number}:keys={sum(slots.values())},expires=0" for number, slots in self.keys.items())
            return ["\r\n".join(lines).encode()]
        name, self._database = command  # type: ignore[assignment]
        assert name == "SELECT"
        return ["OK"]

    def each(self, head: Command, keys: Sequence[bytes]) -> list[Any]:
        assert head == ("CLUSTER", "COUNTKEYSINSLOT")
        self._change()
        self.counted.append(len(keys))
        return [self.keys[self._database].get(int(slot), 0) for slot in keys]

    def close(self) -> None:
        """Nothing to release."""

    def _change(self) -> None:
        if self.changes:
            self.changes.pop(0)(self.keys)


def left_over(server: Server, monkeypatch: pytest.MonkeyPatch) -> Mapping[int, int]:
    monkeypatch.setattr(counting, "Pipeline", server.pipeline)
    return counting.count_left_over(Connection(), own=OWN)


def test_a_node_with_keys_of_its_own_slots_is_asked_for_these_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """16384 counts for a whole cluster, and not for each of its masters."""
    server = Server({0: {5: 3, 70: 1}})
    assert left_over(server, monkeypatch) == {}
    assert server.counted == [100]


def test_keys_of_other_slots_are_found_in_every_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each database is compared with its own counts: one with more cannot hide another one."""
    server = Server({0: {5: 3}, 2: {6: 1, 200: 4}, 3: {200: 1, 16383: 1}})
    assert left_over(server, monkeypatch) == {200: 5, 16383: 1}
    assert server.counted == [100, 100, 16284, 100, 16284]


def grow(keys: Keys) -> None:
    keys[0][5] += 1


def shrink(keys: Keys) -> None:
    keys[0][5] -= 1


def same(_: Keys) -> None:
    """No client works just then."""


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ([same, grow], [100]),
        ([same, shrink], [100, 16284]),
        ([same, same, grow], [100, 16284]),
        ([same, same, shrink], [100]),
    ],
    ids=["grew before the counts", "shrank before the counts", "grew after the counts", "shrank after the counts"],
)
def test_a_difference_that_clients_cause_is_looked_at_and_is_none(
    changes: list[Callable[[Keys], None]], counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sum is too small for a moment, the other slots are counted themselves."""
    server = Server({0: {5: 3}}, changes=changes)
    assert left_over(server, monkeypatch) == {}
    assert server.counted == counted


@pytest.mark.parametrize("changes", [[same, grow], [same, shrink], [same, same, grow], [same, same, shrink]])
def test_clients_do_not_hide_a_left_over_key(
    changes: list[Callable[[Keys], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that grows was too big afterwards, one that shrinks was too big before."""
    assert left_over(Server({0: {5: 3, 200: 1}}, changes=changes), monkeypatch) == {200: 1}
