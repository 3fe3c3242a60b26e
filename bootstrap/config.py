"""The settings of a run: read from flags and environment variables, checked, frozen.

A setting is declared once, as a field of `Settings`; its variable, its flag and its line in `--help` follow from it.
All faults are reported together, each with the name of its setting. An empty variable counts as unset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bootstrap.adopt_settings import AdoptSettings
from bootstrap.errors import Misconfigured, Reason
from bootstrap.import_settings import ImportSettings
from bootstrap.model.desired import Desired
from bootstrap.model.node import Address
from bootstrap.setting_faults import PREFIX, conflicts, fault, read_secret
from bootstrap.setting_types import (
    NODES_MAX,
    Secret,
    cluster_fingerprint,
    dns_domain,
    dns_label,
    dns_label_or_none,
    name_server_address,
    number_between,
    on_or_off,
    one_of,
    own_namespace,
    pod_weights,
    printable_text,
    readable_file,
    seconds,
    server_version,
    service_port_name,
    setting,
    statefulset_name,
    whole_number,
    without_login,
)

_REPORTED = "none: only report differences between nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(AdoptSettings, ImportSettings):
    """All settings of a run. A name that ends in `_s`, `_ms` or `_percent` states the unit."""

    service: str = setting("redis-service", dns_label, "headless Service whose DNS records list the pods")
    namespace: str = setting(
        "default", dns_label, "Kubernetes namespace of the Service and its pods", shown="the pod's own, else default"
    )
    cluster_domain: str = setting("cluster.local", dns_domain, "DNS domain of the Kubernetes cluster")
    port_name: str = setting("redis-port", service_port_name, "name of the Service's port, for the SRV lookup")
    statefulset: str = setting(
        "redis-app", statefulset_name, "StatefulSet of the pods; without SRV records, pods are looked up by its name"
    )
    port: int = setting(
        6379, whole_number(1, 65535), "port of the pods where there are no SRV records, and of the access Service"
    )
    nameserver: Address | None = setting(
        None, name_server_address, "address of the DNS server, as ip or ip:port", shown="from resolv.conf"
    )
    access_service: str = setting(
        "gold-redis",
        dns_label_or_none,
        "Service that clients connect to; the final probe uses it. none: probe the pods directly",
    )
    shards: int = setting(3, whole_number(3, NODES_MAX), "number of shards, each with one master")
    replicas_per_shard: int = setting(1, whole_number(0, NODES_MAX), "number of replicas of each master")
    deadline_s: float = setting(
        300.0, seconds(1, 86400), "time limit of the run in seconds; the time in which slots move does not count"
    )
    node_timeout_ms: int | None = setting(
        None,
        whole_number(100, 3_600_000),
        "cluster-node-timeout to set on every node, in milliseconds",
        shown="none: leave timeouts alone",
    )
    require_full_coverage: str = setting(
        "", one_of("yes", "no"), "cluster-require-full-coverage to set on every node, yes or no", shown=_REPORTED
    )
    allow_replica_migration: str = setting(
        "", one_of("yes", "no"), "cluster-allow-replica-migration to set on every node, yes or no", shown=_REPORTED
    )
    replace_replicas: str = setting(
        "off",
        one_of("off", "on", "with-a-gap"),
        "swap replicas that share a Kubernetes node or a zone with their master. on: only while each shard keeps a "
        "linked replica; with-a-gap: even if a shard has none meanwhile; off: never",
    )
    spread_masters: str = setting(
        "auto",
        one_of("auto", "off"),
        "fail masters over to replicas while one machine or zone has half of them or more. auto: not during a rollout",
    )
    rebalance: str = setting(
        "auto",
        one_of("auto", "on", "off"),
        "move slots until all shards have their share. auto: when a shard is off by more than the threshold; "
        "on: always; off: only when the number of shards changes",
    )
    threshold_percent: float = setting(
        10.0,
        number_between(0, 100, "percent"),
        "with rebalance auto: deviation of a shard from its share of slots that is tolerated, in percent",
    )
    weights: tuple[tuple[str, float], ...] = setting(
        (),
        pod_weights,
        "relative shares of slots, by a pod of the shard: redis-app-0=2,redis-app-4=0.5; all others count as 1",
        shown="none: all shards alike",
    )
    move_deadline_s: float = setting(
        3600.0, seconds(0.1, 604800), "time limit for moving slots in one run, in seconds; separate from the deadline"
    )
    confirm: str = setting(
        "",
        cluster_fingerprint,
        "reinit only: fingerprint of the cluster to wipe",
        shown="none: report what would be lost",
    )
    accept_loss: str = setting(
        "", cluster_fingerprint, "give up slots without any copy, in the cluster with this fingerprint", shown="none"
    )
    accept_takeover: str = setting(
        "", cluster_fingerprint, "replace missing masters that have this fingerprint: they do not run", shown="none"
    )
    kubernetes: str = setting(
        "auto",
        one_of("auto", "on", "off"),
        "use of the Kubernetes API (lock, Events, pods): on, off, or auto: in a pod with a service account",
    )
    lease: str = setting(
        "redis-bootstrap", dns_label, "name of the Lease that prevents two runs from writing at the same time"
    )
    upgrade_to: str = setting(
        "",
        server_version,
        "version of a planned upgrade, such as redis:8.2: report whether the servers can go there",
        shown="none",
        verbs=("plan", "verify"),
    )
    when_locked: str = setting(
        "wait",
        one_of("wait", "leave"),
        "while another run holds the Lease. wait: until the deadline; leave: end, with exit code 0, once that run is "
        "seen to be at work",
    )
    read_nodes: bool = setting(
        default=False,
        read=on_or_off,
        help_text="on or off: read zones that pods lack, and whether machines are Ready, from the Kubernetes nodes; "
        "needs the right to get nodes",
        shown="off",
    )
    role_labels: bool = setting(
        default=False,
        read=on_or_off,
        help_text="on or off: label the pods with redis-role and redis-shard; needs the right to patch pods",
        shown="off",
    )
    log: str = setting(
        "auto", one_of("auto", "json", "console"), "format of the log: json, console, or auto: console on a terminal"
    )
    termination_message_file: str = setting(
        "/dev/termination-log",
        printable_text,
        "file for the outcome, which Kubernetes shows as the container's termination message; only if it exists",
    )
    username: str = setting("", printable_text, "Redis ACL user; needs a password file", shown="none")
    password_file: Path | None = setting(None, readable_file, "file that contains the Redis password", shown="none")
    tls_ca_file: Path | None = setting(
        None, readable_file, "file with the CA certificates to trust; setting it turns TLS on", shown="none"
    )
    tls_cert_file: Path | None = setting(
        None, readable_file, "file with the client certificate, for mutual TLS", shown="none"
    )
    tls_key_file: Path | None = setting(None, readable_file, "file with the key of that certificate", shown="none")
    password: Secret | None = field(default=None, repr=False)
    """The content of `password_file`."""

    @property
    def desired(self) -> Desired:
        """The part of the settings that declares the shape of the cluster."""
        server_settings = {
            "cluster-require-full-coverage": self.require_full_coverage,
            "cluster-allow-replica-migration": self.allow_replica_migration,
        }
        return Desired(
            shards=self.shards,
            replicas_per_shard=self.replicas_per_shard,
            timeout_ms=self.node_timeout_ms,
            config={name: value for name, value in server_settings.items() if value},
            replace_replicas=self.replace_replicas,
            spread_masters=self.spread_masters,
            rebalance=self.rebalance,
            threshold_percent=self.threshold_percent,
            weights=dict(self.weights),
            accept_loss=self.accept_loss,
            accept_takeover=self.accept_takeover,
            adoption=self.adoption,
        )

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str], flags: Mapping[str, str] | None = None, *, verb: str = ""
    ) -> Settings:
        """Reads the settings: a flag wins over a variable, a variable over the default. Variables that `verb` does not
        have are left alone. `flags` has the names of the fields as keys. Raises Misconfigured, one reason per fault.
        """
        values: dict[str, Any] = {"namespace": own_namespace()}
        reasons: list[Reason] = []
        configured: dict[str, str] = {}
        for name, declaration in declared().items():
            source, text = flag_of(name), (flags or {}).get(name)
            if text is None:
                source, text = variable_of(name), environ.get(variable_of(name), "")
            if not text or (verb and declaration["verbs"] and verb not in declaration["verbs"]):
                continue
            configured[name] = source
            try:
                values[name] = declaration["read"](text)
            except ValueError as error:
                reasons.append(fault(source, f"{without_login(text)!r} {error}"))
        for name in ("password", "adopt_password", "import_password"):
            values[name] = read_secret(f"{name}_file", values, configured, reasons)
        sources = {name: variable_of(name) for name in declared()} | configured
        everything = {item.name: item.default for item in fields(cls)} | values
        reasons += conflicts(everything, sources, configured.keys())
        if reasons:
            raise Misconfigured.because(reasons)
        return cls(**values)


def declared() -> Mapping[str, Mapping[str, Any]]:
    """Every setting by its field name: `read` (text → value), `help`, `shown` (the default as people read it), and
    `verbs` that have it; none for all. Those of all verbs come first.
    """
    found = [item for item in fields(Settings) if item.metadata]
    return {
        item.name: {**item.metadata, "shown": item.metadata["shown"] or str(item.default)}
        for item in sorted(found, key=lambda item: bool(item.metadata["verbs"]))
    }


def variable_of(name: str) -> str:
    """`node_timeout_ms` → `BOOTSTRAP_NODE_TIMEOUT_MS`."""
    names = Settings.__dataclass_fields__[name].metadata["names"]
    return PREFIX + (names[0] if names else name.upper())


def flag_of(name: str) -> str:
    """`node_timeout_ms` → `--node-timeout-ms`."""
    names = Settings.__dataclass_fields__[name].metadata["names"]
    return names[1] if names else "--" + name.replace("_", "-")


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Variables with the prefix of the settings that are not settings: most likely misspelt names."""
    known = {variable_of(name) for name in declared()}
    return tuple(sorted(name for name in environ if name.startswith(PREFIX) and name not in known))
