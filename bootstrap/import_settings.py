"""The settings of the verb `import`: the source, and what is copied how."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bootstrap.model.node import Address
from bootstrap.setting_types import (
    Secret,
    database_map,
    on_or_off,
    printable_text,
    readable_file,
    seconds,
    setting,
    source_addresses,
)

_setting = partial(setting, verbs=("import",))


@dataclass(frozen=True, kw_only=True)  # without slots: `Settings` has several bases
class ImportSettings:
    """Settings that the verb `import` alone has."""

    import_from: tuple[Address, ...] = _setting(
        (),
        source_addresses,
        "import only: HOST:PORT of the servers to copy from: a standalone server, a Sentinel, or members of a cluster, "
        "of which one is enough",
        shown="none",
        names=("IMPORT_FROM", "--from"),
    )
    import_sentinel_name: str = _setting(
        "",
        printable_text,
        "import only: name of the master to copy from, where a Sentinel monitors several",
        shown="none",
        names=("IMPORT_SENTINEL_NAME", "--from-sentinel-name"),
    )
    import_username: str = _setting(
        "",
        printable_text,
        "import only: Redis ACL user of the source; needs a password file",
        shown="none",
        names=("IMPORT_USERNAME", "--from-username"),
    )
    import_password_file: Path | None = _setting(
        None,
        readable_file,
        "import only: file that contains the password of the source",
        shown="none",
        names=("IMPORT_PASSWORD_FILE", "--from-password-file"),
    )
    import_tls_ca_file: Path | None = _setting(
        None,
        readable_file,
        "import only: file with the CA certificates to trust at the source; setting it turns TLS on there",
        shown="none",
        names=("IMPORT_TLS_CA_FILE", "--from-tls-ca-file"),
    )
    import_tls_cert_file: Path | None = _setting(
        None,
        readable_file,
        "import only: file with the client certificate for the source, for mutual TLS",
        shown="none",
        names=("IMPORT_TLS_CERT_FILE", "--from-tls-cert-file"),
    )
    import_tls_key_file: Path | None = _setting(
        None,
        readable_file,
        "import only: file with the key of that certificate",
        shown="none",
        names=("IMPORT_TLS_KEY_FILE", "--from-tls-key-file"),
    )
    import_databases: tuple[tuple[int, int], ...] = _setting(
        (),
        database_map,
        "import only: which databases are copied, and into which: 0=0,3=1; no others are",
        shown="none: all, each into the same",
        names=("IMPORT_DATABASES", "--databases"),
    )
    import_replace: bool = _setting(
        default=False,
        read=on_or_off,
        help_text="import only: on or off: replace keys that the cluster has already; off leaves and counts them. The "
        "flag alone means on",
        shown="off",
        names=("IMPORT_REPLACE", "--replace"),
    )
    import_deadline_s: float = _setting(
        86400.0,
        seconds(0.1, 604800),
        "import only: time limit for copying in one run, in seconds; separate from the deadline",
        names=("IMPORT_DEADLINE_S", "--import-deadline-s"),
    )
    import_password: Secret | None = field(default=None, repr=False)
    """The content of `import_password_file`."""
