"""The report of a run, for machines and for people."""

from __future__ import annotations

import io
import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap.errors import Reason
from bootstrap.model.node import Address
from bootstrap.model.outcome import Outcome, SinglePoint, Verdict
from bootstrap.model.plan import Plan
from bootstrap.model.unreachable import UnreachablePeer, UnreachableReason
from bootstrap.model.view import ClusterView
from bootstrap.plan.planner import plan
from bootstrap.run.report import outcome_of, plan_fields, plan_text, print_outcome, table
from bootstrap.run.termination_message import TERMINATION_MESSAGE_MAX, termination_message
from tests.builders import formed, shape, with_line
from tests.fake_cluster import FakeCluster
from tests.plan.places import two_of_three_on_one_machine
from tests.run.runs import Notes

CONTRACT = [
    *("outcome", "exit_code", "cluster", "shards", "nodes", "slots_covered", "serving", "steps", "took_s", "placement"),
    *("skew", "versions", "next", "reasons"),
]
REASON = st.builds(Reason, code=st.text(), message=st.text(max_size=5000), remedy=st.text(), node=st.none() | st.text())


POINTS = st.builds(
    SinglePoint,
    domain=st.sampled_from(["node", "zone"]),
    name=st.text("abc-", max_size=253),
    stops=st.booleans(),
    loses=st.lists(st.integers(0, 499), max_size=500).map(tuple),
    why=st.text("abc ", max_size=100),
)


def outcome(*reasons: Reason) -> Outcome:
    view = formed(shape()).look()
    return outcome_of("refused", view, exit_code=3, steps=7, took_s=1.23456, reasons=reasons)


def test_an_outcome_has_the_fields_of_the_contract() -> None:
    """In this order, with the view's numbers in them."""
    fields = outcome(
        Reason(code="c", message="m", remedy="r"), Reason(code="c", message="m", remedy="r", node="n")
    ).as_fields()
    assert list(fields) == CONTRACT
    assert (fields["shards"], fields["nodes"], fields["slots_covered"], fields["steps"]) == (3, 6, 16384, 7)
    assert fields["serving"] is True
    assert fields["took_s"] == 1.23
    assert fields["reasons"] == [
        {"code": "c", "message": "m", "remedy": "r"},
        {"code": "c", "message": "m", "remedy": "r", "node": "n"},
    ]


def test_a_console_shows_each_remedy_once() -> None:
    """Below all reasons that share it, in the order of the first of them."""
    out = io.StringIO()
    reasons = [Reason(code=f"c{number}", message="m", remedy=remedy) for number, remedy in enumerate("aba")]
    print_outcome(outcome(*reasons), console=True, log=Notes(), out=out)
    assert out.getvalue().splitlines()[:5] == ["c0: m", "c2: m", "    → a", "c1: m", "    → b"]


def test_a_termination_message_is_the_same_object() -> None:
    """With its event, and nothing dropped while it fits."""
    one = outcome(Reason(code="c", message="für Größe", remedy="r"))
    assert json.loads(termination_message(one)) == {"event": "outcome", **one.as_fields()}


@given(st.lists(REASON, max_size=30))
@settings(deadline=None, max_examples=60)
def test_a_termination_message_always_fits_and_is_always_json(reasons: list[Reason]) -> None:
    """The kubelet cuts at 4096 bytes, which would break the JSON object."""
    text = termination_message(outcome(*reasons))
    assert len(text.encode()) <= TERMINATION_MESSAGE_MAX
    fields = json.loads(text)
    assert [name for name in fields if name in CONTRACT] == CONTRACT
    assert len(fields["reasons"]) + fields.get("reasons_dropped", 0) == len(reasons)


@given(st.lists(POINTS, max_size=100), st.lists(REASON, max_size=5))
@settings(deadline=None, max_examples=60)
def test_a_termination_message_fits_with_many_single_points(points: list[SinglePoint], reasons: list[Reason]) -> None:
    """The first one stays."""
    verdict = Verdict(verdict="improvable", why=("x" * 1000,) * 9, single_points=tuple(points))
    text = termination_message(replace(outcome(*reasons), placement=verdict))
    assert len(text.encode()) <= TERMINATION_MESSAGE_MAX
    shown = json.loads(text)["placement"]["single_points"]
    assert [point["name"] for point in shown][:1] == [point.name for point in points][:1]


