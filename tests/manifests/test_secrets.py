"""The components `auth` and `tls`: the scripts of the build, run against real servers."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.available_servers import BARE_PATH, CLIENTS, ON_CI, SERVERS_SINCE_6
from tests.certificates import OPENSSL, POD_NAMES, Authority, Certificate
from tests.secret_files import KEYS, Secret, mount

from .kustomize import BASE, ROOT, Build, build_text
from .servers import SHELLS, Server, a_cli, join, role_of, running

AUTH, TLS = (ROOT / "k8s" / "components" / name for name in ("auth", "tls"))
with_a_client = pytest.mark.skipif(not CLIENTS, reason="no redis-cli on this machine")
every_server = pytest.mark.parametrize("program", SERVERS_SINCE_6.values(), ids=SERVERS_SINCE_6.keys())
a_server = next(iter(SERVERS_SINCE_6.values()), Path("redis-server"))
a_tls_server = next((path for path in SERVERS_SINCE_6.values() if b"libssl" in path.resolve().read_bytes()), None)
a_tls_cli = next((path for path in CLIENTS.values() if b"libssl" in path.resolve().read_bytes()), None)
with_tls = pytest.mark.skipif(
    (BARE_PATH or not ON_CI) and not (a_tls_server and a_tls_cli and OPENSSL),
    reason="no server and client with TLS, or no openssl",
)


@pytest.fixture(scope="module")
def built() -> Build:
    """Both components on the base."""
    return build_text(resources=[BASE], components=[AUTH, TLS])


@dataclass(frozen=True, slots=True)
class Pod:
    """The files of a server's pod: the scripts of the build under /etc/redis, and the log of the container."""

    directory: Path
    tls_options: str
    """The options of redis-cli that the component sets."""
    settings: dict[str, str] = field(default_factory=dict)

    def run(self, script: str, *arguments: str, server: Server, path: str = "") -> str:
        """Runs a script as the kubelet does, and returns its output."""
        cli, port = (a_tls_cli or a_cli, 6380) if "REDIS_TLS_OPTIONS" in self.settings else (a_cli, 6379)
        ended = subprocess.run(
            ["sh", str(self.directory / script), *arguments],
            env={
                "PATH": path or f"{cli.parent}:{os.defpath}",
                "REDIS_CLI_OPTIONS": f"-h {server.address} -p {port}",
                "REDIS_SCRIPT_LOG": str(self.directory / "log"),
                **self.settings,
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.stderr == ""
        return ended.stdout.strip()

    def alive(self, server: Server) -> str:
        return self.run("probe.sh", "alive", server=server)

    def ready(self, server: Server) -> str:
        return self.run("probe.sh", "ready", server=server)

    @property
    def log(self) -> list[str]:
        file = self.directory / "log"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def with_auth(self, secret: Secret, server: Path | None = None) -> Pod:
        """The pod with the component `auth` alone, in the image of that server."""
        (self.directory / "renew-tls.sh").unlink()
        environment = {
            "REDIS_USER": "server",
            "REDIS_PASSWORD_FILE": str(secret.written / "password"),
            "REDIS_SECRET_DIR": str(secret.mounted),
            "REDIS_AUTH_DIR": str(secret.written),
        }
        if server:
            environment["PATH"] = f"{server.parent}:{a_cli.parent}:{os.defpath}"
        return Pod(self.directory, self.tls_options, environment)

    def with_tls(self, shown: Certificate) -> Pod:
        """The pod with the component `tls` alone, with that certificate mounted."""
        (self.directory / "renew-auth.sh").unlink(missing_ok=True)
        files = self.directory / "tls"
        self.mount(shown)
        environment = {
            "REDIS_TLS_OPTIONS": self.tls_options.replace("/etc/redis-tls", str(files)),
            "REDIS_TLS_DIR": str(files),
            "REDIS_TLS_SEEN": str(self.directory / "seen"),
        }
        return Pod(self.directory, self.tls_options, environment)

    def mount(self, shown: Certificate) -> Certificate:
        """Replaces the files of the Secret with the certificate."""
        files = self.directory / "tls"
        mount(
            files,
            {
                name: file.read_bytes()
                for name, file in (("tls.crt", shown.cert), ("tls.key", shown.key), ("ca.crt", shown.ca))
            },
        )
        return Certificate(files / "tls.crt", files / "tls.key", files / "ca.crt")


@pytest.fixture
def pod(built: Build, tmp_path: Path) -> Pod:
    """The scripts and options of the build, without a Secret yet."""
    directory = tmp_path / "etc"
    directory.mkdir()
    for name, text in built.one("ConfigMap", "redis-config")["data"].items():
        (directory / name).write_text(text, encoding="utf-8")
    (container,) = built.one("StatefulSet", "redis-app")["spec"]["template"]["spec"]["containers"]
    (tls_options,) = [variable["value"] for variable in container["env"] if variable["name"] == "REDIS_TLS_OPTIONS"]
    return Pod(directory, tls_options)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_writes_the_same(shell: str, tmp_path: Path) -> None:
    """Images have dash, bash or busybox. Each writes the same users, with one hash for each of their passwords."""
    secret = Secret.of(tmp_path, also_password="the one before", users_acl="user reader on >secret ~* +get\n")
    assert secret.render(shell).returncode == 0
    assert list(secret.users) == ["default", "bootstrap", "server", "reader"]
    assert [len([rule for rule in rules if rule.startswith("#")]) for rules in secret.users.values()] == [2, 1, 1, 0]
    assert secret.users["default"][-3:] == ["~*", "&*", "+@all"]
    written = {file.name: file for file in secret.written.iterdir() if not file.is_symlink()}
    assert written.keys() == {"users.acl", "auth.conf", "password", "metrics"}
    assert (written["metrics"] / "passwords.json").read_text() == "{}\n"
    assert all(file.stat().st_mode & 0o077 == 0 for file in written.values())
    text = written["users.acl"].read_text() + written["auth.conf"].read_text()
    assert not any(value in text for key, value in KEYS.items() if key.endswith("password"))


NOT_THREE = "bootstrap-username must not be default, server, or username"


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"password": None}, "the key password is missing"),
        ({"server_password": "\r\n"}, "the key server-password is empty"),
        ({"also_bootstrap_password": ""}, "the key also-bootstrap-password is empty"),
        ({"password": "one\ntwo"}, "the key password has more than one line"),
        ({"username": "a b"}, "the key username has characters other than A-Z a-z 0-9 _ . -"),
        ({"bootstrap_username": "default"}, "bootstrap-username must not be default, server, or username"),
        (
            {"bootstrap_username": "app", "username": "app"},
            "bootstrap-username must not be default, server, or username",
        ),
        ({"username": "server"}, "username must not be server"),
    ],
    ids=["missing", "empty", "second empty", "two lines", "two words", "default", "the same", "ours"],
)
def test_an_invalid_key_keeps_the_server_from_starting(
    tmp_path: Path, changed: dict[str, str | None], error: str
) -> None:
    """The log of the init container names the key, and contains no value."""
    ended = Secret.of(tmp_path, **changed).render()
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"Secret redis-auth: {error}\n")


