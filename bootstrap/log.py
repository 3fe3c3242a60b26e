"""The log: facts in the past tense, one line each, to standard output. JSON for machines, plain for a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, TextIO, cast

if TYPE_CHECKING:
    import structlog


class Log(Protocol):
    """Where a run says what happened; structlog's loggers fit."""

    def info(self, event: str, **fields: object) -> object:
        """Something happened as it should."""
        ...

    def warning(self, event: str, **fields: object) -> object:
        """Something happened that a person may want to know."""
        ...


def is_console(choice: str, out: TextIO) -> bool:
    """`console` and `json` mean themselves; `auto` is console on a terminal and JSON otherwise."""
    return choice == "console" or (choice == "auto" and out.isatty())


def logger(*, console: bool, out: TextIO = sys.stdout) -> Log:
    """A logger that writes whole lines to `out`, and flushes them: a killed run has said what it did."""
    import structlog  # not for --help, nor for those who need the protocol alone

    stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=20, sort_keys=False)
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    processors: list[structlog.typing.Processor] = [structlog.processors.add_log_level, stamp, _head_first, renderer]
    return cast("Log", structlog.wrap_logger(structlog.PrintLogger(out), processors=processors).bind())


def _head_first(_logger: object, _name: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """When, how bad and what come first on every line: that is where eyes look."""
    return {name: fields[name] for name in ("timestamp", "level", "event")} | dict(fields)
