"""Certificate authorities and certificates for the tests, valid or expired, made with the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OPENSSL = shutil.which("openssl")
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, its key, and the certificate of the authority that signed it, as PEM files."""

    cert: Path
    key: Path
    ca: Path

    def server_config(self, *, port: int = 6379, clients: str = "yes") -> tuple[str, ...]:
        """The lines of redis.conf for a server that uses only TLS, as in the component `tls`."""
        return (
            "port 0",
            f"tls-port {port}",
            "tls-cluster yes",
            "tls-replication yes",
            f"tls-auth-clients {clients}",
            f"tls-cert-file {self.cert}",
            f"tls-key-file {self.key}",
            f"tls-ca-cert-file {self.ca}",
        )

    def variables(self) -> dict[str, str]:
        """The variables with which the program uses it."""
        return {
            "BOOTSTRAP_TLS_CA_FILE": str(self.ca),
            "BOOTSTRAP_TLS_CERT_FILE": str(self.cert),
            "BOOTSTRAP_TLS_KEY_FILE": str(self.key),
        }


POD_NAMES = ("*.redis-service.default.svc.cluster.local", "redis-service.default.svc.cluster.local")
"""The names of the pods of a testbed and of their Service, in the cluster DNS."""


class Authority:
    """A certificate authority in a directory of its own. Of the optional extensions, its certificates have only the
    names of hosts, like those that people make by hand: no key usages and no key identifiers.
    """

    def __init__(self, directory: Path, name: str = "authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.ca, self._key = directory / "ca.crt", directory / "ca.key"
        _openssl("req", "-x509", *_KEY, "-nodes", "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.ca)

    def issue(
        self, name: str, *, days: int = 30, passphrase: str = "", hosts: Sequence[str] = POD_NAMES
    ) -> Certificate:
        """A certificate for servers and clients. `days` -1: it has expired. `passphrase`: its key is encrypted. It is
        valid for `hosts`, as the names of servers.
        """
        cert, key, request = (self.directory / f"{name}.{suffix}" for suffix in ("crt", "key", "csr"))
        encryption = ("-passout", f"pass:{passphrase}") if passphrase else ("-nodes",)
        _openssl("req", *_KEY, *encryption, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(f'DNS:{host}' for host in hosts)}\n")
        signing = ("-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-days", str(days), "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, *signing, "-out", cert)
        return Certificate(cert, key, self.ca)


def _openssl(*words: str | Path) -> None:
    subprocess.run([OPENSSL or "openssl", *words], check=True, capture_output=True, timeout=30)
