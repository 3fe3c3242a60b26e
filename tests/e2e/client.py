"""Runs in a pod, with the redis-py of the Job's image. Prints the number of successes.

`write FROM TO`, `read FROM TO`: keys, through the Service gold-redis. `reach PORT ADDRESS…`: connections to addresses.
"""

import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis.cluster import RedisCluster

LIMIT_S = 5
AUTH, TLS = Path("/etc/redis-auth"), Path("/etc/redis-tls")


def keys(verb: str, first: int, last: int) -> int:
    """Writes or reads these keys. Logs in and uses TLS if the Secrets for that are mounted."""
    known: dict[str, Any] = {}
    if (AUTH / "password").exists():
        known |= {key: (AUTH / key).read_text(encoding="utf-8") for key in ("username", "password")}
    if (TLS / "ca.crt").exists():
        files = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "tls.crt", "ssl_keyfile": "tls.key"}
        known |= {"ssl": True, "ssl_check_hostname": False}
        known |= {option: str(TLS / file) for option, file in files.items()}
    client = RedisCluster("gold-redis", 6379, protocol=2, decode_responses=True, socket_timeout=LIMIT_S, **known)
    if verb == "write":
        return sum(bool(client.set(f"key:{number}", f"value {number}")) for number in range(first, last))
    return sum(client.get(f"key:{number}") == f"value {number}" for number in range(first, last))


def reach(port: int, *addresses: str) -> int:
    """The number of addresses that accept a connection."""
    reached = 0
    for address in addresses:
        with suppress(OSError), socket.create_connection((address, port), LIMIT_S):
            reached += 1
    return reached


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    print(reach(int(arguments[0]), *arguments[1:]) if verb == "reach" else keys(verb, *map(int, arguments)))
