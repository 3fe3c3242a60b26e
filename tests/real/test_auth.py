"""The ACL users of the component `auth` on real servers: enough to form and repair, no more; and wrong ones, named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
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
    CancelMigration,
    CloseSlot,
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
from tests.real.conftest import Testbed
from tests.real.test_repair import replace_pods
from tests.secret_files import KEYS, Secret

Labs = Callable[..., Testbed]
PLACE = Address("127.0.0.1", 6379)
WRITES: tuple[Write, ...] = (
    SetTimeout(node="a", timeout_ms=1000),
    SetEpoch(node="a", epoch=1),
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
"""One of each kind, so that a new kind of write has to bring its right along. Wiping is nobody's right by default."""
MOVING: tuple[Command, ...] = (
    ("CLUSTER", "COUNTKEYSINSLOT", 93),
    ("CLUSTER", "GETKEYSINSLOT", 93, 10),
    ("SELECT", 0),
    ("MIGRATE", PLACE.host, PLACE.port, "", 0, 1000, "REPLACE", "KEYS", "somebody's"),
    ("RESTORE-ASKING", "somebody's", 0, "x"),
)
"""What the conversation of a MoveKeys sends, to both sides."""
CONVERSATIONS: Mapping[type[Write], tuple[Command, ...]] = {
    MoveKeys: MOVING,
    MoveSlots: (
        *MOVING,
        ("MEMORY", "USAGE", "somebody's"),
        ("INFO", "keyspace"),
        ("CLUSTER", "SETSLOT", 93, "NODE", "a"),
        ("COMMAND", "INFO", "cluster|migration"),
        ("CLUSTER", "MIGRATION", "IMPORT", 93, 93),
        ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", 93, 93, "NODE", "a"),
        ("CLUSTER", "GETSLOTMIGRATIONS"),
    ),
    CancelMigration: (("CLUSTER", "MIGRATION", "CANCEL", "ID", "1"), ("CLUSTER", "CANCELSLOTMIGRATIONS")),
    Provision: (("FUNCTION", "LIST"), ("FUNCTION", "LOAD", "REPLACE", "x")),
    Leave: (("CLUSTER", "RESET", "HARD"), ("INFO", "persistence"), ("SAVE",), ("BGSAVE",), ("BGREWRITEAOF",)),
}
"""What the writes that are conversations send, to either side; not every server has every way to move slots."""
NEWER = {("CLUSTER", "MIGRATION"), ("CLUSTER", "MIGRATESLOTS"), ("CLUSTER", "GETSLOTMIGRATIONS")}
NEWER |= {("CLUSTER", "CANCELSLOTMIGRATIONS")}
"""Commands that not every server has; that they are permitted where they are, growing under `auth` shows."""
ODD = " \"quoted\" 'and' \\ # >all ~* $HOME `id` %s é 密码 \t"


def words_of(write: Write) -> tuple[Command, ...]:
    return CONVERSATIONS.get(type(write)) or commands_for(write)


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    made = Secret.of(tmp_path / "auth")
    assert made.render().returncode == 0
    return made


def for_server(secret: Secret, program: Program) -> Secret:
    """The same, made by the script in an image of that server: older ones do not know the rights of newer commands."""
    path = f"{Path(program.path).parent}{os.pathsep}{os.environ['PATH']}"
    assert secret.render(path=path).returncode == 0
    return secret


def client(lab: Testbed, ordinal: int, user: str = "default", password: str = KEYS["password"]) -> Redis:
    address = lab.cluster.servers[ordinal].address
    return Redis(address.host, address.port, username=user, password=password, protocol=2, decode_responses=True)


def denied(lab: Testbed) -> list[Any]:
    """What the servers' ACL logs hold."""
    return [entry for ordinal in range(len(lab.cluster.servers)) for entry in client(lab, ordinal).acl_log()]


def test_the_jobs_user_may_do_all_that_forming_and_repair_take(program: Program, lab: Labs, secret: Secret) -> None:
    """A cluster from nothing, a lost master with its disk, and a healthy run; no server denied anybody anything."""
    for_server(secret, program)
    six = lab(program, config=secret.server_config)
    formed = six.run("apply", **secret.variables)
    assert (formed.exit_code, formed.outcome["outcome"]) == (0, "formed"), formed.text
    assert denied(six) == []
    replace_pods(six, 0, wiped=True)
    repaired = six.run("apply", **secret.variables)
    assert (repaired.exit_code, repaired.outcome["outcome"]) == (0, "repaired"), repaired.text
    assert denied(six) == []
    assert six.run("apply", **secret.variables).outcome["outcome"] == "unchanged"


