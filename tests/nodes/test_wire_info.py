"""The parsers of INFO, CONFIG GET, FUNCTION LIST and ACL LIST, on texts of real servers."""

from __future__ import annotations

import pytest

from bootstrap.errors import WireError
from bootstrap.model.node import Role
from bootstrap.nodes.wire.info import (
    Persistence,
    databases_of,
    keys_by_database,
    node_timeout_ms,
    parse_config,
    parse_info,
    parse_persistence,
    parse_replication,
    parse_server,
)
from bootstrap.nodes.wire.provisions import parse_acl_list, parse_function_list
from tests.nodes.server_texts import TEXTS


@pytest.mark.parametrize("version", TEXTS)
def test_a_replica_reports_its_master_and_its_link(version: str) -> None:
    """From the replication section of INFO, up and with its first copy."""
    found = parse_replication(parse_info(TEXTS[version]["replication of a replica"]))
    assert (found.role, found.link_up) == (Role.REPLICA, True)
    assert found.master is not None
    assert found.offset > 0


@pytest.mark.parametrize("version", TEXTS)
def test_a_master_counts_the_replicas_that_are_online(version: str) -> None:
    """A replica that still receives its first copy does not count."""
    found = parse_replication(parse_info(TEXTS[version]["replication of a master"]))
    assert (found.role, found.link_up, len(found.online_replicas)) == (Role.MASTER, True, 1)


@pytest.mark.parametrize(
    ("change", "link_up"),
    [({}, True), ({"master_link_status": "down"}, False), ({"master_sync_in_progress": "1"}, False)],
)
def test_a_link_is_up_once_the_first_copy_is_complete(change: dict[str, str], link_up: bool) -> None:
    """A link that is up while the copy continues does not count as up."""
    info = dict(parse_info(TEXTS["redis 6.2"]["replication of a replica"])) | change
    assert parse_replication(info).link_up is link_up


@pytest.mark.parametrize("info", [{}, {"role": "sentinel"}])
def test_a_role_that_no_cluster_node_has_is_an_error(info: dict[str, str]) -> None:
    """A Sentinel, or a program that is not Redis at all."""
    with pytest.raises(WireError, match="not a role"):
        parse_replication(info)


@pytest.mark.parametrize("version", TEXTS)
def test_keys_are_counted_over_all_databases(version: str) -> None:
    """Valkey 9 has several databases in a cluster; an empty one has no line."""
    text = TEXTS[version]["keyspace"]
    assert keys_by_database(parse_info(text)) == {0: 4}
    assert keys_by_database(parse_info(text + "\r\ndb1:keys=3,expires=0,avg_ttl=0\r\n")) == {0: 4, 1: 3}
    assert keys_by_database(parse_info("# Keyspace\r\n")) == {}


def test_the_databases_are_those_with_a_line() -> None:
    """They are read while slots move, when only their numbers matter."""
    text = "# Keyspace\r\ndb0:keys=4,expires=0\r\ndb12:keys=1,expires=0\r\ndbx:keys=1\r\n"
    assert databases_of(parse_info(text)) == {0, 12}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("aof_enabled:0\r\nrdb_last_bgsave_status:ok", Persistence(append_only=False, writing=False, written=True)),
        ("aof_enabled:1\r\nrdb_last_bgsave_status:ok", Persistence(append_only=True, writing=False, written=False)),
        (
            "aof_enabled:1\r\naof_last_bgrewrite_status:ok\r\naof_rewrite_scheduled:1",
            Persistence(append_only=True, writing=True, written=True),
        ),
        (
            "aof_enabled:0\r\nrdb_bgsave_in_progress:1\r\nrdb_last_bgsave_status:err",
            Persistence(append_only=False, writing=True, written=False),
        ),
    ],
)
def test_persistence_is_that_of_the_file_that_a_restart_reads(fields: str, expected: Persistence) -> None:
    """The append-only file where it is enabled, else the snapshot; a scheduled write counts as one that runs."""
    assert parse_persistence(parse_info(fields)) == expected


@pytest.mark.parametrize(
    ("text", "mode", "version"),
    [
        ("redis_version:7.0.15\r\nredis_mode:cluster", "cluster", "redis 7.0.15"),
        ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2", "", "valkey 9.1.2"),
        ("", "", "redis ?"),
    ],
)
def test_a_server_is_named_as_it_names_itself(text: str, mode: str, version: str) -> None:
    """Valkey also reports the version of Redis that it is compatible with."""
    server = parse_server(parse_info(text))
    assert (server.mode, server.version) == (mode, version)


@pytest.mark.parametrize(
    ("reply", "timeout_ms"),
    [
        (["cluster-node-timeout", "5000"], 5000),
        (["cluster-node-timeout", "soon"], None),
        ([], None),
        (Exception("NOPERM"), None),
    ],
)
def test_the_node_timeout_may_be_unknown(reply: object, timeout_ms: int | None) -> None:
    """Where CONFIG is denied."""
    assert node_timeout_ms(parse_config(reply)) == timeout_ms


def test_function_libraries_are_read_with_their_code() -> None:
    """Where WITHCODE asked for it; an error reply is not an empty list."""
    reply = [
        ["library_name", "one", "engine", "LUA", "library_code", "#!lua name=one"],
        ["library_name", "two"],
        "junk",
    ]
    assert parse_function_list(reply) == {"one": "#!lua name=one", "two": ""}
    assert parse_function_list(Exception("unknown command 'FUNCTION'")) is None


def test_acl_users_are_read_with_their_rules() -> None:
    """A selector is one rule, although it contains blanks; an error reply is not an empty list."""
    reply = ["user default on nopass ~* +@all", "user app on #ab12 ~app:* (~* +get) -@all", "nonsense"]
    assert parse_acl_list(reply) == {
        "default": ("on", "nopass", "~*", "+@all"),
        "app": ("on", "#ab12", "~app:*", "(~* +get)", "-@all"),
    }
    assert parse_acl_list(Exception("NOPERM")) is None
