"""What a call hands over at its end, and who takes it: the border between the hot path and the exporter.

The hot path fills one lean record and calls `Sink.offer`; everything that costs (redaction, price, bytes,
network, disk) happens on the sink's own thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

AttributeValue = str | bool | int | float | tuple[str, ...]
"""What an attribute may hold; an unknown value is left out, never stored as 0 or ""."""

KIND_INTERNAL = 1
KIND_CLIENT = 3


@dataclass(slots=True)
class FinishedCall:
    """One span that is over. The sink owns it from `offer` on and may add attributes (price, drop counts).

    Args:
        trace_id: 128 bits, never 0.
        span_id: 64 bits, never 0.
        parent_span_id: 64 bits, None at the root.
        kind: OTLP's span kind: `KIND_CLIENT` for a call, `KIND_INTERNAL` for the span around several.
        trace_flags: W3C flags, bit 0 = sampled; sampled-out calls are never offered.
        message: status message of a failed span, may be empty; not yet redacted if `prepare` is set.
        prepare: What is left to do away from the calling thread (redaction of texts). The sink calls it
            once, before pricing and encoding; if it raises, the sink drops every attribute of
            `semconv.CONTENT_ATTRIBUTES` and the message, and keeps the rest.
        attempts: of the span around several calls, those calls' records: their costs together are its own.
        baseline: of the same, provider and model that the answer's tokens are priced at for comparison.
        content_bytes: Rough size of the captured texts that `prepare` will write out; 0 = none captured. It
            counts against the queue's bound in bytes: over it the texts are dropped and the call is kept.
    """

    trace_id: int
    span_id: int
    parent_span_id: int | None
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, AttributeValue]
    is_error: bool = False
    message: str = ""
    kind: int = KIND_CLIENT
    trace_flags: int = 1
    prepare: Callable[[FinishedCall], None] | None = None
    content_bytes: int = 0
    attempts: list[FinishedCall] | None = None
    baseline: tuple[str, str] | None = None


@dataclass(slots=True)
class FinishedScore:
    """One score as an OTLP log record named `semconv.EVENT_EVALUATION_RESULT`; ids 0 = not tied to a span.

    Unlike a span it has no start: `time_ns` is when the judgement was made. Name, value, kind and join
    keys are attributes already.
    """

    time_ns: int
    attributes: dict[str, AttributeValue]
    trace_id: int = 0
    span_id: int = 0
    prepare: Callable[[FinishedScore], None] | None = None


Record = FinishedCall | FinishedScore


class Sink(Protocol):
    """Who takes finished records: the export pipeline, or a list in a test."""

    def offer(self, record: Record) -> None:
        """Take the record without blocking, IO or raising; a full queue drops and counts."""

    def flush(self, timeout_s: float) -> bool:
        """Whether everything offered so far was delivered within the time."""

    def stats(self) -> Mapping[str, int]:
        """Counters since the start: offered, delivered, queued, spooled, dropped.<reason>, ..."""

    def shutdown(self, timeout_s: float) -> bool:
        """Flush, keep on disk what could not be sent, stop the thread."""


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """Where and how the pipeline sends. Built by `configure()` from its arguments and the OTEL_* variables.

    Args:
        certificate, client_certificate, client_key: Paths of PEM files for TLS; "" = the system's authorities.
        endpoint: Base URL; `/v1/traces` and `/v1/logs` are appended unless the two below are set.
        traces_endpoint, logs_endpoint: Whole URLs, used as they are; "" = derived from `endpoint`.
        protocol: `http/protobuf` or `grpc`.
        compression: `gzip`, `none`, or `auto`: gzip unless the collector is on this machine.
        timeout_s: One request, connecting included.
        exit_timeout_s: All that the end of the process may be held up.
        spool_dir: Folder for what cannot be sent; "" = no spool.
        resource: Attributes of the resource, `service.name` and `service.instance.id` included.
        price: Whether calls without a cost are priced on the export thread.
        price_file: Path of the user's own `prices.toml`; "" = list prices only.
        draft_cost: Whether to write the draft names `gen_ai.usage.cost.*` beside ours.
    """

    endpoint: str = "http://127.0.0.1:4318"
    traces_endpoint: str = ""
    logs_endpoint: str = ""
    protocol: str = "http/protobuf"
    headers: Mapping[str, str] | None = None
    compression: str = "auto"
    certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""
    timeout_s: float = 1.0
    exit_timeout_s: float = 2.0
    schedule_delay_s: float = 1.0
    max_queue_records: int = 8192
    max_queue_bytes: int = 16 * 1024 * 1024
    max_batch_records: int = 256
    max_batch_bytes: int = 1024 * 1024
    spool_dir: str = ""
    resource: Mapping[str, AttributeValue] | None = None
    price: bool = True
    price_file: str = ""
    draft_cost: bool = False


class Clock(Protocol):
    """The two clocks of a call; a test freezes them."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""

    def perf_ns(self) -> int:
        """Nanoseconds of a monotonic clock, for durations."""


class Ids(Protocol):
    """Where ids come from; unique over processes and forks, or counted in a test."""

    def trace_id(self) -> int:
        """128 bits, never 0."""

    def span_id(self) -> int:
        """64 bits, never 0."""

    def call_id(self, time_ns: int) -> str:
        """A UUID of version 7."""
