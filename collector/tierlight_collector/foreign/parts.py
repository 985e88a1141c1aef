"""What lines of every origin are put together from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, get_args

import orjson

from tierlight import semconv as s

from ..errors import InvalidRecord
from ..records import Attributes, AttributeValue, Resource, ScoreKind, SpanRecord

Line = Mapping[str, Any]
CLIENT: Final = 3
ERROR: Final = 2
MAX_NAME: Final = 200
MAX_TEXT: Final = 64 * 1024
MAX_PARTS: Final = 128
_SCORE_KINDS: Final = frozenset(get_args(ScoreKind))


def span_of(
    *,
    trace: object,
    span: object,
    parent: object,
    name: str,
    start_ns: int | None,
    end_ns: int | None,
    said: Mapping[str, AttributeValue],
    failed: bool,
    scope: str,
    service: str,
    instance: str = "",
    environment: str = "",
) -> SpanRecord:
    """A span with what is known; empty attributes are left out.

    Raises:
        InvalidRecord: it has no id or no start.
    """
    if not trace or not span:
        raise InvalidRecord("a line without an id")
    if not isinstance(start_ns, int) or not 0 < start_ns < 2**62:
        raise InvalidRecord("a line without a start")
    attributes: Attributes = {key: _bounded(value) for key, value in said.items() if value not in (None, "")}
    resource = {
        s.SERVICE_NAME: service,
        s.SERVICE_INSTANCE_ID: instance,
        s.DEPLOYMENT_ENVIRONMENT_NAME: environment,
    }
    return SpanRecord(
        trace_id=identity(trace, 16),
        span_id=identity(span, 8),
        parent_span_id=identity(parent, 8) if parent else b"",
        name=name[:MAX_NAME].replace("\0", "\ufffd"),
        kind=CLIENT,
        start_ns=start_ns,
        end_ns=end_ns if isinstance(end_ns, int) and 0 <= end_ns < 2**62 else 0,
        status_code=ERROR if failed else 0,
        status_message="",
        scope=scope,
        scope_version="",
        attributes=attributes,
        events=(),
        resource=Resource(
            {key: value for key, value in resource.items() if value}, service, instance, environment
        ),
    )


def _bounded(value: AttributeValue) -> AttributeValue:
    """As decoding would have cut it; of an object only its numbers, which is all that is read of it."""
    if isinstance(value, str):
        return value[:MAX_TEXT].replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        numbers = {
            key: inner for key, inner in value.items() if isinstance(inner, int | float | str | Mapping)
        }
        return {key[:MAX_NAME]: _bounded(inner) for key, inner in list(numbers.items())[:MAX_PARTS]}
    return value


def identity(value: object, size: int) -> bytes:
    """The id itself where it is one of OTLP's, else its hash."""
    text = text_of(value)
    plain = text.replace("-", "").lower()
    if len(plain) == 2 * size:
        try:
            raw = bytes.fromhex(plain)
        except ValueError:
            raw = b""
        if len(raw) == size and any(raw):
            return raw
    return blake2b(text.encode("utf-8", "replace"), digest_size=size).digest()


def pick(line: Line, *names: str) -> Any:
    """The first of the names that the line says something for."""
    return next((line[name] for name in names if line.get(name) not in (None, "")), None)


def text_of(value: object) -> str:
    """The value as text, "" for none."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def status_of(value: object) -> int | None:
    """An HTTP status that is written as text."""
    text = text_of(value)
    return int(text) if text.isdecimal() and len(text) == 3 else None


def mapping_of(value: object) -> Line:
    """The value where it is an object, also one written as text, else an empty one."""
    if isinstance(value, str) and value.startswith("{") and len(value) <= MAX_TEXT:
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return {}
    return value if isinstance(value, Mapping) else {}


def list_of(value: object) -> Sequence[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else ()


def kind_of(value: object) -> ScoreKind:
    """Who gives a score, `feedback` where the word is unknown."""
    return value if value in _SCORE_KINDS else "feedback"  # type: ignore[return-value]


def number_of(value: object) -> float | None:
    """A finite number."""
    if isinstance(value, bool):
        return float(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def scaled(value: object, factor: float) -> int | None:
    """The number in a smaller unit."""
    number = number_of(value)
    return None if number is None else round(number * factor)


def moment_of(value: object) -> int | None:
    """Nanoseconds since 1970 that a store can hold."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**62 else None


def time_ns(value: object) -> int | None:
    """A moment: seconds or milliseconds since 1970, or ISO 8601 (UTC where it names no zone).

    >>> time_ns("2026-11-24T08:00:00.25Z") == time_ns(1795507200.25) == time_ns("2026-11-24 08:00:00.250000")
    True
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if not math.isfinite(value) or value <= 0:
            return None
        seconds = value / 1e3 if value > 1e11 else value
        return moment_of(round(seconds * 1e6) * 1_000)  # a float holds no more than microseconds of today
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    whole = int(moment.replace(microsecond=0).timestamp())
    return moment_of(whole * 1_000_000_000 + moment.microsecond * 1_000)


def iso_of(value: object) -> str:
    """The moment as the dialect writes it, "" where there is none."""
    ns = time_ns(value)
    return "" if ns is None else datetime.fromtimestamp(ns / 1e9, UTC).isoformat()
