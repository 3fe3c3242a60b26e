"""What a server says about its memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory part of INFO, bytes."""

    used_bytes: int = 0
    dataset_bytes: int = 0
    """How much of it is data, by the server's own estimate."""
    max_bytes: int = 0
    """The limit, `maxmemory`; 0 is none."""


def mebibytes(count: int) -> str:
    """`12 MiB`; with tenths below ten."""
    size = count / 2**20
    return f"{size:.1f} MiB" if size < 10 else f"{size:.0f} MiB"
