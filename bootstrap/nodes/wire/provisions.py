"""Replies about what a new master has to be given, since replication does not bring it: FUNCTION LIST and ACL LIST."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bootstrap.nodes.wire.values import as_text

_RULE = re.compile(r"\([^)]*\)|\S+")
"""A selector is one rule, although it contains blanks."""


def parse_function_list(reply: object) -> Mapping[str, str] | None:
    """FUNCTION LIST, in RESP2 a flat list of names and values per library: the libraries' names, with their code where
    WITHCODE asked for it. None for an error reply: the server is older than 7.0, or denies the command.
    """
    if not isinstance(reply, list):
        return None
    entries = [
        {as_text(name): value for name, value in zip(entry[::2], entry[1::2], strict=False)}
        for entry in reply
        if isinstance(entry, list)
    ]
    return {str(each["library_name"]): str(each.get("library_code", "")) for each in entries if "library_name" in each}


def parse_acl_list(reply: object) -> Mapping[str, tuple[str, ...]] | None:
    """ACL LIST, one line `user <name> <rule>…` per user: the users' names with their rules. None for an error reply:
    the server is older than 6.0, or denies the command.
    """
    return dict(_users(reply)) if isinstance(reply, list) else None


def _users(lines: list[object]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in lines:
        words = _RULE.findall(str(line))
        if len(words) > 1 and words[0] == "user":
            yield words[1], tuple(words[2:])
