"""What decides whether servers of two clusters can be members of one: modules, names, databases, and whether each
could log in where it would copy from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from redis.connection import Connection

from bootstrap.model.node import Address, Node, NodeId
from bootstrap.model.old_side import LoginTrouble, Traits
from bootstrap.model.view import ClusterView
from bootstrap.nodes import commands
from bootstrap.nodes.connection import DEFAULT_USER, Credentials, ask_all
from bootstrap.nodes.failures import Failure
from bootstrap.nodes.pool import ConnectionPool
from bootstrap.nodes.wire.info import parse_config
from bootstrap.nodes.wire.provisions import parse_acl_list

LOGIN_S = 1.5
"""Seconds in which a server has to answer a login."""

Users = Mapping[str, Sequence[str]]
"""ACL users and their rules; passwords are hashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one server says about itself."""

    traits: Traits
    login: tuple[str, str] | None = field(repr=False)
    """masteruser and masterauth; None where CONFIG is denied."""
    users: Users = field(repr=False)
    unknown: str = ""
    """What it does not tell; "" for nothing."""


def traits_of(connection: Connection) -> Answer:
    """Asks one server; a denied question leaves its trait at the default, and is named in `unknown`."""
    *configs, modules, acl = ask_all(connection, (*commands.TRAITS, commands.MODULE_LIST, commands.ACL_LIST))
    config: dict[str, str] = {}
    for reply in configs:
        config |= parse_config(reply)
    denied = any(isinstance(reply, Exception) for reply in configs)
    users = parse_acl_list(acl)
    unknown = [
        name for name, missing in (("CONFIG GET", denied), ("MODULE LIST", isinstance(modules, Exception))) if missing
    ]
    return Answer(
        traits=Traits(
            modules=frozenset(_module_names(modules)),
            hostname=config.get("cluster-announce-hostname", ""),
            prefers_names=config.get("cluster-preferred-endpoint-type") == "hostname",
            databases=int(config.get("cluster-databases", "1")),
            strict_rdb=config.get("rdb-version-check") == "strict",
        ),
        login=None if denied else (config.get("masteruser", ""), config.get("masterauth", "")),
        users=users or {},
        unknown=f"denies {', '.join(unknown)}" if unknown else "",
    )


def login_of(answer: Answer) -> Credentials | None:
    """The credentials with which a server copies from a master; None where it does not tell them."""
    if answer.login is None:
        return None
    user, password = answer.login
    return Credentials(username=user if password else "", password=password or None)


def failing_logins(
    view: ClusterView, logins: Mapping[NodeId, Credentials | None], tls: Credentials
) -> Iterator[LoginTrouble]:
    """Servers that could not copy from those of the other side. Servers with the same credentials are tried once."""
    for one, other in ((view.pods, view.old_nodes), (view.old_nodes, view.pods)):
        tried: dict[tuple[str, str | None], Node] = {}
        for node in one:
            if (login := logins.get(node.node_id)) is not None:
                tried.setdefault((login.username, login.password), node)
        for (user, password), node in tried.items():
            credentials = replace(tls, username=user, password=password)
            for master, why in zip(other, log_in([each.address for each in other], credentials), strict=True):
                if why:
                    yield LoginTrouble(replica=node.pod, master=master.pod, why=why)
                    break  # the others will say the same


def clients_locked_out(
    view: ClusterView, users: Mapping[NodeId, Users], credentials: tuple[Credentials, Credentials]
) -> Iterator[LoginTrouble]:
    """Passwords of the old cluster with which clients could not log in at a pod. Users that pods lack are given to
    them; the users of this program are no clients.
    """
    pods, old = credentials
    if old.password != pods.password or old.username != pods.username:
        for pod, why in zip(view.pods, log_in([pod.address for pod in view.pods], old), strict=True):
            if why:
                yield LoginTrouble(replica="", master=pod.pod, why=why)
                return
    ours = {old.username, pods.username} - {"", DEFAULT_USER}
    for owner in (node for node in view.old_nodes if node.slots):
        for pod in view.pods:
            theirs = users.get(pod.node_id, {})
            for name, rules in users.get(owner.node_id, {}).items():
                if name not in theirs or name in ours or "off" in rules or "nopass" in theirs[name]:
                    continue
                missing = {rule for rule in rules if rule.startswith("#")} - set(theirs[name])
                if missing or ("nopass" in rules and "nopass" not in theirs[name]):
                    yield LoginTrouble(replica="", master=pod.pod, why=f"the user {name} has another password there")
                    return


def log_in(places: Sequence[Address], credentials: Credentials) -> list[str]:
    """Why a login fails at each place; "" where it succeeds."""
    with closing(ConnectionPool(credentials, answer_limit_s=LOGIN_S)) as pool:
        answers = pool.run_each(dict.fromkeys(places, _ping))
        return [str(found) if isinstance(found := answers[place], Failure) else found for place in places]


def _ping(connection: Connection) -> str:
    (reply,) = ask_all(connection, (("PING",),))
    return str(reply) if isinstance(reply, Exception) else ""


def _module_names(reply: object) -> Iterator[str]:
    """MODULE LIST, in RESP2 a flat list of names and values for each module."""
    for entry in reply if isinstance(reply, list) else ():
        if isinstance(entry, list):
            pairs = dict(zip(map(str, entry[::2]), entry[1::2], strict=False))
            if "name" in pairs:
                yield str(pairs["name"])
