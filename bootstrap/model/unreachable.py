"""TODO"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bootstrap.model.node import Address


class UnreachableReason(StrEnum):
    """Why a peer does not answer as a cluster node should; the value is what a person reads."""

    NO_RECORD = "no DNS record"
    DNS_SILENT = "the DNS does not say"
    CONNECTION_REFUSED = "connection refused"
    TIMEOUT = "no answer in time"
    UNREACHABLE = "not reachable"
    LOADING = "loading its data"
    BUSY = "busy with a script"
    CLUSTER_OFF = "cluster mode is off"
    NEEDS_PASSWORD = "wants a password, and none is set"  # noqa: S105 - a reason, not a secret
    WRONG_PASSWORD = "does not accept the user or password"  # noqa: S105 - a reason, not a secret
    DENIED = "the user may not run a command that is needed"
    SENTINEL = "is a Sentinel, not a Redis node"
    NOT_REDIS = "does not speak Redis's protocol"
    TLS = "the TLS handshake failed"
    AMBIGUOUS = "its addresses do not tell which node it is"

    @property
    def code(self) -> str:
        """The word for machines: `no-record`, `wrong-password`."""
        return self.name.lower().replace("_", "-")

    @property
    def permanent(self) -> bool:
        """True where waiting alone cannot help: somebody has to change a setting."""
        return self in _SETTING_TO_CHANGE

    @property
    def remedy(self) -> str:
        """What a person can do about it."""
        return (_SETTING_TO_CHANGE | _TO_LOOK_AT).get(self, "see kubectl describe pod and kubectl logs, then run again")


_TO_LOOK_AT = {
    UnreachableReason.NO_RECORD: "is there such a pod? BOOTSTRAP_SHARDS x (1 + BOOTSTRAP_REPLICAS_PER_SHARD) must equal the "
    "StatefulSet's replicas; if so, see kubectl describe pod",
    UnreachableReason.DNS_SILENT: "see whether the cluster's DNS runs (namespace kube-system), or set BOOTSTRAP_NAMESERVER",
}
_SETTING_TO_CHANGE = {
    UnreachableReason.CLUSTER_OFF: "set cluster-enabled yes in its redis.conf",
    UnreachableReason.NEEDS_PASSWORD: "set BOOTSTRAP_PASSWORD_FILE, and BOOTSTRAP_USERNAME for an ACL user",
    UnreachableReason.WRONG_PASSWORD: "compare BOOTSTRAP_USERNAME and BOOTSTRAP_PASSWORD_FILE with the server's",
    UnreachableReason.DENIED: "let the user run CLUSTER, INFO and CONFIG; set protected-mode no where no password is set",
    UnreachableReason.SENTINEL: "BOOTSTRAP_SERVICE selects Sentinels: let it select the cluster's pods",
    UnreachableReason.NOT_REDIS: "see what listens on that port, and whether BOOTSTRAP_PORT_NAME names the right one",
    UnreachableReason.TLS: "compare BOOTSTRAP_TLS_CA_FILE, …_CERT_FILE and …_KEY_FILE with the server's; is its port a TLS port?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreachablePeer:
    """A peer that is wanted and does not answer as it should. A fact of the view, not an exception."""

    pod: str
    ordinal: int
    why: UnreachableReason
    address: Address | None = None
    detail: str = ""
    """The server's or the system's own words, without secrets."""

    def __str__(self) -> str:
        where = f" at {self.address}" if self.address else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.pod}{where}: {self.why.value}{detail}"
