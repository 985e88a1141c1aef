"""A line of our own export as the span it was, or would have been."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tierlight import semconv as s

from ..records import AttributeValue, ScoreRecord, SpanRecord
from .parts import MAX_NAME, Line, kind_of, list_of, moment_of, number_of, scaled, span_of, text_of, time_ns

# Costs that the importing store believes; others it works out from its own prices.
_STATED: Final = ("caller", "provider", "cache")
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


def own_call(line: Line) -> tuple[SpanRecord, tuple[ScoreRecord, ...]]:
    """A call as `tierlight export` or `tierlight calls --format jsonl` writes it, with its scores."""
    start_ns = line.get("start_ns") or time_ns(line.get("started_at"))
    duration_ns = line.get("duration_ns", scaled(line.get("latency_ms"), 1e6))
    ttft_ns = line.get("ttft_ns", scaled(line.get("ttft_ms"), 1e6))
    said: dict[str, AttributeValue] = {s.TIERLIGHT_SCHEMA: s.SCHEMA_VERSION, s.TIERLIGHT_SPAN_ROLE: "call"}
    said |= {key: line[name] for name, key in _OWN if line.get(name) is not None}
    route = text_of(line.get("route"))
    if route and not route.startswith("unrouted/"):
        said[s.TIERLIGHT_ROUTE] = route
    if ttft_ns is not None:
        said[s.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = ttft_ns / 1e9
    if finish := text_of(line.get("finish_reason")):
        said[s.GEN_AI_RESPONSE_FINISH_REASONS] = (_FINISH.get(finish, finish),)
    nusd = line.get("cost_nusd", scaled(line.get("cost_usd"), 1e9))
    if nusd is not None and line.get("cost_source") in _STATED:
        said[s.TIERLIGHT_COST_AMOUNT] = nusd / 1e9
        said[s.TIERLIGHT_COST_SOURCE] = text_of(line["cost_source"])
        said[s.TIERLIGHT_COST_PRICE_VERSION] = text_of(line.get("price_version"))
    elif line.get("wire_cost_nusd") is not None:
        said["gen_ai.cost.total_cost"] = line["wire_cost_nusd"] / 1e9
    span = span_of(
        trace=line.get("trace_id"),
        span=line.get("span_id"),
        parent=line.get("parent_span_id"),
        name=text_of(line.get("name")) or "call",
        start_ns=start_ns,
        end_ns=None if duration_ns is None or start_ns is None else start_ns + duration_ns,
        said=said,
        failed=bool(line.get("error_type")),
        scope=s.SCOPE,
        service=text_of(line.get("service_name")),
        instance=text_of(line.get("service_instance")),
        environment=text_of(line.get("env")),
    )
    scores = tuple(
        ScoreRecord(
            name=text_of(score["name"])[:MAX_NAME],
            value=number_of(score.get("value")),
            source=text_of(score.get("source"))[:MAX_NAME],
            kind=kind_of(score.get("kind")),
            time_ns=moment_of(score.get("time_ns")) or time_ns(score.get("scored_at")) or span.start_ns,
            trace_id=span.trace_id,
            span_id=span.span_id,
            label=text_of(score.get("label"))[:MAX_NAME],
            evaluator_version=text_of(score.get("evaluator_version"))[:MAX_NAME],
            weight=number_of(score.get("weight")) or 1.0,
        )
        for score in list_of(line.get("scores"))
        if isinstance(score, Mapping) and score.get("name")
    )
    return span, scores
