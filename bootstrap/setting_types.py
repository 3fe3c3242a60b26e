"""The types of settings: each function turns a text into a value, or raises ValueError.

The error's text completes the sentence that begins with the setting's name and its value: "is not between 3 and 1000".
What a setting is called, and its default, is in `config`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bootstrap.model.node import Address
from bootstrap.model.rollout import version_of
from bootstrap.model.versions import parse

NODES_MAX = 1000
"""Nodes in one cluster; the Redis Cluster specification recommends no more."""
LABEL_MAX, NAME_MAX, PORT_NAME_MAX = 63, 253, 15
"""Characters of a DNS label, a DNS name (RFC 1035), and a port's name (RFC 6335)."""
PASSWORD_MAX = 65536
"""Characters."""
WEIGHT_MIN, WEIGHT_MAX = 0.01, 100.0
"""A shard's share of the slots, as a multiple of the share of a shard with weight 1."""
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)


def setting(
    default: Any,
    read: Callable[[str], Any],
    help_text: str,
    *,
    shown: str | None = None,
    names: tuple[str, str] | None = None,
    verbs: tuple[str, ...] = (),
) -> Any:
    """A field of `Settings`. `names`: its variable, without the prefix, and its flag, where the field has another name;
    `verbs`: those that have the flag, where not all have it.
    """
    about = {"read": read, "help": help_text, "shown": shown, "names": names, "verbs": verbs}
    return field(default=default, metadata=about)


class Secret(str):
    """A text that `repr` hides, so that neither a log line nor a traceback shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('…')"


def dns_label(text: str) -> str:
    """The name of a Kubernetes object or a part of a DNS name (RFC 1123): at most 63 characters."""
    if not _LABEL.fullmatch(text):
        raise ValueError("is not a DNS label (lower-case letters, digits and '-', at most 63 characters)")
    return text


def dns_label_or_none(text: str) -> str:
    """A DNS label; `none` gives ""."""
    return "" if text == "none" else dns_label(text)


def service_port_name(text: str) -> str:
    """The name of a Service's port: a DNS label of at most 15 characters (RFC 6335)."""
    if len(dns_label(text)) > PORT_NAME_MAX:
        raise ValueError(f"is longer than {PORT_NAME_MAX} characters, the limit for the name of a port")
    return text


def statefulset_name(text: str) -> str:
    """A DNS label short enough that the name of every pod, `NAME-ORDINAL`, is a DNS label too."""
    if len(f"{dns_label(text)}-{NODES_MAX}") > LABEL_MAX:
        raise ValueError(f"is too long: the names of its pods would have more than {LABEL_MAX} characters")
    return text


def dns_domain(text: str) -> str:
    """DNS labels with dots between them; a dot at the end is dropped."""
    return ".".join(dns_label(part) for part in text.rstrip(".").split("."))


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Makes a reader of whole numbers from `low` to `high`, in ASCII digits."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", text, re.ASCII):
            raise ValueError(f"is not a whole number from {low} to {high}")
        if not low <= int(text) <= high:
            raise ValueError(f"is not between {low} and {high}")
        return int(text)

    return read


def number_between(low: float, high: float, unit: str) -> Callable[[str], float]:
    """Makes a reader of numbers from `low` to `high`; the error's text names the unit."""

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
    """Makes a reader of a duration from `low` to `high` seconds."""
    return number_between(low, high, "seconds")


