"""The one thin edge to the Kubernetes API, for a program in a pod: five verbs, a limit on each, errors translated once.

The `kubernetes` library carries the connection, TLS and the account's token; its classes for each kind of object are
left aside, since what is asked is a handful of requests for JSON. It takes 0.65 s and 43 MB to load (*measured*), so
it is loaded only where there is a Kubernetes to speak to.

Nothing is retried here; whoever asks knows what a failure means.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import quote, urlencode

from bootstrap.errors import ApiError, Conflict, Forbidden, Misconfigured, NotFound, Reason

REQUEST_LIMIT_S = 3.0
"""How long one request may take, from the connection to the last byte."""
PAGE = 100
"""Objects of a list that are asked for at once, so that a big namespace does not fill the memory."""
WORDS_MAX = 300
"""Characters of what Kubernetes says that go into a message."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

Object = Mapping[str, Any]
"""A Kubernetes object as its JSON tells it."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as it stands in the API's paths and in a Role's rules."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "") -> str:
        """Where the API has it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced else ""
        return f"{root}{within}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


PODS = Resource("", "v1", "pods")
NODES = Resource("", "v1", "nodes", namespaced=False)
LEASES = Resource("coordination.k8s.io", "v1", "leases")
EVENTS = Resource("events.k8s.io", "v1", "events")

_METHODS = {"list": "GET", "get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH"}


