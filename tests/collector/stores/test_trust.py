"""The store doubts itself and its senders: rollups against what they sum up, spans that come again and differ."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collector.stores import build
from collector.stores.build import EPOCH_NS, SECOND_NS, Clock
from tierlight_collector.records import HOUR_NS, Batch, NormalisedSpan, TimeRange
from tierlight_collector.stores import Store
from tierlight_collector.stores.selfcheck import Checked
from tierlight_collector.stores.sql import SqliteStore

ALWAYS = TimeRange(0, 2**62)
EPOCH_HOUR = EPOCH_NS // HOUR_NS
Reopen = Callable[[], SqliteStore]


# ---- spans that come again ----------------------------------------------------------------------------------


def conflicts(store: Store) -> int:
    return store.health().counters.get("conflicts", 0)


FIRST = build.call(
    1, 1, start_ns=EPOCH_NS - SECOND_NS, attributes={"a": "x", "n": [1, 2.5, None], "deep": {"b": b"\x00"}}
)


def changed(**fields: Any) -> NormalisedSpan:
    assert FIRST.call is not None
    start_ns = fields.get("start_ns", FIRST.call.start_ns)
    return replace(FIRST, span=replace(FIRST.span, **fields), call=replace(FIRST.call, start_ns=start_ns))


def test_the_same_span_again_is_a_duplicate_and_no_conflict(store: Store) -> None:
    store.append(build.batch(FIRST, build.span(1, 2, parent=1)))
    store.append(build.batch(FIRST, build.span(1, 2, parent=1)))
    store.append(build.batch(build.call(2, 3), build.call(2, 3)))
    assert conflicts(store) == 0
    assert store.health().counters["duplicates"] == 3


@pytest.mark.parametrize(
    "other",
    [
        changed(start_ns=FIRST.span.start_ns + 1),
        changed(end_ns=FIRST.span.end_ns + 1),
        changed(parent_span_id=b"p" * 8),
        changed(name="another"),
        changed(attributes={**FIRST.span.attributes, "a": "y"}),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_what_differs_is_counted_and_the_first_stays(
    store: Store, other: NormalisedSpan, together: bool
) -> None:
    if together:
        store.append(build.batch(FIRST, other))
    else:
        store.append(build.batch(FIRST))
        store.append(build.batch(other))
    assert conflicts(store) == 1
    (kept,) = store.trace(FIRST.span.trace_id)
    assert (kept.name, kept.start_ns, kept.attributes["a"]) == (
        FIRST.span.name,
        FIRST.span.start_ns,
        "x",
    )


def test_a_start_that_was_set_to_the_arrival_is_another_each_time_and_no_conflict(store: Store) -> None:
    for arrived_ns in (EPOCH_NS, EPOCH_NS + SECOND_NS):
        store.append(Batch(spans=(changed(start_ns=arrived_ns),), arrived_ns=arrived_ns))
    assert conflicts(store) == 0


# ---- rollups that are doubted -------------------------------------------------------------------------------


@pytest.fixture
def rolled(reopen: Reopen, clock: Clock) -> SqliteStore:
    """A store with a day that is over and summed up."""
    store = reopen()
    calls = [build.call(n, n, start_ns=EPOCH_NS + n * HOUR_NS, route=f"r{n % 2}") for n in range(5)]
    store.append(build.batch(*calls))
    clock.now_ns = EPOCH_NS + 3 * 24 * HOUR_NS
    store.roll_up()
    return store


def spoil(tmp_path: Path, table: str) -> None:
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    connection.execute(f"UPDATE {table} SET calls = calls + 1")  # noqa: S608 - a table of ours
    connection.close()


def test_right_rollups_stay_as_they_are(rolled: SqliteStore) -> None:
    assert rolled.self_check(seed=1) == Checked(hours=3, days=1)
    counters = rolled.health().counters
    assert (counters["self_checks"], counters["self_check_failures"]) == (4, 0)


@pytest.mark.parametrize("table", ["rollup_hour", "rollup_day"])
def test_wrong_rollups_are_found_counted_and_mended(rolled: SqliteStore, tmp_path: Path, table: str) -> None:
    whole_days = TimeRange(EPOCH_NS // (24 * HOUR_NS) * 24 * HOUR_NS, EPOCH_NS + 2 * 24 * HOUR_NS)
    spoil(tmp_path, table)
    found = rolled.self_check(seed=1)
    assert found.wrong_hours or found.wrong_days
    health = rolled.health()
    assert health.counters["self_check_failures"] == len(found.wrong_hours) + len(found.wrong_days)
    assert "self-check" in health.last_error
    for seed in range(40):  # it looks at a few hours at a time
        rolled.self_check(seed)
    rolled.roll_up()
    assert [each.calls for each in rolled.rollups(whole_days)] == [5]
    again = rolled.self_check(seed=1)
    assert (again.wrong_hours, again.wrong_days) == ((), ())


def test_an_empty_store_has_nothing_to_doubt(store: SqliteStore) -> None:
    assert store.self_check() == Checked()
