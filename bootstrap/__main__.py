"""The command line and the wiring; the only place that exits.

python -m bootstrap apply | plan | verify | local
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TextIO

from bootstrap import __version__
from bootstrap.clock import SystemClock
from bootstrap.config import Settings, declared, flag_of, unknown_variables, variable_of
from bootstrap.errors import BootstrapError, NotYet, Reason
from bootstrap.model import ClusterView
from bootstrap.report import Outcome, outcome_of

VERBS: Mapping[str, str] = {
    "apply": "bring the cluster to the declared shape; changes nothing on a healthy one",
    "plan": "say what apply would do, and do nothing",
    "verify": "say whether every invariant of a good cluster holds",
}


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None, out: TextIO | None = None) -> int:
    """Runs one command; returns its exit code. argparse itself exits with 2 on wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(local="local" in argv).parse_args(argv)
    environ = os.environ if environ is None else environ
    out = sys.stdout if out is None else out
    if arguments.verb == "local":
        return _local(arguments, environ, out)
    flags = {name: value for name in declared() if (value := getattr(arguments, name)) is not None}
    return _verb(arguments.verb, environ, flags, out)


def _verb(verb: str, environ: Mapping[str, str], flags: Mapping[str, str], out: TextIO) -> int:
    from bootstrap.log import is_console, logger  # these load redis, dns and structlog: not for --help, nor for a typo
    from bootstrap.run import leave_termination_message, say, session

    clock = SystemClock()
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
                "verify": running.verify,
            }
            outcome = running.attempt(verbs[verb])
            running.report(outcome)
            return outcome.exit_code
    except BootstrapError as error:
        reasons = error.reasons or (Reason(code="failed", message=str(error), remedy="run again"),)
        exit_code = error.exit_code
    except Exception as error:  # noqa: BLE001 - a fault of this program: people need the traceback, the Job an outcome
        traceback.print_exc()
        message = f"a fault in this program: {type(error).__name__}"
        reasons = (Reason(code="internal", message=message, remedy="report it with the traceback above"),)
        exit_code = 1
    outcome = outcome_of(
        "failed", ClusterView(), exit_code=exit_code, steps=0, took_s=clock.now() - started_at, reasons=reasons
    )
    say(outcome, console=console, log=log, out=out)
    file = environ.get(variable_of("termination_message_file"), "") or declared()["termination_message_file"]["shown"]
    leave_termination_message(outcome, file, log)
    return exit_code


def _local(arguments: argparse.Namespace, environ: Mapping[str, str], out: TextIO) -> int:
    from bootstrap.local import command

    def apply(settings: Mapping[str, str]) -> int:
        return _verb("apply", {**environ, **settings}, {}, out)

    try:
        return command.run(arguments, apply=apply, out=out)
    except BootstrapError as error:
        print(f"{error}", file=sys.stderr)
        return error.exit_code


def _parser(*, local: bool) -> argparse.ArgumentParser:
    """`local` asks for that verb's own arguments too: their module is slow to load, and a Job never needs it."""
    parser = argparse.ArgumentParser(
        prog="python -m bootstrap",
        description="Forms and keeps a Redis Cluster: looks at every node, decides, does one safe thing at a time.",
        epilog="Exit codes: 0 good, 1 not yet: run again, 2 wrong usage, 3 refused: a person decides, 4 misconfigured.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    settings = _settings_parser()
    for verb, words in VERBS.items():
        verbs.add_parser(verb, help=words, description=words, parents=[settings])
    local_parser = verbs.add_parser("local", help="a real cluster on this machine, without Kubernetes")
    if local:
        from bootstrap.local import command

        command.add_arguments(local_parser)
    return parser


def _settings_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("settings", "each is also an environment variable; a flag wins over it")
    for name, setting in declared().items():
        text = f"{setting['help']} [{variable_of(name)}; default: {setting['shown']}]"
        group.add_argument(flag_of(name), dest=name, metavar="VALUE", help=text.replace("%", "%%"))
    return parser


def _stop(number: int, _frame: FrameType | None) -> None:
    """The first signal ends the run the orderly way; later ones must not interrupt that."""
    for caught in (signal.SIGTERM, signal.SIGINT):
        signal.signal(caught, signal.SIG_IGN)
    name = signal.Signals(number).name
    reason = Reason(code="interrupted", message=f"{name} ended the run", remedy="run again: it goes on from here")
    raise NotYet(reason.message, reasons=(reason,))


def _entry() -> int:
    if len(sys.argv) > 1 and sys.argv[1] in VERBS:  # `local` has its own way with signals
        signal.signal(signal.SIGTERM, _stop)
        signal.signal(signal.SIGINT, _stop)
    try:
        return main()
    except BrokenPipeError:  # whoever read this has gone (`| head`): no reason to complain, nor to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(_entry())
