"""Lines of JSON that are no OTLP, as the spans they tell of: our own calls, LiteLLM's logs, Langfuse's exports.

Each becomes a span in the dialect that its origin speaks over OTLP, so that one set of rules reads both. Ids that are
none of OTLP's are hashed: the same line always gives the same span. Pure: a dict in, records out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, get_args

from tierlight import semconv as s

from .errors import InvalidRecord
from .records import Attributes, AttributeValue, Resource, ScoreKind, ScoreRecord, SpanRecord

Line = Mapping[str, Any]
CLIENT: Final = 3
ERROR: Final = 2
# Costs that the importing store believes; others it works out from its own prices.
_STATED: Final = ("caller", "provider", "cache")
_LITELLM_OPERATIONS: Final = {
    "embedding": "embeddings",
    "text_completion": "text_completion",
    "rerank": "rerank",
    "image_generation": "image_generation",
    "transcription": "transcription",
    "speech": "speech",
}
_SCORE_KINDS: Final = frozenset(get_args(ScoreKind))
_LANGFUSE_SOURCES: Final[Mapping[str, ScoreKind]] = {
    "EVAL": "judge",
    "ANNOTATION": "human",
    "API": "feedback",
}


@dataclass(frozen=True, slots=True)
class Read:
    """What one line tells of."""

    spans: tuple[SpanRecord, ...] = ()
    scores: tuple[ScoreRecord, ...] = ()


def read_line(line: Line) -> Read:
    """The spans and scores of one line, whichever of the known forms it has.

    Raises:
        InvalidRecord: the form is unknown, or the line lacks what makes a span (ids, a start).
    """
    if "request_model" in line and "span_id" in line:
        return _own(line)
    if "call_type" in line and ("response_cost" in line or "spend" in line or "litellm_call_id" in line):
        return Read((_litellm(line),))
    if _pick(line, "traceId", "trace_id") is not None and _pick(line, "type") is not None:
        return Read((_langfuse(line),))
    if _pick(line, "dataType", "data_type") is not None and _pick(line, "traceId", "trace_id") is not None:
        return Read((), (_langfuse_score(line),))
    raise InvalidRecord("a line that is neither OTLP nor a call of tierlight, LiteLLM or Langfuse")


# ---- our own calls --------------------------------------------------------------------------------------

_OWN: Final = (
    ("operation", s.GEN_AI_OPERATION_NAME),
    ("provider", s.GEN_AI_PROVIDER_NAME),
    ("request_model", s.GEN_AI_REQUEST_MODEL),
    ("response_model", s.GEN_AI_RESPONSE_MODEL),
    ("response_id", s.GEN_AI_RESPONSE_ID),
    ("input_tokens", s.GEN_AI_USAGE_INPUT_TOKENS),
    ("output_tokens", s.GEN_AI_USAGE_OUTPUT_TOKENS),
    ("cached_input_tokens", s.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
    ("cache_write_input_tokens", s.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS),
    ("cache_write_1h_input_tokens", s.ANTHROPIC_CACHE_WRITE_1H_INPUT_TOKENS),
    ("reasoning_tokens", s.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS),
    ("usage_source", s.TIERLIGHT_USAGE_SOURCE),
    ("is_streaming", s.GEN_AI_REQUEST_STREAM),
    ("error_type", s.ERROR_TYPE),
    ("http_status", s.HTTP_RESPONSE_STATUS_CODE),
    ("session_id", s.GEN_AI_CONVERSATION_ID),
    ("user_id", s.USER_ID),
    ("prompt_name", s.GEN_AI_PROMPT_NAME),
    ("prompt_version", s.GEN_AI_PROMPT_VERSION),
    ("service_tier", s.OPENAI_RESPONSE_SERVICE_TIER),
    ("tier", s.TIERLIGHT_TIER),
    ("call_id", s.TIERLIGHT_CALL_ID),
    ("outcome", s.TIERLIGHT_OUTCOME),
    ("attempt_index", s.TIERLIGHT_ATTEMPT_INDEX),
    ("attempt_reason", s.TIERLIGHT_ATTEMPT_REASON),
    ("attempt_final", s.TIERLIGHT_ATTEMPT_FINAL),
    ("purpose", s.TIERLIGHT_PURPOSE),
    ("experiment", s.TIERLIGHT_EXPERIMENT_ID),
    ("arm", s.TIERLIGHT_EXPERIMENT_ARM),
    ("act_prob", s.TIERLIGHT_ACT_PROB),
    ("keep_prob", s.TIERLIGHT_KEEP_PROB),
    ("strategy", s.TIERLIGHT_STRATEGY),
    ("policy_version", s.TIERLIGHT_POLICY_VERSION),
    ("segment", s.TIERLIGHT_SEGMENT),
)
_FINISH: Final = {"tool": "tool_calls", "filter": "content_filter"}


def _own(line: Line) -> Read:
    start_ns = line.get("start_ns") or _time_ns(line.get("started_at"))
    duration_ns = line.get("duration_ns", _scaled(line.get("latency_ms"), 1e6))
    ttft_ns = line.get("ttft_ns", _scaled(line.get("ttft_ms"), 1e6))
    said: dict[str, AttributeValue] = {s.TIERLIGHT_SCHEMA: s.SCHEMA_VERSION, s.TIERLIGHT_SPAN_ROLE: "call"}
    said |= {key: line[name] for name, key in _OWN if line.get(name) is not None}
    route = _text(line.get("route"))
    if route and not route.startswith("unrouted/"):
        said[s.TIERLIGHT_ROUTE] = route
    if ttft_ns is not None:
        said[s.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = ttft_ns / 1e9
    if finish := _text(line.get("finish_reason")):
        said[s.GEN_AI_RESPONSE_FINISH_REASONS] = (_FINISH.get(finish, finish),)
    nusd = line.get("cost_nusd", _scaled(line.get("cost_usd"), 1e9))
    if nusd is not None and line.get("cost_source") in _STATED:
        said[s.TIERLIGHT_COST_AMOUNT] = nusd / 1e9
        said[s.TIERLIGHT_COST_SOURCE] = _text(line["cost_source"])
        said[s.TIERLIGHT_COST_PRICE_VERSION] = _text(line.get("price_version"))
    elif line.get("wire_cost_nusd") is not None:
        said["gen_ai.cost.total_cost"] = line["wire_cost_nusd"] / 1e9
    span = _span(
        trace=line.get("trace_id"),
        span=line.get("span_id"),
        parent=line.get("parent_span_id"),
        name=_text(line.get("name")) or "call",
        start_ns=start_ns,
        end_ns=None if duration_ns is None or start_ns is None else start_ns + duration_ns,
        said=said,
        failed=bool(line.get("error_type")),
        scope=s.SCOPE,
        service=_text(line.get("service_name")),
        instance=_text(line.get("service_instance")),
        environment=_text(line.get("env")),
    )
    scores = tuple(
        ScoreRecord(
            name=_text(score["name"]),
            value=_number(score.get("value")),
            source=_text(score.get("source")),
            kind=_kind(score.get("kind")),
            time_ns=score.get("time_ns") or _time_ns(score.get("scored_at")) or span.start_ns,
            trace_id=span.trace_id,
            span_id=span.span_id,
            label=_text(score.get("label")),
            evaluator_version=_text(score.get("evaluator_version")),
            weight=_number(score.get("weight")) or 1.0,
        )
        for score in _list(line.get("scores"))
        if isinstance(score, Mapping) and score.get("name")
    )
    return Read((span,), scores)


# ---- LiteLLM --------------------------------------------------------------------------------------------


def _litellm(line: Line) -> SpanRecord:
    """A `StandardLoggingPayload`, or a row of the proxy's spend logs.

    References:
        https://docs.litellm.ai/docs/proxy/logging_spec
    """
    metadata = _map(line.get("metadata"))
    error = _map(line.get("error_information")) or _map(metadata.get("error_information"))
    usage = _map(metadata.get("usage_object"))
    prompt = _map(usage.get("prompt_tokens_details"))
    completion = _map(usage.get("completion_tokens_details"))
    response = _map(line.get("response"))
    call_type = _text(line.get("call_type")).removeprefix("a")
    failed = line.get("status") == "failure" or bool(error.get("error_class"))
    start_ns = _time_ns(line.get("startTime"))
    first_ns, end_ns = _time_ns(line.get("completionStartTime")), _time_ns(line.get("endTime"))
    is_streaming = line.get("stream")
    is_cached = (
        str(line.get("cache_hit")).lower() == "true"
    )  # nobody was asked: the proxy's own cache answered
    identity = _text(_pick(line, "litellm_call_id", "id", "request_id"))
    if is_cached:  # under the id of the answer that was kept
        identity = f"{identity}@{start_ns}" if identity else ""
    said: dict[str, AttributeValue] = {
        "litellm.call_id": identity,
        s.GEN_AI_OPERATION_NAME: _LITELLM_OPERATIONS.get(call_type, "chat"),
        s.GEN_AI_PROVIDER_NAME: _text(line.get("custom_llm_provider")),
        s.GEN_AI_REQUEST_MODEL: _text(line.get("model")),
        s.GEN_AI_RESPONSE_MODEL: _text(response.get("model")),
        s.GEN_AI_RESPONSE_ID: ""
        if is_cached
        else _text(_pick(response, "id") or _pick(line, "id", "request_id")),
        s.GEN_AI_USAGE_INPUT_TOKENS: line.get("prompt_tokens"),
        s.GEN_AI_USAGE_OUTPUT_TOKENS: line.get("completion_tokens"),
        s.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: _pick(prompt, "cached_tokens")
        or usage.get("cache_read_input_tokens"),
        s.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: usage.get("cache_creation_input_tokens"),
        s.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: completion.get("reasoning_tokens"),
        "gen_ai.cost.total_cost": _pick(line, "response_cost", "spend"),
        "litellm.model_group": _text(line.get("model_group")),
        "litellm.metadata.route": _text(
            metadata.get("route") or _map(metadata.get("requester_metadata")).get("route")
        ),
        s.USER_ID: _text(line.get("end_user") or metadata.get("user_api_key_end_user_id")),
        s.GEN_AI_CONVERSATION_ID: _text(line.get("session_id") or metadata.get("session_id")),
        s.SERVER_ADDRESS: _text(line.get("api_base")),
        s.ERROR_TYPE: _text(error.get("error_class")) or ("error" if failed else ""),
        s.HTTP_RESPONSE_STATUS_CODE: _digits(error.get("error_code")),
    }
    if isinstance(is_streaming, bool):
        said[s.GEN_AI_REQUEST_STREAM] = is_streaming
    if is_streaming and start_ns is not None and first_ns is not None:
        said[s.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = (first_ns - start_ns) / 1e9
    if is_cached:
        said |= {s.TIERLIGHT_SCHEMA: s.SCHEMA_VERSION, s.TIERLIGHT_CACHE_HIT: True}
    return _span(
        trace=_pick(line, "trace_id", "session_id") or identity,
        span=identity,
        parent=None,
        name="litellm_request",
        start_ns=start_ns,
        end_ns=end_ns,
        said=said,
        failed=failed,
        scope="litellm",
        service="litellm",
    )


# ---- Langfuse -------------------------------------------------------------------------------------------


def _langfuse(line: Line) -> SpanRecord:
    """An observation, as the API, the page's export (camel case) or the blob storage export (snake case) gives it.

    References:
        https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields
    """
    usage = _pick(line, "usageDetails", "usage_details") or _old_usage(_map(line.get("usage")))
    cost = _pick(line, "costDetails", "cost_details")
    total = _pick(line, "totalCost", "total_cost", "calculatedTotalCost", "calculated_total_cost")
    if not _map(cost) and total is not None:
        cost = {"total": total}
    level = _text(line.get("level"))
    metadata = _map(line.get("metadata"))
    prefix = "langfuse.observation"
    said: dict[str, AttributeValue] = {
        f"{prefix}.type": _text(line.get("type")).lower(),
        f"{prefix}.model.name": _text(
            _pick(line, "providedModelName", "provided_model_name", "model", "internalModel")
        ),
        f"{prefix}.usage_details": _map(usage) or None,
        f"{prefix}.cost_details": _map(cost) or None,
        f"{prefix}.level": level,
        f"{prefix}.status_message": _text(_pick(line, "statusMessage", "status_message")),
        f"{prefix}.completion_start_time": _iso(_pick(line, "completionStartTime", "completion_start_time")),
        f"{prefix}.prompt.name": _text(_pick(line, "promptName", "prompt_name")),
        f"{prefix}.prompt.version": _text(_pick(line, "promptVersion", "prompt_version")),
        f"{prefix}.metadata.route": _text(metadata.get("route")),
        "langfuse.trace.name": _text(_pick(line, "traceName", "trace_name")),
        "langfuse.session.id": _text(_pick(line, "sessionId", "session_id")),
        "langfuse.user.id": _text(_pick(line, "userId", "user_id")),
    }
    return _span(
        trace=_pick(line, "traceId", "trace_id"),
        span=line.get("id"),
        parent=_pick(line, "parentObservationId", "parent_observation_id"),
        name=_text(line.get("name")) or "LLM",
        start_ns=_time_ns(_pick(line, "startTime", "start_time")),
        end_ns=_time_ns(_pick(line, "endTime", "end_time")),
        said=said,
        failed=level == "ERROR",
        scope="langfuse-sdk",
        service="langfuse",
        environment=_text(line.get("environment")),
    )


def _old_usage(usage: Line) -> Line:
    """The API's older `usage` object: what it is counted in, and up to three counts."""
    return {name: usage[name] for name in ("input", "output", "total") if usage.get(name) is not None}


