"""What both encodings share: limits, tallies, ids, and the record of what was in a request."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from tierlight import semconv

from ..content import is_content_key
from ..drafts import maker
from ..errors import InvalidRecord
from ..limits import IngestLimits
from ..records import AttributeValue, LogRecord, Resource, SpanRecord

DAY_NS: Final = 86_400_000_000_000
DEPTH_MARK: Final = "[truncated: depth]"
NO_TRACE: Final = bytes(16)
NO_SPAN: Final = bytes(8)

make_span: Final = maker(SpanRecord)


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


class Walker:
    """Limits and tallies of one request."""

    def __init__(self, limits: IngestLimits, arrived_ns: int | None) -> None:
        self.limits = limits
        self.oldest_ns = 0 if arrived_ns is None else arrived_ns - limits.horizon_days * DAY_NS
        self.decoded = Decoded()
        self.short = limits.value_bytes // 4  # characters that are under the limit whatever they are
        self.keys: dict[str, str] = {}  # as sent -> as kept

    def tally(self, what: str, n: int = 1) -> None:
        self.decoded.altered[what] = self.decoded.altered.get(what, 0) + n

    def key(self, key: str) -> str:
        """The key as it is kept, "" when it is too long; remembered, as senders repeat themselves."""
        if len(key.encode("utf-8", "replace")) > self.limits.key_bytes:
            return ""
        kept = self.text(key, "")
        if kept and len(self.keys) < 4096:
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


def finite(number: float) -> float | str:
    """The number, or its name in OTLP JSON where it is none that may be computed with."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
