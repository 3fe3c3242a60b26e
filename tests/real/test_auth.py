"""The ACL users of the component `auth` on real servers: their rights are sufficient, minimal, and named if missing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from redis import Redis, RedisCluster
from redis.cluster import ClusterNode
from redis.exceptions import AuthenticationError, NoPermissionError

from bootstrap.local.programs import Program
from bootstrap.model.node import Address
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import (
    AddSlots,
    Announce,
    BumpEpoch,
    CancelMigration,
    CloseSlot,
    EndPause,
    Failover,
    Forget,
    Leave,
    ManualFailover,
    Meet,
    MoveKeys,
    MoveSlots,
    Provision,
    Reattach,
    Replicate,
    Retire,
    SetConfig,
    SetEpoch,
    SetSlotOwner,
    SetSlotState,
    SetTimeout,
    TakeSlot,
    Wipe,
    Write,
)
from bootstrap.nodes.commands import LOOK, Command, commands_for
from bootstrap.nodes.connection import Credentials
from bootstrap.run.rights import Rights
from tests.real.clusters import replace_pods
from tests.real.testbed import StartTestbed, Testbed
from tests.secret_files import KEYS, Secret

PLACE = Address("127.0.0.1", 6379)
WRITES: tuple[Write, ...] = (
    SetTimeout(node="a", timeout_ms=1000),
    SetEpoch(node="a", epoch=1),
    BumpEpoch(node="a"),
    Meet(introducer="a", newcomer="b", address=PLACE, bus_port=16379),
    AddSlots(node="a", slots=SlotSet.of((0, 9))),
    Replicate(replica="a", master="b"),
    Failover(candidate="a", lost="b", slots=SlotSet(), takeover=True),
    Forget(node="a", lost="b"),
    Announce(node="a", others=((PLACE, 16379),)),
    SetConfig(node="a", name="cluster-require-full-coverage", value="yes"),
    Reattach(replica="a", master="b"),
    SetSlotState(node="a", slot=93, other="b", importing=True),
    MoveKeys(source="a", target="b", slot=93, address=PLACE, databases=(0, 1)),
    SetSlotOwner(node="a", owner="b", slots=SlotSet.of((93, 93))),
    TakeSlot(node="a", slot=93),
    CloseSlot(node="a", slot=93),
    MoveSlots(source="a", target="b", slots=SlotSet.of((93, 93))),
    CancelMigration(node="a", task_id="1"),
    ManualFailover(candidate="a", master="b"),
    Provision(node="a", origin="b", address=PLACE, libraries=("l",), users=()),
    Leave(node="a"),
)
"""One write of each kind, so that a new kind cannot be added without its right. By default no user may wipe."""
MOVE_COMMANDS: tuple[Command, ...] = (
    ("CLUSTER", "COUNTKEYSINSLOT", 93),
    ("CLUSTER", "GETKEYSINSLOT", 93, 10),
    ("SELECT", 0),
    ("MIGRATE", PLACE.host, PLACE.port, "", 0, 1000, "REPLACE", "KEYS", "somebody's"),
    ("RESTORE-ASKING", "somebody's", 0, "x"),
)
"""The commands that MoveKeys sends, to both sides."""
SEQUENCES: Mapping[type[Write], tuple[Command, ...]] = {
    MoveKeys: MOVE_COMMANDS,
    MoveSlots: (
        *MOVE_COMMANDS,
        ("MEMORY", "USAGE", "somebody's"),
        ("INFO", "keyspace"),
        ("CLUSTER", "SETSLOT", 93, "NODE", "a"),
        ("COMMAND", "INFO", "cluster|migration"),
        ("CLUSTER", "MIGRATION", "IMPORT", 93, 93),
        ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", 93, 93, "NODE", "a"),
        ("CLUSTER", "GETSLOTMIGRATIONS"),
    ),
    CloseSlot: (("CLUSTER", "SETSLOT", 93, "STABLE"), *MOVE_COMMANDS[:3], ("INFO", "keyspace")),
    CancelMigration: (("CLUSTER", "MIGRATION", "CANCEL", "ID", "1"), ("CLUSTER", "CANCELSLOTMIGRATIONS")),
    Provision: (("FUNCTION", "LIST"), ("FUNCTION", "LOAD", "REPLACE", "x")),
    Leave: (("CLUSTER", "RESET", "HARD"), ("INFO", "persistence"), ("SAVE",), ("BGSAVE",), ("BGREWRITEAOF",)),
}
"""The commands of writes that send several, to either side. Not every server has every way to move slots."""
NEWER = {("CLUSTER", "MIGRATION"), ("CLUSTER", "MIGRATESLOTS"), ("CLUSTER", "GETSLOTMIGRATIONS")}
NEWER |= {("CLUSTER", "CANCELSLOTMIGRATIONS")}
"""Commands that only some servers have. The test that grows a cluster shows that they are permitted there."""
UNUSUAL = " \"quoted\" 'and' \\ # >all ~* $HOME `id` %s é 密码 \t"


def commands_of(write: Write) -> tuple[Command, ...]:
    return SEQUENCES.get(type(write)) or commands_for(write)


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    made = Secret.of(tmp_path / "auth")
    assert made.render().returncode == 0
    return made


def for_server(secret: Secret, program: Program) -> Secret:
    """The same Secret, rendered in an image of that server: older servers do not know the rights of newer commands."""
    path = f"{Path(program.path).parent}{os.pathsep}{os.environ['PATH']}"
    assert secret.render(path=path).returncode == 0
    return secret


def client(testbed: Testbed, ordinal: int, user: str = "default", password: str = KEYS["password"]) -> Redis:
    address = testbed.cluster.servers[ordinal].address
    return Redis(address.host, address.port, username=user, password=password, protocol=2, decode_responses=True)


def denied(testbed: Testbed) -> list[Any]:
    """All entries of the servers' ACL logs."""
    return [entry for ordinal in range(len(testbed.cluster.servers)) for entry in client(testbed, ordinal).acl_log()]


