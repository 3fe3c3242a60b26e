"""The progress of a slot transfer, or of copying keys: as a bar on a terminal, and as fields of a log line."""

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

    @property
    def finished(self) -> bool:
        """All slots have arrived."""
        return self.slots_done >= self.slots_total

    def bar(self) -> str:
        """One line of a terminal."""
        shown = self.as_fields()
        return bar(self.share, f"{shown['slots']} slots, {shown['data']}, {shown['rate']}", self.left_s)

    def too_late(self, limit_s: float) -> Reason:
        """The reason for a run that reached its limit of `limit_s` seconds for moving slots."""
        return Reason(
            code="moving-slots",
            message=f"{self.slots_done} of {self.slots_total} slots were moved within the limit of {limit_s:g} s",
            remedy=f"{AGAIN}; a greater BOOTSTRAP_MOVE_DEADLINE_S moves more slots in one run",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyProgress:
    """Keys of a source that need nothing more, out of how many at its beginning."""

    keys_done: int = 0
    keys_total: int
    bytes_done: int = 0
    began: float
    took_s: float = 0.0
    ended: bool = False
    """All keys have been seen. The source may have lost or gained some meanwhile."""

    @property
    def share(self) -> float:
        """The part that is done, from 0 to 1."""
        return 1.0 if self.ended else min(1.0, self.keys_done / self.keys_total) if self.keys_total else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until all are done, at the mean rate so far; None before the first one is."""
        return self.took_s * (1 - self.share) / self.share if self.share else None

    @property
    def finished(self) -> bool:
        """All keys have been seen."""
        return self.ended

    def now(self, keys: int, size: int, clock: Clock, *, ended: bool = False) -> CopyProgress:
        """The progress now that `keys` keys are done, of which `size` bytes were copied."""
        took_s = clock.now() - self.began
        return replace(self, keys_done=keys, bytes_done=size, took_s=took_s, ended=ended)

    def as_fields(self) -> Mapping[str, Any]:
        """The fields of a log line."""
        took_s = max(self.took_s, 0.001)
        return {
            "keys": f"{self.keys_done} of about {self.keys_total}",
            "percent": round(100 * self.share),
            "data": mebibytes(self.bytes_done),
            "rate": f"{self.keys_done / took_s:.0f} keys/s, {mebibytes(round(self.bytes_done / took_s))}/s",
            "took_s": round(self.took_s, 2),
            "left_s": None if self.left_s is None else round(self.left_s, 1),
        }

    def bar(self) -> str:
        """One line of a terminal."""
        shown = self.as_fields()
        return bar(self.share, f"{shown['keys']} keys, {shown['data']}, {shown['rate']}", self.left_s)

    def too_late(self, limit_s: float) -> Reason:
        """The reason for a run that reached its limit of `limit_s` seconds for copying."""
        return Reason(
            code="import-unfinished",
            message=f"{self.keys_done} of about {self.keys_total} keys were done within the limit of {limit_s:g} s",
            remedy=f"{AGAIN}; a greater BOOTSTRAP_IMPORT_DEADLINE_S (--import-deadline-s) copies more in one run",
        )


def bar(share: float, text: str, left_s: float | None) -> str:
    """A bar that is filled to `share`, from 0 to 1, with a text and the time left."""
    full = round(BAR_WIDTH * share)
    left = "" if left_s is None else f", {left_s:.0f} s left"
    return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {round(100 * share):3} %  {text}{left}"


class Bar:
    """A progress bar on one line of a terminal, redrawn five times a second."""

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out, self._ticker = out, Ticker(clock, 0.2)
        self._width = 0

    def __call__(self, progress: Progress | CopyProgress) -> None:
        """Draws the progress; one that is finished ends the line."""
        done = progress.finished
        if not done and not self._ticker.due():
            return
        line = progress.bar()
        self._out.write("\r" + line.ljust(self._width) + ("\n" if done else ""))
        self._out.flush()
        self._width = 0 if done else len(line)
