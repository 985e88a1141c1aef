"""Spans of tierlight's own SDK."""

from __future__ import annotations

from typing import Final

from tierlight import semconv

SOURCES: Final = {
    "schema": (semconv.TIERLIGHT_SCHEMA,),
    "role": (semconv.TIERLIGHT_SPAN_ROLE,),
    "route": (semconv.TIERLIGHT_ROUTE, "route", "app.route", "task_type", "tierlight_route"),
    "call_id": (semconv.TIERLIGHT_CALL_ID,),
    "tier": (semconv.TIERLIGHT_TIER,),
    "strategy": (semconv.TIERLIGHT_STRATEGY,),
    "policy_version": (semconv.TIERLIGHT_POLICY_VERSION,),
    "attempt_index": (semconv.TIERLIGHT_ATTEMPT_INDEX,),
    "attempt_reason": (semconv.TIERLIGHT_ATTEMPT_REASON,),
    "attempt_final": (semconv.TIERLIGHT_ATTEMPT_FINAL,),
    "purpose": (semconv.TIERLIGHT_PURPOSE,),
    "experiment": (semconv.TIERLIGHT_EXPERIMENT_ID,),
    "arm": (semconv.TIERLIGHT_EXPERIMENT_ARM,),
    "act_prob": (semconv.TIERLIGHT_ACT_PROB,),
    "keep_prob": (semconv.TIERLIGHT_KEEP_PROB,),
    "segment": (semconv.TIERLIGHT_SEGMENT,),
    "outcome": (semconv.TIERLIGHT_OUTCOME,),
    "cache_hit": (semconv.TIERLIGHT_CACHE_HIT,),
    "usage_source": (semconv.TIERLIGHT_USAGE_SOURCE,),
    "cost": (semconv.TIERLIGHT_COST_AMOUNT, semconv.GEN_AI_USAGE_COST_AMOUNT),
    "cost_currency": (semconv.TIERLIGHT_COST_CURRENCY, semconv.GEN_AI_USAGE_COST_CURRENCY),
    "cost_source": (semconv.TIERLIGHT_COST_SOURCE, semconv.GEN_AI_USAGE_COST_SOURCE),
    "price_version": (semconv.TIERLIGHT_COST_PRICE_VERSION,),
    # What `normalise` found in content before it was stripped; see `Values.findings`.
    "request_model": ("tierlight.found.request_model",),
    "response_id": ("tierlight.found.response_id",),
    "finish": ("tierlight.found.finish",),
    "stream": ("tierlight.found.stream",),
    "http_status": ("tierlight.found.http_status",),
    "error_word": ("tierlight.found.error_word",),
    "input": ("tierlight.found.input",),
    "output": ("tierlight.found.output",),
    "cached": ("tierlight.found.cached",),
    "reasoning": ("tierlight.found.reasoning",),
}
