"""Errors → reasons: why a server gave no usable answer. The system, the TLS library, redis-py and the parsers report
that in many exceptions; each becomes one `Failure`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from bootstrap.errors import WireError
from bootstrap.model.unreachable import UnreachableReason

_TLS_REASONS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server requires a client certificate, and none is set: set "
    "BOOTSTRAP_TLS_CERT_FILE and BOOTSTRAP_TLS_KEY_FILE",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not know the authority that signed the client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server does not accept the client certificate",
    "WRONG_VERSION_NUMBER": "the server does not speak TLS on this port",
}
"""What OpenSSL's most frequent reasons mean here."""


@dataclass(frozen=True, slots=True)
class Failure:
    """No usable answer from an address: the reason, and the message of the server or the library."""

    why: UnreachableReason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.why.value} ({self.detail})" if self.detail else self.why.value


class NotANode(Exception):
    """The server answers, and its answer shows that it is not a cluster node."""

    def __init__(self, why: UnreachableReason) -> None:
        super().__init__(why.value)
        self.why = why


def error_text(error: object) -> str:
    """An error's message on one line, without characters that would move a terminal's cursor or change its colours."""
    line = " ".join(str(error).split()) or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in line)


def server_error_text(error: BaseException) -> str:
    """The server's own message, where there is one: redis-py's cluster client wraps it in errors of its own."""
    replies = [link for link in chain_of(error) if isinstance(link, ResponseError)]
    return error_text(replies[-1] if replies else error)


def classify_error(error: BaseException) -> Failure:
    """The reason behind an exception. redis-py wraps the system's errors in its own, so the chain of causes decides."""
    detail = error_text(error)
    for link in chain_of(error):
        match link:
            case NotANode():
                return Failure(link.why)
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                # The server closed the connection, as one that shuts down does.
                return Failure(UnreachableReason.UNREACHABLE, detail)
            case ssl.SSLError():
                return Failure(UnreachableReason.TLS, _tls_text(link) or detail)
            case BusyLoadingError():
                return Failure(UnreachableReason.LOADING)
            case NoPermissionError():
                return Failure(UnreachableReason.DENIED, detail)
            case AuthenticationError():
                wanted = "NOAUTH" in (link.status_code or "") or "required" in detail
                return Failure(UnreachableReason.NEEDS_PASSWORD if wanted else UnreachableReason.WRONG_PASSWORD, detail)
            case ConnectionRefusedError():
                return Failure(UnreachableReason.CONNECTION_REFUSED)
            case TimeoutError() | RedisTimeoutError():
                return Failure(UnreachableReason.TIMEOUT)
    return _classify_text(error, detail)


def chain_of(error: BaseException) -> list[BaseException]:
    """An error and its causes, down to the first one."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    return chain


def _tls_text(error: ssl.SSLError) -> str:
    """OpenSSL's reason, and what the frequent ones mean."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {error.verify_message}"
    reason = error.reason or ""
    return f"{reason}: {_TLS_REASONS[reason]}" if reason in _TLS_REASONS else reason


def _classify_text(error: BaseException, detail: str) -> Failure:
    """Errors that differ in their text alone."""
    if isinstance(error, RedisError) and "max number of clients" in detail:
        return Failure(UnreachableReason.TOO_MANY_CLIENTS, detail)
    if isinstance(error, ResponseError):
        if "cluster support disabled" in detail:
            return Failure(UnreachableReason.CLUSTER_OFF)
        if "AUTH" in detail:
            return Failure(UnreachableReason.WRONG_PASSWORD, detail)
        if "unknown command" in detail:
            return Failure(UnreachableReason.UNKNOWN_COMMAND, detail)
        if detail.startswith("BUSY"):
            return Failure(UnreachableReason.BUSY)
        if "protected mode" in detail:
            return Failure(UnreachableReason.DENIED, "protected mode is on")
        return Failure(UnreachableReason.NOT_REDIS, detail)
    if isinstance(error, WireError | InvalidResponse | ValueError | RecursionError | MemoryError):
        return Failure(UnreachableReason.NOT_REDIS, detail)
    if isinstance(error, RedisError | OSError):
        return Failure(UnreachableReason.UNREACHABLE, detail)
    return Failure(UnreachableReason.NOT_REDIS, detail)
