"""Seconds that one tick of the watch takes: 3,000 streams (500 routes x 6 models), one scored call on each.

    python tests/bench/watch.py [--ticks 5] [--history 600 6000] [--json]

Every stream has its references (errors, quality, latency, time to first token, output tokens up and down, cost)
and so many calls of history behind it: all 3,000 streams are copies of one that learned from them. Then each tick
brings 3,000 new calls with a score each through the real store. Processor time is what is asked for: the machine
may be shared. The cost of a tick must not grow with the history.

Nothing changes in these streams, so each alert is a false one. `alerts_allowed` is what the guarantee promises to
stay below on average: the sum over all tests of their new calls by their threshold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from collector.stores.build import call
from tierlight.pricing import PriceBook
from tierlight_collector.decisions import WatchCommit
from tierlight_collector.records import Batch, NormalisedSpan, ScoreRecord
from tierlight_collector.stores import open_store
from tierlight_dashboard.analysis.monitor import observe
from tierlight_dashboard.analysis.reference import Learning
from tierlight_dashboard.analysis.signals import Observation
from tierlight_dashboard.analysis.state import encode
from tierlight_dashboard.analysis.streams import Policy
from tierlight_dashboard.watch import Watch

ROUTES, MODELS = 500, 6
START = 1_795_000_000_000_000_000
MINUTE = 60_000_000_000
POLICY = Policy(Learning(min_scored=200, min_days=0, per_bin=0))


def learned_states(history: int) -> dict[str, bytes]:
    """The states of 3,000 streams that have had the same calls."""
    random = np.random.default_rng(1)
    batch = []
    for i in range(1, history + 1):
        noise = random.lognormal(0, 0.3, 4)
        at = START + i * MINUTE
        values = (0.0, 1000 * noise[0], 200 * noise[1], 100 * noise[2], nan, 1e6 * noise[3])
        batch.append(Observation(("calls", "r", "m", "small", ""), 0, at, values, "", 1.0, "openai/m"))
        scored = (float(random.random() < 0.9), nan)
        batch.append(
            Observation(
                ("scores", "r", "m", "small", "", "right", "check", ""), 0, at, scored, "", 1.0, "openai/m"
            )
        )
    streams, _ = observe({}, [replace(one, ordinal=i + 1) for i, one in enumerate(batch)], POLICY)
    states: dict[str, bytes] = {}
    for key, stream in streams.items():
        if stream.kind == "pool":
            continue
        for number in range(ROUTES * MODELS):
            clone = stream.copy()
            clone.key = (key[0], f"route-{number % ROUTES}", f"model-{number // ROUTES}", *key[3:])
            clone.pool, clone.ordinal = f"openai/model-{number // ROUTES}", 0
            for detector in clone.detectors.values():
                detector.is_stored = False
            states |= encode(clone)[0]
    return states


def arrivals(history: int, tick: int) -> list[NormalisedSpan]:
    random = np.random.default_rng([2, tick])
    spans = []
    for number in range(ROUTES * MODELS):
        noise = random.lognormal(0, 0.3, 4)
        span = call(
            tick * 10_000 + number + 1,
            1,
            start_ns=START + (history + tick) * MINUTE,
            duration_ns=int(1e9 * noise[0]),
            ttft_ns=int(2e8 * noise[1]),
            route=f"route-{number % ROUTES}",
            request_model=f"model-{number // ROUTES}",
            response_model=f"model-{number // ROUTES}",
            tier="small",
            input_tokens=50,
            output_tokens=int(100 * noise[2]),
            cost_nusd=int(1e6 * noise[3]),
        )
        assert span.call is not None
        score = ScoreRecord(
            "right",
            float(random.random() < 0.9),
            "check",
            "outcome",
            START,
            trace_id=span.call.trace_id,
            span_id=span.call.span_id,
        )
        spans.append(replace(span, scores=(score,)))
    return spans


def measured(history: int, ticks: int, *, advice: bool) -> dict[str, float]:
    rows: list[tuple[float, float, int, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        now = START + (history + 10) * MINUTE
        store = open_store(f"sqlite:///{folder}/store.db", now_ns=lambda: now)
        store.commit_watch(WatchCommit(learned_states(history), {}))
        watch = Watch(store, PriceBook.default() if advice else None, POLICY)
        watch.tick(now)
        for tick in range(ticks):
            spans = arrivals(history, tick)
            for at in range(0, len(spans), 500):
                store.append(Batch(spans=tuple(spans[at : at + 500]), arrived_ns=now))
            wall, cpu = time.perf_counter(), time.thread_time()
            report = watch.tick(now)
            rows.append(
                (time.perf_counter() - wall, time.thread_time() - cpu, report.calls, len(report.opened))
            )
        tests = [row for row in watch.standings(now) if row.state != "learning"]
        store.close()
    calls = {"route": ticks, "model": ticks * ROUTES}
    return {
        "calls_per_tick": rows[-1][2],
        "tests": len(tests),
        "tick_cpu_s_p50": round(sorted(row[1] for row in rows)[len(rows) // 2], 3),
        "tick_wall_s_p50": round(sorted(row[0] for row in rows)[len(rows) // 2], 3),
        "alerts": sum(row[3] for row in rows),
        "alerts_allowed": round(sum(calls[test.scope] / test.threshold for test in tests), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ticks", type=int, default=5)
    parser.add_argument(
        "--history", type=int, nargs="*", default=[600, 6000], help="calls behind each stream"
    )
    parser.add_argument("--advice", action="store_true", help="judge every route anew as well")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    results = {n: measured(n, chosen.ticks, advice=chosen.advice) for n in chosen.history}
    if chosen.json:
        print(json.dumps(results))
        return 0
    print(f"{'calls behind each stream':<26}" + "".join(f"{n:>12,}" for n in results))
    for name in next(iter(results.values())):
        print(f"{name:<26}" + "".join(f"{result[name]:>12,}" for result in results.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
