"""TLS: whom to trust and what to show; and which language a port speaks that does not answer in the one it is asked."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from redis.connection import SSLConnection

from bootstrap.errors import Misconfigured, Reason

_CA, _CERT, _KEY = "BOOTSTRAP_TLS_CA_FILE", "BOOTSTRAP_TLS_CERT_FILE", "BOOTSTRAP_TLS_KEY_FILE"


def connections(made: ssl.SSLContext) -> type[SSLConnection]:
    """redis-py's connection with a context of ours. Its own would also trust every authority that the machine trusts,
    which without a comparison of names is nearly everybody; and from Python 3.13 on it would refuse certificates that
    the servers and their own tools take.
    """

    class TlsConnection(SSLConnection):
        def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
            return made.wrap_socket(sock)

    return TlsConnection


def context(ca_file: Path, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """Trusts the authorities in one file and nobody else, and shows the certificate, if there is one. Names are not
    compared: nodes are reached and announced by IP. Raises Misconfigured that names the file at fault.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    try:
        made.load_verify_locations(cafile=ca_file)
    except (ssl.SSLError, OSError) as error:
        raise _fault(_CA, ca_file, _unreadable(error) or "holds no certificate") from error
    if cert_file and key_file:
        try:
            made.load_cert_chain(cert_file, key_file, password=_no_passphrase(key_file))
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise _fault(_KEY, key_file, f"is not the key of the certificate in {str(cert_file)!r}") from error
            raise _fault(_CERT, cert_file, f"holds no certificate, or {str(key_file)!r} holds no key") from error
        except OSError as error:  # it does not say which of the two
            raise _fault(_CERT, cert_file, f"or {str(key_file)!r} {_unreadable(error)}") from error
    return made


def diagnose_tls(host: str, port: int, tls: ssl.SSLContext | None, *, limit_s: float) -> str:
    """What keeps us apart from a port that gave no usable answer, where it is about TLS; "" where it is not, or where
    that cannot be told. Raises ssl.SSLError where the server itself objects.
    """
    if tls is None:
        return "it speaks TLS, and BOOTSTRAP_TLS_CA_FILE is not set" if _speaks_tls(host, port, limit_s) else ""
    if _answers_plainly(host, port, limit_s):
        return "it answers without TLS"
    _handshake(host, port, tls, limit_s)
    return ""


def _speaks_tls(host: str, port: int, limit_s: float) -> bool:
    """Whether a handshake gets a TLS answer, be it an alert. Nothing is sent on it, so nobody need be trusted."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    try:
        _handshake(host, port, anybody, limit_s)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
    return True


def _answers_plainly(host: str, port: int, limit_s: float) -> bool:
    """Whether it answers a PING without TLS: with a simple string or an error, as Redis does."""
    try:
        with socket.create_connection((host, port), timeout=limit_s) as plain:
            plain.sendall(b"PING\r\n")
            return plain.recv(1) in (b"+", b"-")
    except OSError:
        return False


def _handshake(host: str, port: int, tls: ssl.SSLContext, limit_s: float) -> None:
    """Connects and listens for a moment: in TLS 1.3 the server judges our certificate when our part is already over,
    and what we sent meanwhile would have its objection thrown away. Raises ssl.SSLError or OSError.
    """
    with socket.create_connection((host, port), timeout=limit_s) as plain, tls.wrap_socket(plain) as secured:
        secured.settimeout(limit_s / 4)
        try:
            secured.recv(1)
        except TimeoutError:
            return


def _no_passphrase(path: Path) -> Callable[[], str]:
    """Without this, OpenSSL would ask for it at the terminal, once a connection."""

    def ask() -> str:
        raise _fault(_KEY, path, "is encrypted, and nobody is there to give its passphrase")

    return ask


def _unreadable(error: OSError) -> str:
    return "" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"


def _fault(variable: str, path: Path, what: str) -> Misconfigured:
    message = f"{variable} {str(path)!r} {what}"
    reason = Reason(code="tls-files", message=message, remedy=f"set {variable} right; it names a file in PEM form")
    return Misconfigured(message, reasons=(reason,))
