"""The calls that a test's code made, as objects to read; and a clock and ids that are the same in each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from tierlight import semconv as s
from tierlight._content import ContentSettings
from tierlight._identity import RandomIds, SystemClock
from tierlight._record import Clock, FinishedCall, Ids, Record
from tierlight._runtime import Runtime, activate


@dataclass(frozen=True, slots=True)
class CapturedCall:
    """One span that a call left; a field is None where the span does not say it.

    `attributes` holds everything by its name on the wire, as in `call.attributes["gen_ai.request.seed"]`.
    """

    name: str
    attributes: Mapping[str, Any]
    trace_id: int
    span_id: int
    parent_span_id: int | None
    duration_ms: float
    is_error: bool
    message: str

    @property
    def id(self) -> str:
        """`tierlight.call.id`."""
        return str(self.attributes.get(s.TIERLIGHT_CALL_ID, ""))

    @property
    def route(self) -> str | None:
        """The declared route."""
        return self.attributes.get(s.TIERLIGHT_ROUTE)

    @property
    def tier(self) -> str | None:
        """The declared tier."""
        return self.attributes.get(s.TIERLIGHT_TIER)

    @property
    def operation(self) -> str | None:
        """chat, embeddings, rerank, ..."""
        return self.attributes.get(s.GEN_AI_OPERATION_NAME)

    @property
    def provider(self) -> str | None:
        """OpenTelemetry's name of the provider."""
        return self.attributes.get(s.GEN_AI_PROVIDER_NAME)

    @property
    def model(self) -> str | None:
        """The model asked for."""
        return self.attributes.get(s.GEN_AI_REQUEST_MODEL)

    @property
    def response_model(self) -> str | None:
        """The model that answered."""
        return self.attributes.get(s.GEN_AI_RESPONSE_MODEL)

    @property
    def input_tokens(self) -> int | None:
        """Total, cached parts included."""
        return self.attributes.get(s.GEN_AI_USAGE_INPUT_TOKENS)

    @property
    def output_tokens(self) -> int | None:
        """Total, reasoning included."""
        return self.attributes.get(s.GEN_AI_USAGE_OUTPUT_TOKENS)

    @property
    def cached_input_tokens(self) -> int | None:
        """Part of the input."""
        return self.attributes.get(s.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS)

    @property
    def outcome(self) -> str | None:
        """ok, error, cancelled, truncated, not_sent, cache_hit."""
        return self.attributes.get(s.TIERLIGHT_OUTCOME)

    @property
    def error_type(self) -> str | None:
        """The class of the error."""
        return self.attributes.get(s.ERROR_TYPE)

    @property
    def scores(self) -> dict[str, float]:
        """Scores known before the span ended, by name."""
        return {
            key.removeprefix(s.TIERLIGHT_SCORE_PREFIX): value
            for key, value in self.attributes.items()
            if key.startswith(s.TIERLIGHT_SCORE_PREFIX) and isinstance(value, float)
        }


@dataclass(frozen=True, slots=True)
class CapturedScore:
    """One score that was sent as an event of its own."""

    attributes: Mapping[str, Any]
    trace_id: int
    span_id: int

    @property
    def name(self) -> str | None:
        """What was judged."""
        return self.attributes.get(s.GEN_AI_EVALUATION_NAME)

    @property
    def value(self) -> float | None:
        """1 = good."""
        return self.attributes.get(s.GEN_AI_EVALUATION_SCORE_VALUE)

    @property
    def call_id(self) -> str | None:
        """The call that it belongs to."""
        return self.attributes.get(s.TIERLIGHT_CALL_ID)


@dataclass
class Captured:
    """What was recorded so far: iterate it or index it for the calls; `scores` are beside them."""

    calls: list[CapturedCall] = field(default_factory=list)
    scores: list[CapturedScore] = field(default_factory=list)

    def __iter__(self) -> Iterator[CapturedCall]:
        return iter(self.calls)

    def __len__(self) -> int:
        return len(self.calls)

    def __getitem__(self, index: int) -> CapturedCall:
        return self.calls[index]

    def on(self, route: str) -> list[CapturedCall]:
        """The calls of one route."""
        return [call for call in self.calls if call.route == route]

    # ---- the sink of a Runtime ---------------------------------------------------------------------------

    def offer(self, record: Record) -> None:
        """Take a record, with what the export thread would do to it first (redaction, but no price)."""
        record = replace(record, attributes=dict(record.attributes))
        if record.prepare is not None:
            record.prepare(record)  # type: ignore[arg-type]  # a record's own function takes its own kind
        if isinstance(record, FinishedCall):
            self.calls.append(
                CapturedCall(
                    record.name,
                    record.attributes,
                    record.trace_id,
                    record.span_id,
                    record.parent_span_id,
                    (record.end_ns - record.start_ns) / 1e6,
                    record.is_error,
                    record.message,
                )
            )
        else:
            self.scores.append(CapturedScore(record.attributes, record.trace_id, record.span_id))

    def flush(self, timeout_s: float) -> bool:
        """Nothing to wait for."""
        return True

    def stats(self) -> dict[str, int]:
        """How much was captured."""
        return {"offered": len(self.calls) + len(self.scores), "dropped": 0}

    def shutdown(self, timeout_s: float) -> bool:
        """Nothing to stop."""
        return True


@contextmanager
def capture_calls(
    *, content: bool = False, clock: Clock | None = None, ids: Ids | None = None
) -> Iterator[Captured]:
    """Record into memory instead of sending, until the block ends; what was configured before is back then.

    >>> import tierlight
    >>> with capture_calls() as calls, tierlight.route("greet", tier="small"):
    ...     pass
    >>> calls[0].route
    'greet'

    Args:
        content: Whether texts are captured (after redaction).
        clock, ids: A `FrozenClock` and `SequentialIds` make every run the same.
    """
    captured = Captured()
    previous = activate(
        Runtime(
            sink=captured,
            clock=clock or SystemClock(),
            ids=ids or RandomIds(),
            content=ContentSettings(captures=content),
        )
    )
    try:
        yield captured
    finally:
        activate(previous)


@dataclass
class FrozenClock:
    """A clock that moves only when told."""

    now_ns: int = 1_800_000_000_000_000_000

    def time_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self.now_ns

    def perf_ns(self) -> int:
        """The same, as the monotonic clock."""
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += round(seconds * 1e9)


@dataclass
class SequentialIds:
    """Ids that count up from 1."""

    last: int = 0

    def _next(self) -> int:
        self.last += 1
        return self.last

    def trace_id(self) -> int:
        """The next number."""
        return self._next()

    def span_id(self) -> int:
        """The next number."""
        return self._next()

    def call_id(self, time_ns: int) -> str:
        """The next number, in the form of a UUID."""
        return f"00000000-0000-7000-8000-{self._next():012x}"