def test_the_jobs_user_may_form_and_repair(acl_program: Program, start_testbed: StartTestbed, secret: Secret) -> None:
    """A new cluster, a lost master with its disk, and a run on the healthy cluster. No server denied a command."""
    for_server(secret, acl_program)
    six = start_testbed(acl_program, config=secret.server_config)
    formed = six.run("apply", **secret.variables)
    assert (formed.exit_code, formed.outcome["outcome"]) == (0, "formed"), formed.text
    assert denied(six) == []
    replace_pods(six, 0, wiped=True)
    repaired = six.run("apply", **secret.variables)
    assert (repaired.exit_code, repaired.outcome["outcome"]) == (0, "repaired"), repaired.text
    assert denied(six) == []
    assert six.run("apply", **secret.variables).outcome["outcome"] == "unchanged"


def test_the_jobs_user_may_grow_and_shrink(acl_program: Program, start_testbed: StartTestbed, secret: Secret) -> None:
    """3 to 4 shards and back, with keys, by the method that the servers support. No server denied a command."""
    for_server(secret, acl_program)
    eight = start_testbed(acl_program, 3, 1, servers=8, config=secret.server_config)
    zone = eight.cluster.nameserver.zone
    eight.cluster.nameserver.publish(replace(zone, pods=zone.pods[:6]))
    assert eight.run("apply", **secret.variables).exit_code == 0
    endpoints = [ClusterNode(server.address.host, server.address.port) for server in eight.cluster.servers[:3]]
    with RedisCluster(startup_nodes=endpoints, password=KEYS["password"], protocol=2) as writer:
        for number in range(200):
            writer.set(f"key:{number}", number)
    eight.cluster.nameserver.publish(zone)
    for shards in (4, 3):
        result = replace(eight, shards=shards).run("apply", **secret.variables)
        assert (result.exit_code, result.outcome["outcome"]) == (0, "scaled"), result.text
        assert not [line for line in result.lines if line["event"] == "step_rejected"]
    with RedisCluster(startup_nodes=endpoints, password=KEYS["password"], protocol=2) as reader:
        assert [reader.get(f"key:{number}") for number in range(200)] == [str(n).encode() for n in range(200)]
    assert denied(eight) == []


