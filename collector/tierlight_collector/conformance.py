"""Asks an OTLP/HTTP endpoint every question that senders have been seen to ask, and says which answers are right.

Works against any collector: it sends a few spans of the service `otlp-conformance` that are no model calls.

References: OTLP specification (https://opentelemetry.io/docs/specs/otlp/), "OTLP/HTTP" and "JSON Protobuf Encoding".
"""

from __future__ import annotations

import gzip
import json
import secrets
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from .limits import MIB

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
_OK: Final = "200"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """One answer beside what was expected of it; `note` says what was wrong."""

    case: str
    expected: str
    status: int | None
    content_type: str
    passed: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and what its answer must be.

    `rejected` is the number of spans that partial_success must name (0: it must be unset).
    """

    name: str
    status: int
    body: bytes | Callable[[], Iterator[bytes]] = b""
    content_type: str | None = PROTOBUF
    encoding: str = ""
    method: str = "POST"
    path: str = "/v1/traces"
    rejected: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    answer_headers: dict[str, str] = field(default_factory=dict)


def run_conformance(url: str, *, timeout_s: float = 20.0) -> list[Result]:
    """Run all cases against the OTLP/HTTP endpoint at `url`, such as http://127.0.0.1:4318."""
    results: list[Result] = []
    with httpx.Client(base_url=url, timeout=timeout_s, trust_env=False, follow_redirects=False) as client:
        for case in cases():
            results.append(_ask(client, case))
    results.extend(_raw_cases(url, timeout_s))
    return results


def _ask(client: httpx.Client, case: Case) -> Result:
    headers = dict(case.headers)
    if case.content_type is not None:
        headers["content-type"] = case.content_type
    if case.encoding:
        headers["content-encoding"] = case.encoding
    body = case.body() if callable(case.body) else case.body
    try:
        answer = client.request(case.method, case.path, content=body, headers=headers)
    except httpx.HTTPError as error:
        return Result(case.name, str(case.status), None, "", False, f"no answer: {type(error).__name__}")
    content_type = answer.headers.get("content-type", "")
    problem = _problem(case, answer)
    return Result(case.name, str(case.status), answer.status_code, content_type, not problem, problem)


def _problem(case: Case, answer: httpx.Response) -> str:
    """What is wrong with the answer, "" if nothing."""
    if answer.status_code != case.status:
        return f"expected {case.status}, got {answer.status_code}"
    for name, value in case.answer_headers.items():
        if value not in answer.headers.get(name, ""):
            return f"expected header {name} to hold {value!r}"
    if not case.path.startswith("/v1/") or case.status in (404, 405):
        return ""
    asked_json = (case.content_type or "").partition(";")[0].strip().lower() != PROTOBUF
    expected_type = JSON if asked_json else PROTOBUF
    if answer.headers.get("content-type") != expected_type:
        return f"expected content type {expected_type}"
    if case.status == 200 and case.path == "/v1/traces":
        return _wrong_partial(answer.content, case.rejected, asked_json)
    if case.status >= 400:
        return _wrong_status_body(answer.content, asked_json)
    return ""


def _wrong_partial(body: bytes, rejected: int, is_json: bool) -> str:
    try:
        if is_json:
            said = json.loads(body).get("partialSuccess")
            found = int(said.get("rejectedSpans", "0")) if said is not None else 0
            is_set = said is not None
        else:
            response = ExportTraceServiceResponse.FromString(body)
            found = response.partial_success.rejected_spans
            is_set = response.HasField("partial_success")
    except (ValueError, AttributeError, DecodeError):
        return "the body is not an export response"
    if found != rejected:
        return f"expected {rejected} rejected spans, got {found}"
    return "" if rejected or not is_set else "partial_success must be unset when all is well"


