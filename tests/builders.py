"""Clusters to start a test from, built on the fake cluster: healthy, partly formed, or as a scenario file describes.

Nothing here gossips by itself: `gossip` is perfect and happens only when it is called. When the planner's words change,
`python -m tests.builders` writes them into the scenario files.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations, groupby, permutations
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from bootstrap.errors import Reason
from bootstrap.model.desired import Desired
from bootstrap.model.node import Address, Place
from bootstrap.model.plan import Plan, Refusal
from bootstrap.model.slots import SlotSet, even_split
from bootstrap.model.steps import Announce, Meet, MoveKeys, MoveSlots, Step, TakeSlot, Write
from bootstrap.model.view import ClusterView
from bootstrap.model.waits import (
    AwaitAgreement,
    AwaitCopies,
    AwaitElection,
    AwaitEpochs,
    AwaitMesh,
    AwaitMigrations,
    AwaitReplication,
    AwaitServing,
)
from bootstrap.plan.planner import plan
from bootstrap.run.report import plan_text
from tests.fake_cluster import NO_FAILOVER, FakeCluster, FakeNode, Known


def shape(shards: int = 3, replicas: int = 1, timeout_ms: int | None = 5000) -> Desired:
    return Desired(shards=shards, replicas_per_shard=replicas, timeout_ms=timeout_ms)


def formed(desired: Desired) -> FakeCluster:
    """A good cluster of that shape, as a forming run leaves it."""
    cluster = FakeCluster(desired.nodes, timeout_ms=desired.timeout_ms or 5000)
    for node, slots in zip(cluster.nodes, even_split(desired.shards), strict=False):
        node.slots = slots
    for node in cluster.nodes:
        node.epoch = node.ordinal + 1
        node.serving = True
        if not node.slots:
            node.master = cluster[node.ordinal % desired.shards].node_id
    introduce(cluster.nodes)
    gossip(cluster)
    return cluster


def introduce(nodes: Iterable[FakeNode]) -> None:
    """Each of `nodes` knows each other and has a link to it."""
    for one, other in combinations(tuple(nodes), 2):
        one.known[other.node_id] = Known(other.address, connected=True)
        other.known[one.node_id] = Known(one.address, connected=True)


def partition(one: FakeNode, other: FakeNode) -> None:
    """Neither of the two knows the other one."""
    one.known.pop(other.node_id, None)
    other.known.pop(one.node_id, None)


def cut_links(cluster: FakeCluster) -> None:
    """No node has a link to another one, and none serves any more."""
    for node in cluster.nodes:
        node.link_up = node.link_up and node.master is None
        node.serving = False
        for known in node.known.values():
            known.connected = False


def gossip(cluster: FakeCluster) -> None:
    """Perfect gossip: what a node reports about itself reaches every node that knows it."""
    by_id = {node.node_id: node for node in cluster.nodes}
    for node in cluster.nodes:
        node.handshakes.clear()
        for node_id, known in node.known.items():
            if truth := by_id.get(node_id):
                known.slots, known.master, known.epoch = truth.slots, truth.master, truth.epoch
                known.replica = truth.master is not None


def apply_step(step: Step, cluster: FakeCluster) -> None:
    """The step is done and every node knows of it. Raises AssertionError where the servers would reject it."""
    by_id = {node.node_id: node for node in cluster.nodes}
    match step:
        case Meet():
            introduce([by_id[step.introducer], by_id[step.newcomer]])
        case AwaitMesh():
            introduce(node for node in cluster.nodes if node.alive)
        case Announce():
            pass  # the perfect gossip below announces everything
        case AwaitAgreement():
            for one, other in permutations(cluster.nodes, 2):
                if one.epoch < other.epoch:  # the higher epoch wins a slot that both claim
                    one.slots -= other.slots
        case AwaitElection():
            candidates = [node for node in cluster.nodes if node.master == step.lost]
            cluster._promote(max(candidates, key=lambda node: (node.offset, -node.ordinal)))
        case AwaitEpochs():
            for node in cluster.nodes:
                node.epoch = node.ordinal + 1
        case AwaitReplication() | AwaitCopies():
            for node in cluster.nodes:
                node.link_up, node.copy_ticks = True, 0
        case AwaitServing():
            for node in cluster.nodes:
                node.serving = True
        case MoveKeys():
            while by_id[step.source].in_slot.get(step.slot):
                assert cluster.send([step], cluster.look()) == []
        case MoveSlots():
            transfer = cluster.move([step], cluster.look())
            while not transfer.done:
                transfer.advance()
            assert transfer.rejected == []
        case AwaitMigrations():
            pass  # no server migrates by itself here
        case TakeSlot():
            assert cluster.send([step], cluster.look()) == []
            for node in cluster.nodes:
                if node.node_id != step.node:
                    cluster._lose(node, SlotSet.of((step.slot, step.slot)))
        case _:
            assert cluster.send([step], cluster.look()) == []
    gossip(cluster)


def with_node(view: ClusterView, ordinal: int, **changes: Any) -> ClusterView:
    """The view with facts of one node changed."""
    return replace(
        view, nodes=tuple(replace(node, **changes) if node.ordinal == ordinal else node for node in view.nodes)
    )


def with_line(view: ClusterView, reporter: int, about: int, **changes: Any) -> ClusterView:
    """The view with one line of one node's CLUSTER NODES changed."""
    node_id = view.nodes[about].node_id
    members = (replace(m, **changes) if m.node_id == node_id else m for m in view.nodes[reporter].members)
    return with_node(view, reporter, members=tuple(members))


