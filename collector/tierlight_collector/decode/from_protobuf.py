"""Records from the generated protobuf classes."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ..errors import InvalidRecord
from ..records import AttributeValue, EventRecord, LogRecord, Resource, SpanRecord
from .walking import DEPTH_MARK, Decoded, Walker, finite, make_span


class ProtoWalker(Walker):
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
        return make_span(
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
            try:
                kept = known[key]
            except KeyError:
                kept = self.key(key)
                if not kept:
                    self.tally("keys")
                    continue
            value = pair.value
            text = value.string_value
            if text:
                found[kept] = text if len(text) <= short and "\0" not in text else self.text(text, kept)
                continue
            number: float = value.int_value or value.bool_value
            if not number:
                # What is nothing (0, false, "") or no finite number (then the difference isn't 0) is asked its kind.
                number = value.double_value
                if not number or number - number:
                    found[kept] = self.value(value, kept, 1)
                    continue
            found[kept] = number
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
            return finite(value.double_value)
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
