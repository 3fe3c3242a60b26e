"""TLS: the context that decides which servers are trusted and what they are shown, and a diagnosis of ports where one
side speaks TLS and the other does not.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from redis.connection import SSLConnection

from bootstrap.errors import Misconfigured, Reason
from bootstrap.nodes.commands import INLINE_PING

_CA, _CERT, _KEY = "BOOTSTRAP_TLS_CA_FILE", "BOOTSTRAP_TLS_CERT_FILE", "BOOTSTRAP_TLS_KEY_FILE"
_NO_NAMES: Mapping[tuple[str, int], str] = {}
_HOSTNAME_MISMATCH = 62
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH."""


def connection_class(
    context: ssl.SSLContext,
    checking: ssl.SSLContext | None = None,
    names: Mapping[tuple[str, int], str] = _NO_NAMES,
) -> type[SSLConnection]:
    """redis-py's connection with this context. redis-py's own context would also trust every authority that the machine
    trusts, which without a comparison of names is nearly everybody. From Python 3.13 on it would also reject
    certificates that the servers and their own tools accept.

    The server at a host and port in `names` has to show a certificate for that name, which the context `checking`
    compares.
    """

    class TlsConnection(SSLConnection):
        def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
            name = names.get((self.host, self.port))
            if checking and name:
                return checking.wrap_socket(sock, server_hostname=name)
            return context.wrap_socket(sock)

    return TlsConnection


def name_mismatch(error: BaseException) -> str:
    """OpenSSL's words where the certificate is trusted, and is not valid for the name of the server; else ""."""
    mismatch = isinstance(error, ssl.SSLCertVerificationError) and error.verify_code == _HOSTNAME_MISMATCH
    return error.verify_message if mismatch else ""  # type: ignore[attr-defined]


def client_context(
    ca_file: Path, cert_file: Path | None, key_file: Path | None, *, check_names: bool = False
) -> ssl.SSLContext:
    """Trusts the authorities in one file and no others, and shows the certificate, if there is one. Without
    `check_names` it compares no name: nodes are reached by IP. Raises Misconfigured that names the faulty file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_names
    try:
        context.load_verify_locations(cafile=ca_file)
    except (ssl.SSLError, OSError) as error:
        raise _fault(_CA, ca_file, _unreadable(error) or "holds no certificate") from error
    if cert_file and key_file:
        try:
            context.load_cert_chain(cert_file, key_file, password=_no_passphrase(key_file))
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise _fault(_KEY, key_file, f"is not the key of the certificate in {str(cert_file)!r}") from error
            raise _fault(_CERT, cert_file, f"holds no certificate, or {str(key_file)!r} holds no key") from error
        except OSError as error:  # the error does not show which of the two files it is about
            raise _fault(_CERT, cert_file, f"or {str(key_file)!r} {_unreadable(error)}") from error
    return context


def diagnose_tls(host: str, port: int, context: ssl.SSLContext | None, *, limit_s: float) -> str:
    """Why a port gave no usable answer, where TLS on one side alone is the reason; "" where it is not, or where that
    cannot be found out. Raises ssl.SSLError where the server itself objects.
    """
    if context is None:
        return f"the server speaks TLS, and {_CA} is not set" if speaks_tls(host, port, limit_s) else ""
    if answers_plainly(host, port, limit_s):
        return f"the server answers without TLS on this port, and {_CA} is set"
    _handshake(host, port, context, limit_s)
    return ""


def speaks_tls(host: str, port: int, limit_s: float) -> bool:
    """Whether a handshake gets a TLS answer, be it an alert. Nothing is sent on it, so no trust is needed."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    try:
        _handshake(host, port, trusting, limit_s)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
    return True


def answers_plainly(host: str, port: int, limit_s: float) -> bool:
    """Whether it answers a PING without TLS: with a simple string or an error, as Redis does."""
    try:
        with socket.create_connection((host, port), timeout=limit_s) as plain:
            plain.sendall(INLINE_PING)
            return plain.recv(1) in (b"+", b"-")
    except OSError:
        return False


def _handshake(host: str, port: int, context: ssl.SSLContext, limit_s: float) -> None:
    """Connects and reads for a moment: in TLS 1.3 the server judges the client certificate when the client's part is
    already over, and its alert would be lost if anything were sent meanwhile. Raises ssl.SSLError or OSError.
    """
    with socket.create_connection((host, port), timeout=limit_s) as plain, context.wrap_socket(plain) as secured:
        secured.settimeout(limit_s / 4)
        try:
            secured.recv(1)
        except TimeoutError:
            return


def _no_passphrase(path: Path) -> Callable[[], str]:
    """Without this, OpenSSL would ask for a passphrase at the terminal, once per connection."""

    def ask() -> str:
        raise _fault(_KEY, path, "is encrypted, and this program has no passphrase for it")

    return ask


def _unreadable(error: OSError) -> str:
    return "" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"


def _fault(variable: str, path: Path, what: str) -> Misconfigured:
    message = f"{variable} {str(path)!r} {what}"
    remedy = f"set {variable} to the right file: PEM, not encrypted, readable by this program"
    return Misconfigured(message, reasons=(Reason(code="tls-files", message=message, remedy=remedy),))
