"""The facts that travel between the steps: span in, call and score out, rollup back.

Everything is frozen and slotted. `None` is unknown and never 0; money is whole nano-dollars; times are
integer nanoseconds UTC since 1970. Text that a series is keyed by (`route`, `model`, ...) is `""` where
absent, so that equal keys compare equal in every store.
"""

# Long because every fact that crosses a border between steps stands here, one plain dataclass each.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

AttributeValue = (
    str | bool | int | float | bytes | Sequence["AttributeValue"] | Mapping[str, "AttributeValue"] | None
)
Attributes = Mapping[str, AttributeValue]

Role = Literal["call", "route", "aggregate", "tool", "http", "other"]
Operation = Literal["chat", "text_completion", "embeddings", "rerank", "image", "audio"]
Purpose = Literal["production", "shadow", "judge", "replay", "test"]
ContentKind = Literal["prompt", "completion", "system", "tools"]
ScoreKind = Literal["validator", "feedback", "judge", "outcome", "human"]

HOUR_NS = 3_600_000_000_000


# ---- what decode hands on -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event of a span, such as an exception or the first chunk of a stream."""

    name: str
    time_ns: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Resource:
    """What sent the spans; one object is shared by all spans of an OTLP ResourceSpans."""

    attributes: Attributes
    service_name: str = ""
    service_instance: str = ""
    environment: str = ""


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One received span, whoever emitted it. Ids are 16, 8 and 8 (or 0) bytes; `end_ns` may lie before `start_ns`."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status_code: int
    status_message: str
    scope: str
    scope_version: str
    attributes: Attributes
    events: tuple[EventRecord, ...]
    resource: Resource


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One received log record; kept are evaluation results (as scores) and exceptions of calls."""

    event_name: str
    time_ns: int
    trace_id: bytes
    span_id: bytes
    attributes: Attributes
    resource: Resource


# ---- what normalise makes of it -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RouteHints:
    """What a span says about the route of itself and of the calls below it, strongest first ("" = says nothing)."""

    declared: str = ""  # tierlight.route or a bare route key
    dialect: str = ""  # the dialect's own key (workflow name, metadata.route, functionId, ...)
    agent: str = ""  # agent or workflow name
    prompt: str = ""  # prompt name
    name: str = ""  # the span's name when it is not generic: counts at the root only


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One attempt: one request to one model at one provider, as it will be stored. Costs are filled in by pricing."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    name: str
    start_ns: int
    arrived_ns: int
    duration_ns: int | None
    ttft_ns: int | None
    operation: Operation
    provider: str
    request_model: str
    response_model: str
    route: str
    route_source: str
    tier: str
    input_tokens: int | None = None  # total, cached parts included
    output_tokens: int | None = None  # total, reasoning included
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_1h_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: str = "absent"  # provider | estimated | billed | absent
    cache_rule: str = ""  # inclusive | exclusive, and by which rule
    is_streaming: bool | None = None
    error_type: str = ""  # as sent, "" = no error
    error_class: str = ""  # rate_limit, overloaded, auth, ... (semantics: 3.7)
    http_status: int | None = None
    finish_reason: str = ""  # stop | length | tool | filter | other
    outcome: str = ""
    response_id: str = ""
    call_id: str = ""
    attempt_index: int = 0
    attempt_reason: str = "first"
    attempt_final: bool = True
    purpose: Purpose = "production"
    experiment: str = ""
    arm: str = ""
    act_prob: float | None = None
    keep_prob: float | None = None
    strategy: str = ""
    policy_version: str = ""
    session_id: str = ""
    user_id: str = ""
    prompt_name: str = ""
    prompt_version: str = ""
    segment: str = ""
    service_tier: str = ""  # price context: batch, flex, priority
    env: str = ""
    service_name: str = ""
    service_instance: str = ""
    scope: str = ""
    dialect: str = ""
    norm_version: int = 1
    cost_nusd: int | None = None
    cost_input_nusd: int | None = None
    cost_cached_nusd: int | None = None
    cost_cache_write_nusd: int | None = None
    cost_output_nusd: int | None = None
    cost_source: str = ""  # caller | provider | price_book | cache | user | wire:<dialect> | ""
    price_version: str = ""
    unpriced_reason: str = ""
    wire_cost_nusd: int | None = None
    wire_cost_source: str = ""
    flags: tuple[str, ...] = ()  # provider_suspect, usage_inconsistent, clock_suspect, dup_suspect, ...
    project: str = "default"

    @property
    def model(self) -> str:
        """The model that answered where known, else the one asked for."""
        return self.response_model or self.request_model


@dataclass(frozen=True, slots=True)
class NormalisedSpan:
    """A span read through its dialect: its role, what it says of routes, and its call if it is one."""

    span: SpanRecord
    role: Role
    hints: RouteHints
    call: CallRecord | None
    contents: tuple[ContentRecord, ...] = ()
    scores: tuple[ScoreRecord, ...] = ()
    is_refused: bool = False  # a call that failed before anything was sent: counted, never stored as one


@dataclass(frozen=True, slots=True)
class ContentRecord:
    """One captured text of a call, already redacted; `body` is JSON or plain text."""

    trace_id: bytes
    span_id: bytes
    kind: ContentKind
    body: str
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """One quality signal. Matched to its call by the first key that is not empty, in this order.

    `value` is None when the evaluation itself failed or abstained (missing, not 0).
    """

    name: str
    value: float | None
    source: str  # rater: validator:<name>, judge:<model>, feedback, ...
    kind: ScoreKind
    time_ns: int
    call_id: str = ""
    trace_id: bytes = b""
    span_id: bytes = b""
    response_id: str = ""
    join_key: str = ""
    join_value: str = ""
    label: str = ""
    explanation: str = ""
    evaluator_version: str = ""
    weight: float = 1.0
    project: str = "default"


@dataclass(frozen=True, slots=True)
class CallFailure:
    """What a log event says of a call that failed: it fills the error of the call's span where that has none."""

    trace_id: bytes
    span_id: bytes
    error_type: str
    error_class: str
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One request: the unit of commit, of retry and of deduplication."""

    spans: tuple[NormalisedSpan, ...] = ()
    scores: tuple[ScoreRecord, ...] = ()
    failures: tuple[CallFailure, ...] = ()
    nbytes: int = 0
    arrived_ns: int = 0
    # For forwarding: the request re-encoded once as OTLP protobuf, and the signal it belongs to; b"" = none.
    forward: bytes = b""
    forward_signal: Literal["traces", "logs"] = "traces"
    project: str = "default"


@dataclass(frozen=True, slots=True)
class Appended:
    """What a durable append did."""

    accepted: int
    duplicates: int


# ---- what the store gives back --------------------------------------------------------------------------

Dim = Literal["project", "env", "route", "provider", "model", "tier", "arm", "purpose"]


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Half-open [start_ns, end_ns)."""

    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Filters:
    """Which calls are meant; an empty tuple does not restrict. `calls`-only fields are marked with *."""

    project: str = "default"
    env: tuple[str, ...] = ()
    route: tuple[str, ...] = ()
    provider: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    tier: tuple[str, ...] = ()
    arm: tuple[str, ...] = ()
    purpose: tuple[str, ...] = ("production",)
    error: bool | None = None  # *
    unpriced: bool | None = None  # *
    text: str = ""  # * exact trace, span, call, response or session id, or user
    attempt_reason: tuple[str, ...] = ()  # * retry, fallback, escalation, ...
    prompt_version: tuple[str, ...] = ()  # *
    start_ns: int = 0  # *
    end_ns: int = 0  # * 0 = open


