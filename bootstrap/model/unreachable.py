"""Peers that do not answer as a cluster node: why not, and what a person can do about it.

An unreachable peer is a fact of the view, not an exception. The reasons are the texts that people on call see most, so
each has a remedy that names the next command or the setting to change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from bootstrap.model.node import Address


class UnreachableReason(StrEnum):
    """Why a peer does not answer as a cluster node should; the value is the text for people."""

    NO_RECORD = "no DNS record"
    DNS_SILENT = "the DNS lookup failed"
    DNS_TRUNCATED = "the DNS answer is truncated"
    SERVICE_NAME = "the Service lists its pods without their names"
    CONNECTION_REFUSED = "connection refused"
    TIMEOUT = "no answer in time"
    UNREACHABLE = "not reachable"
    LOADING = "still loading its data"
    BUSY = "busy with a script"
    CLUSTER_OFF = "cluster mode is off"
    NEEDS_PASSWORD = "requires a password, and none is set"  # noqa: S105 - a reason, not a secret
    WRONG_PASSWORD = "rejects the user name or password"  # noqa: S105 - a reason, not a secret
    DENIED = "the Redis user may not run a required command"
    UNKNOWN_COMMAND = "does not know a required command"
    TOO_MANY_CLIENTS = "accepts no further client"
    SENTINEL = "is a Sentinel, not a cluster node"
    NOT_REDIS = "does not speak the Redis protocol"
    TLS = "the TLS handshake failed"
    AMBIGUOUS = "its DNS records do not identify one node"

    @property
    def code(self) -> str:
        """The word for machines: `no-record`, `wrong-password`."""
        return self.name.lower().replace("_", "-")

    @property
    def permanent(self) -> bool:
        """True where waiting alone cannot help: a setting has to change."""
        return self in _CHANGE

    @property
    def from_dns(self) -> bool:
        """True where the DNS, which caches, is what the peer fails with."""
        return self in _DNS

    @property
    def silent(self) -> bool:
        """True where no server answered anything; else something runs there, and may be the member."""
        return self in _SILENT


DNS_REMEDY = (
    "kubectl get pods -n kube-system -l k8s-app=kube-dns shows whether the cluster's DNS runs; BOOTSTRAP_NAMESERVER "
    "sets another DNS server"
)
_INSPECT = {
    UnreachableReason.NO_RECORD: "kubectl get pod {pod}; if there is no such pod, set the StatefulSet's replicas to "
    "BOOTSTRAP_SHARDS x (1 + BOOTSTRAP_REPLICAS_PER_SHARD); if there is one, kubectl describe pod {pod}",
    UnreachableReason.DNS_SILENT: DNS_REMEDY,
    UnreachableReason.CONNECTION_REFUSED: "the server does not run or listens on another port: kubectl logs {pod}, and "
    "kubectl logs {pod} --previous after a crash",
    UnreachableReason.TIMEOUT: "the server hangs, or a NetworkPolicy or firewall drops packets: kubectl logs {pod}; "
    "kubectl exec {pod} -- redis-cli ping; kubectl get networkpolicy",
    UnreachableReason.UNREACHABLE: "kubectl describe pod {pod}; kubectl logs {pod}; kubectl get networkpolicy",
    UnreachableReason.LOADING: "wait until the server has loaded its data: kubectl logs {pod} shows how far it is; a "
    "greater BOOTSTRAP_DEADLINE_S lets the run wait longer",
    UnreachableReason.BUSY: "wait until the script ends, or stop it: kubectl exec {pod} -- redis-cli SCRIPT KILL",
    UnreachableReason.TOO_MANY_CLIENTS: "maxclients is reached: kubectl exec {pod} -- redis-cli CLIENT LIST shows who "
    "is connected, as soon as one connection is free; raise maxclients in redis.conf, or stop the clients that do not "
    "close their connections",
    UnreachableReason.AMBIGUOUS: "wait until the DNS has caught up with the pods; if this stays, compare kubectl get "
    "endpointslices with kubectl get pods -o wide",
}
_CHANGE = {
    UnreachableReason.DNS_TRUNCATED: "allow TCP port 53 as well as UDP, from this pod to the cluster's DNS: kubectl "
    "get networkpolicy lists the policies (the component k8s/components/network-policy allows both); "
    "BOOTSTRAP_NAMESERVER sets another DNS server",
    UnreachableReason.SERVICE_NAME: "kubectl get statefulset {statefulset} -o yaml | grep serviceName shows the "
    "Service that gives the pods their names: set BOOTSTRAP_SERVICE to it, or correct serviceName, for which the "
    "StatefulSet is created again: kubectl delete statefulset {statefulset} --cascade=orphan; kubectl apply -k "
    "OVERLAY; kubectl rollout restart statefulset {statefulset}",
    UnreachableReason.CLUSTER_OFF: "set cluster-enabled yes in the redis.conf of {pod} and restart the pod: kubectl "
    "delete pod {pod}",
    UnreachableReason.NEEDS_PASSWORD: "set BOOTSTRAP_PASSWORD_FILE, and BOOTSTRAP_USERNAME for an ACL user; the "
    "component k8s/components/auth does both",
    UnreachableReason.WRONG_PASSWORD: "compare BOOTSTRAP_USERNAME and the content of BOOTSTRAP_PASSWORD_FILE with "
    "requirepass or the ACL users of the server, as an administrator: kubectl exec {pod} -- redis-cli CONFIG GET "
    "requirepass, and from Redis 6 on redis-cli ACL LIST",
    UnreachableReason.DENIED: "allow the user CLUSTER, INFO and CONFIG: kubectl exec {pod} -- redis-cli ACL LIST, as "
    "an administrator (with the component auth the rights are in k8s/components/auth/auth.sh); for a server without a "
    "password set protected-mode no",
    UnreachableReason.UNKNOWN_COMMAND: "a rename-command in the redis.conf of {pod} hides it, or a proxy answers: "
    "remove the rename-command lines for CLUSTER and INFO (an ACL user keeps others from them) and restart the pod: "
    "kubectl delete pod {pod}",
    UnreachableReason.SENTINEL: "the Service that BOOTSTRAP_SERVICE names selects Sentinels: change its selector to "
    "the pods of the cluster; kubectl get service --output=wide shows it",
    UnreachableReason.NOT_REDIS: "another program listens on that port: compare the Service's port that "
    "BOOTSTRAP_PORT_NAME names with kubectl describe pod {pod}",
    UnreachableReason.TLS: "compare BOOTSTRAP_TLS_CA_FILE, BOOTSTRAP_TLS_CERT_FILE and BOOTSTRAP_TLS_KEY_FILE with the "
    "server's certificates, and check that the port is its TLS port: kubectl logs {pod}",
}
_DNS = frozenset(
    {
        UnreachableReason.NO_RECORD,
        UnreachableReason.DNS_SILENT,
        UnreachableReason.DNS_TRUNCATED,
        UnreachableReason.SERVICE_NAME,
    }
)
_SILENT = _DNS | frozenset(
    {
        UnreachableReason.CONNECTION_REFUSED,
        UnreachableReason.TIMEOUT,
        UnreachableReason.UNREACHABLE,
    }
)

_ALIKE = frozenset({UnreachableReason.DNS_SILENT, UnreachableReason.TOO_MANY_CLIENTS})
PODS_SHOWN = 8
"""Pods in one message."""

_OTHER_NAMES = (
    "kubectl get statefulset,service,endpointslices shows whose pods these are: set BOOTSTRAP_STATEFULSET (now "
    "{statefulset}) to their StatefulSet, or BOOTSTRAP_SERVICE to the Service of {statefulset}"
)
_UNPROTECTED = (
    "the server has no password: unset BOOTSTRAP_PASSWORD_FILE, or give the servers the component k8s/components/auth; "
    "kubectl exec {pod} -- redis-cli CONFIG GET requirepass shows the server's setting"
)
_UNPROTECTED_REPLIES = ("without any password configured", "no password is set")
"""Parts of the replies of Redis 6 and newer, and of Redis 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreachablePeer:
    """A wanted peer that does not answer as it should."""

    pod: str
    ordinal: int
    why: UnreachableReason
    address: Address | None = None
    detail: str = ""
    """The server's, Kubernetes's or the operating system's own message, without secrets."""
    empty_service: tuple[str, str] | None = None
    """The name and the namespace of the Service if it lists no pod at all."""
    other_names: bool = False
    """The Service lists names that are not those of a pod of the StatefulSet."""
    overdue: bool = False
    """This run has waited for it for some seconds, so it is probably not just starting."""
    not_running: bool = False
    """Kubernetes has reported that no server runs in this pod. False where nothing is known: silence proves nothing."""
    machine: str = ""
    """The Kubernetes node that it is bound to, where that node is known not to be Ready."""
    claims: tuple[str, ...] = ()
    """The names of its PersistentVolumeClaims, where it is bound to such a node."""

    def __str__(self) -> str:
        where = f" at {self.address}" if self.address else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.pod}{where}: {self.why.value}{detail}"

    @property
    def remedy(self) -> str:
        """What a person can do about it: the next command or the setting to change."""
        if self.empty_service:
            name, namespace = self.empty_service
            return (
                f"kubectl get service,endpointslices -n {namespace} shows whether BOOTSTRAP_SERVICE={name} and "
                f"BOOTSTRAP_NAMESPACE={namespace} are right; if so, kubectl get pods -n {namespace} shows the pods"
            )
        if self.why is UnreachableReason.WRONG_PASSWORD and any(text in self.detail for text in _UNPROTECTED_REPLIES):
            return _UNPROTECTED.format(pod=self.pod)
        text = _OTHER_NAMES if self.other_names else (_CHANGE | _INSPECT)[self.why]
        return text.format(pod=self.pod, statefulset=self.pod.rpartition("-")[0])


def in_groups(peers: Iterable[UnreachablePeer]) -> list[tuple[UnreachablePeer, ...]]:
    """The peers, where those together that one setting or one server keeps from answering: the same reason in the same
    words, which waiting does not mend pod by pod. All others stand alone.
    """
    groups: dict[tuple[object, ...], list[UnreachablePeer]] = {}
    for number, peer in enumerate(peers):
        together = (
            peer.why in _CHANGE or peer.why in _ALIKE or (peer.why is UnreachableReason.NO_RECORD and peer.detail)
        )
        key = (peer.why, peer.detail, peer.remedy.replace(peer.pod, "")) if together else (number,)
        groups.setdefault(key, []).append(peer)
    return [tuple(group) for group in groups.values()]


def in_words(group: tuple[UnreachablePeer, ...]) -> str:
    """What a group of `in_groups` has in common, on one line."""
    first, *others = group
    if not others:
        return str(first)
    pods = ", ".join(peer.pod for peer in group[:PODS_SHOWN])
    more = f" and {len(group) - PODS_SHOWN} more" if len(group) > PODS_SHOWN else ""
    return f"{pods}{more}: {first.why.value}" + (f" ({first.detail})" if first.detail else "")
