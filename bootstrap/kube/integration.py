"""A run's ties to Kubernetes: the lock, Events, labels, and where pods run and why one does not.

`Integration` is the no-op twin for runs outside Kubernetes; `in_kubernetes` does the work. Callers never ask which one
they have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bootstrap.clock import Clock, Deadline
from bootstrap.config import Settings
from bootstrap.errors import Misconfigured, Reason
from bootstrap.log import Log
from bootstrap.model.outcome import Outcome
from bootstrap.model.view import ClusterView


class Integration:
    """Outside Kubernetes: every method does nothing."""

    @contextmanager
    def locked(self, deadline: Deadline) -> Iterator[None]:  # noqa: ARG002 - there is no lock to wait for
        """Keeps other runs from writing while the block runs."""
        yield

    def check_lock(self) -> None:
        """Raises NotYet once another run may write. Called before every write and before a refusal."""

    def explain(self, view: ClusterView) -> ClusterView:
        """The view with more details about its unreachable peers."""
        return view

    def with_places(self, view: ClusterView) -> ClusterView:
        """The view with the node and zone of each pod, and why pods are about to be replaced; and without what answers
        at an address that is not its pod's.
        """
        return view

    def label(self, view: ClusterView) -> None:
        """Sets the pods' labels to their roles and shards in the view."""

    def record(self, outcome: Outcome) -> None:
        """Records the outcome of a run that was `locked`."""


def integration_for(settings: Settings, *, clock: Clock, log: Log) -> Integration:
    """The integration for this process. Raises Misconfigured if a setting needs Kubernetes and there is none."""
    if settings.kubernetes == "on" or (settings.kubernetes == "auto" and os.environ.get("KUBERNETES_SERVICE_HOST")):
        from bootstrap.kube.client import KubeClient  # a run elsewhere starts without them
        from bootstrap.kube.in_kubernetes import InKubernetes

        kube = KubeClient.where_usable(settings.kubernetes, settings.namespace)
        if kube is not None:
            return InKubernetes(kube, settings, clock=clock, log=log)
    if settings.role_labels:
        message = "BOOTSTRAP_ROLE_LABELS is on, but this run does not use Kubernetes"
        remedy = "set BOOTSTRAP_ROLE_LABELS to off, or BOOTSTRAP_KUBERNETES to on to see what is missing"
        raise Misconfigured.because((Reason(code="kubernetes", message=message, remedy=remedy),))
    return Integration()
