"""Why the link of a replica to its master does not come up. The two servers are asked for their settings, and the login
of the replica is tried at the place from which it copies; its password is neither kept nor shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing
from functools import partial
from typing import Any

from redis.connection import Connection

from bootstrap.model.links import LinkCause, LinkTrouble, older
from bootstrap.model.node import Address, Node, NodeId
from bootstrap.model.unreachable import UnreachableReason
from bootstrap.nodes import tls
from bootstrap.nodes.connection import Credentials, ask_all, first_error
from bootstrap.nodes.failures import Failure, error_text
from bootstrap.nodes.pool import ConnectionPool
from bootstrap.nodes.wire import info

_OF_REPLICA = tuple(("CONFIG", "GET", name) for name in ("masterauth", "masteruser", "tls-replication"))
_RIGHTS = (("PING",), ("REPLCONF", "capa", "eof"), ("PSYNC", "?", "-1"))
"""What a replica sends, for ACL DRYRUN: a server since 7.0 answers without running it."""
_REFUSED = {
    UnreachableReason.NEEDS_PASSWORD: LinkCause.NO_PASSWORD,
    UnreachableReason.WRONG_PASSWORD: LinkCause.WRONG_PASSWORD,
    UnreachableReason.DENIED: LinkCause.NO_RIGHT,
    UnreachableReason.TOO_MANY_CLIENTS: LinkCause.TOO_MANY_CLIENTS,
}
PORT_LIMIT_S = 0.5
"""Seconds. A server in the same cluster answers within a few milliseconds."""


def diagnose(
    pairs: Mapping[NodeId, tuple[Node, Node]], broken_off: AbstractSet[NodeId], pool: ConnectionPool, own: Credentials
) -> Mapping[NodeId, LinkTrouble]:
    """The likely cause for each replica, with its master, that has had no link for a while. `broken_off`: replicas that
    began to copy more than once. A replica that does not answer is left out.
    """
    told = pool.run_each({replica.address: _settings for replica, _ in pairs.values()})
    found = {}
    for node_id, (replica, master) in pairs.items():
        settings = told[replica.address]
        if isinstance(settings, Failure):
            continue
        try_login = partial(_login, replica.replication.master or master.address, settings, own)
        cause, detail = (
            _on_the_way(replica, master, settings, try_login)
            or _of_rights(settings, master, pool)
            or (_of_copies(replica, master, pool, broken_off=node_id in broken_off))
        )
        found[node_id] = LinkTrouble(replica=node_id, cause=cause, detail=detail)
    return found


Found = tuple[LinkCause, str]
"""A cause, and what was seen."""


def _settings(connection: Connection) -> Mapping[str, str]:
    """How a replica logs in and connects; empty where the user may not read settings."""
    return {
        name: value for reply in ask_all(connection, _OF_REPLICA) for name, value in info.parse_config(reply).items()
    }


def _on_the_way(
    replica: Node, master: Node, settings: Mapping[str, str], try_login: Callable[[], Failure | None]
) -> Found | None:
    """What keeps the replica from getting in: TLS on one side alone, the login, or a full server."""
    place = replica.replication.master or master.address
    with_tls = settings.get("tls-replication")
    if with_tls == "yes" and tls.answers_plainly(place.host, place.port, PORT_LIMIT_S):
        return LinkCause.WITH_TLS, ""
    if with_tls == "no" and tls.speaks_tls(place.host, place.port, PORT_LIMIT_S):
        return LinkCause.WITHOUT_TLS, ""
    if "masterauth" not in settings or (failure := try_login()) is None:
        return None
    cause = _REFUSED.get(failure.why)
    return (cause, failure.detail) if cause else None


def _login(place: Address, settings: Mapping[str, str], own: Credentials) -> Failure | None:
    """Logs in as the replica does; None where the master lets it in."""
    login = Credentials(
        username=settings.get("masteruser", ""),
        password=settings["masterauth"] or None,
        ca_file=own.ca_file,
        cert_file=own.cert_file,
        key_file=own.key_file,
    )
    with closing(ConnectionPool(login, answer_limit_s=PORT_LIMIT_S)) as pool:
        answer = pool.run_each({place: lambda connection: _checked(ask_all(connection, (("PING",),)))})[place]
        return answer if isinstance(answer, Failure) else None


def _checked(replies: list[Any]) -> None:
    if error := first_error(replies):
        raise error


def _of_rights(settings: Mapping[str, str], master: Node, pool: ConnectionPool) -> Found | None:
    """What the replica's user may not do at the master. Servers before 7.0 do not tell."""
    user = settings.get("masteruser") or "default"
    commands = tuple(("ACL", "DRYRUN", user, *words) for words in _RIGHTS)
    replies = pool.run_each({master.address: partial(ask_all, commands=commands)})[master.address]
    told = [] if isinstance(replies, Failure) else [each for each in replies if isinstance(each, str)]
    denied = [each for each in told if "no permissions" in each]  # an error is about this program's own rights
    return (LinkCause.NO_RIGHT, f"{user}: {error_text(denied[0])}") if denied else None


def _of_copies(replica: Node, master: Node, pool: ConnectionPool, *, broken_off: bool) -> Found:
    """What keeps a replica that gets in from completing its copy."""
    if older(replica, master):
        return LinkCause.OLDER, f"{replica.version}, {master.version}"
    replies = pool.run_each({master.address: partial(ask_all, commands=_OF_MASTER)})[master.address]
    if isinstance(replies, Failure):
        return LinkCause.UNKNOWN, str(replies)
    persistence, limit = (replies[0] if isinstance(replies[0], str) else ""), info.parse_config(replies[1])
    if info.parse_info(persistence).get("rdb_last_bgsave_status") == "err":
        return LinkCause.NO_SNAPSHOT, ""
    if broken_off:
        buffers = limit.get("client-output-buffer-limit", "")
        return LinkCause.BROKEN_OFF, f"client-output-buffer-limit {buffers}" if buffers else ""
    return LinkCause.UNKNOWN, ""


_OF_MASTER = (("INFO", "persistence"), ("CONFIG", "GET", "client-output-buffer-limit"))