PROGRAMS = (
    *("sh", "timeout", "redis-cli", "cat", "sha256sum", "cut", "od", "tr", "sed", "sort"),
    *("readlink", "ln", "mkdir", "rm", "mv", "cp", "date", "sleep"),
)
"""All programs that the scripts call."""


@with_a_client
def test_no_program_gets_a_password_as_an_argument(pod: Pod, tmp_path: Path) -> None:
    """Arguments are visible on the whole machine. A wrapper around each program records them."""
    secret = Secret.of(tmp_path)
    recorded, wrappers = tmp_path / "recorded", tmp_path / "wrappers"
    wrappers.mkdir()
    for name in PROGRAMS:
        path = a_cli if name == "redis-cli" else shutil.which(name)
        (wrappers / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{recorded}\nexec {path} "$@"\n')
        (wrappers / name).chmod(0o755)
    assert secret.render(path=str(wrappers)).returncode == 0
    pod = pod.with_auth(secret)
    with running(a_server, tmp_path / "server", *options(secret)) as server:
        for change in ({}, {"password": "new", "server_password": "new of the servers"}):
            secret.change(**change)
            for script in (("probe.sh", "alive"), ("probe.sh", "ready"), ("prestop.sh",)):
                pod.run(*script, server=server, path=str(wrappers))
    calls = recorded.read_text()
    assert "redis-cli" in calls
    assert "sha256sum" in calls
    assert len(pod.log) == 2, "the probe has run renew-auth.sh"
    passwords = [value for key, value in KEYS.items() if key.endswith("password")]
    assert [password for password in (*passwords, "new of the servers") if password in calls] == []


@with_a_client
@every_server
def test_a_changed_secret_is_applied_without_a_restart(
    program: Path, pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New passwords are valid, an old one while it is the second password, and replicas log in with the new one."""
    # As in the image of the server: the script checks the version of the server that it finds.
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    secret = rendered(tmp_path)
    pod = pod.with_auth(secret, program)
    with running(program, tmp_path / "server", *options(secret)) as server:
        assert (pod.alive(server), pod.log) == ("", [])
        secret.change(password="new", also_password=KEYS["password"], server_password="new of the servers")
        assert pod.alive(server) == ""
        assert pod.log == ["renew-auth.sh: the changed Secret redis-auth is applied"]
        for password in ("new", KEYS["password"]):
            assert login(server, "default", password)
        assert not login(server, "server", KEYS["server-password"])
        assert login(server, "server", "new of the servers")
        assert as_user(server, "default", "new").config_get("masterauth") == {"masterauth": "new of the servers"}
        secret.change(also_password=None)
        assert pod.alive(server) == ""
        assert not login(server, "default", KEYS["password"])
        assert len(pod.log) == 2


@with_a_client
def test_a_further_user_changes_its_password_in_the_same_order(pod: Pod, tmp_path: Path) -> None:
    """Both passwords are valid between the first change of users.acl and the last one."""
    secret = Secret.of(tmp_path, users_acl="user reader on >old ~* +ping\n")
    assert secret.render().returncode == 0
    pod = pod.with_auth(secret)
    with running(a_server, tmp_path / "server", *options(secret)) as server:
        for passwords, valid in ((">old >new", ("old", "new")), (">new", ("new",))):
            secret.change(users_acl=f"user reader on {passwords} ~* +ping\n")
            assert pod.alive(server) == ""
            assert tuple(each for each in ("old", "new") if login(server, "reader", each)) == valid


@with_a_client
def test_an_invalid_changed_secret_changes_nothing(pod: Pod, tmp_path: Path) -> None:
    """A key is missing, or a line is not a valid ACL: the log reports it, and the server keeps its users."""
    secret = rendered(tmp_path)
    pod = pod.with_auth(secret)
    with running(a_server, tmp_path / "server", *options(secret)) as server:
        secret.change(password=None)
        assert pod.alive(server) == ""
        secret.change(password="new", users_acl="user reader on +nonsense\n")
        assert [pod.alive(server) for _ in range(3)] == [""] * 3
        assert login(server, "default", KEYS["password"])
        first, second = pod.log
        assert first == f"{NOT_APPLIED}: Secret redis-auth: the key password is missing"
        assert second.startswith(f"{NOT_APPLIED}: ERR ")
        secret.change(users_acl=None)
        assert pod.alive(server) == ""
        assert login(server, "default", "new")


NOT_APPLIED = "renew-auth.sh: the changed Secret redis-auth is not applied"


@with_a_client
def test_probes_and_hook_work_as_the_servers_user(pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rights of that user are enough: the ACL log stays empty."""
    secret = rendered(tmp_path)
    pod = pod.with_auth(secret)
    monkeypatch.setenv("REDISCLI_AUTH", KEYS["password"])  # for the requests of the test
    with (
        running(a_server, tmp_path / "master", *options(secret)) as first,
        running(a_server, tmp_path / "replica", *options(secret)) as second,
    ):
        master, replica = (
            replace(server, client=as_user(server, "default", KEYS["password"])) for server in (first, second)
        )
        assert pod.ready(master) == "cluster_state is not ok"
        master.client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        join(replica, master)
        assert [pod.ready(server) for server in (master, replica)] == ["", ""]
        assert pod.run("prestop.sh", server=master) == ""
        assert (role_of(master), role_of(replica)) == ("slave", "master")
        assert [entry for server in (master, replica) for entry in server.client.acl_log()] == []


@with_tls
def test_probes_and_hook_use_tls(pod: Pod, tmp_path: Path) -> None:
    """With the options of the component, which name the mounted files."""
    assert a_tls_server
    good = Authority(tmp_path / "authority").issue("redis")
    pod = pod.with_tls(good)
    with running(a_tls_server, tmp_path / "server", *tls_options(good)) as server:
        assert pod.alive(server) == ""
        assert pod.ready(server) == "cluster_state is not ok"
        assert pod.run("prestop.sh", server=server) == ""


@with_tls
def test_a_rejected_certificate_does_not_restart_the_server(pod: Pod, tmp_path: Path) -> None:
    """The server answers, so it is alive but not ready. A restart would not change the certificate."""
    assert a_tls_server
    authority = Authority(tmp_path / "authority")
    old, good = authority.issue("old", days=-1), authority.issue("redis")
    for served, shown in ((old, good), (good, old)):
        asking = pod.with_tls(shown)
        with running(a_tls_server, tmp_path / f"server-{served.cert.stem}", *tls_options(served)) as server:
            assert asking.alive(server) == ""
            assert asking.ready(server) == "no answer to INFO, or the data is still loading"
            server.process.kill()
            server.process.wait()
            assert asking.alive(server) == "no answer to PING"


@with_tls
def test_a_renewed_certificate_is_served_without_a_restart(pod: Pod, tmp_path: Path) -> None:
    """The next connection gets it, and the log reports it once."""
    assert a_tls_server
    authority = Authority(tmp_path / "authority")
    first, second = authority.issue("first"), authority.issue("second")
    pod = pod.with_tls(first)
    mounted = pod.mount(first)
    with running(a_tls_server, tmp_path / "server", *tls_options(mounted)) as server:
        assert (pod.alive(server), pod.log, subject(server, mounted)) == ("", [], "first")
        pod.mount(second)
        assert (pod.alive(server), subject(server, mounted)) == ("", "second")
        assert pod.alive(server) == ""
        assert pod.log == ["renew-tls.sh: the changed Secret redis-tls is applied"]


def rendered(directory: Path) -> Secret:
    secret = Secret.of(directory)
    assert secret.render().returncode == 0
    return secret


def options(secret: Secret) -> list[str]:
    """The arguments that the component adds for the server."""
    return [word for line in secret.server_config for word in f"--{line}".split(" ", 1)]


def tls_options(certificate: Certificate) -> list[str]:
    """The settings of the component, and a plain port for the requests of the tests."""
    lines = (*certificate.server_config(port=6380), "port 6379", "tls-cluster no", "tls-replication no")
    return [word for line in lines for word in f"--{line}".split(" ", 1)]


def as_user(server: Server, user: str, password: str) -> redis.Redis:
    return redis.Redis(server.address, username=user, password=password, protocol=2, decode_responses=True)


def login(server: Server, user: str, password: str) -> bool:
    try:
        return bool(as_user(server, user, password).ping())
    except redis.AuthenticationError:
        return False


def subject(server: Server, certificate: Certificate) -> str:
    """The common name in the certificate of the server."""
    context = ssl.create_default_context(cafile=certificate.ca)
    context.load_cert_chain(certificate.cert, certificate.key)
    name = POD_NAMES[0].replace("*", "redis-app-0")
    with (
        socket.create_connection((server.address, 6380), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        shown: Any = secured.getpeercert()
        return str(shown["subject"][0][0][1])
