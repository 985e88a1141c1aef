"""One span through its dialect: role, route hints, and the call as it will be stored.

Every span of every sender passes here, so the common case does one walk over the attributes (`sources.read`),
table look-ups, and nothing else; JSON inside strings is parsed only in the dialects that hide facts there.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from tierlight import semconv

from ..drafts import maker
from ..records import (
    CallRecord,
    ContentRecord,
    LogRecord,
    NormalisedSpan,
    Purpose,
    RouteHints,
    ScoreRecord,
    SpanRecord,
)
from . import langfuse, litellm, mlflow, openinference, platforms
from .coerce import first_text, flag_of, mapping_of, number_of, text_of, tokens_of
from .contents import contents_of
from .costs import stated_cost
from .failures import failure_of
from .providers import identify
from .roles import Reading, operation_of, role_of
from .routes import NO_HINTS, http_route_name, is_generic, own_route, route_name
from .scores import inline_scores, score_of
from .sources import read
from .storable import stripped, timely
from .streams import first_chunk
from .tiering import tier_of
from .usage import believable, usage_of, usage_source
from .values import Values

NORM_VERSION: Final = 1

_make_call: Final = maker(CallRecord)
_make_normalised: Final = maker(NormalisedSpan)
_make_hints: Final = maker(RouteHints)

MAX_TEXT: Final = 200  # characters of an id, a name, an error type

_PURPOSES: Final = frozenset(get_args(Purpose))
_FINISH: Final = {
    **dict.fromkeys(
        ("stop", "end_turn", "complete", "completed", "stop_sequence", "finished", "eos"), "stop"
    ),
    **dict.fromkeys(("length", "max_tokens", "incomplete", "max_output_tokens", "model_length"), "length"),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "tool-calls", "function_call", "tool"), "tool"),
    **dict.fromkeys(
        (
            "content_filter",
            "content-filter",
            "safety",
            "refusal",
            "recitation",
            "blocklist",
            "guardrail_intervened",
        ),
        "filter",
    ),
}
_PLAIN_SERVICE_TIERS: Final = frozenset({"default", "standard", "auto", "scale"})


def normalise(span: SpanRecord, arrived_ns: int, *, content: bool = False) -> NormalisedSpan:
    """The span read through its dialect; never raises, whatever the attributes hold.

    `arrived_ns` is when the request came: a start more than an hour after it is a wrong clock and becomes the
    arrival (the duration stays). The attributes of the result hold no content; what was read out of content is
    kept under `tierlight.found.*`, so that a later version of the rules can read the stored span again. With
    `content` the texts of a call are given back in `contents`.

    The record's costs are unpriced apart from what the caller or the provider stated.
    """
    values = read(span.attributes)
    plan = values.plan
    if plan.is_refined:
        _refine(values, span)
    reading = role_of(values, span.name, span.kind, span.scope[:MAX_TEXT])
    role = reading.role
    hints = _hints(values, span, role)
    kept = timely(span, arrived_ns)
    call, is_refused = None, False
    if role == "call":
        call = _call(values, span, kept, reading, hints, arrived_ns)
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


# ---- reading --------------------------------------------------------------------------------------------


def _refine(values: Values, span: SpanRecord) -> None:
    """Let the dialects that hide facts in JSON bring them out."""
    if "oi_kind" in values:
        openinference.refine(values)
    elif "lf_type" in values:
        langfuse.refine(values, span.start_ns)
    elif "ml_type" in values:
        mlflow.refine(values)
    elif "litellm_call" in values or "litellm_usage" in values:
        litellm.refine(values)
    if "langwatch_metrics" in values:
        platforms.refine(values)
    if "metadata" in values:
        metadata = mapping_of(values["metadata"])
        values.fill("provider", text_of(metadata.get("ls_provider")))
        values.fill("request_model", text_of(metadata.get("ls_model_name")))
        values.fill("dialect_route", text_of(metadata.get("route") or metadata.get("task_type")))
        values.fill("user", text_of(metadata.get("user_id")))
        values.fill("session", text_of(metadata.get("session_id") or metadata.get("thread_id")))
        values.fill("metadata_agent", text_of(metadata.get("lc_agent_name")))


def _hints(values: Values, span: SpanRecord, role: str) -> RouteHints:
    declared = _route_text(values.get("route"))
    dialect = _route_text(values.get("dialect_route"))
    if not dialect and role == "call" and values.plan.dialect:
        if "lf_type" in values:
            dialect = _route_text(langfuse.span_route(span.name))
        elif ("litellm_call" in values or "litellm_usage" in values) and span.name != "litellm_request":
            dialect = _route_text(span.name)
        dialect = dialect or _route_text(values.get("model_group"))
    agent = _route_text(values.get("agent") or values.get("metadata_agent"))
    prompt = _route_text(values.get("prompt_name"))
    name = ""
    if role != "call":
        if "http_method" in values or "http_route" in values:
            if span.kind == 2:  # SERVER: the application's own entry
                name = http_route_name((text_of(values.get("http_route")) or span.name)[:MAX_TEXT])
        elif role != "tool":
            name = _route_text(span.name)
    if declared or dialect or agent or prompt or name:
        return _make_hints(declared, dialect, agent, prompt, name)
    return NO_HINTS


def _route_text(value: object) -> str:
    """The route that a value names, "" for nothing and for names that say nothing."""
    if not value:
        return ""
    text = value if type(value) is str and value[0] != "[" else first_text(value)
    text = text[:MAX_TEXT]
    return "" if is_generic(text) else route_name(text)


# ---- the call -------------------------------------------------------------------------------------------


def _call(
    values: Values,
    span: SpanRecord,
    kept: SpanRecord,
    reading: Reading,
    hints: RouteHints,
    arrived_ns: int,
) -> CallRecord:
    get = values.get
    resource = span.resource
    scope = span.scope[:MAX_TEXT]
    flags: tuple[str, ...] = ()
    if kept is not span or span.end_ns < span.start_ns:
        flags = ("clock_suspect",)
    if reading.weak:
        flags = (*flags, "weak_role")
    duration = kept.end_ns - kept.start_ns if kept.end_ns >= kept.start_ns else None

    error_type, klass, status = failure_of(values, span)
    request_model, response_model = _models(values, bool(error_type), reading.model)
    provider, request_model, response_model, is_suspect = identify(
        _id(get("provider")),
        _host(values),
        _id(get("litellm_model") or get("error_provider")),
        scope,
        "" if request_model or response_model else span.name[:MAX_TEXT],
        request_model,
        response_model,
    )
    if is_suspect:
        flags = (*flags, "provider_suspect")
    operation = operation_of(reading.operation, values, span.name)
    dialect = values.plan.dialect or _dialect(values, scope)

    ttft, is_streaming = first_chunk(values, span, duration)
    usage = usage_of(values, scope)
    source = usage_source(values, usage, scope, is_streaming)
    usage, source = believable(usage, source, bool(error_type), klass, operation)
    if usage.flags:
        flags = (*flags, *usage.flags)

    call_id, tier, outcome = "", "", ""
    attempt_index, attempt_reason, attempt_final = 0, "first", True
    purpose: Any = "production"
    experiment = arm = strategy = policy_version = segment = ""
    act_prob = keep_prob = None
    if dialect == "tierlight":
        call_id = _id(get("call_id"))
        tier = text_of(get("tier"))
        tier = tier if tier in semconv.TIERS else ""
        outcome = text_of(get("outcome"))[:40]
        attempt_index = tokens_of(get("attempt_index")) or 0
        attempt_reason = text_of(get("attempt_reason"))[:40] or "first"
        attempt_final = flag_of(get("attempt_final")) is not False
        purpose = text_of(get("purpose"))
        purpose = purpose if purpose in _PURPOSES else "production"
        experiment, arm = _id(get("experiment")), _id(get("arm"))
        strategy, policy_version = _id(get("strategy")), _id(get("policy_version"))
        segment = _id(get("segment"))
        act_prob, keep_prob = _probability(get("act_prob")), _probability(get("keep_prob"))
    finish = _finish(get("finish"))
    response_id = _id(get("response_id"))
    if not outcome:
        if klass == "not_sent":
            nothing_came = status is None and not response_id and source == "absent"
            outcome, klass = ("not_sent", klass) if nothing_came else ("error", "unknown")
        elif error_type:
            outcome = "cancelled" if klass == "cancelled" else "error"
        else:
            outcome = "truncated" if finish == "length" else "ok"
    tier = tier or tier_of(provider, response_model or request_model)

    cost_nusd, cost_source, price_version, wire_cost, wire_source = None, "", "", None, ""
    if "cost" in values or "wire_cost" in values:
        cost_nusd, cost_source, price_version, wire_cost, wire_source = stated_cost(values, dialect, source)
    if outcome == "cache_hit" or (dialect == "tierlight" and flag_of(get("cache_hit"))):
        outcome, cost_nusd, cost_source, price_version = "cache_hit", 0, "cache", ""

    route, route_source = own_route(hints, resource.service_name[:MAX_TEXT])
    return _make_call(
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        span.name[:MAX_TEXT],
        kept.start_ns,
        arrived_ns,
        duration,
        ttft,
        operation,
        provider,
        request_model,
        response_model,
        route,
        route_source,
        tier,
        usage.input,
        usage.output,
        usage.cached,
        usage.written,
        usage.written_1h,
        usage.reasoning,
        source,
        usage.rule,
        is_streaming,
        error_type,
        klass,
        status,
        finish,
        outcome,
        response_id,
        call_id,
        attempt_index,
        attempt_reason,
        attempt_final,
        purpose,
        experiment,
        arm,
        act_prob,
        keep_prob,
        strategy,
        policy_version,
        _id(get("session")),
        _id(get("user")),
        _id(get("prompt_name")),
        _id(get("prompt_version")),
        segment,
        _service_tier(get("service_tier")),
        resource.environment or _id(get("env")),
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


def _id(value: object) -> str:
    """An id or name, at most 200 characters."""
    if value is None:
        return ""
    return text_of(value)[:MAX_TEXT]


def _probability(value: object) -> float | None:
    number = number_of(value)
    return number if number is not None and 0.0 <= number <= 1.0 else None


def _service_tier(value: object) -> str:
    """The price context; the everyday tiers are none."""
    word = text_of(value).lower() if value is not None else ""
    return "" if word in _PLAIN_SERVICE_TIERS else word[:40]


def _models(values: Values, failed: bool, named: str) -> tuple[str, str]:
    """Model asked for and model that answered; names that mean either are sorted by whether an answer came."""
    request = text_of(values["request_model"]) if "request_model" in values else ""
    response = text_of(values["response_model"]) if "response_model" in values else ""
    either = text_of(values["any_model"]) if "any_model" in values else ""
    if either and not failed:
        response = response or either
    if not request:
        if either and failed:
            request = either
        elif "litellm_model" in values:
            request = text_of(values["litellm_model"])
    return (request or named)[:MAX_TEXT], response[:MAX_TEXT]


def _host(values: Values) -> str:
    """Host name or URL, with the port where it is apart."""
    host = values.get("host")
    if type(host) is not str:
        return ""
    host = host[:MAX_TEXT]
    port = values.get("port")
    return f"{host}:{port}" if port is not None and "://" not in host else host


def _dialect(values: Values, scope: str) -> str:
    """The dialect of a span without a marker of its own."""
    head = scope.partition(".")[0].lower()
    if head in ("openlit", "pydantic-ai", "logfire", "langsmith", "langwatch", "lmnr"):
        return head
    if "request_type" in values or "tl_kind" in values:
        return "traceloop"
    return "otel"


def _finish(value: object) -> str:
    if value is None:
        return ""
    word = first_text(value).lower()
    if not word:
        return ""
    return _FINISH.get(word) or _FINISH.get(word.rpartition(".")[2]) or "other"