class KubeClient:
    """The API as one service account sees it, in one namespace. Safe to use from several threads.

    Every method raises Forbidden, NotFound, Conflict, or ApiError for whatever else went wrong, silence included.
    """

    def __init__(
        self, host: str, port: int, namespace: str, *, account: Path = ACCOUNT, limit_s: float = REQUEST_LIMIT_S
    ) -> None:
        self.namespace = namespace
        from kubernetes.client import Configuration
        from kubernetes.client.rest import RESTClientObject

        self._root = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._token = account / "token"
        self._limit_s = limit_s
        configuration = Configuration()
        configuration.ssl_ca_cert = str(account / "ca.crt")
        configuration.retries = False
        # Python 3.13 refuses authorities without key identifiers, which clusters of some age still have.
        configuration.disable_strict_ssl_verification = True
        ssl.create_default_context(cafile=configuration.ssl_ca_cert)  # an authority that cannot be read is told now
        self._rest = RESTClientObject(configuration)

    @classmethod
    def where_usable(cls, choice: str, namespace: str) -> KubeClient | None:
        """`on`, `off` or `auto` (used where this is a pod with a service account).

        Raises Misconfigured for `on` outside of a pod, and for an account whose files cannot be read.
        """
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
        inside = bool(host) and (ACCOUNT / "token").is_file()
        if choice == "on" and not inside:
            raise _misconfigured("BOOTSTRAP_KUBERNETES is on, but this is no pod with a service account")
        if choice == "off" or not inside:
            return None
        try:
            return cls(host, int(os.environ.get("KUBERNETES_SERVICE_PORT") or 443), namespace, account=ACCOUNT)
        except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
            raise _misconfigured(f"the pod's service account cannot be used: {error}") from error

    def list(self, resource: Resource) -> Iterator[Object]:
        """Every object of a kind in the namespace, page by page."""
        onward = ""
        while True:
            query = {"limit": str(PAGE)} | ({"continue": onward} if onward else {})
            page = self._call("list", resource, query=query)
            yield from page.get("items") or ()
            onward = (page.get("metadata") or {}).get("continue") or ""
            if not onward:
                return

    def get(self, resource: Resource, name: str) -> Object:
        """One object."""
        return self._call("get", resource, name)

    def create(self, resource: Resource, body: Object) -> Object:
        """The object as it now is. Raises Conflict where one of that name is."""
        return self._call("create", resource, body=body)

    def update(self, resource: Resource, name: str, body: Object) -> Object:
        """The object as it now is. Raises Conflict where it changed since the `resourceVersion` in `body`."""
        return self._call("update", resource, name, body=body)

    def patch(self, resource: Resource, name: str, changes: Object) -> Object:
        """The object with the changes merged into it; a None removes."""
        return self._call("patch", resource, name, body=changes)

    def _call(
        self,
        verb: str,
        resource: Resource,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
    ) -> dict[str, Any]:
        path = resource.path(self.namespace, name) + (f"?{urlencode(query)}" if query else "")
        asked = f"{verb} {resource}"
        try:
            status, raw = self._within_limit(_METHODS[verb], path, body)
        except Exception as error:
            words = str(error) or type(error).__name__
            raise _error(ApiError, f"Kubernetes does not answer ({asked}): {words[:WORDS_MAX]}", _SILENT) from error
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = {"message": raw[:WORDS_MAX].decode(errors="replace")}
        if status < 300 and isinstance(answer, dict):
            return answer
        words = str(answer.get("message") or "") if isinstance(answer, dict) else ""
        raise _refused(status, asked, words)

    def _within_limit(self, method: str, path: str, body: Object | None) -> tuple[int, bytes]:
        """The answer's status and body. Raises TimeoutError after the limit, whatever it is that takes so long: in a
        thread, since nothing else ends a name server's silence, or a peer that drips bytes.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        token = self._token.read_text(encoding="ascii").strip()  # each time: Kubernetes renews it
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "Content-Type": kind}
        # A connection for each request: at 2 ms that is cheap, threads need not share, and none is ever found stale.
        headers["Connection"] = "close"

        def ask() -> tuple[int, bytes]:
            from kubernetes.client import ApiException

            try:
                answer = self._rest.request(  # type: ignore[no-untyped-call]
                    method, self._root + path, headers=headers, body=body, _request_timeout=self._limit_s
                )
                return answer.status, answer.read()
            except ApiException as error:
                if not error.status:
                    raise
                said = error.body or b""
                return error.status, said.encode() if isinstance(said, str) else said

        outcome: SimpleQueue[tuple[int, bytes] | Exception] = SimpleQueue()
        threading.Thread(target=_into, args=(outcome, ask), daemon=True, name="kube").start()
        try:
            answer: tuple[int, bytes] | Exception = outcome.get(timeout=self._limit_s)
        except Empty:
            answer = TimeoutError()
        if isinstance(answer, Exception):
            too_long = "Timeout" in type(answer).__name__  # urllib3 has several; which clock saw it says nothing
            raise TimeoutError(f"not within {self._limit_s:g} s") if too_long else answer
        return answer


def _into(outcome: SimpleQueue[tuple[int, bytes] | Exception], ask: Callable[[], tuple[int, bytes]]) -> None:
    try:
        outcome.put(ask())
    except Exception as error:  # noqa: BLE001 - raised where it is waited for
        outcome.put(error)


_SILENT = "see whether the API server is up, and whether a NetworkPolicy keeps the Job from it; then run again"


def _refused(status: int, asked: str, words: str) -> ApiError:
    said = f": {words[:WORDS_MAX]}" if words else ""
    match status:
        case 403:
            remedy = (
                f"let the Job's ServiceAccount {asked}: see the Role of k8s/base, and the components that add to it"
            )
            return _error(Forbidden, f"Kubernetes does not let this account {asked}{said}", remedy)
        case 404:
            return _error(NotFound, f"Kubernetes knows no such object ({asked}){said}", "run again")
        case 409:
            return _error(Conflict, f"somebody else was first ({asked}){said}", "run again")
        case _:
            return _error(ApiError, f"Kubernetes answers HTTP {status} ({asked}){said}", "run again")


def _error(kind: type[ApiError], message: str, remedy: str) -> ApiError:
    return kind.because((Reason(code="kubernetes", message=message, remedy=remedy),))


def _misconfigured(message: str) -> Misconfigured:
    remedy = "set BOOTSTRAP_KUBERNETES to auto or off, or mount the account's token"
    return Misconfigured.because((Reason(code="kubernetes", message=message, remedy=remedy),))
