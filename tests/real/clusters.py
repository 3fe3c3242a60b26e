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
"""An election takes the node timeout plus some seconds. A short timeout keeps the tests short."""


def formed(program: Program, start_testbed: StartTestbed, *config: str) -> tuple[Testbed, Mapping[str, str]]:
    """Forms a cluster of six servers and writes keys to every shard. All keys are replicated and on disk."""
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
    """True if the server could be killed now and would restart with every key.

    With `appendfsync everysec` a server defers its writes for up to two seconds while an earlier fsync is in progress.
    Keys can then be acknowledged and replicated without being in any file. If all copies are killed at the same time,
    no repair can bring such keys back.
    """
    with Redis(address.host, address.port, protocol=2) as node:
        info = node.info("persistence")
    return not any(info.get(name) for name in ("aof_buffer_length", "aof_rewrite_scheduled", "aof_rewrite_in_progress"))


def client(six: Testbed) -> RedisCluster:
    """A cluster client that starts from the current addresses of the servers."""
    endpoints = [ClusterNode(server.address.host, server.address.port) for server in six.cluster.servers]
    return RedisCluster(startup_nodes=endpoints, decode_responses=True, socket_timeout=5, protocol=2)


def assert_healed(six: Testbed, result: RunResult, keys: Mapping[str, str]) -> None:
    """The run repaired the cluster. No invariant is violated, no node tries to reach a lost one, each key is there.
    A second run changes nothing.
    """
    assert (result.exit_code, result.outcome["outcome"]) == (0, "repaired"), result.text
    view = six.whole_view()
    assert violations(view, replace(six.desired, timeout_ms=TIMEOUT_MS)) == ()
    assert not [member for node in view.nodes for member in node.members if member.in_handshake]
    with client(six) as reader:
        assert {name: reader.get(name) for name in keys} == keys
    again = six.run("apply")
    assert (again.outcome["outcome"], again.outcome["steps"]) == ("unchanged", 0)


def another_address(address: Address) -> Address:
    """Another address, as a recreated pod gets one."""
    *block, last = address.host.split(".")
    return Address(".".join([*block, str((int(last) + 100) % 250 + 1)]), address.port)


def suspects_all(node: Node) -> bool:
    """It marks every other node as failing, and reports that the cluster is down."""
    return not node.serving and all(line.suspected for line in node.others.values())


def settings_of(six: Testbed) -> set[tuple[int | None, str]]:
    """The node timeout and the no-failover setting of every server; one pair where they are the same everywhere."""
    return {(node.timeout_ms, node.config[node.no_failover_name]) for node in six.view().nodes}


def replace_pods(six: Testbed, *ordinals: int, wiped: bool) -> None:
    """Kills the pods and starts them at other addresses, with or without their disks. Then it updates DNS."""
    servers = [six.cluster.servers[ordinal] for ordinal in ordinals]
    for server in servers:
        server.kill()
        if wiped:
            shutil.rmtree(server.directory)
            server.directory.mkdir()
        server.address = another_address(server.address)
    start_all(servers)
    six.cluster.publish()
