"""The components for secrets, TLS, the network and Valkey, each alone and all together."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bootstrap.config import unknown_variables

from .copied import assert_copied
from .kustomize import BASE, DOMAIN, ROOT, Build, Manifest, build, combine, name_of, selects
from .pod_security import violations
from .schema import validate

COMPONENTS = ROOT / "k8s" / "components"
NAMES = ("auth", "tls", "tls-cert-manager", "network-policy", "tls-plain-port", "valkey")
"""The order in which they are listed."""


@cache
def with_components(*names: str) -> Build:
    return combine(*(COMPONENTS / name for name in names))


@pytest.fixture(params=[NAMES, ("valkey", *NAMES[:-1])], ids=["valkey last", "valkey first"])
def all_of_them(request: pytest.FixtureRequest) -> Build:
    """All of them together, with the component valkey last or first."""
    return with_components(*request.param)


def test_together_they_are_valid_and_restricted(all_of_them: Build) -> None:
    """No warning of kubectl, no unknown field, and no violation of the restricted Pod Security Standard."""
    assert all_of_them.warnings == ""
    validate(all_of_them)
    for owner, template in all_of_them.templates():
        assert violations(template["spec"]) == (), owner
        for container in (*template["spec"].get("initContainers", []), *template["spec"]["containers"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def test_the_cron_jobs_are_the_job_in_all_of_them(all_of_them: Build) -> None:
    """The base copies the Job before components patch it, so each component that patches the Job copies it again."""
    assert_copied(all_of_them)


def test_every_variable_of_the_job_is_one_of_the_programs(all_of_them: Build) -> None:
    """A misspelt variable would be ignored, and the Job would have no password or certificate."""
    (container,) = all_of_them.one("Job", "redis-bootstrap")["spec"]["template"]["spec"]["containers"]
    names = {variable["name"] for variable in container["env"]}
    assert unknown_variables(dict.fromkeys(names, "")) == ()
    assert {"BOOTSTRAP_USERNAME", "BOOTSTRAP_PASSWORD_FILE", "BOOTSTRAP_TLS_KEY_FILE"} <= names


def test_files_that_are_named_are_mounted(all_of_them: Build) -> None:
    """Nothing else notices when a path in arguments, options or variables does not exist."""
    scripts = all_of_them.one("ConfigMap", "redis-config")["data"]
    written = {"/run/redis/auth.conf", "/run/redis/users.acl", "/run/redis/password", "/run/redis/hostnames.conf"}
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
    """The user creates the Secret. A default would be a password that everybody can read in git."""
    assert all_of_them.of_kind("Secret") == ()


def test_secrets_are_for_the_pods_group_alone(all_of_them: Build) -> None:
    """Only the group of the program can read them, and files derived from them stay in memory."""
    for owner, template in all_of_them.templates():
        pod = template["spec"]
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"], owner
        for volume in pod["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440, owner
            if volume["name"] == "run":
                assert volume["emptyDir"]["medium"] == "Memory"


def test_the_job_sees_only_its_own_password() -> None:
    """It gets one key of the Secret as a file, and one name as a variable."""
    pod = with_components("auth").one("Job", "redis-bootstrap")["spec"]["template"]["spec"]
    (volume,) = pod["volumes"]
    assert [item["key"] for item in volume["secret"]["items"]] == ["bootstrap-password"]
    text = str(pod)
    assert "server-password" not in text
    assert text.count("secretKeyRef") == 1


def test_a_server_reads_what_the_components_add_after_its_own(all_of_them: Build) -> None:
    """The last of two equal settings is used: redis.conf has `port 6379`, and tls.conf has `port 0`."""
    arguments = server_of(all_of_them)["args"]
    assert arguments[0] == "/etc/redis/redis.conf"
    includes = [arguments[place + 1] for place, word in enumerate(arguments) if word == "--include"]
    assert includes == ["/run/redis/auth.conf", "/run/redis/hostnames.conf", "/etc/redis/tls.conf"]
    assert arguments.index("--port") > arguments.index("/etc/redis/tls.conf")


def test_tls_leaves_no_plain_port() -> None:
    """TLS for clients, replication and the bus, with client certificates. The ports keep their numbers."""
    text = with_components("tls").one("ConfigMap", "redis-config")["data"]["tls.conf"]
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#"))
    assert (lines["port"], lines["tls-port"]) == ("0", "6379")
    assert {lines[f"tls-{kind}"] for kind in ("cluster", "replication", "auth-clients")} == {"yes"}


def test_the_plain_port_is_one_more_port_of_the_access_service() -> None:
    """The peers are listed with the TLS port alone, and the policy admits clients to both ports."""
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
def test_the_policy_of_the_servers_admits_the_right_pods(source: dict[str, str], port: str, *, passes: bool) -> None:
    """Only peers reach the bus, because every client of the bus is accepted as a node."""
    policy = build(COMPONENTS / "network-policy").one("NetworkPolicy", "redis-app")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"] == {"matchLabels": SERVER}
    assert passes == any(
        {"port": port} in rule["ports"] and any(selects(peer["podSelector"], source) for peer in rule["from"])
        for rule in policy["ingress"]
    )


def test_pods_reach_no_more_than_they_need() -> None:
    """Servers reach peers and DNS. The Job reaches the servers, DNS and the API server. Nothing reaches the Job."""
    built = build(COMPONENTS / "network-policy")
    servers, job = (built.one("NetworkPolicy", name)["spec"] for name in ("redis-app", "redis-bootstrap"))
    to_servers = [{"podSelector": {"matchLabels": SERVER}}]
    assert (job["policyTypes"], job["ingress"]) == (["Ingress", "Egress"], [])
    assert job["podSelector"] == {"matchLabels": JOB}
    first, dns, api = job["egress"]
    assert first == {"to": to_servers, "ports": [{"port": "redis-port"}]}
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} >= {(53, "UDP"), (53, "TCP")}
    assert {port["port"] for port in api["ports"]} >= {443, 6443}
    peers = {"to": to_servers, "ports": [{"port": "redis-port"}, {"port": "redis-bus"}]}
    assert servers["egress"] == [peers, dns]


def test_the_policies_select_existing_pods() -> None:
    """A policy whose selector matches no pod has no effect."""
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
    """The init container of `auth` has the same image, in either order of the components."""
    plain, valkey = build(BASE), build(COMPONENTS / "valkey")
    images = {container["image"] for container in containers_of(all_of_them.one("StatefulSet", "redis-app"))}
    assert images == {server_of(valkey)["image"]}
    assert images.pop().startswith("valkey/valkey:")
    changed = [each for each in zip(plain.manifests, valkey.manifests, strict=True) if each[0] != each[1]]
    assert [name_of(before) for before, _ in changed] == ["redis-app"]


def test_cert_manager_fills_the_secret_that_is_mounted() -> None:
    """Both key usages, an authority of its own, and a renewal before the old certificate expires."""
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
    assert served["dnsNames"] == ["gold-redis", DOMAIN, f"*.{DOMAIN}"]
    assert {"server auth", "client auth"} <= set(served["usages"])
    assert hours(served["duration"]) > hours(served["renewBefore"]) > 0
    authority = issuers[served["issuerRef"]["name"]]["ca"]["secretName"]
    assert certificates[authority]["isCA"] is True
    assert issuers[certificates[authority]["issuerRef"]["name"]] == {"selfSigned": {}}


def files_named_in(container: Manifest) -> set[str]:
    """Every path below /etc or /run in its command, arguments and variables."""
    texts = [*container.get("command", []), *container.get("args", [])]
    texts += [variable.get("value", "") for variable in container.get("env", [])]
    hooks: list[Any] = [container.get(f"{probe}Probe", {}) for probe in ("startup", "liveness", "readiness")]
    hooks.append(container.get("lifecycle", {}).get("preStop", {}))
    texts += [word for hook in hooks for word in hook.get("exec", {}).get("command", [])]
    return {path for text in texts for path in re.findall(r"/(?:etc|run)/[a-z-]+/[\w.-]+", text)}


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
