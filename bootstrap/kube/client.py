"""A small client of the Kubernetes API for a program in a pod: five verbs, a time limit per request, typed errors.

The `kubernetes` library provides the connection, TLS and the token of the service account. Its classes for kinds of
objects are not used, since this program sends only a handful of JSON requests. It takes 0.65 s and 43 MB to load
(*measured*), so it is loaded only where there is a Kubernetes API to talk to.

Nothing is retried here: the caller knows what a failure means.
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
"""Time limit of one request in seconds, from connecting to the last byte."""
PAGE = 100
"""Objects per page of a list, so that a big namespace does not fill the memory."""
WORDS_MAX = 300
"""Characters of Kubernetes's own message that an error quotes."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVICE_ACCOUNT = "redis-bootstrap"
"""The name in k8s/base, for messages; requests carry the token of the pod's own account."""

Object = Mapping[str, Any]
"""A Kubernetes object, decoded from JSON."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource type, as the API's paths and the rules of a Role spell it."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "") -> str:
        """The path of a collection, or of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced else ""
        return f"{root}{within}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


PODS = Resource("", "v1", "pods")
NODES = Resource("", "v1", "nodes", namespaced=False)
LEASES = Resource("coordination.k8s.io", "v1", "leases")
EVENTS = Resource("events.k8s.io", "v1", "events")

_METHODS = {"list": "GET", "get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH"}


class KubeClient:
    """The API of one namespace, with the pod's service account. Safe to use from several threads.

    Every method raises Forbidden, NotFound or Conflict, and ApiError for any other failure, timeouts included.
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
        ssl.create_default_context(cafile=configuration.ssl_ca_cert)  # fails now if the CA file is unusable
        self._rest = RESTClientObject(configuration)

    @classmethod
    def where_usable(cls, choice: str, namespace: str) -> KubeClient | None:
        """The client, or None where Kubernetes is not used. `choice` is on, off, or auto: in a pod with a token.

        Raises Misconfigured for `on` outside a pod, and if the files of the service account cannot be read.
        """
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
        inside = bool(host) and (ACCOUNT / "token").is_file()
        if choice == "on" and not inside:
            raise _misconfigured("BOOTSTRAP_KUBERNETES is on, but this is not a pod with a service account token")
        if choice == "off" or not inside:
            return None
        try:
            return cls(host, int(os.environ.get("KUBERNETES_SERVICE_PORT") or 443), namespace, account=ACCOUNT)
        except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
            raise _misconfigured(f"the pod's service account cannot be used: {error}") from error

    def list(self, resource: Resource) -> Iterator[Object]:
        """Every object of a resource type in the namespace, page by page."""
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
        """Creates an object; returns it as stored. Raises Conflict if the name is taken."""
        return self._call("create", resource, body=body)

    def update(self, resource: Resource, name: str, body: Object) -> Object:
        """Replaces an object; returns it as stored. Raises Conflict if its `resourceVersion` is not that of `body`."""
        return self._call("update", resource, name, body=body)

    def patch(self, resource: Resource, name: str, changes: Object) -> Object:
        """Merges changes into an object (RFC 7386: None removes a field); returns it as stored."""
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
        request = f"{verb} {resource}"
        try:
            status, raw = self._within_limit(_METHODS[verb], path, body)
        except Exception as error:
            words = str(error) or type(error).__name__
            raise _error(ApiError, f"Kubernetes does not answer ({request}): {words[:WORDS_MAX]}", _SILENT) from error
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = {"message": raw[:WORDS_MAX].decode(errors="replace")}
        if status < 300 and isinstance(answer, dict):
            return answer
        words = str(answer.get("message") or "") if isinstance(answer, dict) else ""
        raise _rejected(status, request, words, self._may_i(verb, resource, name))

    def _may_i(self, verb: str, resource: Resource, name: str) -> str:
        """The command that checks the right to send this request."""
        scope = f" --namespace {self.namespace}" if resource.namespaced else ""
        account = f"system:serviceaccount:{self.namespace}:{SERVICE_ACCOUNT}"
        return f"kubectl auth can-i {verb} {resource}{f'/{name}' if name else ''}{scope} --as={account}"

    def _within_limit(self, method: str, path: str, body: Object | None) -> tuple[int, bytes]:
        """The answer's status and body. Raises TimeoutError after the limit.

        The request runs in a thread: nothing else limits a DNS lookup without an answer, or a server that sends one
        byte at a time.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        token = self._token.read_text(encoding="ascii").strip()  # read for each request: Kubernetes renews it
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "Content-Type": kind}
        # One connection per request takes 2 ms; threads share none, and none becomes stale.
        headers["Connection"] = "close"

        def send() -> tuple[int, bytes]:
            from kubernetes.client import ApiException

            try:
                answer = self._rest.request(  # type: ignore[no-untyped-call]
                    method, self._root + path, headers=headers, body=body, _request_timeout=self._limit_s
                )
                return answer.status, answer.read()
            except ApiException as error:
                if not error.status:
                    raise
                content = error.body or b""
                return error.status, content.encode() if isinstance(content, str) else content

        outcome: SimpleQueue[tuple[int, bytes] | Exception] = SimpleQueue()
        threading.Thread(target=_into, args=(outcome, send), daemon=True, name="kube").start()
        try:
            answer: tuple[int, bytes] | Exception = outcome.get(timeout=self._limit_s)
        except Empty:
            answer = TimeoutError()
        if isinstance(answer, Exception):
            too_long = "Timeout" in type(answer).__name__  # urllib3 has several classes for a timeout
            raise TimeoutError(f"not within {self._limit_s:g} s") if too_long else answer
        return answer


def _into(outcome: SimpleQueue[tuple[int, bytes] | Exception], send: Callable[[], tuple[int, bytes]]) -> None:
    try:
        outcome.put(send())
    except Exception as error:  # noqa: BLE001 - the waiting thread raises it
        outcome.put(error)


_SILENT = (
    "kubectl get --raw /readyz shows whether the API server is up; kubectl get networkpolicy, whether a policy keeps "
    "the Job's pod from it"
)


def _rejected(status: int, request: str, words: str, may_i: str) -> ApiError:
    quoted = f": {words[:WORDS_MAX]}" if words else ""
    match status:
        case 403:
            remedy = f"{may_i}; if the answer is no, add the right to the Role of k8s/base or of the component"
            return _error(Forbidden, f"Kubernetes does not let this account {request}{quoted}", remedy)
        case 404:
            return _error(NotFound, f"Kubernetes has no such object ({request}){quoted}", _TRANSIENT)
        case 409:
            return _error(Conflict, f"another client changed the object first ({request}){quoted}", _TRANSIENT)
        case _:
            return _error(ApiError, f"Kubernetes answers HTTP {status} ({request}){quoted}", _SILENT)


_TRANSIENT = "run again; if it fails again, kubectl get events shows which other client changes these objects"


def _error(kind: type[ApiError], message: str, remedy: str) -> ApiError:
    return kind.because((Reason(code="kubernetes", message=message, remedy=remedy),))


def _misconfigured(message: str) -> Misconfigured:
    remedy = (
        "set BOOTSTRAP_KUBERNETES to auto or off, or give the pod a token: automountServiceAccountToken: true; "
        "kubectl get pod --output=yaml shows it"
    )
    return Misconfigured.because((Reason(code="kubernetes", message=message, remedy=remedy),))
