"""How much one sender may ask of the collector: one place, all settable, all shown in /health with their hits."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """Sizes are bytes of UTF-8 or of the body, times are seconds.

    A body over its limit is refused whole (413, RESOURCE_EXHAUSTED); a span over a limit is stored without what is
    too much, and counted.
    """

    compressed_bytes: int = 16 * MIB
    body_bytes: int = 64 * MIB  # after decompression
    message_bytes: int = 64 * MIB  # one gRPC message
    error_message_bytes: int = 4 * KIB

    spans: int = 10_000  # a request; the rest is rejected by partial_success
    attributes: int = 128  # a span, an event or a resource
    events: int = 128
    links: int = 128
    key_bytes: int = 256
    value_bytes: int = 64 * KIB
    content_bytes: int = 256 * KIB  # a captured prompt, answer or tool list
    depth: int = 32  # of lists and maps inside one attribute
    array_length: int = 1_000

    horizon_days: int = 400  # spans that began earlier would outlive retention: rejected

    in_flight_bytes: int = 128 * MIB  # bodies read and not yet committed
    concurrent_requests: int = 64
    header_bytes: int = 16 * KIB
    stall_s: float = 10.0  # no byte of the header or body for so long
    request_s: float = 60.0  # from the first byte of the body to the last
