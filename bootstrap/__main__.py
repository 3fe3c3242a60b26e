"""The command line. Only this module ends the process of a verb.

python -m bootstrap apply | plan | verify | reinit | import | local
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TextIO

from bootstrap import __version__
from bootstrap.clock import SystemClock
from bootstrap.config import declared, flag_of, variable_of
from bootstrap.errors import BootstrapError

VERBS: Mapping[str, str] = {
    "apply": "bring the cluster to the declared shape; on a healthy cluster, change nothing",
    "import": "copy the keys of other servers (--from HOST:PORT) into the cluster: of a standalone server, of a "
    "Sentinel's master, or of a cluster",
    "plan": "show what apply would do, without doing it",
    "reinit": "wipe the cluster whose fingerprint --confirm states, and form it again; without --confirm, show what "
    "would be lost, and complete an unfinished formation without keys",
    "verify": "check every invariant of a good cluster, without changing anything",
}

_FLAGS_ALONE = frozenset({"import_replace"})
"""Settings whose flag without a value means `on`."""


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    out: TextIO | None = None,
    clock: SystemClock | None = None,
) -> int:
    """Runs one command; returns its exit code. On wrong usage argparse exits with 2."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(argv).parse_args(argv)
    environ = os.environ if environ is None else environ
    out = sys.stdout if out is None else out
    if arguments.verb == "local":
        return _local(arguments, environ, out, clock)
    flags = {name: value for name in declared() if (value := getattr(arguments, name, None)) is not None}
    return _run(arguments.verb, environ, flags, out, clock or SystemClock())


def _run(verb: str, environ: Mapping[str, str], flags: Mapping[str, str], out: TextIO, clock: SystemClock) -> int:
    if "bootstrap.run.command" not in sys.modules:
        _load()
    from bootstrap.run import command

    return command.run(verb, environ, flags, out=out, clock=clock)


def _load() -> None:
    """Loads redis, dns, structlog and the modules of a run, which `--help` does not need.

    The loaded modules contain no garbage and stay to the end. Without searches for garbage in them, while they load and
    later, a run on a healthy cluster takes a quarter less time (*measured*).
    """
    gc.disable()
    import structlog  # noqa: F401 - `log` imports it later

    import bootstrap.run.command  # noqa: F401

    gc.freeze()
    gc.enable()


def _local(arguments: argparse.Namespace, environ: Mapping[str, str], out: TextIO, clock: SystemClock | None) -> int:
    from bootstrap.local import command

    def apply(settings: Mapping[str, str]) -> int:
        return _run("apply", {**environ, **settings}, {}, out, SystemClock())

    try:
        return command.run(arguments, apply=apply, out=out, last=clock is not None)
    except BootstrapError as error:
        print(f"{error}", file=sys.stderr)
        return error.exit_code


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; a verb has its arguments only if `argv` contains the verb, since declaring them takes time."""
    parser = argparse.ArgumentParser(
        prog="python -m bootstrap",
        description="Forms, repairs and resizes a Redis Cluster: looks at every node, plans, makes one safe change at "
        "a time, and verifies the result.",
        epilog="Exit codes: 0 every invariant holds; 1 not yet: run again; 2 wrong usage; 3 refused: a person has to "
        "decide; 4 misconfigured.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, words in VERBS.items():
        verb_parser = verbs.add_parser(verb, help=words, description=f"{words[0].upper()}{words[1:]}.")
        if verb in argv:
            _add_settings(verb_parser, verb)
    local_parser = verbs.add_parser("local", help="run a real cluster on this machine, without Kubernetes")
    if "local" in argv:
        from bootstrap.local import command

        command.add_arguments(local_parser)
    return parser


def _add_settings(parser: argparse.ArgumentParser, verb: str) -> None:
    group = parser.add_argument_group("settings", "Each setting is also an environment variable; a flag wins over it.")
    for name, setting in declared().items():
        if setting["verbs"] and verb not in setting["verbs"]:
            continue
        text = f"{setting['help']} [{variable_of(name)}; default: {setting['shown']}]"
        added = group.add_argument(flag_of(name), dest=name, metavar="VALUE", help=text.replace("%", "%%"))
        if name in _FLAGS_ALONE:
            added.nargs, added.const = "?", "on"


def _entry() -> int:
    """Runs as a process: handles signals, and a standard output that is missing, closed or not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    clock = SystemClock()

    def stop(number: int, _frame: FrameType | None) -> None:
        clock.stop(signal.Signals(number).name)

    if len(sys.argv) > 1 and sys.argv[1] in VERBS:  # `local` handles signals by itself
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
    try:
        exit_code = main(clock=clock)
        sys.stdout.flush()
        for caught in (signal.SIGTERM, signal.SIGINT):  # the outcome is printed: the exit code must not change now
            signal.signal(caught, signal.SIG_IGN)
    except (BrokenPipeError, OSError):  # the reader of standard output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return exit_code


if __name__ == "__main__":
    sys.exit(_entry())
