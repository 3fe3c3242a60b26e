"""The components around secrets, TLS, the network and Valkey: what each adds, and all of them together."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from bootstrap.config import unknown_variables

from .kustomize import BASE, ROOT, Build, Manifest, build, build_text, name_of
from .pod_security import violations
from .test_builds import KUBERNETES, OF_OTHERS

COMPONENTS = ROOT / "k8s" / "components"
NAMES = ("auth", "tls", "tls-cert-manager", "network-policy", "tls-plain-port", "valkey")
"""In an order that they allow."""


@cache
def with_components(*names: str) -> Build:
    return build_text(resources=[BASE], components=[COMPONENTS / name for name in names])


@pytest.fixture(params=[NAMES, ("valkey", *NAMES[:-1])], ids=["valkey last", "valkey first"])
def all_of_them(request: pytest.FixtureRequest) -> Build:
    """Everything at once; also with the image changed before others come to use it."""
    return with_components(*request.param)


def test_together_they_are_valid_and_restricted(all_of_them: Build) -> None:
    """No warning of kubectl's, no unknown field, nothing that the restricted Pod Security Standard forbids."""
    assert all_of_them.warnings == ""
    for manifest in all_of_them.manifests:
        if manifest["apiVersion"].split("/")[0] not in OF_OTHERS:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    for owner, template in all_of_them.templates():
        assert violations(template["spec"]) == (), owner
        for container in (*template["spec"].get("initContainers", []), *template["spec"]["containers"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def test_the_cron_job_is_the_job_in_all_of_them(all_of_them: Build) -> None:
    """The base copies one to the other before components come; each that changes the Job copies again."""
    job = all_of_them.one("Job", "redis-bootstrap")["spec"]
    assert all_of_them.one("CronJob", "redis-bootstrap")["spec"]["jobTemplate"]["spec"] == job


def test_every_variable_of_the_job_is_one_of_the_programs(all_of_them: Build) -> None:
    """A misspelt one would be no setting, and the Job would come without its password or certificate."""
    (container,) = all_of_them.one("Job", "redis-bootstrap")["spec"]["template"]["spec"]["containers"]
    names = {variable["name"] for variable in container["env"]}
    assert unknown_variables(dict.fromkeys(names, "")) == ()
    assert {"BOOTSTRAP_USERNAME", "BOOTSTRAP_PASSWORD_FILE", "BOOTSTRAP_TLS_KEY_FILE"} <= names


def test_files_that_are_named_are_mounted(all_of_them: Build) -> None:
    """Paths in arguments, options and variables are plain text; nothing else notices when one leads nowhere."""
    scripts = all_of_them.one("ConfigMap", "redis-config")["data"]
    written = {"/run/redis/auth.conf", "/run/redis/users.acl", "/run/redis/password"}
    for owner, template in all_of_them.templates():
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        for container in (*template["spec"].get("initContainers", []), *template["spec"]["containers"]):
            for file in files_named_in(container):
                mount = next(each for each in container["volumeMounts"] if file.startswith(each["mountPath"] + "/"))
                volume, name = volumes[mount["name"]], file.rpartition("/")[2]
                if "configMap" in volume:
                    assert name in scripts, f"{owner}: {file}"
                elif "secret" in volume:
                    items = volume["secret"].get("items")
                    names = [item["path"] for item in items] if items else ["ca.crt", "tls.crt", "tls.key"]
                    assert name in names, f"{owner}: {file}"
                else:
                    assert file in written, f"{owner}: {file}"


def test_no_secret_is_made_here(all_of_them: Build) -> None:
    """Whoever uses it brings it: a default would be a password that everybody can read in git."""
    assert all_of_them.of_kind("Secret") == ()


def test_secrets_are_for_the_pods_group_alone(all_of_them: Build) -> None:
    """The program reads them by its group, nobody else does, and what is made of them stays in memory."""
    for owner, template in all_of_them.templates():
        pod = template["spec"]
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"], owner
        for volume in pod["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440, owner
            if volume["name"] == "run":
                assert volume["emptyDir"]["medium"] == "Memory"


def test_the_job_sees_its_own_password_alone() -> None:
    """Of the Secret it has one key in a file, and one name in a variable."""
    pod = with_components("auth").one("Job", "redis-bootstrap")["spec"]["template"]["spec"]
    (volume,) = pod["volumes"]
    assert [item["key"] for item in volume["secret"]["items"]] == ["bootstrap-password"]
    text = str(pod)
    assert "server-password" not in text
    assert text.count("secretKeyRef") == 1


def test_a_server_reads_what_the_components_add_after_its_own(all_of_them: Build) -> None:
    """Of two lines that say the same the last one holds: redis.conf says `port 6379`, tls.conf `port 0`."""
    arguments = server_of(all_of_them)["args"]
    assert arguments[0] == "/etc/redis/redis.conf"
    includes = [arguments[place + 1] for place, word in enumerate(arguments) if word == "--include"]
    assert includes == ["/run/redis/auth.conf", "/etc/redis/tls.conf"]
    assert arguments.index("--port") > arguments.index("/etc/redis/tls.conf")


def test_tls_leaves_no_plain_port() -> None:
    """Clients, replication and bus, with a certificate asked of each; the ports keep their numbers."""
    text = with_components("tls").one("ConfigMap", "redis-config")["data"]["tls.conf"]
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#"))
    assert (lines["port"], lines["tls-port"]) == ("0", "6379")
    assert {lines[f"tls-{what}"] for what in ("cluster", "replication", "auth-clients")} == {"yes"}


def test_the_plain_port_is_one_more_port_of_the_access_service() -> None:
    """The peers are listed with the TLS port alone, and the policy lets clients through to both."""
    built = with_components("tls", "network-policy", "tls-plain-port")
    ports = {port["name"]: port["containerPort"] for port in server_of(built)["ports"]}
    assert ports["redis-plain"] == 6380
    assert [port["port"] for port in built.one("Service", "gold-redis")["spec"]["ports"]] == [6379, 6380]
    assert [port["port"] for port in built.one("Service", "redis-service")["spec"]["ports"]] == [6379, 16379]
    rules = built.one("NetworkPolicy", "redis-app")["spec"]["ingress"]
    assert [[port["port"] for port in rule["ports"]] for rule in rules] == [
        ["redis-port", "redis-plain"],
        ["redis-port", "redis-bus"],
    ]


SERVER = {"app.kubernetes.io/name": "redis-app"}
JOB = {"app.kubernetes.io/name": "redis-bootstrap"}
CLIENT = {"gold-redis-client": "true"}


@pytest.mark.parametrize(
    ("source", "port", "passes"),
    [
        (CLIENT, "redis-port", True),
        (CLIENT, "redis-bus", False),
        (JOB, "redis-port", True),
        (JOB, "redis-bus", False),
        (SERVER, "redis-port", True),
        (SERVER, "redis-bus", True),
        ({"app": "other"}, "redis-port", False),
        ({"app": "other"}, "redis-bus", False),
    ],
)
def test_the_servers_policy_lets_in_whom_it_should(source: dict[str, str], port: str, *, passes: bool) -> None:
    """Whoever reaches the bus is taken for a node: peers alone."""
    policy = build(COMPONENTS / "network-policy").one("NetworkPolicy", "redis-app")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"] == {"matchLabels": SERVER}
    assert passes == any(
        {"port": port} in rule["ports"]
        and any(peer["podSelector"]["matchLabels"].items() <= source.items() for peer in rule["from"])
        for rule in policy["ingress"]
    )


def test_pods_reach_no_more_than_they_need() -> None:
    """The servers their peers; the Job the servers, the DNS and the API server; nobody reaches the Job."""
    built = build(COMPONENTS / "network-policy")
    servers, job = (built.one("NetworkPolicy", name)["spec"] for name in ("redis-app", "redis-bootstrap"))
    to_servers = [{"podSelector": {"matchLabels": SERVER}}]
    assert servers["egress"] == [{"to": to_servers, "ports": [{"port": "redis-port"}, {"port": "redis-bus"}]}]
    assert (job["policyTypes"], job["ingress"]) == (["Ingress", "Egress"], [])
    assert job["podSelector"] == {"matchLabels": JOB}
    first, dns, api = job["egress"]
    assert first == {"to": to_servers, "ports": [{"port": "redis-port"}]}
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} >= {(53, "UDP"), (53, "TCP")}
    assert {port["port"] for port in api["ports"]} >= {443, 6443}


def test_the_policies_select_the_pods_that_there_are() -> None:
    """A selector that matches nobody denies nothing."""
    built = build(COMPONENTS / "network-policy")
    labels = [template["metadata"]["labels"] for _, template in built.templates()]
    for policy in built.of_kind("NetworkPolicy"):
        wanted = policy["spec"]["podSelector"]["matchLabels"].items()
        assert any(wanted <= each.items() for each in labels), name_of(policy)
    ports = {port["name"] for port in server_of(built)["ports"]}
    named = {
        port["port"] for policy in built.of_kind("NetworkPolicy") for rule in rules_of(policy) for port in rule["ports"]
    }
    assert {port for port in named if isinstance(port, str)} <= ports


def test_valkey_is_another_image_and_nothing_else(all_of_them: Build) -> None:
    """The init container of `auth` has it too, whichever came first."""
    plain, valkey = build(BASE), build(COMPONENTS / "valkey")
    images = {container["image"] for container in containers_of(all_of_them.one("StatefulSet", "redis-app"))}
    assert images == {server_of(valkey)["image"]}
    assert images.pop().startswith("valkey/valkey:")
    changed = [each for each in zip(plain.manifests, valkey.manifests, strict=True) if each[0] != each[1]]
    assert [name_of(before) for before, _ in changed] == ["redis-app"]


def test_cert_manager_fills_the_secret_that_is_mounted() -> None:
    """Signed for both ways, by an authority that is made there too, and renewed while the old one is still good."""
    built = with_components("tls", "tls-cert-manager")
    issuers = {name_of(each): each["spec"] for each in built.of_kind("Issuer")}
    certificates = {each["spec"]["secretName"]: each["spec"] for each in built.of_kind("Certificate")}
    mounted = {
        volume["secret"]["secretName"]
        for _, template in built.templates()
        for volume in template["spec"]["volumes"]
        if "secret" in volume
    }
    assert mounted == {"redis-tls"}
    served = certificates["redis-tls"]
    assert {"server auth", "client auth"} <= set(served["usages"])
    assert hours(served["duration"]) > hours(served["renewBefore"]) > 0
    authority = issuers[served["issuerRef"]["name"]]["ca"]["secretName"]
    assert certificates[authority]["isCA"] is True
    assert issuers[certificates[authority]["issuerRef"]["name"]] == {"selfSigned": {}}


def files_named_in(container: Manifest) -> set[str]:
    """Every path below /etc or /run in its command, arguments and variables."""
    said = [*container.get("command", []), *container.get("args", [])]
    said += [variable.get("value", "") for variable in container.get("env", [])]
    hooks: list[Any] = [container.get(f"{probe}Probe", {}) for probe in ("startup", "liveness", "readiness")]
    hooks.append(container.get("lifecycle", {}).get("preStop", {}))
    said += [word for hook in hooks for word in hook.get("exec", {}).get("command", [])]
    return {path for text in said for path in re.findall(r"/(?:etc|run)/[a-z-]+/[\w.-]+", text)}


def containers_of(stateful_set: Manifest) -> list[Manifest]:
    pod = stateful_set["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def server_of(built: Build) -> Manifest:
    """The container of the server."""
    pod = built.one("StatefulSet", "redis-app")["spec"]["template"]["spec"]
    server: Manifest = next(container for container in pod["containers"] if container["name"] == "redis")
    return server


def rules_of(policy: Manifest) -> list[Manifest]:
    return [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]


def hours(duration: str) -> int:
    return int(duration.removesuffix("h"))


def test_the_table_of_components_names_each() -> None:
    """One row for each component, or nobody finds it."""
    page = Path(ROOT / "docs" / "components.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"| `{name}` |" not in page] == []
