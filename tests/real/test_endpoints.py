"""Where servers send clients: to host names, to nowhere, to one place. Each is followed, or named as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from bootstrap.local.cluster import LocalCluster
from bootstrap.local.programs import Program
from bootstrap.local.zone import Zone
from tests.real.testbed import StartTestbed, Testbed

BY_NAME = "cluster-preferred-endpoint-type hostname"


def announce(six: Testbed, name: str) -> None:
    """Sets cluster-announce-hostname of every server; `{pod}` stands for its pod's name."""
    for server in six.cluster.servers:
        with Redis(server.address.host, server.address.port, protocol=2) as client:
            client.config_set("cluster-announce-hostname", name.format(pod=server.name))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("{pod}." + Zone().service_name.removesuffix("."), id="absolute"),
        pytest.param("{pod}." + Zone().service, id="with search domains"),
    ],
)
def test_a_client_follows_names_that_the_dns_knows(
    any_program_since_7: Program, start_testbed: StartTestbed, name: str
) -> None:
    """The probe asks the same DNS as the rest of the run, so it also works where this machine knows no such name."""
    six = start_testbed(any_program_since_7, config=(BY_NAME,))
    announce(six, name)
    formed = six.run("apply")
    assert (formed.exit_code, formed.outcome["outcome"]) == (0, "formed"), formed.text
    assert [line["shards"] for line in formed.lines if line["event"] == "probe_done"] == [3]
    assert six.run("apply").outcome["outcome"] == "unchanged"


def test_names_that_the_dns_does_not_know_are_named_by_every_run(
    any_program_since_7: Program, start_testbed: StartTestbed
) -> None:
    """By the run that forms the cluster, and by the next one, which writes nothing."""
    six = start_testbed(any_program_since_7, config=(BY_NAME,))
    announce(six, "{pod}.outside.test")
    for writes in (True, False):
        said = six.run("apply", BOOTSTRAP_DEADLINE_S="8")
        (reason,) = said.outcome["reasons"]
        assert (said.exit_code, reason["code"], bool(said.outcome["steps"])) == (1, "endpoint-unresolved", writes)
        assert "redis-app-0.outside.test" in reason["message"]
        assert "cluster-announce-hostname" in reason["remedy"]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("hostname", "", "clients are sent to hosts by name, and redis-app-0, redis-app-1, redis-app-2"),
        ("hostname", "redis.test", "clients are sent to redis.test:6379 for redis-app-0, redis-app-1, redis-app-2"),
        ("unknown-endpoint", "", "clients are sent to no host for redis-app-0, redis-app-1, redis-app-2"),
    ],
    ids=["no name", "one name for all", "no host"],
)
def test_servers_that_send_clients_nowhere_are_named_soon(
    any_program_since_7: Program, start_testbed: StartTestbed, kind: str, name: str, message: str
) -> None:
    """No wait changes a setting of the servers: exit 4 after seconds, in every run."""
    six = start_testbed(any_program_since_7, config=(f"cluster-preferred-endpoint-type {kind}",))
    announce(six, name)
    for writes in (True, False):
        said = six.run("apply")
        (reason,) = said.outcome["reasons"]
        assert (said.exit_code, reason["code"], bool(said.outcome["steps"])) == (4, "endpoint-setting", writes)
        assert message in reason["message"]
        assert "cluster-preferred-endpoint-type ip" in reason["remedy"]
        assert said.outcome["took_s"] < 20
    for server in six.cluster.servers:
        with Redis(server.address.host, server.address.port, protocol=2) as client:
            client.config_set("cluster-preferred-endpoint-type", "ip")
    assert six.run("apply").outcome["outcome"] == "unchanged"


def test_nodes_that_are_ports_of_one_host_need_no_name(any_program_since_7: Program, tmp_path: Path) -> None:
    """`unknown-endpoint` is right there: a client stays at that host and takes the port."""
    config = ("cluster-preferred-endpoint-type unknown-endpoint",)
    with LocalCluster(any_program_since_7, tmp_path / "one", nodes=6, one_address=True, config=config) as cluster:
        six = Testbed(cluster)
        assert six.run("apply").outcome["outcome"] == "formed"
        assert six.run("apply").outcome["outcome"] == "unchanged"


def test_a_command_of_clients_that_is_renamed_is_named_soon(
    redis_program: Program, start_testbed: StartTestbed
) -> None:
    """Not blamed on a NetworkPolicy, and not waited for until the deadline."""
    three = start_testbed(redis_program, 3, 0, config=('rename-command COMMAND ""',))
    said = three.run("apply")
    (reason,) = said.outcome["reasons"]
    assert (said.exit_code, reason["code"]) == (4, "probe-denied")
    assert "unknown command" in reason["message"]
    assert "rename-command" in reason["remedy"]
    assert said.outcome["took_s"] < 20


def test_a_pod_whose_name_leads_nowhere_is_named_also_as_a_replica(
    any_program_since_7: Program, start_testbed: StartTestbed
) -> None:
    """As after scaling up, before the new pod has a Service outside. A failover would make it a master."""
    six = start_testbed(any_program_since_7, config=(BY_NAME,))
    announce(six, "{pod}." + Zone().service)
    assert six.run("apply").outcome["outcome"] == "formed"
    replica = six.cluster.servers[5]
    with Redis(replica.address.host, replica.address.port, protocol=2) as client:
        client.config_set("cluster-announce-hostname", "redis-app-5.outside.test")
    said = six.run("apply", BOOTSTRAP_DEADLINE_S="8")
    (reason,) = said.outcome["reasons"]
    assert (said.exit_code, reason["code"]) == (1, "endpoint-unresolved")
    assert "clients are sent to redis-app-5.outside.test" in reason["message"]
    assert "-l app.kubernetes.io/component=outside" in reason["remedy"]
