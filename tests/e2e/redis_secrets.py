"""The Secrets that components need and a user creates, with new values for each namespace."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

OPENSSL_S = 30
OUTSIDE = "redis.example.com"
"""The domain in which pods have names outside of the cluster."""


def _auth(_: str) -> dict[str, str]:
    passwords = {key: secrets.token_hex(16) for key in ("password", "bootstrap-password", "server-password")}
    return {"username": "default", "bootstrap-username": "bootstrap", **passwords}


def names(namespace: str) -> str:
    """The names of servers for which a certificate is valid: the Service, and each pod."""
    return f"DNS:gold-redis,DNS:*.redis-service.{namespace}.svc.cluster.local,DNS:*.{OUTSIDE}"


def _tls(namespace: str) -> dict[str, str]:
    """One self-signed certificate for all pods."""
    with TemporaryDirectory() as temporary:
        key, certificate = Path(temporary, "tls.key"), Path(temporary, "tls.crt")
        files = ["-keyout", str(key), "-out", str(certificate), "-addext", f"subjectAltName={names(namespace)}"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command = ["openssl", "req", "-x509", *curve, "-days", "2", "-subj", "/CN=gold-redis", *files]
        subprocess.run(command, check=True, capture_output=True, timeout=OPENSSL_S)
        own = certificate.read_text(encoding="ascii")
        return {"tls.crt": own, "ca.crt": own, "tls.key": key.read_text(encoding="ascii")}


def issue_anew(directory: Path, namespace: str) -> None:
    """Writes new-ca.crt, and tls.crt and tls.key of that authority, with the extensions that strict clients require."""
    extensions = {
        "basicConstraints": "critical,CA:FALSE",
        "keyUsage": "critical,digitalSignature",
        "extendedKeyUsage": "serverAuth,clientAuth",
        "subjectAltName": names(namespace),
        "subjectKeyIdentifier": "hash",
        "authorityKeyIdentifier": "keyid",
    }
    lines = "".join(f"{key}={value}\n" for key, value in extensions.items())
    (directory / "extensions").write_text(lines, encoding="ascii")
    new_key = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    for command in (
        f"{new_key} -x509 -days 2 -subj /CN=new -addext keyUsage=critical,keyCertSign -keyout ca.key -out new-ca.crt",
        f"{new_key} -subj /CN=gold-redis -keyout tls.key -out request",
        "x509 -req -in request -CA new-ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out tls.crt",
    ):
        subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True, timeout=OPENSSL_S)


SECRETS: Mapping[str, Callable[[str], dict[str, str]]] = {"redis-auth": _auth, "redis-tls": _tls}
"""The content of each Secret, for a namespace."""
