"""One command, from flags and environment to the outcome. Only here an exception becomes an outcome."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TextIO

from bootstrap.clock import Clock
from bootstrap.config import Settings, declared, unknown_variables, variable_of
from bootstrap.errors import AGAIN, RUN_AGAIN, BootstrapError, Reason
from bootstrap.log import Log, is_console, logger
from bootstrap.model.outcome import Outcome
from bootstrap.model.view import ClusterView
from bootstrap.run.report import outcome_of, print_outcome
from bootstrap.run.session import session
from bootstrap.run.termination_message import write_termination_message
from bootstrap.run.verbs import Verbs


def run(verb: str, environ: Mapping[str, str], flags: Mapping[str, str], *, out: TextIO, clock: Clock) -> int:
    """Runs a verb and reports its outcome; returns the exit code. Raises BrokenPipeError where nobody reads `out`."""
    console = is_console(flags.get("log") or environ.get(variable_of("log"), "") or "auto", out)
    log = logger(console=console, out=out)
    command = Command(verb=verb, environ=environ, flags=flags, out=out, console=console, log=log, clock=clock)
    return command.run().exit_code


@dataclass(slots=True, kw_only=True)
class Command:
    """A verb with its flags and its environment."""

    verb: str
    environ: Mapping[str, str]
    flags: Mapping[str, str]
    out: TextIO
    console: bool
    log: Log
    clock: Clock
    _verbs: Verbs | None = None
    """None until the settings are read and the run is wired."""

    def run(self) -> Outcome:
        """Does the verb, then reports: the table, an Event, the last line, the termination message."""
        started_at = self.clock.now()
        with ExitStack() as connections:
            outcome = self._attempt(partial(self._do, connections), started_at)
            if self._verbs is not None:
                outcome = self._attempt(partial(self._verbs.show, outcome), started_at)
            print_outcome(outcome, console=self.console, log=self.log, out=self.out)
            write_termination_message(outcome, self._termination_message_file(), self.log)
        return outcome

    def _do(self, connections: ExitStack) -> Outcome:
        # Before the settings are read: a misspelt name may be why another one is wrong.
        for name in unknown_variables(self.environ):
            self.log.warning(
                "unknown_setting", name=name, remedy="python -m bootstrap apply --help lists every setting"
            )
        settings = Settings.from_env(self.environ, self.flags, verb=self.verb)
        self._verbs = connections.enter_context(
            session(settings, clock=self.clock, log=self.log, out=self.out, console=self.console)
        )
        verbs: Mapping[str, Callable[[], Outcome]] = {
            "apply": self._verbs.apply,
            "import": self._verbs.import_keys,
            "plan": self._verbs.plan,
            "reinit": self._verbs.reinit,
            "verify": self._verbs.verify,
        }
        return verbs[self.verb]()

    def _attempt(self, work: Callable[[], Outcome], started_at: float, *, last: bool = False) -> Outcome:
        """The outcome of the work, or of the error that ended it: whatever happens, the Job gets an outcome."""
        try:
            return work()
        except BrokenPipeError:
            raise
        except BootstrapError as error:
            exit_code = error.exit_code
            remedy = AGAIN if exit_code == 1 else RUN_AGAIN  # the Job retries only after exit code 1
            reasons = error.reasons or (Reason(code="failed", message=str(error), remedy=remedy),)
        except Exception as error:  # noqa: BLE001 - a fault of this program still has an outcome
            exit_code, reasons = 1, (_internal_error(error),)
        word = {0: "busy", 3: "refused"}.get(exit_code, "failed")
        if self._verbs is None or last:
            took_s = self.clock.now() - started_at
            return outcome_of(word, ClusterView(), exit_code=exit_code, steps=0, took_s=took_s, reasons=reasons)
        # What the run has seen and done belongs to the outcome, if the fault has left that readable.
        return self._attempt(partial(self._verbs.outcome, word, exit_code, reasons), started_at, last=True)

    def _termination_message_file(self) -> str:
        if self._verbs is not None:
            return self._verbs.settings.termination_message_file
        name = "termination_message_file"
        return self.flags.get(name) or self.environ.get(variable_of(name), "") or declared()[name]["shown"]


def _internal_error(error: Exception) -> Reason:
    """The reason for a fault in this program; the traceback goes to standard error."""
    traceback.print_exception(error)
    message = f"a fault in this program: {type(error).__name__}"
    remedy = "report it with the traceback, which is on standard error: kubectl logs POD"
    return Reason(code="internal", message=message, remedy=remedy)
