"""Slots that their owner does not claim while all others name it: deleted by hand, or an older nodes.conf came back."""

from __future__ import annotations

import shutil

from bootstrap.local.programs import Program
from bootstrap.model.slots import SlotSet
from tests.real.clusters import assert_healed, formed, written
from tests.real.test_moves import ids, keys_of, servers
from tests.real.testbed import StartTestbed, Testbed
from tests.waiting import wait_until

DELETED = range(5461, 5481)
"""Twenty slots of redis-app-1."""


def delete_slots(six: Testbed) -> None:
    with servers(six) as endpoints:
        endpoints[1].execute_command("CLUSTER DELSLOTS", *DELETED)


def test_an_owner_claims_slots_again_that_were_deleted_by_hand(
    redis_program: Program, start_testbed: StartTestbed
) -> None:
    """Half of them hold keys. A client reads each key afterwards."""
    six, keys = formed(redis_program, start_testbed)
    with servers(six) as endpoints:
        mine = {keys_of(slot, 1)[0]: str(slot) for slot in DELETED[::2]}
        for key, value in mine.items():
            endpoints[1].set(key, value)
    delete_slots(six)
    assert_healed(six, six.run("apply", BOOTSTRAP_DEADLINE_S="15"), {**keys, **mine})


def test_an_owner_with_an_older_nodes_conf_claims_its_slots_again(
    redis_program: Program, start_testbed: StartTestbed
) -> None:
    """It believes the slots to be their former owner's, and its config epoch is an older one."""
    six, keys = formed(redis_program, start_testbed)
    owner = six.cluster.servers[1]
    old = owner.directory / "old.conf"
    shutil.copy(owner.directory / "nodes.conf", old)
    moving = SlotSet.of((0, 19))
    with servers(six) as endpoints:
        target = ids(endpoints)[1]
        for slot in moving:
            if endpoints[0].execute_command("CLUSTER COUNTKEYSINSLOT", slot) == 0:
                for endpoint in (endpoints[1], endpoints[0], endpoints[2]):
                    endpoint.execute_command("CLUSTER SETSLOT", slot, "NODE", target)
        endpoints[1].execute_command("CLUSTER BUMPEPOCH")
        wait_until(lambda: six.view().agreed and len(six.view().nodes[1].slots) > 5462)
        slot = next(iter(six.view().nodes[1].slots))
        mine = dict.fromkeys(keys_of(slot, 1), "new")
        for name, value in mine.items():
            endpoints[1].set(name, value)
    wait_until(lambda: all(written(server.address) for server in six.cluster.servers))
    owner.kill()
    shutil.copy(old, owner.directory / "nodes.conf")
    owner.start()
    wait_until(lambda: len(six.view().nodes) == 6 and not any(six.view().unlinked()))
    assert_healed(six, six.run("apply", BOOTSTRAP_DEADLINE_S="30"), {**keys, **mine})


def test_keys_elsewhere_of_slots_that_were_deleted_are_refused(
    redis_program: Program, start_testbed: StartTestbed
) -> None:
    """Their named owner holds no key of them, and another master does."""
    six, _ = formed(redis_program, start_testbed)
    name = keys_of(DELETED[0], 1)[0]
    with servers(six) as endpoints:
        endpoints[0].execute_command("CLUSTER SETSLOT", DELETED[0], "IMPORTING", ids(endpoints)[1])
        endpoints[0].execute_command("ASKING")
        endpoints[0].set(name, "old")
        endpoints[0].execute_command("CLUSTER SETSLOT", DELETED[0], "STABLE")
    delete_slots(six)
    result = six.run("apply", BOOTSTRAP_DEADLINE_S="15")
    assert result.exit_code == 3, result.text
    assert {each["code"] for each in result.outcome["reasons"]} == {"keys-on-several"}
    assert result.outcome["steps"] == 0
