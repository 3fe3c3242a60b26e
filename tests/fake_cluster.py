"""A cluster in memory that follows the servers' rules and gossips as slowly as a test wants.

Not a mock: it accepts and rejects the same commands as a server, nodes learn only what a packet brings them, packets
get lost, a MEET may reach one side only, a master waits for its rejoin delay, and a replica's copy takes time. Time
passes only in `sleep`, in ticks of 0.1 s, as in the servers' own cron. It is `World` and `Clock` in one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from bootstrap.model import left_over
from bootstrap.model.links import LinkTrouble
from bootstrap.model.node import Address, Endpoint, Member, Node, NodeId, Place, Replication, Role
from bootstrap.model.slots import ALL_SLOTS, SlotSet
from bootstrap.model.steps import (
    AddSlots,
    Announce,
    BumpEpoch,
    CancelMigration,
    CloseSlot,
    EndPause,
    Failover,
    Forget,
    Leave,
    ManualFailover,
    Meet,
    MoveKeys,
    MoveSlots,
    Provision,
    Reattach,
    Rejected,
    Replicate,
    Retire,
    SetConfig,
    SetEpoch,
    SetSlotOwner,
    SetSlotState,
    SetTimeout,
    TakeSlot,
    Wipe,
    Write,
)
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.nodes import copies

TICK_S = 0.1
REJOIN_DELAY_MAX_MS = 5000
NO_FAILOVER = "cluster-replica-no-failover"


@dataclass
class Known:
    """What one node knows about another."""

    address: Address
    slots: SlotSet = field(default_factory=SlotSet)
    master: NodeId | None = None
    replica: bool = False
    """A replica whose master the node does not know, so that it reports none."""
    epoch: int = 0
    connected: bool = False
    flags: frozenset[str] = frozenset()
    """Further flags, such as `noaddr`."""


@dataclass
class FakeNode:
    """One server: its own facts, and what it knows about others."""

    pod: str
    ordinal: int
    address: Address
    node_id: NodeId
    slots: SlotSet = field(default_factory=SlotSet)
    master: NodeId | None = None
    epoch: int = 0
    keys: int = 0
    timeout_ms: int = 5000
    serving: bool = False
    link_up: bool = True
    copy_ticks: int = 0
    lost_ticks: int = 0
    """For how long its master has been lost."""
    restarted: bool = False
    """It has had no link since it was started: it does not know how old its copy is, and starts no election."""
    minority_at: float = 0.0
    alive: bool = True
    known: dict[NodeId, Known] = field(default_factory=dict)
    banned: dict[NodeId, float] = field(default_factory=dict)
    """Forgotten ids, and when: gossip does not restore them for 60 s."""
    offset: int = 0
    source: Address | None = None
    """Where it copies from, where another server than its master answers at the address of that."""
    hangs: bool = False
    """Its link to its master stays down until it gets a Reattach."""
    config: dict[str, str] = field(default_factory=lambda: {NO_FAILOVER: "no"})
    in_slot: dict[int, int] = field(default_factory=dict)
    """Keys in slots of interest; they are counted in `keys` as well."""
    dead: dict[int, int] = field(default_factory=dict)
    """Of these the ones that no client could see here and that the owner of the slot does not have: deleted since."""
    stale: dict[int, int] = field(default_factory=dict)
    """Of these the ones that no client could see here and that the owner of the slot has as well."""
    migrating: dict[int, NodeId] = field(default_factory=dict)
    importing: dict[int, NodeId] = field(default_factory=dict)
    libraries: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    handshakes: dict[Address, float] = field(default_factory=dict)

    def follow(self, master: NodeId, *, copy_ticks: int = 2) -> None:
        """Becomes a replica, which copies its master soon. A replica moves no slots: it closes its open ones."""
        self.master, self.link_up, self.copy_ticks, self.source = master, False, copy_ticks, None
        self.migrating, self.importing = {}, {}


class Killed(BaseException):
    """The run was killed at this write; not an Exception, so that no handler on the way catches it."""


class FakeCluster:
    """Nodes and the packets between them. `loss` is the share of packets that never arrive."""

    def __init__(self, nodes: int, *, seed: int = 0, loss: float = 0.0, timeout_ms: int = 5000) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.time = 100.0
        self.nodes = [self._blank(ordinal, timeout_ms) for ordinal in range(nodes)]
        self.written: list[Write] = []
        self.rejected: list[Rejected] = []
        self.lowest_timeout_ms = timeout_ms
        self.kill_at: int | None = None
        """Number of the write at which the run is killed; None for never."""
        self.kill_before = True
        self.outside: list[FakeNode] = []
        """Servers that the Service does not list."""
        self.places: dict[str, Place] = {}
        """Where pods run, by pod."""
        self.rollout = ""
        self.disks: dict[NodeId, int] = {}
        """Keys in the snapshots of nodes that have left with one."""

    def _blank(self, ordinal: int, timeout_ms: int = 5000) -> FakeNode:
        return FakeNode(
            pod=f"redis-app-{ordinal}",
            ordinal=ordinal,
            address=Address(f"10.0.0.{ordinal + 1}", 6379),
            node_id=f"{ordinal:02x}" + f"{self.random.getrandbits(152):038x}",
            timeout_ms=timeout_ms,
        )

    def __getitem__(self, ordinal: int) -> FakeNode:
        return self.nodes[ordinal]

    # Clock

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        """At least one tick: time passes for a caller with a shorter sleep, too."""
        for _ in range(max(1, round(seconds / TICK_S))):
            self.time += TICK_S
            self._tick()

    def check(self) -> None:
        """No signal stops a run of the tests."""

    # World

    def look(self) -> ClusterView:
        ids = Counter(node.node_id for node in self.nodes if node.alive)
        alive = [node for node in self.nodes if node.alive and ids[node.node_id] == 1]
        view = ClusterView(nodes=tuple(self._facts(node) for node in alive))
        copied = copies.among_pods(self._facts(node) for node in self.nodes if node.alive)
        outside = {node.address: self._facts(node) for node in self.outside}
        slots = view.slots_to_count()
        counted = tuple(
            replace(n, keys_in=self._keys_in(n, slots), left_over=self._keys_in(n, n.slots.complement()))
            for n in view.nodes
        )
        return ClusterView(
            nodes=counted,
            apart=self._apart(replace(view, nodes=counted)),
            unreachable=tuple(
                UnreachablePeer(
                    pod=n.pod,
                    ordinal=n.ordinal,
                    why=UnreachableReason.AMBIGUOUS if n.alive else UnreachableReason.CONNECTION_REFUSED,
                    address=n.address,
                )
                for n in self.nodes
                if n not in alive
            ),
            copies=(*copied, *copies.elsewhere(copies.former_places(view), outside)),
            places=self.places,
            rollout=self.rollout,
        )

    def _keys_in(self, node: Node, slots: SlotSet) -> dict[int, int]:
        return {slot: keys for slot, keys in self[node.ordinal].in_slot.items() if keys and slot in slots}

    def _apart(self, view: ClusterView) -> SlotSet:
        pairs = left_over.half_open(view).items()
        return SlotSet.of(*((slot, slot) for slot, (_, other) in pairs if not self[other.ordinal].stale.get(slot)))

    def refresh(self) -> ClusterView:
        """Like the real one, it counts the keys of open slots alone."""
        view = self.look()
        open_slots = view.open_slots()
        return replace(
            view,
            nodes=tuple(
                replace(n, left_over=None, keys_in={s: keys for s, keys in n.keys_in.items() if s in open_slots})
                for n in view.nodes
            ),
        )

    def check_endpoints(self, endpoints: Sequence[Address]) -> list[str]:
        return ["" for _ in endpoints]

    def client_endpoints(self, view: ClusterView) -> Mapping[Address, frozenset[Endpoint]]:
        return {}

    def send(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        rejected = []
        for write in writes:
            if self.kill_at == len(self.written) and self.kill_before:
                raise Killed
            if why := self._take(write):
                rejected.append(Rejected(write, why, answered=True))
            self.written.append(write)
            if self.kill_at == len(self.written) - 1:
                raise Killed
        self.rejected += rejected
        return rejected

    def link_troubles(
        self, view: ClusterView, replicas: AbstractSet[NodeId], broken_off: AbstractSet[NodeId]
    ) -> dict[NodeId, LinkTrouble]:
        """Nothing to see: a link that hangs here comes up once the replica is reconnected."""
        return {}

    def denied_writes(self, writes: Iterable[Write], view: ClusterView) -> list[Rejected]:
        return []

    def move(self, moves: Sequence[MoveSlots], view: ClusterView) -> FakeTransfer:
        return FakeTransfer(self, moves)

    # The servers' rules

    def _take(self, write: Write) -> str:
        by_id = {node.node_id: node for node in self.nodes}
        match write:
            case SetTimeout():
                by_id[write.node].timeout_ms = write.timeout_ms
                self.lowest_timeout_ms = min(self.lowest_timeout_ms, write.timeout_ms)
            case SetEpoch():
                node = by_id[write.node]
                if node.known or node.handshakes:
                    return "ERR The user can assign a config epoch only when the node does not know any other node."
                if node.epoch:
                    return "ERR Node config epoch is already non-zero"
                node.epoch = write.epoch
            case BumpEpoch():
                node = by_id[write.node]
                node.epoch = 1 + max([*(each.epoch for each in self.nodes), *(k.epoch for k in node.known.values())])
            case Meet():
                # A packet carries the sender's id and address, so an old entry is rebound.
                by_id[write.introducer].handshakes[write.address] = self.time
            case Announce():
                for address, _ in write.others:
                    by_id[write.node].handshakes[address] = self.time
            case Forget():
                return self._forget(by_id[write.node], write.lost)
            case Failover():
                return self._fail_over(by_id[write.candidate], takeover=write.takeover)
            case AddSlots():
                return self._add_slots(by_id[write.node], write.slots)
            case Replicate():
                return self._replicate(by_id[write.replica], write.master)
            case Reattach():
                node = by_id[write.replica]
                node.hangs, node.copy_ticks = False, 1
            case SetConfig():
                by_id[write.node].config[write.name] = write.value
            case Wipe():
                return self._wipe(by_id[write.node], flush=write.flush)
            case SetSlotState() | SetSlotOwner() | MoveKeys() | TakeSlot() | CloseSlot():
                return self._move_slot(write, by_id)
            case ManualFailover():
                return self._manual_failover(by_id[write.candidate])
            case Leave():
                return self._leave(by_id[write.node])
            case Retire():
                self.disks[write.node] = by_id[write.node].keys
                return self._leave(by_id[write.node])
            case Provision():
                node = by_id[write.node]
                node.libraries |= set(write.libraries)
                node.users |= set(write.users)
            case EndPause():
                pass  # no clients are paused here
            case CancelMigration():
                pass  # nothing migrates by itself here
            case MoveSlots():
                raise TypeError("slots move in pieces: see `move`")
        return ""

    def _leave(self, node: FakeNode) -> str:
        if node.keys and node.master is None:
            return "ERR CLUSTER RESET can't be called with master nodes containing keys"
        fresh = self._blank(node.ordinal, node.timeout_ms)
        fresh.address = node.address
        self.nodes[self.nodes.index(node)] = fresh
        return ""

    def _manual_failover(self, candidate: FakeNode) -> str:
        master = next((node for node in self.nodes if node.node_id == candidate.master and node.alive), None)
        if master is None or not candidate.link_up or master.node_id not in candidate.known:
            return "ERR Master is down or failed, please use CLUSTER FAILOVER FORCE"
        self._promote(candidate)
        self._copy(master, candidate)
        for node in (master, *(each for each in self.nodes if each.master == master.node_id)):
            node.follow(candidate.node_id)
        master.slots = SlotSet()
        return ""

    def _copy(self, master: FakeNode, replica: FakeNode) -> None:
        replica.keys, replica.in_slot = master.keys, dict(master.in_slot)
        replica.dead, replica.stale = dict(master.dead), dict(master.stale)

    def _wipe(self, node: FakeNode, *, flush: bool) -> str:
        if node.keys and node.master is None and not flush:
            return "ERR CLUSTER RESET can't be called with master nodes containing keys"
        if flush and node.master:
            return "READONLY You can't write against a read only replica."
        fresh = self._blank(node.ordinal, node.timeout_ms)
        fresh.address = node.address
        self.nodes[self.nodes.index(node)] = fresh
        return ""

    def _move_slot(
        self, write: SetSlotState | SetSlotOwner | MoveKeys | TakeSlot | CloseSlot, by_id: dict[NodeId, FakeNode]
    ) -> str:
        match write:
            case SetSlotState():
                node = by_id[write.node]
                if write.importing == (write.slot in node.slots):
                    return f"ERR I'm {'already' if write.importing else 'not'} the owner of hash slot {write.slot}"
                (node.importing if write.importing else node.migrating)[write.slot] = write.other
            case SetSlotOwner():
                node = by_id[write.node]
                node.slots = node.slots | write.slots if write.node == write.owner else node.slots - write.slots
                if write.node == write.owner:
                    node.importing = {slot: each for slot, each in node.importing.items() if slot not in write.slots}
                for known_id, known in node.known.items():
                    known.slots = known.slots | write.slots if known_id == write.owner else known.slots - write.slots
            case MoveKeys():
                source, target = by_id[write.source], by_id[write.target]
                if write.slot not in target.slots and write.slot not in target.importing:
                    return "ERR Target instance replied with error: MOVED"
                if not target.serving:
                    return "ERR Target instance replied with error: CLUSTERDOWN"
                moved = min(3, source.in_slot.get(write.slot, 0))  # a moment is too short for more
                for node, change in ((source, -moved), (target, moved)):
                    node.keys += change
                    node.in_slot[write.slot] = node.in_slot.get(write.slot, 0) + change
            case TakeSlot():
                node = by_id[write.node]
                node.slots |= SlotSet.of((write.slot, write.slot))
                node.importing.pop(write.slot, None)
                node.epoch = 1 + max(each.epoch for each in self.nodes)
            case CloseSlot():
                node = by_id[write.node]
                if not (write.reopen_from and node.in_slot.get(write.slot)):
                    node.importing.pop(write.slot, None)
                node.migrating.pop(write.slot, None)
        return ""

    def _add_slots(self, node: FakeNode, slots: SlotSet) -> str:
        owned = SlotSet.union_of([node.slots, *(known.slots for known in node.known.values())])
        if busy := owned & slots:
            return f"ERR Slot {busy.ranges[0][0]} is already busy"
        node.slots |= slots
        return ""

    def _replicate(self, node: FakeNode, master: NodeId) -> str:
        if master not in node.known:
            return f"ERR Unknown node {master}"
        if node.known[master].master:
            return "ERR I can only replicate a master, not a replica."
        if node.master is None and (node.slots or node.keys):
            return "ERR To set a master the node must be empty and without assigned slots."
        node.follow(master, copy_ticks=self.random.randint(1, 8))
        return ""

    def _forget(self, node: FakeNode, lost: NodeId) -> str:
        if lost not in node.known:
            return f"ERR Unknown node {lost}"
        if node.master == lost:
            return "ERR Can't forget my master!"
        del node.known[lost]
        node.banned[lost] = self.time
        return ""

    def _fail_over(self, node: FakeNode, *, takeover: bool) -> str:
        if node.master is None:
            return "ERR You should send CLUSTER FAILOVER to a replica"
        if takeover or self._votes(node):
            self._promote(node)
        return ""

    def _votes(self, candidate: FakeNode) -> bool:
        """A majority of all masters that own slots, the lost ones included, is alive, and knows the candidate and the
        master that it is to replace.
        """
        masters = {node_id for node_id, known in candidate.known.items() if known.slots}
        voters = [
            n
            for n in self.nodes
            if n.alive and n.node_id in masters and candidate.node_id in n.known and candidate.master in n.known
            if n.known[candidate.master].epoch <= candidate.known[candidate.master].epoch
        ]
        return len(voters) >= len(masters) // 2 + 1

    def _promote(self, node: FakeNode) -> None:
        old = node.known[node.master or ""]
        node.master, node.link_up, node.restarted, node.source = None, True, False, None
        node.slots |= old.slots
        node.epoch = 1 + max([each.epoch for each in self.nodes])
        old.slots = SlotSet()

    # Time

    def _tick(self) -> None:
        for node in self.nodes:
            if node.alive:
                self._shake_hands(node)
        for sender in self.random.sample(self.nodes, len(self.nodes)):
            for receiver in self.nodes:
                if sender.alive and receiver.alive and receiver.node_id in sender.known and self._arrives():
                    self._packet(sender, receiver)
        for node in self.nodes:
            if node.alive:
                self._cron(node)

    def _arrives(self) -> bool:
        return self.random.random() >= self.loss

    def _shake_hands(self, node: FakeNode) -> None:
        for address, since in list(node.handshakes.items()):
            peer = next((other for other in self.nodes if other.alive and other.address == address), None)
            if self.time - since > max(node.timeout_ms / 1000, 1.0):
                del node.handshakes[address]
            elif peer is not None and peer is not node and self._arrives():
                del node.handshakes[address]
                known = peer.node_id in node.known
                node.known.setdefault(peer.node_id, Known(address)).address = address
                if known:  # a MEET between nodes that know each other is a packet like any other
                    self._packet(node, peer)
                if self._arrives():  # else the introducer knows the newcomer, and not the other way round
                    peer.known.setdefault(node.node_id, Known(node.address)).address = node.address

    def _packet(self, sender: FakeNode, receiver: FakeNode) -> None:
        """The header has the sender's own facts; the gossip section has two other nodes that it knows. Nothing arrives
        at an address that the receiver no longer has.
        """
        link = sender.known[receiver.node_id]
        link.connected = link.address == receiver.address
        known_sender = receiver.known.get(sender.node_id)
        if known_sender is None or not link.connected:
            return
        imported = SlotSet.of(*((slot, slot) for slot in receiver.importing))  # the receiver ignores gossip about these
        known_sender.address, known_sender.epoch = sender.address, max(sender.epoch, known_sender.epoch)
        known_sender.replica = sender.master is not None
        if sender.master in (None, receiver.node_id) or sender.master in receiver.known:
            known_sender.master = sender.master
        known_sender.slots = sender.slots - (imported - known_sender.slots)
        if (
            sender.epoch == receiver.epoch
            and not (sender.master or receiver.master)
            and sender.node_id > receiver.node_id
        ):
            receiver.epoch = 1 + max(node.epoch for node in self.nodes)
        claimed = sender.slots - imported
        for known_id, known in receiver.known.items():
            if known_id != sender.node_id and known.epoch < sender.epoch:  # the higher epoch wins the slot
                if known_id == receiver.master and known.slots and known.slots == claimed:
                    receiver.follow(sender.node_id)
                known.slots -= claimed
        if receiver.epoch < sender.epoch and not sender.master:
            self._lose_to(sender, receiver)
        for node_id in self.random.sample(sorted(sender.known), min(2, len(sender.known))):
            if receiver.banned.get(node_id, -60.0) + 60.0 > self.time:
                continue
            if node_id != receiver.node_id and node_id not in receiver.known:
                receiver.handshakes.setdefault(sender.known[node_id].address, self.time)

    def _lose_to(self, sender: FakeNode, receiver: FakeNode) -> None:
        """A master whose slots another node has taken over follows that node, where these are all that it owns."""
        lost = receiver.slots & sender.slots
        self._lose(receiver, lost)
        if lost and not receiver.slots and lost == sender.slots:
            receiver.follow(sender.node_id)

    def _lose(self, node: FakeNode, slots: SlotSet) -> None:
        """A node that learns of a newer owner gives its slots up, and deletes the keys that it still has of them."""
        node.slots -= slots
        for slot in slots & SlotSet.of(*((slot, slot) for slot in node.in_slot)):
            node.keys -= node.in_slot.pop(slot)

    def _cron(self, node: FakeNode) -> None:
        alive = {each.node_id for each in self.nodes if each.alive}
        for known_id, known in node.known.items():
            known.connected = known.connected and known_id in alive
        known_master = node.known.get(node.master or "")
        connected = node.master in alive and known_master is not None and known_master.connected
        if connected and not (node.link_up or node.copy_ticks or node.hangs):
            node.copy_ticks = self.random.randint(1, 8)  # its master's new address has become known
        master = node.known.get(node.master or "")
        if master is not None and node.master not in alive and node.source is None:
            node.link_up, node.lost_ticks = False, node.lost_ticks + 1
            overdue = node.lost_ticks * TICK_S > node.timeout_ms / 1000 + 1
            fails_over = node.config.get(NO_FAILOVER) != "yes" and not node.restarted
            if master.slots and overdue and fails_over and self._votes(node):
                self._promote(node)
        if node.copy_ticks:
            node.copy_ticks -= 1
            node.link_up = node.copy_ticks == 0
        if node.link_up:
            node.lost_ticks, node.restarted = 0, False
        copied = next((each for each in self.nodes if each.node_id == node.master), None)
        if copied is not None and node.link_up and master is not None:
            self._copy(copied, node)
        covered = SlotSet.union_of([node.slots, *(known.slots for known in node.known.values())]) == ALL_SLOTS
        owners = [known for known in node.known.values() if known.slots]
        size = len(owners) + bool(node.slots)
        reachable = sum(1 for known in owners if known.connected) + bool(node.slots)
        if reachable < size // 2 + 1:
            node.minority_at = self.time
        quorum = reachable >= size // 2 + 1
        delay_s = max(500, min(node.timeout_ms, REJOIN_DELAY_MAX_MS)) / 1000
        waited = node.master is not None or self.time - node.minority_at >= delay_s
        node.serving = covered and quorum and (node.serving or waited)

    # Observation

    def _facts(self, node: FakeNode) -> Node:
        by_id = {other.node_id: other for other in self.nodes}
        myself = Member(
            node_id=node.node_id,
            address=node.address,
            bus_port=node.address.port + 10000,
            flags=frozenset({"myself", "slave" if node.master else "master"}),
            master_id=node.master,
            config_epoch=node.epoch,
            connected=True,
            slots=node.slots,
            migrating=tuple(node.migrating.items()),
            importing=tuple(node.importing.items()),
        )
        handshakes = (self._handshake(address) for address in node.handshakes)
        master = by_id.get(node.master) if node.master else None
        followers = [other for other in self.nodes if other.master == node.node_id and other.link_up]
        return Node(
            pod=node.pod,
            ordinal=node.ordinal,
            address=node.address,
            members=(myself, *(_member(node_id, known) for node_id, known in node.known.items()), *handshakes),
            serving=node.serving,
            current_epoch=max([node.epoch, *(known.epoch for known in node.known.values())]),
            replication=Replication(
                role=Role.REPLICA if node.master else Role.MASTER,
                link_up=node.link_up,
                syncing=not node.link_up and node.copy_ticks > 0,
                master=node.source or (master.address if master else None),
                down_s=0 if node.restarted else round(node.lost_ticks * TICK_S),
                offset=node.offset,
                online_replicas=tuple(sorted(other.address for other in followers)),
            ),
            keys=node.keys,
            timeout_ms=node.timeout_ms,
            version="fake 1.0",
            run_id=f"{node.pod} at {node.address}",
            config=dict(node.config),
            databases=(0,) if node.keys else (),
            libraries=frozenset(node.libraries),
            users=frozenset(node.users),
        )

    def _handshake(self, address: Address) -> Member:
        """The id of a handshake is random and differs at each look, so a step that uses it fails a test."""
        return Member(
            node_id=f"{self.random.getrandbits(160):040x}",
            address=address,
            bus_port=address.port + 10000,
            flags=frozenset({"handshake"}),
            master_id=None,
            config_epoch=0,
            connected=False,
        )


class FakeTransfer:
    """Moves slots, a few at a time and by the servers' own protocol, so that a kill leaves open slots."""

    SLOTS_AT_ONCE = 2
    """Slots with keys per advance; slots without keys move immediately."""

    def __init__(self, cluster: FakeCluster, moves: Sequence[MoveSlots]) -> None:
        self._cluster = cluster
        self._left = {move: move.slots for move in moves}
        self.rejected: list[Rejected] = []

    @property
    def done(self) -> bool:
        return not any(self._left.values())

    @property
    def slots_done(self) -> int:
        return sum(len(move.slots) - len(left) for move, left in self._left.items())

    bytes_done = slots_done
    pause_s = 0.0

    def advance(self) -> None:
        for move, left in self._left.items():
            if left:
                self._left[move] = self._advance(move, left)
        self._cluster.sleep(TICK_S)

    def close(self) -> None:
        """Open slots stay open."""

    def _advance(self, move: MoveSlots, left: SlotSet) -> SlotSet:
        by_id = {node.node_id: node for node in self._cluster.nodes if node.alive}
        if move.source not in by_id or move.target not in by_id:
            return self._give_up(move, "no answer in time")
        source, target = by_id[move.source], by_id[move.target]
        if any(target.in_slot.get(slot) for slot in left):
            return self._give_up(move, "the target already holds keys")
        held = [slot for slot in left if source.in_slot.get(slot)][: self.SLOTS_AT_ONCE]
        for slot in held:
            if why := self._move_one(slot, source, target):
                return self._give_up(move, why)
        through = SlotSet.of(*((slot, slot) for slot in left if not source.in_slot.get(slot)))
        self._cluster.send([], self._cluster.look())
        target.slots |= through & left
        source.slots -= through
        target.epoch = 1 + max(node.epoch for node in self._cluster.nodes)
        return left - through

    def _move_one(self, slot: int, source: FakeNode, target: FakeNode) -> str:
        source_id, target_id = source.node_id, target.node_id
        self._send(SetSlotState(node=target_id, slot=slot, other=source_id, importing=True))
        self._send(SetSlotState(node=source_id, slot=slot, other=target_id, importing=False))
        while source.in_slot.get(slot):
            move = MoveKeys(source=source_id, target=target_id, slot=slot, address=target.address, databases=(0,))
            if why := self._send(move):
                return why
        self._send(TakeSlot(node=target_id, slot=slot))
        source.slots -= SlotSet.of((slot, slot))
        self._send(CloseSlot(node=source_id, slot=slot))
        return ""

    def _send(self, write: Write) -> str:
        rejected = self._cluster.send([write], ClusterView())
        return rejected[0].why if rejected else ""

    def _give_up(self, move: MoveSlots, why: str) -> SlotSet:
        self.rejected.append(Rejected(move, why, answered=True))
        return SlotSet()


def _member(node_id: NodeId, known: Known) -> Member:
    return Member(
        node_id=node_id,
        address=known.address,
        bus_port=known.address.port + 10000,
        flags=known.flags | {"slave" if known.master or known.replica else "master"},
        master_id=known.master,
        config_epoch=known.epoch,
        connected=known.connected,
        slots=known.slots,
    )
