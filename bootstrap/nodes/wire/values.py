"""Values that occur in several texts (numbers, node ids, addresses, slot ranges), and how an error quotes a text."""

from __future__ import annotations

import re
from ipaddress import ip_address

from bootstrap.errors import WireError
from bootstrap.model.node import Address, NodeId

QUOTE_MAX = 80
"""Characters of a server's text that an error quotes."""
_NODE_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_SLOT_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)


def is_number(text: str) -> bool:
    """True for 1 to 20 ASCII digits."""
    return _NUMBER.fullmatch(text) is not None


def number(text: str, what: str) -> int:
    """A non-negative number. Raises WireError that names `what`."""
    if not is_number(text):
        raise WireError(f"{what} is not a number: {quote(text)}")
    return int(text)


def node_id(text: str, where: str) -> NodeId:
    """40 hexadecimal digits. Raises WireError that names the reply in which they were expected."""
    if not _NODE_ID.fullmatch(text):
        raise WireError(f"{where}: not a node id: {quote(text)}")
    return text


def address(host: str, port: str) -> Address | None:
    """None for an unknown place: an empty host, port 0, or a host name instead of an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return None
    return Address(host, value) if 0 < (value := number(port, "a port")) < 65536 else None


def slot_range(text: str) -> tuple[int, int] | None:
    """`7` or `7-9` as its first and last number; None for anything else. The bounds are not checked."""
    found = _SLOT_RANGE.fullmatch(text)
    return (int(found[1]), int(found[2] or found[1])) if found else None


def name_values(text: str) -> dict[str, str]:
    """`a=1,b=2` as a mapping; parts without `=` are skipped."""
    return dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)


def as_text(value: object) -> str:
    """A value of a reply as text, whether or not the connection decodes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def quote(text: str) -> str:
    """The beginning of a text, in ASCII: a hostile reply must not flood the log or write control characters into it."""
    return ascii(text[:QUOTE_MAX])
