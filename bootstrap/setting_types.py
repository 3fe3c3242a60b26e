"""TODO"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from bootstrap.model.node import Address

NODES_MAX = 1000
"""Redis's own advice for the size of one cluster."""
LABEL_MAX, NAME_MAX, PORT_NAME_MAX = 63, 253, 15
"""Characters of a DNS label, a DNS name (RFC 1035), and a port's name (RFC 6335)."""
PASSWORD_MAX = 65536
WEIGHT_MIN, WEIGHT_MAX = 0.01, 100.0
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)


class Secret(str):
    """A text that no log, exception or `repr` shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('…')"


def label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("is no DNS label (lower-case letters, digits and '-', at most 63)")
    return text


def port_name_label(text: str) -> str:
    if len(label(text)) > PORT_NAME_MAX:
        raise ValueError(f"is longer than {PORT_NAME_MAX} characters, which no port's name is")
    return text


def statefulset_name(text: str) -> str:
    if len(f"{label(text)}-{NODES_MAX}") > LABEL_MAX:
        raise ValueError(f"is so long that its pods' names have more than {LABEL_MAX} characters")
    return text


def optional_label(text: str) -> str:
    return "" if text == "none" else label(text)


def domain(text: str) -> str:
    return ".".join(label(part) for part in text.rstrip(".").split("."))


def whole_number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", text, re.ASCII):
            raise ValueError(f"is no whole number from {low} to {high}")
        if not low <= int(text) <= high:
            raise ValueError(f"is not between {low} and {high}")
        return int(text)

    return read


def number_between(low: float, high: float, unit: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"is not a number of {unit} between {low:g} and {high:g}")
        return number

    return read


def seconds(low: float, high: float) -> Callable[[str], float]:
    return number_between(low, high, "seconds")


def one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return text

    return read


def pod_weights(text: str) -> tuple[tuple[str, float], ...]:
    """`pod=weight`, several with commas or blanks between them."""
    found: dict[str, float] = {}
    for word in text.replace(",", " ").split():
        pod, _, weight = word.partition("=")
        number = float(weight) if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", weight, re.ASCII) else math.nan
        if not _LABEL.fullmatch(pod) or not WEIGHT_MIN <= number <= WEIGHT_MAX:
            raise ValueError(f"is not pod=weight, with a weight from {WEIGHT_MIN:g} to {WEIGHT_MAX:g}: {word!r}")
        if pod in found:
            raise ValueError(f"names {pod} twice")
        found[pod] = number
    return tuple(found.items())


def switch(text: str) -> bool:
    return one_of("on", "off")(text) == "on"


def name_server(text: str) -> Address:
    """`ip`, `ip:port` or `[ip]:port`; a name will not do, since the name server is what turns names into addresses."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif text.count(":") == 1:
        host, port = text.split(":")
    else:
        host, port = text, None
    try:
        return Address(str(ip_address(host)), whole_number(1, 65535)(port) if port is not None else 53)
    except ValueError:
        raise ValueError("is no address of the form ip, ip:port or [ip]:port") from None


def fingerprint(text: str) -> str:
    if text == "none":
        return ""
    if not re.fullmatch(r"[0-9a-f]{12}", text, re.ASCII):
        raise ValueError("is no fingerprint (12 hexadecimal digits, as `plan` shows it)")
    return text


def printable(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise ValueError("holds a control character")
    return text


def readable_file(text: str) -> Path:
    """A regular file, or a link to one: a pipe or a device would be read without end."""
    try:
        if not Path(text).is_file() and Path(text).exists():
            raise ValueError("is no regular file")
        with Path(text).open("rb"):
            return Path(text)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
