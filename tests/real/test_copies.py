"""Cloned disks, which give two living servers one node id, and one address that all announce: nothing is written."""

from __future__ import annotations

import shutil

from bootstrap.local.programs import Program
from bootstrap.local.servers import start_all
from tests.real.clusters import another_address, formed
from tests.real.testbed import StartTestbed, Testbed


def clone(of: Testbed, ordinal: int, to: Testbed, into: int) -> None:
    """Gives a pod that does not run a copy of another pod's disk."""
    source, copy = of.cluster.servers[ordinal], to.cluster.servers[into]
    shutil.rmtree(copy.directory)
    shutil.copytree(source.directory, copy.directory, ignore=shutil.ignore_patterns("*.pid", "*.sock"))


def test_a_cloned_volume_is_refused(any_program: Program, start_testbed: StartTestbed) -> None:
    """Two pods with one node id: exit 3, both named."""
    six, _ = formed(any_program, start_testbed)
    copy = six.cluster.servers[4]
    copy.kill()
    clone(six, 1, six, 4)
    copy.address = another_address(copy.address)
    start_all([copy])
    six.cluster.publish()
    refused = six.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert reason["code"] == "cloned-node"
    assert "redis-app-1" in reason["message"]
    assert "redis-app-4" in reason["message"]


def test_a_copy_beside_its_living_original_is_refused(any_program: Program, start_testbed: StartTestbed) -> None:
    """All volumes are cloned into another cluster's pods. Their servers find the originals by themselves, at the stored
    addresses; the program introduces nobody to anybody.
    """
    six, _ = formed(any_program, start_testbed)
    other = start_testbed(any_program)
    for server in other.cluster.servers:
        server.kill()
    for ordinal in range(6):
        clone(six, ordinal, other, ordinal)
    start_all(other.cluster.servers)
    refused = other.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    assert {reason["code"] for reason in refused.outcome["reasons"]} == {"copied-cluster"}
    assert other.run("plan").exit_code == 3


def test_pods_that_announce_one_address_are_refused(any_program: Program, start_testbed: StartTestbed) -> None:
    """Before anybody is introduced."""
    six = start_testbed(any_program, config=("cluster-announce-ip 127.9.9.9",))
    refused = six.run("apply")
    assert (refused.exit_code, refused.outcome["steps"]) == (3, 0), refused.text
    (reason,) = refused.outcome["reasons"]
    assert reason["code"] == "one-announced-address"
    assert "redis-app-0, redis-app-1" in reason["message"]
    assert "cluster-announce-ip" in reason["remedy"]
