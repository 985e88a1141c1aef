# ruff: noqa: S608 - only names of our own tables and columns are put into statements; values are bound
"""How fast pages are answered over many calls, beside the same question put as GROUP BY over the raw rows.

Fills a store in a temporary folder (or uses one that was kept), rolls it up, then asks the dashboard through ASGI for
complete pages, HTML and all, in three regimes:

- `*_p50_ms`, `*_p95_ms`: while calls arrive. Before each request some calls are committed and the dashboard's answers
  are forgotten, so each figure is worked out from the store as it is now. This is the regime of the goals.
  `*_cpu_ms` is the processor's time of the same requests, which a busy machine does not stretch as much.
- `*_cold_ms`: the first page after the store was opened, by a new process' caches (the disk's are warm).
- `overview_kept_ms`: the overview with the dashboard's own short memory, as several readers at once see it.

    python tests/bench/read.py [--calls 1000000] [--routes 200] [--store FILE] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx

from tierlight_collector.records import (
    HOUR_NS,
    Batch,
    CallRecord,
    NormalisedSpan,
    Resource,
    RouteHints,
    ScoreRecord,
    SpanRecord,
)
from tierlight_collector.stores import open_store, sums, tables
from tierlight_collector.stores.intern import Dictionary
from tierlight_collector.stores.protocol import Store
from tierlight_collector.stores.runs import RUN_BITS
from tierlight_dashboard.app import create_app
from tierlight_dashboard.views.site import DashboardSettings

NOW_NS = 1_795_510_800_000_000_000 + HOUR_NS // 2  # half of an hour is open
DAYS = 30
MODELS = (
    ("openai", "gpt-5-nano", "small"),
    ("anthropic", "claude-sonnet-5-5", "mid"),
    ("anthropic", "claude-opus-4-7", "flagship"),
)
ROUNDS = 40
COLD_ROUNDS = 3
A_BATCH = 5_000
MOST_APPENDED = 100_000


def spans(calls: int, routes: int, seed: int = 7) -> Iterator[NormalisedSpan]:
    """Calls in the order of their time, spread over the days; some routes are busier than others by a power law."""
    rng = random.Random(seed)
    names = [f"team-{n % 12:02d}.task-{n:03d}" for n in range(routes)]
    weights = [1 / (n + 1) ** 0.7 for n in range(routes)]
    begin = NOW_NS - DAYS * 24 * HOUR_NS
    resource = Resource({}, "bench")
    for number, route in enumerate(rng.choices(names, weights, k=calls)):
        start = begin + (NOW_NS - 60_000_000_000 - begin) * number // calls
        provider, model, tier = MODELS[0 if rng.random() < 0.7 else rng.randrange(1, 3)]
        ids = rng.randbytes(16), rng.randbytes(8)
        duration = int(rng.lognormvariate(7, 0.5) * 1e6)
        failed = rng.random() < 0.01
        call = CallRecord(
            *ids, b"", route, start, start + duration, duration, duration // 4, "chat", provider, model, model, route, "declared", tier,
            input_tokens=rng.randrange(200, 4000), output_tokens=rng.randrange(10, 800), cost_nusd=rng.randrange(10_000, 20_000_000), cost_source="price_book",
            error_type="Timeout" if failed else "", error_class="timeout" if failed else "", session_id=f"s{number % 50_000}", service_name="bench",
        )  # fmt: skip
        span = SpanRecord(
            *ids,
            b"",
            route,
            3,
            start,
            start + duration,
            0,
            "",
            "bench",
            "1",
            {"tierlight.route": route},
            (),
            resource,
        )
        scores: tuple[ScoreRecord, ...] = ()
        if number % 5 == 0:
            scores = (
                ScoreRecord(
                    "correct",
                    float(rng.random() < 0.9),
                    "validator:x",
                    "validator",
                    start + duration,
                    trace_id=ids[0],
                    span_id=ids[1],
                ),
            )
        yield NormalisedSpan(span, "call", RouteHints(declared=route), call, (), scores)


def fill(file: Path, calls: int, routes: int) -> None:
    """Append a part of the calls, multiply its rows in the tables, and roll up the closed hours.

    What pages read of a call is in its row; raw spans are not multiplied, so none are kept.
    """
    factor = max(1, calls // MOST_APPENDED)
    seed = calls // factor
    with contextlib.closing(open_store(f"sqlite:///{file}", now_ns=lambda: NOW_NS)) as store:
        waiting: list[NormalisedSpan] = []
        for span in spans(seed, routes):
            waiting.append(span)
            if len(waiting) == A_BATCH:
                store.append(Batch(tuple(waiting)))
                waiting = []
        if waiting:
            store.append(Batch(tuple(waiting)))
    connection = sqlite3.connect(file, isolation_level=None)
    with contextlib.closing(connection):
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -1000000")
        connection.execute("BEGIN")
        _multiply(connection, factor, DAYS * 24 * HOUR_NS // calls)
        _roll_up(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def _multiply(connection: sqlite3.Connection, factor: int, gap_ns: int) -> None:
    """Each call `factor` times, numbered in the order of time: each copy is of another call, so that kinds mix."""
    changed = {
        "seq": "c.seq * :factor + n.n",
        "trace_id": "randomblob(16)",
        "span_id": "randomblob(8)",
        "start_ns": "c.start_ns + n.n * :gap",
    }
    columns = ", ".join(changed.get(name, "o." + name) for name in tables.columns(tables.Call))
    copies = (
        "(SELECT seq, start_ns FROM seed ORDER BY seq) c CROSS JOIN"
        " (WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :factor)"
        " SELECT n FROM numbers) n CROSS JOIN"
    )
    other = "1 + (c.seq + n.n * 7919) % (SELECT max(seq) FROM seed)"
    given = {"factor": factor, "gap": gap_ns}
    for statement in (
        "CREATE TEMP TABLE seed AS SELECT * FROM calls",
        "CREATE UNIQUE INDEX temp.ix_seed ON seed (seq)",
        "CREATE TEMP TABLE seed_scores AS SELECT * FROM scores",
        "CREATE INDEX temp.ix_seed_scores ON seed_scores (call_seq)",
        "DELETE FROM calls",
        "DELETE FROM scores",
        "DELETE FROM span_blocks",
        "DELETE FROM arrival_runs",
        f"INSERT INTO calls SELECT {columns} FROM {copies} seed o ON o.seq = {other}",
        f"INSERT INTO scores SELECT NULL, c.seq * :factor + n.n, o.signal_id, o.kind, o.value, o.weight, o.time_ns,"
        f" o.evaluator_version, o.label, o.explanation FROM {copies} seed_scores o ON o.call_seq = {other}",
        f"INSERT INTO arrival_runs SELECT seq >> {RUN_BITS}, min(start_ns), max(start_ns), NULL FROM calls GROUP BY 1",
        "UPDATE counters SET n = n * :factor + :factor WHERE name = 'next_seq'",
    ):
        connection.execute(statement, given if ":" in statement else {})


def _roll_up(connection: sqlite3.Connection) -> None:
    dictionary = Dictionary()
    first, end = (NOW_NS - DAYS * 24 * HOUR_NS) // HOUR_NS, NOW_NS // HOUR_NS
    connection.execute("DELETE FROM dirty_hours WHERE hour < ?", (end,))
    for hour in range(first, end):
        sums.recount_hour(connection, dictionary, hour, NOW_NS)
    for day in range(first // 24, end // 24):
        sums.recount_day(connection, dictionary, day)


async def times(
    store: Store,
    paths: list[str],
    *,
    arrive: Callable[[], object] | None = None,
    warm: bool = True,
) -> list[tuple[float, float]]:
    """Milliseconds of each page, by the clock and of the processor, in the server alone: no socket, no compression."""
    app = create_app(store, DashboardSettings(clock=lambda: NOW_NS))
    taken = []
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:4319"
    ) as client:
        headers = {"Accept-Encoding": "identity"}
        for path in [*paths[:warm], *paths]:  # the first answer compiles templates and is not counted
            if arrive is not None:
                arrive()
                app.app.state.site.forget()  # type: ignore[attr-defined]  # what the guard stands before
            begun, used = time.perf_counter(), time.process_time()
            answer = await client.get(path, headers=headers)
            taken.append(((time.perf_counter() - begun) * 1000, (time.process_time() - used) * 1000))
            if answer.status_code != 200:
                raise SystemExit(f"{path} was answered {answer.status_code}")
    return taken[warm:]


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return round(statistics.quantiles(values, n=20)[18], 1)


def raw_group_by(file: Path) -> float:
    """Median milliseconds of the overview's sums asked of the raw rows."""
    question = (
        "SELECT k.series_id, count(*), sum(c.cost_nusd), sum(c.input_tokens), sum(c.output_tokens) FROM calls c "
        "JOIN call_kinds k ON k.id = c.kind_id WHERE c.start_ns >= ? AND c.superseded_by IS NULL GROUP BY k.series_id"
    )
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        connection.execute(question, (NOW_NS - DAYS * 24 * HOUR_NS,)).fetchall()
        taken.append((time.perf_counter() - begun) * 1000)
    connection.close()
    return round(statistics.median(taken), 1)


