"""Runs in a pod, with the redis-py of the Job's image, or outside of Kubernetes. Prints the number of successes.

`write FROM TO`, `read FROM TO`: keys, through the Service gold-redis. `reach PORT ADDRESS…`: connections to addresses.
`fill`, `look`: a key in every slot. `endure SECONDS FROM`: writes keys all that time, or until its input ends where
SECONDS is 0, and prints as JSON what a replica has too, and the longest pause.
`found NUMBERS`: reads the keys of that JSON list.
`stay`: connects and writes until its input ends, and prints as JSON what it has done and every error.
"""

import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as ConnectionLost
from redis.retry import Retry

LIMIT_S = 5
EACH_S = 0.02
OUTSIDE = json.loads(os.environ.get("E2E_OUTSIDE_CLIENT", "{}"))
"""Outside: `entry` [HOST, PORT], `secrets`, the directory with the Secrets, and `nodeports`, if pods are reached there:
the domain in which they have names, and the port of the first."""
ENTRY = OUTSIDE.get("entry", ["gold-redis", 6379])
AUTH, TLS = (Path(OUTSIDE.get("secrets", "/etc"), name) for name in ("redis-auth", "redis-tls"))
SLOTS = 16384


def keys(verb: str, first: int, last: int) -> int:
    """Writes or reads these keys."""
    if verb == "read":
        return found(range(first, last))
    client = connected(LIMIT_S)
    return sum(bool(client.set(f"key:{number}", f"value {number}")) for number in range(first, last))


def found(numbers: Iterable[int]) -> int:
    """How many of these keys have the value that was written."""
    client = connected(LIMIT_S)
    return sum(client.get(f"key:{number}") == f"value {number}" for number in numbers)


def connected(limit_s: float) -> RedisCluster:
    """A client that waits that long for an answer. Logs in and uses TLS if the Secrets for that are mounted.

    With TLS it compares the names in certificates, which is redis-py's default.
    """
    options = login(limit_s) | {"address_remap": node_port if "nodeports" in OUTSIDE else None}
    return RedisCluster(*ENTRY, **options)


def node_port(address: tuple[str, int]) -> tuple[str, int]:
    """The address outside for one that servers announce."""
    domain, first = OUTSIDE["nodeports"]
    pod = address[0].partition(".")[0]
    return f"{pod}.{domain}", first + int(pod.rpartition("-")[2])


def slots(verb: str) -> int:
    """Writes or reads a key in every slot, each on its own, as clients do."""
    client, numbers, free = connected(LIMIT_S), count(), set(range(SLOTS))
    done = 0
    while free:
        key = f"slot:{next(numbers)}"
        if (slot := key_slot(key.encode())) in free:
            free.remove(slot)
            done += bool(client.set(key, slot)) if verb == "fill" else client.get(key) == str(slot)
    return done


class Mounted(CredentialProvider):
    """Reads the Secret for every connection. Both keys are of one version of it."""

    def get_credentials(self) -> tuple[str, str]:
        """The name and the password."""
        version = (AUTH / "..data").resolve()
        name, password = ((version / key).read_text(encoding="utf-8") for key in ("username", "password"))
        return name, password


def login(limit_s: float) -> dict[str, Any]:
    """Options of redis-py, from the Secrets that are mounted."""
    known: dict[str, Any] = {"socket_timeout": limit_s, "socket_connect_timeout": limit_s}
    if (AUTH / "password").exists():
        known["credential_provider"] = Mounted()
    if (TLS / "ca.crt").exists():
        files = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "tls.crt", "ssl_keyfile": "tls.key"}
        known |= {"ssl": True, **{option: str(TLS / file) for option, file in files.items()}}
    return known | {"protocol": 2, "decode_responses": True}


def endure(seconds: float, first: int) -> str:
    """Writes numbered keys one by one, each until it is acknowledged."""
    client, number, end = connected(1), first, time.monotonic() + seconds
    copied, longest_s, answered_at = list[int](), 0.0, time.monotonic()
    ended = end_of_input() if not seconds else threading.Event()
    while not ended.is_set() if not seconds else time.monotonic() < end:
        try:
            client.set(f"key:{number}", f"value {number}")
            node = client.get_node_from_key(f"key:{number}")
            if client.execute_command("WAIT", 1, 200, target_nodes=node):
                copied.append(number)
        except (RedisError, RedisClusterException, AttributeError, OSError):
            time.sleep(EACH_S)
            continue
        now = time.monotonic()
        longest_s, answered_at, number = max(longest_s, now - answered_at), now, number + 1
        time.sleep(EACH_S)
    longest_s = max(longest_s, time.monotonic() - answered_at)
    return json.dumps({"copied": copied, "next": number, "longest_s": round(longest_s, 1)})


def stay() -> str:
    """Several times a second, a new client writes, and each server gets a new connection without a retry.

    A client and connections that have been there since the start are used as well.
    """
    ended = end_of_input()
    done, errors, closed = Counter[str](), list[str](), 0
    lasting = connected(LIMIT_S)
    held = {node.host: direct(node.host) for node in lasting.get_nodes()}

    def attempt(kind: str, call: Callable[[], Any]) -> None:
        try:
            call()
            done[kind] += 1
        except (RedisError, RedisClusterException, OSError) as error:
            errors.append(f"{time.strftime('%X')} {kind}: {type(error).__name__} {error}")

    def write_anew() -> None:
        client = connected(LIMIT_S)
        client.set("new", "value")
        client.close()

    def ping_anew(host: str) -> None:
        with direct(host) as client:
            client.ping()

    def ping_again(connection: Redis) -> None:
        nonlocal closed
        try:
            connection.ping()
        except AuthenticationError:
            raise
        except ConnectionLost:  # the server has closed it; the client connects again at once
            closed += 1
            connection.ping()

    while not ended.wait(EACH_S * 5):
        attempt("new client", write_anew)
        attempt("lasting client", lambda: lasting.set(f"key:{done['lasting client']}", "value"))
        for host, connection in held.items():
            attempt("new connection", partial(ping_anew, host))
            attempt("lasting connection", partial(ping_again, connection))
    return json.dumps({"done": done, "closed": closed, "errors": errors})


def end_of_input() -> threading.Event:
    """It is set when the input ends."""
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    return ended


def direct(host: str) -> Redis:
    """One connection to one server, never repeated."""
    return Redis(host, 6379, retry=Retry(NoBackoff(), 0), single_connection_client=True, **login(LIMIT_S))


def reach(port: int, *addresses: str) -> int:
    """The number of addresses that accept a connection."""
    reached = 0
    for address in addresses:
        with suppress(OSError), socket.create_connection((address, port), LIMIT_S):
            reached += 1
    return reached


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    match verb:
        case "reach":
            print(reach(int(arguments[0]), *arguments[1:]))
        case "endure":
            print(endure(float(arguments[0]), int(arguments[1])))
        case "fill" | "look":
            print(slots(verb))
        case "stay":
            print(stay())
        case "found":
            print(found(json.loads(arguments[0])))
        case _:
            print(keys(verb, *map(int, arguments)))
