"""One span through its dialect: role, route hints, and the call as it will be stored.

Every span of every sender passes here. What its sender repeats is known from the spans before it (`profiles`), so
the common case reads ids, times, tokens and costs, and nothing else.
"""

from __future__ import annotations

from typing import Final

from ..drafts import maker
from ..records import CallRecord, ContentRecord, LogRecord, NormalisedSpan, ScoreRecord, SpanRecord
from .coerce import number_of
from .contents import contents_of
from .costs import stated_cost
from .facts import STREAM_REPORT
from .profiles import MAX_TEXT, CallProfile, id_of, key_of, profile_of, recall, remember
from .routes import PLAIN_RULES, RouteRules
from .scores import inline_scores, score_of
from .sources import plan_for, read, read_own
from .storable import stripped, timely
from .streams import first_chunk
from .usage import believable, usage_of, usage_source
from .values import Values

NORM_VERSION: Final = 1

_make_call: Final = maker(CallRecord)
_make_normalised: Final = maker(NormalisedSpan)


def normalise(
    span: SpanRecord, arrived_ns: int, *, content: bool = False, rules: RouteRules = PLAIN_RULES
) -> NormalisedSpan:
    """The span read through its dialect; never raises, whatever the attributes hold.

    `arrived_ns` is when the request came: a start more than an hour after it is a wrong clock and becomes the
    arrival (the duration stays). The attributes of the result hold no content; what was read out of content is
    kept under `tierlight.found.*`, so that a later version of the rules can read the stored span again. With
    `content` the texts of a call are given back in `contents`. `rules` say how the project names its routes.

    The record's costs are unpriced apart from what the caller or the provider stated.
    """
    plan = plan_for(span.attributes, rules)
    values = read_own(plan, span.attributes)
    key = key_of(plan, span) if values is not None else None
    profile = recall(key) if key is not None else None
    if values is None or profile is None:
        values = read(plan, span.attributes)
        profile = profile_of(values, span)
        if key is not None and not values.findings:
            remember(key, profile)
    role, hints = profile.role, profile.hints
    kept = timely(span, arrived_ns)
    call, is_refused = None, False
    if profile.call is not None:
        call = _call(profile.call, values, span, kept, arrived_ns)
        if call.outcome == "not_sent":
            role, call, is_refused = "other", None, True
    scores: tuple[ScoreRecord, ...] = ()
    if plan.extra_keys:
        extras = [(key, span.attributes[key]) for key in plan.extra_keys]
        scores = inline_scores(extras, kept, call.call_id if call is not None else "", content=content)
    contents: tuple[ContentRecord, ...] = ()
    if content and call is not None and (plan.content_keys or span.events):
        contents = contents_of(span)
    if plan.content_keys or values.findings or span.status_message or span.events:
        kept = stripped(kept, values)
    return _make_normalised(kept, role, hints, call, contents, scores, is_refused)


def normalise_log(log: LogRecord, *, content: bool = False) -> ScoreRecord | None:
    """The score of an evaluation event, None for every other log record (they repeat what spans say)."""
    return score_of(log, content=content)


def _call(
    profile: CallProfile, values: Values, span: SpanRecord, kept: SpanRecord, arrived_ns: int
) -> CallRecord:
    get = values.get
    resource = span.resource
    scope, dialect, error_type, klass = (
        profile.scope,
        profile.dialect,
        profile.error_type,
        profile.error_class,
    )
    flags = profile.flags
    if kept is not span or span.end_ns < span.start_ns:
        flags = ("clock_suspect", *flags)
    duration = kept.end_ns - kept.start_ns if kept.end_ns >= kept.start_ns else None
    start_ns = kept.start_ns
    if STREAM_REPORT in flags:
        start_ns, duration = _streamed(values, kept)
    ttft, is_streaming = first_chunk(values, span, duration)
    usage = usage_of(values, scope)
    source = usage_source(values, usage, scope, is_streaming)
    usage, source = believable(usage, source, bool(error_type), klass, profile.operation)
    if usage.flags:
        flags = (*flags, *usage.flags)

    call_id, act_prob, keep_prob = "", None, None
    if dialect == "tierlight":
        call_id = id_of(get("call_id"))
        act_prob, keep_prob = _probability(get("act_prob")), _probability(get("keep_prob"))
    response_id = id_of(get("response_id"))
    outcome = profile.outcome
    if not outcome:
        if klass == "not_sent":
            nothing_came = profile.http_status is None and not response_id and source == "absent"
            outcome, klass = ("not_sent", klass) if nothing_came else ("error", "unknown")
        elif error_type:
            outcome = "cancelled" if klass == "cancelled" else "error"
        else:
            outcome = "truncated" if profile.finish_reason == "length" else "ok"

    cost_nusd, cost_source, price_version, wire_cost, wire_source = None, "", "", None, ""
    if "cost" in values or "wire_cost" in values:
        cost_nusd, cost_source, price_version, wire_cost, wire_source = stated_cost(values, dialect, source)
    if outcome == "cache_hit" or profile.is_cache_hit:
        outcome, cost_nusd, cost_source, price_version = "cache_hit", 0, "cache", ""

    return _make_call(
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        span.name[:MAX_TEXT],
        start_ns,
        arrived_ns,
        duration,
        ttft,
        profile.operation,
        profile.provider,
        profile.request_model,
        profile.response_model,
        profile.route,
        profile.route_source,
        profile.tier,
        usage.input,
        usage.output,
        usage.cached,
        usage.written,
        usage.written_1h,
        usage.reasoning,
        source,
        usage.rule,
        True if STREAM_REPORT in flags else is_streaming,
        error_type,
        klass,
        profile.http_status,
        profile.finish_reason,
        outcome,
        response_id,
        call_id,
        profile.attempt_index,
        profile.attempt_reason,
        profile.attempt_final,
        profile.purpose,
        profile.experiment,
        profile.arm,
        act_prob,
        keep_prob,
        profile.strategy,
        profile.policy_version,
        id_of(get("session")),
        id_of(get("user")),
        profile.prompt_name,
        profile.prompt_version,
        profile.segment,
        profile.service_tier,
        resource.environment or profile.env,
        resource.service_name[:MAX_TEXT],
        resource.service_instance[:MAX_TEXT],
        scope,
        dialect,
        NORM_VERSION,
        cost_nusd=cost_nusd,
        cost_source=cost_source,
        price_version=price_version,
        wire_cost_nusd=wire_cost,
        wire_cost_source=wire_source,
        flags=flags,
    )


def _streamed(values: Values, span: SpanRecord) -> tuple[int, int | None]:
    """When the stream began that the span reports at its end, and how long it took."""
    seconds = number_of(values.get("logfire_duration_s"))
    if seconds is None or not 0 <= seconds < 86_400:
        return span.start_ns, None
    length = round(seconds * 1e9)
    return span.end_ns - length, length


def _probability(value: object) -> float | None:
    number = number_of(value)
    return number if number is not None and 0.0 <= number <= 1.0 else None
