"""The one way in which tests wait: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT_S = 40.0
PAUSE_S = 0.05


def wait_until(look: Callable[[], T | None], what: str = "the condition is true", limit_s: float = LIMIT_S) -> T:
    """Calls `look` again and again until it returns something true, and returns that. Fails after the limit.

    The first calls follow each other closely. The pause grows with the time that has passed, up to half a second.
    """
    began = time.monotonic()
    while not (found := look()):
        passed_s = time.monotonic() - began
        assert passed_s < limit_s, f"not within {limit_s:g} s: {what}"
        time.sleep(min(0.5, max(PAUSE_S, passed_s / 50)))
    return found