def test_an_outcome_names_single_points_of_failure() -> None:
    """Machine-readable, and in words."""
    view = two_of_three_on_one_machine().look()
    placement = outcome_of("unchanged", view, exit_code=0, steps=0, took_s=1.0).as_fields()["placement"]
    why = "2 of 3 masters run there"
    assert placement["single_points"] == [
        {"domain": "node", "name": "n2", "stops": True, "loses": [], "why": why},
        {"domain": "zone", "name": "b", "stops": True, "loses": [], "why": why},
    ]


def test_dropped_reasons_are_counted() -> None:
    """A person must see that the list is incomplete; the first reasons stay."""
    reasons = [Reason(code=f"c{number}", message="x" * 100, remedy="y" * 100) for number in range(100)]
    text = termination_message(outcome(*reasons))
    fields = json.loads(text)
    assert TERMINATION_MESSAGE_MAX - 300 < len(text.encode()) <= TERMINATION_MESSAGE_MAX
    assert fields["reasons_dropped"] == 100 - len(fields["reasons"]) > 0
    assert fields["reasons"][0]["code"] == "c0"


def test_a_fingerprint_names_owners_and_their_slots() -> None:
    """It does not depend on the order of nodes, nor on replicas; it changes with an owner or a slot."""
    view = formed(shape()).look()
    name = view.fingerprint()
    assert len(name) == 12
    assert replace(view, nodes=view.nodes[::-1]).fingerprint() == name
    assert replace(view, nodes=view.nodes[:3]).fingerprint() == name
    assert with_line(view, 0, 0, node_id="f" * 40).fingerprint() != name
    assert with_line(view, 0, 0, slots=view.nodes[1].slots).fingerprint() != name


def test_blank_nodes_have_no_fingerprint() -> None:
    """They are not a cluster yet."""
    assert ClusterView().fingerprint() == FakeCluster(3).look().fingerprint() == ""


def test_a_table_shows_an_incomplete_cluster() -> None:
    """Shard by shard, masters first, then nodes without a shard, then unreachable pods."""
    cluster = formed(shape())
    cluster[3].link_up, cluster[2].serving, cluster[1].keys = False, False, 42
    cluster[5].master = None
    view = cluster.look()
    late = UnreachablePeer(
        pod="redis-app-6", ordinal=6, why=UnreachableReason.LOADING, address=Address("10.0.0.7", 6379)
    )
    lines = table(replace(view, unreachable=(late,))).splitlines()
    cells = [line.split() for line in lines]
    assert cells[0] == ["POD", "ROLE", "SHARD", "SLOTS", "KEYS", "MEMORY", "STATE", "LINK", "ADDRESS", "VERSION"]
    assert [row[0][-1] for row in cells[1:]] == ["0", "3", "1", "4", "2", "5", "6"]
    assert cells[1][1:7] == ["master", "0", "0-5460", "0", "-", "ok"]
    assert cells[2][1:9] == ["replica", "0", "-", "0", "-", "ok", "redis-app-0", "DOWN"]
    assert cells[3][4] == "42"
    assert cells[5][6] == "FAIL"
    assert cells[6][1:3] == ["master", "-"]
    assert "still loading its data" in lines[7]
    assert all(line == line.rstrip() for line in lines)


def test_columns_of_a_table_are_aligned() -> None:
    """Each cell starts below its heading, whatever the widths."""
    head, *rows = table(formed(shape(12, 1)).look()).splitlines()
    at = head.index("SLOTS")
    assert {row[at - 1] for row in rows} == {" "}
    assert {row[at] == " " for row in rows} == {False}


def test_a_plan_of_many_steps_is_printed_in_few_lines() -> None:
    """The log line has all steps; the text for people has the first twelve of a phase and a number."""
    view = FakeCluster(60).look()
    found = plan(view, shape(30, 1))
    assert isinstance(found, Plan)
    text, fields = plan_text(found, view), plan_fields(found, view)
    assert "… and 108 more" in text
    assert sum(len(phase["steps"]) for phase in fields["phases"]) == sum(len(phase.steps) for phase in found.phases)
    json.dumps(fields)


def test_the_plan_for_a_healthy_cluster_is_not_empty_text() -> None:
    """It states that nothing has to be repaired."""
    view = formed(shape()).look()
    found = plan(view, shape())
    assert isinstance(found, Plan)
    assert plan_text(found, view) == "found: nothing to repair"
