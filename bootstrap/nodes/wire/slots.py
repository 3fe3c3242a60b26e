"""The reply to CLUSTER SLOTS: where a server sends its clients. It is what clients follow, and may differ from where
the servers are.
"""

from __future__ import annotations

from typing import Any

from bootstrap.errors import WireError
from bootstrap.model.node import Endpoint
from bootstrap.nodes.wire.values import as_text, node_id, number

_SLOTS = "CLUSTER SLOTS"


def parse_cluster_slots(reply: Any) -> frozenset[Endpoint]:
    """The endpoint of every master with slots, and of its replicas. Raises WireError."""
    try:
        return frozenset(_endpoint(*node[:3]) for entry in reply for node in entry[2:])
    except (TypeError, LookupError) as error:
        raise WireError(f"{_SLOTS}: not a list of slots and their nodes") from error


def _endpoint(host: Any, port: Any, node: Any) -> Endpoint:
    """Redis sends a null for `unknown-endpoint`, and `?` for a host name that is not set."""
    text = "" if host is None else as_text(host)
    return Endpoint(node_id=node_id(as_text(node), _SLOTS), host=text, port=number(as_text(port), f"{_SLOTS}: a port"))
