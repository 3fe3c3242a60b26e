"""Settings: where they are read from, which values are refused, and with which messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bootstrap.config import Settings, declared, flag_of, unknown_variables, variable_of
from bootstrap.errors import Misconfigured, Reason
from bootstrap.model.desired import Desired
from bootstrap.model.node import Address
from bootstrap.setting_types import Secret

DOCUMENTED = {
    "BOOTSTRAP_SERVICE": "redis-service",
    "BOOTSTRAP_CLUSTER_DOMAIN": "cluster.local",
    "BOOTSTRAP_PORT_NAME": "redis-port",
    "BOOTSTRAP_NAMESERVER": "from resolv.conf",
    "BOOTSTRAP_SHARDS": "3",
    "BOOTSTRAP_REPLICAS_PER_SHARD": "1",
    "BOOTSTRAP_DEADLINE_S": "300.0",
    "BOOTSTRAP_NODE_TIMEOUT_MS": "none: leave timeouts alone",
    "BOOTSTRAP_KUBERNETES": "auto",
    "BOOTSTRAP_LOG": "auto",
    "BOOTSTRAP_USERNAME": "none",
    "BOOTSTRAP_PASSWORD_FILE": "none",
    "BOOTSTRAP_TLS_CA_FILE": "none",
    "BOOTSTRAP_TLS_CERT_FILE": "none",
    "BOOTSTRAP_TLS_KEY_FILE": "none",
}
"""The contract's variables and defaults."""


def read(**variables: str) -> Settings:
    """Settings from variables without their prefix: `read(SHARDS="5")`."""
    return Settings.from_env({f"BOOTSTRAP_{name}": text for name, text in variables.items()})


def faults(**variables: str) -> list[str]:
    """The messages with which the variables are refused."""
    with pytest.raises(Misconfigured) as caught:
        read(**variables)
    assert caught.value.exit_code == 4
    assert all(reason.remedy for reason in caught.value.reasons)
    return [reason.message for reason in caught.value.reasons]


def file(folder: Path, name: str, content: bytes = b"x") -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def test_every_variable_of_the_contract_is_declared_with_its_default() -> None:
    """Settings may be added, none is removed."""
    shown = {variable_of(name): setting["shown"] for name, setting in declared().items()}
    assert {name: shown.get(name) for name in DOCUMENTED} == DOCUMENTED
    assert "BOOTSTRAP_NAMESPACE" in shown


def test_nothing_set_gives_the_defaults() -> None:
    """The shape of the manifests: three shards with one replica each."""
    found = Settings.from_env({})
    assert found.desired == Desired(shards=3, replicas_per_shard=1, timeout_ms=None)
    assert (found.nameserver, found.password, found.kubernetes) == (None, None, "auto")
    assert (found.lease, found.read_nodes, found.role_labels) == ("redis-bootstrap", False, False)


@pytest.mark.parametrize("name", declared())
def test_an_empty_variable_is_unset(name: str) -> None:
    """A ConfigMap can name a setting without setting it."""
    assert Settings.from_env({variable_of(name): ""}) == Settings.from_env({})


def test_a_flag_goes_before_a_variable() -> None:
    """And a variable before the default; an empty flag selects the default, whatever the variable."""
    environ = {"BOOTSTRAP_SHARDS": "5", "BOOTSTRAP_SERVICE": "peers"}
    found = Settings.from_env(environ, {"shards": "7"})
    assert (found.shards, found.service, found.replicas_per_shard) == (7, "peers", 1)
    assert Settings.from_env(environ, {"shards": ""}).shards == 3


def test_a_fault_names_where_it_came_from() -> None:
    """The flag if there is one, else the variable."""
    assert faults(SHARDS="2") == ["BOOTSTRAP_SHARDS '2' is not between 3 and 1000"]
    with pytest.raises(Misconfigured, match=r"^--shards '2' is not between"):
        Settings.from_env({"BOOTSTRAP_SHARDS": "5"}, {"shards": "2"})
    assert flag_of("node_timeout_ms") == "--node-timeout-ms"
    with pytest.raises(Misconfigured, match=r"^--weights names redis-app-9, "):
        Settings.from_env({}, {"weights": "redis-app-9=3"})
    with pytest.raises(Misconfigured, match=r"^--username is set without BOOTSTRAP_PASSWORD_FILE$"):
        Settings.from_env({}, {"username": "u"})
    with pytest.raises(Misconfigured, match=r"^--password-file '/nowhere' "):
        Settings.from_env({}, {"password_file": "/nowhere"})


