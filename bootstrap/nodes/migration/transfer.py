"""Slots on their way between nodes: by the servers' own migrations where both ends have them, else by MIGRATE. Several
pairs of nodes are at it at once, as far as the servers allow that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Protocol

from redis.connection import Connection

from bootstrap.model.node import DEFAULT_TIMEOUT_MS, Address, Node, NodeId
from bootstrap.model.steps import MoveSlots, Rejected
from bootstrap.model.view import ClusterView
from bootstrap.nodes.connection import ask
from bootstrap.nodes.migration.atomic import AtomicMigration
from bootstrap.nodes.migration.keys import MOMENT_S, KeyMigration
from bootstrap.nodes.migration.route import MigrateRoute, Talk
from bootstrap.nodes.migration.tasks import MigrationMode, detect
from bootstrap.nodes.pipeline import Pipeline

POLL_MIN_S, POLL_MAX_S = 0.002, 0.02
"""Between two questions how far servers are with what they do by themselves: at first often, since a task of few keys
takes some milliseconds, and on Redis the next one waits for it; then ever less."""
CLOSE_S = 5.0
"""How long a run that ends early may finish the slots that are open; Kubernetes gives 30 s after SIGTERM."""
THREADS_MAX = 16
_NOT_PERMITTED = ("NOPERM", "NOAUTH", "no permissions")

Connect = Callable[[Address], Connection]
"""A new connection to a server, on which texts that are no UTF-8 come and go as they are."""


class Migration(Protocol):
    """One move of slots, by whatever means."""

    @property
    def done(self) -> bool:
        """It has come to an end, good or bad."""
        ...

    @property
    def error(self) -> str:
        """Why it came to a bad end."""
        ...

    @property
    def slots_done(self) -> int:
        """Slots that have arrived."""
        ...

    @property
    def bytes_done(self) -> int:
        """About how much data has arrived."""
        ...

    def advance(self, ends: float) -> None:
        """Goes on, until that moment of the monotonic clock at most."""
        ...

    def close(self, ends: float) -> None:
        """Ends it, cleanly if that is possible until then."""
        ...


class SlotTransfer:
    """All moves of a phase; see `execute.Transfer`."""

    def __init__(
        self,
        moves: Sequence[MoveSlots],
        view: ClusterView,
        *,
        connect: Connect,
        login: tuple[str, ...],
        redact: Callable[[str], str],
    ) -> None:
        """Nothing is told before the first `advance`. `login`: with which words MIGRATE lets itself in; `hide` takes
        them out of what servers say, who quote what they were sent.
        """
        self.rejected: list[Rejected] = []
        self._view, self._connect, self._login, self._hide = view, connect, login, redact
        self._waiting = list(moves)
        self._running: dict[MoveSlots, tuple[Migration, tuple[NodeId, ...]]] = {}
        self._over: list[Migration] = []
        self._connections: list[Connection] = []
        self._talks: list[Pipeline] = []
        self._how: dict[NodeId, MigrationMode] = {}
        self._pause_s = POLL_MIN_S
        self._pool = ThreadPoolExecutor(max_workers=THREADS_MAX, thread_name_prefix="move")

    @property
    def done(self) -> bool:
        """See `execute.Transfer`."""
        return not (self._waiting or self._running)

    @property
    def slots_done(self) -> int:
        """See `execute.Transfer`."""
        return sum(mover.slots_done for mover in self._movers())

    @property
    def bytes_done(self) -> int:
        """See `execute.Transfer`."""
        return sum(mover.bytes_done for mover in self._movers())

    @property
    def pause_s(self) -> float:
        """How long there is nothing to do after `advance`: servers that move slots by themselves are only asked."""
        return self._pause_s if any(isinstance(mover, AtomicMigration) for mover, _ in self._running.values()) else 0.0

    def advance(self) -> None:
        """See `execute.Transfer`."""
        self._pause_s = min(POLL_MAX_S, 1.5 * self._pause_s)
        self._begin()
        ends = time.monotonic() + MOMENT_S
        list(self._pool.map(lambda mover: mover.advance(ends), [mover for mover, _ in self._running.values()]))
        for move, (mover, _) in list(self._running.items()):
            if mover.done:
                del self._running[move]
                self._over.append(mover)
                self._pause_s = POLL_MIN_S
                if isinstance(mover, AtomicMigration) and any(word in mover.error for word in _NOT_PERMITTED):
                    # Servers log in to each other for a task as replicas do. Who may not do that can still MIGRATE.
                    self._how = dict.fromkeys(self._view.by_id, MigrationMode.KEYS)
                    self._waiting.append(replace(move, slots=mover.left))
                elif mover.error:
                    self._reject(move, mover.error, answered=True)

    def close(self) -> None:
        """See `execute.Transfer`."""
        ends = time.monotonic() + CLOSE_S
        with suppress(Exception):
            list(self._pool.map(lambda mover: mover.close(ends), [mover for mover, _ in self._running.values()]))
        self._pool.shutdown(wait=True, cancel_futures=True)
        for talk in self._talks:
            talk.close()
        for connection in self._connections:
            connection.disconnect()

    def _reject(self, move: MoveSlots, why: str, *, answered: bool) -> None:
        self.rejected.append(Rejected(move, self._hide(why), answered=answered))

    def _movers(self) -> Iterator[Migration]:
        yield from self._over
        yield from (mover for mover, _ in self._running.values())

    def _begin(self) -> None:
        """Begins what may run beside that which runs already."""
        busy = {node for _, nodes in self._running.values() for node in nodes}
        for move in list(self._waiting):
            if len(self._running) >= THREADS_MAX:
                return
            try:
                mover, nodes = self._mover(move, busy)
            except Exception as error:  # noqa: BLE001 - a lost connection, in any of the ways in which it shows
                self._waiting.remove(move)
                self._reject(move, f"no answer: {error}", answered=False)
                continue
            if mover is None:
                continue
            busy |= set(nodes)
            self._waiting.remove(move)
            self._running[move] = (mover, nodes)
            self._pause_s = POLL_MIN_S

    def _mover(self, move: MoveSlots, busy: set[NodeId]) -> tuple[Migration | None, tuple[NodeId, ...]]:
        """What moves it, and the nodes that can do nothing else meanwhile; None where one of them is busy."""
        source, target = self._view.by_id[move.source], self._view.by_id[move.target]
        how = self._how_of(source) if self._how_of(source) is self._how_of(target) else MigrationMode.KEYS
        nodes: Mapping[MigrationMode, tuple[NodeId, ...]] = {
            MigrationMode.IMPORT: (move.source, move.target),
            MigrationMode.EXPORT: (move.source,),
            MigrationMode.KEYS: (),
        }
        if busy & set(nodes[how]):
            return None, ()
        if how is MigrationMode.KEYS:
            return self._key_move(move, source, target), ()
        task = AtomicMigration(
            step=move,
            how=how,
            bytes_total=self._view.bytes_of(move.source, move.slots),
            ask_source=partial(ask, self._connection(source)),
            ask_target=partial(ask, self._connection(target)),
        )
        return task, nodes[how]

    def _key_move(self, move: MoveSlots, source: Node, target: Node) -> KeyMigration:
        route = MigrateRoute(
            source=self._talk(source),
            address=target.address,
            databases=source.databases or (0,),
            login=self._login,
            silence_max_ms=source.timeout_ms or DEFAULT_TIMEOUT_MS,
        )
        return KeyMigration(step=move, route=route, target=self._talk(target))

    def _how_of(self, node: Node) -> MigrationMode:
        if node.node_id not in self._how:
            self._how[node.node_id] = detect(partial(ask, self._connection(node)))
        return self._how[node.node_id]

    def _talk(self, node: Node) -> Talk:
        talk = Pipeline(self._connection(node))
        self._talks.append(talk)
        return talk

    def _connection(self, node: Node) -> Connection:
        """A new one: a connection is used by one thread at a time."""
        connection = self._connect(node.address)
        self._connections.append(connection)
        return connection
