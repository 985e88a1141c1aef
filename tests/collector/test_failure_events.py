"""`gen_ai.client.operation.exception` events: they tell why a call failed where its span does not, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import httpx
import pytest

from collector.running import running_collector
from collector.told import COSTING, NOW_NS, chat, span
from tierlight_collector.normalise import failure_of_log, normalise
from tierlight_collector.records import (
    Batch,
    CallFailure,
    CallRow,
    Filters,
    LogRecord,
    Resource,
    SpanRecord,
    TimeRange,
)
from tierlight_collector.renormalise import apply
from tierlight_collector.stores import Store, open_store

SPAN = span(1, 1, attributes=chat("r-1"))


def event(of: SpanRecord = SPAN, **said: Any) -> LogRecord:
    attributes: dict[str, Any] = {
        "exception.type": "openai.RateLimitError",
        "exception.message": "Error code: 429 - slow down",
        **said,
    }
    return LogRecord(
        "gen_ai.client.operation.exception", NOW_NS, of.trace_id, of.span_id, attributes, Resource({})
    )


def told(of: SpanRecord = SPAN, **said: Any) -> CallFailure:
    failure = failure_of_log(event(of, **said))
    assert failure is not None
    return failure


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'calls.db'}", now_ns=lambda: NOW_NS)
    yield store
    store.close()


def with_span(of: SpanRecord = SPAN) -> Batch:
    return Batch(spans=(normalise(of, NOW_NS),), arrived_ns=NOW_NS)


def row_of(store: Store, of: SpanRecord = SPAN) -> CallRow:
    row = store.call(of.trace_id, of.span_id)
    assert row is not None
    return row


def test_the_event_is_read_as_the_spans_errors_are() -> None:
    assert told() == CallFailure(SPAN.trace_id, SPAN.span_id, "openai.RateLimitError", "rate_limit", 429)
    assert told(SPAN, **{"exception.type": "", "exception.message": ""}).error_type == "exception"
    assert told(SPAN, **{"http.response.status_code": 503}).error_class == "overloaded"


def test_events_of_other_names_and_without_a_span_tell_nothing() -> None:
    other = event()
    assert (
        failure_of_log(LogRecord("gen_ai.choice", 0, other.trace_id, other.span_id, {}, Resource({}))) is None
    )
    assert failure_of_log(LogRecord(other.event_name, 0, b"", b"", {}, Resource({}))) is None


@pytest.mark.parametrize("order", list(permutations(("span", "event", "event"))))
def test_the_call_has_the_error_whatever_comes_first_and_how_often(
    store: Store, order: tuple[str, ...]
) -> None:
    for what in order:
        store.append(with_span() if what == "span" else Batch(failures=(told(),), arrived_ns=NOW_NS))
    call = row_of(store).call
    assert (call.error_type, call.error_class, call.http_status, call.outcome) == (
        "openai.RateLimitError", "rate_limit", 429, "error",
    )  # fmt: skip
    store.roll_up()
    (sums,) = store.rollups(TimeRange(0, 2**63 - 1))
    assert (sums.calls, sums.errors) == (1, 1)


def test_span_and_event_of_one_request_belong_together(store: Store) -> None:
    both = Batch(spans=(normalise(SPAN, NOW_NS),), failures=(told(),), arrived_ns=NOW_NS)
    assert store.append(both).accepted == 2
    assert store.append(both).accepted == 0
    assert row_of(store).call.error_class == "rate_limit"


def test_a_rolled_hour_counts_an_error_that_is_told_later(store: Store) -> None:
    store.append(with_span())
    store.roll_up()
    assert [sums.errors for sums in store.rollups(TimeRange(0, 2**63 - 1))] == [0]
    store.append(Batch(failures=(told(),), arrived_ns=NOW_NS))
    assert [sums.errors for sums in store.rollups(TimeRange(0, 2**63 - 1))] == [1]


def test_what_the_span_says_itself_is_believed(store: Store) -> None:
    failed = span(1, 1, attributes={**chat("r-1"), "error.type": "APITimeoutError"})
    store.append(with_span(failed))
    store.append(Batch(failures=(told(failed),), arrived_ns=NOW_NS))
    assert row_of(store, failed).call.error_class == "timeout"


def test_the_error_stays_when_stored_spans_are_read_again(store: Store) -> None:
    store.append(with_span())
    store.append(Batch(failures=(told(),), arrived_ns=NOW_NS))
    assert apply(store, COSTING).changed == 0
    assert row_of(store).call.error_class == "rate_limit"


def test_a_restart_remembers_what_was_told(tmp_path: Path) -> None:
    for batch in (Batch(failures=(told(),), arrived_ns=NOW_NS), with_span()):
        store = open_store(f"sqlite:///{tmp_path / 'calls.db'}", now_ns=lambda: NOW_NS)
        store.append(batch)
        found = store.call(SPAN.trace_id, SPAN.span_id)
        store.close()
    assert found is not None
    assert found.call.error_class == "rate_limit"


def test_an_event_that_arrives_over_the_wire_is_counted_and_its_text_is_not_kept(tmp_path: Path) -> None:
    record = {
        "eventName": "gen_ai.client.operation.exception",
        "timeUnixNano": str(NOW_NS),
        "traceId": SPAN.trace_id.hex(),
        "spanId": SPAN.span_id.hex(),
        "attributes": [
            {"key": "exception.type", "value": {"stringValue": "RateLimitError"}},
            {
                "key": "exception.message",
                "value": {"stringValue": "Error code: 429 for the customer's words"},
            },
        ],
    }
    other = {**record, "eventName": "gen_ai.user.message"}
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record, other]}]}]}
    with running_collector(tmp_path, grpc_port=None, clock_ns=lambda: NOW_NS) as ours:
        ours.store.append(with_span())
        assert httpx.post(ours.url + "/v1/logs", json=body).status_code == 200
        counters = ours.collector.ingest.counters.snapshot()
        (row,) = ours.store.calls(Filters(error=True)).rows
        health = ours.store.health()
    assert row.call.http_status == 429
    assert (counters["accepted"], counters["logs_not_stored"]) == (1, 1)
    assert health.counters["failures_told"] == 1
    for file in tmp_path.iterdir():
        assert b"customer's words" not in file.read_bytes()
