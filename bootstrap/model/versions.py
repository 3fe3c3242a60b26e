"""Versions of servers: whether the pods of a cluster can go from one to another, one pod after the other.

A server reads the files on its disk, and the full copy that it takes of its master, in a format with a number (RDB). It
reads every format up to its own. Numbers up to 11 are common to Redis and Valkey; 12 to 79 belong to Redis, 80 and
more to Valkey. Sources: `RDB_VERSION` in src/rdb.h of the releases of both; *measured* are the files of Redis 5.0.6,
6.2.5, 7.0.15 and 8.2.3 and Valkey 8.1 and 9.1.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import combinations

from bootstrap.errors import RUN_AGAIN, Reason
from bootstrap.model.rollout import shown

Line = tuple[int, int]
"""Major and minor number."""
_REDIS: dict[Line, int] = {
    **dict.fromkeys([(5, 0), (6, 0), (6, 2)], 9),
    (7, 0): 10,
    (7, 2): 11,
    **dict.fromkeys([(7, 4), (8, 0), (8, 2), (8, 4)], 12),
    (8, 6): 13,
    (8, 8): 14,
    (8, 10): 15,
}
_VALKEY: dict[Line, int] = {(7, 2): 11, (8, 0): 11, (8, 1): 11, (9, 0): 80, (9, 1): 80}
_FORMATS = {"redis": _REDIS, "valkey": _VALKEY}
_COMMON, _OF_VALKEY = 11, 80
"""The last format that both read, and the first of Valkey alone."""
RELAXED = "rdb-version-check relaxed"
"""With it Valkey 9.0 and newer read the formats of Redis, as long as no key has a type or a field that only Redis knows
(valkey-io/valkey pull request 2543)."""
_RELAXED_SINCE: Line = (9, 0)
_FIRST_WITH_EXTENSIONS: Line = (7, 0)
_STRICT_BUS = frozenset({(7, 2), (7, 4)})
"""Lines of Redis with releases (7.2.0 to 7.2.6, 7.4.0, 7.4.1) that send packets on the cluster bus that servers before
7.0 drop, so that each side takes the other for failed (*measured* from 6.2.5 to 7.2.6; redis/redis issues 12685 and
13128, pull request 13465)."""


_CLASHING: dict[str, Line] = {"redis": (8, 0), "valkey": (8, 0)}
"""Since these lines, number 4 of the extensions of packets on the cluster bus is the cluster's internal secret for
Redis, and a member's address for clients for Valkey (clusterMsgPingtypes in src/cluster_legacy.h of both). *Measured*,
Redis 8.2.3 and Valkey 9.1.2 in one cluster: Valkey redirected clients to that secret as if it was a host (`MOVED 15495
26b7ac18…:6379`), with what lies behind it in memory, and crashed (signal 11)."""
_COPY_INSTEAD = "keep the image of {old}, or copy the data into a new cluster of {new}: docs/moving.md"
_WITHOUT_SHARD_IDS: Line = (7, 0)
_SHARD_ID_REMEDY = (
    "let no pod restart before the rollout is complete: a pod of the new version that starts again while one of 7.0 "
    "runs may find its nodes.conf corrupted; or go from 7.0 directly to redis 8.2"
)
"""*Measured* with 7.2.6; redis/redis issue 12761, pull request 13468. The lines are those of `_STRICT_BUS`."""


class PathVerdict(StrEnum):
    """Whether pods can go from one version to another; the value is the text for people."""

    GOOD = "good"
    NEEDS_SETTING = "needs a setting"
    NEEDS_STEP = "needs a step between"
    NO_WAY_BACK = "no way back"
    """An older version of the same server."""
    NOT_POSSIBLE = "not possible"
    """Another server that reads neither the files nor the copies, or does not understand the packets."""
    UNKNOWN = "not known"

    @property
    def open(self) -> bool:
        """True where nothing known stands against it, or one setting does."""
        return self in (PathVerdict.GOOD, PathVerdict.NEEDS_SETTING, PathVerdict.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradePath:
    """The way from one version to another."""

    old: str
    new: str
    verdict: PathVerdict
    why: str
    remedy: str = ""
    """What to do about it, or to take care of; "" for nothing."""
    setting: str = ""
    """The line of the new servers' redis.conf that it needs."""
    by_way_of: str = ""
    """The line to go to first."""

    def __str__(self) -> str:
        return f"{self.old} → {self.new}: {self.verdict.value}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The name and the numbers of a server's version, in the order in which they were released."""

    name: str
    numbers: tuple[int, ...]

    @property
    def line(self) -> Line:
        """Major and minor number: what decides about formats."""
        return (self.numbers[0], self.numbers[1])

    @property
    def format(self) -> int:
        """The number of the format that it writes. A line that is newer than the known ones has one of its own."""
        known = _FORMATS[self.name]
        if self.line > max(known):
            return max(known.values()) + 1
        return known[max(line for line in known if line <= self.line)]


@cache
def parse(text: str) -> Version | None:
    """`redis 7.0.15` as a version; None for a server or a version that is not known, or before Redis 5.0."""
    found = re.fullmatch(r"(redis|valkey) ([0-9]+)\.([0-9]+)(?:\.([0-9]+))?.*", text, re.ASCII)
    if not found:
        return None
    version = Version(name=found[1], numbers=tuple(int(number) for number in found.groups()[1:] if number))
    return version if version.line >= min(_FORMATS[version.name]) else None


