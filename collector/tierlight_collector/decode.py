"""OTLP bodies to records: protobuf by the generated classes, JSON by a walker of its own.

`google.protobuf.json_format` reads the hex ids of OTLP JSON as base64 and takes enum names, so it is not used.
Pure: bytes in, records out. A span that can never be right is rejected with a reason while its neighbours stay;
what is too long is cut and counted. Protobuf stops here.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, TypeAlias, TypeVar

import orjson
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tierlight import semconv

from .content import is_content_key
from .drafts import maker
from .errors import BadRequest, InvalidRecord
from .limits import IngestLimits
from .records import AttributeValue, EventRecord, LogRecord, Resource, SpanRecord

MediaType: TypeAlias = Literal["protobuf", "json"]

DAY_NS: Final = 86_400_000_000_000
# The protobuf runtime refuses from 48 nested arrays on; the JSON walker draws the same line.
MAX_JSON_DEPTH: Final = 47
DEPTH_MARK: Final = "[truncated: depth]"
NO_TRACE: Final = bytes(16)
NO_SPAN: Final = bytes(8)
NO_LIMITS_SET: Final = IngestLimits()

_make_span: Final = maker(SpanRecord)

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What was in one request.

    `rejected` holds a reason per span or log record that can never be stored. `altered` counts what was stored
    otherwise than sent, by kind: `attributes`, `events`, `links` and `keys` dropped, `values` cut, `arrays` and
    `depth` cut, `text` repaired (NUL, lone surrogates), `base64`, `enums` and `parents` unreadable.
    """

    spans: list[SpanRecord] = field(default_factory=list)
    logs: list[LogRecord] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    altered: dict[str, int] = field(default_factory=dict)


def decode_traces(
    body: bytes,
    media_type: MediaType,
    *,
    limits: IngestLimits = NO_LIMITS_SET,
    arrived_ns: int | None = None,
) -> Decoded:
    """The spans of an `ExportTraceServiceRequest`, already decompressed.

    Spans that began more than `limits.horizon_days` before `arrived_ns` are rejected (not checked when None).
    Raises BadRequest when the body is not OTLP of that media type.
    """
    if media_type == "protobuf":
        return decode_traces_message(
            _parse(ExportTraceServiceRequest, body), limits=limits, arrived_ns=arrived_ns
        )
    return _JsonWalker(limits, arrived_ns).traces(_load_json(body))


def decode_traces_message(
    message: ExportTraceServiceRequest,
    *,
    limits: IngestLimits = NO_LIMITS_SET,
    arrived_ns: int | None = None,
) -> Decoded:
    """The same of a request that gRPC has parsed already."""
    return _ProtoWalker(limits, arrived_ns).traces(message)


def decode_logs(body: bytes, media_type: MediaType, *, limits: IngestLimits = NO_LIMITS_SET) -> Decoded:
    """The log records of an `ExportLogsServiceRequest`. Raises BadRequest like `decode_traces`."""
    if media_type == "protobuf":
        return decode_logs_message(_parse(ExportLogsServiceRequest, body), limits=limits)
    return _JsonWalker(limits, None).log_records(_load_json(body))


def decode_logs_message(
    message: ExportLogsServiceRequest, *, limits: IngestLimits = NO_LIMITS_SET
) -> Decoded:
    """The same of a request that gRPC has parsed already."""
    return _ProtoWalker(limits, None).log_records(message)


def count_metrics(body: bytes, media_type: MediaType) -> int:
    """How many metrics an `ExportMetricsServiceRequest` holds; they are counted and not stored."""
    if media_type == "protobuf":
        return count_metrics_message(_parse(ExportMetricsServiceRequest, body))
    return sum(
        len(_list(scope, "metrics"))
        for resource in _list(_load_json(body), "resourceMetrics")
        for scope in _list(_object(resource, "resourceMetrics"), "scopeMetrics")
    )


def count_metrics_message(message: ExportMetricsServiceRequest) -> int:
    """The same of a request that gRPC has parsed already."""
    return sum(
        len(scope.metrics) for resource in message.resource_metrics for scope in resource.scope_metrics
    )


def _parse(kind: type[M], body: bytes) -> M:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise BadRequest(f"body is not a protobuf {kind.DESCRIPTOR.name}") from error


# ---- what both encodings share --------------------------------------------------------------------------


