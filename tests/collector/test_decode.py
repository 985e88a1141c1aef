"""OTLP bodies to records: both encodings alike, what can never be right rejected, what is too long cut and counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tierlight_collector.decode import DEPTH_MARK, Decoded, count_metrics, decode_logs, decode_traces
from tierlight_collector.errors import BadRequest
from tierlight_collector.limits import IngestLimits

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
START = 1_764_000_000_000_000_000
HOUR = 3_600_000_000_000


def span_json(**changes: Any) -> dict[str, Any]:
    return {
        "traceId": TRACE,
        "spanId": SPAN,
        "name": "chat",
        "kind": 3,
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + 5),
    } | changes


def of_json(*spans: object, **limits: int) -> Decoded:
    body = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
                "scopeSpans": [{"scope": {"name": "lib", "version": "1"}, "spans": list(spans)}],
            }
        ]
    }
    return decode_traces(json.dumps(body).encode(), "json", limits=IngestLimits(**limits))


def value_of(value: object) -> Any:
    decoded = of_json(span_json(attributes=[{"key": "k", "value": value}]))
    return decoded.spans[0].attributes.get("k", "dropped"), decoded.altered


def request(**fields: Any) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    span = message.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id = bytes.fromhex(TRACE), bytes.fromhex(SPAN)
    span.start_time_unix_nano, span.end_time_unix_nano = START, START + 5
    for name, value in fields.items():
        setattr(span, name, value)
    return message


def of_proto(message: ExportTraceServiceRequest, **limits: int) -> Decoded:
    return decode_traces(message.SerializeToString(), "protobuf", limits=IngestLimits(**limits))


def with_attribute(value: AnyValue, key: str = "k") -> ExportTraceServiceRequest:
    message = request()
    pair = message.resource_spans[0].scope_spans[0].spans[0].attributes.add()
    pair.key = key
    pair.value.CopyFrom(value)
    return message


def nested(depth: int) -> AnyValue:
    value = AnyValue(int_value=1)
    for _ in range(depth):
        outer = AnyValue()
        outer.array_value.values.add().CopyFrom(value)
        value = outer
    return value


def nested_json(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"intValue": 1}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


def depth_of(value: Any) -> int:
    return 1 + depth_of(value[0]) if isinstance(value, list) else 0


@pytest.mark.parametrize("body", [b"", ExportTraceServiceRequest().SerializeToString()])
def test_an_empty_protobuf_body_holds_no_spans(body: bytes) -> None:
    assert decode_traces(body, "protobuf").spans == []


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"resourceSpans":[]}', b'{"resourceSpans":null}', b'{"resourceSpans":[{"resource":{}}]}'],
)
def test_json_without_spans_is_no_error(body: bytes) -> None:
    assert decode_traces(body, "json").spans == []


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"\xff\xff\xff garbage", "protobuf"),
        (request().SerializeToString()[:-3], "protobuf"),
        (b'{"resourceSpans":[', "json"),
        (b"[]", "json"),
        (b'{"resourceSpans":NaN}', "json"),
        (b'{"resourceSpans":{}}', "json"),
        (b'{"resourceSpans":["x"]}', "json"),
        (b"\xff{}", "json"),
        (b"[" * 100_000, "json"),
    ],
)
def test_a_body_that_is_not_otlp_is_refused(body: bytes, media_type: Any) -> None:
    with pytest.raises(BadRequest):
        decode_traces(body, media_type)


def test_invalid_utf8_in_a_protobuf_string_is_refused() -> None:
    body = request(name="abcd").SerializeToString().replace(b"abcd", b"ab\xff\xfe")
    with pytest.raises(BadRequest):
        decode_traces(body, "protobuf")


def test_both_encodings_give_the_same_records() -> None:
    message = request(name="chat", kind=3)
    scope = message.resource_spans[0].scope_spans[0]
    scope.scope.name, scope.scope.version = "lib", "1"
    message.resource_spans[0].resource.attributes.add(key="service.name").value.string_value = "shop"
    attributes = scope.spans[0].attributes
    attributes.add(key="n").value.int_value = 12
    attributes.add(key="zero").value.int_value = 0
    attributes.add(key="no").value.bool_value = False
    attributes.add(key="empty").value.string_value = ""
    attributes.add(key="half").value.double_value = 0.5
    attributes.add(key="list").value.array_value.values.add().string_value = "a"
    attributes.add(key="raw").value.bytes_value = b"\x00\xff"
    attributes.add(key="none")
    pairs = [
        ("n", {"intValue": "12"}),
        ("zero", {"intValue": 0}),
        ("no", {"boolValue": False}),
        ("empty", {"stringValue": ""}),
        ("half", {"doubleValue": 0.5}),
        ("list", {"arrayValue": {"values": [{"stringValue": "a"}]}}),
        ("raw", {"bytesValue": "AP8="}),
        ("none", None),
    ]
    same = of_json(span_json(attributes=[{"key": key, "value": value} for key, value in pairs]))
    assert of_proto(message).spans == same.spans
    assert same.spans[0].resource.service_name == "shop"


def test_hex_ids_are_read_in_either_case() -> None:
    decoded = of_json(span_json(traceId=TRACE.upper(), spanId=SPAN.upper(), parentSpanId="00" * 8))
    assert (decoded.spans[0].trace_id.hex(), decoded.spans[0].span_id.hex()) == (TRACE, SPAN)
    assert decoded.spans[0].parent_span_id == b""


@pytest.mark.parametrize(
    "changes",
    [
        {"traceId": "0" * 32},
        {"traceId": TRACE[:-2]},
        {"traceId": "CvdlGRbNQ92ESOshHIAxnA=="},
        {"traceId": "zz" * 16},
        {"traceId": " " + TRACE[1:]},
        {"traceId": None},
        {"spanId": "0" * 16},
        {"spanId": ""},
        {"startTimeUnixNano": 0},
        {"startTimeUnixNano": "soon"},
    ],
)
def test_a_span_that_can_never_be_right_is_rejected_and_its_neighbour_stays(changes: dict[str, Any]) -> None:
    decoded = of_json(span_json(**changes), span_json())
    assert (len(decoded.spans), len(decoded.rejected)) == (1, 1)


@pytest.mark.parametrize(
    "fields", [{"trace_id": bytes(16)}, {"trace_id": b"x" * 15}, {"span_id": b""}, {"span_id": bytes(8)}]
)
def test_bad_protobuf_ids_are_rejected(fields: dict[str, Any]) -> None:
    decoded = of_proto(request(**fields))
    assert (decoded.spans, len(decoded.rejected)) == ([], 1)


def test_spans_from_before_the_horizon_are_rejected() -> None:
    body = request().SerializeToString()
    day = 24 * HOUR
    assert decode_traces(body, "protobuf", arrived_ns=START + 399 * day).rejected == []
    assert len(decode_traces(body, "protobuf", arrived_ns=START + 401 * day).rejected) == 1


def test_strange_times_are_kept_for_normalising() -> None:
    decoded = of_proto(request(start_time_unix_nano=2**64 - 1, end_time_unix_nano=1))
    assert (decoded.spans[0].start_ns, decoded.spans[0].end_ns) == (2**64 - 1, 1)


def test_numbers_and_their_digits_mean_the_same() -> None:
    assert value_of({"intValue": "12"})[0] == value_of({"intValue": 12})[0] == 12
    one = of_json(span_json(startTimeUnixNano=START, endTimeUnixNano=START + 5))
    assert one.spans == of_json(span_json()).spans


def test_the_name_of_an_enum_is_read_as_unspecified() -> None:
    decoded = of_json(span_json(kind="SPAN_KIND_SERVER", status={"code": "STATUS_CODE_ERROR"}))
    assert (decoded.spans[0].kind, decoded.spans[0].status_code, decoded.altered) == (0, 0, {"enums": 2})


def test_unknown_fields_and_nulls_are_ignored() -> None:
    decoded = of_json(
        span_json(
            trace_state="x", flags=257, attributes=None, events=None, links=None, status=None, new={"a": [1]}
        )
    )
    assert decoded.spans == of_json(span_json()).spans


@pytest.mark.parametrize(
    ("value", "kept", "altered"),
    [
        ({"bytesValue": "AQI="}, b"\x01\x02", {}),
        ({"bytesValue": "!"}, "dropped", {"base64": 1}),
        ({"doubleValue": "NaN"}, "NaN", {}),
        ({"doubleValue": "-Infinity"}, "-Infinity", {}),
        ({"doubleValue": "1.5"}, 1.5, {}),
        ({"intValue": "many"}, "dropped", {"attributes": 1}),
        ({"intValue": 2**63}, "dropped", {"attributes": 1}),
        ({"boolValue": "yes"}, "dropped", {"attributes": 1}),
        ({"stringValue": "a\0b"}, "a�b", {"text": 1}),
        ({"stringValue": "\ud800x"}, "�x", {"text": 1}),
        ({}, None, {}),
        (None, None, {}),
    ],
)
def test_values_of_json_attributes(value: object, kept: object, altered: dict[str, int]) -> None:
    assert value_of(value) == (kept, altered)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_become_text_in_protobuf_too(number: float) -> None:
    kept = of_proto(with_attribute(AnyValue(double_value=number))).spans[0].attributes["k"]
    assert kept in ("NaN", "Infinity")


def test_nul_in_a_protobuf_string_is_replaced() -> None:
    decoded = of_proto(with_attribute(AnyValue(string_value="a\0b")))
    assert (decoded.spans[0].attributes["k"], decoded.altered) == ("a�b", {"text": 1})


@pytest.mark.parametrize("depth", [32, 33, 45])
def test_deep_values_are_cut_at_the_limit(depth: int) -> None:
    for decoded in (
        of_proto(with_attribute(nested(depth))),
        of_json(span_json(attributes=[{"key": "k", "value": nested_json(depth)}])),
    ):
        kept = decoded.spans[0].attributes["k"]
        assert depth_of(kept) == 32
        assert (DEPTH_MARK in repr(kept)) == (depth > 32)
        assert decoded.altered == ({"depth": 1} if depth > 32 else {})


def test_values_deeper_than_the_decoder_takes_are_refused() -> None:
    with pytest.raises(BadRequest):
        of_proto(with_attribute(nested(60)))
    with pytest.raises(BadRequest):
        of_json(span_json(attributes=[{"key": "k", "value": nested_json(60)}]))


def test_what_is_over_a_limit_is_cut_and_counted() -> None:
    message = request()
    span = message.resource_spans[0].scope_spans[0].spans[0]
    for number in range(5):
        span.attributes.add(key=f"k{number}").value.int_value = 1
        span.events.add(name="e")
        span.links.add()
    decoded = of_proto(message, attributes=3, events=2, links=1)
    assert (len(decoded.spans[0].attributes), len(decoded.spans[0].events)) == (3, 2)
    assert decoded.altered == {"attributes": 2, "events": 3, "links": 4}


def test_long_keys_go_and_long_values_are_cut_at_a_character() -> None:
    assert of_proto(with_attribute(AnyValue(int_value=1), key="k" * 300)).altered == {"keys": 1}
    cut = of_proto(with_attribute(AnyValue(string_value="ä" * 60)), value_bytes=101).spans[0].attributes["k"]
    assert cut == "ä" * 50 + "…[truncated 19 bytes]"


def test_content_may_be_longer_than_other_values() -> None:
    text = AnyValue(string_value="x" * 200)
    limits = {"value_bytes": 100, "content_bytes": 150}
    kept = of_proto(with_attribute(text, key="gen_ai.input.messages"), **limits).spans[0]
    assert str(kept.attributes["gen_ai.input.messages"]).startswith("x" * 150 + "…")


def test_long_arrays_are_cut() -> None:
    value = AnyValue()
    for _ in range(5):
        value.array_value.values.add().int_value = 1
    decoded = of_proto(with_attribute(value), array_length=3)
    assert (decoded.spans[0].attributes["k"], decoded.altered) == ([1, 1, 1], {"arrays": 1})


def test_spans_over_the_limit_of_a_request_are_rejected() -> None:
    decoded = of_json(span_json(), span_json(), span_json(), spans=2)
    assert (len(decoded.spans), decoded.rejected) == (2, ["over 2 spans in one request"])


def test_the_event_name_of_a_log_record_is_its_field_or_its_attribute() -> None:
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    records.add(event_name="gen_ai.evaluation.result", time_unix_nano=START)
    records.add(observed_time_unix_nano=START).attributes.add(key="event.name").value.string_value = "other"
    logs = decode_logs(message.SerializeToString(), "protobuf").logs
    assert [(log.event_name, log.time_ns) for log in logs] == [
        ("gen_ai.evaluation.result", START),
        ("other", START),
    ]
    record = {"eventName": "e", "timeUnixNano": str(START), "traceId": TRACE, "spanId": SPAN}
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()
    log = decode_logs(body, "json").logs[0]
    assert (log.event_name, log.time_ns, log.trace_id.hex(), log.span_id.hex()) == ("e", START, TRACE, SPAN)


def test_metrics_are_counted() -> None:
    message = ExportMetricsServiceRequest()
    message.resource_metrics.add().scope_metrics.add().metrics.add(name="gen_ai.client.token.usage")
    assert count_metrics(message.SerializeToString(), "protobuf") == 1
    body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{}, {}]}]}]}).encode()
    assert count_metrics(body, "json") == 2
    with pytest.raises(BadRequest):
        count_metrics(b"[]", "json")


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*span_json(), "attributes", "events", "status", "parentSpanId"]), JSON)
)
def test_any_json_is_read_or_refused_by_our_own_error(changes: dict[str, Any]) -> None:
    try:
        decoded = of_json(span_json(**changes), span_json())
    except BadRequest:
        return
    assert len(decoded.spans) + len(decoded.rejected) == 2


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_by_our_own_error(body: bytes) -> None:
    for media_type in ("protobuf", "json"):
        try:
            decode_traces(body, media_type)
        except BadRequest:
            continue
