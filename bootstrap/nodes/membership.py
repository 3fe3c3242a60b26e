"""Conversations with a node that joins a cluster or leaves it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bootstrap.model.steps import Provision

Ask = Callable[..., Any]
"""`ask(*words)` sends a command to one server and returns its reply, also when that is an error."""
Command = tuple[str, ...]
AskAll = Callable[[Sequence[Command]], list[Any]]
"""The same for several commands, which go out in one packet."""
FILE_TRIES, FILE_PAUSE_S = 40, 0.05
"""How often, and seconds after how long, it is looked whether a server has written its files."""
_PERSISTENCE: Command = ("INFO", "persistence")
_RESET: Command = ("CLUSTER", "RESET", "HARD")
_BGREWRITEAOF: Command = ("BGREWRITEAOF",)
_BGSAVE: Command = ("BGSAVE",)
_SAVE: Command = ("SAVE",)
"""Only of what is empty: the server answers nobody meanwhile. Unlike the others it says no while another one runs."""
_WORD = re.compile(r"\([^)]*\)|\S+")


def libraries(ask: Ask) -> frozenset[str] | None:
    """The names of a server's function libraries; None where it does not say: it is older than 7.0, or denies it."""
    reply = ask("FUNCTION", "LIST")
    return frozenset(_libraries(reply)) if isinstance(reply, list) else None


def users(ask: Ask) -> frozenset[str] | None:
    """The names of a server's ACL users; None where it does not say: it is older than 6.0, or denies it."""
    reply = ask("ACL", "LIST")
    return frozenset(_users(reply)) if isinstance(reply, list) else None


def provision_node(ask: Ask, ask_origin: Ask, step: Provision) -> Exception | None:
    """Gives a server what another one has; returns the first error. Whoever comes later has it, too, where the server
    keeps its users in a file.
    """
    for name in step.libraries:
        reply = ask_origin("FUNCTION", "LIST", "LIBRARYNAME", name, "WITHCODE")
        if isinstance(reply, Exception):
            return reply
        if isinstance(answer := ask("FUNCTION", "LOAD", "REPLACE", _libraries(reply)[name]), Exception):
            return answer
    told = ask_origin("ACL", "LIST") if step.users else []
    if isinstance(told, Exception):
        return told
    rules = _users(told)
    for name in step.users:
        if isinstance(answer := ask("ACL", "SETUSER", name, "reset", *rules.get(name, ())), Exception):
            return answer
    if step.users:
        ask("ACL", "SAVE")  # an error without a file for them, or with one that may only be read
    return None


def leave(ask_all: AskAll, pause: Callable[[float], object]) -> Exception | None:
    """Makes a node forget the cluster, and its files what it held; returns the error where there was one. A master that
    holds keys refuses the reset. After it the node has nothing, and so its files are written anew: what they still held
    would claim its slots after a restart (*measured*, 7.0.15). The file that is read then is asked for in the same
    packet as the reset, so no run is killed in between; not before the server is through with what it writes already,
    for it takes no second order. No command here deletes a key.
    """
    to_do: list[Command] | None = None
    for _ in range(FILE_TRIES):
        (told,) = ask_all([_PERSISTENCE])
        if isinstance(told, Exception):
            return told
        append_only = "aof_enabled:0" not in told
        in_background = _BGREWRITEAOF if append_only else _BGSAVE
        written = "aof_last_bgrewrite_status:ok" if append_only else "rdb_last_bgsave_status:ok"
        if "_in_progress:1" in told or "_scheduled:1" in told:
            pause(FILE_PAUSE_S)
        elif to_do is None:
            error, begun = ask_all([_RESET, in_background])
            if isinstance(error, Exception):
                return error
            to_do = [_SAVE] if append_only or isinstance(begun, Exception) else []
            to_do += [_BGREWRITEAOF] if append_only and isinstance(begun, Exception) else []
        elif to_do:
            (reply,) = ask_all([to_do[0]])
            if isinstance(reply, Exception):
                pause(FILE_PAUSE_S)
            else:
                del to_do[0]
        elif written in told:
            return None
        else:
            to_do = [in_background]
            pause(FILE_PAUSE_S)
    return TimeoutError("its files could not be written anew: they may still hold what it had")


def _libraries(reply: list[Any]) -> Mapping[str, str]:
    """Names with code, where that was asked for; in RESP2 each library is a flat list of names and values."""
    fields = [dict(zip(told[::2], told[1::2], strict=False)) for told in reply if isinstance(told, list)]
    return {str(each["library_name"]): str(each.get("library_code", "")) for each in fields if "library_name" in each}


def _users(reply: list[Any]) -> Mapping[str, tuple[str, ...]]:
    """Names with their rules. A selector is one word, though it has blanks."""
    return dict(_user_lines(reply))


def _user_lines(reply: list[Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in reply:
        words = _WORD.findall(str(line))
        if len(words) > 1 and words[0] == "user":
            yield words[1], tuple(words[2:])
