"""The component `metrics`: its exporter, configured as in the build, beside real servers.

Debian's prometheus-redis-exporter stands in for the image. TEST_EXPORTER names another one; what its version cannot do
is skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import redis

from tests.available_servers import BARE_PATH, ON_CI, SERVERS_SINCE_6
from tests.certificates import Authority
from tests.secret_files import KEYS, Secret
from tests.waiting import wait_until

from .kustomize import COMPONENTS, Manifest, combine
from .servers import Server, join, running
from .test_dashboard import VARIABLES
from .test_secrets import (
    Pod,
    a_server,
    a_tls_server,
    as_user,
    built,
    every_server,
    login,
    options,
    pod,
    tls_options,
    with_a_client,
    with_tls,
)

__all__ = ["built", "pod"]  # fixtures
EXPORTER = os.environ.get("TEST_EXPORTER") or shutil.which("prometheus-redis-exporter")
PASSWORD = 'of "the exporter" \\ and more'
with_exporter = pytest.mark.skipif(
    (BARE_PATH or not ON_CI) and not EXPORTER, reason="no prometheus-redis-exporter, or TEST_EXPORTER"
)


def version() -> tuple[int, ...]:
    """The version of the exporter."""
    told = subprocess.run([EXPORTER or "", "--version"], capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"Exporter (?:v)?([0-9]+)\.([0-9]+)", told.stdout + told.stderr)
    assert found, told.stdout + told.stderr
    return tuple(map(int, found.groups()))


def container(*components: str) -> Manifest:
    """The exporter's container in a build of the component with these."""
    chosen = combine(COMPONENTS / "metrics", *(COMPONENTS / name for name in components))
    _, found = chosen.one("StatefulSet", "redis-app")["spec"]["template"]["spec"]["containers"]
    assert found["name"] == "metrics"
    return dict(found)


