"""The verdict on the way from one version of a server to another."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bootstrap.model.versions import RELAXED, PathVerdict, clash, clashes, copy_path, parse, upgrade_path

GOOD, SETTING, STEP = PathVerdict.GOOD, PathVerdict.NEEDS_SETTING, PathVerdict.NEEDS_STEP
NO_WAY_BACK, NOT_POSSIBLE, UNKNOWN = PathVerdict.NO_WAY_BACK, PathVerdict.NOT_POSSIBLE, PathVerdict.UNKNOWN
RELEASES = [
    *("redis 5.0.6", "redis 6.0.20", "redis 6.2.5", "redis 7.0.15", "redis 7.2.6", "redis 7.4.1"),
    *("redis 8.0.6", "redis 8.2.3", "redis 8.4.5", "redis 8.6.5", "redis 8.8.1", "redis 8.10.2"),
]
VALKEYS = ["valkey 7.2.7", "valkey 8.0.1", "valkey 8.1.4", "valkey 9.0.3", "valkey 9.1.2"]


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("redis 7.0.15", "redis 7.0.15", GOOD),
        ("redis 7.0.15", "redis 7.0.4", GOOD),
        ("redis 5.0.6", "redis 6.2.5", GOOD),
        ("redis 6.2.5", "redis 7.0.15", GOOD),
        ("redis 6.2.5", "redis 8.2.3", GOOD),
        ("redis 7.0.15", "redis 8.2.3", GOOD),
        ("redis 8.2.3", "redis 8.10.2", GOOD),
        ("redis 8.10.2", "redis 9.0.0", GOOD),
        ("redis 6.2.5", "redis 7.2.6", STEP),
        ("redis 5.0.6", "redis 7.4.1", STEP),
        ("redis 7.0.15", "redis 7.2.6", GOOD),
        ("redis 7.0.15", "valkey 9.1.2", GOOD),
        ("redis 5.0.6", "valkey 9.1.2", GOOD),
        ("redis 7.2.6", "valkey 7.2.7", GOOD),
        ("redis 7.2.6", "valkey 8.1.4", GOOD),
        ("redis 7.4.1", "valkey 9.0.3", SETTING),
        ("redis 8.0.6", "valkey 9.0.3", NOT_POSSIBLE),
        ("redis 8.2.3", "valkey 9.1.2", NOT_POSSIBLE),
        ("redis 8.10.2", "valkey 9.3.0", NOT_POSSIBLE),
        ("redis 8.2.3", "valkey 8.1.4", NOT_POSSIBLE),
        ("redis 8.2.3", "valkey 7.2.7", NOT_POSSIBLE),
        ("redis 7.4.1", "valkey 8.1.4", NOT_POSSIBLE),
        ("valkey 8.1.4", "redis 8.2.3", NOT_POSSIBLE),
        ("valkey 7.2.7", "redis 8.2.3", GOOD),
        ("valkey 8.1.4", "redis 7.4.1", GOOD),
        ("valkey 8.1.4", "redis 7.2.6", GOOD),
        ("valkey 8.1.4", "redis 7.0.15", NOT_POSSIBLE),
        ("valkey 9.1.2", "redis 7.0.15", NOT_POSSIBLE),
        ("valkey 9.1.2", "redis 8.10.2", NOT_POSSIBLE),
        ("redis 8.2.3", "redis 7.0.15", NO_WAY_BACK),
        ("redis 8.10.2", "redis 8.2.3", NO_WAY_BACK),
        ("redis 8.4.5", "redis 8.2.3", NO_WAY_BACK),
        ("redis 6.2.5", "redis 5.0.6", NO_WAY_BACK),
        ("redis 9.2.0", "redis 9.0.0", NO_WAY_BACK),
        ("valkey 9.1.2", "valkey 8.1.4", NO_WAY_BACK),
        ("valkey 8.1.4", "valkey 8.0.1", GOOD),
        ("redis ?", "redis 8.2.3", UNKNOWN),
        ("redis 8.2.3", "keydb 6.3.4", UNKNOWN),
        ("redis 4.0.14", "redis 8.2.3", UNKNOWN),
    ],
)
def test_verdicts(old: str, new: str, verdict: PathVerdict) -> None:
    """One pair of each kind, on the disks that are there."""
    path = upgrade_path(old, new)
    assert path.verdict is verdict
    assert path.why
    assert path.remedy or verdict in (GOOD, UNKNOWN), "a path that is not good names what to do"
    assert bool(path.setting) == (verdict is SETTING)


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("redis 7.0.15", "redis 8.2.3", GOOD),
        ("redis 7.4.1", "valkey 9.1.2", SETTING),
        ("redis 8.2.3", "valkey 9.1.2", NOT_POSSIBLE),
        ("valkey 9.1.2", "redis 7.2.6", GOOD),
        ("valkey 9.1.2", "redis 7.4.1", GOOD),
        ("valkey 9.1.2", "redis 8.2.3", NOT_POSSIBLE),
        ("valkey 9.1.2", "valkey 8.1.4", GOOD),
        ("valkey 9.1.2", "redis 7.0.15", NOT_POSSIBLE),
        ("redis 8.2.3", "redis 7.0.15", NO_WAY_BACK),
        ("redis 6.2.5", "redis 7.2.6", STEP),
    ],
)
def test_empty_servers_need_only_the_copy(old: str, new: str, verdict: PathVerdict) -> None:
    """Without disks, a Valkey master sends an older replica a copy that it reads."""
    assert upgrade_path(old, new, disks=False).verdict is verdict


def test_the_next_line_is_always_open() -> None:
    """No line is a dead end, and no server goes back over a new format."""
    for lines in (RELEASES, VALKEYS):
        for old, new in pairwise(lines):
            assert upgrade_path(old, new).verdict.open
            older, newer = parse(old), parse(new)
            assert older
            assert newer
            if newer.format > older.format:
                assert upgrade_path(new, old).verdict is NO_WAY_BACK


def test_a_good_path_that_needs_care_says_so() -> None:
    """A restart in the middle of the rollout from 7.0 to 7.2."""
    path = upgrade_path("redis 7.0.15", "redis 7.2.6")
    assert path.verdict is GOOD
    assert "let no pod restart" in path.remedy
    assert upgrade_path("redis 7.0.15", "redis 8.2.3").remedy == ""


def test_a_step_between_leads_to_the_goal() -> None:
    """Both halves of a path that needs a step are open."""
    path = upgrade_path("redis 6.2.5", "redis 7.2.6")
    assert upgrade_path(path.old, f"{path.by_way_of}.0").verdict.open
    assert upgrade_path(f"{path.by_way_of}.0", path.new).verdict.open


def test_the_setting_is_named_with_its_limit() -> None:
    """`relaxed` does not help with keys that only Redis knows."""
    path = upgrade_path("redis 7.4.1", "valkey 9.1.2")
    assert path.setting == RELAXED
    assert "only Redis knows" in path.remedy


@pytest.mark.parametrize(
    ("one", "other", "clashing"),
    [
        ("redis 8.2.3", "valkey 9.1.2", True),
        ("redis 8.0.6", "valkey 8.0.1", True),
        ("redis 7.4.1", "valkey 9.1.2", False),
        ("redis 8.2.3", "valkey 7.2.7", False),
        ("redis 6.2.5", "redis 7.2.6", True),
        ("redis 5.0.6", "redis 7.4.1", True),
        ("redis 7.0.15", "redis 7.2.6", False),
        ("redis 6.2.5", "redis 8.2.3", False),
        ("redis 6.2.5", "valkey 7.2.7", False),
        ("redis ?", "valkey 9.1.2", False),
    ],
)
def test_versions_that_cannot_be_in_one_cluster(one: str, other: str, *, clashing: bool) -> None:
    """In whichever order; no path leads from one to the other directly."""
    assert bool(clash(one, other)) is bool(clash(other, one)) is clashing
    if clashing:
        assert not upgrade_path(one, other).verdict.open
        assert not upgrade_path(other, one, disks=False).verdict.open
        (reason,) = clashes({"redis-app-0": one, "redis-app-1": other, "redis-app-2": one}, "redis-app")
        assert f"{one} on redis-app-0, redis-app-2" in reason.message
        assert "kubectl rollout undo statefulset/redis-app" in reason.remedy
    else:
        assert not [*clashes({"redis-app-0": one, "redis-app-1": other}, "redis-app")]


def test_a_copy_is_judged_without_the_bus() -> None:
    """The reason of a link that is down is the format of the copy alone."""
    assert copy_path("redis 8.2.3", "valkey 9.1.2").verdict is SETTING
    assert copy_path("valkey 9.1.2", "redis 8.2.3").verdict is GOOD
    assert copy_path("redis 6.2.5", "redis 7.2.6").verdict is GOOD
    assert copy_path("redis ?", "redis 7.2.6").verdict is UNKNOWN
