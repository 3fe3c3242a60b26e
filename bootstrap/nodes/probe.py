"""Client probe: write, read and delete a short-lived key in every shard, as `redis-cli -c` does by hand.

It connects through the access Service where there is one, so it also proves that clients can connect. A run on a
healthy cluster writes nothing: its probe is dry. It sends the same commands in a transaction that it discards, so that
servers check all that they check before they execute a command. So every later run finds what made a probe fail.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.retry import Retry

from bootstrap.clock import Clock, Deadline
from bootstrap.model.node import Address, NodeId
from bootstrap.model.slots import SlotSet
from bootstrap.model.unreachable import UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.nodes.commands import PROBE_COMMANDS
from bootstrap.nodes.connection import Credentials, checking_connection_class
from bootstrap.nodes.failures import chain_of, classify_error, error_text, server_error_text
from bootstrap.nodes.pool import ANSWER_LIMIT_S
from bootstrap.nodes.tls import name_mismatch
from bootstrap.nodes.trial import NoTransaction, try_out

_NOWHERE_ELSE: Mapping[tuple[str, int], Address] = {}
_DENIED = frozenset({UnreachableReason.DENIED, UnreachableReason.UNKNOWN_COMMAND})
KEY_LIFE_MS = 10_000
"""A key that a killed probe leaves behind expires after this."""
PROBE_LIMIT_S = 15.0
"""How long a whole probe may take: a socket's own limit never ends a server that sends a byte now and then."""


class ProbeFailed(Exception):
    """A client could not do what it should be able to do; the text names the step and the shard. `denied` where the
    server refuses a command as such: its user lacks a right, or the command is renamed. `other_name` has OpenSSL's
    words where the server's certificate is not valid for the host name that clients are sent to. `pod` is "" where the
    client reached no shard.
    """

    def __init__(self, text: str, *, pod: str = "", denied: bool = False, other_name: str = "") -> None:
        super().__init__(text)
        self.pod = pod
        self.denied = denied
        self.other_name = other_name


def probe(
    view: ClusterView,
    endpoints: Sequence[Address],
    credentials: Credentials,
    *,
    clock: Clock,
    sent_to: Mapping[tuple[str, int], Address] = _NOWHERE_ELSE,
    dry: bool = False,
) -> int:
    """Connects through the first endpoint that answers and probes every shard; returns the number of shards. `sent_to`
    has the addresses of host names, and of "" for a host that servers do not name. A `dry` probe executes nothing.

    Raises ProbeFailed with the first step that failed, and what `clock.check` raises.
    """
    ended: list[int | Exception] = []

    def run() -> None:
        try:
            ended.append(_probe(view, endpoints, credentials, sent_to, dry=dry))
        except Exception as error:  # noqa: BLE001 - a server that is not Redis makes redis-py raise anything
            ended.append(error)

    # A daemon thread: one that hangs in a socket delays neither this run nor the end of the program.
    thread = threading.Thread(target=run, name="probe", daemon=True)
    thread.start()
    limit = Deadline.after(PROBE_LIMIT_S, clock)
    while thread.is_alive() and not limit.passed:
        thread.join(0.1)
        clock.check()
    through = ", ".join(map(str, endpoints[:8]))
    match ended:
        case [int() as shards]:
            return shards
        case [ProbeFailed() as error]:
            raise error
        case [Exception() as error]:
            message = credentials.redact(server_error_text(error))
            text = f"a client cannot connect through {through}: {message}"
            raise ProbeFailed(text, denied=_is_denied(error), other_name=_other_name(error)) from error
        case _:
            raise ProbeFailed(f"a client cannot connect through {through}: no answer within {PROBE_LIMIT_S:g} s")


class _Client(RedisCluster):
    """redis-py asks where the keys stand in every command that the server has: a hundred kilobytes, a tenth of a short
    run (*measured*). This client asks for the commands that it sends.
    """

    def command(self, **_: object) -> dict[str, dict[str, Any]]:
        reply: dict[str, dict[str, Any]] = self.execute_command(*PROBE_COMMANDS)  # type: ignore[no-untyped-call]
        return reply


