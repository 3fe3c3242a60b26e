"""Whether a server would take commands, without executing them.

Within a transaction a server checks each command as it would before executing it: its name, the rights of the user, and
whether writes are refused (MISCONF, OOM, NOREPLICAS; `processCommand` in server.c). It answers QUEUED or the error, and
DISCARD ends the transaction. A connection that ends before has executed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.connection import Connection

from bootstrap.model.steps import (
    CancelMigration,
    Leave,
    MoveKeys,
    MoveSlots,
    Provision,
    SetConfig,
    SetTimeout,
    Wipe,
    Write,
)
from bootstrap.nodes import commands
from bootstrap.nodes.commands import Command, commands_for
from bootstrap.nodes.connection import ask, ask_all
from bootstrap.nodes.migration.mode import MigrationMode
from bootstrap.nodes.wire.info import parse_config, parse_info, parse_persistence

_REFUSES_WRITES = ("MISCONF", "NOREPLICAS")


class NoTransaction(Exception):
    """The server accepts no transaction; the text is its own."""


def try_out(connection: Connection, tried: Sequence[Command]) -> list[Any]:
    """The replies to these commands in a transaction that is discarded. Raises NoTransaction where MULTI is denied."""
    # MULTI on its own: after a rejected one, the commands would be executed.
    if (begun := ask(connection, *commands.MULTI)) != "OK":
        raise NoTransaction(_text(begun))
    *replies, discarded = ask_all(connection, [*tried, commands.DISCARD])
    if isinstance(discarded, Exception):
        connection.disconnect()
    return replies


def obstacle(connection: Connection, write: Write, mode: MigrationMode | None) -> str:
    """Why the server would reject a write for lack of a right or of a command, in its own words; "" where it would not,
    or where that cannot be found out. A wipe is also asked whether the server accepts writes.
    """
    if isinstance(write, Wipe):
        return _against_wipe(connection, write)
    tried = _commands_of(connection, write, mode)
    try:
        replies = try_out(connection, tried) if tried else []
    except NoTransaction:
        return ""
    return next((text for text in map(_text, replies) if _is_permanent(text)), "")


def _against_wipe(connection: Connection, wipe: Wipe) -> str:
    """Its transaction has to be complete: without MULTI, its commands would be executed one by one."""
    exec_alone = ask(connection, *commands.EXEC) if wipe.flush else None
    try:
        replies = try_out(connection, [commands.RESET, commands.FLUSH, commands.SAVE])
    except NoTransaction as error:
        return str(error) if wipe.flush else ""
    texts = [*map(_text, (exec_alone, *replies)), _against_save(connection)]
    if found := next((text for text in texts if _is_permanent(text)), ""):
        return found
    if not wipe.flush:
        return ""
    if found := next((text for text in texts if text.startswith(_REFUSES_WRITES)), ""):
        return found
    config = parse_config(ask(connection, *commands.MIN_REPLICAS))
    if (needed := config.get("min-replicas-to-write", "0")) != "0":
        return f"NOREPLICAS it will refuse FLUSHALL once its replicas are wiped: min-replicas-to-write is {needed}"
    return ""


def _against_save(connection: Connection) -> str:
    """Redis since 7.0 does not accept SAVE in a transaction, whatever the rights, but can be asked for them."""
    user = ask(connection, *commands.ACL_WHOAMI)
    answer = ask(connection, *commands.acl_dry_run(user, commands.SAVE)) if isinstance(user, str) else ""
    return f"NOPERM {answer}" if isinstance(answer, str) and "no permissions" in answer else ""


def _commands_of(connection: Connection, write: Write, mode: MigrationMode | None) -> tuple[Command, ...]:
    """One command for each right that a write needs. None for a setting and a cancellation: a run goes on without."""
    match write:
        case SetTimeout() | SetConfig() | CancelMigration():
            return ()
        case Leave():
            reply = ask(connection, *commands.PERSISTENCE)
            append_only = isinstance(reply, str) and parse_persistence(parse_info(reply)).append_only
            return (commands.RESET, *((commands.SAVE, commands.BGREWRITEAOF) if append_only else (commands.BGSAVE,)))
        case MoveKeys():
            return commands.TRIAL_OF_MOVING_KEYS
        case MoveSlots():
            return (*commands.TRIAL_OF_MOVING_KEYS, commands.assign(0, "x")) if mode is MigrationMode.KEYS else ()
        case Provision():
            functions = (commands.function_load("x"),) if write.libraries else ()
            return (*functions, *(commands.acl_set_user(name, ()) for name in write.users[:1]))
        case _:
            return commands_for(write)[:1]


def _is_permanent(text: str) -> bool:
    """True where a right or a command is missing."""
    return text.startswith("NOPERM") or "unknown command" in text or "unknown subcommand" in text


def _text(reply: Any) -> str:
    """An error with its code, which redis-py keeps apart; "" for any other reply. A server that denies EXEC puts
    another code in front.
    """
    if not isinstance(reply, Exception):
        return ""
    code = getattr(reply, "status_code", None) or ""
    return f"{code} {reply}".strip().removeprefix("EXECABORT Transaction discarded because of: ")
