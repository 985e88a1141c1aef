"""An hour of real production traffic, through a real store and the watch, in its real order."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from pathlib import Path

from collector.stores.build import call
from tierlight_collector.decisions import Alert
from tierlight_collector.records import Batch, NormalisedSpan
from tierlight_collector.stores import open_store
from tierlight_dashboard.analysis.reference import Learning
from tierlight_dashboard.analysis.streams import Policy
from tierlight_dashboard.watch import tick

# An hour holds no week to learn from: a reference of 3,000 calls, with the guard.
POLICY = Policy(Learning(min_calls=3000, min_days=0, per_bin=0, sample_rows=8192))


def hour_of(service: str, data: Path) -> list[NormalisedSpan]:
    """The calls of "conv" or "code" in their recorded order, each with its tokens and nothing else."""
    path = data / "azure-llm-2023" / f"AzureLLMInferenceTrace_{service}.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    spans = []
    for number, row in enumerate(rows, 1):
        second, _, fraction = row["TIMESTAMP"].partition(".")
        started = datetime.fromisoformat(second).replace(tzinfo=UTC)
        span = call(
            number,
            1,
            route=service,
            start_ns=int(started.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0")),
            duration_ns=None,
            ttft_ns=None,
            cost_nusd=None,
            input_tokens=int(row["ContextTokens"]),
            output_tokens=int(row["GeneratedTokens"]),
        )
        spans.append(span)
    return spans


def alerts_of(spans: list[NormalisedSpan], folder: Path) -> list[Alert]:
    """All alerts that the watch raises on the calls, looking at them as they arrive."""
    assert spans[-1].call is not None
    now_ns = spans[-1].call.start_ns
    store = open_store(f"sqlite:///{folder}/azure.db", now_ns=lambda: now_ns)
    try:
        for at in range(0, len(spans), 5000):
            store.append(Batch(spans=tuple(spans[at : at + 5000]), arrived_ns=now_ns))
            tick(store, now_ns, POLICY)
        return list(store.alerts(limit=1000))
    finally:
        store.close()
