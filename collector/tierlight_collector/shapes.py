"""The public JSON of what is stored: one shape each, the same in the API, the command line and exports.

Unknown is null. Money is dollars, times are ISO 8601 in UTC with microseconds, durations are milliseconds, shares
are 0..1. A share or mean of nothing is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from .decisions import Alert, Recommendation
from .records import CallRow, Dim, Rollup, RouteInfo, ScoreRecord
from .rollup import percentile

Json: TypeAlias = dict[str, Any]

CALL_KEYS: Final = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "name",
    "route",
    "tier",
    "operation",
    "provider",
    "request_model",
    "response_model",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "reasoning_tokens",
    "cost_usd",
    "cost_source",
    "latency_ms",
    "ttft_ms",
    "error_type",
    "is_streaming",
    "started_at",
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS: Final = 253_402_300_799_000_000_000  # the end of 9999, where datetime ends


def iso_time(ns: int | None) -> str | None:
    """A time as text, cut to microseconds.

    >>> iso_time(1_764_000_000_123_456_789)
    '2025-11-24T16:00:00.123456Z'
    """
    if ns is None:
        return None
    moment = _EPOCH + timedelta(microseconds=min(max(ns, 0), _LAST_NS) // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def usd(nusd: int | None) -> float | None:
    return None if nusd is None else nusd / 1_000_000_000


def ms(ns: int | None) -> float | None:
    return None if ns is None else ns / 1_000_000


def call_json(row: CallRow) -> Json:
    """One call with exactly the keys of `CALL_KEYS`, in that order."""
    call = row.call
    return {
        "trace_id": call.trace_id.hex(),
        "span_id": call.span_id.hex(),
        "parent_span_id": call.parent_span_id.hex() or None,
        "name": call.name or None,
        "route": call.route or None,
        "tier": call.tier or None,
        "operation": call.operation,
        "provider": call.provider or None,
        "request_model": call.request_model or None,
        "response_model": call.response_model or None,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "cached_input_tokens": call.cached_input_tokens,
        "cache_write_input_tokens": call.cache_write_input_tokens,
        "reasoning_tokens": call.reasoning_tokens,
        "cost_usd": usd(call.cost_nusd),
        "cost_source": call.cost_source or None,
        "latency_ms": ms(call.duration_ns),
        "ttft_ms": ms(call.ttft_ns),
        "error_type": call.error_type or None,
        "is_streaming": call.is_streaming,
        "started_at": iso_time(call.start_ns),
    }


def score_json(score: ScoreRecord) -> Json:
    return {
        "name": score.name,
        "value": score.value,
        "label": score.label or None,
        "source": score.source or None,
        "kind": score.kind,
        "evaluator_version": score.evaluator_version or None,
        "scored_at": iso_time(score.time_ns),
    }


def call_detail_json(row: CallRow) -> Json:
    """A call with what a list leaves out: how it was attempted, judged and read. Never holds content."""
    call = row.call
    return {
        **call_json(row),
        "scores": [score_json(score) for score in row.scores],
        "route_source": call.route_source or None,
        "finish_reason": call.finish_reason or None,
        "error_class": call.error_class or None,
        "http_status": call.http_status,
        "response_id": call.response_id or None,
        "call_id": call.call_id or None,
        "attempt_index": call.attempt_index,
        "attempt_reason": call.attempt_reason,
        "purpose": call.purpose,
        "experiment": call.experiment or None,
        "arm": call.arm or None,
        "session_id": call.session_id or None,
        "prompt_name": call.prompt_name or None,
        "prompt_version": call.prompt_version or None,
        "env": call.env or None,
        "service_name": call.service_name or None,
        "usage_source": call.usage_source,
        "price_version": call.price_version or None,
        "unpriced_reason": call.unpriced_reason or None,
        "dialect": call.dialect or None,
        "flags": list(call.flags),
        "is_superseded": row.superseded,
        "arrived_at": iso_time(call.arrived_ns),
    }


def rollup_json(rollup: Rollup, group_by: Sequence[Dim] = ()) -> Json:
    """Counts, sums and shares of a set of calls, led by the values it is grouped by ("" is null)."""
    calls = rollup.calls
    timed = calls - rollup.no_latency
    return {
        **{dim: value or None for dim, value in zip(group_by, rollup.key, strict=True)},
        "calls": calls,
        "errors": rollup.errors,
        "error_rate": rollup.errors / calls if calls else None,
        "fallbacks": rollup.fallbacks,
        "escalations": rollup.escalations,
        "retries": rollup.retries,
        "input_tokens": rollup.input_tokens,
        "output_tokens": rollup.output_tokens,
        "cached_input_tokens": rollup.cached_input_tokens,
        "cache_write_input_tokens": rollup.cache_write_input_tokens,
        "reasoning_tokens": rollup.reasoning_tokens,
        "tokens_unknown": rollup.tokens_unknown,
        "cost_usd": usd(rollup.cost_nusd) if calls > rollup.unpriced or not calls else None,
        "unpriced": rollup.unpriced,
        "latency_mean_ms": rollup.duration_ns / 1_000_000 / timed if timed else None,
        **{f"latency_p{q}_ms": percentile(rollup.latency, q / 100) for q in (50, 95, 99)},
        **{f"ttft_p{q}_ms": percentile(rollup.ttft, q / 100) for q in (50, 95, 99)},
        "scored": rollup.scored,
        "error_classes": dict(rollup.error_classes),
        "finish_reasons": dict(rollup.finish_reasons),
        "scores": [
            {
                "name": name,
                "source": source or None,
                "n": sums.n,
                "mean": sums.sum / sums.n if sums.n else None,
            }
            for (name, source), sums in sorted(rollup.scores.items())
        ],
    }


def route_json(info: RouteInfo, recent: Rollup) -> Json:
    """One route: since when it is known, and its sums over the range asked for."""
    return {
        "route": info.route or None,
        "declared_tier": info.declared_tier or None,
        "first_at": iso_time(info.first_ns),
        "last_at": iso_time(info.last_ns),
        "calls_in_all": info.calls,
        **rollup_json(recent, ("route",) if recent.key else ()),
    }


def alert_json(alert: Alert) -> Json:
    return _with_times(asdict(alert))


def recommendation_json(recommendation: Recommendation) -> Json:
    return _with_times(asdict(recommendation))


def _with_times(fields: Mapping[str, Any]) -> Json:
    """`..._ns` becomes `..._at` as text, `..._nusd` becomes `..._usd`, an empty text null."""
    shaped: Json = {}
    for key, value in fields.items():
        if key.endswith("_ns"):
            shaped[key[:-3] + "_at"] = iso_time(value) if value else None
        elif key.endswith("_nusd"):
            shaped[key[:-5] + "_usd"] = usd(value)
        else:
            shaped[key] = None if value == "" else value
    return shaped
