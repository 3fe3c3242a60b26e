"""Servers introduce themselves to each other after their pods got new addresses, by their probes and without a run.

The servers are real. The name service is a file, and each container has nothing but the programs of an image.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import redis

from tests.available_servers import CLIENTS, SERVERS, SERVERS_SINCE_6
from tests.certificates import Authority
from tests.secret_files import KEYS as SECRET_KEYS
from tests.secret_files import Secret
from tests.waiting import wait_until

from .kustomize import BASE_SERVERS, COMPONENTS, build
from .servers import SHELLS, Server, a_cli, running
from .test_secrets import a_tls_cli, a_tls_server, options, with_tls

pytestmark = pytest.mark.skipif(not CLIENTS, reason="no redis-cli on this machine")
a_server = next(iter(SERVERS.values()), Path("redis-server"))
NAMES = tuple(f"redis-app-{ordinal}" for ordinal in range(6))
PROGRAMS = ("timeout", "sed", "date", "sleep", "cat")
"""What the scripts use besides a shell, redis-cli and the resolver."""
PATIENT = ("--cluster-node-timeout", "15000")
"""On a busy machine no node counts as failed before it is introduced: a failover would change the roles."""
LIMIT_S = 60
WRITTEN = 60


@dataclass(frozen=True, slots=True)
class Pod:
    """A running server, and the programs, variables and log of its container."""

    server: Server
    container: Path
    port: int
    variables: Mapping[str, str]

    @property
    def address(self) -> str:
        """Its address, which is new after each start."""
        return self.server.address

    @property
    def node_id(self) -> str:
        return self.command("CLUSTER MYID")

    @property
    def log(self) -> list[str]:
        """What the scripts have logged."""
        file = self.container / "log"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def command(self, text: str) -> str:
        return str(self.server.client.execute_command(*text.split()))

    def nodes(self) -> dict[str, list[str]]:
        """The fields of each line of CLUSTER NODES, by node id."""
        return {line.split()[0]: line.split() for line in self.command("CLUSTER NODES").splitlines()}

    def stored_address(self, peer: str) -> str:
        """The address that this node has stored for that node id."""
        return self.nodes()[peer][1].partition("@")[0].rpartition(":")[0]

    def reaches(self, peer: Pod) -> bool:
        """Whether it has a link to the peer at its present address."""
        nodes, peer_id = self.nodes(), peer.node_id
        if peer_id not in nodes or self.stored_address(peer_id) != peer.address:
            return False
        return nodes[peer_id][7] == "connected" and "fail" not in nodes[peer_id][2]

    def is_ok(self) -> bool:
        """The state is ok, and a replica has its link."""
        replication = self.server.client.info("replication")
        return "cluster_state:ok" in self.command("CLUSTER INFO") and replication.get("master_link_status") != "down"

    def is_on_disk(self) -> bool:
        """Every key is in a file. While an earlier fsync goes on, `appendfsync everysec` holds writes back for
        up to two seconds, and a server that is killed then loses them.
        """
        persistence = self.server.client.info("persistence")
        return not any(
            persistence.get(name) for name in ("aof_buffer_length", "aof_rewrite_scheduled", "aof_rewrite_in_progress")
        )

    def probe(self, check: str) -> bool:
        return self.run("probe.sh", check) == (0, "")

    def run(self, script: str, *arguments: str) -> tuple[int, str]:
        """Runs a script of the base as the kubelet does. Returns its exit code and its output."""
        ended = subprocess.run(
            [str(self.container / "sh"), str(BASE_SERVERS / script), *arguments],
            env={
                "PATH": str(self.container),
                "POD_IP": self.address,
                "REDIS_SERVICE": "redis-service",
                "REDIS_CLI_OPTIONS": f"-h {self.address} -p {self.port}",
                "REDIS_SCRIPT_LOG": str(self.container / "log"),
                "PEER_LIMIT_S": "5",  # on a busy machine; addresses without a server refuse the connection immediately
                **self.variables,
            },
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert ended.stderr == ""
        return ended.returncode, ended.stdout.strip()


@dataclass(frozen=True, slots=True)
class Machine:
    """Starts pods. Each name has its own disk and gets a new address at each start."""

    directory: Path
    program: Path = a_server
    cli: Path = a_cli
    shell: str = "sh"
    resolver: str = "getent"
    port: int = 6379
    password: str = ""
    options: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def pods(self, *names: str) -> Iterator[list[Pod]]:
        """Pods that start at the same time, and a DNS that lists them."""
        with ExitStack() as stack, ThreadPoolExecutor(len(names)) as threads:
            pods = list(threads.map(lambda name: stack.enter_context(self.pod(name)), names))
            self.list_in_dns(*(pod.address for pod in pods))
            yield pods

    @contextmanager
    def pod(self, name: str) -> Iterator[Pod]:
        """One pod whose server answers. The DNS does not list it yet."""
        container = self.directory / f"container of {name}"
        container.mkdir(exist_ok=True)
        self.provide_programs(container)
        with running(self.program, self.directory / name, *PATIENT, *self.options) as server:
            client = redis.Redis(server.address, password=self.password or None, protocol=2, decode_responses=True)
            yield Pod(replace(server, client=client), container, self.port, self.variables)

    def list_in_dns(self, *addresses: str) -> None:
        (self.directory / "dns").write_text("".join(f"{address}\n" for address in addresses), encoding="utf-8")

    def provide_programs(self, container: Path) -> None:
        """The programs of an image: those of busybox with its shell."""
        busybox = shutil.which("busybox") if "busybox" in self.shell else None
        for name in PROGRAMS:
            write_program(container / name, f'exec {f"{busybox} {name}" if busybox else shutil.which(name)} "$@"')
        write_program(container / "sh", f'exec {f"{busybox} sh" if busybox else shutil.which(self.shell)} "$@"')
        write_program(container / self.cli.name, f'exec {self.cli} "$@"')
        read = f"while read -r address; do %s; done <{shlex.quote(str(self.directory / 'dns'))}"
        if self.resolver == "getent":  # glibc and musl print each address once for each type of socket
            lines = "; ".join(f'echo "$address {kind} redis-service"' for kind in ("STREAM", "DGRAM", "RAW"))
            write_program(container / "getent", f'[ "$*" = "ahosts redis-service" ] && {read % lines}')
        else:
            head = r'printf "Server:\t\t10.96.0.10\nAddress:\t10.96.0.10:53\n\n"'
            lines = r'printf "Name:\tredis-service.default.svc.cluster.local\nAddress: $address\n"'
            write_program(container / "nslookup", f'[ "$*" = redis-service ] && {head} && {read % lines}')


def write_program(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)


def form(pods: Sequence[Pod]) -> None:
    """The first half are masters, each other one is a replica of one of them. Writes keys."""
    masters = pods[: (len(pods) + 1) // 2]
    for number, master in enumerate(masters):
        master.command(f"CLUSTER SET-CONFIG-EPOCH {number + 1}")
        slots = range(16384 * number // len(masters), 16384 * (number + 1) // len(masters))
        master.server.client.execute_command("CLUSTER", "ADDSLOTS", *slots)
    for pod in pods:
        for peer in pods:
            if peer is not pod:
                pod.command(f"CLUSTER MEET {peer.address} {peer.port}")
    wait_until(lambda: all_linked(pods), "the mesh is complete", LIMIT_S)
    for replica, master in zip(pods[len(masters) :], masters, strict=False):
        wait_until(partial(accepts, replica, f"CLUSTER REPLICATE {master.node_id}"), "it has a master", LIMIT_S)
    wait_until(lambda: all(pod.is_ok() for pod in pods), "the cluster is ok", LIMIT_S)
    for number in range(WRITTEN):
        assert any(accepts(master, f"SET key:{number} value") for master in masters)
    wait_until(lambda: total_keys(pods) == WRITTEN * len(pods) // len(masters), "replicas have the keys", LIMIT_S)
    wait_until(lambda: all(pod.is_on_disk() for pod in pods), "all keys are in files", LIMIT_S)


def accepts(pod: Pod, text: str) -> bool:
    try:
        return pod.command(text) in ("OK", "True")
    except redis.ResponseError:
        return False


def all_linked(pods: Sequence[Pod]) -> bool:
    """Each one reaches each other one."""
    return all(pod.reaches(peer) for pod in pods for peer in pods if peer is not pod)


def roles(pods: Sequence[Pod]) -> list[str]:
    return [str(pod.server.client.info("replication")["role"]) for pod in pods]


def total_keys(pods: Sequence[Pod]) -> int:
    return sum(int(pod.command("DBSIZE")) for pod in pods)


def probe_until(pods: Sequence[Pod], condition: Callable[[], bool], what: str) -> None:
    """Runs the probes of all these pods in parallel, as the kubelet does, until the condition holds."""

    def kubelet(pod: Pod) -> None:
        wait_until(lambda: pod.probe("started"), f"{pod.address} has started", LIMIT_S)
        wait_until(lambda: condition() or (pod.probe("ready") and condition()), what, LIMIT_S)

    with ThreadPoolExecutor(len(pods)) as threads:
        list(threads.map(kubelet, pods))


def heal(pods: Sequence[Pod]) -> None:
    """Runs the probes until the pods form one cluster again."""
    probe_until(pods, lambda: all_linked(pods) and all(pod.is_ok() for pod in pods), "all are linked and ok")


def restarted(machine: Machine) -> None:
    """Six pods with keys. All get new addresses. Their probes make one cluster of them, with the same roles."""
    with machine.pods(*NAMES) as pods:
        form(pods)
        before, keys = (roles(pods), [pod.node_id for pod in pods]), total_keys(pods)
    with machine.pods(*NAMES) as pods:
        assert not any(pod.reaches(peer) for pod in pods for peer in pods if peer is not pod)
        heal(pods)
        assert (roles(pods), [pod.node_id for pod in pods]) == before
        wait_until(lambda: total_keys(pods) == keys, "every key is there, also on the replicas", LIMIT_S)
        logged = [line for pod in pods for line in pod.log]
        assert logged
        assert [line for line in logged if not line.startswith("introduce.sh: introduced ")] == []
        assert [line for line in logged if not line.endswith(": OK")] == []


@pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS.keys())
def test_all_pods_with_new_addresses_find_each_other(program: Path, tmp_path: Path) -> None:
    """On every server. Nothing but the probes runs."""
    restarted(Machine(tmp_path, program))


@pytest.mark.parametrize("shell", SHELLS[1:])
def test_the_shells_of_other_images_do_the_same(shell: str, tmp_path: Path) -> None:
    """With busybox, all its programs are those of busybox, as in Alpine."""
    restarted(Machine(tmp_path, shell=shell))


@pytest.mark.parametrize("cli", CLIENTS.values(), ids=CLIENTS.keys())
def test_any_client_and_nslookup_are_enough(cli: Path, tmp_path: Path) -> None:
    """An image of Valkey may have no redis-cli, and some image may have no getent."""
    restarted(Machine(tmp_path, cli=cli, resolver="nslookup"))


def test_a_dns_that_lists_one_pod_is_enough(tmp_path: Path) -> None:
    """A cache may keep the answer that the first pod got. The other pods find each other through that pod."""
    machine = Machine(tmp_path)
    with machine.pods(*NAMES) as pods:
        form(pods)
    with machine.pods(*NAMES) as pods:
        machine.list_in_dns(pods[0].address)
        heal(pods)


def test_one_moved_pod_is_not_introduced(tmp_path: Path) -> None:
    """It knows the addresses of its peers, and they learn its own from its packets."""
    machine = Machine(tmp_path)
    with machine.pods(*NAMES[:3]) as rest:
        with machine.pod("moved") as moved:
            form([*rest, moved])
        with machine.pod("moved") as moved:
            pods = [*rest, moved]
            machine.list_in_dns(*(pod.address for pod in pods))
            heal(pods)
            assert [pod.log for pod in pods] == [[], [], [], []]


def test_two_moved_pods_find_each_other(tmp_path: Path) -> None:
    """Neither knows the new address of the other. The others are not introduced to anybody."""
    machine = Machine(tmp_path)
    with machine.pods(*NAMES[:2]) as rest:
        with machine.pods("first", "second") as moved:
            form([*rest, *moved])
        with machine.pods("first", "second") as moved:
            pods = [*rest, *moved]
            machine.list_in_dns(*(pod.address for pod in pods))
            heal(pods)
            assert [pod.log for pod in rest] == [[], []]
            assert any(pod.log for pod in moved)


@pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS.keys())
def test_a_replica_follows_its_master_to_a_new_address(program: Path, tmp_path: Path) -> None:
    """Another peer has told it the address. Redis then keeps copying from the old one."""
    machine = Machine(tmp_path, program, options=("--cluster-node-timeout", "2000"))
    with machine.pods(*NAMES[:2]) as (other_master, other_replica):
        with machine.pods("master", "replica") as (master, replica):
            form([master, other_master, replica, other_replica])
        with machine.pods("master", "replica") as (master, replica):
            wait_until(lambda: replica.reaches(master), "a peer has told the replica the address", LIMIT_S)
            was_stale = replica.server.client.info("replication")["master_host"] != master.address
            machine.list_in_dns(*(pod.address for pod in (master, other_master, replica, other_replica)))
            wait_until(lambda: replica.probe("ready"), "the replica has its link", LIMIT_S)
            assert replica.server.client.info("replication")["master_host"] == master.address
            assert [line for line in replica.log if "follows" in line] == (
                [f"introduce.sh: follows its master at {master.address}: OK"] if was_stale else []
            )


def test_strangers_are_not_introduced(tmp_path: Path) -> None:
    """A new pod, a pod of another cluster, and a pod that left the cluster and kept its id, under the same Service."""
    machine = Machine(tmp_path)
    with machine.pods(*NAMES[:3]) as pods, machine.pods("left") as (left,):
        form([*pods, left])
    with (
        machine.pods("blank") as (blank,),
        machine.pods("other-0", "other-1") as other,
        machine.pods(*NAMES[:3]) as pods,
        machine.pods("left") as (left,),
    ):
        form(other)
        assert left.command("CLUSTER RESET") in ("OK", "True")
        everybody = [*pods, blank, *other, left]
        machine.list_in_dns(*(pod.address for pod in everybody))
        probe_until(everybody, lambda: all_linked(pods), "the members are linked")
        for pod in everybody:  # once more, with all members in place
            pod.run("introduce.sh")
        ids = {pod.node_id for pod in pods} | {left.node_id}
        assert all(pod.nodes().keys() == ids for pod in pods)
        assert all(pod.nodes().keys() == {each.node_id for each in other} for pod in other)
        assert [each.nodes().keys() for each in (blank, left)] == [{blank.node_id}, {left.node_id}]
        assert not any(left.address in line or blank.address in line for pod in everybody for line in pod.log)


def test_a_copied_volume_is_not_introduced(tmp_path: Path) -> None:
    """Two servers have one node id. Nobody can tell which one is the member, so neither is introduced."""
    machine = Machine(tmp_path)
    with machine.pods(*NAMES) as pods:
        form(pods)
    shutil.copytree(tmp_path / NAMES[5], tmp_path / "copy")
    with machine.pods(*NAMES) as pods:
        *rest, original = pods
        with machine.pod("copy") as copy:
            assert copy.node_id == original.node_id
            machine.list_in_dns(*(pod.address for pod in (*pods, copy)))
            probe_until([*pods, copy], lambda: all_linked(rest), "the others are linked")
            assert not any(pod.reaches(original) or pod.reaches(copy) for pod in rest)
            assert not any(each.reaches(pod) for pod in rest for each in (original, copy))
            for each in (original, copy):
                assert {line for line in each.log if each.address in line} == {NOT_INTRODUCED.format(each.address)}
        machine.list_in_dns(*(pod.address for pod in pods))
        heal(pods)


NOT_INTRODUCED = "introduce.sh: did not introduce {}: another server has the same node id, so one volume is a copy"


def test_a_member_that_answers_at_its_stored_address_keeps_it(tmp_path: Path) -> None:
    """The copy of its volume is under the same Service. Every table keeps the address of the original."""
    machine = Machine(tmp_path)
    with machine.pods(*NAMES[:4]) as pods:
        form(pods)
        (tmp_path / "copy").mkdir()
        shutil.copy(tmp_path / NAMES[3] / "nodes.conf", tmp_path / "copy")
        # The copy must not connect to the peers by itself, so it does not find them at their stored addresses.
        conf = tmp_path / "copy" / "nodes.conf"
        text = conf.read_text(encoding="utf-8")
        for pod in pods[:3]:
            text = text.replace(pod.address, "127.255.255.254")
        conf.write_text(text, encoding="utf-8")
        with machine.pod("copy") as copy:
            machine.list_in_dns(*(pod.address for pod in (*pods, copy)))
            for pod in (*pods, copy):
                pod.run("introduce.sh")
            assert all_linked(pods)
            assert {line for pod in (*pods, copy) for line in pod.log} == {
                NOT_INTRODUCED.format(each.address) for each in (pods[3], copy)
            }


@pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS.keys())
def test_a_healthy_node_is_asked_for_nothing_more(program: Path, tmp_path: Path) -> None:
    """INFO and CLUSTER INFO are all that its readiness probe requests, and the DNS is not asked."""
    machine = Machine(tmp_path, program, options=("--cluster-node-timeout", "1000"))
    with machine.pods(*NAMES[:4]) as pods:
        form(pods)
        requests = tmp_path / "requests"
        for pod in pods:
            write_program(pod.container / a_cli.name, f'echo "$*" >>{requests}\nexec {a_cli} "$@"')
            write_program(pod.container / "getent", f"echo getent >>{requests}")

        def asks_nothing_more(pod: Pod) -> bool:
            requests.write_text("", encoding="utf-8")
            assert pod.probe("ready")
            return requests.read_text(encoding="utf-8") == "".join(
                f"-h {pod.address} -p 6379 {request}\n" for request in ("INFO", "CLUSTER INFO")
            )

        for pod in pods:
            wait_until(partial(asks_nothing_more, pod), "enough messages have arrived", LIMIT_S)


def test_with_auth_the_rights_of_the_servers_user_are_enough(tmp_path: Path) -> None:
    """The ACL log stays empty."""
    secret = Secret.of(tmp_path)
    assert secret.render().returncode == 0
    variables = {"REDIS_USER": "server", "REDIS_PASSWORD_FILE": str(secret.written / "password")}
    program = next(iter(SERVERS_SINCE_6.values()), a_server)
    machine = Machine(
        tmp_path, program=program, options=options(secret), password=SECRET_KEYS["password"], variables=variables
    )
    with machine.pods(*NAMES[:4]) as pods:
        form(pods)
    with machine.pods(*NAMES[:4]) as pods:
        heal(pods)
        assert any(pod.log for pod in pods)
        assert [entry for pod in pods for entry in pod.server.client.acl_log()] == []


@with_tls
def test_with_tls_the_options_of_the_component_are_enough(tmp_path: Path) -> None:
    """The port of TLS is introduced, with its port of the bus. The tests use a plain port in addition."""
    assert a_tls_server
    assert a_tls_cli
    certificate = Authority(tmp_path / "authority").issue("redis")
    (container,) = build(COMPONENTS / "tls").one("StatefulSet", "redis-app")["spec"]["template"]["spec"]["containers"]
    (tls_options,) = [each["value"] for each in container["env"] if each["name"] == "REDIS_TLS_OPTIONS"]
    for path, file in (("tls.crt", certificate.cert), ("tls.key", certificate.key), ("ca.crt", certificate.ca)):
        tls_options = tls_options.replace(f"/etc/redis-tls/{path}", str(file))
    machine = Machine(
        tmp_path,
        a_tls_server,
        a_tls_cli,
        port=6380,
        options=[word for line in certificate.server_config(port=6380)[1:] for word in f"--{line}".split(" ", 1)],
        variables={"REDIS_TLS_OPTIONS": tls_options},
    )
    with machine.pods(*NAMES[:4]) as pods:
        form(pods)
    with machine.pods(*NAMES[:4]) as pods:
        heal(pods)
        assert any(pod.log for pod in pods)


ME, PEER, HUNG, BEFORE_ME = ("0" * 39 + digit for digit in "1234")
"""Node ids."""


@pytest.mark.parametrize("resolver", ["getent", "nslookup"])
def test_with_ipv6_a_peer_is_introduced_by_its_ipv6_address(resolver: str, tmp_path: Path) -> None:
    """Loopback has one IPv6 address only, so redis-cli is a script here. It records the introductions.

    The Service of two families lists the IPv4 address of each pod as well. A pod that does not answer keeps its member.
    This pod has the former address of another one.
    """
    mine, old, new, hung, moved, other = (f"fd00::{number}" for number in range(1, 7))
    tables = {
        mine: [
            f"{ME} {mine}:7000@17001,host myself,master - 0 0 1 connected",
            f"{PEER} {old}:7000@17001 slave {ME} 5 0 1 disconnected",
            f"{HUNG} {hung}:7000@17001 master,fail? - 5 0 2 disconnected",
            f"{BEFORE_ME} {mine}:7000@17001 master - 5 0 3 disconnected",
        ],
        other: [
            f"{BEFORE_ME} {other}:7000@17001 myself,master - 0 0 3 connected",
            f"{ME} fd00::9:7000@17001 master,fail - 0 0 1 disconnected",
        ],
        new: [
            f"{PEER} {new}:7000@17001 myself,slave {ME} 0 0 1 connected",
            f"{ME} fd00::9:7000@17001 master,fail - 0 0 1 disconnected",
        ],
        moved: [
            f"{HUNG} {moved}:7000@17001 myself,master - 0 0 2 connected",
            f"{ME} fd00::9:7000@17001 master,fail - 0 0 1 disconnected",
        ],
    }
    machine = Machine(tmp_path, resolver=resolver)
    machine.list_in_dns(mine, new, hung, moved, other, "10.0.0.1", "10.0.0.3")
    machine.provide_programs(tmp_path)
    for address, lines in tables.items():
        (tmp_path / f"nodes {address}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    write_program(
        tmp_path / a_cli.name,
        f'cd "{tmp_path}"; for host; do case $host in fd00:*) address=$host ;; esac; done\n'
        'case $* in *MEET*) echo "$*" >>introduced; echo OK ;; '
        f'*"-p 7000 CLUSTER NODES" | *"-h {mine} CLUSTER NODES") cat "nodes $address" ;; *) exit 1 ;; esac',
    )
    done = subprocess.run(
        [str(tmp_path / "sh"), str(BASE_SERVERS / "introduce.sh")],
        env={
            "PATH": str(tmp_path),
            "POD_IP": mine,
            "REDIS_SERVICE": "redis-service",
            "REDIS_CLI_OPTIONS": f"-h {mine}",
            "REDIS_SCRIPT_LOG": str(tmp_path / "log"),
            "INTRODUCE_LIMIT_S": "0",
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert sorted((tmp_path / "introduced").read_text().splitlines()) == [
        f"-h {mine} CLUSTER MEET {new} 7000 17001",
        f"-h {mine} CLUSTER MEET {other} 7000 17001",
    ]
    assert sorted((tmp_path / "log").read_text().splitlines()) == [
        f"introduce.sh: introduced {PEER} at {new}, before at {old}: OK",
        f"introduce.sh: introduced {BEFORE_ME} at {other}, before at {mine}: OK",
    ]