class _Walker:
    """Limits and tallies of one request."""

    def __init__(self, limits: IngestLimits, arrived_ns: int | None) -> None:
        self.limits = limits
        self.oldest_ns = 0 if arrived_ns is None else arrived_ns - limits.horizon_days * DAY_NS
        self.decoded = Decoded()
        self.short = limits.value_bytes // 4  # characters that are under the limit whatever they are
        self.keys: dict[str, str] = {}  # as sent -> as kept; "" = dropped

    def tally(self, what: str, n: int = 1) -> None:
        self.decoded.altered[what] = self.decoded.altered.get(what, 0) + n

    def key(self, key: str) -> str:
        """The key as it is kept, "" when it is too long; remembered, as senders repeat themselves."""
        kept = self.text(key, "") if len(key.encode("utf-8", "replace")) <= self.limits.key_bytes else ""
        if len(self.keys) < 4096:
            self.keys[key] = kept
        return kept

    def text(self, text: str, key: str) -> str:
        """The text without NUL and surrogates, cut at the limit of its key."""
        if "\0" in text or not _is_utf8(text):
            self.tally("text")
            text = text.replace("\0", "�").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if len(text) * 4 <= self.limits.value_bytes:
            return text
        raw = text.encode()
        most = self.limits.value_bytes
        if len(raw) > most and key and is_content_key(key):
            most = self.limits.content_bytes
        if len(raw) <= most:
            return text
        self.tally("values")
        return f"{raw[:most].decode('utf-8', 'ignore')}…[truncated {len(raw) - most} bytes]"

    def raw_bytes(self, value: bytes) -> bytes:
        if len(value) <= self.limits.value_bytes:
            return value
        self.tally("values")
        return value[: self.limits.value_bytes]

    def check_ids(self, trace_id: bytes, span_id: bytes) -> None:
        if len(trace_id) != 16 or trace_id == NO_TRACE:
            raise InvalidRecord("trace id is not 16 bytes, not all zero")
        if len(span_id) != 8 or span_id == NO_SPAN:
            raise InvalidRecord("span id is not 8 bytes, not all zero")

    def parent(self, parent: bytes) -> bytes:
        if len(parent) == 8:
            return b"" if parent == NO_SPAN else parent
        if parent:
            self.tally("parents")
        return b""

    def check_start(self, start_ns: int) -> None:
        if start_ns <= 0 or start_ns < self.oldest_ns:
            raise InvalidRecord("start time is older than the retention horizon")

    def resource(self, attributes: dict[str, AttributeValue]) -> Resource:
        def said(*keys: str) -> str:
            return next((str(attributes[key]) for key in keys if attributes.get(key)), "")

        return Resource(
            attributes,
            said(semconv.SERVICE_NAME),
            said(semconv.SERVICE_INSTANCE_ID),
            said(semconv.DEPLOYMENT_ENVIRONMENT_NAME, "deployment.environment"),
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _finite(number: float) -> float | str:
    """The number, or its name in OTLP JSON where it is none that may be computed with."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


# ---- protobuf -------------------------------------------------------------------------------------------


class _ProtoWalker(_Walker):
    def traces(self, message: ExportTraceServiceRequest) -> Decoded:
        spans, rejected = self.decoded.spans, self.decoded.rejected
        for resource_spans in message.resource_spans:
            resource = self.resource(self.attributes(resource_spans.resource.attributes))
            for scope_spans in resource_spans.scope_spans:
                scope = self.text(scope_spans.scope.name, "")
                version = self.text(scope_spans.scope.version, "")
                for span in scope_spans.spans:
                    if len(spans) + len(rejected) >= self.limits.spans:
                        rejected.append(f"over {self.limits.spans} spans in one request")
                        continue
                    try:
                        spans.append(self.span(span, scope, version, resource))
                    except InvalidRecord as error:
                        rejected.append(str(error))
        return self.decoded

    def span(self, span: Span, scope: str, version: str, resource: Resource) -> SpanRecord:
        trace_id, span_id, parent, start_ns = (
            span.trace_id,
            span.span_id,
            span.parent_span_id,
            span.start_time_unix_nano,
        )
        self.check_ids(trace_id, span_id)
        self.check_start(start_ns)
        name = span.name
        if len(name) > self.short or "\0" in name:
            name = self.text(name, "")
        events = self.events(span.events) if span.events else ()
        if len(span.links) > self.limits.links:
            self.tally("links", len(span.links) - self.limits.links)
        status_code, status_message = 0, ""
        if span.HasField("status"):
            status = span.status
            status_code = status.code
            status_message = status.message
            if status_message:
                status_message = self.text(status_message, "")
        return _make_span(
            trace_id,
            span_id,
            self.parent(parent) if parent else b"",
            name,
            span.kind,
            start_ns,
            span.end_time_unix_nano,
            status_code,
            status_message,
            scope,
            version,
            self.attributes(span.attributes),
            events,
            resource,
        )

    def events(self, events: Sequence[Span.Event]) -> tuple[EventRecord, ...]:
        most = self.limits.events
        if len(events) > most:
            self.tally("events", len(events) - most)
        return tuple(
            EventRecord(self.text(event.name, ""), event.time_unix_nano, self.attributes(event.attributes))
            for event in events[:most]
        )

    def attributes(self, pairs: Sequence[KeyValue]) -> dict[str, AttributeValue]:
        """The hottest loop of ingest: one look at each attribute, most often one string or one integer."""
        most = self.limits.attributes
        if len(pairs) > most:
            self.tally("attributes", len(pairs) - most)
            pairs = pairs[:most]
        known, short = self.keys, self.short
        found: dict[str, AttributeValue] = {}
        for pair in pairs:
            key = pair.key
            kept = known.get(key)
            if kept is None:
                kept = self.key(key)
            if not kept:
                self.tally("keys")
                continue
            value = pair.value
            text = value.string_value
            if text:
                found[kept] = text if len(text) <= short and "\0" not in text else self.text(text, kept)
            else:
                found[kept] = value.int_value or self.value(value, kept, 1)
        return found

    def value(self, value: AnyValue, key: str, depth: int) -> AttributeValue:
        kind = value.WhichOneof("value")
        if kind == "string_value":
            return self.text(value.string_value, key)
        if kind == "int_value":
            return value.int_value
        if kind == "bool_value":
            return value.bool_value
        if kind == "double_value":
            return _finite(value.double_value)
        if kind == "bytes_value":
            return self.raw_bytes(value.bytes_value)
        if kind == "array_value":
            if depth > self.limits.depth:
                self.tally("depth")
                return DEPTH_MARK
            items = value.array_value.values
            most = self.limits.array_length
            if len(items) > most:
                self.tally("arrays")
            return [self.value(item, key, depth + 1) for item in items[:most]]
        if kind == "kvlist_value":
            if depth > self.limits.depth:
                self.tally("depth")
                return DEPTH_MARK
            pairs = value.kvlist_value.values
            most = self.limits.array_length
            if len(pairs) > most:
                self.tally("arrays")
            return {
                kept: self.value(pair.value, key, depth + 1)
                for pair in pairs[:most]
                if (kept := self.keys.get(pair.key) or self.key(pair.key))
            }
        return None

    def log_records(self, message: ExportLogsServiceRequest) -> Decoded:
        logs, rejected = self.decoded.logs, self.decoded.rejected
        for resource_logs in message.resource_logs:
            resource = self.resource(self.attributes(resource_logs.resource.attributes))
            for scope_logs in resource_logs.scope_logs:
                for record in scope_logs.log_records:
                    if len(logs) + len(rejected) >= self.limits.spans:
                        rejected.append(f"over {self.limits.spans} log records in one request")
                        continue
                    attributes = self.attributes(record.attributes)
                    logs.append(
                        LogRecord(
                            self.text(record.event_name, "") or str(attributes.get("event.name") or ""),
                            record.time_unix_nano or record.observed_time_unix_nano,
                            record.trace_id if len(record.trace_id) == 16 else b"",
                            record.span_id if len(record.span_id) == 8 else b"",
                            attributes,
                            resource,
                        )
                    )
        return self.decoded


# ---- JSON -----------------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"bare {name} is not JSON")


def _load_json(body: bytes) -> dict[str, Any]:
    """The object in the body; an empty body is an error in JSON, other than in protobuf."""
    try:
        loaded = orjson.loads(body)
    except orjson.JSONDecodeError:
        # The fast parser also refuses lone surrogates, which are to be repaired; the slow one takes them.
        try:
            loaded = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BadRequest("body is not JSON") from error
    if not isinstance(loaded, dict):
        raise BadRequest(f"body is a JSON {type(loaded).__name__}, expected an object")
    return loaded


def _list(owner: Mapping[str, Any], name: str) -> list[Any]:
    value = owner.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequest(f"{name} is a JSON {type(value).__name__}, expected an array")
    return value


def _object(value: object, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{name} holds a JSON {type(value).__name__}, expected an object")
    return value


def _hex(value: object) -> bytes:
    """The id as bytes; b"" where it is absent, not hex or not text."""
    if not isinstance(value, str) or len(value) not in (16, 32):
        return b""
    try:
        raw = bytes.fromhex(value)
    except ValueError:
        return b""
    return raw if len(raw) * 2 == len(value) else b""


def _integer(value: object) -> int | None:
    """An int64 or uint64 of OTLP JSON: a number, or its decimal digits as text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and 0 < len(value) <= 20 and value.lstrip("-").isdecimal():
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and -(2**63) <= value < 2**64 else None


class _JsonWalker(_Walker):
    def traces(self, body: Mapping[str, Any]) -> Decoded:
        spans, rejected = self.decoded.spans, self.decoded.rejected
        for resource, scope, version, record in self.records(body, "resourceSpans", "scopeSpans", "spans"):
            if len(spans) + len(rejected) >= self.limits.spans:
                rejected.append(f"over {self.limits.spans} spans in one request")
                continue
            try:
                spans.append(self.span(record, scope, version, resource))
            except InvalidRecord as error:
                rejected.append(str(error))
        return self.decoded

    def records(
        self, body: Mapping[str, Any], outer: str, inner: str, leaf: str
    ) -> Iterable[tuple[Resource, str, str, Mapping[str, Any]]]:
        for group in _list(body, outer):
            group = _object(group, outer)
            resource = self.resource(self.attributes(_object(group.get("resource"), "resource")))
            for scoped in _list(group, inner):
                scoped = _object(scoped, inner)
                scope = _object(scoped.get("scope"), "scope")
                name, version = self.string(scope.get("name")), self.string(scope.get("version"))
                for record in _list(scoped, leaf):
                    yield resource, name, version, _object(record, leaf)

    def span(self, span: Mapping[str, Any], scope: str, version: str, resource: Resource) -> SpanRecord:
        trace_id, span_id = _hex(span.get("traceId")), _hex(span.get("spanId"))
        self.check_ids(trace_id, span_id)
        start_ns = self.time(span.get("startTimeUnixNano"), "startTimeUnixNano")
        self.check_start(start_ns)
        parent = span.get("parentSpanId")
        links = _list(span, "links")
        if len(links) > self.limits.links:
            self.tally("links", len(links) - self.limits.links)
        status = _object(span.get("status"), "status")
        parent_id = _hex(parent)
        if parent and not parent_id:
            self.tally("parents")
        return _make_span(
            trace_id,
            span_id,
            self.parent(parent_id),
            self.string(span.get("name")),
            self.enum(span.get("kind")),
            start_ns,
            self.time(span.get("endTimeUnixNano"), "endTimeUnixNano"),
            self.enum(status.get("code")),
            self.string(status.get("message")),
            scope,
            version,
            self.attributes(span),
            self.events(_list(span, "events")),
            resource,
        )

    def events(self, events: list[Any]) -> tuple[EventRecord, ...]:
        most = self.limits.events
        if len(events) > most:
            self.tally("events", len(events) - most)
        return tuple(
            EventRecord(
                self.string(event.get("name")),
                self.time(event.get("timeUnixNano"), "timeUnixNano"),
                self.attributes(event),
            )
            for event in (_object(event, "events") for event in events[:most])
        )

    def string(self, value: object) -> str:
        return self.text(value, "") if isinstance(value, str) else ""

    def time(self, value: object, name: str) -> int:
        if value is None:
            return 0
        number = _integer(value)
        if number is None or number < 0:
            raise InvalidRecord(f"{name} is not a count of nanoseconds")
        return number

    def enum(self, value: object) -> int:
        """The number of an enum; OTLP JSON forbids its name, which is read as unspecified."""
        if value is None:
            return 0
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
            return value
        self.tally("enums")
        return 0

    def attributes(self, owner: Mapping[str, Any]) -> dict[str, AttributeValue]:
        pairs = _list(owner, "attributes")
        most = self.limits.attributes
        if len(pairs) > most:
            self.tally("attributes", len(pairs) - most)
        return self.pairs(pairs[:most], "", 1)

    def pairs(self, pairs: list[Any], under: str, depth: int) -> dict[str, AttributeValue]:
        found: dict[str, AttributeValue] = {}
        for pair in pairs:
            pair = _object(pair, "attributes")
            key = pair.get("key")
            kept = (self.keys.get(key) or self.key(key)) if isinstance(key, str) else ""
            if not kept:
                self.tally("keys")
                continue
            try:
                found[kept] = self.value(pair.get("value"), under or kept, depth)
            except InvalidRecord:
                continue
        return found

    def value(self, value: object, key: str, depth: int) -> AttributeValue:
        """The value; raises InvalidRecord (counted) where the attribute has to be dropped."""
        for kind, content in _object(value, "value").items():
            read = self.readers.get(kind)
            if read is not None and content is not None:
                return read(self, content, key, depth)
        return None

    def text_value(self, content: object, key: str, depth: int) -> AttributeValue:
        if not isinstance(content, str):
            self.drop("attributes")
        return self.text(content, key)

    def int_value(self, content: object, key: str, depth: int) -> AttributeValue:
        number = _integer(content)
        if number is None or number >= 2**63:
            self.drop("attributes")
        return number

    def bool_value(self, content: object, key: str, depth: int) -> AttributeValue:
        if not isinstance(content, bool):
            self.drop("attributes")
        return content

    def double_value(self, content: object, key: str, depth: int) -> AttributeValue:
        if isinstance(content, str) and len(content) <= 64:
            try:
                return _finite(float(content))
            except ValueError:
                self.drop("attributes")
        if isinstance(content, bool) or not isinstance(content, (int, float)):
            self.drop("attributes")
        try:
            return _finite(float(content))
        except OverflowError:
            self.drop("attributes")

    def bytes_value(self, content: object, key: str, depth: int) -> AttributeValue:
        try:
            if not isinstance(content, str):
                raise ValueError
            return self.raw_bytes(base64.b64decode(content, validate=True))
        except (ValueError, binascii.Error):
            self.drop("base64")

    def array_value(self, content: object, key: str, depth: int) -> AttributeValue:
        items = _list(_object(content, "arrayValue"), "values")
        if depth > MAX_JSON_DEPTH:
            raise BadRequest(f"an attribute is nested more than {MAX_JSON_DEPTH} deep")
        if len(items) > self.limits.array_length:
            self.tally("arrays")
        kept = [self.value(item, key, depth + 1) for item in items[: self.limits.array_length]]
        return self.at_depth(kept, depth)

    def map_value(self, content: object, key: str, depth: int) -> AttributeValue:
        pairs = _list(_object(content, "kvlistValue"), "values")
        if depth > MAX_JSON_DEPTH:
            raise BadRequest(f"an attribute is nested more than {MAX_JSON_DEPTH} deep")
        if len(pairs) > self.limits.array_length:
            self.tally("arrays")
        return self.at_depth(self.pairs(pairs[: self.limits.array_length], key, depth + 1), depth)

    def at_depth(self, value: AttributeValue, depth: int) -> AttributeValue:
        """The value, or the mark where it lies too deep; what is deeper still was walked to refuse it."""
        if depth <= self.limits.depth:
            return value
        if depth == self.limits.depth + 1:
            self.tally("depth")
        return DEPTH_MARK

    def drop(self, what: str) -> NoReturn:
        self.tally(what)
        raise InvalidRecord("attribute value is not what its kind says")

    readers: Final[Mapping[str, Callable[[_JsonWalker, object, str, int], AttributeValue]]] = {
        "stringValue": text_value,
        "intValue": int_value,
        "boolValue": bool_value,
        "doubleValue": double_value,
        "bytesValue": bytes_value,
        "arrayValue": array_value,
        "kvlistValue": map_value,
    }

    def log_records(self, body: Mapping[str, Any]) -> Decoded:
        logs, rejected = self.decoded.logs, self.decoded.rejected
        for resource, _, _, record in self.records(body, "resourceLogs", "scopeLogs", "logRecords"):
            if len(logs) + len(rejected) >= self.limits.spans:
                rejected.append(f"over {self.limits.spans} log records in one request")
                continue
            attributes = self.attributes(record)
            trace_id, span_id = _hex(record.get("traceId")), _hex(record.get("spanId"))
            try:
                time_ns = self.time(record.get("timeUnixNano"), "timeUnixNano")
                time_ns = time_ns or self.time(record.get("observedTimeUnixNano"), "observedTimeUnixNano")
            except InvalidRecord as error:
                rejected.append(str(error))
                continue
            logs.append(
                LogRecord(
                    self.string(record.get("eventName")) or str(attributes.get("event.name") or ""),
                    time_ns,
                    trace_id if len(trace_id) == 16 else b"",
                    span_id if len(span_id) == 8 else b"",
                    attributes,
                    resource,
                )
            )
        return self.decoded
