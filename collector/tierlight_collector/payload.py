"""What is sent on to another backend: the received request as OTLP protobuf, by default without captured text.

Ids, times, unknown attributes, events and links stay as they came, so the other backend can join; texts are masked as
the stored ones are. Spans with ids that can never be right are left out: they were rejected here too. Pure: bytes in,
bytes out.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeAlias

import orjson
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from .content import is_content_key
from .decode import MediaType
from .redaction import Redaction, may_hold_secrets

ForwardSignal: TypeAlias = Literal["traces", "logs"]
Payload: TypeAlias = Callable[[ForwardSignal, bytes, MediaType], bytes]

_TEXT_KINDS: Final = frozenset({"string_value", "array_value", "kvlist_value", "bytes_value"})
_ID_KEYS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})


def with_content(
    signal: ForwardSignal, body: bytes, media_type: MediaType, redaction: Redaction | None = None
) -> bytes:
    """The request as protobuf, captured text included; b"" when nothing in it can be sent."""
    return _encode(signal, body, media_type, strip=False, redaction=redaction)


def without_content(
    signal: ForwardSignal, body: bytes, media_type: MediaType, redaction: Redaction | None = None
) -> bytes:
    """The request as protobuf without prompts, answers, tool arguments and log bodies, of whatever dialect."""
    return _encode(signal, body, media_type, strip=True, redaction=redaction)


def strip_content(signal: ForwardSignal, payload: bytes) -> bytes:
    """A payload made by `with_content` for a target that takes no content."""
    return _encode(signal, payload, "protobuf", strip=True, redaction=None)


def seal(hops: Iterable[str], payload: bytes) -> bytes:
    """What is put into the outbox: the collectors that the request came through, then the request."""
    return ",".join(hops).encode("latin-1", "replace") + b"\n" + payload


def unseal(sealed: bytes) -> tuple[str, bytes]:
    """The hops as one header value, and the request."""
    hops, _, payload = sealed.partition(b"\n")
    return hops.decode("latin-1"), payload


def count(signal: ForwardSignal, payload: bytes) -> int:
    """The number of spans or log records in a payload."""
    if signal == "traces":
        traces = ExportTraceServiceRequest.FromString(payload)
        return sum(len(scoped.spans) for group in traces.resource_spans for scoped in group.scope_spans)
    logs = ExportLogsServiceRequest.FromString(payload)
    return sum(len(scoped.log_records) for group in logs.resource_logs for scoped in group.scope_logs)


def halves(signal: ForwardSignal, payload: bytes) -> tuple[bytes, bytes] | None:
    """The payload as two, split in the middle of its spans or records; None when it holds a single one."""
    total = count(signal, payload)
    if total < 2:
        return None
    return _part(signal, payload, 0, total // 2), _part(signal, payload, total // 2, total)


def _part(signal: ForwardSignal, payload: bytes, start: int, end: int) -> bytes:
    kind: type[Any] = ExportTraceServiceRequest if signal == "traces" else ExportLogsServiceRequest
    groups, scopes, leaves = (
        ("resource_spans", "scope_spans", "spans")
        if signal == "traces"
        else ("resource_logs", "scope_logs", "log_records")
    )
    message = kind.FromString(payload)
    seen = 0
    for group in getattr(message, groups):
        for scoped in getattr(group, scopes):
            items = getattr(scoped, leaves)
            first, seen = seen, seen + len(items)
            low, high = max(start, first) - first, min(end, seen) - first
            if low >= high:
                del items[:]
            else:
                del items[high:]
                del items[:low]
    body: bytes = message.SerializeToString()
    return body


def _encode(
    signal: ForwardSignal, body: bytes, media_type: MediaType, *, strip: bool, redaction: Redaction | None
) -> bytes:
    if signal == "traces":
        traces = _parse(ExportTraceServiceRequest, body, media_type)
        return _traces(traces, strip=strip, redaction=redaction)
    logs = _parse(ExportLogsServiceRequest, body, media_type)
    return _logs(logs, strip=strip, redaction=redaction)


def _parse(kind: type[Any], body: bytes, media_type: MediaType) -> Any:
    if media_type == "protobuf":
        return kind.FromString(body)
    message = kind()
    try:
        ParseDict(_with_base64_ids(orjson.loads(body)), message, ignore_unknown_fields=True)
    except (ParseError, orjson.JSONDecodeError):
        return (
            kind()
        )  # what protobuf cannot hold (enum as a word, lone surrogate) is stored here but not sent on
    return message


def _with_base64_ids(node: Any) -> Any:
    """OTLP JSON writes ids as hex, protobuf's own JSON as base64: the one difference between them that matters."""
    if isinstance(node, list):
        return [_with_base64_ids(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _base64_of_hex(value) if key in _ID_KEYS and isinstance(value, str) else _with_base64_ids(value)
        for key, value in node.items()
        if value is not None
    }


def _base64_of_hex(text: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(text)).decode()
    except ValueError:
        return ""


def _traces(message: ExportTraceServiceRequest, *, strip: bool, redaction: Redaction | None) -> bytes:
    spans = 0
    for resource_spans in message.resource_spans:
        if redaction is not None:
            _mask(resource_spans.resource.attributes, redaction)
        for scope_spans in resource_spans.scope_spans:
            kept = [
                span for span in scope_spans.spans if _usable(span.trace_id, 16) and _usable(span.span_id, 8)
            ]
            if len(kept) != len(scope_spans.spans):
                copies = [type(span).FromString(span.SerializeToString()) for span in kept]
                del scope_spans.spans[:]
                scope_spans.spans.extend(copies)
            spans += len(scope_spans.spans)
            if strip:
                for span in scope_spans.spans:
                    _strip(span.attributes)
                    for event in span.events:
                        _strip(event.attributes)
            if redaction is not None:
                for span in scope_spans.spans:
                    span.name = redaction.text(span.name)
                    if span.status.message:
                        span.status.message = redaction.text(span.status.message)
                    _mask(span.attributes, redaction)
                    for event in span.events:
                        _mask(event.attributes, redaction)
                    for link in span.links:
                        _mask(link.attributes, redaction)
    return message.SerializeToString() if spans else b""


def _logs(message: ExportLogsServiceRequest, *, strip: bool, redaction: Redaction | None) -> bytes:
    records = 0
    for resource_logs in message.resource_logs:
        if redaction is not None:
            _mask(resource_logs.resource.attributes, redaction)
        for scope_logs in resource_logs.scope_logs:
            records += len(scope_logs.log_records)
            if strip:
                for record in scope_logs.log_records:
                    record.ClearField("body")  # GenAI events carry the messages there
                    _strip(record.attributes)
            if redaction is not None:
                for record in scope_logs.log_records:
                    _mask_value(record.body, redaction)
                    _mask(record.attributes, redaction)
    return message.SerializeToString() if records else b""


def _usable(identity: bytes, length: int) -> bool:
    return len(identity) == length and any(identity)


def _strip(attributes: RepeatedCompositeFieldContainer[KeyValue]) -> None:
    kept = list(_without_text(attributes))
    if len(kept) == len(attributes):
        return
    copies = [KeyValue.FromString(pair.SerializeToString()) for pair in kept]
    del attributes[:]
    attributes.extend(copies)


def _mask(attributes: RepeatedCompositeFieldContainer[KeyValue], redaction: Redaction) -> None:
    for pair in attributes:
        if may_hold_secrets(pair.key):
            _mask_value(pair.value, redaction)


def _mask_value(value: AnyValue, redaction: Redaction) -> None:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        masked = redaction.text(value.string_value)
        if masked != value.string_value:
            value.string_value = masked
    elif kind == "array_value":
        for item in value.array_value.values:
            _mask_value(item, redaction)
    elif kind == "kvlist_value":
        for pair in value.kvlist_value.values:
            _mask_value(pair.value, redaction)


def _without_text(attributes: Iterable[KeyValue]) -> Iterable[KeyValue]:
    for pair in attributes:
        if not (is_content_key(pair.key) and pair.value.WhichOneof("value") in _TEXT_KINDS):
            yield pair
