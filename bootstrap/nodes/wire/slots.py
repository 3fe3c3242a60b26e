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
    """The endpoint of every master with slots. Raises WireError."""
    try:
        return frozenset(_endpoint(*entry[2][:3]) for entry in reply)
    except (TypeError, LookupError) as error:
        raise WireError(f"{_SLOTS}: not a list of slots and their nodes") from error


def _endpoint(host: Any, port: Any, master: Any) -> Endpoint:
    """Redis sends a null for `unknown-endpoint`, and `?` for a host name that is not set."""
    text = "" if host is None else as_text(host)
    return Endpoint(
        node_id=node_id(as_text(master), _SLOTS), host=text, port=number(as_text(port), f"{_SLOTS}: a port")
    )
