"""A DNS record leads to another team's server, and Kubernetes knows that its pod is elsewhere."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from bootstrap.local.programs import Program
from bootstrap.model.node import Address
from tests.kube.api import KubeApi, pod
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until

ON = {"BOOTSTRAP_KUBERNETES": "on"}


def known_to_kubernetes(api: KubeApi, ours: Testbed, **elsewhere: str) -> None:
    """Kubernetes has each pod at the address of its server, or at the one in `elsewhere`, by ordinal (`_5`)."""
    for ordinal, server in enumerate(ours.cluster.servers):
        address = elsewhere.get(f"_{ordinal}", server.address.host)
        api.put("pods", server.name, pod(server.name, podIP=address, podIPs=[{"ip": address}]))


def send_astray(ours: Testbed, where: Address) -> None:
    """The DNS gives redis-app-5 the address of another team's server."""
    zone = ours.cluster.nameserver.zone
    stale = replace(zone.pods[5], addresses=(where.host,), port=where.port)
    ours.cluster.nameserver.publish(replace(zone, pods=(*zone.pods[:5], stale)))


@pytest.mark.parametrize("address", ["10.9.9.9", ""], ids=["elsewhere", "not yet anywhere"])
def test_a_blank_server_of_another_team_gets_no_copy(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed, address: str
) -> None:
    """The pod is down and its address is in use again. The server there looks like our pod without its disk."""
    ours, theirs = start_testbed(any_program), start_testbed(any_program, 3, 0)
    known_to_kubernetes(api, ours)
    assert ours.run("apply", **ON).exit_code == 0
    ours.cluster.servers[5].kill()
    known_to_kubernetes(api, ours, _5=address)
    send_astray(ours, theirs.cluster.servers[2].address)
    result = ours.run("apply", BOOTSTRAP_DEADLINE_S="12", **ON)
    (reason,) = result.outcome["reasons"]
    assert (result.exit_code, reason["code"], reason["node"]) == (1, "ambiguous", "redis-app-5"), result.text
    assert "a stale record, or a pod of another cluster" in reason["message"]
    assert all(not node.others for node in theirs.view().nodes)


def test_our_pod_behind_a_stale_record_is_waited_for(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed
) -> None:
    """It answers at the address that Kubernetes gives it, so it is not a member that the Service does not list."""
    ours, theirs = start_testbed(any_program), start_testbed(any_program, 3, 0)
    known_to_kubernetes(api, ours)
    assert ours.run("apply", **ON).exit_code == 0
    zone = ours.cluster.nameserver.zone
    send_astray(ours, theirs.cluster.servers[2].address)
    early = ours.run("apply", BOOTSTRAP_DEADLINE_S="4", **ON)
    assert (early.exit_code, [each["code"] for each in early.outcome["reasons"]]) == (1, ["ambiguous"]), early.text
    correction = threading.Timer(4, ours.cluster.nameserver.publish, (zone,))
    correction.start()
    later = ours.run("apply", **ON)
    correction.join()
    assert (later.exit_code, later.outcome["outcome"]) == (0, "unchanged"), later.text
    assert all(not node.others for node in theirs.view().nodes)


def test_addresses_of_another_kind_are_not_compared(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed
) -> None:
    """A Service may list addresses of machines or proxies: none of them is the pod's own."""
    ours = start_testbed(any_program)
    known_to_kubernetes(api, ours, **{f"_{ordinal}": f"10.9.9.{ordinal}" for ordinal in range(6)})
    assert ours.run("apply", **ON).outcome["outcome"] == "formed"


def test_a_pod_that_moves_is_found_at_its_new_address(
    api: KubeApi, any_program: Program, start_testbed: StartTestbed
) -> None:
    """Kubernetes is asked again when the DNS has a new address, so what it knew before does not hide the pod."""
    ours = start_testbed(any_program)
    known_to_kubernetes(api, ours)
    assert ours.run("apply", **ON).exit_code == 0
    server = ours.cluster.servers[5]
    server.terminate()
    aside = start_testbed(any_program, 3, 0).cluster.servers[0]
    aside.kill()
    send_astray(ours, aside.address)
    run: list[int] = []
    thread = threading.Thread(target=lambda: run.append(ours.run("apply", **ON).exit_code))
    thread.start()
    wait_until(lambda: api.times("list", "pods") > 2, "the run has begun")
    server.move(aside.address)
    known_to_kubernetes(api, ours)
    thread.join()
    assert run == [0]
