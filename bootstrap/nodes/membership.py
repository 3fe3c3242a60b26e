"""A node that joins a cluster and one that leaves it: writes that take several exchanges with the node."""

from __future__ import annotations

from bootstrap.clock import Clock
from bootstrap.model.steps import Provision
from bootstrap.nodes import commands
from bootstrap.nodes.commands import Command
from bootstrap.nodes.connection import Ask, AskAll, first_error
from bootstrap.nodes.wire.info import parse_info, parse_persistence, parse_replication, parse_snapshot
from bootstrap.nodes.wire.provisions import parse_acl_list, parse_function_list

FILE_TRIES, FILE_PAUSE_S = 40, 0.05
"""How often a server is asked whether it has written its files, and the seconds in between."""
FRESH_S = 60
"""How old the snapshot of a server that leaves may be, in seconds: a run that was killed has let it write one."""


def libraries(ask: Ask) -> frozenset[str] | None:
    """The names of a server's function libraries; None where it is older than 7.0 or denies the question."""
    found = parse_function_list(ask(*commands.FUNCTION_LIST))
    return None if found is None else frozenset(found)


def users(ask: Ask) -> frozenset[str] | None:
    """The names of a server's ACL users; None where it is older than 6.0 or denies the question."""
    found = parse_acl_list(ask(*commands.ACL_LIST))
    return None if found is None else frozenset(found)


def provision_node(ask: Ask, ask_origin: Ask, step: Provision) -> Exception | None:
    """Copies function libraries and ACL users from another server; returns the first error. Users are also saved, where
    the server keeps them in a file.
    """
    for name in step.libraries:
        reply = ask_origin(*commands.function_code(name))
        if isinstance(reply, Exception):
            return reply
        code = (parse_function_list(reply) or {})[name]
        if isinstance(answer := ask(*commands.function_load(code)), Exception):
            return answer
    listed = ask_origin(*commands.ACL_LIST) if step.users else []
    if isinstance(listed, Exception):
        return listed
    rules = parse_acl_list(listed) or {}
    for name in step.users:
        if isinstance(answer := ask(*commands.acl_set_user(name, rules.get(name, ()))), Exception):
            return answer
    if step.users:
        ask(*commands.ACL_SAVE)  # an error where there is no file for them, or where it is read-only
    return None


def leave(ask_all: AskAll, *, clock: Clock) -> Exception | None:
    """Resets a node and rewrites its files; returns the error where there was one. A master that holds keys rejects the
    reset, and no command here deletes a key.

    After the reset the node owns nothing, but its files still do: after a restart they would claim its slots
    (*measured*, 7.0.15). So the file that a restart reads is rewritten, by a command in the same packet as the reset,
    since a run may be killed between two packets. A server that is writing a file already accepts no second such
    command, so the reset waits for it.
    """
    to_do: list[Command] | None = None
    for _ in range(FILE_TRIES):
        (reply,) = ask_all([commands.PERSISTENCE])
        if isinstance(reply, Exception):
            return reply
        files = parse_persistence(parse_info(reply))
        in_background = commands.BGREWRITEAOF if files.append_only else commands.BGSAVE
        if files.writing:
            clock.sleep(FILE_PAUSE_S)
        elif to_do is None:
            error, started = ask_all([commands.RESET, in_background])
            if isinstance(error, Exception):
                return error
            to_do = [commands.SAVE] if files.append_only or isinstance(started, Exception) else []
            to_do += [commands.BGREWRITEAOF] if files.append_only and isinstance(started, Exception) else []
        elif to_do:
            (reply,) = ask_all([to_do[0]])
            if isinstance(reply, Exception):
                clock.sleep(FILE_PAUSE_S)
            else:
                del to_do[0]
        elif files.written:
            return None
        else:
            to_do = [in_background]
            clock.sleep(FILE_PAUSE_S)
    return TimeoutError(
        "the server has not rewritten its files in time, and they may still hold its former slots and keys: "
        "see its log and the free space on its disk, then run again"
    )


def retire(ask_all: AskAll, *, clock: Clock) -> Exception | None:
    """Writes a snapshot, then resets a server without deleting a file; returns the error where there was one.

    A replica's reset empties its memory, and a server with save points writes that emptiness over its snapshot when it
    shuts down (*measured*, 7.0.15). So it is told before to write none; where it rejects that, it is not reset. A
    snapshot that takes longer than one exchange may goes on in the background, and the next try finds it. A replica
    without a link writes none: its copy may be gone or incomplete.
    """
    for _ in range(FILE_TRIES):
        moment, persistence, server, replication = ask_all(
            [commands.TIME, commands.PERSISTENCE, commands.SERVER, commands.REPLICATION]
        )
        if (error := first_error([moment, persistence, server, replication])) is not None:
            return error
        if not parse_replication(parse_info(replication)).link_up:
            break  # it may have lost its keys, and its files may still have them
        files = parse_snapshot(parse_info(persistence), parse_info(server), now_s=int(moment[0]))
        if files.age_s is not None and files.age_s <= FRESH_S:
            break
        if not files.writing:
            (started,) = ask_all([commands.BGSAVE])
            if isinstance(started, Exception) and "in progress" not in str(started):
                return started
        clock.sleep(FILE_PAUSE_S)
    else:
        return TimeoutError("it is still writing its snapshot; the next try goes on when that is complete")
    for command in (commands.SAVE_NO_MORE, commands.RESET):
        (reply,) = ask_all([command])
        if isinstance(reply, Exception):
            return reply
    return None
