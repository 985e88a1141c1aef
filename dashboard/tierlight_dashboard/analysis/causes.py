"""The terms beside an alert: whose change it looks like, what else changed then, and its parts by size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any

from tierlight_collector.records import CallRow

from .attribution import CostPart, Ringing, Term, moved_facts, quality_terms, split_cost, verdict
from .drift import Floats
from .moving import Rang
from .signals import Signal
from .streams import Detector, Stream
from .wording import money, percent, points

# What may have changed with a call, for "what else changed then".
FACTS: dict[str, Callable[[CallRow], str]] = {
    "response model": lambda row: row.call.response_model,
    "prompt version": lambda row: row.call.prompt_version,
    "provider": lambda row: row.call.provider,
    "policy version": lambda row: row.call.policy_version,
    "price table": lambda row: row.call.price_version,
    "service": lambda row: row.call.service_name,
    "environment": lambda row: row.call.env,
    "segment": lambda row: row.call.segment,
    "finish reason": lambda row: row.call.finish_reason,
    "evaluator version": lambda row: ",".join(sorted({score.evaluator_version for score in row.scores})),
}


@dataclass(frozen=True, slots=True)
class Context:
    """What else is open when an alert is written, and the user's own sizes of effects (`alerting.sizes_of`)."""

    others: tuple[Ringing, ...] = ()
    model_test_rings: bool = False
    steady_models_elsewhere: bool = False
    judge_moved: bool = False  # the test of the judge's frozen answers rings
    sizes: Mapping[str, float] = field(default_factory=dict)


def cause_term(cause: str) -> Mapping[str, Any]:
    return {"kind": "cause", "cause": cause, "text": f"Looks like: {cause}."}


def terms_of(
    signal: Signal,
    stream: Stream,
    rows: Sequence[CallRow],
    y: Floats,
    start: int,
    rang: Rang,
    detector: Detector,
    context: Context,
    span: tuple[int, int, int],
) -> tuple[Mapping[str, Any], ...]:
    old, new = rows[max(0, start - 1000) : start], rows[start:]
    parts: list[tuple[str, Term]] = []
    mix = total = 0.0
    if signal.form in ("share", "score") and old and new:
        values = y[max(0, start - 1000) :]
        parts, mix, total = _quality_parts(old, new, values)
    cause = verdict(
        Ringing(stream.route, _model_name(stream, rows), span[1], span[2]),
        context.others,
        model_test_rings=context.model_test_rings or detector.scope == "model",
        steady_models_elsewhere=context.steady_models_elsewhere,
        mix=mix,
        total=total,
        judge_moved=context.judge_moved,
    )
    moved = moved_facts(old, new, FACTS)
    if cause == "prompt or traffic" and moved and moved[0].what == "response model":
        cause = "provider changed the model"
    terms: list[Mapping[str, Any]] = [cause_term(cause)]
    for fact in moved[:3]:
        terms.append(
            {
                "kind": "moved",
                "what": fact.what,
                "from": fact.lost,
                "to": fact.gained,
                "share": fact.moved,
                "text": f"{fact.what} went from {fact.lost or 'none'} to {fact.gained or 'none'}"
                f" on {percent(fact.moved)} of calls",
            }
        )
    for by, term in parts[:3]:
        interval = (
            ""
            if term.low is None or term.high is None
            else f" ({points(term.low, '')} to {points(term.high)})"
        )
        terms.append(
            {
                "kind": "part",
                "by": by,
                "name": term.name,
                "effect": term.effect,
                "low": term.low,
                "high": term.high,
                "text": f"{term.name} by {by}: {points(term.effect)}{interval}",
            }
        )
    if signal.kind == "cost":
        for term in split_cost(cost_parts(old), cost_parts(new)):
            terms.append(
                {
                    "kind": "cost",
                    "name": term.name,
                    "effect": term.effect,
                    "text": f"{term.name}: {money(term.effect * 1e9)} a call",
                }
            )
    terms.append(budget_term(rang, stream))
    return tuple(terms)


def _quality_parts(
    old: Sequence[CallRow], new: Sequence[CallRow], values: Floats
) -> tuple[list[tuple[str, Term]], float, float]:
    """The largest parts over segment and response model; the mix part and the whole change by segment."""
    found: list[tuple[str, Term]] = []
    mix = total = 0.0
    for by in ("segment", "response model"):
        name = FACTS[by]
        before = [(name(row), float(v)) for row, v in zip(old, values, strict=False)]
        after = [(name(row), float(v)) for row, v in zip(new, values[len(old) :], strict=True)]
        terms = quality_terms(before, after)
        if by == "segment":
            mix, total = terms[0].effect, sum(term.effect for term in terms)
        if len(terms) > 2:
            found += [(by, term) for term in terms]
    found.sort(key=lambda pair: -abs(pair[1].effect))
    return found, mix, total


def cost_parts(rows: Sequence[CallRow]) -> dict[str, CostPart]:
    """Share, tokens and price in dollars of each model and token kind among priced calls."""
    sums: dict[str, list[float]] = {}
    models: dict[str, int] = {}
    priced = 0
    for row in rows:
        call = row.call
        if call.cost_nusd is None:
            continue
        priced += 1
        models[call.model] = models.get(call.model, 0) + 1
        cached, written = call.cached_input_tokens or 0, call.cache_write_input_tokens or 0
        for kind, tokens, cost in (
            ("input", (call.input_tokens or 0) - cached - written, call.cost_input_nusd),
            ("cached", cached, call.cost_cached_nusd),
            ("cache write", written, call.cost_cache_write_nusd),
            ("output", call.output_tokens or 0, call.cost_output_nusd),
        ):
            if cost and tokens > 0:
                entry = sums.setdefault(f"{call.model} {kind}", [0.0, 0.0, 0.0])
                entry[0] += tokens
                entry[1] += cost / 1e9
                entry[2] = models[call.model]
    return {
        name: CostPart(
            models[name.rpartition(" ")[0].removesuffix(" cache")] / priced, tokens / n, cost / tokens
        )
        for name, (tokens, cost, _) in sums.items()
        if (n := models[name.rpartition(" ")[0].removesuffix(" cache")])
    }


def _model_name(stream: Stream, rows: Sequence[CallRow]) -> str:
    if stream.pool:
        return stream.pool
    if stream.kind == "pool":
        return stream.model
    return f"{rows[-1].call.provider}/{rows[-1].call.request_model}" if rows else ""


def budget_term(rang: Rang, stream: Stream) -> Mapping[str, Any]:
    months = exp(rang.log_threshold) / max(stream.calls_a_month, 1.0)
    shown = f"{months:,.0f} months" if months >= 1.5 else "month"
    return {
        "kind": "budget",
        "months": months,
        "text": f"about 1 false alarm per {shown} for this test",
    }


def cause_of(terms: Sequence[Mapping[str, Any]]) -> str:
    return next((str(term["cause"]) for term in terms if term["kind"] == "cause"), "")
