"""Settings: read from flags and environment, checked, frozen. Whatever is wrong is said at once, each with its name.

A setting is declared once, as a field of `Settings`; its variable, its flag and its line in `--help` follow from it.
An empty variable counts as unset, so that a ConfigMap can name a setting and leave it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bootstrap.errors import Misconfigured, Reason
from bootstrap.model.desired import Desired
from bootstrap.model.node import Address
from bootstrap.setting_types import (
    NAME_MAX,
    NODES_MAX,
    PASSWORD_MAX,
    Secret,
    domain,
    fingerprint,
    label,
    name_server,
    number_between,
    one_of,
    optional_label,
    pod_weights,
    port_name_label,
    printable,
    readable_file,
    seconds,
    statefulset_name,
    switch,
    whole_number,
)

PREFIX = "BOOTSTRAP_"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _setting(default: Any, read: Callable[[str], Any], help_text: str, *, shown: str | None = None) -> Any:
    return field(default=default, metadata={"read": read, "help": help_text, "shown": shown})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a run can be told. Units are in the names."""

    service: str = _setting("redis-service", label, "headless Service whose DNS lists the peers")
    namespace: str = _setting("default", label, "its namespace", shown="the pod's own, else default")
    cluster_domain: str = _setting("cluster.local", domain, "cluster DNS domain")
    port_name: str = _setting("redis-port", port_name_label, "named port for the SRV lookup")
    statefulset: str = _setting(
        "redis-app", statefulset_name, "StatefulSet whose pods are asked for by name where SRV gives nothing"
    )
    port: int = _setting(6379, whole_number(1, 65535), "port of those pods; where SRV answers, its port counts")
    nameserver: Address | None = _setting(
        None, name_server, "ip[:port] of the DNS server to ask", shown="from resolv.conf"
    )
    access_service: str = _setting(
        "gold-redis",
        optional_label,
        "Service through which clients come, for the final probe; none: straight to the peers",
    )
    shards: int = _setting(3, whole_number(3, NODES_MAX), "masters wanted")
    replicas_per_shard: int = _setting(1, whole_number(0, NODES_MAX), "replicas wanted for each master")
    deadline_s: float = _setting(300.0, seconds(1, 86400), "limit of the whole run, seconds")
    node_timeout_ms: int | None = _setting(
        None,
        whole_number(100, 3_600_000),
        "the declared cluster-node-timeout, milliseconds",
        shown="none: leave timeouts alone",
    )
    require_full_coverage: str = _setting(
        "",
        one_of("yes", "no"),
        "the declared cluster-require-full-coverage, yes or no",
        shown="none: only differences between nodes are told",
    )
    allow_replica_migration: str = _setting(
        "",
        one_of("yes", "no"),
        "the declared cluster-allow-replica-migration, yes or no",
        shown="none: only differences between nodes are told",
    )
    replace_replicas: str = _setting(
        "off",
        one_of("off", "on", "with-a-gap"),
        "exchange replicas that run on their master's node or in its zone; on: never leaving a shard without one",
    )
    rebalance: str = _setting(
        "auto",
        one_of("auto", "on", "off"),
        "even out the shards' slots; auto: beyond the threshold, on: to the last slot, off: only for another number",
    )
    threshold_percent: float = _setting(
        10.0,
        number_between(0, 100, "percent"),
        "how far a shard may be off its share of slots before it is evened out, percent",
    )
    weights: tuple[tuple[str, float], ...] = _setting(
        (),
        pod_weights,
        "shares of the slots that are not 1, each for the shard of a pod: redis-app-0=2,redis-app-4=0.5",
        shown="none: all alike",
    )
    move_deadline_s: float = _setting(
        3600.0, seconds(0.1, 604800), "how long slots may be moved in one run, seconds; beside the deadline"
    )
    confirm: str = _setting(
        "",
        fingerprint,
        "reinit only: wipe the cluster that has that fingerprint",
        shown="none: say what would be lost",
    )
    accept_loss: str = _setting(
        "", fingerprint, "give up slots of which no copy is left, in the cluster with that fingerprint", shown="none"
    )
    kubernetes: str = _setting("auto", one_of("auto", "on", "off"), "use the Kubernetes API: auto, on or off")
    lease: str = _setting("redis-bootstrap", label, "Lease that keeps two runs from writing at once")
    read_nodes: bool = _setting(
        default=False,
        read=switch,
        help_text="on or off: ask Nodes for the zones that pods do not tell; needs the right to get nodes",
        shown="off",
    )
    role_labels: bool = _setting(
        default=False,
        read=switch,
        help_text="on or off: label the pods with redis-role and redis-shard; needs the right to patch pods",
        shown="off",
    )
    log: str = _setting("auto", one_of("auto", "json", "console"), "auto, json or console; auto: console on a terminal")
    termination_message_file: str = _setting(
        "/dev/termination-log", printable, "where the outcome goes for Kubernetes to show; written only where it exists"
    )
    username: str = _setting("", printable, "Redis ACL user", shown="none")
    password_file: Path | None = _setting(None, readable_file, "file that holds the password", shown="none")
    tls_ca_file: Path | None = _setting(
        None, readable_file, "certificates to trust; setting it turns TLS on", shown="none"
    )
    tls_cert_file: Path | None = _setting(None, readable_file, "own certificate, for mutual TLS", shown="none")
    tls_key_file: Path | None = _setting(None, readable_file, "key of that certificate", shown="none")
    password: Secret | None = field(default=None, repr=False)

    @property
    def desired(self) -> Desired:
        """The declared shape, as the planner takes it."""
        return Desired(
            shards=self.shards,
            replicas_per_shard=self.replicas_per_shard,
            timeout_ms=self.node_timeout_ms,
            config={
                name: value
                for name, value in (
                    ("cluster-require-full-coverage", self.require_full_coverage),
                    ("cluster-allow-replica-migration", self.allow_replica_migration),
                )
                if value
            },
            replace_replicas=self.replace_replicas,
            rebalance=self.rebalance,
            threshold_percent=self.threshold_percent,
            weights=dict(self.weights),
            accept_loss=self.accept_loss,
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Settings:
        """The settings, flags before variables before defaults. Raises Misconfigured with every fault at once."""
        given: dict[str, Any] = {"namespace": _own_namespace()}
        reasons: list[Reason] = []
        told: set[str] = set()
        for name, setting in declared().items():
            source, text = flag_of(name), (flags or {}).get(name)
            if text is None:
                source, text = variable_of(name), environ.get(variable_of(name), "")
            if not text:
                continue
            told.add(name)
            try:
                given[name] = setting["read"](text)
            except ValueError as error:
                reasons.append(_fault(source, f"{text!r} {error}"))
        _read_password(given, reasons)
        reasons += _faults_together(given, told)
        if reasons:
            raise Misconfigured("; ".join(reason.message for reason in reasons), reasons=tuple(reasons))
        return cls(**given)


def declared() -> Mapping[str, Mapping[str, Any]]:
    """Every setting by its field name: how it is read, its help text, and its default as a person reads it."""
    return {
        item.name: {**item.metadata, "shown": item.metadata["shown"] or str(item.default)}
        for item in fields(Settings)
        if item.metadata
    }


def variable_of(name: str) -> str:
    """`node_timeout_ms` → `BOOTSTRAP_NODE_TIMEOUT_MS`."""
    return PREFIX + name.upper()


def flag_of(name: str) -> str:
    """`node_timeout_ms` → `--node-timeout-ms`."""
    return "--" + name.replace("_", "-")


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Variables that look like settings and are none: most likely a slip of the pen, so they are told, not ignored."""
    known = {variable_of(name) for name in declared()}
    return tuple(sorted(name for name in environ if name.startswith(PREFIX) and name not in known))


def _read_password(given: dict[str, Any], reasons: list[Reason]) -> None:
    path = given.get("password_file")
    if path is None:
        return
    try:
        with path.open(encoding="utf-8") as file:
            password = file.read(PASSWORD_MAX + 1).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        reasons.append(_fault(variable_of("password_file"), f"{str(path)!r} cannot be read: {why}"))
        return
    if len(password) > PASSWORD_MAX:
        reasons.append(_fault(variable_of("password_file"), f"{str(path)!r} is longer than {PASSWORD_MAX} characters"))
    if not password:
        reasons.append(_fault(variable_of("password_file"), f"{str(path)!r} is empty"))
    given["password"] = Secret(password)


def _faults_together(given: Mapping[str, Any], told: set[str]) -> Iterator[Reason]:
    """Rules that need more than one setting. One that was told wrong has its own fault, and counts as told here."""
    value: dict[str, Any] = {item.name: item.default for item in fields(Settings)} | dict(given)
    nodes = value["shards"] * (1 + value["replicas_per_shard"])
    if nodes > NODES_MAX:
        yield _fault("BOOTSTRAP_SHARDS", f"with BOOTSTRAP_REPLICAS_PER_SHARD makes {nodes} nodes, over {NODES_MAX}")
    zone = f"{value['service']}.{value['namespace']}.svc.{value['cluster_domain']}"
    longest = max(f"{value['statefulset']}-{NODES_MAX}.{zone}", f"_{value['port_name']}._tcp.{zone}", key=len)
    if len(longest) > NAME_MAX:
        yield _fault("BOOTSTRAP_CLUSTER_DOMAIN", f"makes names of {len(longest)} characters, over {NAME_MAX}")
    if "username" in told and "password_file" not in told:
        yield _fault(variable_of("username"), "is set without BOOTSTRAP_PASSWORD_FILE")
    pods = {f"{value['statefulset']}-{ordinal}" for ordinal in range(nodes)}
    if strangers := sorted({pod for pod, _ in value["weights"]} - pods):
        yield _fault("BOOTSTRAP_WEIGHTS", f"names {', '.join(strangers)}, and the shape has no such pod")
    for one, other in (("tls_cert_file", "tls_key_file"), ("tls_key_file", "tls_cert_file")):
        if one in told and other not in told:
            yield _fault(variable_of(other), "is not set: mutual TLS needs the certificate and its key")
    if told & {"tls_cert_file", "tls_key_file"} and "tls_ca_file" not in told:
        yield _fault(variable_of("tls_ca_file"), "is not set: TLS needs to know whom to trust")


def _fault(source: str, what: str) -> Reason:
    return Reason(code="setting", message=f"{source} {what}", remedy=f"set {source} right; --help lists every setting")


def _own_namespace() -> str:
    try:
        return label(_NAMESPACE_FILE.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return "default"