def _wrong_status_body(body: bytes, is_json: bool) -> str:
    try:
        status = json.loads(body) if is_json else Status.FromString(body)
        code = status["code"] if is_json else status.code
    except (ValueError, KeyError, TypeError, DecodeError):
        return "the body is not a google.rpc.Status"
    return "" if code else "the Status has no code"


# ---- requests ---------------------------------------------------------------------------------------------


def span_json(**fields: Any) -> Json:
    """One good span as OTLP JSON; `fields` replace or add."""
    now = time.time_ns()
    return {
        "traceId": secrets.token_hex(16),
        "spanId": secrets.token_hex(8),
        "name": "probe",
        "kind": 1,
        "startTimeUnixNano": str(now - 1_000_000),
        "endTimeUnixNano": str(now),
        **fields,
    }


def request_json(*spans: Json) -> bytes:
    """An export request with these spans, as OTLP JSON."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "otlp-conformance"}}]}
    scoped = {"scope": {"name": "probe"}, "spans": list(spans)}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scoped]}]}).encode()


def request_proto(count: int = 1, **fields: Any) -> ExportTraceServiceRequest:
    """The same as protobuf: `count` good spans, with these fields set on each."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.append(
        KeyValue(key="service.name", value=AnyValue(string_value="otlp-conformance"))
    )
    scoped = group.scope_spans.add()
    scoped.scope.name = "probe"
    now = time.time_ns()
    for _ in range(count):
        span = scoped.spans.add(
            trace_id=secrets.token_bytes(16),
            span_id=secrets.token_bytes(8),
            name="probe",
            kind=1,
            start_time_unix_nano=now - 1_000_000,
            end_time_unix_nano=now,
        )
        for name, value in fields.items():
            setattr(span, name, value)
    return request


def nested_value(depth: int) -> AnyValue:
    """`depth` arrays in each other around one text."""
    value = AnyValue(string_value="leaf")
    for _ in range(depth):
        outer = AnyValue()
        outer.array_value.values.append(value)
        value = outer
    return value


def _proto(count: int = 1, **fields: Any) -> bytes:
    return request_proto(count, **fields).SerializeToString()


def _with_attribute(value: Any, key: str = "probe") -> bytes:
    return request_json(span_json(attributes=[{"key": key, "value": value}]))


def _mixed_proto() -> bytes:
    request = request_proto(4)
    spans = request.resource_spans[0].scope_spans[0].spans
    spans[0].trace_id = bytes(16)
    spans[1].span_id = b"short"
    spans[2].start_time_unix_nano = 0
    return request.SerializeToString()


def _nested_proto(depth: int) -> bytes:
    request = request_proto()
    request.resource_spans[0].scope_spans[0].spans[0].attributes.append(
        KeyValue(key="deep", value=nested_value(depth))
    )
    return request.SerializeToString()


def _nested_json(depth: int) -> bytes:
    text = '{"arrayValue":{"values":[' * depth + '{"stringValue":"leaf"}' + "]}}" * depth
    request = request_json(span_json(attributes=[{"key": "deep", "value": "HERE"}]))
    return request.replace(b'"HERE"', text.encode())


def _in_pieces(body: bytes) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    return pieces


def _bomb(mebibytes: int) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    return b"".join(squeeze.compress(zeros) for _ in range(mebibytes)) + squeeze.flush()


