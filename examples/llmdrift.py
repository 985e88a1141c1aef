"""Re-enacts recorded calls whose model changed, and shows when the alert came.

    python examples/llmdrift.py --data FOLDER [--json] [--seed N] [--store sqlite:///FILE]

FOLDER holds `*.csv` or `*.csv.gz` with the columns task, family, era, model, score, latency_s, output_tokens and
cost_usd, one row per recorded call; the rows of the first era are played before those of the next one. The public
LLMDrift recordings (Chen, Zaharia, Zou, arXiv 2307.09009) have this form: GPT-4 and GPT-3.5 answering the same
questions in March and in June 2023.

Within an era the rows are shuffled with the seed, because the files list one kind of question before the other,
which would look like a change of traffic. Each row becomes a call of a decorated function to a local look-alike
provider with the recorded tokens, latency, cost and correctness; tierlight sees what it would have seen then.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tierlight
from tierlight_dashboard.serve import Running, ServeSettings, serving_in_thread

SECOND_NS = 1_000_000_000
BETWEEN_CALLS_NS = 60 * SECOND_NS
CALLS_PER_FLUSH = 500


@dataclass(frozen=True)
class Recorded:
    """One recorded call."""

    era: str
    model: str
    score: float
    latency_s: float
    output_tokens: int
    cost_usd: float
    segment: str


class ReplayClock:
    """Tells the time of the call that is being played."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def time_ns(self) -> int:
        return self.now_ns

    def perf_ns(self) -> int:
        return self.now_ns


@dataclass(frozen=True)
class Played:
    """What became of one task and model."""

    task: str
    model: str
    calls_before: int
    false_alarms_before: int
    alerted: bool
    delay_calls: int | None
    sentence: str


def read(folder: Path) -> dict[tuple[str, str], dict[str, list[Recorded]]]:
    """Recorded calls by (task, family) and era, in the order of the files."""
    found: dict[tuple[str, str], dict[str, list[Recorded]]] = {}
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")]):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            for row in csv.DictReader(lines):
                eras = found.setdefault((row["task"], row["family"]), {})
                eras.setdefault(row["era"], []).append(
                    Recorded(
                        row["era"],
                        row["model"],
                        float(row["score"]),
                        float(row["latency_s"]),
                        int(float(row["output_tokens"])),
                        float(row["cost_usd"]),
                        row.get("segment", ""),
                    )
                )
    return found


def decorated(task: str, family: str, clock: ReplayClock) -> Callable[[Recorded], dict[str, object]]:
    """An application's function that asks `family`, decorated as a user would."""

    @tierlight.route(route_name(task, family), provider="openai", model=family)
    def ask(recorded: Recorded) -> dict[str, object]:
        clock.now_ns += round(recorded.latency_s * SECOND_NS)
        call = tierlight.current_call()
        if call is not None:
            call.cost(recorded.cost_usd)
        tierlight.score(recorded.score, "correct", kind="validator")
        return {
            "object": "chat.completion",
            "model": recorded.model,
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ""}}
            ],
            "usage": {"completion_tokens": recorded.output_tokens},
        }

    return ask


def route_name(task: str, family: str) -> str:
    return re.sub(r"[^a-z0-9._/-]", "-", f"{task}/{family}".lower())


def play(
    running: Running,
    key: tuple[str, str],
    eras: dict[str, list[Recorded]],
    clock: ReplayClock,
    rng: random.Random,
) -> Played:
    """Play one task and model from its first era to its last, and read the alerts."""
    task, family = key
    ask = decorated(task, family, clock)
    starts: list[int] = []
    for number, recorded in enumerate(shuffled(eras, rng)):
        starts.append(clock.now_ns)
        ask(recorded)
        clock.now_ns += BETWEEN_CALLS_NS
        if number % CALLS_PER_FLUSH == CALLS_PER_FLUSH - 1:
            tierlight.flush(30.0)
    tierlight.flush(30.0)
    running.tick()
    before = len(next(iter(eras.values())))
    changed_ns = starts[before]
    alerts = [
        alert
        for alert in running.store.alerts(route=route_name(task, family))
        if alert.kind == "quality" and alert.scope == "route"
    ]
    after = sorted(
        (alert for alert in alerts if alert.opened_ns >= changed_ns), key=lambda alert: alert.opened_ns
    )
    delay = sum(changed_ns <= start <= after[0].opened_ns for start in starts) if after else None
    return Played(
        task, family, before, len(alerts) - len(after), bool(after), delay, after[0].sentence if after else ""
    )


def shuffled(eras: dict[str, list[Recorded]], rng: random.Random) -> Iterator[Recorded]:
    for rows in eras.values():
        order = list(rows)
        rng.shuffle(order)
        yield from order


def main() -> int:
    parser = argparse.ArgumentParser(description="Re-enact recorded calls whose model changed.")
    parser.add_argument("--data", type=Path, required=True, help="folder of recorded calls")
    parser.add_argument("--seed", type=int, default=0, help="order within an era")
    parser.add_argument("--json", action="store_true", help="one object per task and model")
    parser.add_argument("--store", help="keep the calls there, to look at with `tierlight up --store`")
    arguments = parser.parse_args()
    recordings = read(arguments.data)
    if not recordings:
        print(f"no *.csv or *.csv.gz in {arguments.data}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or f"sqlite:///{Path(folder) / 'llmdrift.db'}"
        settings = ServeSettings(store=store, http_port=0, grpc_port=None, port=0, watch_every_s=0)
        longest = max(sum(map(len, eras.values())) for eras in recordings.values())
        start_ns = time.time_ns() - 2 * longest * BETWEEN_CALLS_NS
        clock = ReplayClock(start_ns)
        with serving_in_thread(settings) as running:
            tierlight.configure(
                service_name="llmdrift", endpoint=running.otlp_url, spool=False, timeout_s=10.0, clock=clock
            )
            played = []
            for key, eras in recordings.items():
                clock.now_ns = start_ns
                played.append(play(running, key, eras, clock, random.Random(arguments.seed)))
            tierlight.shutdown()
    for one in played:
        if arguments.json:
            print(
                json.dumps(
                    {name: getattr(one, name) for name in Played.__dataclass_fields__ if name != "sentence"}
                )
            )
        else:
            print(
                f"{one.task:10} {one.model:14} {one.calls_before:5} calls before, {one.false_alarms_before} false alarms"
            )
            print(
                f"           {f'alert after {one.delay_calls} calls: {one.sentence}' if one.alerted else 'no quality alert'}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
