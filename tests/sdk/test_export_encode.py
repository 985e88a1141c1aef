"""What the encoder writes, read back by the reference implementation of the format."""

from __future__ import annotations

import math
from contextlib import suppress
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from e2e.doubles.fake_collector import attributes
from tierlight._encode import Encoder, items_of, partial_success, reframed
from tierlight._record import AttributeValue, FinishedCall, FinishedScore

texts = st.text(max_size=200)
values = st.one_of(
    texts,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(texts, max_size=4).map(tuple),
)


def parsed(*calls: FinishedCall, resource: dict[str, object] | None = None) -> ExportTraceServiceRequest:
    encoder = Encoder(resource or {}, "1.2.3")
    return ExportTraceServiceRequest.FromString(encoder.request([encoder.span(call) for call in calls]))


def call(found: dict[str, Any] | None = None, **changes: Any) -> FinishedCall:
    fields: dict[str, Any] = {
        "trace_id": 1 << 127,
        "span_id": 7,
        "parent_span_id": None,
        "name": "chat m",
        "start_ns": 5,
        "end_ns": 9,
        "attributes": found or {},
    }
    return FinishedCall(**(fields | changes))


def only_span(request: ExportTraceServiceRequest) -> Span:
    [resource_spans] = request.resource_spans
    [scope_spans] = resource_spans.scope_spans
    [span] = scope_spans.spans
    return span


@given(
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    parent=st.none() | st.integers(1, 2**64 - 1),
    name=texts,
    start=st.integers(0, 2**64 - 1),
    end=st.integers(0, 2**64 - 1),
    is_error=st.booleans(),
    message=texts,
    kind=st.integers(0, 5),
    flags=st.integers(0, 255),
    found=st.dictionaries(texts, values, max_size=8),
)
def test_every_field_of_a_span_reads_back_equal(
    trace_id: int,
    span_id: int,
    parent: int | None,
    name: str,
    start: int,
    end: int,
    is_error: bool,
    message: str,
    kind: int,
    flags: int,
    found: dict[str, AttributeValue],
) -> None:
    record = FinishedCall(trace_id, span_id, parent, name, start, end, found, is_error, message, kind, flags)
    twice = parsed(record, record, resource={"service.name": "shop"})

    [resource_spans] = twice.resource_spans
    assert attributes(resource_spans.resource.attributes) == {"service.name": "shop"}
    [scope_spans] = resource_spans.scope_spans
    assert (scope_spans.scope.name, scope_spans.scope.version) == ("tierlight", "1.2.3")
    first, from_cache = scope_spans.spans
    assert first == from_cache
    expected = Span(
        trace_id=trace_id.to_bytes(16, "big"),
        span_id=span_id.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        kind=kind,  # type: ignore[arg-type]
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        flags=flags,
    )
    if is_error:
        expected.status.code = 2  # type: ignore[assignment]
        expected.status.message = message
    assert attributes(first.attributes) == found
    assert [type(value) for value in attributes(first.attributes).values()] == [
        type(v) for v in found.values()
    ]
    del first.attributes[:]
    assert first == expected


@given(found=st.dictionaries(texts, values, max_size=5), trace_id=st.integers(0, 2**128 - 1))
def test_a_score_reads_back_as_an_evaluation_event(found: dict[str, AttributeValue], trace_id: int) -> None:
    encoder = Encoder({}, "1")
    request = ExportLogsServiceRequest.FromString(
        encoder.request([encoder.log(FinishedScore(77, found, trace_id, 9 if trace_id else 0))])
    )
    [record] = request.resource_logs[0].scope_logs[0].log_records
    assert record.event_name == "gen_ai.evaluation.result"
    assert (record.time_unix_nano, record.observed_time_unix_nano) == (77, 77)
    assert record.trace_id == (trace_id.to_bytes(16, "big") if trace_id else b"")
    assert record.span_id == ((9).to_bytes(8, "big") if trace_id else b"")
    assert attributes(record.attributes) == found


def test_equal_values_of_different_types_are_not_mixed_up() -> None:
    encoder = Encoder({}, "1")
    spans = [encoder.span(call({"k": value})) for value in (1, True, 1.0, "1", ("1",), 0, False, 0.0)]
    read = [attributes(Span.FromString(bytes(memoryview(span)[2:])).attributes)["k"] for span in spans]
    assert read == [1, True, 1.0, "1", ("1",), 0, False, 0.0]
    assert [type(value) for value in read] == [int, bool, float, str, tuple, int, bool, float]


def test_more_values_than_the_cache_holds_stay_distinct() -> None:
    encoder = Encoder({}, "1")
    request = encoder.request(
        [encoder.span(call({"id": f"id-{n}", "n": n, "t": (str(n),)})) for n in range(500)]
    )
    spans = ExportTraceServiceRequest.FromString(request).resource_spans[0].scope_spans[0].spans
    assert [attributes(span.attributes) for span in spans] == [
        {"id": f"id-{n}", "n": n, "t": (str(n),)} for n in range(500)
    ]


@pytest.mark.parametrize(
    ("text", "read"),
    [("\ud800 lone", "� lone"), ("\ud83d\ude00", "😀"), ("nul \x00 stays", "nul \x00 stays"), ("", "")],
)
def test_a_text_that_is_not_unicode_cannot_get_the_request_refused(text: str, read: str) -> None:
    span = only_span(parsed(call({"k": text, text: "v"}, name=text, is_error=True, message=text)))
    assert attributes(span.attributes) == {"k": read, read: "v"}
    assert (span.name, span.status.message) == (read, read)


class Tier(StrEnum):
    SMALL = "small"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


def test_a_value_without_a_place_in_the_format_is_left_out_and_named() -> None:
    found: dict[str, Any] = {
        "good": 1,
        "bad": Unprintable(),
        "enum": Tier.SMALL,
        "listed": ["a", "b"],
        "huge": 2**64,
        "nothing": None,
    }
    read = attributes(only_span(parsed(call(found))).attributes)
    assert read.pop("tierlight.instrumentation_error").startswith("attribute nothing")
    assert read == {"good": 1, "enum": "small", "listed": ("a", "b")}


def test_not_a_number_and_infinity_travel_as_they_are() -> None:
    read = attributes(only_span(parsed(call({"nan": math.nan, "inf": math.inf}))).attributes)
    assert math.isnan(read["nan"])
    assert read["inf"] == math.inf


def test_a_request_can_be_counted_and_cut_in_two() -> None:
    encoder = Encoder({"service.name": "shop"}, "1")
    request = encoder.request([encoder.span(call(span_id=n)) for n in range(1, 6)])
    items = [bytes(item) for item in items_of(request)]
    assert len(items) == 5
    half = ExportTraceServiceRequest.FromString(reframed(request, items[3:]))
    assert [span.span_id[-1] for span in half.resource_spans[0].scope_spans[0].spans] == [4, 5]
    assert attributes(half.resource_spans[0].resource.attributes) == {"service.name": "shop"}
    assert half.resource_spans[0].scope_spans[0].scope.version == "1"


@given(st.binary(max_size=64))
def test_bytes_that_are_no_request_raise_nothing_but_value_error(body: bytes) -> None:
    with suppress(ValueError):
        list(items_of(body))
    with suppress(ValueError):
        partial_success(body)


@given(rejected=st.integers(0, 2**62), message=st.text(max_size=300))
def test_partial_success_is_read_from_the_answer(rejected: int, message: str) -> None:
    answer = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    )
    assert partial_success(answer.SerializeToString()) == (rejected, message)
    assert partial_success(b"") == (0, "")