def upgrade_path(old: str, new: str, *, disks: bool = True) -> UpgradePath:
    """Whether servers of the version `old` can be replaced, one after the other, by servers of the version `new`, both
    as `redis 7.0.15`. `disks`: a new server starts on the files of an old one; else it starts empty, and takes its copy
    from an old master.
    """
    one, other = parse(old), parse(new)
    if one is None or other is None:
        unknown = old if one is None else new
        return _path(old, new, PathVerdict.UNKNOWN, f"{unknown} is not among the versions that this program knows")
    if why := clash(old, new):
        if one.name == other.name and one.line < other.line:
            remedy = "go to redis 7.0 first, or from this version directly to redis 8.2"
            return _path(old, new, PathVerdict.NEEDS_STEP, why, remedy, by_way_of="redis 7.0")
        return _path(old, new, PathVerdict.NOT_POSSIBLE, why, _COPY_INSTEAD.format(old=old, new=new))
    if one.name == other.name == "redis" and one.line == _WITHOUT_SHARD_IDS and other.line in _STRICT_BUS:
        return _path(old, new, PathVerdict.GOOD, f"{new} reads the files and the copies of {old}", _SHARD_ID_REMEDY)
    return _formats_path(one, other, old, new, disks=disks)


def copy_path(master: str, replica: str) -> UpgradePath:
    """Whether a replica reads a full copy of its master, by their versions, and whatever the cluster bus does."""
    one, other = parse(master), parse(replica)
    if one is None or other is None:
        return _path(master, replica, PathVerdict.UNKNOWN, "one of the versions is not known to this program")
    return _formats_path(one, other, master, replica, disks=False)


def clash(one: str, other: str) -> str:
    """Why servers of two versions cannot be members of one cluster, in whichever order; "" where nothing is known."""
    found = sorted(filter(None, (parse(one), parse(other))), key=lambda version: (version.name, version.line))
    if len(found) < 2:
        return ""
    first, last = found
    if first.name != last.name and all(version.line >= _CLASHING[version.name] for version in found):
        return (
            "Redis 8.0 and newer and Valkey 8.0 and newer misread each other's packets on the cluster bus: clients are "
            "redirected to hosts that do not exist, and servers crash"
        )
    if last.name == "redis" and first.line < _FIRST_WITH_EXTENSIONS and last.line in _STRICT_BUS:
        return f"releases of {_line(last)} and servers before Redis 7.0 take each other for failed on the cluster bus"
    return ""


def clashes(pods: Mapping[str, str], statefulset: str) -> Iterator[Reason]:
    """One reason for each two versions that cannot be members of one cluster. `pods`: the version of each pod."""
    for one, other in combinations(sorted(set(pods.values())), 2):
        if why := clash(one, other):
            sides = (f"{version} on {shown(tuple(p for p in pods if pods[p] == version))}" for version in (one, other))
            remedy = (
                f"kubectl rollout undo statefulset/{statefulset}, if a rollout is under way, and set the image back in "
                f"the overlay; or let it end soon: kubectl rollout status statefulset/{statefulset}; then {RUN_AGAIN}"
            )
            yield Reason(code="versions-clash", message=f"{', '.join(sides)}: {why}", remedy=remedy)


def _formats_path(one: Version, other: Version, old: str, new: str, *, disks: bool) -> UpgradePath:
    formats = {_sent(one, other), *([one.format] if disks else [])}
    if one.name == other.name and other.line < one.line and not (formats <= {_COMMON} and other.format >= _COMMON):
        return _no_way_back(one, other, old, new)
    unread = {number for number in formats if not _reads(other, number)}
    if not unread:
        what = "the files and the copies" if disks else "the copies"
        return _path(old, new, PathVerdict.GOOD, f"{new} reads {what} of {old}")
    foreign = all(_COMMON < number < _OF_VALKEY for number in unread)
    if other.name == "valkey" and foreign and other.line >= _RELAXED_SINCE:
        why = f"by default {new} rejects format {min(unread)}, which {old} writes"
        remedy = (
            f"set {RELAXED} in redis.conf before the image changes; keys of a type that only Redis knows, and hashes "
            "with expiring fields, stop a server from loading even then"
        )
        return _path(old, new, PathVerdict.NEEDS_SETTING, why, remedy, setting=RELAXED)
    why = f"{new} does not read format {max(unread)}, which {old} writes"
    return _path(old, new, PathVerdict.NOT_POSSIBLE, why, _stay(old))


def _no_way_back(one: Version, other: Version, old: str, new: str) -> UpgradePath:
    if one.format > other.format:
        why = f"{new} is older and does not read format {one.format}, which {old} writes"
    else:
        why = f"{new} is older: no server promises to read what a newer one writes, though the format has one number"
    return _path(old, new, PathVerdict.NO_WAY_BACK, why, _stay(old))


def _sent(master: Version, replica: Version) -> int:
    """The format of the copy that a master sends. Valkey 9.0 and newer send older servers the last common format."""
    adapts = master.format >= _OF_VALKEY and replica.format < _OF_VALKEY
    return _COMMON if adapts else master.format


def _reads(reader: Version, number: int) -> bool:
    common = min(_COMMON, reader.format)
    return number <= common or (reader.format >= number and (number >= _OF_VALKEY) == (reader.name == "valkey"))


def _line(version: Version) -> str:
    return f"{version.name.capitalize()} {version.line[0]}.{version.line[1]}"


def _stay(old: str) -> str:
    return f"keep the image of {old}, or a newer one; a backup from before the upgrade can be loaded into a new cluster"


def _path(
    old: str, new: str, verdict: PathVerdict, why: str, remedy: str = "", *, setting: str = "", by_way_of: str = ""
) -> UpgradePath:
    return UpgradePath(old=old, new=new, verdict=verdict, why=why, remedy=remedy, setting=setting, by_way_of=by_way_of)