def cases() -> Iterator[Case]:
    """All cases that an ordinary HTTP client can ask."""
    good, good_json = _proto(), request_json(span_json())
    yield Case("protobuf, one span", 200, good)
    yield Case("the same request again", 200, good)
    yield Case("JSON, hex ids in lower case", 200, good_json, JSON)
    upper = request_json(
        span_json(traceId=secrets.token_hex(16).upper(), spanId=secrets.token_hex(8).upper())
    )
    yield Case("JSON, hex ids in upper case", 200, upper, JSON)
    yield Case("empty protobuf body", 200, b"")
    yield Case("empty JSON object", 200, b"{}", JSON)
    yield Case("empty resourceSpans", 200, b'{"resourceSpans":[]}', JSON)
    yield Case("resource without spans", 200, b'{"resourceSpans":[{"resource":{}}]}', JSON)

    for name, body, kind in (("protobuf", good, PROTOBUF), ("JSON", good_json, JSON)):
        yield Case(f"gzip, {name}", 200, gzip.compress(body), kind, "gzip")
        yield Case(f"deflate, {name}", 200, zlib.compress(body), kind, "deflate")
        yield Case(f"identity, {name}", 200, body, kind, "identity")
        yield Case(f"chunked gzip, {name}", 200, _in_pieces(gzip.compress(body)), kind, "gzip")
    two_members = gzip.compress(good[:50]) + gzip.compress(good[50:])
    yield Case("gzip of two members", 200, two_members, PROTOBUF, "gzip")
    yield Case("media type with parameter, protobuf", 200, good, "application/x-protobuf; charset=utf-8")
    yield Case("media type with parameter, JSON", 200, good_json, "Application/JSON ;charset=UTF-8")

    yield Case("no content type", 415, good, None)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        yield Case(f"content type {kind}", 415, good, kind)
    for encoding in ("br", "zstd", "gzip, gzip"):
        yield Case(
            f"content encoding {encoding}",
            415,
            good,
            PROTOBUF,
            encoding,
            answer_headers={"accept-encoding": "gzip"},
        )

    yield Case("garbage protobuf", 400, b"\xff\xff garbage")
    yield Case("truncated protobuf", 400, good[:-3])
    yield Case("truncated JSON", 400, good_json[:-3], JSON)
    yield Case("JSON array", 400, b"[]", JSON)
    yield Case("bare NaN literal", 400, b'{"resourceSpans": NaN}', JSON)
    yield Case("declared gzip but is not", 400, good, PROTOBUF, "gzip")
    yield Case("truncated gzip", 400, gzip.compress(good)[:-6], PROTOBUF, "gzip")
    yield Case("data after the gzip trailer", 400, gzip.compress(good) + b"more of it", PROTOBUF, "gzip")
    yield Case("gzip of gzip, declared once", 400, gzip.compress(gzip.compress(good)), PROTOBUF, "gzip")

    yield Case("200 MiB of zeros as gzip", 413, _bomb(200), PROTOBUF, "gzip")
    yield Case(
        "compressed body over 16 MiB", 413, gzip.compress(secrets.token_bytes(17 * MIB), 0), PROTOBUF, "gzip"
    )

    yield Case("some spans can never be right", 200, _mixed_proto(), rejected=3)
    yield Case("all spans can never be right", 200, _proto(2, trace_id=bytes(16)), rejected=2)
    bad_ids = [
        span_json(traceId="AAAAAAAAAAAAAAAAAAAAAA=="),
        span_json(traceId="zz" * 16),
        span_json(spanId="ab" * 7),
        span_json(),
    ]
    yield Case("JSON ids as base64, not hex, too short", 200, request_json(*bad_ids), JSON, rejected=3)
    now = time.time_ns()
    yield Case("end before start", 200, _proto(end_time_unix_nano=now - 10**12))
    yield Case("start two hours ahead", 200, _proto(start_time_unix_nano=now + 7_200 * 10**9))
    yield Case("start at the largest uint64", 200, _proto(start_time_unix_nano=2**64 - 1))
    yield Case("start in 1970", 200, _proto(start_time_unix_nano=1_000), rejected=1)

    yield Case("int64 as text", 200, _with_attribute({"intValue": "123"}), JSON)
    yield Case("int64 as number", 200, _with_attribute({"intValue": 123}), JSON)
    yield Case(
        "nanoseconds as number",
        200,
        request_json(span_json(startTimeUnixNano=now, endTimeUnixNano=now)),
        JSON,
    )
    yield Case("enum as its name", 200, request_json(span_json(kind="SPAN_KIND_SERVER")), JSON)
    yield Case(
        "unknown fields", 200, request_json(span_json(nobodyKnows={"a": [1]}, trace_state="x=1")), JSON
    )
    for name, value in (
        ("bytesValue", {"bytesValue": "AAEC"}),
        ("bad base64", {"bytesValue": "%%%"}),
        ("NaN as text", {"doubleValue": "NaN"}),
        ("Infinity as text", {"doubleValue": "Infinity"}),
        ("empty value", {}),
        ("null value", None),
        ("NUL in a text", {"stringValue": "a\x00b"}),
        ("lone surrogate", {"stringValue": "\ud800"}),
    ):
        yield Case(f"attribute: {name}", 200, _with_attribute(value), JSON)
    nulls = request_json(span_json(attributes=None, events=None, links=None, status=None, flags=257))
    yield Case("null for fields and arrays", 200, nulls, JSON)
    yield Case("33 nested arrays, protobuf", 200, _nested_proto(33))
    yield Case("45 nested arrays, JSON", 200, _nested_json(45), JSON)
    yield Case("200 nested arrays, JSON", 400, _nested_json(200), JSON)
    yield Case("10,000 nested arrays, JSON", 400, _nested_json(10_000), JSON)
    broken_text = good.replace(b"probe", b"pr\xffbe")
    yield Case("invalid UTF-8 in a protobuf string", 400, broken_text)

    yield Case("logs", 200, ExportLogsServiceRequest().SerializeToString(), path="/v1/logs")
    yield Case("metrics", 200, ExportMetricsServiceRequest().SerializeToString(), path="/v1/metrics")
    for method in ("GET", "PUT", "DELETE"):
        yield Case(f"{method} /v1/traces", 405, method=method, answer_headers={"allow": "POST"})
    yield Case("unknown path", 404, good, path="/v1/nope")
    yield Case("trailing slash", 404, good, path="/v1/traces/")