def _langfuse_score(line: Line) -> ScoreRecord:
    observation = _pick(line, "observationId", "observation_id")
    if observation is None:
        raise InvalidRecord("a Langfuse score of a whole trace: only scores of an observation have a call")
    source = _text(line.get("source"))
    return ScoreRecord(
        name=_text(line.get("name")) or "score",
        value=_number(line.get("value")),
        source=f"langfuse:{source.lower() or 'api'}",
        kind=_LANGFUSE_SOURCES.get(source, "feedback"),
        time_ns=_time_ns(_pick(line, "timestamp", "createdAt", "created_at")) or 0,
        trace_id=_identity(_pick(line, "traceId", "trace_id"), 16),
        span_id=_identity(observation, 8),
        label=_text(_pick(line, "stringValue", "string_value")),
    )


# ---- the parts ------------------------------------------------------------------------------------------


def _span(
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
    if not trace or not span:
        raise InvalidRecord("a line without an id")
    if not isinstance(start_ns, int) or not 0 < start_ns < 2**62:
        raise InvalidRecord("a line without a start")
    attributes: Attributes = {key: value for key, value in said.items() if value not in (None, "")}
    resource = {
        s.SERVICE_NAME: service,
        s.SERVICE_INSTANCE_ID: instance,
        s.DEPLOYMENT_ENVIRONMENT_NAME: environment,
    }
    return SpanRecord(
        trace_id=_identity(trace, 16),
        span_id=_identity(span, 8),
        parent_span_id=_identity(parent, 8) if parent else b"",
        name=name,
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


def _identity(value: object, size: int) -> bytes:
    """The id itself where it is one of OTLP's, else its hash."""
    text = _text(value)
    plain = text.replace("-", "").lower()
    if len(plain) == 2 * size:
        try:
            raw = bytes.fromhex(plain)
        except ValueError:
            raw = b""
        if len(raw) == size and any(raw):
            return raw
    return blake2b(text.encode("utf-8", "replace"), digest_size=size).digest()


def _pick(line: Line, *names: str) -> Any:
    """The first of the names that the line says something for."""
    return next((line[name] for name in names if line.get(name) not in (None, "")), None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _digits(value: object) -> int | None:
    text = _text(value)
    return int(text) if text.isdecimal() and len(text) == 3 else None


def _map(value: object) -> Line:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _kind(value: object) -> ScoreKind:
    return value if value in _SCORE_KINDS else "feedback"  # type: ignore[return-value]


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return float(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _scaled(value: object, factor: float) -> int | None:
    number = _number(value)
    return None if number is None else round(number * factor)


def _time_ns(value: object) -> int | None:
    """A moment: seconds or milliseconds since 1970, or ISO 8601 (UTC where it names no zone).

    >>> _time_ns("2026-11-24T08:00:00.25Z") == _time_ns(1795507200.25) == _time_ns("2026-11-24 08:00:00.250000")
    True
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if not math.isfinite(value) or value <= 0:
            return None
        seconds = value / 1e3 if value > 1e11 else value
        return round(seconds * 1e6) * 1_000  # a float holds no more than microseconds of today
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 1_000_000_000 + moment.microsecond * 1_000


def _iso(value: object) -> str:
    """The moment as the dialect writes it, "" where there is none."""
    ns = _time_ns(value)
    return "" if ns is None else datetime.fromtimestamp(ns / 1e9, UTC).isoformat()
