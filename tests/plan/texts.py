"""Everything that a person reads about one state: what `plan`, `verify` and `reinit` say, in a file for each state.

When words change, `python -m tests.plan.texts` writes the files again, for a person to review as a diff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bootstrap.model.desired import Desired
from bootstrap.model.memory import Memory
from bootstrap.model.node import NO_FAILOVER_NAMES, Address, Replication, Role, SlotMigration
from bootstrap.model.plan import Finding, Plan, Refusal
from bootstrap.model.slots import SlotSet
from bootstrap.model.view import ClusterView
from bootstrap.plan.assessment import Assessment
from bootstrap.plan.findings import findings
from bootstrap.plan.planner import plan
from bootstrap.plan.reinit import wiping
from bootstrap.run.report import plan_text
from bootstrap.verify import violations
from tests.builders import formed, gossip, introduce, partition, reasons_text, shape, with_line, with_node
from tests.fake_cluster import FakeCluster
from tests.plan.damage import (
    CLONED,
    DAMAGES,
    EMPTIED,
    LEFT_OVER,
    give_keys,
    healthy,
    lose_a_majority,
    wipe,
    wipe_in_place,
)
from tests.plan.places import crowded, two_of_three_on_one_machine
from tests.test_verify import BROKEN

FOLDER = Path(__file__).parent / "texts"
SHAPE = shape(3, 1)
EACH_INVARIANT = "each invariant of verify is broken alone"


@dataclass(frozen=True)
class State:
    """A view of a cluster, the shape that is declared for it, and whether its file has the words of `reinit`, too."""

    view: ClusterView
    desired: Desired = SHAPE
    reinit: bool = False


def damaged(damage: Callable[[FakeCluster], None], desired: Desired = SHAPE, *, reinit: bool = False) -> State:
    cluster = healthy()
    damage(cluster)
    return State(cluster.look(), desired, reinit)


def nothing(cluster: FakeCluster) -> None:
    """The cluster stays as it is."""


def lose_a_shard(cluster: FakeCluster) -> None:
    wipe(cluster, 1)
    wipe(cluster, 4)


def load_files(cluster: FakeCluster, *ordinals: int, slots: int = 9000) -> None:
    """Servers that know no cluster own the slots of the keys that they found in a file."""
    for ordinal in ordinals or range(6):
        node = cluster[ordinal]
        node.known, node.master, node.epoch, node.keys = {}, None, 0, 5000
        node.slots = SlotSet.of(*((slot, slot) for slot in range(ordinal % 3, slots, 3)))


def load_files_into_masters(cluster: FakeCluster) -> None:
    load_files(cluster)
    for ordinal in (3, 4, 5):
        wipe(cluster, ordinal)


def load_one_file_twice(cluster: FakeCluster) -> None:
    load_files(cluster, 0, 3)
    for ordinal in (1, 2, 4, 5):
        wipe(cluster, ordinal)


def load_a_copy_of_a_master(cluster: FakeCluster) -> None:
    """A server has no nodes.conf, and the file of a master."""
    node = wipe(cluster, 3)
    node.slots, node.keys = cluster[0].slots, 6000


def load_files_on_many() -> State:
    """Of ten servers each two loaded the same file."""
    cluster = FakeCluster(10)
    for node in cluster.nodes:
        node.slots = SlotSet.of((node.ordinal % 5 * 100, node.ordinal % 5 * 100 + 99))
        node.keys = 100
    return State(cluster.look(), shape(5, 1))


def load_one_file_twice_and_another_once(cluster: FakeCluster) -> None:
    """The third server has slots that nobody else owns: it is no reason."""
    for ordinal, first in ((0, 0), (1, 500), (3, 0)):
        node = wipe(cluster, ordinal)
        node.slots, node.keys = SlotSet.of((first, first + 99)), 100
    for ordinal in (2, 4, 5):
        wipe(cluster, ordinal)


def lose_two_masters_with_two_replicas() -> State:
    """Of one of them, both replicas copied an empty server; of the other one, one has kept its copy."""
    state = wipe_a_master_in_place_with_two_replicas(1, 2)
    return replace(state, view=with_node(state.view, 5, keys=7, replication=_DOWN))


_DOWN = Replication(role=Role.REPLICA, link_up=False, down_s=1)


def wipe_a_master_in_place_with_two_replicas(*masters: int) -> State:
    """Both replicas copied the empty server that answers at their master's address."""
    cluster = formed(shape(3, 2))
    for node in cluster.nodes:
        node.keys = 7
    wipe_in_place(cluster, *masters)
    return State(cluster.look(), shape(3, 2))