def arriving(store: Store) -> Callable[[], object]:
    """Commits five calls of the running hour each time it is called."""
    fresh = spans(1_000_000, 200, seed=time.time_ns())
    late = NOW_NS - 50_000_000_000

    def arrive() -> object:
        calls = []
        for span in itertools.islice(fresh, 5):
            assert span.call is not None
            moved = replace(span.call, start_ns=late)
            calls.append(replace(span, call=moved, span=replace(span.span, start_ns=late, end_ns=late)))
        return store.append(Batch(tuple(calls)))

    return arrive


def opened(file: Path) -> Store:
    return open_store(f"sqlite:///{file}", now_ns=lambda: NOW_NS)


def cold(file: Path, path: str) -> float:
    """Median milliseconds of a page that is the first after the store was opened."""
    taken = []
    for _ in range(COLD_ROUNDS):
        with contextlib.closing(opened(file)) as store:
            taken += asyncio.run(times(store, [path], warm=False))
    return round(statistics.median(ms for ms, _ in taken), 1)


def measure(file: Path, calls: int, routes: int) -> dict[str, float | int | str]:
    """All figures over the store in `file`, which is filled first where it is empty."""
    filled = time.perf_counter()
    if not file.exists():
        fill(file, calls, routes)
    filled = time.perf_counter() - filled
    with contextlib.closing(opened(file)) as store:
        names = sorted(r.route for r in store.routes())
        rng = random.Random(1)
        some = [rng.choice(names) for _ in range(ROUNDS)]
        views = ("view=errors", "view=costliest", "view=slowest", "tier=mid", "view=unpriced", "q=s17")
        pages = {
            "overview": ["/"] * ROUNDS,
            "route": [f"/routes/{name}" for name in some],
            "calls": [f"/calls?route={name}&{views[n % len(views)]}" for n, name in enumerate(some)],
            "routes": ["/routes"] * ROUNDS,
        }
        arrive = arriving(store)
        asyncio.run(times(store, ["/"]))  # what is only read once is read
        gc.collect()
        gc.freeze()  # as the server does once it is up
        taken = {name: asyncio.run(times(store, paths, arrive=arrive)) for name, paths in pages.items()}
        kept = asyncio.run(times(store, ["/"] * ROUNDS))
    return {
        "calls": calls,
        "routes": routes,
        "filled_s": round(filled, 1),
        "regime": "calls arrive before each request, nothing is kept of the answers before it",
        **{
            f"{name}_p50_ms": round(statistics.median(ms for ms, _ in each), 1)
            for name, each in taken.items()
        },
        **{f"{name}_p95_ms": p95([ms for ms, _ in each]) for name, each in taken.items()},
        **{
            f"{name}_cpu_ms": round(statistics.median(ms for _, ms in each), 1)
            for name, each in taken.items()
        },
        "overview_cold_ms": cold(file, "/"),
        "route_cold_ms": cold(file, f"/routes/{names[0]}"),
        "overview_kept_ms": round(statistics.median(ms for ms, _ in kept), 1),
        "raw_group_by_ms": raw_group_by(file),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--routes", type=int, default=200)
    parser.add_argument("--store", type=Path, help="keep the filled store here and use it again")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(given.store or Path(folder) / "read.db", given.calls, given.routes)
    if given.json:
        json.dump(figures, sys.stdout)
        print()
        return
    for name, value in figures.items():
        print(f"{name:18} {value}" if isinstance(value, str) else f"{name:18} {value:>12,}")


if __name__ == "__main__":
    main()
