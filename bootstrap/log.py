"""The log: one line per fact, in the past tense, to standard output; JSON for machines, plain text on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, TextIO, cast

if TYPE_CHECKING:
    import structlog


class Log(Protocol):
    """The two methods of structlog's loggers that this program uses."""

    def info(self, event: str, **fields: object) -> object:
        """Logs a fact."""
        ...

    def warning(self, event: str, **fields: object) -> object:
        """Logs a fact that a person may have to act on."""
        ...


def is_console(choice: str, out: TextIO) -> bool:
    """Whether a log with this `log` setting is for a terminal; `auto` is, where `out` is one."""
    return choice == "console" or (choice == "auto" and out.isatty())


def logger(*, console: bool, out: TextIO = sys.stdout) -> Log:
    """A logger that writes whole lines to `out` and flushes each, so that no line of a killed run is lost."""
    import structlog  # here, not at the top: `--help` does not need it

    stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=20, sort_keys=False)
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    processors: list[structlog.typing.Processor] = [structlog.processors.add_log_level, stamp, _head_first, renderer]
    return cast("Log", structlog.wrap_logger(structlog.PrintLogger(out), processors=processors).bind())


def _head_first(_logger: object, _name: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Puts the time, the level and the event first on every line."""
    return {name: fields[name] for name in ("timestamp", "level", "event")} | dict(fields)
