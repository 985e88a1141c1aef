"""Ids are found again in whatever run of arrival numbers they came, before and after a restart."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.stores import build
from tierlight_collector.records import Batch, RouteHints
from tierlight_collector.stores import Store, migrations, open_store
from tierlight_collector.stores.files import connect_writer
from tierlight_collector.stores.horizons import Retention
from tierlight_collector.stores.runs import RUN_BITS, Runs
from tierlight_collector.stores.sql import SqliteStore

RUN = 1 << RUN_BITS


def skip_to(store: Store, seq: int) -> None:
    """Let the next span get this arrival number."""
    assert isinstance(store, SqliteStore)

    def job(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE counters SET n = ? WHERE name = 'next_seq'", (seq,))

    store._writing().ask(job).result(10)
    store._writing().ask(lambda _: store._writing().appender.forget()).result(10)


def sealed_runs(folder: Path) -> list[tuple[int, bool]]:
    with sqlite3.connect(folder / "store.db") as connection:
        found = connection.execute("SELECT run, traces IS NOT NULL FROM arrival_runs ORDER BY run").fetchall()
    connection.close()
    return [(run, bool(is_sealed)) for run, is_sealed in found]


def in_three_runs(store: Store) -> list[Batch]:
    """A trace with a span in three runs, and calls of other traces on both sides of a border."""
    sent = [
        build.batch(build.call(1, 11, response_id="r-11"), build.call(2, 21)),
        build.batch(*(build.call(10 + number, 100 + number) for number in range(6)), build.call(1, 12)),
        build.batch(build.span(1, 13), build.call(3, 31)),
    ]
    store.append(sent[0])
    skip_to(store, 5 * RUN - 3)
    store.append(sent[1])
    skip_to(store, 900 * RUN)
    store.append(sent[2])
    return sent


def test_a_resend_is_known_in_every_run_also_after_a_restart(
    tmp_path: Path, reopen: Callable[[], Store]
) -> None:
    sent = in_three_runs(reopen())
    assert sealed_runs(tmp_path) == [(0, True), (4, True), (5, True), (900, False)]
    for _ in range(2):
        store = reopen()
        for batch in sent:
            assert store.append(batch).duplicates == len(batch.spans)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_trace_and_its_calls_are_read_from_all_runs(
    tmp_path: Path, reopen: Callable[[], Store], clock: build.Clock, read_only: bool
) -> None:
    store = reopen()
    in_three_runs(store)
    reader = store
    if read_only:
        reader = open_store(f"sqlite:///{tmp_path / 'store.db'}", read_only=True, now_ns=clock)
    assert [span.span_id for span in reader.trace(build.trace_id(1))] == [
        build.span_id(number) for number in (11, 12, 13)
    ]
    for trace, number in ((1, 11), (1, 12), (3, 31), (15, 105)):
        assert reader.call(build.trace_id(trace), build.span_id(number)) is not None
    assert reader.call(build.trace_id(1), build.span_id(31)) is None
    if reader is not store:
        reader.close()


@pytest.mark.parametrize("days_later", [0, 20])
def test_a_score_finds_its_call_in_an_earlier_run(reopen: Callable[[], Store], days_later: int) -> None:
    store = reopen()
    store.append(build.batch(build.call(1, 1, response_id="r-1")))
    skip_to(store, 3 * RUN)
    later = build.EPOCH_NS + days_later * build.DAY_NS
    store.append(build.batch(build.call(2, 2, start_ns=later)))
    store.append(
        build.batch(
            build.score("by-response", response_id="r-1", time_ns=later),
            build.score("by-span", trace=1, number=1, time_ns=later),
        )
    )
    found = store.call(build.trace_id(1), build.span_id(1))
    assert found is not None
    assert sorted(score.name for score in found.scores) == ["by-response", "by-span"]


def test_a_parent_of_a_later_run_names_the_route(reopen: Callable[[], Store]) -> None:
    store = reopen()
    store.append(build.batch(build.call(1, 2, parent=1)))
    skip_to(store, 3 * RUN)
    store.append(build.batch(build.span(1, 1, hints=RouteHints(declared="checkout"))))
    found = store.call(build.trace_id(1), build.span_id(2))
    assert found is not None
    assert found.call.route == "checkout"


def test_a_twin_in_another_run_is_counted_once(reopen: Callable[[], Store]) -> None:
    store = reopen()
    store.append(build.batch(build.call(1, 1, response_id="r-1", scope="scope.a")))
    skip_to(store, 2 * RUN)
    store.append(build.batch(build.call(2, 2, response_id="r-1", scope="scope.b")))
    rows = [store.call(build.trace_id(number), build.span_id(number)) for number in (1, 2)]
    assert sorted(row.superseded for row in rows if row is not None) == [False, True]


def test_a_refused_request_at_a_border_leaves_nothing_behind(
    tmp_path: Path, reopen: Callable[[], Store]
) -> None:
    store = reopen()
    store.append(build.batch(build.call(1, 1)))
    skip_to(store, RUN - 1)
    poison = build.batch(build.call(2, 2), build.call(3, 3), build.call(4, 4, input_tokens=2**70))
    with pytest.raises(Exception, match="can not be stored"):
        store.append(poison)
    assert sealed_runs(tmp_path) == [(0, False)]
    good = build.batch(build.call(2, 2), build.call(3, 3))
    assert store.append(good).accepted == 2
    assert sealed_runs(tmp_path) == [(0, True), (1, False)]
    assert reopen().append(good).duplicates == 2


def test_a_file_from_before_the_runs_is_taken_over(tmp_path: Path) -> None:
    folder, clock = tmp_path / "new", build.Clock()
    new = open_store(f"sqlite:///{folder / 'store.db'}", now_ns=clock)
    sent = in_three_runs(new)
    new.close()
    old = connect_writer(tmp_path / "store.db")
    migrations.migrate(old, tmp_path / "store.db", now_ns=0, app_version="", steps=migrations.STEPS[:2])
    old.execute("ATTACH ? AS new", (str(folder / "store.db"),))
    for (table,) in old.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
        if table not in ("schema_version", "sqlite_sequence"):
            old.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")  # noqa: S608 - our own tables
    old.close()

    store = open_store(f"sqlite:///{tmp_path / 'store.db'}", now_ns=clock)
    assert len(store.trace(build.trace_id(1))) == 3
    for batch in sent:
        assert store.append(batch).duplicates == len(batch.spans)
    store.append(build.batch(build.call(9, 91)))
    store.close()
    assert sealed_runs(tmp_path) == [(0, True), (4, True), (5, True), (900, False)]


def test_filters_find_every_trace_and_little_else(tmp_path: Path, store: Store) -> None:
    assert isinstance(store, SqliteStore)
    chance = random.Random(7)
    traces = [chance.randbytes(16) for _ in range(3 * RUN)]
    runs = store._writing().ask(Runs).result(10)
    store._writing().ask(
        lambda _: runs.note([(RUN + number, trace, 0) for number, trace in enumerate(traces)])
    ).result(30)
    found = runs.of(traces)
    assert {(trace, 1 + number // RUN) for number, trace in enumerate(traces)} <= set(found)
    unknown = [chance.randbytes(16) for _ in range(2_000)]
    assert len(runs.of(unknown)) < 5  # 0.4 expected: 3 runs, one vain look-up in 16,000


def test_runs_without_spans_are_forgotten(tmp_path: Path) -> None:
    clock = build.Clock()
    store = SqliteStore(tmp_path / "store.db", now_ns=clock, retention=Retention(1, 1, 2))
    store.append(build.batch(build.call(1, 1), build.span(2, 2)))
    skip_to(store, 7 * RUN)
    clock.now_ns += 3 * build.DAY_NS
    store.append(build.batch(build.call(3, 3, start_ns=clock.now_ns)))
    store.retain()
    assert sealed_runs(tmp_path) == [(7, False)]
    store.close()
    again = open_store(f"sqlite:///{tmp_path / 'store.db'}", now_ns=clock)
    assert again.append(build.batch(build.call(3, 3, start_ns=clock.now_ns))).duplicates == 1
    again.close()
