"""Peers that do not answer as a cluster node should, with the reason and what a person can do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bootstrap.model.node import Address


class UnreachableReason(StrEnum):
    """Why a peer does not answer as a cluster node should. The value is the text that a person reads."""

    NO_RECORD = "no DNS record"
    DNS_SILENT = "the DNS server does not answer"
    CONNECTION_REFUSED = "connection refused"
    TIMEOUT = "no answer in time"
    UNREACHABLE = "not reachable"
    LOADING = "loading its data"
    BUSY = "busy with a script"
    CLUSTER_OFF = "cluster mode is off"
    NEEDS_PASSWORD = "requires a password, and none is set"  # noqa: S105 - a reason, not a secret
    WRONG_PASSWORD = "does not accept the user or password"  # noqa: S105 - a reason, not a secret
    DENIED = "the user lacks permission for a required command"
    SENTINEL = "is a Sentinel, not a Redis node"
    NOT_REDIS = "does not speak the Redis protocol"
    TLS = "the TLS handshake failed"
    AMBIGUOUS = "its addresses do not identify one node"

    @property
    def code(self) -> str:
        """The word for machines: `no-record`, `wrong-password`."""
        return self.name.lower().replace("_", "-")

    @property
    def permanent(self) -> bool:
        """True where waiting cannot help: a person has to change a setting."""
        return self in _SETTING_TO_CHANGE

    @property
    def remedy(self) -> str:
        """What a person can do about it."""
        return (_SETTING_TO_CHANGE | _TO_LOOK_AT).get(self, "see kubectl describe pod and kubectl logs, then run again")


_TO_LOOK_AT = {
    UnreachableReason.NO_RECORD: "check that the pod exists (kubectl get pods): BOOTSTRAP_SHARDS x (1 + "
    "BOOTSTRAP_REPLICAS_PER_SHARD) must equal the StatefulSet's replicas; if it exists, see kubectl describe pod",
    UnreachableReason.DNS_SILENT: "check that the cluster's DNS runs (kubectl --namespace kube-system get pods), or "
    "set BOOTSTRAP_NAMESERVER",
}
_SETTING_TO_CHANGE = {
    UnreachableReason.CLUSTER_OFF: "set cluster-enabled yes in its redis.conf",
    UnreachableReason.NEEDS_PASSWORD: "set BOOTSTRAP_PASSWORD_FILE, and BOOTSTRAP_USERNAME for an ACL user",
    UnreachableReason.WRONG_PASSWORD: "compare BOOTSTRAP_USERNAME and the file in BOOTSTRAP_PASSWORD_FILE with the "
    "server's user and password",
    UnreachableReason.DENIED: "allow the ACL user to run CLUSTER, INFO and CONFIG; without a password, set "
    "protected-mode no",
    UnreachableReason.SENTINEL: "BOOTSTRAP_SERVICE selects Sentinels: set it to the cluster's headless Service",
    UnreachableReason.NOT_REDIS: "check what listens on that port, and that BOOTSTRAP_PORT_NAME names the Redis port",
    UnreachableReason.TLS: "compare BOOTSTRAP_TLS_CA_FILE, …_CERT_FILE and …_KEY_FILE with the server's files, and "
    "check that its port is a TLS port",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreachablePeer:
    """A peer of the declared shape that does not answer as it should. A fact of the view, not an exception."""

    pod: str
    ordinal: int
    why: UnreachableReason
    address: Address | None = None
    detail: str = ""
    """The error text of the server or the operating system, without secrets."""

    def __str__(self) -> str:
        where = f" at {self.address}" if self.address else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.pod}{where}: {self.why.value}{detail}"
