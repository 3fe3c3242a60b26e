"""Who talks to whom on Kubernetes, drawn from the manifests that `kubectl kustomize` builds.

Names, ports, numbers and rights are read from the objects. An arrow that rests on a field checks this field: a manifest
that no longer has it makes the drawing fail, or come out differently, and a test compares.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pictures import svg
from pictures.places import ROOT

OVERLAY = ROOT / "k8s" / "overlays" / "minikube"
BUILD_TIMEOUT_S = 60

Manifest = dict[str, Any]


class NoLongerFits(Exception):
    """The manifests are not what the picture shows: its drawing needs an edit."""


def _require(holds: bool, why: str) -> None:  # noqa: FBT001 - reads like `assert`, which an optimised Python leaves out
    if not holds:
        raise NoLongerFits(why)


def manifests() -> Sequence[Manifest]:
    """The objects of the overlay that is the base alone."""
    kubectl = shutil.which("kubectl", path=sysconfig.get_path("scripts")) or "kubectl"
    done = subprocess.run(
        [kubectl, "kustomize", str(OVERLAY)], capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=True
    )
    return tuple(yaml.safe_load_all(done.stdout))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the picture says, in the words of the manifests."""

    cronjob: str
    job: str
    verb: str
    settings: str
    config: str
    statefulset: str
    image: str
    pods: Sequence[str]
    peers: str
    not_ready_too: bool
    srv: str
    port: int
    bus_port: int
    access: str
    access_port: int
    rights: Sequence[str]
    hooks: Sequence[str]