@dataclass(frozen=True, slots=True)
class ScoreSums:
    """Sums of one score name and source; mean = sum/n, undefined at n = 0."""

    n: int
    sum: float
    sumsq: float

    def __add__(self, other: ScoreSums) -> ScoreSums:
        return ScoreSums(self.n + other.n, self.sum + other.sum, self.sumsq + other.sumsq)


@dataclass(frozen=True, slots=True)
class Rollup:
    """Counts and sums of a set of calls. `a + b` is the rollup of both sets: associative and commutative.

    A sum of tokens or cost covers only the calls where it is known; `tokens_unknown` and `unpriced` count the
    others. Histograms map a log bin (see `rollup.bin_of_ms`) or a word to a number of calls.
    """

    key: tuple[str, ...] = ()  # values of the group-by dimensions, in the order asked for
    calls: int = 0
    errors: int = 0
    fallbacks: int = 0
    escalations: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_tokens: int = 0
    tokens_unknown: int = 0
    cost_nusd: int = 0
    unpriced: int = 0
    duration_ns: int = 0
    no_latency: int = 0
    scored: int = 0  # calls with at least one score
    latency: Mapping[int, int] = field(default_factory=dict)
    ttft: Mapping[int, int] = field(default_factory=dict)
    error_classes: Mapping[str, int] = field(default_factory=dict)
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[tuple[str, str], ScoreSums] = field(default_factory=dict)  # (name, source)


