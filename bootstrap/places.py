"""Where a pod runs, as far as losing a machine or a zone is concerned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Place:
    """The Kubernetes node of a pod, and that node's zone; "" for what is not known."""

    node: str = ""
    zone: str = ""
