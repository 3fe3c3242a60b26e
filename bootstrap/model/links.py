"""Links of replicas to their masters that do not come up: the likely cause, as far as the two servers show it, and what
a person can do about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bootstrap.model.node import Node, NodeId
from bootstrap.model.versions import RELAXED, PathVerdict, copy_path


class LinkCause(StrEnum):
    """Why a link does not come up; the value is the text for people."""

    NO_PASSWORD = "the master requires a password, and masterauth is not set on the replica"  # noqa: S105 - no secret
    WRONG_PASSWORD = "the master rejects masterauth and masteruser of the replica"  # noqa: S105 - a cause, no secret
    NO_RIGHT = "masteruser of the replica lacks a right on the master"
    WITHOUT_TLS = "the replica connects without TLS (tls-replication no), and the master's port speaks TLS"
    WITH_TLS = "the replica connects with TLS (tls-replication yes), and the master's port answers without"
    ELSEWHERE = "the master announces another address than the one at which it answers, and the replica connects there"
    TOO_MANY_CLIENTS = "the master accepts no further client (maxclients)"
    OLDER = "the replica is older than its master, whose snapshots it cannot read"
    UNREADABLE = "the replica does not read the format of its master's snapshots"
    NO_SNAPSHOT = "the last snapshot of the master failed (rdb_last_bgsave_status:err)"
    BROKEN_OFF = (
        "each copy breaks off: the master's output buffer for the replica was full, or the replica could not write or "
        "load it"
    )
    UNKNOWN = "neither server shows the cause; a NetworkPolicy or firewall may block the way to the master's port"

    @property
    def setting(self) -> bool:
        """True where a setting has to change: a retry cannot succeed."""
        return self in _SETTINGS

    @property
    def lasting(self) -> bool:
        """True where the link does not come up before a person has done something."""
        return self in _SETTINGS or self.of_version

    @property
    def of_version(self) -> bool:
        """True where the versions of the two servers are the cause."""
        return self in (LinkCause.OLDER, LinkCause.UNREADABLE)


_SETTINGS = frozenset(
    {
        *(LinkCause.NO_PASSWORD, LinkCause.WRONG_PASSWORD, LinkCause.NO_RIGHT),
        *(LinkCause.WITHOUT_TLS, LinkCause.WITH_TLS, LinkCause.ELSEWHERE),
    }
)
_AUTH = (
    "set masterauth, and masteruser for an ACL user, to what the master accepts, in redis.conf or the Secret that it "
    "reads, and now: kubectl exec {replica} -- redis-cli CONFIG SET masterauth PASSWORD"
)
_TLS = (
    "set tls-replication in redis.conf the same way on all pods, to the way in which the servers listen: kubectl exec "
    "{replica} -- redis-cli CONFIG GET 'tls-*'"
)
_REMEDIES = {
    LinkCause.NO_PASSWORD: _AUTH,
    LinkCause.WRONG_PASSWORD: _AUTH,
    LinkCause.NO_RIGHT: "kubectl exec {master} -- redis-cli ACL SETUSER USER +psync +replconf +ping, and the same in "
    "users.acl",
    LinkCause.WITHOUT_TLS: _TLS,
    LinkCause.WITH_TLS: _TLS,
    LinkCause.ELSEWHERE: "correct cluster-announce-ip and cluster-announce-port of the master: kubectl exec {master} "
    "-- redis-cli CONFIG GET 'cluster-announce-*', CONFIG SET, and the same in redis.conf or the StatefulSet's args",
    LinkCause.TOO_MANY_CLIENTS: "raise maxclients in redis.conf, or stop the clients that do not close their "
    "connections: kubectl exec {master} -- redis-cli CLIENT LIST",
    LinkCause.OLDER: "finish the upgrade, replicas first: kubectl rollout status statefulset {statefulset}; a master "
    "that runs a newer version fails back with kubectl exec OLDER_POD -- redis-cli CLUSTER FAILOVER only while the "
    "versions read each other's data",
    LinkCause.UNREADABLE: "finish the change of the image, or take it back: kubectl rollout status statefulset "
    "{statefulset}, kubectl rollout undo statefulset/{statefulset}; Valkey 9.0 and newer read what Redis 7.4 and newer "
    f"write with {RELAXED} in redis.conf",
    LinkCause.NO_SNAPSHOT: "kubectl logs {master} --tail=50 shows why; make room on its disk, or raise its memory "
    "limit: kubectl exec {master} -- df -h /data",
    LinkCause.BROKEN_OFF: "kubectl logs {master} --tail=50: where it closed the replica for its output buffer, kubectl "
    "exec {master} -- redis-cli CONFIG SET client-output-buffer-limit 'replica 0 0 0', and a greater limit in "
    "redis.conf; else make room on the replica's disk and in its memory",
    LinkCause.UNKNOWN: "kubectl get networkpolicy; kubectl logs {master} --tail=50",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTrouble:
    """One replica whose link to its master does not come up."""

    replica: NodeId
    cause: LinkCause
    detail: str = ""
    """The master's own words, or what else was seen; without passwords."""

    @property
    def why(self) -> str:
        """The cause in words."""
        return f"{self.cause.value} ({self.detail})" if self.detail else self.cause.value


def remedy(cause: LinkCause, replica: str, master: str) -> str:
    """What to type next, for two pods; first the command that shows the log of the replica."""
    statefulset = replica.rpartition("-")[0]
    text = _REMEDIES[cause].format(replica=replica, master=master, statefulset=statefulset)
    return f"kubectl logs {replica} --tail=50 shows what the replica tries; {text}"


def of_versions(replica: Node, master: Node, *, relaxed: bool) -> LinkCause | None:
    """The cause where the version of the replica reads no snapshot of its master's. `relaxed`: the replica has the
    setting with which Valkey reads those of Redis.
    """
    verdict = copy_path(master.version, replica.version).verdict
    if verdict is PathVerdict.NO_WAY_BACK:
        return LinkCause.OLDER
    unreadable = verdict is PathVerdict.NOT_POSSIBLE or (verdict is PathVerdict.NEEDS_SETTING and not relaxed)
    return LinkCause.UNREADABLE if unreadable else None
