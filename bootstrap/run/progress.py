"""How far slots on their way are: for a person at a terminal a bar, for a log a line every few seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TextIO

from bootstrap.clock import Clock, Ticker
from bootstrap.errors import Reason
from bootstrap.model.node import mebibytes
from bootstrap.model.steps import MoveSlots
from bootstrap.model.view import ClusterView

BAR_WIDTH = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Slots and data that have arrived, of how many, and how long that took."""

    slots_done: int = 0
    slots_total: int
    bytes_done: int = 0
    bytes_total: int
    """About as much: what the servers say of their data, by the part of their slots that moves."""
    began: float
    took_s: float = 0.0

    @classmethod
    def of(cls, moves: Sequence[MoveSlots], view: ClusterView, clock: Clock) -> Progress:
        """That of moves which begin now."""
        return cls(
            slots_total=sum(len(move.slots) for move in moves),
            bytes_total=sum(view.bytes_of(move.source, move.slots) for move in moves),
            began=clock.now(),
        )

    def now(self, slots: int, size: int, clock: Clock) -> Progress:
        """The same moves, so far."""
        return replace(self, slots_done=slots, bytes_done=size, took_s=clock.now() - self.began)

    @property
    def share(self) -> float:
        """Between 0 and 1, by slots: their number is exact."""
        return self.slots_done / self.slots_total if self.slots_total else 1.0

    @property
    def left_s(self) -> float | None:
        """Seconds until all have arrived, if it goes on like this; None before the first one has."""
        return self.took_s * (1 - self.share) / self.share if self.share else None

    @property
    def bytes_per_s(self) -> float:
        """The mean rate so far."""
        return self.bytes_done / self.took_s if self.took_s else 0.0

    def as_fields(self) -> Mapping[str, Any]:
        """For a line of the log."""
        return {
            "slots": f"{self.slots_done} of {self.slots_total}",
            "percent": round(100 * self.share),
            "data": f"{mebibytes(self.bytes_done)} of about {mebibytes(self.bytes_total)}",
            "rate": f"{mebibytes(round(self.bytes_per_s))}/s",
            "took_s": round(self.took_s, 2),
            "left_s": None if self.left_s is None else round(self.left_s, 1),
        }

    def bar(self) -> str:
        """One line of a terminal."""
        full = round(BAR_WIDTH * self.share)
        left = "" if self.left_s is None else f", {self.left_s:.0f} s left"
        told = self.as_fields()
        return (
            f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {told['percent']:3} %  {told['slots']} slots, "
            f"{told['data']}, {told['rate']}{left}"
        )

    def too_late(self, limit_s: float) -> Reason:
        """Why a run ends with slots still on their way."""
        return Reason(
            code="moving-slots",
            message=f"{self.slots_done} of {self.slots_total} slots had been moved when {limit_s:g} s were over",
            remedy="run again: it goes on from here; BOOTSTRAP_MOVE_DEADLINE_S gives it longer",
        )


class Bar:
    """A progress bar that stays on its line of a terminal, drawn anew a few times a second."""

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out, self._ticker = out, Ticker(clock, 0.2)
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        """Shows it; a finished one ends its line."""
        over = progress.slots_done >= progress.slots_total
        if not over and not self._ticker.due():
            return
        line = progress.bar()
        self._out.write("\r" + line.ljust(self._width) + ("\n" if over else ""))
        self._out.flush()
        self._width = 0 if over else len(line)