STRANGER = "f" * 40


@dataclass
class Scenario:
    """A state of a cluster, the declared shape, and the expected plan or refusal.

    The file: a sentence, the state, a line `=>`, the expected text. The state's lines are `shape: S R [timeout]`, one
    line per pod (`0: 0-5460 epoch=1 keys=2`, `3: replica of 0 link=down`, `4: blank`; `open=93>1` for migrating,
    `open=93<1` for importing, `held=93:5` for five keys in slot 93, which `keys` has to count too, `stale=93:2` for two
    of these that the owner has as well, `named=93` for a slot that others believe it to own), and which nodes know each
    other (`known: all`, `known: 0 1 2 | 3 4 5`, `known: 0-1 2>3`, where `>` is one way). Optional are
    `serving: all`, `links: down`, `places: a/n1 b/n2 /n3` (zone and node of each pod), `rollout: words`, and
    `stranger: 10.0.0.99 slots=0-99 [noaddr] [elsewhere]` (a member that is not a listed pod, and answers elsewhere);
    `3: replica of lost offset=7 down=60` follows the stranger. `missing: 1 4 overdue stopped` are pods that do not
    answer, for which the run has waited, and in which Kubernetes reports no server to run.
    """

    name: str
    expected: str
    desired: Desired = field(default_factory=shape)
    cluster: FakeCluster = field(default_factory=lambda: FakeCluster(0))
    alive_elsewhere: frozenset[str] = frozenset()
    named: dict[str, SlotSet] = field(default_factory=dict)
    """Slots that all others believe a node to own, by its id."""
    about_missing: frozenset[str] = frozenset()

    def view(self) -> ClusterView:
        stuck = frozenset(node.node_id for node in self.cluster.nodes if node.hangs)
        view = replace(self.cluster.look(), alive_elsewhere=self.alive_elsewhere, stuck=stuck)
        overdue, stopped = "overdue" in self.about_missing, "stopped" in self.about_missing
        peers = tuple(replace(peer, overdue=overdue, not_running=stopped) for peer in view.unreachable)
        return replace(view, unreachable=peers)


def scenario(path: Path) -> Scenario:
    """Reads one scenario file; an unknown line is an error."""
    state, _, expected = path.read_text(encoding="utf-8").partition("\n=>\n")
    lines = [line.split(":", 1) for line in state.splitlines()[1:] if line.strip()]
    fields = {name.strip(): rest.split() for name, rest in lines}
    shards, replicas, *timeout = (int(number) for number in fields.pop("shape"))
    result = Scenario(path.stem, expected.strip(), shape(shards, replicas, timeout[0] if timeout else None))
    config = dict(word.split("=", 1) for word in fields.pop("config", []))
    result.desired = replace(result.desired, config=config)
    pods = {int(name): fields.pop(name) for name in list(fields) if name.isdecimal()}
    result.cluster = cluster = FakeCluster(len(pods), timeout_ms=timeout[0] if timeout else 15000)
    for ordinal, words in pods.items():
        _describe(result, ordinal, words)
    for one, arrow, other in _pairs(fields.pop("known", []), len(pods)):
        cluster[one].known[cluster[other].node_id] = Known(cluster[other].address, connected=True)
        if arrow == "-":
            cluster[other].known[cluster[one].node_id] = Known(cluster[one].address, connected=True)
    gossip(cluster)
    for node in cluster.nodes:
        for node_id, slots in result.named.items():
            if node_id in node.known:
                node.known[node_id].slots |= slots
    for ordinal in _ordinals(fields.pop("serving", []), len(pods)):
        cluster[ordinal].serving = True
    if fields.pop("links", None) == ["down"]:
        cut_links(cluster)
    if stranger := fields.pop("stranger", None):
        slots, flags = slots_of(stranger[1].removeprefix("slots=")), frozenset({"noaddr"} & set(stranger))
        result.alive_elsewhere = frozenset({STRANGER} if "elsewhere" in stranger else ())
        for node in cluster.nodes:
            if node.known:
                node.known[STRANGER] = Known(Address(stranger[0], 6379), slots=slots, flags=flags)
    _lose_contact(result, fields.pop("missing", []))
    cluster.places = dict(zip((node.pod for node in cluster.nodes), map(place, fields.pop("places", [])), strict=False))
    cluster.rollout = " ".join(fields.pop("rollout", []))
    assert not fields, f"{path.name}: {fields}"
    return result


