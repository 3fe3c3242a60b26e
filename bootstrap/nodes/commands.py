"""The text of every command that this program sends to a server: constants, functions of their arguments, and
`commands_for`, which gives the commands of a write. What a reply means belongs in `wire`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from bootstrap.model.node import Address, NodeId
from bootstrap.model.slots import SlotSet
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

Command = tuple[str | bytes | int, ...]
"""A command's name and arguments; texts are sent as UTF-8."""

KEYSPACE: Command = ("INFO", "keyspace")
PERSISTENCE: Command = ("INFO", "persistence")
SERVER: Command = ("INFO", "server")
REPLICATION: Command = ("INFO", "replication")
NODE_TIMEOUT: Command = ("CONFIG", "GET", "cluster-node-timeout")
LOOK: tuple[Command, ...] = (
    ("CLUSTER", "NODES"),
    ("CLUSTER", "INFO"),
    REPLICATION,
    KEYSPACE,
    ("INFO", "memory"),
    SERVER,
    PERSISTENCE,
    ("CONFIG", "GET", "*cluster*"),
)
"""One look at a node."""
COUNT_KEYS: Command = ("CLUSTER", "COUNTKEYSINSLOT")
"""The number of the slot follows."""
KNOWN_MIGRATION_COMMANDS: Command = ("COMMAND", "INFO", "cluster|migration", "cluster|migrateslots")
"""Which way of moving slots a server has: Redis's command, Valkey's, or neither."""
CLUSTER_SLOTS: Command = ("CLUSTER", "SLOTS")
PROBE_COMMANDS: Command = ("COMMAND", "INFO", "SET", "GET", "DEL")
INLINE_PING = b"PING\r\n"
"""The one command that is sent without redis-py, to find out whether a port answers without TLS."""

MULTI: Command = ("MULTI",)
EXEC: Command = ("EXEC",)
DISCARD: Command = ("DISCARD",)
RESET: Command = ("CLUSTER", "RESET", "HARD")
FLUSH: Command = ("FLUSHALL", "ASYNC")
SAVE: Command = ("SAVE",)
"""Only for an empty server: it blocks until the file is written. It fails while a background save runs."""
BGSAVE: Command = ("BGSAVE",)
BGREWRITEAOF: Command = ("BGREWRITEAOF",)
TIME: Command = ("TIME",)
SAVE_NO_MORE: Command = ("CONFIG", "SET", "save", "")
"""Neither changes nor a shutdown make the server write a snapshot."""
MODULE_LIST: Command = ("MODULE", "LIST")
TRAITS: tuple[Command, ...] = tuple(
    ("CONFIG", "GET", name)
    for name in (
        *("cluster-announce-hostname", "cluster-preferred-endpoint-type", "cluster-databases", "rdb-version-check"),
        *("masteruser", "masterauth"),
    )
)
"""One by one: Redis before 7.0 takes one pattern for each CONFIG GET."""

FUNCTION_LIST: Command = ("FUNCTION", "LIST")
ACL_LIST: Command = ("ACL", "LIST")
ACL_WHOAMI: Command = ("ACL", "WHOAMI")
ACL_SAVE: Command = ("ACL", "SAVE")

MIN_REPLICAS: Command = ("CONFIG", "GET", "min-replicas-to-write")
TRIAL_OF_MOVING_KEYS: tuple[Command, ...] = (
    ("CLUSTER", "GETKEYSINSLOT", 0, 1),
    ("MEMORY", "USAGE", "x"),
    ("MIGRATE", "127.0.0.1", 1, "", 0, 1, "KEYS", "x"),
)
"""What a move of keys sends to their source, with arguments of no meaning: only tried, never executed."""