def test_every_right_of_the_jobs_user_is_used(
    start_testbed: StartTestbed, any_program_since_6: Program, secret: Secret
) -> None:
    """Each right belongs to a command that a run has sent, or to a command of one of the writes."""
    six = start_testbed(any_program_since_6, config=secret.server_config)
    assert six.run("apply", **secret.variables).exit_code == 0
    seen = {name for ordinal in range(6) for name in client(six, ordinal).info("commandstats")}
    if "cmdstat_cluster|nodes" not in seen:
        pytest.skip("this server does not count subcommands one by one")
    used = {name.removeprefix("cmdstat_") for name in seen} | {right for write in WRITES for right in rights_of(write)}
    rights = {rule[1:] for rule in secret.users["bootstrap"] if rule.startswith("+")}
    assert rights - used == set()


def test_every_write_and_every_look_is_permitted(
    acl_program: Program, start_testbed: StartTestbed, secret: Secret
) -> None:
    """ACL DRYRUN checks a command without executing it. A new kind of write needs its right in the component's list,
    but for a wipe, and what old nodes of another cluster are sent.
    """
    assert {type(write) for write in WRITES} == set(get_args(Write)) - {Wipe, EndPause, Retire}
    for_server(secret, acl_program)
    one = start_testbed(acl_program, 1, 0, config=secret.server_config)
    commands = [*LOOK, *(command for write in WRITES for command in commands_of(write))]
    commands = [command for command in commands if command[:2] not in NEWER]
    assert {command[:2]: verdict for command, verdict in dry_run(one, commands)} == {
        command[:2]: "OK" for command in commands
    }


