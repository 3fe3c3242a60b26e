"""What an exception says about the server that caused it: the many ways of no answer, as one `Absence` each."""

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


@dataclass(frozen=True, slots=True)
class Failure:
    """No usable answer from an address: why, and in whose words."""

    why: UnreachableReason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.why.value} ({self.detail})" if self.detail else self.why.value


class NotANode(Exception):
    """The server answers, and its answer says that it is no cluster node."""

    def __init__(self, why: UnreachableReason) -> None:
        super().__init__(why.value)
        self.why = why


def words_of(error: object) -> str:
    """An error's words on one line, without characters that would move a terminal's cursor or colours."""
    line = " ".join(str(error).split()) or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in line)


def server_words_of(error: BaseException) -> str:
    """The server's own words where it gave some: redis-py's cluster client puts its own over them."""
    replies = [link for link in _chain_of(error) if isinstance(link, ResponseError)]
    return words_of(replies[-1] if replies else error)


def _chain_of(error: BaseException) -> list[BaseException]:
    """An error and what caused it, down to the first cause."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    return chain


def classify_error(error: BaseException) -> Failure:
    """What an exception says about a server; redis-py wraps the system's errors in its own, so the chain is walked."""
    detail = words_of(error)
    for link in _chain_of(error):
        match link:
            case NotANode():
                return Failure(link.why)
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                return Failure(
                    UnreachableReason.UNREACHABLE, detail
                )  # it hung up: so does a server that is about to end
            case ssl.SSLError():
                return Failure(UnreachableReason.TLS, _tls_words(link) or detail)
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
    return _silence_by_words(error, detail)


def _tls_words(error: ssl.SSLError) -> str:
    """OpenSSL's reason, and for the usual ones what it means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    reason = error.reason or ""
    return f"{reason}: {_TLS_REASONS[reason]}" if reason in _TLS_REASONS else reason


_TLS_REASONS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of the client, and none is set",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority that signed the client's certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client's certificate has expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the client's certificate",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
}


def _silence_by_words(error: BaseException, detail: str) -> Failure:
    """Errors that only their text tells apart."""
    if isinstance(error, ResponseError):
        if "cluster support disabled" in detail:
            return Failure(UnreachableReason.CLUSTER_OFF)
        if "AUTH" in detail:
            return Failure(UnreachableReason.WRONG_PASSWORD, detail)
        if detail.startswith("BUSY"):
            return Failure(UnreachableReason.BUSY)
        if "protected mode" in detail:
            return Failure(UnreachableReason.DENIED, "it is in protected mode")
        return Failure(UnreachableReason.NOT_REDIS, detail)
    if isinstance(error, WireError | InvalidResponse | ValueError | RecursionError | MemoryError):
        return Failure(UnreachableReason.NOT_REDIS, detail)
    if isinstance(error, RedisError | OSError):
        return Failure(UnreachableReason.UNREACHABLE, detail)
    return Failure(UnreachableReason.NOT_REDIS, detail)
