"""Faults of settings that one value alone does not show: files that cannot be read, and settings that contradict each
other. A fault becomes a reason that names the flag or variable it came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from bootstrap.errors import Reason
from bootstrap.setting_types import NAME_MAX, NODES_MAX, PASSWORD_MAX, Secret

PREFIX = "BOOTSTRAP_"


def read_secret(name: str, values: Mapping[str, Any], configured: Mapping[str, str], reasons: list[Reason]) -> Any:
    """The password in the file that the setting `name` states; None where it states none. A fault is added to
    `reasons`.
    """
    path = values.get(name)
    if path is None:
        return None
    source = configured[name]
    try:
        with path.open(encoding="utf-8") as file:
            password = file.read(PASSWORD_MAX + 1).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        reasons.append(fault(source, f"{str(path)!r} cannot be read: {why}"))
        return None
    if len(password) > PASSWORD_MAX:
        reasons.append(fault(source, f"{str(path)!r} is longer than {PASSWORD_MAX} characters"))
    if not password:
        reasons.append(fault(source, f"{str(path)!r} is empty"))
    return Secret(password)


def conflicts(value: Mapping[str, Any], source: Mapping[str, str], configured: AbstractSet[str]) -> Iterator[Reason]:
    """Rules about more than one setting. `value` has every setting, `source` the flag or variable of each, and
    `configured` those that are set. A setting with a fault of its own counts as configured, with its default.
    """
    nodes = value["shards"] * (1 + value["replicas_per_shard"])
    if nodes > NODES_MAX:
        yield fault(source["shards"], f"with {source['replicas_per_shard']} makes {nodes} nodes, over {NODES_MAX}")
    zone = f"{value['service']}.{value['namespace']}.svc.{value['cluster_domain']}"
    longest = max(f"{value['statefulset']}-{NODES_MAX}.{zone}", f"_{value['port_name']}._tcp.{zone}", key=len)
    if len(longest) > NAME_MAX:
        yield fault(source["cluster_domain"], f"makes DNS names of {len(longest)} characters, over {NAME_MAX}")
    for user, password in (("username", "password_file"), ("import_username", "import_password_file")):
        if user in configured and password not in configured:
            yield fault(source[user], f"is set without {source[password]}")
    pods = {f"{value['statefulset']}-{ordinal}" for ordinal in range(nodes)}
    if unknown := sorted({pod for pod, _ in value["weights"]} - pods):
        yield fault(source["weights"], f"names {', '.join(unknown)}, not among the {nodes} declared pods")
    if value["adopt_back"] and value["adopt_finish"]:
        yield fault(source["adopt_back"], f"and {source['adopt_finish']} are both on, and are opposites")
    if not value["adopt_from"]:
        # Only on the command line: in an overlay these values may stay when the old cluster is no longer named.
        for name in sorted(configured & {"adopt", "adopt_back", "adopt_finish"}):
            if value[name] and source[name].startswith("--"):
                yield fault(source[name], f"is set without {source['adopt_from']}, which names the old cluster")
    if "adopt_username" in configured and "adopt_password_file" not in configured:
        yield fault(source["adopt_username"], f"is set without {source['adopt_password_file']}")
    for tls in ("tls", "import_tls"):
        authorities, certificate, key = f"{tls}_ca_file", f"{tls}_cert_file", f"{tls}_key_file"
        for one, other in ((certificate, key), (key, certificate)):
            if one in configured and other not in configured:
                yield fault(source[other], "is not set: mutual TLS needs both the certificate and its key")
        if configured & {certificate, key} and authorities not in configured:
            yield fault(source[authorities], "is not set: TLS needs the CA certificates to trust")


def fault(source: str, what: str) -> Reason:
    """A setting with a fault, in words that follow its name."""
    where = " (in Kubernetes: kubectl edit configmap redis-bootstrap-settings)" if source.startswith(PREFIX) else ""
    remedy = f"correct {source}{where}; python -m bootstrap apply --help describes every setting"
    return Reason(code="setting", message=f"{source} {what}", remedy=remedy)