def _probe(
    view: ClusterView,
    endpoints: Sequence[Address],
    credentials: Credentials,
    sent_to: Mapping[tuple[str, int], Address],
    *,
    dry: bool,
) -> int:
    def remapped(place: tuple[str, int]) -> tuple[str, int]:
        found = sent_to.get((place[0] or "", place[1]))  # redis-py passes None for a host that is not named
        return (found.host, found.port) if found else place

    names = {(address.host, address.port): host for (host, _), address in sent_to.items() if host}
    client = _Client(
        # Only a client with a URL accepts a class of connections. It uses the other endpoints in the same way.
        url=f"redis://{endpoints[0]}",
        startup_nodes=[ClusterNode(endpoint.host, endpoint.port) for endpoint in endpoints[1:]],
        connection_class=checking_connection_class(credentials, names),
        socket_timeout=ANSWER_LIMIT_S,
        socket_connect_timeout=ANSWER_LIMIT_S,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        driver_info=None,
        address_remap=remapped,
        **credentials.connection_options(),
    )
    with client:
        keys = keys_for({node.node_id: node.slots for node in view.nodes if node.slots}, secrets.token_hex(8))
        for master, key in keys.items():
            (_try if dry else _prove)(client, view.name(master), key, credentials)
    return len(keys)


def keys_for(owners: Mapping[NodeId, SlotSet], token: str) -> Mapping[NodeId, str]:
    """One key per master, whose slot that master owns. With 16384 slots a few tries per shard find one."""
    found: dict[NodeId, str] = {}
    owner_of = {slot: master for master, slots in owners.items() for slot in slots}
    for number in count():
        key = f"bootstrap:probe:{token}:{number}"
        owner = owner_of.get(key_slot(key.encode()))
        if owner is not None and owner not in found:
            found[owner] = key
        if len(found) == len(owners) or number > 100 * 16384:
            return found
    raise AssertionError("count() never ends")


def _try(client: RedisCluster, pod: str, key: str, credentials: Credentials) -> None:
    """Like `_prove`, without executing anything. A user without the right to transactions only reads."""
    step = "reach"
    try:
        pool = client.get_redis_connection(client.get_node_from_key(key)).connection_pool
        connection = pool.get_connection()
        try:
            replies = try_out(connection, [("SET", key, key, "PX", KEY_LIFE_MS), ("GET", key), ("DEL", key)])
        except NoTransaction:
            replies, step = [], "read"
            client.get(key)
        finally:
            pool.release(connection)
    except Exception as error:
        raise _failed(step, pod, error, credentials) from error
    for step, reply in zip(("write", "read", "delete"), replies, strict=False):
        if isinstance(reply, Exception):
            raise _failed(step, pod, reply, credentials) from reply


def _prove(client: RedisCluster, pod: str, key: str, credentials: Credentials) -> None:
    step = "write"
    try:
        client.set(key, key, px=KEY_LIFE_MS)
        step = "read"
        found = client.get(key)
        step = "delete"
        client.delete(key)
    except Exception as error:
        raise _failed(step, pod, error, credentials) from error
    if found != key:
        raise ProbeFailed(f"a client read a different value than it wrote in the shard of {pod}")


def _failed(step: str, pod: str, error: Exception, credentials: Credentials) -> ProbeFailed:
    message = credentials.redact(error_text(error))
    text = f"a client could not {step} a key in the shard of {pod}: {message}"
    return ProbeFailed(text, pod=pod, denied=_is_denied(error), other_name=_other_name(error))


def _is_denied(error: Exception) -> bool:
    return any(classify_error(link).why in _DENIED for link in chain_of(error))


def _other_name(error: Exception) -> str:
    return next(filter(None, map(name_mismatch, chain_of(error))), "")
