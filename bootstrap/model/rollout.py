"""Pods of different revisions of their StatefulSet: how far a rollout is, and which pod it stops at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SHOWN_MAX = 3
"""Pods in one text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRevision:
    """What Kubernetes reports about one pod that shows how far a rollout is."""

    revision: str
    """The revision of the StatefulSet's template from which the pod was made."""
    image: str = ""
    """The image of its first container, as the pod names it."""
    broken: str = ""
    """Why its containers do not run, in the words of Kubernetes and of the server; "" for a pod that runs or starts."""
    terminating: bool = False
    ready_s: float | None = None
    """Seconds since it became ready; None while it is not."""

    @property
    def version(self) -> str:
        """The version that the tag of the image names; "" for an image without such a tag."""
        return version_of(self.image)


def version_of(image: str) -> str:
    """`redis 8.2` for `docker.io/redis:8.2-alpine`; "" for an image whose name and tag are not those of a server."""
    name, _, tag = image.partition("@")[0].rpartition("/")[2].rpartition(":")
    number = tag.partition("-")[0]
    return f"{name} {number}" if name in ("redis", "valkey") and number[:1].isdigit() else ""


Revisions = Mapping[str, PodRevision]
"""By pod. Empty outside Kubernetes, and where the pods may not be listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Pods of the newest revision and of others, each by ordinal."""

    revisions: Revisions
    updated: tuple[str, ...]
    outdated: tuple[str, ...]

    @property
    def broken(self) -> Mapping[str, str]:
        """The pods of the newest revision whose containers do not run, and why."""
        return {pod: self.revisions[pod].broken for pod in self.updated if self.revisions[pod].broken}

    @property
    def waiting_s(self) -> float:
        """Seconds for which every pod of the newest revision has been ready while none was replaced; 0 during that."""
        if any(each.terminating for each in self.revisions.values()):
            return 0.0
        return min((self.revisions[pod].ready_s or 0.0 for pod in self.updated), default=0.0)


def rollout_in(revisions: Revisions) -> Rollout | None:
    """The rollout under way; None where all pods are of one revision.

    A StatefulSet replaces its pods from the highest ordinal, and a pod that ends meanwhile is made again from the
    revision of its neighbours. So the newest revision is the one of the highest ordinal that does not terminate.
    """
    pods = sorted((pod for pod, each in revisions.items() if each.revision), key=_ordinal)
    if len({revisions[pod].revision for pod in pods}) < 2:
        return None
    newest = next((revisions[pod].revision for pod in reversed(pods) if not revisions[pod].terminating), "")
    return Rollout(
        revisions={pod: revisions[pod] for pod in pods},
        updated=tuple(pod for pod in pods if revisions[pod].revision == newest),
        outdated=tuple(pod for pod in pods if revisions[pod].revision != newest),
    )


def shown(pods: tuple[str, ...]) -> str:
    """`redis-app-0, redis-app-1, redis-app-2 and 4 more`."""
    more = f" and {len(pods) - SHOWN_MAX} more" if len(pods) > SHOWN_MAX else ""
    return ", ".join(pods[:SHOWN_MAX]) + more


def _ordinal(pod: str) -> int:
    return int(pod.rpartition("-")[2])