@dataclass(frozen=True, slots=True)
class CallRow:
    """A stored call as lists and the API show it; never holds a body."""

    seq: int
    call: CallRecord
    superseded: bool
    scores: tuple[ScoreRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class CostChange:
    """What a stored call costs by another price book; its old cost goes to the history."""

    seq: int
    cost_nusd: int | None
    cost_input_nusd: int | None
    cost_cached_nusd: int | None
    cost_cache_write_nusd: int | None
    cost_output_nusd: int | None
    cost_source: str
    price_version: str
    unpriced_reason: str
    is_estimated: bool = False


@dataclass(frozen=True, slots=True)
class PastCost:
    """What a call was taken to cost until `changed_ns`."""

    changed_ns: int
    cost_nusd: int | None
    cost_source: str
    price_version: str
    unpriced_reason: str


@dataclass(frozen=True, slots=True)
class Reread:
    """What reading one chunk of stored spans again came to; `last_seq` is None when there was nothing left.

    `changed` counts calls; `columns` says how many of them differ in which column, "role" where a span became a call
    or the reverse, "superseded" where another call counts in its place. `gone` are spans that are no longer kept.
    """

    last_seq: int | None
    spans: int = 0
    calls: int = 0
    changed: int = 0
    gone: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended: the sort value and the arrival number of its last row."""

    value: int
    seq: int


@dataclass(frozen=True, slots=True)
class CallPage:
    rows: tuple[CallRow, ...]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class RouteInfo:
    """One route that was seen, with the newest facts about it."""

    route: str
    first_ns: int
    last_ns: int
    calls: int
    declared_tier: str


@dataclass(frozen=True, slots=True)
class CallEvidence:
    """What the detectors read of one call, in arrival order (`seq` rises, each call once)."""

    seq: int
    trace_id: bytes
    span_id: bytes
    route: str
    provider: str
    request_model: str
    model: str
    tier: str
    purpose: str
    experiment: str
    arm: str
    prompt_version: str
    segment: str
    start_ns: int
    error_class: str
    attempt_reason: str
    latency_ms: float | None
    ttft_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost_nusd: int | None
    act_prob: float | None
    keep_prob: float | None
    call_id: str = ""
    finish_reason: str = ""
    # Whether its answer was used; with the parts of the cost, so that a new price never looks like behaviour.
    attempt_final: bool = True
    price_version: str = ""
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cost_input_nusd: int | None = None
    cost_cached_nusd: int | None = None
    cost_cache_write_nusd: int | None = None
    cost_output_nusd: int | None = None


@dataclass(frozen=True, slots=True)
class ScoreEvidence:
    """One score that found its call, in the order in which both were there (`seq` rises, each score once)."""

    seq: int
    name: str
    source: str
    kind: str
    value: float
    weight: float
    evaluator_version: str
    time_ns: int
    call: CallEvidence


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """Figures of the store for /health and the settings page."""

    state: Literal["ok", "low", "full", "damaged"]
    schema_version: int
    calls: int
    db_bytes: int
    wal_bytes: int
    queue_bytes: int
    commit_p50_ms: float | None
    commit_p99_ms: float | None
    counters: Mapping[str, int]
    last_error: str = ""
