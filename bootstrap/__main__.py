"""The command line and the wiring; the only place that exits.

python -m bootstrap apply | plan | verify | reinit | local
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TextIO

from bootstrap import __version__
from bootstrap.clock import SystemClock
from bootstrap.config import Settings, declared, flag_of, unknown_variables, variable_of
from bootstrap.errors import BootstrapError, Reason
from bootstrap.model.outcome import Outcome
from bootstrap.model.view import ClusterView
from bootstrap.run.report import outcome_of

VERBS: Mapping[str, str] = {
    "apply": "bring the cluster to the declared shape; changes nothing on a healthy one",
    "plan": "say what apply would do, and do nothing",
    "reinit": "wipe the cluster that --confirm names, and form it anew; without it, say what would be lost",
    "verify": "say whether every invariant of a good cluster holds",
}


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    out: TextIO | None = None,
    clock: SystemClock | None = None,
) -> int:
    """Runs one command; returns its exit code. argparse itself exits with 2 on wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(argv).parse_args(argv)
    environ = os.environ if environ is None else environ
    out = sys.stdout if out is None else out
    if arguments.verb == "local":
        return _local(arguments, environ, out, clock)
    flags = {name: value for name in declared() if (value := getattr(arguments, name)) is not None}
    return _verb(arguments.verb, environ, flags, out, clock)


def _verb(
    verb: str, environ: Mapping[str, str], flags: Mapping[str, str], out: TextIO, clock: SystemClock | None = None
) -> int:
    if "bootstrap.run.verbs" not in sys.modules:
        _load()
    from bootstrap.log import is_console, logger
    from bootstrap.run.verbs import internal_error, leave_termination_message, print_outcome, session

    clock = clock or SystemClock()
    started_at = clock.now()
    console = is_console(flags.get("log") or environ.get(variable_of("log"), "") or "auto", out)
    log = logger(console=console, out=out)
    try:
        settings = Settings.from_env(environ, flags)
        for name in unknown_variables(environ):
            log.warning("unknown_setting", name=name, remedy="--help lists every setting")
        with session(settings, clock=clock, log=log, out=out, console=console) as running:
            verbs: Mapping[str, Callable[[], Outcome]] = {
                "apply": running.apply,
                "plan": running.plan,
                "reinit": running.reinit,
                "verify": running.verify,
            }
            outcome = running.attempt(verbs[verb])
            running.report(outcome)
            return outcome.exit_code
    except BootstrapError as error:
        reasons = error.reasons or (Reason(code="failed", message=str(error), remedy="run again"),)
        exit_code = error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever happened, the Job gets an outcome
        reasons, exit_code = (internal_error(error),), 1
    took_s = clock.now() - started_at
    outcome = outcome_of("failed", ClusterView(), exit_code=exit_code, steps=0, took_s=took_s, reasons=reasons)
    print_outcome(outcome, console=console, log=log, out=out)
    file = flags.get("termination_message_file") or environ.get(variable_of("termination_message_file"), "")
    leave_termination_message(outcome, file or declared()["termination_message_file"]["shown"], log)
    return exit_code


def _load() -> None:
    """Redis, dns, structlog and the rest: not for --help, nor for a typo. They make no garbage while they load, and
    what they make stays. Without the collector's looking through it, again and again and at the end once more, a run on
    a healthy cluster takes a quarter less (*measured*).
    """
    gc.disable()
    import structlog  # noqa: F401 - for those who come later

    import bootstrap.run.verbs  # noqa: F401

    gc.freeze()
    gc.enable()


def _local(arguments: argparse.Namespace, environ: Mapping[str, str], out: TextIO, clock: SystemClock | None) -> int:
    from bootstrap.local import command

    def apply(settings: Mapping[str, str]) -> int:
        return _verb("apply", {**environ, **settings}, {}, out)

    try:
        return command.run(arguments, apply=apply, out=out, last=clock is not None)
    except BootstrapError as error:
        print(f"{error}", file=sys.stderr)
        return error.exit_code


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Of the verbs' own arguments only those that `argv` may be about: many settings take their time."""
    parser = argparse.ArgumentParser(
        prog="python -m bootstrap",
        description="Forms and keeps a Redis Cluster: looks at every node, decides, does one safe thing at a time.",
        epilog="Exit codes: 0 good, 1 not yet: run again, 2 wrong usage, 3 refused: a person decides, 4 misconfigured.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, words in VERBS.items():
        verb_parser = verbs.add_parser(verb, help=words, description=words)
        if verb in argv:
            _add_settings(verb_parser)
    local_parser = verbs.add_parser("local", help="a real cluster on this machine, without Kubernetes")
    if "local" in argv:
        from bootstrap.local import command

        command.add_arguments(local_parser)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings", "each is also an environment variable; a flag wins over it")
    for name, setting in declared().items():
        text = f"{setting['help']} [{variable_of(name)}; default: {setting['shown']}]"
        group.add_argument(flag_of(name), dest=name, metavar="VALUE", help=text.replace("%", "%%"))


def _entry() -> int:
    """The process: signals, and a standard output that may be missing, closed, or unable to say everything."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    clock = SystemClock()

    def stop(number: int, _frame: FrameType | None) -> None:
        clock.stop(signal.Signals(number).name)

    if len(sys.argv) > 1 and sys.argv[1] in VERBS:  # `local` has its own way with signals
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
    try:
        exit_code = main(clock=clock)
        sys.stdout.flush()
        for caught in (signal.SIGTERM, signal.SIGINT):  # the outcome is said: nothing may change the exit code now
            signal.signal(caught, signal.SIG_IGN)
    except (BrokenPipeError, OSError):  # whoever read this has gone (`| head`): nobody to complain to
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return exit_code


if __name__ == "__main__":
    sys.exit(_entry())
