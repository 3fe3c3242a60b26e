"""Lets this process resolve the names of a testbed's zone, as a pod does by its resolv.conf.

Libraries are used as they are. Only the answers of the system's resolver are replaced.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from bootstrap.local.zone import Zone


@contextmanager
def resolved(zone: Zone) -> Iterator[None]:
    """Within this context, the system's resolver knows the pods of the zone and its Service by their absolute names."""
    service = zone.service_name.removesuffix(".")
    addresses = {f"{pod.name}.{service}": pod.addresses[0] for pod in zone.pods}
    addresses[service] = zone.pods[0].addresses[0]
    ask = socket.getaddrinfo

    def answer(host: Any, *arguments: Any, **options: Any) -> Any:
        return ask(addresses.get(host, host), *arguments, **options)

    with patch.object(socket, "getaddrinfo", answer):
        yield