def test_the_jobs_user_may_grow_and_shrink(program: Program, lab: Labs, secret: Secret) -> None:
    """3 to 4 shards and back, with keys, by whatever way the servers have; nobody was denied anything."""
    for_server(secret, program)
    eight = lab(program, 3, 1, servers=8, config=secret.server_config)
    zone = eight.cluster.nameserver.zone
    eight.cluster.nameserver.publish(replace(zone, pods=zone.pods[:6]))
    assert eight.run("apply", **secret.variables).exit_code == 0
    endpoints = [ClusterNode(server.address.host, server.address.port) for server in eight.cluster.servers[:3]]
    with RedisCluster(startup_nodes=endpoints, password=KEYS["password"]) as writer:
        for number in range(200):
            writer.set(f"key:{number}", number)
    eight.cluster.nameserver.publish(zone)
    for shards in (4, 3):
        said = replace(eight, shards=shards).run("apply", **secret.variables)
        assert (said.exit_code, said.outcome["outcome"]) == (0, "scaled"), said.text
        assert not [line for line in said.lines if line["event"] == "step_rejected"]
    with RedisCluster(startup_nodes=endpoints, password=KEYS["password"]) as reader:
        assert [reader.get(f"key:{number}") for number in range(200)] == [str(n).encode() for n in range(200)]
    assert denied(eight) == []


def test_every_right_of_the_jobs_user_is_used(lab: Labs, any_program: Program, secret: Secret) -> None:
    """Each is that of a command which a run was seen to send, or which one of the writes is."""
    six = lab(any_program, config=secret.server_config)
    assert six.run("apply", **secret.variables).exit_code == 0
    seen = {name for ordinal in range(6) for name in client(six, ordinal).info("commandstats")}
    if "cmdstat_cluster|nodes" not in seen:
        pytest.skip("this server does not count subcommands one by one")
    used = {name.removeprefix("cmdstat_") for name in seen} | {right for write in WRITES for right in rights_of(write)}
    rights = {rule[1:] for rule in secret.users["bootstrap"] if rule.startswith("+")}
    assert rights - used == set()


def test_every_write_and_every_look_is_permitted(program: Program, lab: Labs, secret: Secret) -> None:
    """The server is asked without doing it. Whoever adds a kind of write adds its right to the component's list."""
    assert {type(write) for write in WRITES} == set(get_args(Write)) - {Wipe}
    for_server(secret, program)
    one = lab(program, 1, 0, config=secret.server_config)
    commands = [*LOOK, *(command for write in WRITES for command in words_of(write))]
    commands = [command for command in commands if command[:2] not in NEWER]
    assert {command[:2]: verdict for command, verdict in dry_run(one, commands)} == {
        command[:2]: "OK" for command in commands
    }


def test_what_no_run_does_is_denied(lab: Labs, any_program: Program, secret: Secret) -> None:
    """Neither the data, nor anything that takes it away, nor the users."""
    one = lab(any_program, 1, 0, config=secret.server_config)
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


def test_nobody_gets_in_without_a_name(program: Program, lab: Labs, tmp_path: Path) -> None:
    """The user `default` has the clients' password or, where they have a user of their own, is off."""
    named = Secret.of(tmp_path / "named", username="app")
    for secret, user in ((named, "app"), (Secret.of(tmp_path / "default"), "default")):
        for_server(secret, program)
        server = lab(program, 1, 0, config=secret.server_config)
        assert_locked(server)
        assert client(server, 0, user).acl_whoami() == user
    assert named.users["default"] == ["off"]


def test_odd_passwords_open_the_door_and_are_not_shown(program: Program, lab: Labs, tmp_path: Path) -> None:
    """Quotes, blanks at both ends, a backslash, other alphabets: for the Job, and for the replicas at their master."""
    secret = Secret.of(tmp_path / "auth", bootstrap_password=f"{ODD}job\r\n", server_password=f"{ODD}servers\n")
    for_server(secret, program)
    six = lab(program, config=secret.server_config)
    said = six.run("apply", **secret.variables)
    assert said.exit_code == 0, said.text
    assert "quoted" not in said.text
    assert "密码" not in said.text
    assert client(six, 0).config_get("masterauth") == {"masterauth": f"{ODD}servers"}


