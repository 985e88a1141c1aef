"""Stored spans read again: nothing changes by itself, and what an older rule read wrongly comes right."""

# ruff: noqa: S608 - names of our own columns

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector.told import COSTING, NOW_NS, SPANS, append
from tierlight_collector import renormalise
from tierlight_collector.decode import decode_traces
from tierlight_collector.normalise import normalise
from tierlight_collector.records import (
    Batch,
    CallRow,
    Filters,
    ScoreRecord,
    TimeRange,
)
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import Store

EVER = TimeRange(0, 2**62)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tierlight.db"


@pytest.fixture
def store(path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the store anew, closing it before."""
    opened: list[Store] = []

    def reopen() -> Store:
        while opened:
            opened.pop().close()
        opened.append(open_store(f"sqlite:///{path}", now_ns=lambda: NOW_NS))
        return opened[-1]

    append(reopen(), SPANS)
    yield reopen
    while opened:
        opened.pop().close()


def facts(store: Store) -> list[CallRow | None]:
    return [store.call(each.trace_id, each.span_id) for each in SPANS]


def tamper(store: Callable[[], Store], path: Path, *statements: str) -> Store:
    """The store as an older rule would have left it."""
    store().close()
    connection = sqlite3.connect(path)
    for statement in statements:
        assert connection.execute(statement).rowcount > 0, statement
    connection.commit()
    connection.close()
    return store()


def test_reading_a_fresh_store_again_changes_nothing(store: Callable[[], Store]) -> None:
    opened = store()
    before = facts(opened)
    report = renormalise.apply(opened, COSTING)
    assert (report.spans, report.calls, report.changed, report.gone) == (9, 7, 0, 0)
    assert report.columns == {}
    assert facts(opened) == before
    assert opened.cost_history(SPANS[1].trace_id, SPANS[1].span_id) == []


def test_captured_spans_of_many_emitters_are_read_the_same_again(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "emitters").glob("*/*.traces.pb"))
    if not files:
        pytest.skip("no captured telemetry in the shared data folder")
    opened = open_store(f"sqlite:///{tmp_path / 'all.db'}")
    try:
        spans = [each for file in files for each in decode_traces(file.read_bytes(), "protobuf").spans]
        read = [normalise(each, max(each.start_ns, each.end_ns)) for each in spans]
        for each in read:
            if each.call is not None:
                COSTING.fill(each.call)
        for start in range(0, len(read), 100):
            opened.append(Batch(spans=tuple(read[start : start + 100])))
        report = renormalise.apply(opened, COSTING)
    finally:
        opened.close()
    assert report.calls > 200
    assert (report.changed, report.columns) == (0, {})


def test_tokens_and_models_of_an_older_rule_come_right_and_are_priced(
    store: Callable[[], Store], path: Path
) -> None:
    right = facts(store())
    rolled = store().rollups(EVER, ("route", "model"))
    opened = tamper(
        store,
        path,
        "UPDATE calls SET input_tokens = input_tokens + 7, cost_nusd = 1 WHERE response_id = 'r-6'",
        "UPDATE calls SET kind_id = (SELECT k.kind_id FROM calls k WHERE k.response_id = 'r-4')"
        " WHERE response_id = 'r-5'",
    )
    assert facts(opened) != right
    report = renormalise.apply(opened, COSTING)
    assert (report.changed, report.columns["input_tokens"], report.columns["request_model"]) == (2, 1, 1)
    assert facts(opened) == right
    assert opened.rollups(EVER, ("route", "model")) == rolled
    past = opened.cost_history(SPANS[7].trace_id, SPANS[7].span_id)
    assert [each.cost_nusd for each in past] == [1]
    assert renormalise.apply(opened, COSTING).changed == 0


def test_cost_stays_frozen_where_only_the_route_was_read_differently(
    store: Callable[[], Store], path: Path
) -> None:
    opened = tamper(
        store,
        path,
        "UPDATE calls SET cost_nusd = 42 WHERE response_id IN ('r-6')",
        "UPDATE calls SET kind_id = (SELECT k.kind_id FROM calls k WHERE k.response_id = 'r-2' LIMIT 1),"
        " hint_id = (SELECT id FROM route_hints WHERE declared = 'billing') WHERE response_id = 'r-6'",
    )
    report = renormalise.apply(opened, COSTING)
    row = opened.call(SPANS[7].trace_id, SPANS[7].span_id)
    assert row is not None
    assert (row.call.route, row.call.cost_nusd) == ("unrouted/shop", 42)
    assert "cost_nusd" not in report.columns
    assert opened.cost_history(SPANS[7].trace_id, SPANS[7].span_id) == []


def test_route_on_a_parent_that_was_not_understood_reaches_its_calls(
    store: Callable[[], Store], path: Path
) -> None:
    right = facts(store())
    opened = tamper(
        store,
        path,
        "UPDATE spans SET role = 'other', hint_id = (SELECT id FROM route_hints WHERE declared = ''"
        " AND dialect = '' AND agent = '' AND prompt = '' AND name = '') WHERE span_id = x'0000000000000065'",
        "UPDATE calls SET kind_id = (SELECT k.kind_id FROM calls k WHERE k.response_id = 'r-2' LIMIT 1)"
        " WHERE response_id = 'r-1'",
    )
    assert {row.route for row in opened.routes()} == {"billing", "unrouted/shop"}
    report = renormalise.apply(opened, COSTING)
    assert report.columns["route"] == 2
    assert facts(opened) == right


def test_spans_that_are_calls_by_now_and_calls_that_are_none_change_sides(
    store: Callable[[], Store], path: Path
) -> None:
    right = facts(store())
    score = ScoreRecord(
        "helpful", 1.0, "feedback", "feedback", NOW_NS, trace_id=SPANS[8].trace_id, span_id=SPANS[8].span_id
    )
    opened = tamper(
        store,
        path,
        # 4 was not seen to be a call ...
        "INSERT INTO spans SELECT seq, project_id, trace_id, span_id, parent_span_id, 'other', hint_id, start_ns,"
        " start_ns FROM calls WHERE response_id = 'r-4'",
        "DELETE FROM calls WHERE response_id = 'r-4'",
        # ... while 7 was taken for one.
        f"INSERT INTO calls SELECT {', '.join(_as_call(path))} FROM calls c, spans s"
        " WHERE c.response_id = 'r-6' AND s.trace_id = x'00000000000000000000000000000007'",
        "DELETE FROM spans WHERE trace_id = x'00000000000000000000000000000007'",
    )
    opened.add_scores([score])
    assert len(opened.calls(Filters()).rows) == 5
    report = renormalise.apply(opened, COSTING)
    assert (report.changed, report.columns) == (2, {"role": 2})
    found = facts(opened)
    assert found[8] is None
    arrived = [row.call.arrived_ns if row else 0 for row in found]
    assert (
        arrived[5] == SPANS[5].end_ns
    )  # when it came is on the calls alone; the end of the span stands for it
    assert [
        row and (row.call.route, row.call.input_tokens, row.call.cost_nusd, row.superseded) for row in found
    ] == [
        row and (row.call.route, row.call.input_tokens, row.call.cost_nusd, row.superseded) for row in right
    ]
    assert sum(rollup.calls for rollup in opened.rollups(EVER)) == 5
    assert opened.score_evidence(0, 10) == []


def _as_call(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute("PRAGMA table_info(calls)")]
    connection.close()
    from_span = {"seq", "project_id", "trace_id", "span_id", "parent_span_id", "start_ns", "hint_id"}
    return [
        f"s.{name}" if name in from_span else "NULL" if name == "response_id" else f"c.{name}"
        for name in names
    ]


def test_duplicate_that_was_not_recognised_gives_way(store: Callable[[], Store], path: Path) -> None:
    right = facts(store())
    opened = tamper(
        store,
        path,
        "UPDATE calls SET superseded_by = NULL, response_id = NULL WHERE superseded_by IS NOT NULL AND response_id = 'r-2'",
    )
    assert len(opened.calls(Filters()).rows) == 6
    report = renormalise.apply(opened, COSTING)
    assert report.columns == {"response_id": 1, "superseded": 1}
    assert facts(opened) == right
    assert len(opened.calls(Filters()).rows) == 5


def test_whatever_an_older_rule_made_of_them_the_calls_come_right(
    store: Callable[[], Store], path: Path
) -> None:
    """Columns, routes, roles and verdicts altered at random, many times over."""
    right = facts(store())
    rolled = store().rollups(EVER, ("route", "model"))
    for seed in range(12):
        store().close()
        chance = random.Random(seed)
        connection = sqlite3.connect(path)
        kinds = [id_ for (id_,) in connection.execute("SELECT id FROM call_kinds")]
        hints = [id_ for (id_,) in connection.execute("SELECT id FROM route_hints")]
        for (seq,) in connection.execute("SELECT seq FROM calls").fetchall():
            for column, value in (
                ("input_tokens", chance.randrange(9_999)),
                ("kind_id", chance.choice(kinds)),
                ("hint_id", chance.choice(hints)),
                ("superseded_by", None),
                ("response_id", None),
            ):
                if chance.random() < 0.3:
                    connection.execute(f"UPDATE calls SET {column} = ? WHERE seq = ?", (value, seq))
        connection.execute("UPDATE spans SET role = 'tool', hint_id = ?", (chance.choice(hints),))
        connection.commit()
        connection.close()
        opened = store()
        renormalise.apply(opened, COSTING)
        assert facts(opened) == right, seed
        assert opened.rollups(EVER, ("route", "model")) == rolled
        assert renormalise.apply(opened, COSTING).changed == 0


def test_only_the_meant_traces_are_read_again(store: Callable[[], Store], path: Path) -> None:
    opened = tamper(store, path, "UPDATE calls SET input_tokens = 1 WHERE response_id IN ('r-5', 'r-6')")
    assert renormalise.apply(opened, COSTING, routes=["billing"]).columns["input_tokens"] == 1
    assert renormalise.apply(opened, COSTING, since_ns=NOW_NS + 1).spans == 0
    assert renormalise.apply(opened, COSTING, since_ns=NOW_NS).columns["input_tokens"] == 1


def test_a_look_changes_nothing_and_says_the_same(store: Callable[[], Store], path: Path) -> None:
    opened = tamper(store, path, "UPDATE calls SET input_tokens = 1 WHERE response_id = 'r-6'")
    before = facts(opened)
    looked = renormalise.look(path, COSTING)
    assert (facts(opened), list(path.parent.glob(".tierlight-look-*"))) == (before, [])
    done = renormalise.apply(opened, COSTING)
    assert (looked.changed, looked.columns, looked.applied) == (1, done.columns, False)


def test_spans_that_are_kept_no_longer_leave_their_calls_alone(
    store: Callable[[], Store], path: Path
) -> None:
    opened = tamper(
        store, path, "DELETE FROM span_blocks", "UPDATE calls SET input_tokens = 1 WHERE response_id = 'r-6'"
    )
    report = renormalise.apply(opened, COSTING)
    assert (report.gone, report.changed) == (9, 0)
