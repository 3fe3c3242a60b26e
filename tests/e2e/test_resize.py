"""A resize on a real cluster: one edit to grow, drain first to shrink."""

from __future__ import annotations

from .harness import Namespace
from .requirements import needs_disks

KEYS = 300


def shaped(pods: int, shards: int) -> dict[str, object]:
    """The edit in an overlay. The CronJob is suspended, so only the test starts runs."""
    settings = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: redis-bootstrap-settings}\n"
        f'data: {{BOOTSTRAP_SHARDS: "{shards}"}}\n'
    )
    suspended = {"target": {"kind": "CronJob"}, "patch": '[{"op": "replace", "path": "/spec/suspend", "value": true}]'}
    return {"replicas": [{"name": "redis-app", "count": pods}], "patches": [{"patch": settings}, suspended]}


def test_it_grows_and_shrinks_with_its_keys(namespace: Namespace) -> None:
    """From 3 to 4 shards with one edit, and back with a drain first. The printed command ends the shrink."""
    needs_disks(namespace, "production")
    namespace.apply("production", **shaped(6, 3))
    assert namespace.ended().outcome["outcome"] == "formed"
    namespace.wait_for_servers()
    assert namespace.client("write", "0", str(KEYS)) == str(KEYS)

    namespace.apply("production", **shaped(8, 4))
    namespace.wait_for_servers(8, ready=False)
    grown = namespace.run("grow")
    assert (grown.condition, grown.outcome["outcome"], grown.outcome["shards"]) == ("Complete", "scaled", 4), grown.log
    assert grown.outcome["skew"]["slots_percent"] < 0.1
    namespace.wait_for_servers(8)
    assert namespace.client("read", "0", str(KEYS)) == str(KEYS)

    namespace.apply("production", **shaped(8, 3))
    shrunk = namespace.run("shrink")
    assert (shrunk.condition, shrunk.outcome["outcome"], shrunk.outcome["shards"]) == ("Complete", "scaled", 3)
    message, command = shrunk.outcome["next"].split(": ", 1)
    assert message == "safe to set replicas to 6 now"
    assert command.split()[:3] == ["kubectl", "--namespace", namespace.name]
    namespace.kubectl(*command.split()[3:])
    namespace.wait_for_servers(6)
    after = namespace.run("after")
    assert (after.condition, after.outcome["outcome"], after.outcome["next"]) == ("Complete", "unchanged", "")
    assert namespace.client("read", "0", str(KEYS)) == str(KEYS)


def test_a_statefulset_that_is_shrunk_first_comes_back(namespace: Namespace) -> None:
    """The pods of the fourth shard are deleted: the run is refused, once. Scaled up again, every key is there."""
    needs_disks(namespace, "production")
    namespace.apply("production", **shaped(8, 4))
    assert namespace.ended().outcome["outcome"] == "formed"
    namespace.wait_for_servers(8)
    assert namespace.client("write", "0", str(KEYS)) == str(KEYS)

    namespace.apply("production", **shaped(6, 3))
    namespace.wait_for_servers(6, ready=False)
    early = namespace.run("early")
    codes = {reason["code"] for reason in early.outcome["reasons"]}
    assert (early.condition, early.outcome["outcome"]) == ("Failed", "refused"), early.log
    assert "shrunk-too-early" in codes
    assert len(early.termination_messages) == 1

    namespace.apply("production", **shaped(8, 4))
    namespace.wait_for_servers(8, ready=False)
    back = namespace.run("back")
    assert back.condition == "Complete", back.log
    namespace.wait_for_servers(8)
    assert namespace.client("read", "0", str(KEYS)) == str(KEYS)