# ---- what an ordinary client never sends -------------------------------------------------------------------


def _raw_cases(url: str, timeout_s: float) -> Iterator[Result]:
    parts = urlsplit(url)
    host = parts.netloc
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    body = _proto()
    head = f"POST /v1/traces HTTP/1.1\r\nHost: {host}\r\nContent-Type: {PROTOBUF}\r\nConnection: close\r\n"
    length = f"Content-Length: {len(body)}\r\n"
    expecting = head + length + "Expect: 100-continue\r\n\r\n"
    old = head.replace("HTTP/1.1", "HTTP/1.0") + length + "\r\n"
    for name, status, request in (
        ("Expect: 100-continue", 200, expecting.encode() + body),
        ("HTTP/1.0", 200, old.encode() + body),
        ("two Content-Lengths", 400, (head + length + "Content-Length: 7\r\n\r\n").encode() + body),
        ("10 GB declared", 413, (head + f"Content-Length: {10**10}\r\n\r\n").encode()),
        ("header block of 20 KiB", 431, (head + length + f"X-Long: {'a' * 20_000}\r\n\r\n").encode() + body),
        ("garbage instead of HTTP", 400, b"\x16\x03\x01 hello\r\n\r\n"),
    ):
        got, note = _raw_status(address, request, timeout_s)
        passed = got == status
        yield Result(
            name, str(status), got, "", passed, "" if passed else note or f"expected {status}, got {got}"
        )


def _raw_status(address: tuple[str, int], request: bytes, timeout_s: float) -> tuple[int | None, str]:
    """The final status of the answer to these bytes."""
    try:
        with socket.create_connection(address, timeout=timeout_s) as connection:
            connection.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"):
                piece = connection.recv(4096)
                if not piece:
                    break
                answer += piece
    except OSError as error:
        return None, f"no answer: {type(error).__name__}"
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    words = answer.split(None, 2)
    return (int(words[1]), "") if len(words) > 1 and words[1].isdigit() else (None, "no status line")
