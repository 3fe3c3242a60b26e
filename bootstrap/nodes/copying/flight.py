"""Commands to many servers, packed and on their way, and the replies that have come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bootstrap.model.copying import Entry
from bootstrap.model.node import Address
from bootstrap.nodes import commands
from bootstrap.nodes.pipeline import Packed, Pipeline, packer, parsed_line

OK, ONE = b"+OK\r\n", b":1\r\n"
"""The lines with which a server accepts a command, and counts one key."""


@dataclass(slots=True)
class Flight:
    """Commands that were sent and whose replies were not received. Each replies with one line, or with any reply."""

    database: int
    keys: Sequence[bytes]
    commands: Sequence[Packed]
    replies: list[Any]
    """By the numbers of the commands: lines as they are, or parsed replies."""
    in_lines: bool
    sent: dict[Address, list[int]] = field(default_factory=dict)
    """The numbers of the commands on their way, by the server."""
    unsent: list[int] = field(default_factory=list)
    repeated: set[int] = field(default_factory=set)
    """Commands whose first reply was lost with its connection: they may have been executed."""


def restoring(entries: Sequence[Entry], *, replace: bool) -> list[Packed]:
    """RESTORE of each entry, packed; a large payload is a part of its own, which is not copied."""
    packers = [packer(*commands.restore(expires=expires, replace=replace)) for expires in (False, True)]
    return [packers[expires_ms > 0](key, expires_ms, payload) for _, key, payload, expires_ms in entries]


def transmit(pipeline: Pipeline, sent: Sequence[Packed]) -> None:
    """Sends packed commands: the small ones joined, each part of a large one by itself."""
    small: list[bytes] = []
    for each in sent:
        if isinstance(each, bytes):
            small.append(each)
        else:
            pipeline.send_parts([b"".join(small), *each])
            small = []
    pipeline.send_parts([b"".join(small)])


def error_of(reply: object) -> str:
    """The text of an error, as a line or a parsed reply; "" for anything else."""
    if reply in (OK, ONE):
        return ""
    if isinstance(reply, bytes):
        return str(parsed_line(reply)) if reply[:1] == b"-" else ""
    return str(reply) if isinstance(reply, Exception) else ""
