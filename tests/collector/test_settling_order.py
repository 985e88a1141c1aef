"""Which calls count does not hang on the order in which their spans come, nor on how they are packed."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from collector.told import NOW_NS, SPANS, append, chat, span
from tierlight_collector.decode import decode_traces
from tierlight_collector.normalise import normalise
from tierlight_collector.records import Batch, CallRow, SpanRecord
from tierlight_collector.stores import open_store

# One provider call in two traces, seen by two instrumentations; the parent of the first comes whenever it likes.
PARENT = span(1, 1, name="workflow")
FIRST = span(1, 2, parent=1, scope="openinference.instrumentation.langchain", attributes=chat("r-1"))
SECOND = span(2, 1, scope="com.anthropic.sdk.python", attributes=chat("r-1"))


def stored(path: Path, batches: Sequence[Sequence[SpanRecord]]) -> dict[bytes, CallRow]:
    """What counts of the spans, without their arrival numbers."""
    store = open_store(f"sqlite:///{path}", now_ns=lambda: NOW_NS)
    try:
        for spans in batches:
            append(store, list(spans))
        rows = [store.call(each.trace_id, each.span_id) for spans in batches for each in spans]
    finally:
        store.close()
    return {row.call.span_id: replace(row, seq=0) for row in rows if row is not None}


def test_a_parent_that_comes_last_does_not_part_duplicates(tmp_path: Path) -> None:
    spans = (PARENT, FIRST, SECOND)
    together = stored(tmp_path / "all" / "a.db", [spans])
    assert sorted(row.superseded for row in together.values()) == [False, True]
    for number, order in enumerate(itertools.permutations(spans)):
        assert stored(tmp_path / str(number) / "a.db", [[each] for each in order]) == together


def test_any_order_and_packing_gives_the_same_calls(tmp_path: Path) -> None:
    together = stored(tmp_path / "all" / "a.db", [SPANS])
    shuffler = random.Random(5)
    for number in range(6):
        spans = shuffler.sample(SPANS, len(SPANS))
        size = 1 + number % 3
        batches = [spans[start : start + size] for start in range(0, len(spans), size)]
        assert stored(tmp_path / str(number) / "a.db", batches) == together


def test_captured_spans_settle_alike_in_any_order(shared_data: Path, tmp_path: Path) -> None:
    """Case by case, as they came; a store of all cases at once has neighbours that they never had."""
    manifest = shared_data / "emitters" / "manifest.jsonl"
    if not manifest.is_file():
        pytest.skip("no captured telemetry in the shared data folder")
    store = open_store(f"sqlite:///{tmp_path / 'all' / 'a.db'}")
    other = open_store(f"sqlite:///{tmp_path / 'other' / 'a.db'}")
    shuffler = random.Random(11)
    try:
        for case in map(json.loads, manifest.read_text().splitlines()):
            spans: list[SpanRecord] = []
            for file in case["files"]:
                if file["file"].endswith(".traces.pb"):
                    body = (manifest.parent / file["file"]).read_bytes()
                    if file["content_encoding"] is None:
                        spans += decode_traces(body, "protobuf").spans
            # Each case on a service and in time of its own.
            spans = [
                replace(each, resource=replace(each.resource, service_name=case["case"])) for each in spans
            ]
            read = [normalise(each, max(each.start_ns, each.end_ns)) for each in spans]
            store.append(Batch(spans=tuple(read)))
            for each in shuffler.sample(read, len(read)):
                other.append(Batch(spans=(each,)))
            for each in read:
                ids = each.span.trace_id, each.span.span_id
                one, two = store.call(*ids), other.call(*ids)
                assert (one and replace(one, seq=0)) == (two and replace(two, seq=0)), case["case"]
    finally:
        store.close()
        other.close()
