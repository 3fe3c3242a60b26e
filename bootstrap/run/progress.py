"""The progress of a slot transfer: as a bar on a terminal, and as fields of a log line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TextIO

from bootstrap.clock import Clock, Ticker
from bootstrap.errors import AGAIN, Reason
from bootstrap.model.memory import mebibytes
from bootstrap.model.steps import MoveSlots
from bootstrap.model.view import ClusterView

BAR_WIDTH = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Slots and data that have arrived, out of how many, and the time since the transfer began."""

    slots_done: int = 0
    slots_total: int
    bytes_done: int = 0
    bytes_total: int
    """An estimate: each source's data, in proportion to the slots that move."""
    began: float
    took_s: float = 0.0

    @classmethod
    def of(cls, moves: Sequence[MoveSlots], view: ClusterView, clock: Clock) -> Progress:
        """The progress of moves that begin now."""
        return cls(
            slots_total=sum(len(move.slots) for move in moves),
            bytes_total=sum(view.bytes_of(move.source, move.slots) for move in moves),
            began=clock.now(),
        )

    def now(self, slots: int, size: int, clock: Clock) -> Progress:
        """The progress now that `slots` slots and `size` bytes have arrived."""
        return replace(self, slots_done=slots, bytes_done=size, took_s=clock.now() - self.began)

    @property
    def share(self) -> float:
        """The part that has arrived, from 0 to 1, by the number of slots."""
        return self.slots_done / self.slots_total if self.slots_total else 1.0

    @property
    def left_s(self) -> float | None:
        """Seconds until all slots have arrived, at the mean rate so far; None before the first has."""
        return self.took_s * (1 - self.share) / self.share if self.share else None

    @property
    def bytes_per_s(self) -> float:
        """The mean rate so far, in bytes per second."""
        return self.bytes_done / self.took_s if self.took_s else 0.0

    def as_fields(self) -> Mapping[str, Any]:
        """The fields of a log line."""
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
        shown = self.as_fields()
        return (
            f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {shown['percent']:3} %  {shown['slots']} slots, "
            f"{shown['data']}, {shown['rate']}{left}"
        )

    def too_late(self, limit_s: float) -> Reason:
        """The reason for a run that reached its limit of `limit_s` seconds for moving slots."""
        return Reason(
            code="moving-slots",
            message=f"{self.slots_done} of {self.slots_total} slots were moved within the limit of {limit_s:g} s",
            remedy=f"{AGAIN}; a greater BOOTSTRAP_MOVE_DEADLINE_S moves more slots in one run",
        )


class Bar:
    """A progress bar on one line of a terminal, redrawn five times a second."""

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out, self._ticker = out, Ticker(clock, 0.2)
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        """Draws the progress; a finished transfer ends the line."""
        done = progress.slots_done >= progress.slots_total
        if not done and not self._ticker.due():
            return
        line = progress.bar()
        self._out.write("\r" + line.ljust(self._width) + ("\n" if done else ""))
        self._out.flush()
        self._width = 0 if done else len(line)
