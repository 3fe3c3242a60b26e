"""The last proof: as a client, write, read and delete a short-lived key in every shard, as `redis-cli -c` does by hand.

It goes through the access Service where there is one, so it also proves that clients get in. Only a run that changed
something probes; a run on a healthy cluster writes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from itertools import count

from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry

from bootstrap.model import Address, ClusterView, NodeId
from bootstrap.nodes import ANSWER_LIMIT_S, Credentials
from bootstrap.slots import SlotSet

KEY_LIFE_MS = 10_000
"""A key that a killed probe leaves behind is gone after this."""


class ProbeFailed(Exception):
    """A client could not do what it should be able to; the text says which step, in which shard."""


def probe(view: ClusterView, doors: Sequence[Address], credentials: Credentials) -> int:
    """Enters through the first door that opens and probes every shard; returns how many it proved.

    Raises ProbeFailed with the first thing that a client could not do.
    """
    options = credentials.connection_options()
    try:
        client = RedisCluster(
            startup_nodes=[ClusterNode(door.host, door.port) for door in doors],
            socket_timeout=ANSWER_LIMIT_S,
            socket_connect_timeout=ANSWER_LIMIT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            driver_info=None,
            ssl=credentials.ca_file is not None,
            **options,
        )
    except (RedisError, OSError, ValueError) as error:
        raise ProbeFailed(f"no way in through {', '.join(map(str, doors))}: {_words(error)}") from error
    with client:
        keys = keys_for({node.node_id: node.slots for node in view.nodes if node.slots}, secrets.token_hex(8))
        for master, key in keys.items():
            _prove(client, view.name(master), key)
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


def _prove(client: RedisCluster, pod: str, key: str) -> None:
    step = "write"
    try:
        client.set(key, key, px=KEY_LIFE_MS)
        step = "read"
        if client.get(key) != key:
            raise ProbeFailed(f"a client read another value than it wrote in the shard of {pod}")
        step = "delete"
        client.delete(key)
    except (RedisError, OSError, ValueError) as error:
        raise ProbeFailed(f"a client could not {step} a key in the shard of {pod}: {_words(error)}") from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