MIGRATION_STATUS: Command = ("CLUSTER", "MIGRATION", "STATUS", "ALL")
GET_SLOT_MIGRATIONS: Command = ("CLUSTER", "GETSLOTMIGRATIONS")
CANCEL_SLOT_MIGRATIONS: Command = ("CLUSTER", "CANCELSLOTMIGRATIONS")
"""Valkey cancels all migrations of which the node is the source: it has no command for a single one."""

LOOK_AT_SOURCE: tuple[Command, ...] = (
    ("INFO", "server"),
    ("INFO", "replication"),
    KEYSPACE,
    ("INFO", "memory"),
    ("INFO", "stats"),
    PERSISTENCE,
    ("TIME",),
    FUNCTION_LIST,
    ("CLUSTER", "NODES"),
)
"""One look at a server to copy from. Older servers do not know FUNCTION, and a standalone one rejects CLUSTER."""
SENTINEL_MASTERS: Command = ("SENTINEL", "MASTERS")
RANDOM_KEY: Command = ("RANDOMKEY",)
EXISTS: Command = ("EXISTS",)
TYPE: Command = ("TYPE",)
DUMP: Command = ("DUMP",)
PTTL: Command = ("PTTL",)
PEXPIRETIME: Command = ("PEXPIRETIME",)
"""The key follows each of these. PEXPIRETIME is there since Redis 7.0."""
ASKING: Command = ("ASKING",)


def scan(cursor: bytes, count: int) -> Command:
    """The next page of the names of a database: about `count`."""
    return ("SCAN", cursor, "COUNT", count)


def restore(*, expires: bool, replace: bool) -> tuple[Command, Command]:
    """RESTORE as its words before and after the key, its moment of expiry (0 for none) and the payload. The moment is
    absolute, which servers know since Redis 5.0.
    """
    return ("RESTORE",), (*(("ABSTTL",) if expires else ()), *(("REPLACE",) if replace else ()))


def commands_for(write: Write) -> tuple[Command, ...]:
    """The commands of a write, in order. Raises TypeError for a write whose commands depend on replies."""
    match write:
        case SetTimeout():
            return (("CONFIG", "SET", "cluster-node-timeout", write.timeout_ms),)
        case SetConfig():
            return (("CONFIG", "SET", write.name, write.value),)
        case SetEpoch():
            return (("CLUSTER", "SET-CONFIG-EPOCH", write.epoch),)
        case BumpEpoch():
            return (("CLUSTER", "BUMPEPOCH"),)
        case Meet():
            return (meet(write.address, write.bus_port),)
        case AddSlots():
            return (("CLUSTER", "ADDSLOTS", *write.slots),)
        case Replicate() | Reattach():
            return (("CLUSTER", "REPLICATE", write.master),)
        case SetSlotState():
            return ((importing if write.importing else migrating)(write.slot, write.other),)
        case SetSlotOwner():
            return tuple(assign(slot, write.owner) for slot in write.slots)
        case TakeSlot():
            return (assign(write.slot, write.node),)
        case CloseSlot():
            return (stable(write.slot),)
        case Wipe():
            return (MULTI, FLUSH, RESET, EXEC, SAVE) if write.flush else (RESET, FLUSH, SAVE)
        case MoveKeys() | MoveSlots() | Provision() | Leave() | Retire() | CancelMigration():
            raise TypeError(f"{type(write).__name__} takes several exchanges with its node, not a list of commands")
        case ManualFailover():
            return (("CLUSTER", "FAILOVER"),)
        case EndPause():
            return (("CLIENT", "UNPAUSE"),)
        case Failover():
            return (("CLUSTER", "FAILOVER", "TAKEOVER" if write.takeover else "FORCE"),)
        case Forget():
            return (("CLUSTER", "FORGET", write.lost),)
        case Announce():
            return tuple(meet(address, bus_port) for address, bus_port in write.others)
        case _:
            assert_never(write)


def changed(command: Command, reply: object) -> bool:
    """Whether a command of a write has changed its server, by the reply: those that only wait for EXEC have not."""
    if command in (MULTI, SAVE) or reply == "QUEUED" or isinstance(reply, Exception):
        return False
    return not (isinstance(reply, list) and any(isinstance(each, Exception) for each in reply))


