"""What settling needs of one span."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from ..records import CallRecord, Role, RouteHints

SpanKey: TypeAlias = tuple[bytes, bytes]  # (trace_id, span_id)

RESPONSE_WINDOW_NS: Final = 600 * 1_000_000_000
CLOCK_SLACK_NS: Final = 50 * 1_000_000
MAX_ANCESTORS: Final = 200
# Of more calls at one time than this no pair is the unique fit; it also bounds the work that a sender can cause.
MAX_CROWD: Final = 50

# The flag of a span that is a call only as long as no call is known below it.
WEAK: Final = "weak_role"
# The flag of a record that tells, after a stream has ended, what came of the call that began it.
STREAM_REPORT: Final = "stream_report"
# The flag of a call as the one who answered it saw it: the model server or the provider's own platform.
SERVER_SIDE: Final = "server_side"


@dataclass(frozen=True, slots=True)
class SpanFacts:
    """What settling needs of one span. `call` is set where the role is "call", as `normalise` made it."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    role: Role
    scope: str
    hints: RouteHints
    call: CallRecord | None = None

    @property
    def key(self) -> SpanKey:
        return (self.trace_id, self.span_id)
