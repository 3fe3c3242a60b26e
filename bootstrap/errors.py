"""The exception tree: every way in which a run can fail. The class decides the exit code, and the Job's retry policy
depends on the exit code.

BootstrapError
├── NotYet          1   unreachable, timed out, ended by a signal (Interrupted): the same run can succeed later
├── WrongUsage      2   the command line is wrong
├── Refused         3   continuing would risk data: a person decides
├── Misconfigured   4   a setting is wrong: a retry cannot succeed
├── Busy            0   another run is at work, and this one was told to leave then
├── ApiError        1   Kubernetes rejected a request (raised by `kube` alone)
│   ├── NotFound    1   the object does not exist
│   ├── Conflict    1   another client was first
│   └── Forbidden   4   the Job's account lacks a right: a retry cannot succeed
└── WireError       1   a server's answer could not be parsed (raised by `wire` alone)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

RUN_AGAIN = "run again: kubectl create job --from=cronjob/redis-bootstrap again-$(date +%s)"
"""The command for a new run. A Job's name can be used once, so the name contains the time."""
AGAIN = f"the Job retries by itself and continues from here; or {RUN_AGAIN}"
"""The remedy after exit code 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason why a run cannot continue: what is wrong, on which pod, and what a person can do about it."""

    code: str
    message: str
    remedy: str
    node: str | None = None

    def as_fields(self) -> dict[str, str]:
        """The reason as in the outcome line; without `node` where it is None."""
        fields = {"code": self.code, "message": self.message, "remedy": self.remedy}
        return fields if self.node is None else {**fields, "node": self.node}


class BootstrapError(Exception):
    """A run that could not reach its goal. `reasons` has one entry for each cause."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, reasons: tuple[Reason, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons

    @classmethod
    def because(cls, reasons: Sequence[Reason]) -> Self:
        """The error whose message joins the messages of its reasons."""
        return cls("; ".join(reason.message for reason in reasons), reasons=tuple(reasons))

    @property
    def remedy_field(self) -> dict[str, str]:
        """The remedy of the first reason, as a field of a log line; empty where there is none."""
        return {"remedy": self.reasons[0].remedy} if self.reasons else {}


class NotYet(BootstrapError):
    """Something is unreachable or took too long. The remedy is to run again."""

    exit_code = 1


class WrongUsage(BootstrapError):
    """The command line is wrong."""

    exit_code = 2


class Refused(BootstrapError):
    """Continuing would risk data. What the run wrote before, it has reported."""

    exit_code = 3


class Misconfigured(BootstrapError):
    """A setting, a file or a server is configured so that no retry can succeed."""

    exit_code = 4


class Busy(BootstrapError):
    """Another run is at work, and this one was told to leave in that case. That is no fault."""

    exit_code = 0


class Interrupted(NotYet):
    """A signal ended the run at a point where no write was in progress."""

    def __init__(self, signal_name: str) -> None:
        message = f"{signal_name} ended the run"
        reason = Reason(code="interrupted", message=message, remedy=AGAIN)
        super().__init__(message, reasons=(reason,))


class ApiError(BootstrapError):
    """Kubernetes did not answer in time, or answered with an error."""

    exit_code = 1


class NotFound(ApiError):
    """The object does not exist."""


class Conflict(ApiError):
    """The object exists already, or has changed since it was read."""


class Forbidden(ApiError):
    """The Job's account lacks the right for a request. A person has to grant it."""

    exit_code = 4


class WireError(BootstrapError):
    """The text that a server sent does not follow its protocol."""

    exit_code = 1
