"""Every way in which a run can end badly. The class decides the exit code, and the exit code is the Job's retry policy.

BootstrapError
├── NotYet          1   unreachable, timed out, ended by a signal (Interrupted): the same run may succeed later
├── WrongUsage      2   the command line makes no sense
├── Refused         3   going on would risk data: a person decides
├── Misconfigured   4   a setting is wrong: trying again cannot help
├── ApiError        1   Kubernetes did not do what it was asked (raised by `kube` alone)
│   ├── NotFound    1   there is no such object
│   ├── Conflict    1   somebody else was first
│   └── Forbidden   4   the Job's account lacks a right: trying again cannot help
└── WireError       1   a server's answer could not be understood (raised by `wire` alone)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason why a run cannot go on: what is wrong, where, and what a person can do about it."""

    code: str
    message: str
    remedy: str
    node: str | None = None

    def as_fields(self) -> dict[str, str]:
        """The reason as the outcome line shows it; `node` only where there is one."""
        fields = {"code": self.code, "message": self.message, "remedy": self.remedy}
        return fields if self.node is None else {**fields, "node": self.node}


class BootstrapError(Exception):
    """A run that could not reach its goal; `reasons` says why, one entry for each thing that is wrong."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, reasons: tuple[Reason, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons

    @classmethod
    def because(cls, reasons: Sequence[Reason]) -> Self:
        """The error whose message is that of its reasons."""
        return cls("; ".join(reason.message for reason in reasons), reasons=tuple(reasons))


class NotYet(BootstrapError):
    """Not yet: something is unreachable or took too long. Running again is the remedy."""

    exit_code = 1


class WrongUsage(BootstrapError):
    """The command line makes no sense."""

    exit_code = 2


class Refused(BootstrapError):
    """Going on would risk data; nothing was written."""

    exit_code = 3


class Misconfigured(BootstrapError):
    """A setting, a file or a server is set up so that no retry can succeed."""

    exit_code = 4


class Interrupted(NotYet):
    """A signal ended the run, at a place where nothing was left half told."""

    def __init__(self, signal_name: str) -> None:
        message = f"{signal_name} ended the run"
        reason = Reason(code="interrupted", message=message, remedy="run again: it goes on from here")
        super().__init__(message, reasons=(reason,))


class ApiError(BootstrapError):
    """Kubernetes did not answer in time, or with an error."""

    exit_code = 1


class NotFound(ApiError):
    """There is no such object."""


class Conflict(ApiError):
    """The object is there already, or has changed since it was read."""


class Forbidden(ApiError):
    """The Job's account may not do that. Only whoever grants rights can change it."""

    exit_code = 4


class WireError(BootstrapError):
    """The text that a server sent is not what its protocol promises."""

    exit_code = 1