LIMITS = {
    "SHARDS": (["3", "500"], ["2", "1001", "-3", "3.0", "three", "٣", "1" * 30]),
    "REPLICAS_PER_SHARD": (["0", "2"], ["-1", "1001", "1e1"]),
    "PORT": (["1", "65535"], ["0", "65536"]),
    "DEADLINE_S": (["1", "0.5e1", "86400"], ["0", "86401", "nan", "inf", "-1", "5m"]),
    "NODE_TIMEOUT_MS": (["100", "3600000"], ["99", "3600001", "5s"]),
    "SERVICE": (["a", "a" * 63], ["A", "-a", "a-", "a.b", "a" * 64, "a_b", "ä"]),
    "NAMESPACE": (["default"], ["Default", "a b"]),
    "CLUSTER_DOMAIN": (["cluster.local", "cluster.local.", "a"], [".", "a..b", "a b", ".a"]),
    "STATEFULSET": (["redis-app"], ["redis_app"]),
    "KUBERNETES": (["auto", "on", "off"], ["yes", "ON"]),
    "LEASE": (["redis-bootstrap"], ["Redis", "a.b"]),
    "READ_NODES": (["on", "off"], ["auto", "yes", "ON"]),
    "ROLE_LABELS": (["on", "off"], ["auto", "true", "1"]),
    "LOG": (["auto", "json", "console"], ["text"]),
    "ACCESS_SERVICE": (["gold-redis", "none"], ["Gold"]),
    "IMPORT_FROM": (
        ["none", "old-redis", "old-redis.shop:6379", "10.0.0.7:1,[fd00::7]:65535", "a_b.c"],
        ["a:0", "a:65536", "a:", ":6379", "redis://a:6379", "[fd00::7", "fd00::7:6379", "a b:x", ","],
    ),
    "IMPORT_DATABASES": (["0=0", "3=0,0=1", "15=0"], ["3", "0=0,0=1", "0=0,1=0", "a=0", "0=-1", "0==1"]),
    "IMPORT_REPLACE": (["on", "off"], ["yes", "1"]),
    "IMPORT_DEADLINE_S": (["0.1", "604800"], ["0", "604801", "1h"]),
    "TERMINATION_MESSAGE_FILE": (["/dev/termination-log"], ["a\nb"]),
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, (good, _) in LIMITS.items() for text in good])
def test_a_value_at_its_limit_is_accepted(name: str, text: str) -> None:
    """The first and the last valid value of each setting."""
    extra = {"REPLICAS_PER_SHARD": "0"} if name == "SHARDS" else {}
    assert isinstance(read(**{name: text, **extra}), Settings)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, (_, bad) in LIMITS.items() for text in bad])
def test_a_value_beyond_its_limit_is_refused_by_name(name: str, text: str) -> None:
    """One fault, with the variable and its value."""
    (message,) = faults(**{name: text})
    assert message.startswith(f"BOOTSTRAP_{name} {text!r} ")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.96.0.10", Address("10.96.0.10", 53)),
        ("127.0.0.1:5353", Address("127.0.0.1", 5353)),
        ("fd00::10", Address("fd00::10", 53)),
        ("[fd00::10]", Address("fd00::10", 53)),
        ("[fd00::10]:5353", Address("fd00::10", 5353)),
    ],
)
def test_a_name_server_is_an_address_with_or_without_port(text: str, address: Address) -> None:
    """Without a port, 53."""
    assert read(NAMESERVER=text).nameserver == address


