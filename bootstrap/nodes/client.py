"""Look at Redis nodes and write to them, many nodes in parallel. Reads never fail a run: a node that does not answer is
a fact about that node. A write is sent once; the next look shows whether it took effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from redis.connection import Connection

from bootstrap.clock import Clock, Deadline, SystemClock
from bootstrap.model.links import LinkTrouble
from bootstrap.model.node import Address, Endpoint, Node, NodeId
from bootstrap.model.slots import SlotSet
from bootstrap.model.steps import (
    CancelMigration,
    CloseSlot,
    Leave,
    MoveKeys,
    MoveSlots,
    Provision,
    Rejected,
    Retire,
    Write,
)
from bootstrap.model.view import ClusterView
from bootstrap.nodes.commands import changed, commands_for
from bootstrap.nodes.connection import Credentials, ask, ask_all, first_error
from bootstrap.nodes.counting import close_slot, count_keys, count_left_over, names_in
from bootstrap.nodes.failures import Failure, error_text
from bootstrap.nodes.look import endpoints_of, look_at, provisions_of, timeout_of
from bootstrap.nodes.membership import leave, provision_node, retire
from bootstrap.nodes.migration.mode import MigrationMode, cancel, detect_mode
from bootstrap.nodes.pipeline import Pipeline
from bootstrap.nodes.pool import ANSWER_LIMIT_S, MOMENT_S, Answer, ConnectionPool, Exchange
from bootstrap.nodes.trial import obstacle

if TYPE_CHECKING:
    from bootstrap.nodes.migration.transfer import SlotTransfer

MOVE_MESSAGE_MAX = 400
"""Characters of a message about slots that could not be moved: it names keys and what to do."""
BRIEFLY_S = 0.5
"""Seconds. A server in the same cluster answers within a few milliseconds."""
_SEVERAL_EXCHANGES = (MoveKeys, CloseSlot, Provision, Leave, Retire, CancelMigration)
"""Writes whose later commands depend on the replies to earlier ones."""


class Nodes:
    """All nodes that a run talks to. Close it when done."""

    def __init__(
        self, credentials: Credentials, *, answer_limit_s: float = ANSWER_LIMIT_S, clock: Clock | None = None
    ) -> None:
        """Raises Misconfigured that names a faulty TLS file. `clock` must not raise from `sleep`, as the clock of a run
        does on a signal: an exchange that ended half-way would leave a node without its slots but with its old files.
        """
        self._credentials = credentials
        self._clock = clock or SystemClock()
        self._pool = ConnectionPool(credentials, answer_limit_s=answer_limit_s)
        self._modes: WeakKeyDictionary[Connection, MigrationMode] = WeakKeyDictionary()
        """How servers move slots, by connection: a server that restarts, perhaps as another version, gets a new one."""

    def close(self) -> None:
        """Ends every connection and thread."""
        self._pool.close()

    def look(self, places: Iterable[tuple[str, int, Address]]) -> Mapping[tuple[str, Address], Node | Failure]:
        """One look at every (pod, ordinal, address), all in parallel. Several pods may have the same address."""
        places = tuple(places)
        by_address = self._pool.run_each({address: partial(look_at, modes=self._modes) for _, _, address in places})
        return {
            (pod, address): found
            if isinstance(found := by_address[address], Failure)
            else found.node(pod, ordinal, address)
            for pod, ordinal, address in places
        }

    def look_briefly(self, places: Iterable[Address]) -> Mapping[Address, Node | Failure]:
        """One look at each address, which has to answer within half a second: where nothing has to be, nothing is
        waited for.
        """
        with closing(ConnectionPool(self._credentials, answer_limit_s=BRIEFLY_S)) as pool:
            modes: WeakKeyDictionary[Connection, MigrationMode] = WeakKeyDictionary()
            found = pool.run_each({address: partial(look_at, modes=modes) for address in places})
            return {a: each if isinstance(each, Failure) else each.node("", -1, a) for a, each in found.items()}

    def ask(self, places: Sequence[Address], exchange: Exchange[Answer]) -> list[Answer | Failure]:
        """The same exchange with every address, in parallel; the answers in the order of the addresses."""
        answers = self._pool.run_each(dict.fromkeys(places, exchange))
        return [answers[place] for place in places]

    def endpoints(self, places: Iterable[Address]) -> Mapping[Address, frozenset[Endpoint]]:
        """Where each node sends its clients; a node that does not report it is left out."""
        answers = self._pool.run_each(dict.fromkeys(places, endpoints_of))
        return {place: found for place, found in answers.items() if not isinstance(found, Failure)}

    def count(
        self, databases: Mapping[Address, Sequence[int]], slots: SlotSet
    ) -> Mapping[Address, Mapping[int, int] | Failure]:
        """How many keys each node holds of each slot, in the databases named for it; slots without keys are omitted."""
        return self._pool.run_each(
            {address: partial(count_keys, databases=numbers, slots=slots) for address, numbers in databases.items()}
        )

    def count_left_over(self, own: Mapping[Address, SlotSet]) -> Mapping[Address, Mapping[int, int] | Failure]:
        """How many keys each node holds of slots other than its own, by slot; slots without keys are omitted."""
        return self._pool.run_each({address: partial(count_left_over, own=slots) for address, slots in own.items()})

    def names(
        self, databases: Mapping[Address, Sequence[int]], slots: Mapping[Address, Sequence[int]]
    ) -> Mapping[Address, Mapping[int, frozenset[tuple[int, str]] | None] | Failure]:
        """The keys that each node holds of each of its slots, by database and name; None where they are too many."""
        return self._pool.run_each(
            {place: partial(names_in, databases=databases[place], slots=each) for place, each in slots.items()}
        )

    def provisions(
        self, addresses: Iterable[Address]
    ) -> Mapping[Address, tuple[frozenset[str] | None, frozenset[str] | None] | Failure]:
        """The names of each node's function libraries and ACL users; None for what a node does not report.

        Users are asked for only where this program logs in as `default`. An installation that made a user for it also
        manages the users of every node, and gives that user no right to read or make others.
        """
        exchange = partial(provisions_of, ask_users=not self._credentials.username)
        return self._pool.run_each(dict.fromkeys(addresses, exchange))

    def link_troubles(
        self, pairs: Mapping[NodeId, tuple[Node, Node]], broken_off: AbstractSet[NodeId]
    ) -> Mapping[NodeId, LinkTrouble]:
        """The likely causes for replicas that have no link to their masters; see `links.diagnose`."""
        from bootstrap.nodes.links import diagnose  # most runs find every link up

        return diagnose(pairs, broken_off, self._pool, self._credentials)

    def send(self, writes: Mapping[Address, Sequence[Write]]) -> Sequence[Rejected]:
        """Sends each node its writes in order, all nodes in parallel. Returns the writes that were not accepted, and
        why.
        """
        rejected: list[Rejected] = []
        exchanges = {address: partial(self._send, ordered) for address, ordered in writes.items()}
        for address, answer in self._pool.run_each(exchanges).items():
            if isinstance(answer, Failure):
                why = f"{answer.why.value} {answer.detail}".strip()
                rejected += [Rejected(write, why, answered=False) for write in writes[address]]
                continue
            for write, (error, partly) in zip(writes[address], answer, strict=True):
                if error is not None:
                    code = getattr(error, "status_code", None) or ""
                    why = f"{code} {self._credentials.redact(error_text(error))}".strip()
                    rejected.append(Rejected(write, why, answered=True, partly=partly))
        return rejected

    def denied_writes(self, writes: Mapping[Address, Sequence[Write]]) -> Sequence[Rejected]:
        """The writes that would be rejected because the user lacks a right, or the server a command; a wipe also where
        the server refuses writes. Nothing is executed. A node that does not answer is left out.
        """
        trials = {address: partial(self._try, ordered) for address, ordered in writes.items()}
        answers = self._pool.run_each(trials)
        return [
            Rejected(write, self._credentials.redact(error_text(why)), answered=True)
            for address, answer in answers.items()
            if not isinstance(answer, Failure)
            for write, why in zip(writes[address], answer, strict=True)
            if why
        ]

    def _try(self, writes: Sequence[Write], connection: Connection) -> list[str]:
        return [obstacle(connection, write, self._modes.get(connection)) for write in writes]

    def _send(self, writes: Sequence[Write], connection: Connection) -> list[tuple[Exception | None, bool]]:
        """A node's error for each write, None where it accepted the write, and whether it accepted a part of it."""
        commands = [() if isinstance(write, _SEVERAL_EXCHANGES) else commands_for(write) for write in writes]
        all_replies = iter(ask_all(connection, tuple(chain.from_iterable(commands))))
        replies = [list(islice(all_replies, len(each))) for each in commands]
        # One deadline for all moves of keys: an exchange that goes on for longer is ended as one that hangs.
        deadline = Deadline.after(MOMENT_S, self._clock)
        return [
            (self._send_in_turns(write, connection, deadline), False)
            if isinstance(write, _SEVERAL_EXCHANGES)
            else (first_error(answers), any(map(changed, each, answers)))
            for write, each, answers in zip(writes, commands, replies, strict=True)
        ]

    def _send_in_turns(self, write: Write, connection: Connection, deadline: Deadline) -> Exception | None:
        """One write of `_SEVERAL_EXCHANGES`; returns the first error."""
        ask_node = partial(ask, connection)
        match write:
            case Leave():
                return leave(partial(ask_all, connection), clock=self._clock)
            case Retire():
                return retire(partial(ask_all, connection), clock=self._clock)
            case CloseSlot():
                return close_slot(connection, write)
            case CancelMigration():
                return cancel(ask_node, detect_mode(ask_node), write.task_id)
            case Provision():
                with _disconnecting(self._pool.raw_connection(write.address)) as origin:
                    return provision_node(ask_node, partial(ask, origin), write)
            case MoveKeys():
                from bootstrap.nodes.migration.keys import move_keys
                from bootstrap.nodes.migration.route import MigrateRoute

                # A new connection: names of keys are bytes, which a connection for texts would change.
                here = Address(connection.host, connection.port)
                with _disconnecting(self._pool.raw_connection(here)) as raw, closing(Pipeline(raw)) as source:
                    route = MigrateRoute(
                        source=source,
                        address=write.address,
                        databases=write.databases,
                        clock=self._clock,
                        login=self._credentials.migrate_login(),
                        blocked_max_ms=timeout_of(ask_node),
                    )
                    return move_keys(route, write, deadline=deadline)
        raise TypeError(f"{type(write).__name__} is sent as a list of commands")

    def move(self, moves: Sequence[MoveSlots], view: ClusterView) -> SlotTransfer:
        """A transfer of slots, on connections of its own. Nothing is sent before it is advanced."""
        from bootstrap.nodes.migration.transfer import SlotTransfer  # most runs move no slots

        return SlotTransfer(
            moves,
            view,
            connect=self._pool.raw_connection,
            clock=self._clock,
            login=self._credentials.migrate_login(),
            redact=partial(self._credentials.redact, longest=MOVE_MESSAGE_MAX),
        )


@contextmanager
def _disconnecting(connection: Connection) -> Iterator[Connection]:
    try:
        yield connection
    finally:
        connection.disconnect()