def test_a_server_that_quotes_what_it_does_not_know_shows_no_password(
    lab: Labs, migrating_program: Program, tmp_path: Path
) -> None:
    """MIGRATE carries the password, and a server where it has another name sends its words back."""
    short = "cluster-node-timeout 1000"
    config = ("requirepass opensesame", "masterauth opensesame", short, 'rename-command MIGRATE ""')
    four = lab(migrating_program, 3, 0, servers=4, config=config)
    (tmp_path / "password").write_text("opensesame")
    secret = {"BOOTSTRAP_PASSWORD_FILE": str(tmp_path / "password"), "BOOTSTRAP_NODE_TIMEOUT_MS": "1000"}
    zone = four.cluster.nameserver.zone
    four.cluster.nameserver.publish(replace(zone, pods=zone.pods[:3]))
    assert four.run("apply", **secret).exit_code == 0
    endpoints = [ClusterNode(server.address.host, server.address.port) for server in four.cluster.servers[:3]]
    with RedisCluster(startup_nodes=endpoints, password="opensesame") as writer:
        for number in range(50):
            writer.set(f"key:{number}", number)
    four.cluster.nameserver.publish(zone)
    said = replace(four, shards=4).run("apply", **secret, BOOTSTRAP_DEADLINE_S="8")
    assert said.exit_code == 1, said.text
    assert "unknown command" in said.text
    assert "opensesame" not in said.text


def test_a_password_that_was_cut_is_not_shown_either() -> None:
    """Servers quote so many characters of a command and no more, wherever that is."""
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
    any_program: Program, lab: Labs, secret: Secret, tmp_path: Path, changed: dict[str, str], code: str
) -> None:
    """Exit 4, for each of the nodes; neither the right password nor the wrong one is in what it says."""
    (tmp_path / "wrong").write_text(f"{ODD}wrongone")
    if changed.get("BOOTSTRAP_PASSWORD_FILE"):
        changed = {**changed, "BOOTSTRAP_PASSWORD_FILE": str(tmp_path / "wrong")}
    three = lab(any_program, 3, 0, config=secret.server_config)
    said = three.run("apply", **{**secret.variables, **changed}, BOOTSTRAP_DEADLINE_S="1")
    assert (said.exit_code, [reason["code"] for reason in said.outcome["reasons"]]) == (4, [code] * 3)
    assert all(reason["remedy"] for reason in said.outcome["reasons"])
    assert "wrongone" not in said.text
    assert not any(value in said.text for key, value in KEYS.items() if key.endswith("password"))


@pytest.mark.parametrize(
    ("lacking", "told"),
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
    any_program: Program, lab: Labs, secret: Secret, lacking: str, told: str
) -> None:
    """In the server's own words, which name the command; and it is no success."""
    file = secret.written / "users.acl"
    file.write_text(file.read_text().replace(f" +{lacking}", "", 1))
    six = lab(any_program, config=secret.server_config)
    said = six.run("apply", **secret.variables, BOOTSTRAP_DEADLINE_S="8")
    assert said.exit_code != 0
    assert "no permissions to run" in said.text
    assert any(told in reason["message"].lower() for reason in said.outcome["reasons"])


@pytest.mark.parametrize("lacking", ["config|set", "config|get"])
def test_without_a_right_over_timeouts_all_else_is_done(
    any_program: Program, lab: Labs, secret: Secret, lacking: str
) -> None:
    """Timeouts that cannot be seen or set are left alone: forming then takes the servers' own delay."""
    file = secret.written / "users.acl"
    file.write_text(file.read_text().replace(f" +{lacking}", "", 1))
    six = lab(any_program, config=secret.server_config)
    said = six.run("apply", **secret.variables)
    assert (said.exit_code, said.outcome["outcome"]) == (0, "formed"), said.text
    assert client(six, 0).config_get("cluster-node-timeout") == {"cluster-node-timeout": "5000"}


def rights_of(write: Write) -> Iterable[str]:
    """`cluster|meet` and the like, and `migrate`, for each command that the write is."""
    commands = [[str(word).lower() for word in command[:2]] for command in words_of(write)]
    return (right for command in commands for right in ("|".join(command), command[0]))


def dry_run(lab: Testbed, commands: Iterable[Command]) -> list[tuple[Command, str]]:
    """What the server says to each, for the Job's user."""
    asked = client(lab, 0)
    if "server_name" not in asked.info("server") and asked.info("server")["redis_version"] < "7":
        pytest.skip("this server has no ACL DRYRUN")
    answers = []
    for command in commands:
        try:
            answer = str(asked.execute_command("ACL", "DRYRUN", "bootstrap", *command))
        except NoPermissionError as error:  # Valkey and Redis 8 say it as an error
            answer = str(error)
        answers.append((command, answer))
    return answers


def assert_locked(lab: Testbed) -> None:
    """Without a name and a password the server does nothing."""
    address = lab.cluster.servers[0].address
    with pytest.raises(AuthenticationError):
        Redis(address.host, address.port, protocol=2).ping()
