"""Telemetry made to exhaust the collector: bounded in time and memory, counted, and never in the way of others."""

from __future__ import annotations

import gzip
import os
import secrets
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collector.running import Running, running_collector
from tierlight_collector.conformance import request_json, request_proto, span_json
from tierlight_collector.limits import MIB, IngestLimits

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = IngestLimits(stall_s=1.0)
    with running_collector(tmp_path_factory.mktemp("attacks"), limits=limits, grpc_port=None) as collector:
        yield collector


def post(running: Running, body: bytes, headers: dict[str, str], **more: str) -> httpx.Response:
    return httpx.post(running.url + "/v1/traces", content=body, headers={**headers, **more}, timeout=30)


def counted(running: Running, name: str) -> int:
    return running.collector.ingest.counters.snapshot().get(name, 0)


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def zeros_as_gzip(mebibytes: int) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    chunk = bytes(MIB)
    return b"".join(squeeze.compress(chunk) for _ in range(mebibytes)) + squeeze.flush()


def test_a_decompression_bomb_is_refused_at_the_limit_and_holds_little_memory(running: Running) -> None:
    bomb = zeros_as_gzip(200)
    before = rss_mb()
    answer = post(running, bomb, PROTOBUF, **{"content-encoding": "gzip"})
    assert answer.status_code == 413
    assert rss_mb() - before < 80


