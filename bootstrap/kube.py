"""The one thin edge to the Kubernetes API, for a program in a pod: five verbs, a limit on each, errors translated once.

Spoken over the standard library. *Measured*, on top of what a run loads anyway: the `kubernetes` client takes 0.65 s
and 43 MB until it can list pods, its bare REST part 0.2 s and 22 MB, this module nothing that could be seen. All that a
run asks is a handful of requests for JSON.

A connection serves one request: at 2 ms each that is cheap, threads need not share, and none is ever found stale.
Nothing is retried here; whoever asks knows what a failure means.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import quote, urlencode

from bootstrap.errors import ApiError, Conflict, Forbidden, Misconfigured, NotFound, Reason

REQUEST_LIMIT_S = 3.0
"""How long one request may take, from the connection to the last byte."""
PAGE = 100
"""Objects of a list that are asked for at once, so that a big namespace does not fill the memory."""
ANSWER_MAX = 32 * 2**20
"""Bytes of one answer; a page of the biggest pods is far below."""
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


class Kube:
    """The API as one service account sees it, in one namespace. Safe to use from several threads.

    Every method raises Forbidden, NotFound, Conflict, or ApiError for whatever else went wrong, silence included.
    """

    def __init__(
        self, host: str, port: int, namespace: str, *, account: Path = ACCOUNT, limit_s: float = REQUEST_LIMIT_S
    ) -> None:
        self.namespace = namespace
        self._host, self._port = host, port
        self._token = account / "token"
        self._limit_s = limit_s
        self._tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
        # Python 3.13 refuses authorities without key identifiers, which clusters of some age still have; Kubernetes's
        # own clients take them.
        self._tls.verify_flags &= ~ssl.VERIFY_X509_STRICT

    @classmethod
    def where_usable(cls, choice: str, namespace: str) -> Kube | None:
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
            status, raw = self._within_limit(_METHODS[verb], path, None if body is None else json.dumps(body).encode())
        except (OSError, HTTPException) as error:
            words = str(error) or type(error).__name__
            raise _error(ApiError, f"Kubernetes does not answer ({asked}): {words}", _SILENT) from error
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = {"message": raw[:WORDS_MAX].decode(errors="replace")}
        if status < 300 and isinstance(answer, dict) and len(raw) <= ANSWER_MAX:
            return answer
        words = str(answer.get("message") or "") if isinstance(answer, dict) else ""
        raise _refused(status, asked, words)

    def _within_limit(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """The answer's status and body. Raises TimeoutError after the limit, whatever it is that takes so long: in a
        thread, since nothing else ends a name server's silence, or a peer that drips bytes.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        token = self._token.read_text(encoding="ascii").strip()  # each time: Kubernetes renews it
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "Content-Type": kind}
        connection = HTTPSConnection(self._host, self._port, timeout=self._limit_s, context=self._tls)

        def ask() -> tuple[int, bytes]:
            try:
                connection.request(method, path, body=body, headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.read(ANSWER_MAX + 1)
            finally:
                connection.close()

        outcome: SimpleQueue[tuple[int, bytes] | Exception] = SimpleQueue()
        threading.Thread(target=_into, args=(outcome, ask), daemon=True, name="kube").start()
        try:
            answer: tuple[int, bytes] | Exception = outcome.get(timeout=self._limit_s)
        except Empty:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            answer = TimeoutError()
        if isinstance(answer, TimeoutError):
            raise TimeoutError(f"not within {self._limit_s:g} s")
        if isinstance(answer, Exception):
            raise answer
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