@pytest.mark.parametrize(
    "text",
    [
        "kube-dns",
        "kube-dns:53",
        "10.96.0",
        "10.96.0.10:",
        "10.96.0.10:0",
        "10.96.0.10:65536",
        "10.96.0.10:53:53",
        "[fd00::10",
        "[fd00::10]53",
        "[]:53",
        ":53",
        "tcp://10.96.0.10",
    ],
)
def test_a_name_server_must_be_an_address(text: str) -> None:
    """A name could not be resolved without a name server."""
    assert faults(NAMESERVER=text) == [
        f"BOOTSTRAP_NAMESERVER {text!r} is not an address of the form ip, ip:port or [ip]:port"
    ]


def test_all_faults_are_reported_together() -> None:
    """A person corrects a ConfigMap once, not once per fault."""
    messages = faults(SHARDS="2", LOG="loud", NAMESERVER="dns", PASSWORD_FILE="/nowhere/at/all")
    assert sorted(message.split(" ")[0] for message in messages) == [
        "BOOTSTRAP_LOG",
        "BOOTSTRAP_NAMESERVER",
        "BOOTSTRAP_PASSWORD_FILE",
        "BOOTSTRAP_SHARDS",
    ]


def test_a_shape_too_big_for_one_cluster_is_refused() -> None:
    """Each number is within its limits, their product is not."""
    (message,) = faults(SHARDS="501", REPLICAS_PER_SHARD="1")
    assert "1002 nodes, over 1000" in message


@pytest.mark.parametrize("content", [b"secret", b"secret\n", b"secret\r\n"])
def test_a_password_is_read_without_the_line_end_that_an_editor_leaves(tmp_path: Path, content: bytes) -> None:
    """Blanks are part of a password, the line end is not."""
    assert read(PASSWORD_FILE=file(tmp_path, "password", content)).password == "secret"
    assert read(PASSWORD_FILE=file(tmp_path, "blank", b" a b ")).password == " a b "


@pytest.mark.parametrize(("content", "why"), [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "not UTF-8")])
def test_a_password_file_without_a_password_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    """The message does not show its content."""
    (message,) = faults(PASSWORD_FILE=file(tmp_path, "password", content))
    assert message.startswith("BOOTSTRAP_PASSWORD_FILE ")
    assert why in message


def test_a_password_file_that_is_missing_or_a_directory_is_refused(tmp_path: Path) -> None:
    """With the operating system's message."""
    assert "No such file" in faults(PASSWORD_FILE=str(tmp_path / "missing"))[0]
    assert "is not a regular file" in faults(PASSWORD_FILE=str(tmp_path))[0]


def test_a_user_without_a_password_is_refused() -> None:
    """Redis needs both."""
    assert faults(USERNAME="bootstrap") == ["BOOTSTRAP_USERNAME is set without BOOTSTRAP_PASSWORD_FILE"]


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    """Neither in the text of the settings nor in its own."""
    found = read(USERNAME="bootstrap", PASSWORD_FILE=file(tmp_path, "password", b"hunter2"))
    assert found.password == "hunter2"
    for shown in (repr(found), str(found), f"{found}", repr(found.password), repr([Secret("hunter2")])):
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("given_files", "lacking"),
    [
        (["CERT"], {"KEY", "CA"}),
        (["KEY"], {"CERT", "CA"}),
        (["CERT", "KEY"], {"CA"}),
        (["CA", "CERT"], {"KEY"}),
        (["CA", "KEY"], {"CERT"}),
    ],
    ids=lambda names: " and ".join(sorted(names)),
)
def test_missing_tls_files_are_named(tmp_path: Path, given_files: list[str], lacking: set[str]) -> None:
    """Mutual TLS needs the certificate, its key and the CA."""
    messages = faults(**{f"TLS_{name}_FILE": file(tmp_path, name) for name in given_files})
    assert {message.split(" ")[0] for message in messages} == {f"BOOTSTRAP_TLS_{name}_FILE" for name in lacking}


@pytest.mark.parametrize("names", [["CA"], ["CA", "CERT", "KEY"]])
def test_tls_with_and_without_a_client_certificate_is_accepted(tmp_path: Path, names: list[str]) -> None:
    """A CA file alone turns TLS on."""
    found = read(**{f"TLS_{name}_FILE": file(tmp_path, name) for name in names})
    assert found.tls_ca_file == tmp_path / "CA"
    assert (found.tls_key_file is not None) == ("KEY" in names)