def meet(address: Address, bus_port: int) -> Command:
    """CLUSTER MEET; without a bus port (0) the server adds 10000 to the port."""
    return ("CLUSTER", "MEET", address.host, address.port, *((bus_port,) if bus_port else ()))


def importing(slot: int, source: NodeId) -> Command:
    """Sent to a slot's next owner."""
    return ("CLUSTER", "SETSLOT", slot, "IMPORTING", source)


def migrating(slot: int, target: NodeId) -> Command:
    """Sent to a slot's present owner. Any other node refuses it."""
    return ("CLUSTER", "SETSLOT", slot, "MIGRATING", target)


def stable(slot: int) -> Command:
    """Removes a slot's migrating or importing state."""
    return ("CLUSTER", "SETSLOT", slot, "STABLE")


def assign(slot: int, owner: NodeId) -> Command:
    """Sets the slot's owner in the recipient's view. A recipient that imports the slot and becomes its owner also takes
    a new config epoch, with which the others follow.
    """
    return ("CLUSTER", "SETSLOT", slot, "NODE", owner)


def select(database: int) -> Command:
    """The database of the commands that follow on the same connection."""
    return ("SELECT", database)


def count_keys(slot: int) -> Command:
    """Counts a slot's keys in the selected database."""
    return (*COUNT_KEYS, slot)


def get_keys(slot: int, count: int) -> Command:
    """Names at most `count` keys of a slot in the selected database."""
    return ("CLUSTER", "GETKEYSINSLOT", slot, count)


def memory_usage(samples: int) -> tuple[Command, Command]:
    """MEMORY USAGE as its words before and after the key; `samples`: how many elements of a key are measured."""
    return ("MEMORY", "USAGE"), ("SAMPLES", samples)


def migrate(
    target: Address, database: int, keys: Sequence[bytes], *, timeout_ms: int, login: tuple[str, ...]
) -> Command:
    """MIGRATE of several keys. `timeout_ms`: how long the two servers may exchange nothing. `login`: AUTH or AUTH2
    with its arguments, where the target requires them.
    """
    where = (target.host, target.port)
    return ("MIGRATE", *where, "", database, timeout_ms, "REPLACE", *login, "KEYS", *keys)


def migration_import(slots: SlotSet) -> Command:
    """Redis since 8.4, sent to the target: it names no source, which is the owner in the target's view."""
    return ("CLUSTER", "MIGRATION", "IMPORT", *_bounds(slots))


def migration_cancel(task_id: str) -> Command:
    """Redis since 8.4, sent to the target."""
    return ("CLUSTER", "MIGRATION", "CANCEL", "ID", task_id)


def migrate_slots(slots: SlotSet, target: NodeId) -> Command:
    """Valkey since 9.0, sent to the source. The reply is OK, without an id."""
    return ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", *_bounds(slots), "NODE", target)


def function_code(library: str) -> Command:
    """FUNCTION LIST of one library, with its code."""
    return ("FUNCTION", "LIST", "LIBRARYNAME", library, "WITHCODE")


def function_load(code: str) -> Command:
    """Loads a function library, also over one of the same name."""
    return ("FUNCTION", "LOAD", "REPLACE", code)


def acl_dry_run(user: str, command: Command) -> Command:
    """Redis since 7.0: whether a user may send a command."""
    return ("ACL", "DRYRUN", user, *command)


def acl_set_user(name: str, rules: Sequence[str]) -> Command:
    """Gives an ACL user exactly these rules."""
    return ("ACL", "SETUSER", name, "reset", *rules)


def _bounds(slots: SlotSet) -> tuple[int, ...]:
    """The first and last slot of each range, one after the other."""
    return tuple(slot for pair in slots.ranges for slot in pair)
