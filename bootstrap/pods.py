"""What Kubernetes says about pods that do not answer: the only question that this program asks its API.

The client library takes a second and 67 MB to load, so it is loaded only once somebody has to be waited for.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from bootstrap.errors import Misconfigured, Reason
from bootstrap.model import Absent, ClusterView

REQUEST_LIMIT_S = 3.0
TROUBLE_MAX = 200
"""Characters of what Kubernetes says of one pod."""
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class Pods:
    """The pods of one namespace, read with the Job's own service account."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._api: Any = None

    @classmethod
    def where_usable(cls, choice: str, namespace: str) -> Pods | None:
        """`on`, `off` or `auto` (used where this is a pod with a service account).

        Raises Misconfigured for `on` outside of a pod.
        """
        inside = bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and _TOKEN.is_file()
        if choice == "on" and not inside:
            message = "BOOTSTRAP_KUBERNETES is on, but this is no pod with a service account"
            reason = Reason(code="kubernetes", message=message, remedy="set it to auto, or mount the account's token")
            raise Misconfigured.because((reason,))
        return cls(namespace) if inside and choice != "off" else None

    def explain(self, view: ClusterView) -> ClusterView:
        """The view, with Kubernetes's own words for each absent pod that it does not simply call running."""
        try:
            pods = {item.metadata.name: item for item in self._list()}
        except Exception as error:  # noqa: BLE001 - the client raises its own, urllib3's and the system's
            status = getattr(error, "status", None)
            said = f"Kubernetes does not list pods: {f'HTTP {status}' if status else type(error).__name__}"
            troubles = dict.fromkeys((absent.pod for absent in view.absent), said)
        else:
            troubles = {a.pod: _trouble(pods[a.pod]) if a.pod in pods else "no such pod" for a in view.absent}
        return replace(view, absent=tuple(_with(absent, troubles[absent.pod]) for absent in view.absent))

    def _list(self) -> list[Any]:
        if self._api is None:
            from kubernetes import client, config  # see above

            config.load_incluster_config()  # type: ignore[no-untyped-call]
            configuration = client.Configuration.get_default_copy()
            configuration.retries = False  # an API that is silent must not hold up the run three times as long
            self._api = client.CoreV1Api(client.ApiClient(configuration))
        return list(self._api.list_namespaced_pod(self._namespace, _request_timeout=REQUEST_LIMIT_S).items)


def _with(absent: Absent, trouble: str) -> Absent:
    """The peer with Kubernetes's words added to what is known of it, once."""
    trouble = trouble[:TROUBLE_MAX]
    if not trouble or trouble in absent.detail:
        return absent
    return replace(absent, detail="; ".join(filter(None, (absent.detail, trouble))))


def _trouble(pod: Any) -> str:
    """Unschedulable, waiting (with the kubelet's reason), terminating, or ended; "" for a pod that runs."""
    if pod.metadata.deletion_timestamp:
        return "terminating"
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message}"
    for status in (*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())):
        waiting, ended = status.state.waiting, status.state.terminated
        if waiting and waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting.reason}: {waiting.message}" if waiting.message else str(waiting.reason)
        if ended:
            return f"container {status.name} ended with exit code {ended.exit_code} ({ended.reason})"
    return "" if pod.status.phase == "Running" else str(pod.status.phase)