def read(objects: Sequence[Manifest]) -> Facts:
    """The facts of the manifests. Raises NoLongerFits or KeyError where they are not what is drawn."""
    config_maps = {_bare(each): each for each in _of_kind(objects, "ConfigMap")}
    statefulset = _only(_of_kind(objects, "StatefulSet"))
    pod = statefulset["spec"]["template"]
    server = _only(pod["spec"]["containers"])
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    job = _only(_of_kind(objects, "Job"))
    cronjob = _only([each for each in _of_kind(objects, "CronJob") if _name(each) == _name(job)])
    container = _only(job["spec"]["template"]["spec"]["containers"])
    made = _only(cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"])
    _require(made["args"] == container["args"], "the Jobs of the CronJob do something else")
    settings = _only([source["configMapRef"]["name"] for source in container["envFrom"]])
    told = config_maps[settings]["data"]
    services = {_name(each): each for each in _of_kind(objects, "Service")}
    peers, access = services[told["BOOTSTRAP_SERVICE"]], services[told["BOOTSTRAP_ACCESS_SERVICE"]]
    for service in (peers, access):
        selected = service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        _require(selected, f"the Service {_name(service)} selects other pods")
    _require(peers["spec"]["clusterIP"] == "None", "the Service of the peers is not headless")
    _require(statefulset["spec"]["serviceName"] == _name(peers), "the pods have their names from another Service")
    _require(told["BOOTSTRAP_STATEFULSET"] == _name(statefulset), "the settings name another StatefulSet")
    port_name = told["BOOTSTRAP_PORT_NAME"]
    mounted = {volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume}
    return Facts(
        cronjob=f"CronJob {_name(cronjob)}" + (" (suspended)" if cronjob["spec"].get("suspend") else ""),
        job=_name(job),
        verb=" ".join(container["args"]),
        settings=settings,
        config=_only([name for name, each in config_maps.items() if _name(each) in mounted]),
        statefulset=_name(statefulset),
        image=server["image"],
        pods=[f"{_name(statefulset)}-{ordinal}" for ordinal in range(statefulset["spec"]["replicas"])],
        peers=_name(peers),
        not_ready_too=peers["spec"].get("publishNotReadyAddresses", False),
        srv=f"_{port_name}._tcp.{_name(peers)}",
        port=ports[port_name],
        bus_port=ports["redis-bus"],
        access=_name(access),
        access_port=_only(access["spec"]["ports"])["port"],
        rights=list(_rights(_only(_of_kind(objects, "Role")))),
        hooks=list(_hooks(server)),
    )


def _rights(role: Manifest) -> Iterator[str]:
    """A line for each kind of object that the Job may use: its name, where it is only one, and the verbs."""
    verbs: dict[str, list[str]] = {}
    names: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for resource in rule["resources"]:
            verbs.setdefault(resource, []).extend(rule["verbs"])
            names.setdefault(resource, set()).update(rule.get("resourceNames", ()))
    for resource, allowed in verbs.items():
        subject = " ".join([resource, *sorted(names[resource])])
        yield f"{subject}: {', '.join(sorted(set(allowed)))}"


def _hooks(container: Manifest) -> Iterator[str]:
    """The scripts that the kubelet runs in a pod, each with what for."""
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield f"{probe}: {_script(container[probe]['exec']['command'])}"
    for hook, action in container["lifecycle"].items():
        yield f"{hook}: {_script(action['exec']['command'])}"


def _script(command: Sequence[str]) -> str:
    return " ".join(word.rpartition("/")[2] for word in command if word != "sh")


def _of_kind(objects: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [each for each in objects if each["kind"] == kind]


def _only(each: Sequence[Any]) -> Any:
    """The only one there is. Raises NoLongerFits where there is none, or more than one."""
    _require(len(each) == 1, f"expected one, found {len(each)}: {each}")
    return each[0]


def _name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def _bare(manifest: Manifest) -> str:
    """Without the hash of the content that Kustomize appends to a generated name."""
    return re.sub(r"-[2456789bcdfghkmt]{10}$", "", _name(manifest))


# What follows draws.

WIDTH, HEIGHT = 1110, 650
INK, QUIET, PAPER = "#1f2328", "#59636e", "#ffffff"
JOB, SERVERS, CLIENTS, CLUSTER = "#0969da", "#bc4c00", "#1a7f37", "#8250df"
FILLS = {JOB: "#ddf4ff", SERVERS: "#fff1e5", CLIENTS: "#dafbe1", CLUSTER: "#fbefff", QUIET: "#f6f8fa"}
STYLE = (
    "<style>text{font-family:-apple-system,'Segoe UI',Helvetica,Arial,'DejaVu Sans',sans-serif;font-size:14px}</style>"
)
HEAD_ADVANCE_PX, ADVANCE_PX = 8.2, 6.8
"""How wide a character is on average, in the widest of the fonts."""


@dataclass(frozen=True, slots=True)
class Box:
    """A thing that talks: a head line and smaller ones."""

    x: int
    y: int
    width: int
    height: int
    colour: str
    head: str
    lines: Sequence[str] = ()

    def draw(self) -> Iterator[str]:
        """The box with its text from its top. Raises NoLongerFits where the text is too long for it."""
        for words, advance in [(self.head, HEAD_ADVANCE_PX), *((line, ADVANCE_PX) for line in self.lines)]:
            _require(len(words) * advance <= self.width - 24, f"{words!r} does not fit into {self.width} px")
        yield (
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="8" '
            f'fill="{FILLS[self.colour]}" stroke="{self.colour}" stroke-width="1.5"/>'
        )
        yield _text(self.x + 14, self.y + 25, self.head, weight=600)
        for number, line in enumerate(self.lines):
            yield _text(self.x + 14, self.y + 47 + 19 * number, line, size=13, colour=QUIET)


@dataclass(frozen=True, slots=True)
class Arrow:
    """One talks to another: from the first point to the last one. A dashed arrow is not a connection."""

    points: Sequence[tuple[int, int]]
    colour: str
    words: Sequence[str]
    words_at: tuple[int, int]
    dashed: bool = False
    both: bool = False
    anchor: str = "start"

    def draw(self) -> Iterator[str]:
        """The line with its head, and what is said."""
        head = f"url(#head-{self.colour[1:]})"
        more = ' stroke-dasharray="5 4"' if self.dashed else ""
        more += f' marker-start="{head}"' if self.both else ""
        if self.points:
            path = "M" + "L".join(f"{x} {y}" for x, y in self.points)
            yield (
                f'<path d="{path}" fill="none" stroke="{self.colour}" stroke-width="1.8"{more} marker-end="{head}"/>'
            )
        x, y = self.words_at
        for number, line in enumerate(self.words):
            yield _text(x, y + 17 * number, line, size=13, colour=self.colour, anchor=self.anchor)


def _text(
    x: int, y: int, words: str, *, size: int = 14, weight: int = 400, colour: str = INK, anchor: str = "start"
) -> str:
    attributes = f'x="{x}" y="{y}" fill="{colour}"'
    attributes += f' style="font-size:{size}px"' if size != 14 else ""
    attributes += f' font-weight="{weight}"' if weight != 400 else ""
    attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f"<text {attributes}>{svg.text(words)}</text>"


def draw(objects: Sequence[Manifest]) -> str:
    """The picture as SVG."""
    facts = read(objects)
    return svg.document(WIDTH, HEIGHT, "Who talks to whom", _in_words(facts), _content(facts))


def _content(facts: Facts) -> Iterator[str]:
    yield STYLE
    yield "<defs>"
    for colour in FILLS:
        yield (
            f'<marker id="head-{colour[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
        )
    yield "</defs>"
    size = f'width="{WIDTH - 1}" height="{HEIGHT - 1}"'
    yield f'<rect x="0.5" y="0.5" {size} rx="8" fill="{PAPER}" stroke="#d1d9e0"/>'
    for box in _boxes(facts):
        yield from box.draw()
    for arrow in _arrows(facts):
        yield from arrow.draw()


RIGHT, TOP, RIGHT_WIDTH = 770, 40, 310
POD_WIDTH, POD_HEIGHT, POD_GAP = 125, 44, 28
FIRST_POD_Y = TOP + 80


def _pod_at(number: int) -> tuple[int, int]:
    """The upper left corner of a pod: two in a row."""
    column, row = number % 2, number // 2
    x = RIGHT + 14 + column * (RIGHT_WIDTH - 28 - POD_WIDTH)
    return x, FIRST_POD_Y + row * (POD_HEIGHT + POD_GAP)


def _servers_bottom(facts: Facts) -> int:
    return _pod_at(len(facts.pods) - 1)[1] + POD_HEIGHT + 66


def _boxes(facts: Facts) -> Iterator[Box]:
    listed = "every pod, ready or not" if facts.not_ready_too else "the pods that are ready"
    command, settings = f"python -m bootstrap {facts.verb}", f"settings: ConfigMap {facts.settings}"
    yield Box(30, 40, 330, 92, QUIET, "kubectl apply -k", ["or kubectl create job --from the", facts.cronjob])
    yield Box(30, 190, 330, 92, JOB, f"Job {facts.job}", [command, settings])
    yield Box(30, 400, 330, 42 + 19 * len(facts.rights), CLUSTER, "Kubernetes API", facts.rights)
    yield Box(440, 40, 250, 92, QUIET, "DNS", [f"headless Service {facts.peers}:", listed])
    yield Box(440, 320, 250, 72, CLIENTS, f"Service {facts.access}", [f"port {facts.access_port}, pods that are ready"])
    yield Box(440, 540, 250, 72, CLIENTS, "clients", ["a library for Redis Cluster"])
    servers = [f"image {facts.image}", f"files: ConfigMap {facts.config}"]
    height = _servers_bottom(facts) - TOP
    yield Box(RIGHT, TOP, RIGHT_WIDTH, height, SERVERS, f"StatefulSet {facts.statefulset}", servers)
    for number, pod in enumerate(facts.pods):
        yield Box(*_pod_at(number), POD_WIDTH, POD_HEIGHT, SERVERS, pod)
    yield Box(840, 500, 240, 42 + 19 * len(facts.hooks), QUIET, "kubelet", facts.hooks)


def _arrows(facts: Facts) -> Iterator[Arrow]:
    bottom = _servers_bottom(facts)
    yield Arrow([(195, 132), (195, 190)], QUIET, ["creates"], (207, 166))
    yield Arrow([(360, 205), (400, 205), (400, 86), (440, 86)], JOB, [f"asks: SRV {facts.srv}"], (412, 166))
    yield Arrow([(690, 86), (RIGHT, 86)], QUIET, [], (0, 0), dashed=True)
    yield Arrow([(360, 236), (RIGHT, 236)], JOB, [f"looks, then writes: port {facts.port} of every pod"], (412, 228))
    probe = ["at the end, as a client: writes, reads", "and deletes a key in every shard"]
    yield Arrow([(360, 265), (400, 265), (400, 356), (440, 356)], JOB, probe, (412, 276))
    yield Arrow([(195, 282), (195, 400)], JOB, ["lock, Events, and", "why a pod is missing"], (207, 338))
    yield Arrow([(560, 540), (560, 392)], CLIENTS, ["at first"], (572, 446))
    yield Arrow([(690, 356), (RIGHT, min(356, bottom))], CLIENTS, [], (0, 0))
    straight = ["then straight to", "the slot's master"]
    yield Arrow([(690, 576), (800, 576), (800, bottom)], CLIENTS, straight, (788, 500), anchor="end")
    yield Arrow([(960, 500), (960, bottom)], QUIET, ["runs in each pod"], (972, 458))
    yield from _bus(facts)


def _bus(facts: Facts) -> Iterator[Arrow]:
    """Between neighbours; the words say that it is between all."""
    for number in range(len(facts.pods)):
        x, y = _pod_at(number)
        if number % 2 == 0 and number + 1 < len(facts.pods):
            level = y + POD_HEIGHT // 2
            yield Arrow(
                [(x + POD_WIDTH + 2, level), (_pod_at(number + 1)[0] - 2, level)], SERVERS, [], (0, 0), both=True
            )
        if number + 2 < len(facts.pods):
            middle = x + POD_WIDTH // 2
            yield Arrow(
                [(middle, y + POD_HEIGHT + 2), (middle, y + POD_HEIGHT + POD_GAP - 2)], SERVERS, [], (0, 0), both=True
            )
    words = [f"cluster bus: port {facts.bus_port},", "every pod with every other"]
    yield Arrow([], SERVERS, words, (RIGHT + 14, _servers_bottom(facts) - 38))


def _in_words(facts: Facts) -> str:
    return (
        f"The Job {facts.job} asks the DNS for {facts.srv}, looks at and writes to {len(facts.pods)} pods of the "
        f"StatefulSet {facts.statefulset} on port {facts.port}, and at the end enters as a client through the Service "
        f"{facts.access}. The pods talk to each other on port {facts.bus_port}. Clients enter through {facts.access} "
        "and go on to the pods."
    )