def test_a_variable_that_is_not_a_setting_is_reported() -> None:
    """Most likely its name is misspelt."""
    environ = {"BOOTSTRAP_SHARD": "5", "BOOTSTRAP_SHARDS": "5", "HOME": "/", "BOOTSTRAP_LOGS": ""}
    assert unknown_variables(environ) == ("BOOTSTRAP_LOGS", "BOOTSTRAP_SHARD")


@given(st.dictionaries(st.sampled_from(sorted(declared())), st.text(max_size=20), max_size=6), st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_for_any_setting_gives_settings_or_a_fault(texts: dict[str, str], as_flags: bool) -> None:
    """Nothing else happens, and each fault names its setting."""
    environ = {} if as_flags else {variable_of(name): text for name, text in texts.items()}
    sources = {reason.message.split(" ")[0] for reason in reasons_against(environ, texts if as_flags else None)}
    assert sources <= {spelled for name in texts for spelled in (variable_of(name), flag_of(name))} | NEED_EACH_OTHER


NEED_EACH_OTHER = {
    "BOOTSTRAP_USERNAME",
    "BOOTSTRAP_SHARDS",
    "BOOTSTRAP_TLS_CA_FILE",
    "BOOTSTRAP_TLS_KEY_FILE",
    "BOOTSTRAP_TLS_CERT_FILE",
    "BOOTSTRAP_IMPORT_USERNAME",
    "BOOTSTRAP_IMPORT_TLS_CA_FILE",
    "BOOTSTRAP_IMPORT_TLS_KEY_FILE",
    "BOOTSTRAP_IMPORT_TLS_CERT_FILE",
}


def reasons_against(environ: dict[str, str], flags: dict[str, str] | None) -> tuple[Reason, ...]:
    """The reasons for refusing the settings; a Misconfigured without a reason counts as one."""
    try:
        Settings.from_env(environ, flags)
    except Misconfigured as error:
        return error.reasons or (Reason(code="", message="no reason", remedy=""),)
    return ()


def test_an_adoption_needs_the_address_of_the_old_cluster(tmp_path: Path) -> None:
    """A fingerprint on the command line without it is a mistake; in the environment it may be left over."""
    with pytest.raises(Misconfigured) as raised:
        Settings.from_env({}, {"adopt": "0123456789ab"})
    assert [reason.message for reason in raised.value.reasons] == [
        "--adopt is set without BOOTSTRAP_ADOPT, which names the old cluster"
    ]
    left = {"BOOTSTRAP_ADOPT_FINGERPRINT": "0123456789ab", "BOOTSTRAP_ADOPT_FINISH": "on"}
    assert Settings.from_env(left).adoption is None
    declared = Settings.from_env({**left, "BOOTSTRAP_ADOPT": "old.shop:7000"}).adoption
    assert declared is not None
    assert (declared.fingerprint, declared.finish, declared.back) == ("0123456789ab", True, False)


def test_going_back_and_finishing_are_opposites() -> None:
    """Both at once is a mistake, not a choice of the program."""
    (message,) = faults(ADOPT="old:6379", ADOPT_BACK="on", ADOPT_FINISH="on")
    assert message == "BOOTSTRAP_ADOPT_BACK and BOOTSTRAP_ADOPT_FINISH are both on, and are opposites"


def test_a_fault_in_what_another_verb_needs_stops_no_run() -> None:
    """The settings are in one ConfigMap: a wrong source of an import must not end the runs that repair the cluster."""
    environment = {"BOOTSTRAP_IMPORT_FROM": "no host:port:at:all"}
    assert Settings.from_env(environment, verb="apply").import_from == ()
    with pytest.raises(Misconfigured, match="BOOTSTRAP_IMPORT_FROM"):
        Settings.from_env(environment, verb="import")


def test_a_password_in_an_address_is_not_repeated() -> None:
    """The message is logged, and stays in the termination message."""
    with pytest.raises(Misconfigured) as raised:
        Settings.from_env({}, {"import_from": "redis://:top-secret@old.shop:6379"}, verb="import")
    assert "top-secret" not in str([reason.as_fields() for reason in raised.value.reasons])