@dataclass(frozen=True, slots=True)
class Exporter:
    """A running exporter, at port 9121 of its server's address."""

    server: Server
    container: Manifest
    process: subprocess.Popen[bytes]

    def get(self, path: str) -> str:
        """What it answers. Raises URLError, also for an answer that reports an error."""
        with urlopen(f"http://{self.server.address}:9121{path}", timeout=20) as answer:
            return str(answer.read().decode())

    def probe(self) -> None:
        """Asks what the kubelet asks."""
        self.get(self.container["livenessProbe"]["httpGet"]["path"])

    def scrape(self) -> dict[str, float]:
        """Its series, each with its labels."""
        lines = [line for line in self.get("/metrics").splitlines() if line.startswith("redis_")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@contextmanager
def exporting(
    server: Server, *components: str, secret: Secret | None = None, tls: Path | None = None
) -> Iterator[Exporter]:
    """The exporter with the variables of the build. Mounted paths and the address are those of the test."""
    assert EXPORTER
    chosen = container(*components)
    port = 6380 if tls else 6379
    moved = {"localhost:6379": f"{server.address}:{port}", "/etc/redis-tls": str(tls)}
    if secret:
        moved["/run/redis-metrics"] = str(secret.written.parent / "metrics")
        deliver(secret, server, port)
    variables = {"REDIS_EXPORTER_WEB_LISTEN_ADDRESS": f"{server.address}:9121"}
    for variable in chosen["env"]:
        variables[variable["name"]] = variable["value"]
        for path, own in moved.items():
            variables[variable["name"]] = variables[variable["name"]].replace(path, own)
    process = subprocess.Popen([EXPORTER], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        exporter = Exporter(server, chosen, process)
        wait_until(lambda: answers(exporter), "the exporter answers")
        yield exporter
    finally:
        process.terminate()
        process.wait(20)


def answers(exporter: Exporter) -> bool:
    assert exporter.process.poll() is None, "the exporter has ended"
    try:
        exporter.probe()
    except (URLError, ConnectionError):
        return False
    return True


def deliver(secret: Secret, server: Server, port: int) -> None:
    """Puts the password file of the server's pod where the exporter sees it, for the address of the test.

    Exporters before 1.50 look the address up without the user.
    """
    written = json.loads((secret.written / "metrics" / "passwords.json").read_text(encoding="utf-8"))
    here = {key.replace("localhost:6379", f"{server.address}:{port}"): value for key, value in written.items()}
    older = {key.replace("metrics@", ""): value for key, value in here.items()}
    directory = secret.written.parent / "metrics"
    directory.mkdir(exist_ok=True)
    (directory / "passwords.json").write_text(json.dumps(here | older), encoding="utf-8")


def rendered(directory: Path, **keys: str | None) -> Secret:
    secret = Secret.of(directory, **{"metrics_password": PASSWORD, **keys})
    assert secret.render().returncode == 0
    return secret


@with_exporter
@with_a_client
@pytest.mark.parametrize("auth", [False, True], ids=["open", "auth"])
def test_it_reports_its_server(auth: bool, tmp_path: Path) -> None:
    """Without a patch, and with the user of its own."""
    secret = rendered(tmp_path) if auth else None
    with (
        running(a_server, tmp_path / "server", *(options(secret) if secret else ())) as server,
        exporting(server, *(["auth"] if auth else []), secret=secret) as exporter,
    ):
        found = exporter.scrape()
        assert (found["redis_up"], found["redis_cluster_enabled"]) == (1, 1)
        assert found["redis_memory_max_bytes"] == 0, "from INFO, without CONFIG GET"


@with_exporter
@with_tls
@pytest.mark.parametrize("auth", [False, True], ids=["open", "auth"])
def test_it_reports_a_server_with_tls(auth: bool, tmp_path: Path) -> None:
    """With the servers' certificate, which is read again for each connection. It need not have the name localhost."""
    assert a_tls_server
    certificate = Authority(tmp_path / "authority").issue("redis")
    files = tmp_path / "tls"
    files.mkdir()
    for name, file in (("tls.crt", certificate.cert), ("tls.key", certificate.key)):
        shutil.copy(file, files / name)
    secret = rendered(tmp_path) if auth else None
    arguments = [*tls_options(certificate), *(options(secret) if secret else ())]
    with (
        running(a_tls_server, tmp_path / "server", *arguments) as server,
        exporting(server, "tls", *(["auth"] if auth else []), secret=secret, tls=files) as exporter,
    ):
        assert exporter.scrape()["redis_up"] == 1
        other = Authority(tmp_path / "other").issue("stranger")
        shutil.copy(other.cert, files / "tls.crt")
        shutil.copy(other.key, files / "tls.key")
        assert exporter.scrape()["redis_up"] == 0, "the server checks the certificate"


@with_exporter
@with_a_client
def test_a_changed_password_is_in_use_after_the_next_probe(pod: Pod, tmp_path: Path) -> None:
    """In the order of docs/operations.md: accepted, exchanged, and the old one removed. Nothing is restarted."""
    if version() < (1, 50):
        pytest.skip("this exporter reads its password file only when it starts")
    secret = rendered(tmp_path)
    pod = pod.with_auth(secret)
    with (
        running(a_server, tmp_path / "server", *options(secret)) as server,
        exporting(server, "auth", secret=secret) as exporter,
    ):
        steps: Sequence[dict[str, str | None]] = (
            {"also_metrics_password": "new"},
            {"metrics_password": "new", "also_metrics_password": PASSWORD},
            {"also_metrics_password": None},
        )
        for step in steps:
            secret.change(**step)
            assert pod.alive(server) == ""
            deliver(secret, server, 6379)
            exporter.probe()
            assert exporter.scrape()["redis_up"] == 1
        assert len(pod.log) == len(steps)
        assert not login(server, "metrics", PASSWORD)


@with_a_client
def test_the_password_file_follows_the_secret_in_its_directory(pod: Pod, tmp_path: Path) -> None:
    """The exporter sees the directory as it was when its container started, and nothing else of the servers' files."""
    secret = rendered(tmp_path)
    pod, directory = pod.with_auth(secret), secret.written / "metrics"
    mounted = directory.stat().st_ino
    with running(a_server, tmp_path / "server", *options(secret)) as server:
        secret.change(metrics_password="new", also_metrics_password=PASSWORD)
        assert pod.alive(server) == ""
        told = json.loads((directory / "passwords.json").read_text(encoding="utf-8"))
        assert told == dict.fromkeys((f"{way}://metrics@localhost:6379" for way in ("redis", "rediss")), "new")
        assert directory.stat().st_ino == mounted
        assert [file.name for file in directory.iterdir()] == ["passwords.json"]
        assert all(login(server, "metrics", password) for password in ("new", PASSWORD))
    (mount,) = container("auth")["volumeMounts"]
    assert (mount["subPath"], mount["readOnly"]) == (directory.name, True)


@with_exporter
@with_a_client
def test_a_secret_without_the_key_stops_no_server(tmp_path: Path) -> None:
    """As before the component. The exporter runs and reports that it cannot log in, which an alert tells."""
    secret = rendered(tmp_path, metrics_password=None)
    with (
        running(a_server, tmp_path / "server", *options(secret)) as server,
        exporting(server, "auth", secret=secret) as exporter,
    ):
        assert exporter.scrape()["redis_up"] == 0
        exporter.probe()


@with_a_client
@every_server
def test_its_user_sees_no_key(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither data, nor names of keys, nor passwords; and it changes nothing."""
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    secret = rendered(tmp_path)
    with running(program, tmp_path / "server", *options(secret)) as server:
        everyone, metrics = as_user(server, "default", KEYS["password"]), as_user(server, "metrics", PASSWORD)
        everyone.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        for command in ("INFO ALL", "CLUSTER INFO", "CLIENT SETNAME redis_exporter", "SLOWLOG LEN", "LATENCY LATEST"):
            metrics.execute_command(*command.split())
        for command in (
            *("GET key", "SET key value", "SCAN 0", "RANDOMKEY", "DBSIZE", "TYPE key", "OBJECT ENCODING key"),
            *("SLOWLOG GET 1", "CONFIG GET masterauth", "CONFIG SET maxmemory 1", "MONITOR", "CLIENT LIST"),
            *("CLUSTER GETKEYSINSLOT 0 1", "CLUSTER RESET", "ACL LIST", "FLUSHALL", "SHUTDOWN"),
        ):
            with pytest.raises(redis.ResponseError, match=r"(?i)NOPERM|no permissions"):
                metrics.execute_command(*command.split())


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"username": "metrics"}, "username and bootstrap-username must not be metrics"),
        ({"bootstrap_username": "metrics"}, "username and bootstrap-username must not be metrics"),
        ({"metrics_password": ""}, "the key metrics-password is empty"),
        ({"metrics_password": "käse"}, "the key metrics-password has characters other than printable ASCII"),
        ({"metrics_password": "a\tb"}, "the key metrics-password has characters other than printable ASCII"),
    ],
    ids=["clients", "job", "empty", "not ASCII", "tab"],
)
def test_an_invalid_key_keeps_the_server_from_starting(
    tmp_path: Path, changed: dict[str, str | None], error: str
) -> None:
    """As with the other keys: the log of the init container names it."""
    ended = Secret.of(tmp_path, **{"metrics_password": PASSWORD, **changed}).render()
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"Secret redis-auth: {error}\n")


def test_users_named_metrics_stay_valid_without_the_key(tmp_path: Path) -> None:
    """An upgrade stops no server of a cluster whose clients have that name."""
    assert Secret.of(tmp_path, username="metrics").render().returncode == 0


@with_exporter
@with_a_client
@pytest.mark.parametrize("program", SERVERS_SINCE_6.values(), ids=SERVERS_SINCE_6.keys())
def test_every_series_of_alerts_and_dashboard_exists(program: Path, tmp_path: Path) -> None:
    """A master and its replica report all of them. A misspelt name would never fire and show an empty panel."""
    with running(program, tmp_path / "master") as master, running(program, tmp_path / "replica") as replica:
        master.client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        join(replica, master)
        wait_until(lambda: "online" in str(master.client.info("replication")), "the master counts its replica")
        known: dict[str, float] = {}
        for server in (master, replica):
            with exporting(server) as exporter:
                known |= exporter.scrape()
    names = {re.split(r"[{]", name)[0] for name in known}
    assert used() - names == set()
    (linked,) = [value for name, value in known.items() if name.startswith("redis_master_link_up{")]
    assert linked == 1
    assert any('role="master"' in name for name in known if name.startswith("redis_instance_info{"))


def used() -> set[str]:
    """The series of the exporter in the alerts and in the dashboard."""
    both = combine(COMPONENTS / "metrics", COMPONENTS / "alerts", COMPONENTS / "dashboard")
    groups = both.one("PrometheusRule", "redis-cluster")["spec"]["groups"]
    text = " ".join(rule["expr"] for group in groups for rule in group["rules"])
    (dashboard,) = both.one("ConfigMap", "redis-cluster-dashboard")["data"].values()
    text += " ".join(target["expr"] for panel in json.loads(dashboard)["panels"] for target in panel["targets"])
    for variable in VARIABLES:
        text = text.replace(variable, "")
    found = set(re.findall(r"\bredis_[a-z_]+\b(?!:)", re.sub(r'"[^"]*"', "", text)))
    assert len(found) > 20
    return found


def test_the_exporter_never_makes_its_pod_unready() -> None:
    """Without a readiness probe. It is restarted only if it does not answer for a minute."""
    for components in ((), ("auth",), ("tls",), ("auth", "tls")):
        found = container(*components)
        assert [key for key in found if key.endswith("Probe")] == ["livenessProbe"]
        probe = found["livenessProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 60
        assert probe["httpGet"]["path"] == ("/-/reload" if "auth" in components else "/health")