def _lose_contact(result: Scenario, words: list[str]) -> None:
    """The pods do not answer, and no other node has a link to one of them."""
    result.about_missing = frozenset({"overdue", "stopped"} & set(words))
    missing = [result.cluster[int(word)] for word in words if word not in result.about_missing]
    for node in missing:
        node.alive = False
        for other in result.cluster.nodes:
            if node.node_id in other.known:
                other.known[node.node_id].connected = False


def place(text: str) -> Place:
    """`a/n1` for the node n1 in zone a; `/n1` in an unknown zone, "" for both unknown."""
    zone, _, machine = text.partition("/")
    return Place(node=machine, zone=zone)


def slots_of(text: str) -> SlotSet:
    """`0-5460,7` as a set; `none` is empty."""
    pairs = (pair.partition("-")[::2] for pair in text.split(",") if text != "none")
    return SlotSet.of(*((int(first), int(last or first)) for first, last in pairs))


def _describe(result: Scenario, ordinal: int, words: list[str]) -> None:
    node = result.cluster[ordinal]
    more = dict(word.split("=", 1) for word in words if "=" in word)
    match [word for word in words if "=" not in word]:
        case ["blank"]:
            pass
        case ["replica", "of", master]:
            node.master = STRANGER if master == "lost" else result.cluster[int(master)].node_id
        case [slots]:
            node.slots = slots_of(slots)
        case other:
            raise AssertionError(f"{result.name}: {other}")
    node.epoch = int(more.pop("epoch", "0"))
    node.keys = int(more.pop("keys", "0"))
    node.timeout_ms = int(more.pop("timeout", node.timeout_ms))
    node.offset = int(more.pop("offset", "0"))
    node.lost_ticks = int(more.pop("down", "0")) * 10
    link = more.pop("link", "up")
    node.hangs, node.link_up = link == "stuck", link == "up" and node.master != STRANGER
    node.config |= {name: more.pop(name) for name in list(more) if name.startswith("cluster-")}
    if found := re.fullmatch(r"([0-9]+)([<>])([0-9]+)", more.pop("open", "")):
        marks = node.migrating if found[2] == ">" else node.importing
        marks[int(found[1])] = result.cluster[int(found[3])].node_id
    for name, counts in (("held", node.in_slot), ("stale", node.stale)):
        for held in more.pop(name, "").split(",") if name in more else ():
            slot, _, keys = held.partition(":")
            counts[int(slot)] = int(keys)
    if named := more.pop("named", ""):
        result.named[node.node_id] = slots_of(named)
    assert not more, f"{result.name}: {more}"


def _pairs(words: list[str], count: int) -> Iterator[tuple[int, str, int]]:
    if any(re.search("[->]", word) for word in words):
        for word in words:
            one, arrow, other = re.split("([->])", word)
            yield int(one), arrow, int(other)
        return
    for group in " ".join(words).split("|"):
        yield from ((one, "-", other) for one, other in combinations(_ordinals(group.split(), count), 2))


def _ordinals(words: list[str], count: int) -> list[int]:
    return list(range(count)) if words == ["all"] else [int(word) for word in words]


def shuffled(view: ClusterView, seed: int) -> ClusterView:
    """The same facts, each node's lines in another order. The nodes themselves are sorted by ordinal in every view."""
    chance = random.Random(seed)
    return replace(
        view,
        nodes=tuple(replace(n, members=tuple(chance.sample(n.members, len(n.members)))) for n in view.nodes),
    )


@st.composite
def half_formed(draw: st.DrawFn) -> tuple[FakeCluster, Desired]:
    """A cluster that is partly formed: of each phase a random part was done, gossip had some time, and the run was
    killed. Sometimes a node holds keys, a timeout was changed, or two nodes lost contact.
    """
    desired = shape(draw(st.integers(3, 4)), draw(st.integers(0, 2)), draw(st.sampled_from([None, 5000])))
    chance = random.Random(draw(st.integers(0, 2**32)))
    cluster = FakeCluster(desired.nodes, seed=chance.randrange(2**32), loss=chance.choice([0.0, 0.5]))
    if draw(st.booleans()):
        cluster = formed(desired)
    for _ in range(draw(st.integers(0, 5))):
        decision = plan(view := cluster.look(), desired)
        if isinstance(decision, Refusal) or not decision.phases:
            break
        writes = [step for step in decision.phases[0].steps if isinstance(step, Write)]
        cluster.send(chance.sample(writes, draw(st.sampled_from([len(writes), chance.randint(0, len(writes))]))), view)
        for _ in range(draw(st.sampled_from([0, 1, 2, 30]))):
            cluster.sleep(0.1)
    for _ in range(draw(st.integers(0, 2))):
        _damage(cluster, chance)
    return cluster, desired