def test_a_body_declared_as_10_gb_is_refused_before_it_is_read(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.http_port), timeout=5) as connection:
        connection.sendall(
            f"POST /v1/traces HTTP/1.1\r\nHost: localhost:{running.http_port}\r\n"
            "Content-Type: application/x-protobuf\r\nContent-Length: 10000000000\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_gzip_within_gzip_is_refused_however_it_is_declared(running: Running) -> None:
    twice = gzip.compress(gzip.compress(request_proto().SerializeToString()))
    assert post(running, twice, PROTOBUF, **{"content-encoding": "gzip, gzip"}).status_code == 415
    assert post(running, twice, PROTOBUF, **{"content-encoding": "gzip"}).status_code == 400


def test_spans_over_the_limit_are_rejected_and_the_others_stored(running: Running) -> None:
    request = request_proto(10_003)
    answer = post(running, request.SerializeToString(), PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (answer.status_code, partial.rejected_spans) == (200, 3)
    first = request.resource_spans[0].scope_spans[0].spans[0]
    assert len(running.store.trace(first.trace_id)) == 1


def with_attributes(*pairs: tuple[str, AnyValue]) -> ExportTraceServiceRequest:
    request = request_proto()
    span = request.resource_spans[0].scope_spans[0].spans[0]
    for key, value in pairs:
        span.attributes.append(KeyValue(key=key, value=value))
    return request


def stored_attributes(running: Running, request: ExportTraceServiceRequest) -> Any:
    span = request.resource_spans[0].scope_spans[0].spans[0]
    (stored,) = running.store.trace(span.trace_id)
    return stored.attributes


def test_attributes_over_the_limit_are_dropped_and_counted(running: Running) -> None:
    request = with_attributes(*((f"key-{number}", AnyValue(int_value=number)) for number in range(100_000)))
    before = counted(running, "altered_attributes")
    assert post(running, request.SerializeToString(), PROTOBUF).content == b""
    assert counted(running, "altered_attributes") - before == 100_000 - 128
    assert len(stored_attributes(running, request)) == 128


def test_a_value_of_10_mb_is_cut_and_says_so(running: Running) -> None:
    request = with_attributes(
        ("long", AnyValue(string_value="ä" * 5_000_000)), ("k" * 300, AnyValue(int_value=1))
    )
    assert post(running, request.SerializeToString(), PROTOBUF).status_code == 200
    kept = stored_attributes(running, request)
    assert list(kept) == ["long"]
    assert len(kept["long"].encode()) < 66_000
    assert "[truncated 9934464 bytes]" in kept["long"]


@pytest.mark.parametrize("depth", [200, 10_000])
def test_nesting_without_end_is_refused(running: Running, depth: int) -> None:
    text = '{"arrayValue":{"values":[' * depth + '{"stringValue":"leaf"}' + "]}}" * depth
    body = request_json(span_json(attributes=[{"key": "deep", "value": "HERE"}])).replace(
        b'"HERE"', text.encode()
    )
    assert post(running, body, JSON).status_code == 400
    raw = b""
    for _ in range(
        depth
    ):  # AnyValue.array_value (5) of ArrayValue.values (1), by hand: the runtime makes no such thing
        raw = b"\x0a" + varint(len(raw)) + raw
        raw = b"\x2a" + varint(len(raw)) + raw
    pair = b"\x0a\x04deep\x12" + varint(len(raw)) + raw
    span = request_proto().resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    for field in (b"\x4a" + varint(len(pair)) + pair,):
        span += field
    for tag in (b"\x12", b"\x12", b"\x0a"):  # ScopeSpans.spans, ResourceSpans.scope_spans, resource_spans
        span = tag + varint(len(span)) + span
    assert post(running, span, PROTOBUF).status_code == 400
    assert counted(running, "http_traces_500") == 0


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def test_200_connections_that_drip_do_not_stop_the_others(running: Running) -> None:
    slow = [socket.create_connection(("127.0.0.1", running.http_port), timeout=10) for _ in range(200)]
    try:
        for connection in slow:
            connection.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: loc")
        assert post(running, request_proto().SerializeToString(), PROTOBUF).status_code == 200
        for connection in slow:
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
    finally:
        for connection in slow:
            connection.close()


CALL = {
    "gen_ai.operation.name": {"stringValue": "chat"},
    "gen_ai.provider.name": {"stringValue": "openai"},
    "gen_ai.request.model": {"stringValue": "gpt-4o-mini"},
    "tierlight.route": {"stringValue": "r"},
    "tierlight.schema": {"stringValue": "1"},
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gen_ai.usage.input_tokens", {"intValue": "-1"}),
        ("gen_ai.usage.input_tokens", {"intValue": str(2**62)}),
        ("gen_ai.usage.input_tokens", {"doubleValue": "NaN"}),
        ("gen_ai.usage.input_tokens", {"stringValue": "9" * 400}),
        ("tierlight.cost.amount", {"doubleValue": "NaN"}),
        ("tierlight.cost.amount", {"doubleValue": "Infinity"}),
        ("tierlight.cost.amount", {"doubleValue": -1}),
        ("tierlight.cost.amount", {"doubleValue": 1e308}),
        ("tierlight.score.x", {"doubleValue": 1e308}),
        ("tierlight.score.x", {"doubleValue": "NaN"}),
    ],
)
def test_numbers_that_cannot_be_are_unknown_and_the_call_is_kept(
    running: Running, key: str, value: dict[str, Any]
) -> None:
    attributes = [{"key": name, "value": said} for name, said in {**CALL, key: value}.items()]
    span = span_json(name="chat gpt-4o-mini", kind=3, attributes=attributes)
    assert post(running, request_json(span), JSON).content == b"{}"
    row = running.store.call(bytes.fromhex(span["traceId"]), bytes.fromhex(span["spanId"]))
    assert row is not None
    assert (row.call.input_tokens, row.call.cost_nusd) == (None, None)
    assert row.scores == ()


HOSTILE_KEYS = (
    "hx-on:click",
    "hx-get",
    "__proto__",
    "constructor",
    "__class__",
    "a.b[0]",
    "a'; DROP TABLE calls;--",
    "{0.__class__}",
)


def test_hostile_keys_are_plain_text(running: Running) -> None:
    request = with_attributes(*((key, AnyValue(string_value="x")) for key in HOSTILE_KEYS))
    assert post(running, request.SerializeToString(), PROTOBUF).status_code == 200
    assert stored_attributes(running, request) == dict.fromkeys(HOSTILE_KEYS, "x")


@pytest.mark.parametrize(
    ("start_ns", "is_stored"),
    [(0, False), (1, False), (2**63, True), (2**64 - 1, True), (9_214_646_400 * 10**9, True)],
)
def test_times_out_of_range_are_rejected_or_become_the_arrival(
    running: Running, start_ns: int, is_stored: bool
) -> None:
    request = request_proto(1, start_time_unix_nano=start_ns)
    assert post(running, request.SerializeToString(), PROTOBUF).status_code == 200
    stored = running.store.trace(request.resource_spans[0].scope_spans[0].spans[0].trace_id)
    assert len(stored) == is_stored
    assert all(abs(span.start_ns - time.time_ns()) < 60 * 10**9 for span in stored)


def test_content_is_not_kept_unless_asked_for(running: Running) -> None:
    secret = f"the-customer-said-{secrets.token_hex(8)}"
    messages = {"key": "gen_ai.input.messages", "value": {"stringValue": secret}}
    attributes = [*({"key": name, "value": said} for name, said in CALL.items()), messages]
    span = span_json(name="chat gpt-4o-mini", kind=3, attributes=attributes)
    assert post(running, request_json(span), JSON).status_code == 200
    assert running.store.contents(bytes.fromhex(span["traceId"]), bytes.fromhex(span["spanId"])) == []
    (stored,) = running.store.trace(bytes.fromhex(span["traceId"]))
    assert secret not in repr(stored)


def test_nothing_above_was_answered_with_a_fault_of_ours(running: Running) -> None:
    counters = running.collector.ingest.counters.snapshot()
    assert [name for name in counters if name.endswith(("_500", "_503"))] == []
