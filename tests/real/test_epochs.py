"""Config epochs that nodes hold for a master: where they are higher than its own, its replica is never elected."""

from __future__ import annotations

import pytest
from redis import Redis

from bootstrap.local.programs import Program
from bootstrap.local.servers import start_all
from bootstrap.model.node import NodeId
from bootstrap.model.view import ClusterView
from bootstrap.plan.epochs import outranked
from tests.real.clusters import client, formed
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until

ELECTED_S = 40
EXCHANGES = 5


def exchange_addresses(six: Testbed, *ordinals: int) -> None:
    """Kills the pods and starts each at the address of the next one."""
    servers = [six.cluster.servers[ordinal] for ordinal in ordinals]
    for server in servers:
        server.kill()
    addresses = [server.address for server in servers]
    for server, address in zip(servers, [*addresses[1:], addresses[0]], strict=True):
        server.address = address
    start_all(servers)
    six.cluster.publish()


def elected(six: Testbed, ordinal: int) -> bool:
    view = six.view(*six.cluster.servers[1:])
    return any(node.ordinal == ordinal and node.slots for node in view.nodes)


def test_a_master_whose_address_was_exchanged_can_be_replaced(
    any_program: Program, start_testbed: StartTestbed
) -> None:
    """After the repair no node holds a higher epoch for it, and the masters elect its replica."""
    six, keys = formed(any_program, start_testbed)
    exchange_addresses(six, 0, 1)
    repaired = six.run("apply")
    assert (repaired.exit_code, repaired.outcome["outcome"]) == (0, "repaired"), repaired.text
    assert not outranked(six.view())
    assert six.run("verify").exit_code == 0
    six.cluster.servers[0].kill()
    wait_until(lambda: elected(six, 3), "redis-app-3 is elected", ELECTED_S)
    six.cluster.servers[0].start()
    assert six.run("apply").exit_code == 0
    with client(six) as reader:
        assert {key: reader.get(key) for key in keys} == keys


def test_an_epoch_that_denies_votes_is_found(redis_program: Program, start_testbed: StartTestbed) -> None:
    """Before a run, `plan` names it and `verify` fails. Where the master has died meanwhile, no vote helps: a person
    confirms that it does not run.
    """
    six, keys = formed(redis_program, start_testbed)
    for _ in range(EXCHANGES):
        exchange_addresses(six, 0, 1)
        introduce_all(six)
        if denied := denied_masters(six.view()):
            break
    else:
        pytest.skip("this server has kept no wrong epoch")
    found = six.run("plan")
    (shown,) = (line for line in found.lines if line["event"] == "plan")
    assert "bump epoch" in [phase["phase"] for phase in shown["phases"]], found.text
    verified = six.run("verify")
    assert verified.exit_code == 1
    assert "epochs-disagree" in {reason["code"] for reason in verified.outcome["reasons"]}
    master = six.view().by_id[denied[0]]
    six.cluster.servers[master.ordinal].kill()
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="30")
    reason = said.outcome["reasons"][-1]
    assert (reason["code"], said.outcome["serving"]) == ("takeover-unproven", False), said.text
    fingerprint = reason["remedy"].partition("--accept-takeover ")[2][:12]
    confirmed = six.run("apply", "--accept-takeover", fingerprint, BOOTSTRAP_DEADLINE_S="12")
    assert confirmed.outcome["serving"] is True, confirmed.text
    six.cluster.servers[master.ordinal].start()
    assert six.run("apply").exit_code == 0
    with client(six) as reader:
        assert {key: reader.get(key) for key in keys} == keys


def introduce_all(six: Testbed) -> None:
    for node in six.whole_view().nodes:
        with Redis(node.address.host, node.address.port) as server:
            for other in six.cluster.servers:
                server.execute_command("CLUSTER", "MEET", other.address.host, other.address.port)
    wait_until(lambda: six.view().serves and settled_down(six.whole_view()), "the nodes have met")


def denied_masters(view: ClusterView) -> list[NodeId]:
    """Masters for which another master, which votes, holds a higher epoch. It is chance which nodes keep one."""
    return [node_id for node_id, holders in outranked(view).items() if any(node.slots for node in holders)]


def settled_down(view: ClusterView) -> bool:
    """All nodes are linked, and agree on owners and roles."""
    return view.agreed and not list(view.unlinked())
