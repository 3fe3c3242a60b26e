"""Keys of slots that their node does not own, as an interrupted resharding of another tool leaves them: no client could
see them, so no run shows them, and none deletes them. A person does either with the commands of the remedy.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bootstrap.local.programs import Program, find_program
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import MoveSlots
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from tests.available_servers import CLIENTS, SERVERS
from tests.real.clusters import assert_healed, client, formed, replace_pods, written
from tests.real.test_moves import ids, keys_of, servers
from tests.real.testbed import StartTestbed, Testbed
from tests.real.writer import Writer
from tests.waiting import wait_until

LEFT = range(5461, 5481)
"""Twenty slots of redis-app-1."""
STRAY = {"keys-on-several", "keys-left-over"}
Keys = Mapping[str, str]


def plant(six: Testbed, *, database: int = 0) -> tuple[Keys, Sequence[bytes]]:
    """Leaves keys of twenty slots of redis-app-1 on redis-app-0: old values of keys, and keys that have been deleted
    since. Returns the living keys, and the names of the deleted ones.
    """
    living = {keys_of(slot, 1)[0]: f"new {slot}" for slot in LEFT}
    dead = [name for slot in LEFT for name in deleted_names(slot)]
    with servers(six, database=database) as endpoints:
        owner = ids(endpoints)[1]
        for key, value in living.items():
            endpoints[1].set(key, value)
        for slot in LEFT:
            endpoints[0].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", owner)
            names: list[str | bytes] = [*keys_of(slot, 1), *deleted_names(slot)]
            for name in names:
                endpoints[0].execute_command("ASKING")
                endpoints[0].set(name, "old")
            endpoints[0].execute_command("CLUSTER SETSLOT", slot, "STABLE")
    wait_until(lambda: all(written(server.address) for server in six.cluster.servers))
    return living, dead


def deleted_names(slot: int) -> list[bytes]:
    """Two keys of the slot, one of them hard to type."""
    tag = keys_of(slot, 1)[0].partition("}")[0].encode() + b"}"
    return [tag + b":deleted", tag + rb' "two" \words' + b"\xff$x'"]


def restart(six: Testbed, ordinal: int) -> None:
    """With its disk, too quickly for an election."""
    six.cluster.servers[ordinal].kill()
    six.cluster.servers[ordinal].start()
    wait_until(lambda: len(six.view().nodes) == 6 and all(node.serving for node in six.view().nodes))


def assert_refused(six: Testbed, living: Keys, dead: Sequence[bytes]) -> Sequence[Mapping[str, Any]]:
    """Exit 3 with the slots and both ways out, and nothing was written. Clients see what they saw before."""
    result = six.run("apply")
    assert (result.exit_code, result.outcome["steps"]) == (3, 0), result.text
    reasons: Sequence[Mapping[str, Any]] = result.outcome["reasons"]
    assert {reason["code"] for reason in reasons} <= STRAY
    assert all("5461-5480" in reason["message"] for reason in reasons)
    assert_unseen(six, living, dead)
    return reasons


def assert_unseen(six: Testbed, living: Keys, dead: Sequence[bytes]) -> None:
    with client(six) as reader:
        assert {name: reader.get(name) for name in living} == living
        assert [name for name in dead if reader.exists(name)] == []


def typed(six: Testbed, command: str, folder: Path) -> None:
    """Runs a command of a remedy, in which `kubectl exec POD -- redis-cli` reaches the server of that name."""
    program = CLIENTS.get("redis-cli-on-path") or next(iter(CLIENTS.values()), None)
    if program is None:
        pytest.skip("no redis-cli on this machine")
    for server in six.cluster.servers:
        (folder / server.name).write_text(server.address.host)
    script = folder / "kubectl"
    script.write_text(
        '#!/bin/sh\nshift\nif [ "$1" = -i ]; then shift; else exec </dev/null; fi\n'
        f'host=$(cat "{folder}/$1")\nshift 3\nexec {program} -h "$host" -p {six.cluster.servers[0].address.port} "$@"\n'
    )
    script.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["sh", "-c", command], env={**os.environ, "PATH": path}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def ways_out(reason: Mapping[str, Any]) -> tuple[str, str]:
    """The command that keeps the keys, and the one that deletes them."""
    keep, delete = re.findall(r"for slot in .*?; done", reason["remedy"])
    return keep, delete


def test_keys_of_an_interrupted_resharding_do_not_rise(
    program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """`verify` names them. After a restart of their node, which Redis marks as importing then, a run refuses. Deleted
    by the command of the remedy, they are gone, and every other key is there.
    """
    six, keys = formed(program, start_testbed)
    living, dead = plant(six)
    verified = six.run("verify")
    assert (verified.exit_code, {each["code"] for each in verified.outcome["reasons"]}) == (1, {"keys-left-over"})
    assert "redis-app-0 holds 60 keys of the slots 5461-5480, owned by redis-app-1" in verified.text
    assert_refused(six, living, dead)
    restart(six, 0)
    restarted = six.view().nodes[0]
    if "redis" in restarted.version:
        assert len(restarted.open_slots) == len(LEFT)
    else:  # Valkey deletes them when it starts
        assert six.run("verify").exit_code == 0
        assert_unseen(six, {**keys, **living}, dead)
        return
    (reason,) = assert_refused(six, living, dead)
    typed(six, ways_out(reason)[1], tmp_path)
    result = six.run("apply")
    assert (result.exit_code, result.outcome["steps"]) == (0, 0), result.text
    assert_unseen(six, {**keys, **living}, dead)
    assert six.run("verify").exit_code == 0


def test_a_person_can_keep_keys_that_no_client_could_see(
    program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """The other command of the remedy: the slots move to the node with the keys, and of a key on both nodes the value
    stays that clients saw.
    """
    six, keys = formed(program, start_testbed)
    living, dead = plant(six)
    (reason,) = assert_refused(six, living, dead)
    typed(six, ways_out(reason)[0], tmp_path)
    assert_healed(six, six.run("apply"), {**keys, **living})
    assert SlotSet.of((LEFT[0], LEFT[-1])) - six.view().nodes[0].slots == SlotSet()
    with client(six) as reader:
        assert [reader.get(name) for name in dead] == ["old"] * len(dead)


def test_left_over_keys_do_not_rise_by_a_failover_either(redis_program: Program, start_testbed: StartTestbed) -> None:
    """The node imports from a master that is a replica by now, as in a real move that lost its state. Some of the keys
    are on both sides, so none of them has moved.
    """
    six, keys = formed(redis_program, start_testbed)
    living, dead = plant(six)
    with servers(six) as endpoints:
        owner = ids(endpoints)[1]
        for slot in LEFT:
            endpoints[0].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", owner)
        endpoints[4].execute_command("CLUSTER FAILOVER")
    wait_until(lambda: all(bool(node.slots) == (node.ordinal in (0, 2, 4)) for node in six.view().nodes))
    wait_until(lambda: six.view().nodes[1].replication.link_up)
    result = six.run("apply")
    assert result.exit_code == 3, result.text
    assert {reason["code"] for reason in result.outcome["reasons"]} == {"keys-on-several"}
    assert all(node.serving for node in six.view().nodes)
    assert_unseen(six, {**keys, **living}, dead)


def test_everything_else_is_repaired_before_a_run_refuses(program: Program, start_testbed: StartTestbed) -> None:
    """All pods restart at other addresses, one of them with left-over keys: the nodes are linked, and serve."""
    six, keys = formed(program, start_testbed)
    living, dead = plant(six)
    replace_pods(six, *range(6), wiped=False)
    result = six.run("apply")
    if "valkey" in six.view().nodes[0].version:  # it has deleted the keys when it started
        assert result.exit_code == 0, result.text
    else:
        assert result.exit_code == 3, result.text
        assert {reason["code"] for reason in result.outcome["reasons"]} == {"keys-on-several"}
    assert all(node.serving for node in six.view().nodes)
    assert_unseen(six, {**keys, **living}, dead)


def test_no_slot_moves_to_a_node_that_holds_keys_of_it(program: Program, start_testbed: StartTestbed) -> None:
    """Its weight would give redis-app-0 these slots: refused before the first one moves. A transfer that was planned
    before the keys were there does not begin either.
    """
    six, keys = formed(program, start_testbed)
    living, dead = plant(six)
    weighted = six.run("apply", BOOTSTRAP_WEIGHTS="redis-app-0=2")
    assert (weighted.exit_code, weighted.outcome["steps"]) == (3, 0), weighted.text
    assert {reason["code"] for reason in weighted.outcome["reasons"]} == {"keys-left-over"}
    moved = transferred(six, SlotSet.of((LEFT[0], LEFT[-1])))
    assert "already holds 60 keys of the slots 5461-5480" in moved
    assert not six.view().open_slots()
    assert_unseen(six, {**keys, **living}, dead)


def transferred(six: Testbed, slots: SlotSet) -> str:
    """Moves slots from redis-app-1 to redis-app-0 without a plan. Returns why that was not done."""
    view = six.view()
    source, target = view.nodes[1].node_id, view.nodes[0].node_id
    nodes = Nodes(Credentials())
    try:
        with closing(nodes.move([MoveSlots(source=source, target=target, slots=slots)], view)) as transfer:
            while not transfer.done:
                transfer.advance()
    finally:
        nodes.close()
    return "; ".join(rejected.why for rejected in transfer.rejected)


@pytest.mark.skipif("valkey-9.1" not in SERVERS, reason="only Valkey 9 has several databases in a cluster")
def test_left_over_keys_are_found_in_every_database(start_testbed: StartTestbed) -> None:
    """They are in the second database alone."""
    six, _ = formed(find_program(str(SERVERS["valkey-9.1"])), start_testbed, "cluster-databases 4")
    plant(six, database=2)
    verified = six.run("verify")
    assert verified.exit_code == 1
    assert "redis-app-0 holds 60 keys of the slots 5461-5480, owned by redis-app-1" in verified.text


def test_a_slot_without_an_owner_does_not_go_to_left_over_keys(
    any_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """It was taken from its owner, which had no other key of it. Given back to that one with the command of the remedy,
    it shows nothing.
    """
    six, keys = formed(any_program, start_testbed)
    living, dead = plant(six)
    slot = LEFT[-1]
    with servers(six) as endpoints:
        endpoints[1].delete(*keys_of(slot, 1))
        for endpoint in endpoints:
            endpoint.execute_command("CLUSTER DELSLOTS", slot)
    living = {name: value for name, value in living.items() if name not in keys_of(slot, 1)}
    refused = six.run("apply")
    assert refused.exit_code == 3, refused.text
    (reason,) = [each for each in refused.outcome["reasons"] if each["code"] == "keys-on-several"]
    assert f"slot {slot} has no owner, and redis-app-0 (3 keys)" in reason["message"]
    (command,) = re.findall(r"for slot in .*?BUMPEPOCH", reason["remedy"])
    typed(six, command.replace("redis-app-0", "redis-app-1"), tmp_path)
    assert slot in six.view().nodes[1].slots
    again = six.run("apply")
    assert {each["code"] for each in again.outcome["reasons"]} == {"keys-left-over"}, again.text
    assert_unseen(six, {**keys, **living}, dead)


def test_a_busy_cluster_has_no_left_over_keys(program: Program, start_testbed: StartTestbed) -> None:
    """Clients add keys between the two counts, and keys expire: that is no difference."""
    six, _ = formed(program, start_testbed)
    with client(six) as other:
        for number in range(300):
            other.set(f"short:{number}", "x", px=200 + number)
    with Writer(six.cluster.servers):
        results = [six.run("verify") for _ in range(5)]
    assert [result.exit_code for result in results] == [0] * 5, results[0].text