_DAMAGES = (
    *("keys", "timeout", "link", "stranger", "epoch", "part", "state", "follow", "reported master", "reported slots"),
    *("open slot", "unowned", "lost", "links", "quickened", "left over"),
)


def _damage(cluster: FakeCluster, chance: random.Random) -> None:
    one, other = chance.sample(cluster.nodes, 2)
    match chance.choice(_DAMAGES):
        case "keys":
            one.keys = chance.randint(1, 99)
        case "timeout":
            one.timeout_ms = 1000
        case "link":
            one.link_up = one.master is None
        case "stranger":
            one.known.pop(other.node_id, None)
        case "epoch":
            one.epoch = other.epoch
        case "part":
            partition(one, other)
        case "state":
            one.serving = False
        case "follow":
            if one.master:
                one.master = other.node_id
        case "reported master":
            if known := one.known.get(other.node_id):
                known.master = None if known.master else one.node_id
        case "reported slots":
            if known := one.known.get(other.node_id):
                known.slots = SlotSet()
        case "open slot":
            slot = chance.choice([slot for slot, _ in one.slots.ranges] or [0])
            one.migrating, other.importing = {slot: other.node_id}, {slot: one.node_id} if chance.random() < 0.7 else {}
            for node in chance.sample([one, other], chance.randint(0, 2)):
                node.in_slot[slot] = chance.randint(1, 9)
                node.keys += node.in_slot[slot]
        case "left over":
            if one.slots and not other.master:
                slot = chance.choice([slot for slot, _ in one.slots.ranges])
                other.dead[slot], other.stale[slot] = chance.randint(1, 3), chance.randint(1, 3)
                one.in_slot[slot], other.in_slot[slot] = other.stale[slot], other.dead[slot] + other.stale[slot]
                one.keys, other.keys = one.keys + one.in_slot[slot], other.keys + other.in_slot[slot]
                if chance.random() < 0.5:
                    other.importing[slot] = one.node_id
        case "unowned":
            one.slots -= SlotSet.of((0, 99), (9000, 9001))
            one.in_slot[50] = chance.randint(0, 3)
            one.keys += one.in_slot[50]
        case "lost":
            cluster.nodes[one.ordinal] = cluster._blank(one.ordinal)
        case "links":
            cut_links(cluster)
        case "quickened":
            for node in chance.sample(cluster.nodes, chance.randint(1, len(cluster.nodes))):
                node.timeout_ms, node.config[NO_FAILOVER] = 500, "yes"


def steps_of(decision: Plan | Refusal) -> list[Step]:
    """All steps of a plan, in order; none for a refusal."""
    return [step for phase in decision.phases for step in phase.steps] if isinstance(decision, Plan) else []


def codes(decision: Plan | Refusal) -> set[str]:
    """The codes of a refusal; none for a plan."""
    return {reason.code for reason in decision.reasons} if isinstance(decision, Refusal) else set()


def decision_text(view: ClusterView, desired: Desired) -> str:
    """The plan or the refusal as the scenario files have it."""
    decision = plan(view, desired)
    if isinstance(decision, Plan):
        return plan_text(decision, view)
    return reasons_text("refused: ", decision.reasons)


def reasons_text(prefix: str, reasons: Iterable[Reason]) -> str:
    """Each reason with its code and node; a remedy stands once, below the last of the reasons in a row that have it."""
    lines = []
    for remedy, alike in groupby(reasons, key=lambda reason: reason.remedy):
        for reason in alike:
            where = f" on {reason.node}" if reason.node else ""
            lines.append(f"{prefix}{reason.code}{where}: {reason.message}")
        lines.append(f"    → {remedy}")
    return "\n".join(lines)


def rewrite(folder: Path) -> None:
    """Writes the planner's present words into every scenario file of a folder, for a person to review as a diff."""
    for path in sorted(folder.glob("*.txt")):
        found = scenario(path)
        state = path.read_text(encoding="utf-8").partition("\n=>")[0]
        path.write_text(f"{state}\n=>\n{decision_text(found.view(), found.desired)}\n", encoding="utf-8")


if __name__ == "__main__":
    rewrite(Path(__file__).parent / "plan" / "scenarios")
    rewrite(Path(__file__).parent / "plan" / "missing")
