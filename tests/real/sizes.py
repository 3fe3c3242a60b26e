"""Clusters of a declared size with keys, and the checks after a resize."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bootstrap.local.programs import Program
from bootstrap.verify import violations
from tests.real.clusters import TIMEOUT_MS, client
from tests.real.testbed import RunResult, StartTestbed, Testbed

KEYS = 400


def started(
    program: Program, start_testbed: StartTestbed, shards: int, replicas: int, *, servers: int
) -> tuple[Testbed, dict[str, str]]:
    """A formed cluster with keys on every shard. Servers beyond its shape run, but DNS does not list them yet."""
    testbed = start_testbed(program, shards, replicas, servers=servers, config=(f"cluster-node-timeout {TIMEOUT_MS}",))
    testbed.environment["BOOTSTRAP_NODE_TIMEOUT_MS"] = str(TIMEOUT_MS)
    listed(testbed, shards * (1 + replicas))
    result = testbed.run("apply")
    assert result.exit_code == 0, result.text
    keys = {f"key:{number}": f"value:{number}" for number in range(KEYS)}
    with client(testbed) as writer:
        for name, value in keys.items():
            writer.set(name, value, ex=3600 if name.endswith("0") else None)
    return testbed, keys


def listed(testbed: Testbed, pods: int) -> None:
    """Makes the headless Service list that many pods, as if the StatefulSet's replicas were set to it."""
    testbed.cluster.publish()
    zone = testbed.cluster.nameserver.zone
    testbed.cluster.nameserver.publish(replace(zone, pods=zone.pods[:pods]))


def declared(testbed: Testbed, shards: int, replicas: int) -> Testbed:
    """The same servers with another declared shape."""
    return replace(testbed, shards=shards, replicas=replicas)


def assert_sized(testbed: Testbed, result: RunResult, keys: Mapping[str, str]) -> None:
    """The run scaled the cluster evenly. No invariant is violated, every key is there, a second run changes nothing."""
    assert (result.exit_code, result.outcome["outcome"]) == (0, "scaled"), result.text
    assert_good(testbed, keys)
    assert result.outcome["skew"]["slots_percent"] < 0.1
    again = testbed.run("apply")
    assert (again.outcome["outcome"], again.outcome["steps"]) == ("unchanged", 0), again.text


def assert_good(testbed: Testbed, keys: Mapping[str, str]) -> None:
    assert violations(testbed.whole_view(), replace(testbed.desired, timeout_ms=TIMEOUT_MS)) == ()
    with client(testbed) as reader:
        assert {name: reader.get(name) for name in keys} == keys
        assert 0 < reader.ttl("key:0") <= 3600
