"""A Kubernetes API over HTTPS for the tests: kmock's server and request parser, with a store of objects.

kmock's own store (`KubernetesEmulator` of 0.8) has no resourceVersion and no PUT, which a lock needs. So this store
follows the rules of the API server: a new version per write, 409 for a second `create` and for an `update` of an object
that has changed since it was read, 404, merge patches, pages.
"""

from __future__ import annotations

import asyncio
import copy
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import RawTestServer
from kmock import KubernetesError, KubernetesScaffold, Request, Server

from tests.available_servers import ON_CI

Object = dict[str, Any]
NAMESPACE = "shop"
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Asked:
    """One request: `("update", "leases", "redis-bootstrap")`, with its body and token."""

    verb: str
    plural: str
    name: str
    body: Object | None
    token: str

    @property
    def what(self) -> tuple[str, str]:
        """The verb and the resource, as in the rules of a Role."""
        return self.verb, self.plural


@dataclass
class KubeApi:
    """The API server; `forbidden`, `failing`, `silent` and `meanwhile` may be set at any time."""

    folder: Path
    host: str = "127.0.0.1"
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """Verbs and resources that answer 403."""
    failing: dict[tuple[str, str], int] = field(default_factory=dict)
    """Verbs and resources that answer with this status."""
    silent: set[tuple[str, str]] = field(default_factory=set)
    """Verbs and resources whose requests take effect and get no answer."""
    meanwhile: Callable[[Asked], None] = lambda _asked: None
    """Called before each request takes effect: another client may write in between."""
    page: int = 1000
    port: int = 0

    def __post_init__(self) -> None:
        self._version = 0
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="kube-api")

    # What a test does

    def start(self) -> None:
        """Listens on loopback; writes its certificate and the files of a service account."""
        made = subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-days", "2", "-subj", "/CN=kube", "-addext", f"subjectAltName=IP:{self.host}"),
                *("-keyout", "ca.key", "-out", "ca.crt"),
            ],
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr.decode()
        (self.folder / "token").write_text("token-of-the-account\n")
        (self.folder / "namespace").write_text(NAMESPACE)
        self._thread.start()
        assert self._ready.wait(10), "the API server did not start"

    def stop(self) -> None:
        """Ends the server and every request without an answer."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def put(self, plural: str, name: str, body: Object) -> Object:
        """Stores an object as another client would."""
        with self._lock:
            return self._store(plural, name, copy.deepcopy(body))

    def of(self, plural: str) -> list[Object]:
        """The objects of one kind, by name."""
        return [found for (kind, _), found in sorted(self.objects.items()) if kind == plural]

    def times(self, verb: str, plural: str) -> int:
        """The number of such requests."""
        return sum(asked.what == (verb, plural) for asked in self.asked)

    # The server

    def _serve(self) -> None:
        self._loop.run_until_complete(self._listen())
        # A TLS connection waits for its client's goodbye, which may never come. Left open, its socket would be reported
        # by the garbage collector in the middle of another test.
        for transport in list(self._loop._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _listen(self) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.folder / "ca.crt", self.folder / "ca.key")

        class TlsServer(RawTestServer):
            async def start_server(self, loop: asyncio.AbstractEventLoop | None = None, **_: Any) -> None:
                await super().start_server(loop, ssl=tls)

        async with KubernetesScaffold() as api, Server(api, host=self.host, server_cls=TlsServer) as server:
            api[re.compile(r"/api.*")] << self._answer
            self.port = server.port
            self._ready.set()
            await self._over.wait()

    async def _answer(self, request: Request) -> Object:
        assert request.resource is not None
        verb = _VERBS.get(request.method.value, "get" if request.name else "list")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        body = request.data if isinstance(request.data, dict) else None
        asked = Asked(verb, str(request.resource.plural), request.name or "", body, token)
        self.asked.append(asked)
        await asyncio.to_thread(self.meanwhile, asked)
        if asked.what in self.forbidden:
            account = f"system:serviceaccount:{NAMESPACE}:redis-bootstrap"
            words = f'{asked.plural} is forbidden: User "{account}" cannot {verb} resource "{asked.plural}"'
            raise KubernetesError(status=403, reason="Forbidden", message=words)
        if asked.what in self.failing:
            raise KubernetesError(status=self.failing[asked.what], reason="Trouble", message="it is broken")
        with self._lock:
            answer = self._do(asked, request)
        if asked.what in self.silent:
            await self._never()
        return copy.deepcopy(answer)

    def _never(self) -> Awaitable[Any]:
        return self._over.wait()

    def _do(self, asked: Asked, request: Request) -> Object:
        body = asked.body or {}
        name = asked.name or body.get("metadata", {}).get("name", "")
        found = self.objects.get((asked.plural, name))
        match asked.verb:
            case "list":
                return self._list(asked.plural, request)
            case "create" if found is not None:
                raise KubernetesError(status=409, reason="AlreadyExists", message=f'"{name}" already exists')
            case "create":
                return self._store(asked.plural, name, body)
            case _ if found is None:
                raise KubernetesError(status=404, reason="NotFound", message=f'{asked.plural} "{name}" not found')
            case "update" if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                raise KubernetesError(status=409, reason="Conflict", message="the object has been modified")
            case "update":
                return self._store(asked.plural, name, body)
            case "patch":
                return self._store(asked.plural, name, _merged(found, body))
            case _:
                return found

    def _list(self, plural: str, request: Request) -> Object:
        assert int(request.params["limit"]) > 0
        items = self.of(plural)
        begin = int(request.params.get("continue", 0))
        end = begin + min(self.page, int(request.params["limit"]))
        onward = {"continue": str(end)} if end < len(items) else {}
        return {"kind": "List", "metadata": onward, "items": items[begin:end]}

    def _store(self, plural: str, name: str, body: Object) -> Object:
        self._version += 1
        metadata = {**body.get("metadata", {}), "name": name, "resourceVersion": str(self._version)}
        self.objects[plural, name] = {**body, "metadata": metadata}
        return self.objects[plural, name]


@contextmanager
def kube_api(folder: Path, host: str = "127.0.0.1") -> Iterator[KubeApi]:
    """An API server on loopback; the files of its service account are in `folder`."""
    if shutil.which("openssl") is None:
        assert not ON_CI, "CI has openssl"
        pytest.skip("makes its certificate with openssl")
    folder.mkdir()
    server = KubeApi(folder, host)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _merged(old: Any, changes: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(changes, dict):
        return changes
    merged = dict(old) if isinstance(old, dict) else {}
    for key, change in changes.items():
        if change is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), change)
    return merged


def pod(name: str, *, node: str = "node1", uid: str = "uid-1", labels: Object | None = None, **status: Any) -> Object:
    """A running pod of the StatefulSet `redis-app`; `status` overrides parts of its status."""
    running = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [], "containerStatuses": []}
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "redis-app", "uid": uid, "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels or {}, "ownerReferences": [owner]},
        "spec": {"nodeName": node} if node else {},
        "status": {**running, **status},
    }
