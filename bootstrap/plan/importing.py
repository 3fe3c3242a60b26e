"""What stands against an import before anything is written, and what its comparison means at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from bootstrap.errors import AGAIN, Reason
from bootstrap.model.copying import ImportReport, Source
from bootstrap.model.memory import mebibytes
from bootstrap.model.slots import ALL_SLOTS, SLOT_COUNT, SlotSet
from bootstrap.model.view import ClusterView
from bootstrap.plan.describe import several

CLOCKS_APART_MS = 2000
"""Clocks that differ by more are not just asked one after the other."""
ROOM_SPARE = 1.05
"""By how much the keys may take more memory at the target than at the source."""
NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What an import finds before it writes anything."""

    source: Source
    view: ClusterView
    databases: Mapping[int, int]
    """Of the source → of the target, as `databases_of` gives them."""
    rejected_databases: Mapping[int, str]
    """Databases that the target does not have, with its words."""
    unreadable: str = ""
    """Why the target does not read the dumps of the source, with the name of a key; "" where it does."""
    missing_share: float = 1.0
    """Which part of the keys the target lacks, from 0 to 1."""


def databases_of(source: Source, chosen: Mapping[int, int]) -> Mapping[int, int]:
    """The databases to copy: those that a person has named, or 0 and all that hold keys, each to the same number."""
    return chosen or {number: number for number in (0, *source.keys)}


def left_out(source: Source, databases: Mapping[int, int]) -> Mapping[int, int]:
    """The keys of databases that are not copied, by database."""
    return {number: count for number, count in source.keys.items() if number not in databases}


def clock_shift_ms(source: Source, now_ms: int) -> int:
    """By how much the clock of the target, which shows `now_ms`, is ahead of the source's; 0 where they agree."""
    shift = now_ms - source.servers[0].time_ms if source.servers else 0
    return shift if abs(shift) > CLOCKS_APART_MS else 0


def refusals(found: Found) -> tuple[Reason, ...]:
    """Everything that stands against the import; empty where it may begin."""
    return tuple(chain(_same_servers(found), _incomplete(found), _databases(found), _versions(found), _room(found)))


def _same_servers(found: Found) -> Iterator[Reason]:
    pods = {node.run_id: node.pod for node in found.view.nodes if node.run_id}
    for server in found.source.servers:
        if pod := pods.get(server.counters.run_id):
            yield Reason(
                code="source-is-target",
                message=f"{server.address} is {pod}, a member of the cluster that keys would be copied into",
                remedy="name another server: --from HOST:PORT",
                node=pod,
            )


def _incomplete(found: Found) -> Iterator[Reason]:
    source = found.source
    for server in source.servers:
        if server.out_of_step:
            yield Reason(
                code="source-incomplete",
                message=f"{server.address} is a replica whose data may be old: {server.out_of_step}",
                remedy="name its master: --from HOST:PORT; redis-cli -h HOST -p PORT INFO replication shows it",
            )
    if source.open_slots:
        yield Reason(
            code="source-incomplete",
            message=f"the slots {source.open_slots.listed()} of the source are on their way from one master to another",
            remedy="wait until they have moved, or finish it: redis-cli --cluster fix HOST:PORT",
        )
    if source.is_cluster and (absent := ALL_SLOTS - SlotSet.union_of(s.slots for s in source.servers)):
        yield Reason(
            code="source-incomplete",
            message=f"no master of the source owns the slots {absent.listed()}",
            remedy="repair the source first: redis-cli --cluster check HOST:PORT shows what is wrong with it",
        )


def _databases(found: Found) -> Iterator[Reason]:
    for database, why in sorted(found.rejected_databases.items()):
        origins = [number for number, target in found.databases.items() if target == database]
        keys = sum(found.source.keys.get(number, 0) for number in origins)
        yield Reason(
            code="source-databases",
            message=f"the source has {several(keys, 'key')} in database {origins[0]}, and the cluster has no database "
            f"{database}: {why}",
            remedy=f"choose which database goes where: --databases 0=0 copies database 0 alone, and --databases "
            f"{origins[0]}=0 copies database {origins[0]} into database 0 (BOOTSTRAP_IMPORT_DATABASES); one run for "
            "each",
        )


