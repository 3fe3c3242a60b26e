"""Runs in a pod, with the redis-py of the Job's image. Prints the number of successes.

`write FROM TO`, `read FROM TO`: keys, through the Service gold-redis. `reach PORT ADDRESS…`: connections to addresses.
`endure SECONDS FROM`: writes keys all that time, and prints as JSON what a replica has too, and the longest pause.
`found NUMBERS`: reads the keys of that JSON list.
"""

import json
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

LIMIT_S = 5
EACH_S = 0.02
AUTH, TLS = Path("/etc/redis-auth"), Path("/etc/redis-tls")


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
    """A client that waits that long for an answer. Logs in and uses TLS if the Secrets for that are mounted."""
    known: dict[str, Any] = {"socket_timeout": limit_s, "socket_connect_timeout": limit_s}
    if (AUTH / "password").exists():
        known |= {key: (AUTH / key).read_text(encoding="utf-8") for key in ("username", "password")}
    if (TLS / "ca.crt").exists():
        files = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "tls.crt", "ssl_keyfile": "tls.key"}
        known |= {"ssl": True, "ssl_check_hostname": False}
        known |= {option: str(TLS / file) for option, file in files.items()}
    return RedisCluster("gold-redis", 6379, protocol=2, decode_responses=True, **known)


def endure(seconds: float, first: int) -> str:
    """Writes numbered keys one by one, each until it is acknowledged."""
    client, number, end = connected(1), first, time.monotonic() + seconds
    copied, longest_s, answered_at = list[int](), 0.0, time.monotonic()
    while time.monotonic() < end:
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
        case "found":
            print(found(json.loads(arguments[0])))
        case _:
            print(keys(verb, *map(int, arguments)))
