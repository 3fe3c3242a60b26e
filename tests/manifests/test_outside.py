"""The components `outside` and `outside-nodeport`: a Service for each pod, and the names that servers announce."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .kustomize import BASE, COMPONENTS, DOMAIN, Build, build_error, build_text, combine, inputs, name_of

OUTSIDE = COMPONENTS / "outside"
NODE_PORTS = COMPONENTS / "outside-nodeport"
EXTERNAL_DNS = "external-dns.alpha.kubernetes.io/hostname"
POD = "statefulset.kubernetes.io/pod-name"
PODS = [f"redis-app-{ordinal}" for ordinal in range(6)]
STATIC_NODE_PORTS = range(30000, 30086)
"""Kubernetes gives no Service a port of this range by itself."""


def services(built: Build) -> dict[str, dict[str, Any]]:
    """The Services of single pods, by the pod that each selects."""
    selectors = {name_of(each): each for each in built.of_kind("Service") if POD in each["spec"].get("selector", {})}
    return {each["spec"]["selector"][POD]: each for each in selectors.values()}


def announced_domain(built: Build) -> str:
    """The domain in which servers announce their names."""
    pod = built.one("StatefulSet", "redis-app")["spec"]["template"]["spec"]
    (init,) = [each for each in pod["initContainers"] if each["name"] == "hostnames"]
    return str({each["name"]: each["value"] for each in init["env"]}["REDIS_ANNOUNCED_DOMAIN"])


@pytest.mark.parametrize("order", [("outside",), ("outside", "tls"), ("tls", "outside")], ids="-".join)
def test_one_domain_reaches_the_servers_the_dns_and_the_certificate(order: tuple[str, ...]) -> None:
    """Whatever includes the component `hostnames` as well, before or after."""
    built = combine(*(COMPONENTS / name for name in order), COMPONENTS / "tls-cert-manager")
    assert announced_domain(built) == DOMAIN
    annotations = {pod: each["metadata"]["annotations"] for pod, each in services(built).items()}
    assert annotations == {pod: {EXTERNAL_DNS: f"{pod}.{DOMAIN}"} for pod in PODS}
    assert f"*.{DOMAIN}" in built.one("Certificate", "redis-tls")["spec"]["dnsNames"]


def test_without_a_domain_the_build_fails() -> None:
    """There is no default: clients would be sent to somebody else's domain."""
    assert "redis-hostnames" in build_error(OUTSIDE, configMapGenerator=inputs()[:1])


def test_each_pod_has_one_service() -> None:
    """Also a pod that is not ready, as inside. Clients keep their addresses, which a network policy can compare."""
    found = services(combine(OUTSIDE))
    assert sorted(found) == PODS
    for each in found.values():
        spec = each["spec"]
        assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
        assert spec["publishNotReadyAddresses"] is True
        assert [port["port"] for port in spec["ports"]] == [6379]


@pytest.mark.parametrize("component", [OUTSIDE, NODE_PORTS], ids=lambda directory: directory.name)
def test_a_prefix_reaches_the_pod_that_a_service_selects(component: Path) -> None:
    """The pods have the prefix of their StatefulSet."""
    built = build_text(resources=[BASE], components=[component], configMapGenerator=inputs(), namePrefix="blue-")
    assert sorted(services(built)) == [f"blue-{pod}" for pod in PODS]
    assert "blue-redis-app" in {name_of(each) for each in built.of_kind("StatefulSet")}


def test_node_ports_are_fixed_and_out_of_the_way() -> None:
    """Clients compute them. The names stay those of the cluster DNS, which every pod can resolve."""
    built = combine(NODE_PORTS)
    for ordinal, pod in enumerate(PODS):
        service = services(built)[pod]
        spec = service["spec"]
        (port,) = spec["ports"]
        assert (spec["type"], port["nodePort"], port["targetPort"]) == ("NodePort", 30060 + ordinal, "redis-port")
        assert port["nodePort"] in STATIC_NODE_PORTS
        assert EXTERNAL_DNS not in service["metadata"].get("annotations", {})
    with pytest.raises(KeyError):
        announced_domain(built)


def test_the_services_of_more_pods_are_printed() -> None:
    """The file of the first six is what the script prints. An overlay with two more needs nothing else."""
    script = OUTSIDE / "services" / "services.sh"
    first, more = (
        subprocess.check_output(["sh", script, *ordinals], text=True) for ordinals in (("0", "5"), ("6", "7"))
    )
    shipped = (OUTSIDE / "services" / "services.yaml").read_text(encoding="utf-8")
    assert shipped.partition("\n")[2] == first
    built = build_text(
        resources=[BASE], files=list(yaml.safe_load_all(more)), components=[OUTSIDE], configMapGenerator=inputs()
    )
    found = services(built)
    assert sorted(found) == [*PODS, "redis-app-6", "redis-app-7"]
    assert found["redis-app-7"]["metadata"]["annotations"] == {EXTERNAL_DNS: f"redis-app-7.{DOMAIN}"}
