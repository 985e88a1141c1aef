"""Records from OTLP JSON: hex ids, 64-bit integers as text, enums as numbers."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import orjson

from ..errors import BadRequest, InvalidRecord
from ..records import AttributeValue, EventRecord, LogRecord, Resource, SpanRecord
from .walking import DEPTH_MARK, Decoded, Walker, finite, make_span

# The protobuf runtime refuses from 48 nested arrays on; this walker draws the same line.
MAX_JSON_DEPTH: Final = 47


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"bare {name} is not JSON")


def load_json(body: bytes) -> dict[str, Any]:
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


def list_of(owner: Mapping[str, Any], name: str) -> list[Any]:
    value = owner.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequest(f"{name} is a JSON {type(value).__name__}, expected an array")
    return value


def object_of(value: object, name: str) -> Mapping[str, Any]:
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


class JsonWalker(Walker):
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
        for group in list_of(body, outer):
            group = object_of(group, outer)
            resource = self.resource(self.attributes(object_of(group.get("resource"), "resource")))
            for scoped in list_of(group, inner):
                scoped = object_of(scoped, inner)
                scope = object_of(scoped.get("scope"), "scope")
                name, version = self.string(scope.get("name")), self.string(scope.get("version"))
                for record in list_of(scoped, leaf):
                    yield resource, name, version, object_of(record, leaf)

    def span(self, span: Mapping[str, Any], scope: str, version: str, resource: Resource) -> SpanRecord:
        trace_id, span_id = _hex(span.get("traceId")), _hex(span.get("spanId"))
        self.check_ids(trace_id, span_id)
        start_ns = self.time(span.get("startTimeUnixNano"), "startTimeUnixNano")
        self.check_start(start_ns)
        parent = span.get("parentSpanId")
        links = list_of(span, "links")
        if len(links) > self.limits.links:
            self.tally("links", len(links) - self.limits.links)
        status = object_of(span.get("status"), "status")
        parent_id = _hex(parent)
        if parent and not parent_id:
            self.tally("parents")
        return make_span(
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
            self.events(list_of(span, "events")),
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
            for event in (object_of(event, "events") for event in events[:most])
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
        pairs = list_of(owner, "attributes")
        most = self.limits.attributes
        if len(pairs) > most:
            self.tally("attributes", len(pairs) - most)
        return self.pairs(pairs[:most], "", 1)

    def pairs(self, pairs: list[Any], under: str, depth: int) -> dict[str, AttributeValue]:
        found: dict[str, AttributeValue] = {}
        for pair in pairs:
            pair = object_of(pair, "attributes")
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
        for kind, content in object_of(value, "value").items():
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
                return finite(float(content))
            except ValueError:
                self.drop("attributes")
        if isinstance(content, bool) or not isinstance(content, (int, float)):
            self.drop("attributes")
        try:
            return finite(float(content))
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
        items = list_of(object_of(content, "arrayValue"), "values")
        if depth > MAX_JSON_DEPTH:
            raise BadRequest(f"an attribute is nested more than {MAX_JSON_DEPTH} deep")
        if len(items) > self.limits.array_length:
            self.tally("arrays")
        kept = [self.value(item, key, depth + 1) for item in items[: self.limits.array_length]]
        return self.at_depth(kept, depth)

    def map_value(self, content: object, key: str, depth: int) -> AttributeValue:
        pairs = list_of(object_of(content, "kvlistValue"), "values")
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

    readers: Final[Mapping[str, Callable[[JsonWalker, object, str, int], AttributeValue]]] = {
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
