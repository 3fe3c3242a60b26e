"""The last proof: as a client, write, read and delete a short-lived key in every shard, as `redis-cli -c` does by hand.

It goes through the access Service where there is one, so it also proves that clients get in. Only a run that changed
something probes; a run on a healthy cluster writes nothing.
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
from bootstrap.model.view import ClusterView
from bootstrap.nodes.client import ANSWER_LIMIT_S
from bootstrap.nodes.connection import Credentials, connections
from bootstrap.nodes.failures import server_words_of, words_of

KEY_LIFE_MS = 10_000
"""A key that a killed probe leaves behind is gone after this."""


PROBE_LIMIT_S = 15.0
"""How long one probe may take as a whole: a socket's own limit never ends for a door that drips bytes."""


class ProbeFailed(Exception):
    """A client could not do what it should be able to; the text says which step, in which shard."""


def probe(view: ClusterView, endpoints: Sequence[Address], credentials: Credentials, *, clock: Clock) -> int:
    """Enters through the first door that opens and probes every shard; returns how many it proved.

    Raises ProbeFailed with the first thing that a client could not do.
    """
    ended: list[int | Exception] = []

    def run() -> None:
        try:
            ended.append(_probe(view, endpoints, credentials))
        except Exception as error:  # noqa: BLE001 - redis-py's own, the system's, and what a stranger makes it raise
            ended.append(error)

    # A daemon: one that hangs in a socket neither holds up this run nor the end of the program.
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
            raise ProbeFailed(f"no way in through {through}: {credentials.redact(server_words_of(error))}") from error
        case _:
            raise ProbeFailed(f"no way in through {through}: no answer within {PROBE_LIMIT_S:g} s")


class _Client(RedisCluster):
    """Where the key stands in a command, redis-py asks of all commands at once: a hundred kilobytes, a tenth of a short
    run (*measured*). This client asks of those that it sends.
    """

    def command(self, **_: object) -> dict[str, dict[str, Any]]:
        told: dict[str, dict[str, Any]] = self.execute_command("COMMAND", "INFO", "SET", "GET", "DEL")  # type: ignore[no-untyped-call]
        return told


def _probe(view: ClusterView, endpoints: Sequence[Address], credentials: Credentials) -> int:
    client = _Client(
        # Only a client that is given a URL takes a kind of connection; the other doors are as good.
        url=f"redis://{endpoints[0]}",
        startup_nodes=[ClusterNode(door.host, door.port) for door in endpoints[1:]],
        connection_class=connections(credentials.tls_context()),
        socket_timeout=ANSWER_LIMIT_S,
        socket_connect_timeout=ANSWER_LIMIT_S,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        driver_info=None,
        **credentials.connection_options(),
    )
    with client:
        keys = keys_for({node.node_id: node.slots for node in view.nodes if node.slots}, secrets.token_hex(8))
        for master, key in keys.items():
            _prove(client, view.name(master), key, credentials)
    return len(keys)


def keys_for(owners: Mapping[NodeId, SlotSet], token: str) -> Mapping[NodeId, str]:
    """One key a master that hashes to a slot of its own. With 16384 slots a few tries a shard find one."""
    found: dict[NodeId, str] = {}
    owner_of = {slot: master for master, slots in owners.items() for slot in slots}
    for number in count():
        key = f"bootstrap:probe:{token}:{number}"
        owner = owner_of.get(key_slot(key.encode()))
        if owner is not None and owner not in found:
            found[owner] = key
        if len(found) == len(owners) or number > 100 * 16384:
            return found
    raise AssertionError("count() ends never")


def _prove(client: RedisCluster, pod: str, key: str, credentials: Credentials) -> None:
    step = "write"
    try:
        client.set(key, key, px=KEY_LIFE_MS)
        step = "read"
        found = client.get(key)
        step = "delete"
        client.delete(key)
    except Exception as error:
        words = credentials.redact(words_of(error))
        raise ProbeFailed(f"a client could not {step} a key in the shard of {pod}: {words}") from error
    if found != key:
        raise ProbeFailed(f"a client read another value than it wrote in the shard of {pod}")
