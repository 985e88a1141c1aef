"""The span as it is stored: times a store can hold, no content, and what was found in content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ..content import is_content_key
from ..drafts import maker
from ..records import HOUR_NS, EventRecord, SpanRecord
from .failures import outline
from .values import Values

make_span: Final = maker(SpanRecord)


def timely(span: SpanRecord, arrived_ns: int) -> SpanRecord:
    """The span with times that a store can hold: a start far ahead becomes the arrival."""
    if span.start_ns <= arrived_ns + HOUR_NS:
        if span.end_ns <= arrived_ns + 24 * HOUR_NS:
            return span
        return replace(span, end_ns=0)
    length = span.end_ns - span.start_ns
    return replace(
        span, start_ns=arrived_ns, end_ns=arrived_ns + length if 0 <= length <= 24 * HOUR_NS else 0
    )


def stripped(span: SpanRecord, values: Values) -> SpanRecord:
    """The span without content, with what was found in it."""
    message = span.status_message
    attributes: Mapping[str, Any] = span.attributes
    if values.plan.content_keys or values.findings:
        kept = dict(attributes)
        for key in values.plan.content_keys:
            if not isinstance(kept[key], (int, float)):
                del kept[key]
        for field, value in values.findings.items():
            kept[f"tierlight.found.{field}"] = value
        attributes = kept
    events = tuple(
        EventRecord(
            event.name,
            event.time_ns,
            {
                key: value
                for key, value in event.attributes.items()
                if isinstance(value, (int, float)) or not is_content_key(key)
            },
        )
        for event in span.events
    )
    return make_span(
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        span.name,
        span.kind,
        span.start_ns,
        span.end_ns,
        span.status_code,
        outline(message) if message else "",
        span.scope,
        span.scope_version,
        attributes,
        events,
        span.resource,
    )
