"""Copying keys into the cluster: the source, a key on its way, the counts, and what changed meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bootstrap.model.memory import Memory
from bootstrap.model.node import Address
from bootstrap.model.slots import SlotSet


class Entry(NamedTuple):
    """One key as a server dumps it."""

    database: int
    """The database at the target."""
    key: bytes
    payload: bytes | bytearray
    """The reply to DUMP."""
    expires_ms: int
    """The moment at which it expires, Unix time in milliseconds; 0 for a key that stays."""

    @property
    def name(self) -> str:
        """The beginning of its key for a message."""
        return shown(self.key)


NAME_MAX = 100
"""Bytes of a key that a message shows."""


def shown(key: bytes) -> str:
    """The beginning of a key as text; bytes that are not UTF-8 as escapes."""
    return key[:NAME_MAX].decode(errors="backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What a server counts about itself, so that two looks show what happened between them."""

    run_id: str = ""
    """New at every start, after which all counters begin at 0."""
    changes: int = 0
    """Writes since its last save."""
    saved_at: int = 0
    """When that was, Unix time in seconds."""
    expired: int = 0
    evicted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceServer:
    """A server to read from. In a cluster it is a master."""

    address: Address
    """The host may be a name."""
    version: str
    keys: Mapping[int, int]
    """By database."""
    memory: Memory
    startup_bytes: int = 0
    """The memory that it used when it had started, before it had any data."""
    counters: Counters = field(default_factory=Counters)
    libraries: frozenset[str] = frozenset()
    time_ms: int = 0
    """Its clock, Unix time in milliseconds."""
    slots: SlotSet = field(default_factory=SlotSet)
    """In a cluster: the slots that it owns."""
    open_slots: SlotSet = field(default_factory=SlotSet)
    """In a cluster: the slots that it sends to another master or receives from one, key by key."""
    out_of_step: str = ""
    """A replica without a link to its master: why its data may be old, in words."""

    @property
    def data_bytes(self) -> int:
        """How much memory its keys take, with what the server keeps about each of them."""
        return max(self.memory.dataset_bytes, self.memory.used_bytes - self.startup_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """All servers of a source."""

    servers: tuple[SourceServer, ...]
    is_cluster: bool = False
    through: str = ""
    """How the server was found, in words, where it is not the one that was named."""

    @property
    def keys(self) -> Mapping[int, int]:
        """Keys by database."""
        found: dict[int, int] = {}
        for server in self.servers:
            for database, count in server.keys.items():
                found[database] = found.get(database, 0) + count
        return dict(sorted(found.items()))

    @property
    def open_slots(self) -> SlotSet:
        """Slots whose keys are on two masters. Neither of them shows all of them."""
        return SlotSet.union_of(server.open_slots for server in self.servers)

    @property
    def owners(self) -> frozenset[tuple[Address, SlotSet]]:
        """The masters of a cluster with their slots. As long as it stays the same, no slot has moved."""
        return frozenset((server.address, server.slots) for server in self.servers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What happened in the source between two looks, by its own counters."""

    writes: int = 0
    at_least: bool = False
    """The source has saved its data or restarted in between, which begins its count anew: there may be more writes."""
    expired: int = 0
    evicted: int = 0

    @classmethod
    def between(cls, before: Source, after: Source) -> Changed:
        """The sum over all servers; one that only one of the looks has makes it a lower bound."""
        first = {server.address: server.counters for server in before.servers}
        writes, expired, evicted, at_least = 0, 0, 0, len(first) != len(after.servers)
        for server in after.servers:
            now, then = server.counters, first.get(server.address)
            if then is None or then.run_id != now.run_id:
                then, at_least = Counters(), True
            saved = now.saved_at != then.saved_at
            at_least |= saved
            writes += now.changes if saved else max(0, now.changes - then.changes)
            expired += max(0, now.expired - then.expired)
            evicted += max(0, now.evicted - then.evicted)
        return cls(writes=writes, at_least=at_least, expired=expired, evicted=evicted)

    @property
    def quiet(self) -> bool:
        """Nothing was written, as far as the counters show."""
        return not self.writes and not self.at_least and not self.evicted


@dataclass(slots=True, kw_only=True)
class Counts:
    """The keys of the source, by what became of them in one pass over all of them."""

    seen: int = 0
    copied: int = 0
    existing: int = 0
    """The target had a key of that name, which was left as it was."""
    gone: int = 0
    """Expired or deleted between its name and its value."""
    hidden: int = 0
    """Left over in a master that does not own their slots: no client of the source can see them."""
    bytes_copied: int = 0

    @property
    def done(self) -> int:
        """Keys that need nothing more."""
        return self.copied + self.existing + self.gone + self.hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A sample of keys, read at both sides."""

    compared: int = 0
    differing: tuple[str, ...] = ()
    """The names of those that differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import has done and found."""

    before: Source
    after: Source
    databases: Mapping[int, int]
    """The databases that were copied: of the source → of the target."""
    counts: Counts
    late: int
    """Keys that the checks after the first pass found missing, and copied."""
    missing: int
    """Keys that the last check found missing: the source gains keys faster than they are checked."""
    moved: bool
    """Slots of the source moved meanwhile, so that the last check may have missed keys."""
    copied_sample: Comparison
    existing_sample: Comparison
    target_keys: int
    """Keys of all masters of the target at the end."""
    functions: tuple[str, ...] = ()
    """The function libraries that were copied."""
    functions_left: tuple[str, ...] = ()
    """Those that some master rejected."""

    @property
    def changed(self) -> Changed:
        """What happened in the source meanwhile."""
        return Changed.between(self.before, self.after)

    def as_fields(self) -> dict[str, Any]:
        """The object as the outcome has it."""
        changed = self.changed
        return {
            "keys": self.counts.seen,
            "copied": self.counts.copied + self.late,
            "existing": self.counts.existing,
            "gone": self.counts.gone,
            "hidden": self.counts.hidden,
            "bytes": self.counts.bytes_copied,
            "late": self.late,
            "missing": self.missing,
            "compared": self.copied_sample.compared,
            "differing": len(self.copied_sample.differing),
            "existing_compared": self.existing_sample.compared,
            "existing_differing": len(self.existing_sample.differing),
            "functions": list(self.functions),
            "functions_left": list(self.functions_left),
            "source_keys_before": {str(number): count for number, count in self.before.keys.items()},
            "source_keys_after": {str(number): count for number, count in self.after.keys.items()},
            "source_writes": changed.writes,
            "source_writes_at_least": changed.at_least,
            "source_expired": changed.expired,
            "source_evicted": changed.evicted,
            "target_keys": self.target_keys,
        }
