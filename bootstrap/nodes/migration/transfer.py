"""Moving slots with their keys between nodes, while clients use them. `SlotTransfer` does all moves of a phase, several
node pairs in parallel, each by the best way that both of its nodes have.

**By the servers' own migrations** (`atomic`). Redis since 8.4 pulls: CLUSTER MIGRATION IMPORT goes to the target.
Valkey since 9.0 pushes: CLUSTER MIGRATESLOTS goes to the source. Slots and keys change their owner in one moment at the
end; until then every key stays with the source. The migration outlives the connection that started it, but not the
restart of a node. Two differences matter:

- On Redis a node takes part in one migration at a time, and `failed` is not final: the target tries again each second
  until the migration is cancelled.
- On Valkey a source has any number of migrations, which take their snapshots one after the other; `failed` is final.

**By MIGRATE** (`keys`, `route`), which every server has. A slot is opened: the target imports it, the source migrates
it. From then on the source redirects clients that name a key which it does not hold to the target, so no new key
appears at the source. When the source holds no key of the slot, the slot is assigned to the target: at the target
first, then at the source. A run that is killed in between leaves an open slot, which the next plan finishes.

By either way nothing moves to a target that already holds keys of the slot: with the slot they would become visible.
A server serves no client during a MIGRATE, so the amount in one is bounded by bytes and by the time the last one took;
a key that would block its master for longer than cluster-node-timeout stays in place and is named.

For its own migrations a server logs in to the other one as a replica does. Where that is not permitted, MIGRATE still
works, since it brings the login of this program: after such an error the rest of all moves goes that way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Protocol

from redis.connection import Connection

from bootstrap.clock import Clock, Deadline
from bootstrap.model.node import DEFAULT_TIMEOUT_MS, Address, Node, NodeId
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import MoveSlots, Rejected
from bootstrap.model.view import ClusterView
from bootstrap.nodes.connection import ask
from bootstrap.nodes.counting import held
from bootstrap.nodes.migration.atomic import AtomicMigration
from bootstrap.nodes.migration.keys import KeyMigration
from bootstrap.nodes.migration.mode import MigrationMode, detect_mode
from bootstrap.nodes.migration.route import MigrateRoute
from bootstrap.nodes.pipeline import Pipeline
from bootstrap.nodes.pool import MOMENT_S

POLL_MIN_S, POLL_MAX_S = 0.002, 0.02
"""The pause between two polls of the servers' own migrations: short at first, since one of few keys takes some
milliseconds and on Redis the next one waits for it, then longer each time."""
CLOSE_S = 5.0
"""How long a run that ends early may finish open slots; Kubernetes gives 30 s after SIGTERM."""
THREADS_MAX = 16
_NOT_PERMITTED = ("NOPERM", "NOAUTH", "no permissions")

Connect = Callable[[Address], Connection]
"""A new connection to a server, on which bytes that are not UTF-8 survive."""


class Migration(Protocol):
    """One `MoveSlots`, by either way."""

    @property
    def done(self) -> bool:
        """It has ended, with success or with an error."""
        ...

    @property
    def error(self) -> str:
        """Why it ended without success; empty otherwise."""
        ...

    @property
    def slots_done(self) -> int:
        """Slots that have arrived."""
        ...

    @property
    def bytes_done(self) -> int:
        """About how much data has arrived."""
        ...

    def advance(self, deadline: Deadline) -> None:
        """Continues, until the deadline at most."""
        ...

    def close(self, deadline: Deadline) -> None:
        """Ends it early, without half-moved slots if the deadline allows."""
        ...


class SlotTransfer:
    """All moves of a phase: advance it until it is done, then close it."""

    def __init__(
        self,
        moves: Sequence[MoveSlots],
        view: ClusterView,
        *,
        connect: Connect,
        clock: Clock,
        login: tuple[str, ...],
        redact: Callable[[str], str],
    ) -> None:
        """Nothing is sent before the first `advance`. `login`: MIGRATE's arguments to log in to the target; `redact`
        removes them from error messages, in which servers quote what they received.
        """
        self.rejected: list[Rejected] = []
        """Moves that ended without success, and why."""
        self._view, self._connect, self._clock = view, connect, clock
        self._login, self._redact = login, redact
        self._waiting = list(moves)
        self._running: dict[MoveSlots, tuple[Migration, tuple[NodeId, ...]]] = {}
        """Each with the nodes that can take part in no other migration meanwhile."""
        self._over: list[Migration] = []
        self._connections: list[Connection] = []
        self._pipelines: list[Pipeline] = []
        self._modes: dict[NodeId, MigrationMode] = {}
        self._pause_s = POLL_MIN_S
        self._workers = ThreadPoolExecutor(max_workers=THREADS_MAX, thread_name_prefix="move")

    @property
    def done(self) -> bool:
        """True when every move has arrived or was rejected."""
        return not (self._waiting or self._running)

    @property
    def slots_done(self) -> int:
        """Slots that belong to their new master."""
        return sum(migration.slots_done for migration in self._migrations())

    @property
    def bytes_done(self) -> int:
        """About how much data moved with them."""
        return sum(migration.bytes_done for migration in self._migrations())

    @property
    def pause_s(self) -> float:
        """Seconds to wait before the next `advance`: the servers' own migrations are only polled."""
        polling = any(isinstance(migration, AtomicMigration) for migration, _ in self._running.values())
        return self._pause_s if polling else 0.0

    def advance(self) -> None:
        """Starts what can start and continues what runs, for about MOMENT_S at most."""
        self._pause_s = min(POLL_MAX_S, 1.5 * self._pause_s)
        self._start_waiting()
        deadline = Deadline.after(MOMENT_S, self._clock)
        running = [migration for migration, _ in self._running.values()]
        list(self._workers.map(lambda migration: migration.advance(deadline), running))
        for move, (migration, _) in list(self._running.items()):
            if migration.done:
                self._end(move, migration)

    def close(self) -> None:
        """Ends it: migrations of the servers are cancelled, open slots finished for CLOSE_S, the rest is left to the
        next run.
        """
        deadline = Deadline.after(CLOSE_S, self._clock)
        running = [migration for migration, _ in self._running.values()]
        with suppress(Exception):
            list(self._workers.map(lambda migration: migration.close(deadline), running))
        self._workers.shutdown(wait=True, cancel_futures=True)
        for pipeline in self._pipelines:
            pipeline.close()
        for connection in self._connections:
            connection.disconnect()

    def _end(self, move: MoveSlots, migration: Migration) -> None:
        del self._running[move]
        self._over.append(migration)
        self._pause_s = POLL_MIN_S
        if isinstance(migration, AtomicMigration) and any(word in migration.error for word in _NOT_PERMITTED):
            self._modes = dict.fromkeys(self._view.by_id, MigrationMode.KEYS)
            self._waiting.append(replace(move, slots=migration.left))
        elif migration.error:
            self._reject(move, migration.error, answered=True)

    def _reject(self, move: MoveSlots, why: str, *, answered: bool) -> None:
        self.rejected.append(Rejected(move, self._redact(why), answered=answered))

    def _migrations(self) -> Iterator[Migration]:
        yield from self._over
        yield from (migration for migration, _ in self._running.values())

    def _start_waiting(self) -> None:
        """Starts the moves whose nodes are free for them."""
        busy = {node for _, nodes in self._running.values() for node in nodes}
        for move in list(self._waiting):
            if len(self._running) >= THREADS_MAX:
                return
            try:
                migration, nodes = self._migration(move, busy)
            except Exception as error:  # noqa: BLE001 - a lost connection raises any of many errors
                self._waiting.remove(move)
                self._reject(move, f"no answer: {error}", answered=False)
                continue
            if migration is None:
                continue
            busy |= set(nodes)
            self._waiting.remove(move)
            self._running[move] = (migration, nodes)
            self._pause_s = POLL_MIN_S

    def _migration(self, move: MoveSlots, busy: set[NodeId]) -> tuple[Migration | None, tuple[NodeId, ...]]:
        """A move's migration, and the nodes that it occupies; None where one of these is busy."""
        source, target = self._view.by_id[move.source], self._view.by_id[move.target]
        mode = self._mode_of(source) if self._mode_of(source) is self._mode_of(target) else MigrationMode.KEYS
        occupied: Mapping[MigrationMode, tuple[NodeId, ...]] = {
            MigrationMode.IMPORT: (move.source, move.target),
            MigrationMode.EXPORT: (move.source,),
            MigrationMode.KEYS: (),
        }
        if busy & set(occupied[mode]):
            return None, ()
        if mode is MigrationMode.KEYS:
            return self._key_migration(move, source, target), ()
        migration = AtomicMigration(
            step=move,
            mode=mode,
            bytes_total=self._view.bytes_of(move.source, move.slots),
            ask_source=partial(ask, self._connection(source)),
            ask_target=partial(ask, self._connection(target)),
            held_by_target=partial(self._held, target),
            clock=self._clock,
        )
        return migration, occupied[mode]

    def _key_migration(self, move: MoveSlots, source: Node, target: Node) -> KeyMigration:
        route = MigrateRoute(
            source=self._pipeline(source),
            address=target.address,
            databases=source.databases or (0,),
            clock=self._clock,
            login=self._login,
            blocked_max_ms=source.timeout_ms or DEFAULT_TIMEOUT_MS,
        )
        return KeyMigration(step=move, route=route, target=self._pipeline(target))

    def _held(self, node: Node, slots: SlotSet) -> Mapping[int, int]:
        with closing(Pipeline(self._connection(node))) as pipeline:
            return held(pipeline, slots)

    def _mode_of(self, node: Node) -> MigrationMode:
        if node.node_id not in self._modes:
            self._modes[node.node_id] = detect_mode(partial(ask, self._connection(node)))
        return self._modes[node.node_id]

    def _pipeline(self, node: Node) -> Pipeline:
        pipeline = Pipeline(self._connection(node))
        self._pipelines.append(pipeline)
        return pipeline

    def _connection(self, node: Node) -> Connection:
        """A new one for each use: a connection is used by one thread at a time."""
        connection = self._connect(node.address)
        self._connections.append(connection)
        return connection