def _versions(found: Found) -> Iterator[Reason]:
    if not found.unreadable:
        return
    source = ", ".join(sorted({server.version for server in found.source.servers}))
    target = ", ".join(sorted({node.version for node in found.view.nodes}))
    yield Reason(
        code="payload-rejected",
        message=f"the servers of the cluster ({target}) cannot read what the source ({source}) dumps: "
        f"key {found.unreadable}",
        remedy="give the cluster servers that are not older than the source, and of the same kind: docs/versions.md. "
        "On Valkey, CONFIG SET rdb-version-check relaxed may do",
    )


def _room(found: Found) -> Iterator[Reason]:
    needed = sum(server.data_bytes for server in found.source.servers) * found.missing_share * ROOM_SPARE
    for node in found.view.nodes:
        memory, share = node.memory, len(node.slots) / SLOT_COUNT
        free = memory.max_bytes - memory.used_bytes
        if node.slots and memory.max_bytes and needed * share > free:
            yield Reason(
                code="no-room",
                message=f"{node.pod} would receive about {mebibytes(round(needed * share))} and has "
                f"{mebibytes(max(0, free))} free below its maxmemory",
                remedy="raise maxmemory and the pods' memory, or declare more shards first: docs/operations.md, Resize",
                node=node.pod,
            )


def missing_keys(report: ImportReport) -> tuple[Reason, ...]:
    """The reason where the last check found keys of the source that the target lacked: run again."""
    if not report.missing and not report.moved:
        return ()
    why = f"the last check found {several(report.missing, 'key')} that the target did not have"
    if report.moved:
        why = "slots moved in the source meanwhile, and keys with them"
    remedy = "what was copied stays, and another run copies the rest; stop the clients that write to the source, and "
    remedy += f"wait until no slot moves there; then {AGAIN}"
    return (Reason(code="import-incomplete", message=why, remedy=remedy),)


def differing_values(report: ImportReport, *, replace: bool) -> tuple[Reason, ...]:
    """The reason where copied keys differ from those of the source: a person decides which ones are right."""
    sample = report.copied_sample
    if not sample.differing:
        return ()
    meanwhile = ""
    if not report.changed.quiet:
        meanwhile = f"; the source counts {writes_in_words(report)} meanwhile"
    message = (
        f"{len(sample.differing)} of {sample.compared} copied keys that were compared differ: "
        f"{', '.join(map(repr, sample.differing[:NAMES_SHOWN]))}{meanwhile}"
    )
    remedy = "they were written after they had been copied, in the source or in the cluster; if the source is right, "
    remedy += "stop the clients that write to it and run again with --replace (BOOTSTRAP_IMPORT_REPLACE=on)"
    if replace:
        remedy = remedy.replace("run again with", "run again, still with")
    return (Reason(code="values-differ", message=message, remedy=remedy),)


def advice(report: ImportReport, out: Mapping[int, int]) -> str:
    """What a person should know about a good import, and can do next; "" for nothing. `out`: keys by database that was
    not copied.
    """
    known = []
    if not report.changed.quiet:
        known.append(
            f"the source was written to meanwhile ({writes_in_words(report)}), so the copy shows each key at the "
            "moment at which it was read: stop its clients, and run again with --replace for their latest values"
        )
    if report.existing_sample.differing:
        known.append(
            f"{several(report.counts.existing, 'key')} existed in the cluster and stayed as they were; of "
            f"{report.existing_sample.compared} compared, {len(report.existing_sample.differing)} differ from the "
            "source: --replace takes those of the source"
        )
    if report.counts.hidden:
        known.append(
            f"{several(report.counts.hidden, 'key')} of masters that do not own their slots were not copied: no client "
            "of the source can see them"
        )
    if report.functions_left:
        known.append(
            f"function libraries that the cluster rejected: {', '.join(report.functions_left)}; the lines "
            "function_not_copied of the log have its words"
        )
    if out:
        listed = ", ".join(f"{count} in database {number}" for number, count in out.items())
        known.append(f"keys of other databases were not copied: {listed}")
    return "; ".join(known)


def writes_in_words(report: ImportReport) -> str:
    """`12 writes`, `at least 3 writes`."""
    changed = report.changed
    return ("at least " if changed.at_least else "") + several(changed.writes, "write")
