"""Formed clusters with keys, their clients, and pods that are replaced."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace

from redis import Redis, RedisCluster
from redis.cluster import ClusterNode

from bootstrap.local.programs import Program
from bootstrap.local.servers import start_all
from bootstrap.model.node import Address, Node
from bootstrap.verify import violations
from tests.real.testbed import RunResult, StartTestbed, Testbed
from tests.waiting import wait_until

TIMEOUT_MS = 2000
"""Elections take the node timeout and some seconds: a short one keeps the tests short."""


def formed(program: Program, start_testbed: StartTestbed, *config: str) -> tuple[Testbed, Mapping[str, str]]:
    """Six servers, formed, with keys on every shard; and what was acknowledged, copied and written to files."""
    six = start_testbed(program, config=(f"cluster-node-timeout {TIMEOUT_MS}", *config))
    six.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = str(TIMEOUT_MS)
    assert six.run("apply").exit_code == 0
    keys = {f"key:{number}": f"value:{number}" for number in range(200)}
    with client(six) as writer:
        for name, value in keys.items():
            writer.set(name, value)
        for node in writer.get_primaries():
            assert writer.execute_command("WAIT", 1, 5000, target_nodes=node) == 1
    wait_until(lambda: all(written(server.address) for server in six.cluster.servers))
    return six, keys


def written(address: Address) -> bool:
    """Whether a server could be killed now and come back with every key.

    With `appendfsync everysec` a server holds its writes back while an earlier fsync goes on, for up to two seconds:
    acknowledged and copied, they are in no file yet. Killed with every copy at once they are gone, whoever repairs.
    """
    with Redis(address.host, address.port) as node:
        about = node.info("persistence")
    return not any(
        about.get(what) for what in ("aof_buffer_length", "aof_rewrite_scheduled", "aof_rewrite_in_progress")
    )


def client(six: Testbed) -> RedisCluster:
    """A cluster client that knows where the servers are now."""
    endpoints = [ClusterNode(server.address.host, server.address.port) for server in six.cluster.servers]
    return RedisCluster(startup_nodes=endpoints, decode_responses=True, socket_timeout=5)


def assert_healed(six: Testbed, said: RunResult, keys: Mapping[str, str]) -> None:
    """Repaired and verified, every key is there, and a second run changes nothing."""
    assert (said.exit_code, said.outcome["outcome"]) == (0, "repaired"), said.text
    assert violations(six.view(), replace(six.desired, timeout_ms=TIMEOUT_MS)) == ()
    with client(six) as reader:
        assert {name: reader.get(name) for name in keys} == keys
    again = six.run("apply")
    assert (again.outcome["outcome"], again.outcome["steps"]) == ("unchanged", 0)


def another_address(address: Address) -> Address:
    """Another address, as a pod gets one each time it is made anew."""
    *block, last = address.host.split(".")
    return Address(".".join([*block, str((int(last) + 100) % 250 + 1)]), address.port)


def suspects_all(node: Node) -> bool:
    """It marks every other node as failing, and reports that the cluster is down."""
    return not node.serving and all(line.suspected for line in node.others.values())


def settings_of(six: Testbed) -> set[tuple[int | None, str]]:
    """The node timeout and the no-failover setting of every server; one pair where they are the same everywhere."""
    return {(node.timeout_ms, node.config[node.no_failover_name]) for node in six.view().nodes}


def replace_pods(six: Testbed, *ordinals: int, wiped: bool) -> None:
    """The pods are killed and come back at other addresses, with or without their disks; then DNS knows it."""
    servers = [six.cluster.servers[ordinal] for ordinal in ordinals]
    for server in servers:
        server.kill()
        if wiped:
            shutil.rmtree(server.directory)
            server.directory.mkdir()
        server.address = another_address(server.address)
    start_all(servers)
    six.cluster.publish()
