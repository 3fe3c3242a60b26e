"""Moving slots: the one phase that takes as long as there is data, with a time limit of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from bootstrap.clock import REPORT_EVERY_S, Backoff, Clock, Deadline, Ticker
from bootstrap.errors import BootstrapError, Misconfigured, NotYet, Reason
from bootstrap.log import Log
from bootstrap.run.missing import HOPELESS_S
from bootstrap.run.ports import Transfer
from bootstrap.run.progress import Progress
from bootstrap.run.reasons import in_words

RETRY_PAUSE_MAX_S = 5.0


@dataclass(slots=True, kw_only=True)
class SlotMoves:
    """Carries out transfers of slots. All transfers of a run share the limit of `limit_s` seconds.

    The amount of data is not declared, so this time does not count for the run's deadline. The pause after a rejected
    move does count: the server may accept later what it rejects now.
    """

    clock: Clock
    log: Log
    limit_s: float
    show: Callable[[Progress], None]
    """Shows the progress, several times a second."""
    progress: Progress = field(init=False)
    """Of the latest transfer."""
    _deadline: Deadline | None = None
    _denied_until: Deadline | None = None
    _backoff: Backoff = field(init=False)

    def __post_init__(self) -> None:
        self._backoff = self._new_backoff()

    def start(self, progress: Progress) -> None:
        """Notes that a transfer begins; the first one of a run sets the time limit of all."""
        self.progress = progress
        if self._deadline is None:
            self._deadline = Deadline.after(self.limit_s, self.clock)

    def finish(self, transfer: Transfer, *, check_lock: Callable[[], None], rejected: Sequence[Reason]) -> None:
        """Advances a transfer that was started until it is done, and closes it on every way out.

        Raises NotYet at the limit, with the progress and `rejected`; Interrupted; and NotYet from `check_lock`.
        """
        log_due = Ticker(self.clock, REPORT_EVERY_S)
        with closing(transfer):
            while not transfer.done:
                self.clock.check()
                check_lock()
                if self._deadline is not None and self._deadline.passed:
                    raise NotYet.because([self.progress.too_late(self.limit_s), *rejected])
                transfer.advance()
                if transfer.pause_s and not transfer.done:
                    self.clock.sleep(transfer.pause_s)
                self.progress = self.progress.now(transfer.slots_done, transfer.bytes_done, self.clock)
                self.show(self.progress)
                if log_due.due():
                    self.log.info("moving_slots", **self.progress.as_fields())

    def wait_after(self, rejected: Sequence[Reason], deadline: Deadline, *, denied: bool) -> None:
        """Pauses after a transfer with rejected moves, longer each time. Raises NotYet at the deadline of the run, and
        Misconfigured where servers have denied the commands of every move for some seconds.
        """
        if not rejected:
            self._backoff = self._new_backoff()
        if not denied:
            self._denied_until = None
        elif self._denied_until is None and deadline.left_s > HOPELESS_S:
            self._denied_until = deadline.sooner(HOPELESS_S)
        limit = self._denied_until or deadline
        error: type[BootstrapError] = Misconfigured if self._denied_until else NotYet
        if rejected:
            why, give_up = partial(in_words, rejected), partial(error.because, rejected)
            self._backoff.wait("slots_not_moved", why, give_up, deadline=limit)

    def _new_backoff(self) -> Backoff:
        return Backoff(self.clock, self.log, longest_s=RETRY_PAUSE_MAX_S)
