"""The API client: what it sends, and what it makes of every kind of answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bootstrap.errors import ApiError, Conflict, Forbidden, Misconfigured, NotFound
from bootstrap.kube import client as kube
from bootstrap.kube.client import LEASES, NODES, PODS, KubeClient
from tests.kube.api import NAMESPACE, KubeApi, kube_api, pod

Client = Callable[..., KubeClient]


def test_a_path_is_the_api_s(api: KubeApi, client: Client) -> None:
    """Core and named groups, namespaced or not, names quoted."""
    assert PODS.path("shop") == "/api/v1/namespaces/shop/pods"
    assert PODS.path("shop", "a/b") == "/api/v1/namespaces/shop/pods/a%2Fb"
    assert LEASES.path("shop", "x") == "/apis/coordination.k8s.io/v1/namespaces/shop/leases/x"
    assert NODES.path("shop", "node1") == "/api/v1/nodes/node1"


def test_the_token_is_read_for_each_request(api: KubeApi, client: Client) -> None:
    """Kubernetes renews the file while a run goes on."""
    one = client()
    list(one.list(PODS))
    (api.folder / "token").write_text("renewed")
    list(one.list(PODS))
    assert [asked.token for asked in api.asked] == ["token-of-the-account", "renewed"]


def test_a_list_comes_page_by_page(api: KubeApi, client: Client) -> None:
    """Every object once, in several requests."""
    names = [f"redis-app-{number}" for number in range(7)]
    for name in names:
        api.put("pods", name, pod(name))
    api.page = 3
    assert [found["metadata"]["name"] for found in client().list(PODS)] == names
    assert api.times("list", "pods") == 3


def test_written_objects_are_stored(api: KubeApi, client: Client) -> None:
    """Create, get, update against the version that was read, patch with a removal."""
    one = client()
    made = one.create(LEASES, {"metadata": {"name": "x", "labels": {"a": "1"}}, "spec": {"holderIdentity": "me"}})
    assert one.get(LEASES, "x") == made
    written = one.update(LEASES, "x", {**made, "spec": {"holderIdentity": "you"}})
    assert written["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    one.patch(LEASES, "x", {"metadata": {"labels": {"a": None, "b": "2"}}})
    (found,) = api.of("leases")
    assert (found["spec"], found["metadata"]["labels"]) == ({"holderIdentity": "you"}, {"b": "2"})


def test_a_missing_right_is_named_with_its_remedy(api: KubeApi, client: Client) -> None:
    """403: exit code 4, the verb, the resource with its group, Kubernetes's own words, and the command that checks."""
    api.forbidden.add(("get", "leases"))
    with pytest.raises(Forbidden) as caught:
        client().get(LEASES, "x")
    (reason,) = caught.value.reasons
    assert caught.value.exit_code == 4
    assert "get leases.coordination.k8s.io" in reason.message
    assert 'cannot get resource "leases"' in reason.message
    account = f"system:serviceaccount:{NAMESPACE}:redis-bootstrap"
    command = f"kubectl auth can-i get leases.coordination.k8s.io/x --namespace {NAMESPACE} --as={account}"
    assert reason.remedy.startswith(command)


def test_the_second_of_two_writers_meets_a_conflict(api: KubeApi, client: Client) -> None:
    """409 for an object that exists, or has changed since it was read; 404 for one that does not exist."""
    one = client()
    made = one.create(LEASES, {"metadata": {"name": "x"}})
    with pytest.raises(Conflict):
        one.create(LEASES, {"metadata": {"name": "x"}})
    one.update(LEASES, "x", made)
    with pytest.raises(Conflict):
        one.update(LEASES, "x", made)
    with pytest.raises(NotFound):
        one.get(LEASES, "y")


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_any_other_error_is_reported_with_its_status(api: KubeApi, client: Client, status: int) -> None:
    """Exit code 1: the error may pass. One request, no retry."""
    api.failing["list", "pods"] = status
    with pytest.raises(ApiError) as caught:
        list(client().list(PODS))
    assert f"HTTP {status} (list pods): it is broken" in str(caught.value)
    assert caught.value.exit_code == 1
    assert len(api.asked) == 1


def test_a_silent_api_costs_the_limit_and_no_more(api: KubeApi, client: Client) -> None:
    """It receives the request and does not answer."""
    api.silent.add(("list", "pods"))
    began = time.monotonic()
    with pytest.raises(ApiError, match=r"does not answer \(list pods\): not within 0.3 s"):
        list(client(limit_s=0.3).list(PODS))
    assert 0.3 <= time.monotonic() - began < 3.0


def test_an_api_that_drips_bytes_costs_the_limit_and_no_more(api: KubeApi) -> None:
    """Single bytes keep a socket from timing out; the limit is that of the whole request, TLS handshake included."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            talk, _ = listener.accept()
            with talk:
                while not over.wait(0.05):
                    talk.send(b"\x16")

        dripper = threading.Thread(target=drip)
        dripper.start()
        began = time.monotonic()
        with pytest.raises(ApiError, match="does not answer"):
            KubeClient("127.0.0.1", listener.getsockname()[1], NAMESPACE, account=api.folder, limit_s=0.3).get(
                PODS, "x"
            )
        assert time.monotonic() - began < 3.0
        over.set()
        dripper.join(5)


def test_a_stranger_with_another_certificate_gets_no_token(api: KubeApi, tmp_path: Path) -> None:
    """The client sends the token only to a server whose certificate the service account's CA has signed."""
    with kube_api(tmp_path / "other") as stranger:
        with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
            KubeClient("127.0.0.1", stranger.port, NAMESPACE, account=api.folder).get(PODS, "x")
        assert stranger.asked == []


def test_an_api_server_at_an_ipv6_address_is_used(tmp_path: Path) -> None:
    """Its certificate names the address."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback here")
    with kube_api(tmp_path / "account", "::1") as six:
        assert list(KubeClient("::1", six.port, NAMESPACE, account=six.folder).list(PODS)) == []


def test_a_refused_connection_is_an_error(api: KubeApi) -> None:
    """In the operating system's words."""
    with pytest.raises(ApiError, match=r"does not answer .*refused"):
        KubeClient("127.0.0.1", 9, NAMESPACE, account=api.folder).get(PODS, "x")


def test_it_is_used_where_it_can_be(api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto`: inside a pod only. `on` outside a pod, or files that are not certificates: exit code 4."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert KubeClient.where_usable("auto", NAMESPACE) is None
    with pytest.raises(Misconfigured, match="this is not a pod"):
        KubeClient.where_usable("on", NAMESPACE)
    monkeypatch.setattr(kube, "ACCOUNT", api.folder)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    found = KubeClient.where_usable("auto", NAMESPACE)
    assert found is not None
    assert list(found.list(PODS)) == []
    assert KubeClient.where_usable("off", NAMESPACE) is None
    (api.folder / "ca.crt").write_text("no certificate")
    with pytest.raises(Misconfigured, match="cannot be used"):
        KubeClient.where_usable("auto", NAMESPACE)
