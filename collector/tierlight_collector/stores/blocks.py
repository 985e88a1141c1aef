"""Raw spans and captured texts, packed many to a compressed block.

One block of 500 spans takes a third of the room and a quarter of the time of 500 bodies compressed one by one.
The body is a JSON array in a zlib stream; each item begins with the arrival number of its span.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from isal import isal_zlib

from ..records import Attributes, AttributeValue, ContentRecord, EventRecord, Resource, SpanRecord

MAX_ITEMS = 512
_LEVEL = 2  # igzip: level 3 is slower and no smaller on this kind of text
_BYTES_TAG = "\x00b64"


def pack(items: Sequence[Any]) -> bytes:
    return isal_zlib.compress(orjson.dumps(items, default=_plain), _LEVEL)


def plain(item: Sequence[Any]) -> list[Any]:
    """The item as it will come out of a block."""
    told: list[Any] = orjson.loads(orjson.dumps(item, default=_plain))
    return told


def unpack(body: bytes) -> list[Any]:
    items: list[Any] = orjson.loads(zlib.decompress(body))
    return items


def span_item(seq: int, span: SpanRecord) -> list[Any]:
    resource = span.resource
    return [
        seq,
        span.name,
        span.kind,
        span.end_ns,
        span.status_code,
        span.status_message,
        span.scope,
        span.scope_version,
        span.attributes,
        [[event.name, event.time_ns, event.attributes] for event in span.events],
        resource.service_name,
        resource.service_instance,
        resource.environment,
        resource.attributes,
    ]


def span_of_item(
    item: Sequence[Any], trace_id: bytes, span_id: bytes, parent_span_id: bytes, start_ns: int
) -> SpanRecord:
    """The span as it was received, but for content attributes, which were never in it."""
    _, name, kind, end_ns, code, message, scope, version, attributes, events, *resource = item
    service_name, service_instance, environment, resource_attributes = resource
    return SpanRecord(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent_span_id,
        name=name,
        kind=kind,
        start_ns=start_ns,
        end_ns=end_ns,
        status_code=code,
        status_message=message,
        scope=scope,
        scope_version=version,
        attributes=_restored(attributes),
        events=tuple(EventRecord(name, time_ns, _restored(values)) for name, time_ns, values in events),
        resource=Resource(_restored(resource_attributes), service_name, service_instance, environment),
    )


def content_item(seq: int, contents: Iterable[ContentRecord]) -> list[Any]:
    return [seq, [[content.kind, content.body, content.truncated] for content in contents]]


def contents_of_item(item: Sequence[Any], trace_id: bytes, span_id: bytes) -> list[ContentRecord]:
    return [ContentRecord(trace_id, span_id, kind, body, truncated) for kind, body, truncated in item[1]]


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        return {_BYTES_TAG: base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"an attribute of type {type(value).__name__} can not be stored")


def _restored(attributes: Mapping[str, Any]) -> Attributes:
    return {key: _restored_value(value) for key, value in attributes.items()}


def _restored_value(value: Any) -> AttributeValue:
    if isinstance(value, dict):
        if len(value) == 1 and _BYTES_TAG in value:
            return base64.b64decode(value[_BYTES_TAG])
        return {key: _restored_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return tuple(_restored_value(inner) for inner in value)
    return value  # type: ignore[no-any-return]