def test_commands_that_no_run_sends_are_denied(
    start_testbed: StartTestbed, any_program_since_6: Program, secret: Secret
) -> None:
    """The user can neither read nor delete data, administer the server, or list its users."""
    one = start_testbed(any_program_since_6, 1, 0, config=secret.server_config)
    commands: list[Command] = [
        ("HGETALL", "somebody's"),
        ("RENAME", "somebody's", "x"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CLUSTER", "FLUSHSLOTS"),
        ("CONFIG", "REWRITE"),
        ("ACL", "LIST"),
        ("SHUTDOWN",),
        ("PSYNC", "?", "-1"),
        ("DEBUG", "SLEEP", "0"),
    ]
    assert [command for command, verdict in dry_run(one, commands) if verdict == "OK"] == []


def test_a_client_without_a_user_name_is_rejected(
    acl_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """The user `default` has the clients' password. If clients have their own user, `default` is off."""
    named = Secret.of(tmp_path / "named", username="app")
    for secret, user in ((named, "app"), (Secret.of(tmp_path / "default"), "default")):
        for_server(secret, acl_program)
        server = start_testbed(acl_program, 1, 0, config=secret.server_config)
        assert_locked(server)
        assert client(server, 0, user).acl_whoami() == user
    assert named.users["default"] == ["off"]


def test_unusual_passwords_work_and_are_not_shown(
    acl_program: Program, start_testbed: StartTestbed, tmp_path: Path
) -> None:
    """Quotes, spaces at both ends, a backslash, other alphabets: for the Job, and for the replicas at their master."""
    secret = Secret.of(tmp_path / "auth", bootstrap_password=f"{UNUSUAL}job\r\n", server_password=f"{UNUSUAL}servers\n")
    for_server(secret, acl_program)
    six = start_testbed(acl_program, config=secret.server_config)
    result = six.run("apply", **secret.variables)
    assert result.exit_code == 0, result.text
    assert "quoted" not in result.text
    assert "密码" not in result.text
    assert client(six, 0).config_get("masterauth") == {"masterauth": f"{UNUSUAL}servers"}


@pytest.mark.parametrize("username", ["", "default", "ignored"])
def test_one_password_for_all_is_enough_to_grow_and_repair(
    program: Program, start_testbed: StartTestbed, tmp_path: Path, username: str
) -> None:
    """`requirepass` and `masterauth`, without a name or with that of the default user. Redis 5, which has no other
    protection, ignores any name.
    """
    if username == "ignored" and int(program.version.split(".")[0]) >= 6:
        pytest.skip("this server has user names")
    config = ("requirepass opensesame", "masterauth opensesame", "cluster-node-timeout 1000")
    eight = start_testbed(program, 3, 1, servers=8, config=config)
    (tmp_path / "password").write_text("opensesame")
    secret = {"BOOTSTRAP_PASSWORD_FILE": str(tmp_path / "password"), "BOOTSTRAP_USERNAME": username}
    secret["BOOTSTRAP_NODE_TIMEOUT_MS"] = "1000"
    zone = eight.cluster.nameserver.zone
    eight.cluster.nameserver.publish(replace(zone, pods=zone.pods[:6]))
    assert eight.run("apply", **secret).exit_code == 0
    endpoints = [ClusterNode(server.address.host, server.address.port) for server in eight.cluster.servers]
    with RedisCluster(startup_nodes=endpoints, password="opensesame", protocol=2) as writer:
        for number in range(200):
            writer.set(f"key:{number}", number)
    eight.cluster.nameserver.publish(zone)
    grown = replace(eight, shards=4).run("apply", **secret)
    assert (grown.exit_code, grown.outcome["outcome"]) == (0, "scaled"), grown.text
    assert not [line for line in grown.lines if line["event"] == "step_rejected"]
    replace_pods(eight, 1, wiped=True)
    repaired = replace(eight, shards=4).run("apply", **secret)
    assert (repaired.exit_code, repaired.outcome["outcome"]) == (0, "repaired"), repaired.text
    with RedisCluster(startup_nodes=endpoints, password="opensesame", protocol=2) as reader:
        assert [reader.get(f"key:{number}") for number in range(200)] == [str(n).encode() for n in range(200)]


def test_an_error_that_quotes_the_command_shows_no_password(
    start_testbed: StartTestbed, migrating_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIGRATE carries the password. A server that does not know the command quotes its arguments in the error. A run
    asks for the command before, without the password; here it does not.
    """
    monkeypatch.setattr(Rights, "check", lambda *_: None)
    short = "cluster-node-timeout 1000"
    config = ("requirepass opensesame", "masterauth opensesame", short, 'rename-command MIGRATE ""')
    four = start_testbed(migrating_program, 3, 0, servers=4, config=config)
    (tmp_path / "password").write_text("opensesame")
    secret = {"BOOTSTRAP_PASSWORD_FILE": str(tmp_path / "password"), "BOOTSTRAP_NODE_TIMEOUT_MS": "1000"}
    zone = four.cluster.nameserver.zone
    four.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert four.run("apply", **secret).exit_code == 0
    endpoints = [ClusterNode(server.address.host, server.address.port) for server in four.cluster.servers[:3]]
    with RedisCluster(startup_nodes=endpoints, password="opensesame", protocol=2) as writer:
        for number in range(50):
            writer.set(f"key:{number}", number)
    four.cluster.nameserver.publish(zone)
    result = replace(four, shards=4).run("apply", **secret, BOOTSTRAP_DEADLINE_S="8")
    assert result.exit_code == 1, result.text
    assert "unknown command" in result.text
    assert "opensesame" not in result.text


def test_a_truncated_password_is_not_shown() -> None:
    """Servers quote a limited number of characters of a command, so the password may be cut anywhere."""
    redact = Credentials(password="correct horse battery staple").redact
    assert redact("unknown command 'MIGRATE', with args: '::1' '6379' 'AUTH' 'correct hor' ") == (
        "unknown command 'MIGRATE', with args: '::1' '6379' 'AUTH' '…' "
    )
    assert redact("with args: 'AUTH' 'correct horse batt") == "with args: 'AUTH' '"
    assert redact("the word 'cor'rect is no secret") == "the word 'cor'rect is no secret"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"BOOTSTRAP_USERNAME": "nobody"}, "wrong-password"),
        ({"BOOTSTRAP_PASSWORD_FILE": "wrong"}, "wrong-password"),
        ({"BOOTSTRAP_USERNAME": "", "BOOTSTRAP_PASSWORD_FILE": "wrong"}, "wrong-password"),
        ({"BOOTSTRAP_USERNAME": "", "BOOTSTRAP_PASSWORD_FILE": ""}, "needs-password"),
    ],
    ids=["another user", "another password", "no user", "neither"],
)
def test_a_wrong_user_or_password_is_named(
    any_program_since_6: Program,
    start_testbed: StartTestbed,
    secret: Secret,
    tmp_path: Path,
    changed: dict[str, str],
    code: str,
) -> None:
    """Exit 4 with a reason for each node. The output contains neither the right password nor the wrong one."""
    (tmp_path / "wrong").write_text(f"{UNUSUAL}wrongone")
    if changed.get("BOOTSTRAP_PASSWORD_FILE"):
        changed = {**changed, "BOOTSTRAP_PASSWORD_FILE": str(tmp_path / "wrong")}
    three = start_testbed(any_program_since_6, 3, 0, config=secret.server_config)
    result = three.run("apply", **{**secret.variables, **changed}, BOOTSTRAP_DEADLINE_S="1")
    assert (result.exit_code, [reason["code"] for reason in result.outcome["reasons"]]) == (4, [code])
    assert all(reason["remedy"] for reason in result.outcome["reasons"])
    assert "wrongone" not in result.text
    assert not any(value in result.text for key, value in KEYS.items() if key.endswith("password"))


@pytest.mark.parametrize(
    ("lacking", "command"),
    [
        ("cluster|nodes", "cluster"),
        ("cluster|info", "cluster"),
        ("info", "info"),
        ("cluster|set-config-epoch", "cluster"),
        ("cluster|meet", "cluster"),
        ("cluster|addslots", "cluster"),
        ("cluster|replicate", "cluster"),
        ("cluster|slots", "cluster"),
        ("command", "command"),
        ("set", "set"),
        ("get", "get"),
        ("del", "del"),
    ],
)
def test_a_right_that_the_user_lacks_is_named(
    any_program_since_6: Program, start_testbed: StartTestbed, secret: Secret, lacking: str, command: str
) -> None:
    """The run fails and reports the server's own message, which names the command."""
    file = secret.written / "users.acl"
    file.write_text(file.read_text().replace(f" +{lacking}", "", 1))
    six = start_testbed(any_program_since_6, config=secret.server_config)
    result = six.run("apply", **secret.variables, BOOTSTRAP_DEADLINE_S="8")
    assert result.exit_code != 0
    assert "no permissions to run" in result.text
    assert any(command in reason["message"].lower() for reason in result.outcome["reasons"])


@pytest.mark.parametrize("lacking", ["config|set", "config|get"])
def test_without_a_right_to_timeouts_the_cluster_still_forms(
    any_program_since_6: Program, start_testbed: StartTestbed, secret: Secret, lacking: str
) -> None:
    """Timeouts that cannot be read or set are left alone. Forming then takes the servers' own delay."""
    file = secret.written / "users.acl"
    file.write_text(file.read_text().replace(f" +{lacking}", "", 1))
    six = start_testbed(any_program_since_6, config=secret.server_config)
    result = six.run("apply", **secret.variables)
    assert (result.exit_code, result.outcome["outcome"]) == (0, "formed"), result.text
    assert client(six, 0).config_get("cluster-node-timeout") == {"cluster-node-timeout": "5000"}


def rights_of(write: Write) -> Iterable[str]:
    """The rights for each command of the write, with and without its second word: `cluster|meet` and `cluster`."""
    commands = [[str(word).lower() for word in command[:2]] for command in commands_of(write)]
    return (right for command in commands for right in ("|".join(command), command[0]))


def dry_run(testbed: Testbed, commands: Iterable[Command]) -> list[tuple[Command, str]]:
    """The server's answer to each command, for the Job's user."""
    server = client(testbed, 0)
    if "server_name" not in server.info("server") and server.info("server")["redis_version"] < "7":
        pytest.skip("this server has no ACL DRYRUN")
    answers = []
    for command in commands:
        try:
            answer = str(server.execute_command("ACL", "DRYRUN", "bootstrap", *command))
        except NoPermissionError as error:  # Valkey and Redis 8 report it as an error
            answer = str(error)
        answers.append((command, answer))
    return answers


def assert_locked(testbed: Testbed) -> None:
    """The server rejects a client without a user name and a password."""
    address = testbed.cluster.servers[0].address
    with pytest.raises(AuthenticationError):
        Redis(address.host, address.port, protocol=2).ping()
