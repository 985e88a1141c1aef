"""Spans, calls and scores for the store's tests, each with as few words as it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tierlight_collector.normalise.routes import own_route
from tierlight_collector.records import (
    HOUR_NS,
    Batch,
    CallRecord,
    ContentRecord,
    NormalisedSpan,
    Resource,
    Role,
    RouteHints,
    ScoreRecord,
    SpanRecord,
)

SECOND_NS = 1_000_000_000
DAY_NS = 24 * HOUR_NS
# A whole day in the past: tests set the clock themselves.
EPOCH_NS = 20_000 * DAY_NS

RESOURCE = Resource({"service.name": "shop"}, "shop", "shop-1", "prod")


class Clock:
    """A clock that a test sets."""

    def __init__(self, now_ns: int = EPOCH_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def span_id(number: int) -> bytes:
    return number.to_bytes(8, "big")


def span(
    trace: int,
    number: int,
    *,
    role: Role = "route",
    parent: int = 0,
    start_ns: int = EPOCH_NS,
    duration_ns: int = SECOND_NS,
    hints: RouteHints | None = None,
    attributes: dict[str, Any] | None = None,
    scope: str = "scope.a",
) -> NormalisedSpan:
    """A span that is no call."""
    record = SpanRecord(
        trace_id=trace_id(trace),
        span_id=span_id(number),
        parent_span_id=span_id(parent) if parent else b"",
        name=f"span {number}",
        kind=1,
        start_ns=start_ns,
        end_ns=start_ns + duration_ns,
        status_code=0,
        status_message="",
        scope=scope,
        scope_version="1",
        attributes=attributes or {},
        events=(),
        resource=RESOURCE,
    )
    return NormalisedSpan(record, role, hints or RouteHints(), None)


def call(
    trace: int,
    number: int,
    *,
    parent: int = 0,
    start_ns: int = EPOCH_NS,
    duration_ns: int | None = SECOND_NS,
    route: str = "",
    scope: str = "scope.a",
    contents: tuple[tuple[str, str], ...] = (),
    scores: tuple[ScoreRecord, ...] = (),
    attributes: dict[str, Any] | None = None,
    **fields: Any,
) -> NormalisedSpan:
    """A call as `normalise` makes it: under the route its own span declares, if any."""
    hints = RouteHints(declared=route)
    outer = span(
        trace,
        number,
        parent=parent,
        start_ns=start_ns,
        duration_ns=duration_ns or 0,
        hints=hints,
        attributes=attributes,
        scope=scope,
    )
    named, source = own_route(hints, "shop")
    made = CallRecord(
        trace_id=outer.span.trace_id,
        span_id=outer.span.span_id,
        parent_span_id=outer.span.parent_span_id,
        name=outer.span.name,
        start_ns=start_ns,
        arrived_ns=start_ns + SECOND_NS,
        duration_ns=duration_ns,
        ttft_ns=fields.pop("ttft_ns", None),
        operation=fields.pop("operation", "chat"),
        provider=fields.pop("provider", "openai"),
        request_model=fields.pop("request_model", "gpt-5-mini"),
        response_model=fields.pop("response_model", "gpt-5-mini-2026-01-01"),
        route=named,
        route_source=source,
        tier=fields.pop("tier", "small"),
        service_name="shop",
        service_instance="shop-1",
        scope=scope,
        **fields,
    )
    captured = tuple(
        ContentRecord(made.trace_id, made.span_id, kind, body)  # type: ignore[arg-type]
        for kind, body in contents
    )
    return NormalisedSpan(outer.span, "call", hints, made, captured, scores)


def score(name: str = "quality", value: float | None = 1.0, **fields: Any) -> ScoreRecord:
    """A score; say by `trace` and `number`, `call_id`, `response_id` or `join_value` what it is about."""
    if "trace" in fields:
        fields["trace_id"] = trace_id(fields.pop("trace"))
        fields["span_id"] = span_id(fields.pop("number"))
    if "join_value" in fields:
        fields.setdefault("join_key", "ticket")
    fields.setdefault("source", "judge:a")
    fields.setdefault("kind", "judge")
    fields.setdefault("time_ns", EPOCH_NS)
    return ScoreRecord(name=name, value=value, **fields)


def batch(*items: NormalisedSpan | ScoreRecord, project: str = "default") -> Batch:
    """One request with these spans and scores."""
    spans = tuple(item for item in items if isinstance(item, NormalisedSpan))
    scores = tuple(item for item in items if isinstance(item, ScoreRecord))
    if project != "default":
        spans = tuple(
            replace(each, call=replace(each.call, project=project) if each.call else None) for each in spans
        )
        scores = tuple(replace(each, project=project) for each in scores)
    return Batch(spans=spans, scores=scores, nbytes=1_000 * len(items), arrived_ns=EPOCH_NS, project=project)
