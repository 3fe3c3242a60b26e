"""Why the link of a replica to its master does not come up. The two servers are asked for their settings, and the login
of the replica is tried at the place from which it copies; its password is neither kept nor shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

from redis.connection import Connection

from bootstrap.model.links import LinkCause, LinkTrouble, of_versions
from bootstrap.model.node import Address, Node, NodeId
from bootstrap.model.unreachable import UnreachableReason
from bootstrap.nodes import tls
from bootstrap.nodes.commands import PERSISTENCE, Command
from bootstrap.nodes.connection import Credentials, ask_all, first_error
from bootstrap.nodes.failures import Failure, error_text
from bootstrap.nodes.pool import ConnectionPool
from bootstrap.nodes.wire import info

PORT_LIMIT_S = 0.5
"""Seconds. A server in the same cluster answers within a few milliseconds."""
_WORKERS_MAX = 16
_OF_REPLICA: tuple[Command, ...] = tuple(
    ("CONFIG", "GET", name) for name in ("masterauth", "masteruser", "tls-replication", "rdb-version-check")
)
_BUFFER_LIMIT = "client-output-buffer-limit"
_OF_MASTER: tuple[Command, ...] = (PERSISTENCE, ("CONFIG", "GET", _BUFFER_LIMIT))
_SENT_BY_REPLICA: tuple[Command, ...] = (("PING",), ("REPLCONF", "capa", "eof"), ("PSYNC", "?", "-1"))
"""For ACL DRYRUN, with which a server since 7.0 tells whether a user may send a command, and does not run it."""
_REFUSED = {
    UnreachableReason.NEEDS_PASSWORD: LinkCause.NO_PASSWORD,
    UnreachableReason.WRONG_PASSWORD: LinkCause.WRONG_PASSWORD,
    UnreachableReason.DENIED: LinkCause.NO_RIGHT,
    UnreachableReason.TOO_MANY_CLIENTS: LinkCause.TOO_MANY_CLIENTS,
}

Settings = Mapping[str, str]
"""How a replica connects and logs in; empty where the user may not read settings."""
Found = tuple[LinkCause, str]
"""A cause, and what was seen."""


def diagnose(
    pairs: Mapping[NodeId, tuple[Node, Node]], broken_off: AbstractSet[NodeId], pool: ConnectionPool, own: Credentials
) -> Mapping[NodeId, LinkTrouble]:
    """The likely cause for each replica, with its master, that has had no link for a while. `broken_off`: replicas that
    began to copy more than once. A replica that does not answer is left out.
    """
    told = pool.run_each({replica.address: _settings for replica, _ in pairs.values()})
    known: dict[NodeId, Settings] = {}
    for node_id, (replica, _) in pairs.items():
        if not isinstance(settings := told[replica.address], Failure):
            known[node_id] = settings
    users: dict[Address, set[str]] = {}
    for node_id, settings in known.items():
        users.setdefault(pairs[node_id][1].address, set()).add(_user(settings))
    masters = pool.run_each({place: partial(_about_master, users=tuple(sorted(each))) for place, each in users.items()})

    def find(node_id: NodeId) -> LinkTrouble:
        replica, master = pairs[node_id]
        about = masters[master.address]
        cause, detail = (
            _elsewhere(replica, master)
            or _on_the_way(replica.replication.master or master.address, known[node_id], own)
            or _of_rights(_user(known[node_id]), about)
            or _of_copies(replica, master, known[node_id], about, broken_off=node_id in broken_off)
        )
        return LinkTrouble(replica=node_id, cause=cause, detail=detail)

    with ThreadPoolExecutor(max_workers=_WORKERS_MAX) as workers:
        return {trouble.replica: trouble for trouble in workers.map(find, known)}


def _settings(connection: Connection) -> Settings:
    replies = (info.parse_config(reply) for reply in ask_all(connection, _OF_REPLICA))
    return {name: value for each in replies for name, value in each.items()}


def _user(settings: Settings) -> str:
    return settings.get("masteruser") or "default"


AboutMaster = tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str]]
"""INFO persistence, settings, and by user what it may not do."""


def _about_master(connection: Connection, users: tuple[str, ...]) -> AboutMaster:
    persistence, limit = ask_all(connection, _OF_MASTER)
    denied: dict[str, str] = {}
    for user in users:
        replies = ask_all(connection, tuple(("ACL", "DRYRUN", user, *words) for words in _SENT_BY_REPLICA))
        # An error is about this program's own rights, or a server before 7.0 does not know the command.
        told = [reply for reply in replies if isinstance(reply, str) and "no permissions" in reply]
        denied |= {user: error_text(told[0])} if told else {}
    return info.parse_info(persistence if isinstance(persistence, str) else ""), info.parse_config(limit), denied


def _elsewhere(replica: Node, master: Node) -> Found | None:
    """A replica connects to the address that its master announces."""
    announced = master.myself.address
    if announced in (None, master.address) or replica.replication.master != announced:
        return None
    return LinkCause.ELSEWHERE, f"{announced}, not {master.address}"


def _on_the_way(place: Address, settings: Settings, own: Credentials) -> Found | None:
    """What keeps the replica from getting in: TLS on one side alone, the login, or a full server."""
    with_tls = settings.get("tls-replication")
    if with_tls == "yes" and tls.answers_plainly(place.host, place.port, PORT_LIMIT_S):
        return LinkCause.WITH_TLS, ""
    if with_tls == "no" and tls.speaks_tls(place.host, place.port, PORT_LIMIT_S):
        return LinkCause.WITHOUT_TLS, ""
    if "masterauth" not in settings or (failure := _login(place, settings, own)) is None:
        return None
    cause = _REFUSED.get(failure.why)
    return (cause, failure.detail) if cause else None


def _login(place: Address, settings: Settings, own: Credentials) -> Failure | None:
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


def _of_rights(user: str, about: AboutMaster | Failure) -> Found | None:
    denied = {} if isinstance(about, Failure) else about[2]
    return (LinkCause.NO_RIGHT, f"{user}: {denied[user]}") if user in denied else None


def _of_copies(replica: Node, master: Node, own: Settings, about: AboutMaster | Failure, *, broken_off: bool) -> Found:
    """What keeps a replica that gets in from completing its copy."""
    if cause := of_versions(replica, master, relaxed=own.get("rdb-version-check") == "relaxed"):
        return cause, f"{replica.version}, {master.version}"
    if isinstance(about, Failure):
        return LinkCause.UNKNOWN, str(about)
    persistence, settings, _ = about
    if persistence.get("rdb_last_bgsave_status") == "err":
        return LinkCause.NO_SNAPSHOT, ""
    if broken_off:
        return LinkCause.BROKEN_OFF, f"{_BUFFER_LIMIT} {settings.get(_BUFFER_LIMIT, 'unknown')}"
    return LinkCause.UNKNOWN, ""
