"""How fast pages are answered over many calls, beside the same question put as GROUP BY over the raw rows.

Fills a store in a temporary folder (or uses one that was kept), rolls it up, then asks the dashboard through ASGI:
the overview again and again as people do, which is answered from what was kept; the overview with nothing kept
(`overview_cold_ms`, every question put to the store, several of them more than once); random routes, most of them
for the first time; filtered lists of calls. Answers are complete pages, HTML and all.

    python tests/bench/read.py [--calls 1000000] [--routes 200] [--store FILE] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
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
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import Store
from tierlight_dashboard.app import create_app
from tierlight_dashboard.views.site import DashboardSettings

NOW_NS = 1_795_510_800_000_000_000
DAYS = 30
MODELS = (
    ("openai", "gpt-5-nano", "small"),
    ("anthropic", "claude-sonnet-5-5", "mid"),
    ("anthropic", "claude-opus-4-7", "flagship"),
)
ROUNDS = 30
A_BATCH = 5_000


def spans(calls: int, routes: int) -> Iterator[NormalisedSpan]:
    """Calls in the order of their time, spread over the days; some routes are busier than others by a power law."""
    rng = random.Random(7)
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


def fill(store: Store, calls: int, routes: int) -> None:
    """Append everything and count the closed hours."""
    waiting: list[NormalisedSpan] = []
    for span in spans(calls, routes):
        waiting.append(span)
        if len(waiting) == A_BATCH:
            store.append(Batch(tuple(waiting)))
            waiting = []
    if waiting:
        store.append(Batch(tuple(waiting)))
    store.roll_up()


async def times(store: Store, paths: list[str], keep_s: float = 1.0) -> list[float]:
    """Milliseconds of each page, in the server alone: no socket, no compression."""
    app = create_app(store, DashboardSettings(clock=lambda: NOW_NS, cache_seconds=keep_s))
    taken = []
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:4319"
    ) as client:
        headers = {"Accept-Encoding": "identity"}
        for path in [paths[0], *paths]:  # the first answer fills statement caches and is not counted
            begun = time.perf_counter()
            answer = await client.get(path, headers=headers)
            taken.append((time.perf_counter() - begun) * 1000)
            if answer.status_code != 200:
                raise SystemExit(f"{path} was answered {answer.status_code}")
    return taken[1:]


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


def measure(file: Path, calls: int, routes: int) -> dict[str, float | int]:
    """All figures over the store in `file`, which is filled first where it is empty."""
    store = open_store(f"sqlite:///{file}", now_ns=lambda: NOW_NS)
    try:
        filled = time.perf_counter()
        if not store.routes():
            fill(store, calls, routes)
        filled = time.perf_counter() - filled
        names = sorted(r.route for r in store.routes())
        rng = random.Random(1)
        some = [rng.choice(names) for _ in range(ROUNDS)]
        overview = asyncio.run(times(store, ["/"] * ROUNDS))
        cold = asyncio.run(times(store, ["/"] * 5, keep_s=0))
        route = asyncio.run(times(store, [f"/routes/{name}" for name in some]))
        views = ("view=errors", "view=costliest", "view=slowest", "tier=mid", "view=unpriced", "q=s17")
        lists = asyncio.run(
            times(store, [f"/calls?route={name}&{views[n % len(views)]}" for n, name in enumerate(some)])
        )
    finally:
        store.close()
    return {
        "calls": calls,
        "routes": routes,
        "filled_s": round(filled, 1),
        "overview_p50_ms": round(statistics.median(overview), 1),
        "overview_p95_ms": p95(overview),
        "overview_cold_ms": round(statistics.median(cold), 1),
        "route_p50_ms": round(statistics.median(route), 1),
        "route_p95_ms": p95(route),
        "calls_p50_ms": round(statistics.median(lists), 1),
        "calls_p95_ms": p95(lists),
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
        print(f"{name:18} {value:>12,}")


if __name__ == "__main__":
    main()
