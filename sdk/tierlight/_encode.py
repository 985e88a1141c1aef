"""Finished records to OTLP protobuf, written straight to the wire.

The general encoder of the OpenTelemetry SDK builds a protobuf object per attribute (75 us for a span of 20
attributes, measured 2026-11 on two cores); almost all attributes of our spans repeat from call to call, so
here each `key = value` is encoded once and looked up afterwards. What comes out is standard OTLP: the tests
parse it back with `opentelemetry-proto` and compare every field.

References:
    https://github.com/open-telemetry/opentelemetry-proto trace/v1/trace.proto, logs/v1/logs.proto
    https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from tierlight import semconv
from tierlight._record import FinishedCall, FinishedScore

Signal = Literal["traces", "logs"]

_SPAN_ATTRIBUTE = b"\x4a"  # Span.attributes = 9
_LOG_ATTRIBUTE = b"\x32"  # LogRecord.attributes = 6
_RESOURCE_ATTRIBUTE = b"\x0a"  # Resource.attributes = 1

_SEVERITY_INFO = b"\x10\x09"  # LogRecord.severity_number = SEVERITY_NUMBER_INFO
_STATUS_ERROR = b"\x18\x02"  # Status.code = STATUS_CODE_ERROR

_CACHED_VALUES = (
    64  # per key: enough for routes, models and tiers; ids and texts stop filling it at this many
)
_CACHED_LENGTH = 128  # longer texts are not worth their hash

_double = struct.Struct("<d").pack
_times = struct.Struct("<cQcQ").pack
_fixed64 = struct.Struct("<Q").pack


def _varint(number: int) -> bytes:
    """The base-128 form of `number`; a negative one takes ten bytes, as int64 does on the wire."""
    if number < 0:
        number += 1 << 64
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL = tuple(_varint(number) for number in range(2048))


def varint(number: int) -> bytes:
    """`number` in the base-128 form of protobuf."""
    return _SMALL[number] if 0 <= number < 2048 else _varint(number)


def utf8(text: str) -> bytes:
    """`text` as UTF-8; a lone surrogate becomes U+FFFD, since one bad character would get the whole request refused."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _sized(tag: bytes, body: bytes) -> bytes:
    return tag + varint(len(body)) + body


class _Attribute:
    """How one key is written in one place (span, log record or resource), with the values seen so far."""

    __slots__ = ("double", "false", "integers", "key", "strings", "tag", "true", "tuples")

    def __init__(self, tag: bytes, key: str) -> None:
        self.tag = tag
        self.key = _sized(b"\x0a", utf8(key))
        self.true = self.whole(b"\x10\x01")
        self.false = self.whole(b"\x10\x00")
        self.double = self.whole(b"\x21" + bytes(8))[:-8]
        self.strings: dict[str, bytes] = {}
        self.tuples: dict[tuple[str, ...], bytes] = {}
        self.integers: dict[int, bytes] = {}

    def whole(self, any_value: bytes) -> bytes:
        """Tag, length, key and value: the attribute as it stands in the message."""
        return _sized(self.tag, self.key + _sized(b"\x12", any_value))

    def string(self, value: str) -> bytes:
        encoded = self.whole(_sized(b"\x0a", utf8(value)))
        if len(value) <= _CACHED_LENGTH and len(self.strings) < _CACHED_VALUES:
            self.strings[value] = encoded
        return encoded

    def integer(self, value: int) -> bytes:
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError("an integer attribute has 64 bits")
        encoded = self.whole(b"\x18" + varint(value))
        if len(self.integers) < _CACHED_VALUES:
            self.integers[value] = encoded
        return encoded

    def array(self, values: tuple[str, ...]) -> bytes:
        items = b"".join([_sized(b"\x0a", _sized(b"\x0a", utf8(item))) for item in values])
        encoded = self.whole(_sized(b"\x2a", items))
        if len(items) <= _CACHED_LENGTH and len(self.tuples) < _CACHED_VALUES:
            self.tuples[values] = encoded
        return encoded


