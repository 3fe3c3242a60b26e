"""Moving the keys of one slot from the node that is asked to another, by the servers' own MIGRATE."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bootstrap.steps import MoveKeys

MOMENT_S = 1.0
"""How long one conversation with a server goes on; what is left then is found by the next look."""
SILENCE_LIMIT_MS = 1500
"""How long the two servers may hear nothing of each other within one MIGRATE. They serve nobody else meanwhile."""
BATCH_MIN, BATCH_MAX = 1, 512
"""Keys in one MIGRATE."""
BATCH_FAST_S, BATCH_SLOW_S = 0.02, 0.1
"""A batch that took less is doubled, one that took more is halved: a server is deaf for as long as one lasts."""

Ask = Callable[..., Any]


def move_keys(ask: Ask, step: MoveKeys, authentication: tuple[str, ...] = (), *, ends: float) -> Exception | None:
    """Moves keys for a moment, or until none is left; returns the server's error where it said one.

    `ends` is the moment after which nothing more is begun, on the monotonic clock. `ask(*words)` sends a command to the
    source and returns its reply, also when that is an error.
    """
    try:
        for database in step.databases:
            if error := _in_database(ask, step, database, authentication, ends):
                return error
    finally:
        if step.databases != (0,):
            ask("SELECT", 0)
    return None


def _in_database(
    ask: Ask, step: MoveKeys, database: int, authentication: tuple[str, ...], ends: float
) -> Exception | None:
    if database and isinstance(answer := ask("SELECT", database), Exception):
        return answer
    batch = BATCH_MIN  # nothing is known yet of how big the keys are
    while time.monotonic() < ends:
        keys = ask("CLUSTER", "GETKEYSINSLOT", step.slot, batch)
        if isinstance(keys, Exception):
            return keys
        if not keys:
            return None
        began = time.monotonic()
        where = (step.address.host, step.address.port)
        answer = ask("MIGRATE", *where, "", database, SILENCE_LIMIT_MS, "REPLACE", *authentication, "KEYS", *keys)
        if isinstance(answer, Exception):
            return answer
        took_s = time.monotonic() - began
        if took_s < BATCH_FAST_S:
            batch = min(BATCH_MAX, batch * 2)
        elif took_s > BATCH_SLOW_S:
            batch = max(BATCH_MIN, batch // 2)
    return None