def hold_a_key_of_an_imported_slot(cluster: FakeCluster) -> None:
    """A master without slots was about to get two of them when it lost contact with the run that moved them."""
    importer = wipe(cluster, 4)
    introduce(cluster.nodes)
    for slot in (93, 94, 7000):
        give_keys(importer, slot, 2)
        give_keys(cluster[slot // 6000], slot, 1)
        importer.importing[slot] = cluster[slot // 6000].node_id
    gossip(cluster)


def hold_a_key_of_an_imported_slot_of_nobody(cluster: FakeCluster) -> None:
    hold_a_key_of_an_imported_slot(cluster)
    cluster[4].importing = {93: "e" * 40}
    cluster[0].slots -= SlotSet.of((93, 93))
    gossip(cluster)


def move_slots_to_a_lost_master(replica_keys: int, moving: int) -> State:
    """A fourth master was about to get its first slots, and is lost."""
    cluster = formed(shape(4, 1))
    for node in cluster.nodes:
        node.keys = 9
    share = cluster[3].slots
    cluster[0].slots, cluster[3].slots = cluster[0].slots | share, SlotSet()
    first = share.ranges[0][0]
    cluster[0].migrating = dict.fromkeys(range(first, first + moving), cluster[3].node_id)
    cluster[7].keys = replica_keys
    gossip(cluster)
    wipe(cluster, 3)
    return State(cluster.look(), shape(4, 1))


def miss_pods(cluster: FakeCluster, *ordinals: int) -> None:
    """They do not answer, and nobody has a link to them."""
    for ordinal in ordinals:
        cluster[ordinal].alive = False
        for node in cluster.nodes:
            if known := node.known.get(cluster[ordinal].node_id):
                known.connected = False


def miss_one(cluster: FakeCluster) -> None:
    miss_pods(cluster, 4)


def miss_a_master(cluster: FakeCluster) -> None:
    miss_pods(cluster, 1)


def miss_four(cluster: FakeCluster) -> None:
    miss_pods(cluster, 1, 2, 4, 5)


def miss_three_masters(cluster: FakeCluster) -> None:
    miss_pods(cluster, 0, 1, 2)


def interrupt_forming(cluster: FakeCluster) -> None:
    """No node holds a key, and two nodes have not met."""
    for node in cluster.nodes:
        node.keys = 0
    partition(cluster[0], cluster[1])


def hold_no_key(cluster: FakeCluster) -> None:
    """Its shard has got none yet."""
    cluster[1].keys = cluster[4].keys = 0


def hold_keys_without_slots(cluster: FakeCluster) -> None:
    """They are keys of a slot that another node owns."""
    cluster[2].slots = SlotSet()
    cluster[1].slots |= SlotSet.of((10923, 16383))
    gossip(cluster)


def own_no_slots(cluster: FakeCluster) -> None:
    """Every master was emptied with FLUSHALL and CLUSTER RESET, and two replicas were not."""
    for ordinal in (0, 1, 2, 5):
        wipe(cluster, ordinal)


def follow_nobody_with_keys(cluster: FakeCluster) -> None:
    """The replica's master is gone, and another node owns its slots."""
    wipe(cluster, 1)
    cluster[0].slots |= SlotSet.of((5461, 10922))
    gossip(cluster)


def hold_keys_outside(cluster: FakeCluster) -> None:
    wipe(cluster, 4).keys = 1


def refuse_writes(view: ClusterView) -> ClusterView:
    return with_node(view, 1, writes_refused="MISCONF its last save failed")


def forget_fingerprint(state: State) -> State:
    """A person has accepted what is lost."""
    return replace(state, desired=replace(state.desired, accept_loss=state.view.fingerprint()))


def states() -> dict[str, State]:
    """Every state that has a file, by the file's name."""
    found = {name: damaged(damage) for name, damage in {**DAMAGES, **EMPTIED, **CLONED, **LEFT_OVER}.items()}
    more = {
        "nothing is wrong": nothing,
        "a shard is lost": lose_a_shard,
        "every server loaded a file": load_files,
        "masters loaded files": load_files_into_masters,
        "two servers loaded the same file": load_one_file_twice,
        "two servers loaded one file, and one another": load_one_file_twice_and_another_once,
        "a server loaded the file of a master": load_a_copy_of_a_master,
        "a master without slots imports some": hold_a_key_of_an_imported_slot,
        "a master without slots imports some of nobody": hold_a_key_of_an_imported_slot_of_nobody,
        "a replica does not answer": miss_one,
        "a master does not answer": miss_a_master,
        "four pods do not answer": miss_four,
        "only replicas hold keys": own_no_slots,
        "a replica's master owns no slot": follow_nobody_with_keys,
        "a pod outside holds keys": hold_keys_outside,
    }
    more |= {
        "three masters do not answer": miss_three_masters,
        "a forming was interrupted": interrupt_forming,
        "a master holds no key": hold_no_key,
        "a master holds the keys of no slot": hold_keys_without_slots,
    }
    found |= {name: damaged(damage, reinit=True) for name, damage in more.items()}
    found["fewer shards are declared"] = damaged(nothing, shape(2, 2))
    found["more replicas are declared"] = damaged(nothing, shape(3, 2))
    found["no replicas are declared"] = damaged(nothing, shape(3, 0))
    found["no replicas are declared, and two masters lost their disks"] = damaged(lose_a_majority, shape(3, 0))
    found["each two of ten servers loaded the same file"] = load_files_on_many()
    found["a master with two replicas came back empty"] = wipe_a_master_in_place_with_two_replicas(1)
    for keys, moving in ((1, 1), (2, 3), (2, 4), (0, 2)):
        name = f"a master is lost that was getting {moving} slots, its replica has {keys} keys"
        found[name] = move_slots_to_a_lost_master(keys, moving)
    found["two masters came back empty, and one replica kept its copy"] = lose_two_masters_with_two_replicas()
    found["a blank pod lacks the functions and users of the others"] = new_node_without_functions()
    found["more pods are blank than the shape takes"] = too_many_blank()
    found |= resizes() | settings() | placements() | migrations()
    found["a master refuses writes"] = State(refuse_writes(healthy().look()))
    found["a shard is lost, and that is accepted"] = forget_fingerprint(found["a shard is lost"])
    return found


def resizes() -> dict[str, State]:
    """Another number of pods, with another number of shards or replicas."""
    found = {}
    for name, (pods, desired) in {
        "two pods are added for a fourth shard": ((3, 1, 2), shape(4, 1)),
        "three pods are added for second replicas": ((3, 1, 3), shape(3, 2)),
        "the fourth shard is to be removed": ((4, 1, 0), shape(3, 1)),
        "second replicas are to be removed": ((3, 2, 0), shape(3, 1)),
        "pods are added that are not declared": ((3, 1, 2), shape(3, 1)),
        "more shards are declared on the pods of replicas": ((3, 1, 0), shape(6, 0)),
    }.items():
        shards, replicas, added = pods
        cluster = formed(shape(shards, replicas))
        for node in cluster.nodes:
            node.keys, node.offset = 5, 100
        cluster.nodes += [cluster._blank(len(cluster.nodes) + number) for number in range(added)]
        found[name] = State(cluster.look(), desired)
    left = formed(shape(4, 1))
    left[0].slots, left[3].slots = left[0].slots | left[3].slots, SlotSet()
    gossip(left)
    found["a removed shard has no slots any more"] = State(left.look(), shape(3, 1))
    return found


def settings() -> dict[str, State]:
    """Settings, epochs and addresses that are not as they are declared."""
    declared = replace(SHAPE, config={"cluster-require-full-coverage": "no", "cluster-allow-reads-when-down": "no"})
    view = healthy().look()
    for ordinal in range(6):
        full, reads = ("yes" if ordinal == 1 else "no"), ("yes" if ordinal == 4 else "no")
        config = {"cluster-require-full-coverage": full, "cluster-allow-reads-when-down": reads, "cluster-port": "0"}
        view = with_node(view, ordinal, config=config)
    differing = with_node(view, 2, config={**view.nodes[2].config, "cluster-port": "16380"})
    silent = with_node(with_node(with_node(view, 3, config={}), 5, config={}), 5, timeout_ms=None)
    left = {NO_FAILOVER_NAMES[0]: "yes"}
    elsewhere = with_line(healthy().look(), 3, 3, address=Address("10.0.0.99", 6379))
    return {
        "declared settings differ": State(view, declared),
        "settings that are not declared differ": State(differing, SHAPE),
        "settings are not reported": State(silent, declared),
        "a timeout has drifted": State(with_node(view, 2, timeout_ms=15000), SHAPE),
        "a killed run left temporary settings": State(with_node(view, 2, timeout_ms=500, config=left), SHAPE),
        "a node announces another address": State(elsewhere, SHAPE),
        "two masters have the same epoch": State(with_line(healthy().look(), 0, 0, config_epoch=2), SHAPE),
    }


def placements() -> dict[str, State]:
    """Masters and replicas that run in the wrong places."""
    crowd = two_of_three_on_one_machine()
    close = crowded(formed(shape(3, 2)), *["a/n1", "b/n2", "c/n3", "a/n1", "b/n2", "b/n2", "c/n3", "c/n3", "a/n1"])
    pair = crowded(formed(shape()), "a/n1", "b/n2", "c/n3", "a/n1", "b/n2", "b/n4")
    lag = two_of_three_on_one_machine()
    lag[1].offset = lag[3].offset = 100 << 20
    lag[4].offset = 90 << 20
    exchange = {mode: replace(SHAPE, replace_replicas=mode) for mode in ("on", "with-a-gap")}
    return {
        "two of three masters run on one machine": State(crowd.look(), SHAPE),
        "a replica lags too far behind to take over": State(lag.look(), SHAPE),
        "replicas run beside their masters": State(close.look(), shape(3, 2)),
        "replicas beside their masters are to be replaced": State(
            close.look(), replace(shape(3, 2), replace_replicas="on")
        ),
        "the only replicas beside their masters are to be replaced": State(pair.look(), exchange["on"]),
        "the only replicas beside their masters are replaced with a gap": State(pair.look(), exchange["with-a-gap"]),
    }


def migrations() -> dict[str, State]:
    """Moves of slots that servers do by themselves, and moves that do not fit."""
    view = healthy().look()
    one, two = view.nodes[0].node_id, view.nodes[1].node_id
    running = SlotMigration(
        task_id="abc",
        slots=SlotSet.of((0, 9)),
        source=one,
        target=two,
        importing=True,
        state="started",
        retries=True,
    )
    full = formed(shape(3, 1)).look()
    for ordinal in range(3):
        memory = Memory(used_bytes=90 << 20, dataset_bytes=80 << 20, max_bytes=100 << 20)
        full = with_node(full, ordinal, memory=memory, keys=10)
    heavy = replace(SHAPE, weights={"redis-app-1": 4.0})
    return {
        "servers move slots": State(with_node(view, 1, migrations=(running,)), SHAPE),
        "a migration has failed": State(with_node(view, 1, migrations=(replace(running, state="failed"),)), SHAPE),
        "a weight asks for more than fits": State(full, heavy),
    }


def new_node_without_functions() -> State:
    cluster = healthy()
    wipe(cluster, 4)
    view = cluster.look()
    for ordinal in (0, 1, 2, 3, 5):
        view = with_node(view, ordinal, libraries=frozenset({"geo"}), users=frozenset({"app"}))
    return State(view)


def too_many_blank() -> State:
    return State(FakeCluster(8).look().within(6), SHAPE)


def text(state: State) -> str:
    """What each verb says."""
    return "\n\n".join(f"{verb}\n{said}" for verb, said in _said(state)) + "\n"


def _said(state: State) -> Iterator[tuple[str, str]]:
    view, desired = state.view, state.desired
    decision = plan(view, desired)
    if isinstance(decision, Refusal):
        found = findings(Assessment(view.within(desired.nodes), desired))
        yield "# found", _found(found)
    yield "# plan", _decided(decision, view)
    yield "# verify", reasons_text("", violations(view, desired)) or "good"
    if not state.reinit:
        return
    for name, confirm in (("", ""), (" of another cluster", "0" * 12), (" of this cluster", view.fingerprint())):
        title = f"# reinit{f' with the fingerprint{name}' if name else ''}"
        yield title, _decided(wiping(view, desired, confirm), view)


def _decided(decision: Plan | Refusal, view: ClusterView) -> str:
    """The reasons with their remedies, or the findings with their codes and the phases."""
    if isinstance(decision, Refusal):
        return reasons_text("refused: ", decision.reasons)
    phases = (line for line in plan_text(decision, view).splitlines() if not line.startswith("found: "))
    return "\n".join([_found(decision.findings) or "nothing found", *phases])


def _found(found: Iterable[Finding]) -> str:
    return "\n".join(f"{each.code}{f' on {each.node}' if each.node else ''}: {each.message}" for each in found)


def texts() -> dict[str, Callable[[], str]]:
    """What each file has to contain, by its name."""
    return {name: partial(text, state) for name, state in states().items()} | {EACH_INVARIANT: broken_invariants}


def broken_invariants() -> str:
    """What `verify` says where one invariant is broken, one after the other."""
    view = formed(SHAPE).look()
    return "\n".join(reasons_text(f"{name}: ", violations(BROKEN[name][0](view), SHAPE)) for name in BROKEN) + "\n"


def path_of(name: str) -> Path:
    return FOLDER / f"{name.replace(',', '').replace(' ', '_')}.txt"


if __name__ == "__main__":
    for each, said in texts().items():
        path_of(each).write_text(said(), encoding="utf-8")