def one_of(*choices: str) -> Callable[[str], str]:
    """Makes a reader that takes exactly these words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return text

    return read


def pod_weights(text: str) -> tuple[tuple[str, float], ...]:
    """`POD=WEIGHT`, several of them separated by commas or blanks; each pod once."""
    found: dict[str, float] = {}
    for word in text.replace(",", " ").split():
        pod, _, weight = word.partition("=")
        number = float(weight) if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", weight, re.ASCII) else math.nan
        if not _LABEL.fullmatch(pod) or not WEIGHT_MIN <= number <= WEIGHT_MAX:
            raise ValueError(f"is not POD=WEIGHT with a weight from {WEIGHT_MIN:g} to {WEIGHT_MAX:g}: {word!r}")
        if pod in found:
            raise ValueError(f"names {pod} twice")
        found[pod] = number
    return tuple(found.items())


def source_addresses(text: str) -> tuple[Address, ...]:
    """`HOST:PORT`, several of them separated by commas or blanks. The host is a name or an IP address, an IPv6 one in
    brackets; without a port it is 6379. `none` gives no server.
    """
    if text == "none":
        return ()
    found = []
    for word in text.replace(",", " ").split():
        bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", word)
        host, colon, port = (bracketed[1], bracketed[2], bracketed[2]) if bracketed else word.partition(":")
        try:
            name = str(ip_address(host)) if bracketed else host_name(host)
            found.append(Address(name, whole_number(1, 65535)(port) if colon else 6379))
        except ValueError:
            raise ValueError(f"is not HOST:PORT, or several with commas: {without_login(word)!r}") from None
    if not found:
        raise ValueError("names no server")
    return tuple(dict.fromkeys(found))


def without_login(text: str) -> str:
    """A text without what may be a user and a password in an address: `redis://:secret@host`."""
    return re.sub(r"[^\s,]*@", "…@", text)


def host_name(text: str) -> str:
    """A name that resolves to an address, or an IPv4 address."""
    if len(text) > NAME_MAX or not re.fullmatch(r"[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_.])?", text, re.ASCII):
        raise ValueError("is not a host name")
    return text


def database_map(text: str) -> tuple[tuple[int, int], ...]:
    """`SOURCE=TARGET`, several of them separated by commas or blanks; each number once on each side."""
    found: dict[int, int] = {}
    for word in text.replace(",", " ").split():
        if not (numbers := re.fullmatch(r"([0-9]{1,5})=([0-9]{1,5})", word, re.ASCII)):
            raise ValueError(f"is not SOURCE=TARGET, such as 0=0: {word!r}")
        source, target = int(numbers[1]), int(numbers[2])
        if source in found or target in found.values():
            raise ValueError(f"names a database twice: {word!r}; copy one after the other, a run for each")
        found[source] = target
    return tuple(found.items())


def on_or_off(text: str) -> bool:
    """True for `on`, False for `off`."""
    return one_of("on", "off")(text) == "on"


def name_server_address(text: str) -> Address:
    """`ip`, `ip:port` or `[ip]:port`; port 53 unless given. Names are refused: they need a name server."""
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
        raise ValueError("is not an address of the form ip, ip:port or [ip]:port") from None


def cluster_fingerprint(text: str) -> str:
    """The fingerprint of a cluster, as every outcome shows it: 12 hexadecimal digits; `none` gives ""."""
    if text == "none":
        return ""
    if not re.fullmatch(r"[0-9a-f]{12}", text, re.ASCII):
        raise ValueError("is not a fingerprint (12 hexadecimal digits: `cluster` in the outcome of `plan`)")
    return text


def server_version(text: str) -> str:
    """The version of a server, as `redis 8.2`, also from the name of an image: `valkey/valkey:9.1`."""
    version = version_of(text) or text
    if parse(version) is None:
        raise ValueError("is not a version or an image such as redis:8.2, valkey/valkey:9.1 or redis 8.2.3")
    return version


def printable_text(text: str) -> str:
    """Any text without control characters."""
    if any(ord(character) < 32 for character in text):
        raise ValueError("contains a control character")
    return text


def readable_file(text: str) -> Path:
    """A regular file that can be opened, or a link to one. Reading a pipe or a device might never end."""
    try:
        if not Path(text).is_file() and Path(text).exists():
            raise ValueError("is not a regular file")
        with Path(text).open("rb"):
            return Path(text)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def own_namespace() -> str:
    """The namespace of the pod that this program runs in; `default` outside Kubernetes."""
    try:
        return dns_label(_NAMESPACE_FILE.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return "default"
