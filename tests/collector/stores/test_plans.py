"""Queries whose cost must not grow with the store use the index that was made for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collector.stores import build
from tierlight_collector.records import Filters
from tierlight_collector.stores import Store
from tierlight_collector.stores.sql import SqliteStore


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """Every statement the store runs meanwhile, values filled in."""
    assert isinstance(store, SqliteStore)
    seen: list[str] = []
    connections: list[sqlite3.Connection] = [store._writing().connection]
    with store._read() as connection:
        connections.append(connection)
    for connection in connections:
        connection.set_trace_callback(seen.append)
    yield seen
    for connection in connections:
        connection.set_trace_callback(None)


ACTS: dict[str, Callable[[Store], object]] = {
    "a resend": lambda store: store.append(build.batch(build.call(1, 1, response_id="r-1", call_id="c-1"))),
    "a call of a second scope": lambda store: store.append(
        build.batch(build.call(8, 8, response_id="r-1", scope="b"))
    ),
    "a second scope without ids": lambda store: store.append(build.batch(build.call(9, 9, scope="b"))),
    "a score by call": lambda store: store.append(build.batch(build.score(call_id="c-1"))),
    "a score by response": lambda store: store.append(build.batch(build.score(response_id="r-1"))),
    "a score by span": lambda store: store.append(build.batch(build.score(trace=1, number=1))),
    "a score by key": lambda store: store.append(build.batch(build.score(join_value="T1"))),
    "the newest calls": lambda store: store.calls(),
    "the newest of a route": lambda store: store.calls(Filters(route=("a",))),
    "one call": lambda store: store.call(build.trace_id(1), build.span_id(1)),
    "a trace": lambda store: store.trace(build.trace_id(1)),
    "texts": lambda store: store.contents(build.trace_id(1), build.span_id(1)),
    "evidence": lambda store: (store.call_evidence(0, 5), store.score_evidence(0, 5)),
    "routes": lambda store: store.routes(),
}


@pytest.mark.parametrize("name", ACTS)
def test_no_query_walks_through_all_calls(tmp_path: Path, store: Store, name: str) -> None:
    key = {"tierlight.join.ticket": "T1"}
    store.append(build.batch(build.call(1, 1, route="a", response_id="r-1", call_id="c-1", attributes=key)))
    store.append(build.batch(build.call(2, 2, route="b"), build.span(3, 3), build.score(trace=1, number=1)))
    with statements(store) as seen:
        ACTS[name](store)
    walks = []
    with sqlite3.connect(tmp_path / "store.db") as connection:
        for statement in seen:
            if statement.lstrip("-").strip().startswith(("SELECT", "DELETE", "UPDATE")):
                for _, _, _, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
                    big = any(
                        step.startswith(f"SCAN {table}") for table in ("c", "calls", "s", "scores", "spans")
                    )
                    if (
                        big
                        and "LIMIT" not in statement
                        and "min(" not in statement
                        and "max(" not in statement
                    ):
                        walks.append(f"{step}: {statement}")
    connection.close()
    assert seen
    assert walks == []
