"""What a store should say, worked out anew from everything it was given: lists and dicts, no SQL, no increments."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from tierlight_collector.normalise.resolve import facts_of, resolve
from tierlight_collector.records import (
    HOUR_NS,
    Batch,
    CallRecord,
    Dim,
    Filters,
    NormalisedSpan,
    Rollup,
    ScoreRecord,
    ScoreSums,
    TimeRange,
)
from tierlight_collector.rollup import add, bin_of_ms

Key = tuple[bytes, bytes]
DIMS: tuple[Dim, ...] = ("project", "env", "route", "provider", "model", "tier", "arm", "purpose")


class Oracle:
    """Remembers the first of each span and the latest of each score; answers from scratch."""

    def __init__(self) -> None:
        self._spans: dict[str, dict[Key, NormalisedSpan]] = defaultdict(dict)
        self._scores: dict[tuple[str, str, str, str], ScoreRecord] = {}

    def append(self, batch: Batch) -> None:
        for each in batch.spans:
            key = (each.span.trace_id, each.span.span_id)
            if key not in self._spans[batch.project]:
                self._spans[batch.project][key] = each
                for score in each.scores:
                    self._keep(score)
        for score in batch.scores:
            self._keep(score)

    def _keep(self, score: ScoreRecord) -> None:
        key = (score.project, _address(score), score.name, score.source)
        known = self._scores.get(key)
        if known is None or score.time_ns >= known.time_ns:
            self._scores[key] = score

    def calls(self, project: str = "default") -> dict[Key, CallRecord]:
        """The calls that count, settled."""
        spans = self._spans[project]
        settled = resolve([facts_of(each) for each in spans.values()])
        return {
            key: replace(
                each.call,
                **{
                    "route": settled[key].route,
                    "route_source": settled[key].route_source,
                    **settled[key].taken,
                },
            )
            for key, each in spans.items()
            if each.call is not None and settled[key].superseded_by is None
        }

    def scores(self, project: str = "default") -> dict[Key, dict[tuple[str, str], ScoreRecord]]:
        """The scores of each call that counts."""
        spans = self._spans[project]
        settled = resolve([facts_of(each) for each in spans.values()])
        found: dict[Key, dict[tuple[str, str], ScoreRecord]] = defaultdict(dict)
        for score in sorted(self._scores.values(), key=lambda each: each.time_ns):
            for key, each in spans.items():
                if score.project == project and each.call is not None and _is_about(score, each):
                    counted = settled[key].superseded_by or key
                    found[counted][score.name, score.source] = score
        return found

    def rollups(
        self, when: TimeRange, group_by: tuple[Dim, ...] = (), where: Filters | None = None
    ) -> list[Rollup]:
        where = where or Filters()
        scores = self.scores(where.project)
        sums: dict[tuple[str, ...], Rollup] = {}
        for key, call in self.calls(where.project).items():
            if when.start_ns <= call.start_ns < when.end_ns and _is_meant(call, where):
                group = tuple(str(getattr(call, dim)) for dim in group_by)
                sums[group] = add(sums.get(group, Rollup(key=group)), _one(call, scores.get(key, {})))
        return [sums[group] for group in sorted(sums)]

    def days(self, when: TimeRange, tz: str) -> list[tuple[datetime, int]]:
        """Calls per local day."""
        zone = ZoneInfo(tz)
        counts: dict[datetime, int] = defaultdict(int)
        for call in self.calls().values():
            if when.start_ns <= call.start_ns < when.end_ns and call.purpose == "production":
                moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=call.start_ns // 1000)
                counts[
                    moment.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
                ] += 1
        return sorted(counts.items())


def _address(score: ScoreRecord) -> str:
    if score.call_id:
        return score.call_id
    if score.span_id:
        return (score.trace_id + score.span_id).hex()
    return score.response_id or f"{score.join_key}={score.join_value}"


def _is_about(score: ScoreRecord, each: NormalisedSpan) -> bool:
    assert each.call is not None
    if score.call_id:
        return each.call.call_id == score.call_id
    if score.span_id:
        return (each.call.trace_id, each.call.span_id) == (score.trace_id, score.span_id)
    if score.response_id:
        return each.call.response_id == score.response_id
    return each.span.attributes.get(f"tierlight.join.{score.join_key}") == score.join_value


def _is_meant(call: CallRecord, where: Filters) -> bool:
    return all(
        not getattr(where, dim) or getattr(call, dim) in getattr(where, dim)
        for dim in DIMS
        if dim != "project"
    )


def _one(call: CallRecord, scores: dict[tuple[str, str], ScoreRecord]) -> Rollup:
    valued = {key: score.value for key, score in scores.items() if score.value is not None}
    failed = bool(call.error_type or call.error_class)
    latency = [] if call.duration_ns is None else [bin_of_ms(call.duration_ns / 1e6)]
    ttft = [] if call.ttft_ns is None else [bin_of_ms(call.ttft_ns / 1e6)]
    has_output = (
        call.operation in ("embeddings", "rerank", "image", "audio") or call.output_tokens is not None
    )
    return Rollup(
        calls=1,
        errors=int(failed),
        fallbacks=int(call.attempt_reason == "fallback"),
        escalations=int(call.attempt_reason == "escalation"),
        retries=int(call.attempt_reason == "retry"),
        input_tokens=call.input_tokens or 0,
        output_tokens=call.output_tokens or 0,
        cached_input_tokens=call.cached_input_tokens or 0,
        cache_write_input_tokens=call.cache_write_input_tokens or 0,
        reasoning_tokens=call.reasoning_tokens or 0,
        tokens_unknown=int(call.input_tokens is None or not has_output),
        cost_nusd=call.cost_nusd or 0,
        unpriced=int(call.cost_nusd is None),
        duration_ns=call.duration_ns or 0,
        no_latency=int(call.duration_ns is None),
        scored=int(bool(valued)),
        latency=dict.fromkeys(latency, 1),
        ttft=dict.fromkeys(ttft, 1),
        error_classes={call.error_class or "other": 1} if failed else {},
        finish_reasons={call.finish_reason: 1} if call.finish_reason else {},
        scores={key: ScoreSums(1, value, value * value) for key, value in valued.items()},
    )


def hour_start(ns: int) -> int:
    return ns // HOUR_NS * HOUR_NS