class Encoder:
    """Encodes records for one resource; keeps what it has seen, so one belongs to one thread."""

    def __init__(self, resource: Mapping[str, object], scope_version: str) -> None:
        self._span_attributes: dict[str, _Attribute] = {}
        self._log_attributes: dict[str, _Attribute] = {}
        self._names: dict[str, bytes] = {}
        parts: list[bytes] = []
        self._write(parts, resource, {}, _RESOURCE_ATTRIBUTE)
        self._resource = _sized(b"\x0a", b"".join(parts))
        self._scope = _sized(
            b"\x0a", _sized(b"\x0a", semconv.SCOPE.encode()) + _sized(b"\x12", scope_version.encode())
        )

    def span(self, call: FinishedCall) -> bytes:
        """`call` as one `Span` with its tag, ready to be joined into a request.

        A value of a type that OTLP has no place for is left out, and
        `tierlight.instrumentation_error` names its key.
        """
        name = self._names.get(call.name)
        if name is None:
            name = _sized(b"\x2a", utf8(call.name))
            if len(self._names) < 1024:
                self._names[call.name] = name
        parts = [
            b"\x0a\x10",
            call.trace_id.to_bytes(16, "big"),
            b"\x12\x08",
            call.span_id.to_bytes(8, "big"),
        ]
        if call.parent_span_id:
            parts += (b"\x22\x08", call.parent_span_id.to_bytes(8, "big"))
        parts += (name, b"\x30", _SMALL[call.kind], _times(b"\x39", call.start_ns, b"\x41", call.end_ns))
        self._write(parts, call.attributes, self._span_attributes, _SPAN_ATTRIBUTE)
        if call.is_error:
            message = _sized(b"\x12", utf8(call.message)) if call.message else b""
            parts.append(_sized(b"\x7a", message + _STATUS_ERROR))
        if call.trace_flags:
            parts.append(b"\x85\x01" + call.trace_flags.to_bytes(4, "little"))
        return _sized(b"\x12", b"".join(parts))

    def log(self, score: FinishedScore) -> bytes:
        """`score` as one `LogRecord` with its tag."""
        parts = [b"\x09", _fixed64(score.time_ns), _SEVERITY_INFO]
        self._write(parts, score.attributes, self._log_attributes, _LOG_ATTRIBUTE)
        if score.trace_id:
            parts += (b"\x4a\x10", score.trace_id.to_bytes(16, "big"))
        if score.span_id:
            parts += (b"\x52\x08", score.span_id.to_bytes(8, "big"))
        parts += (b"\x59", _fixed64(score.time_ns), _sized(b"\x62", semconv.EVENT_EVALUATION_RESULT.encode()))
        return _sized(b"\x12", b"".join(parts))

    def request(self, items: Iterable[bytes]) -> bytes:
        """Spans to an `ExportTraceServiceRequest`, or log records to an `ExportLogsServiceRequest`: the frame is the same."""
        scope_items = _sized(b"\x12", self._scope + b"".join(items))
        return _sized(b"\x0a", self._resource + scope_items)

    def _write(
        self, parts: list[bytes], attributes: Mapping[str, object], known: dict[str, _Attribute], tag: bytes
    ) -> None:
        unusable = ""
        append = parts.append
        for key, value in attributes.items():
            coder = known.get(key)
            if coder is None:
                coder = _Attribute(tag, key)
                if len(known) < 1024:  # a key is a word of the vocabulary; join and score names are few
                    known[key] = coder
            kind = value.__class__
            if kind is str:
                append(coder.strings.get(value) or coder.string(value))  # type: ignore[call-overload, arg-type]
            elif kind is int:
                try:
                    append(coder.integers.get(value) or coder.integer(value))  # type: ignore[call-overload, arg-type]
                except ValueError:
                    unusable = key
            elif kind is float:
                append(coder.double + _double(value))
            elif kind is bool:
                append(coder.true if value else coder.false)
            else:
                try:
                    append(_uncommon(coder, value))
                except (TypeError, ValueError):
                    unusable = key
        if unusable and semconv.TIERLIGHT_INSTRUMENTATION_ERROR not in attributes:
            append(
                _Attribute(tag, semconv.TIERLIGHT_INSTRUMENTATION_ERROR).string(
                    f"attribute {unusable}: expected text, number, boolean or a tuple of texts"
                )
            )


def _uncommon(coder: _Attribute, value: object) -> bytes:
    """Tuples, and subclasses of the plain types such as an Enum of str or a numpy float."""
    if isinstance(value, (tuple, list)):
        texts = tuple(value)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("an array attribute holds texts")
        return coder.tuples.get(texts) or coder.array(tuple(str.__str__(text) for text in texts))
    if isinstance(value, str):
        return coder.string(str.__str__(value))
    if isinstance(value, int):
        return coder.integer(int(value))
    if isinstance(value, float):
        return coder.double + _double(float(value))
    raise TypeError("OTLP has no place for this type")


def items_of(request: bytes) -> Iterator[memoryview]:
    """The spans or log records inside a request, each with its tag: to count them or to cut the request in two.

    Raises:
        ValueError: the bytes are not such a request.
    """
    for resource_items in _fields(memoryview(request), 1):
        for scope_items in _fields(resource_items, 2):
            yield from _fields(scope_items, 2, with_tag=True)


def reframed(request: bytes, items: Iterable[bytes]) -> bytes:
    """A request of the same resource and scope with other items, each with its tag."""
    whole = next(_fields(memoryview(request), 1))
    scoped = next(_fields(whole, 2))
    resource = b"".join(_fields(whole, 1, with_tag=True))
    scope = b"".join(_fields(scoped, 1, with_tag=True))
    return _sized(b"\x0a", resource + _sized(b"\x12", scope + b"".join(items)))


def _fields(message: memoryview, wanted: int, *, with_tag: bool = False) -> Iterator[memoryview]:
    """The length-delimited fields numbered `wanted` of a message that has no other wire type."""
    at, size = 0, len(message)
    while at < size:
        start = at
        tag, at = _read_varint(message, at)
        if tag & 7 != 2:
            raise ValueError("not an OTLP export request")
        length, at = _read_varint(message, at)
        if at + length > size:
            raise ValueError("not an OTLP export request: cut short")
        if tag >> 3 == wanted:
            yield message[start if with_tag else at : at + length]
        at += length


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("not an OTLP export request: cut short")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def partial_success(response: bytes) -> tuple[int, str]:
    """How many items the collector rejected, and its message, from an `Export...ServiceResponse`; empty is (0, "").

    Raises:
        ValueError: the bytes are not such a response.
    """
    rejected, message = 0, ""
    for body in _fields(memoryview(response), 1):
        at = 0
        while at < len(body):
            tag, at = _read_varint(body, at)
            value, at = _read_varint(body, at)
            if tag & 7 == 2:
                if tag >> 3 == 2:
                    message = bytes(body[at : at + value]).decode("utf-8", "replace")
                at += value
            elif tag == 8:
                rejected = value
            elif tag & 7 != 0:
                raise ValueError("not an OTLP export response")
    return rejected, message
