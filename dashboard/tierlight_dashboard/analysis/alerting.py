"""From an alarm to the alert that people read: its size, its severity, its sentence, its samples.

An alarm says that something changed; how much is estimated here from the calls since the likeliest moment. The
severity comes from the near end of the effect's interval, never from the amount of evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import ceil, exp, floor, sqrt
from typing import Any, Literal

import numpy as np

from tierlight_collector.decisions import Alert
from tierlight_collector.records import CallRecord, CallRow

from .attribution import (
    LONGEST_WINDOW,
    ChangePoint,
    CostPart,
    Ringing,
    Term,
    change_point,
    moved_facts,
    quality_terms,
    split_cost,
    verdict,
)
from .drift import Floats, mean_interval, severity
from .monitor import Detector, Rang, Stream
from .signals import ERROR_CLASSES, NO_ERROR, Signal
from .state import stream_name
from .wording import count, money, percent, points

Unit = Literal["share", "ms", "usd", "tokens"]
UNITS: dict[str, Unit] = {
    "latency": "ms",
    "ttft": "ms",
    "output_tokens": "tokens",
    "input_tokens": "tokens",
    "cost": "usd",
}
SAMPLES = 5
LEAST_BEFORE = 20

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
    """What else is open when an alert is written."""

    others: tuple[Ringing, ...] = ()
    model_test_rings: bool = False
    steady_models_elsewhere: bool = False


def test_key(stream: Stream, detector: Detector) -> str:
    return f"{stream_name(stream.key)} {detector.key}"


# ---- one call's value -----------------------------------------------------------------------------------


def belongs(stream: Stream, row: CallRow) -> bool:
    """Whether a stored call is one of the stream's epoch (of the model's, for a pool)."""
    call = row.call
    if call.purpose != "production":
        return False
    model = call.request_model or call.response_model
    if stream.kind == "pool":
        return f"{call.provider}/{model}" == stream.model
    if call.route != stream.route:
        return False
    if stream.kind == "route":
        return call.attempt_final
    return (model, call.tier, call.prompt_version) == stream.key[2:5]


def value(signal: Signal, stream: Stream, row: CallRow) -> float | None:
    """The watched number of a call in its own unit: a score, 1 for a bad outcome, ms, tokens or dollars."""
    call = row.call
    if signal.form == "score":
        rater = None if stream.kind == "pool" else stream.key[6]
        name = signal.name.removeprefix("quality:")
        found = [
            s.value
            for s in row.scores
            if s.name == name and rater in (None, s.source) and s.value is not None
        ]
        return found[-1] if found else None
    if signal.field == "error":
        failed = call.error_class not in NO_ERROR
        return float(call.error_class == ERROR_CLASSES[signal.only] if signal.only else failed)
    if signal.field == "escalated":
        return float(call.attempt_reason == "escalation")
    if signal.field == "diverted":
        return float(call.attempt_reason in ("retry", "fallback"))
    if call.error_class:
        return None
    return _measure(signal.field, call)


def _measure(field: str, call: CallRecord) -> float | None:
    if field == "latency":
        return None if call.duration_ns is None else call.duration_ns / 1e6
    if field == "ttft":
        return None if call.ttft_ns is None else call.ttft_ns / 1e6
    if field == "cost":
        return None if call.cost_nusd is None else call.cost_nusd / 1e9
    return call.output_tokens if field == "output_tokens" else call.input_tokens


def _good(signal: Signal, y: Floats, median: float) -> Floats:
    """x in [0, 1], 1 = good, the form in which the change is dated."""
    if signal.form == "score":
        return y
    if signal.form == "share":
        return y if signal.falls else 1 - y
    return (y >= median).astype(float) if signal.falls else (y <= median).astype(float)


# ---- the alert ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Effect:
    """Levels before and after in the signal's unit, with the interval of after minus before."""

    before: float
    after: float
    low: float
    high: float
    near_end: float  # size that the interval allows at least, positive = worse; relative for tails
    calls: int


def describe(
    rang: Rang, stream: Stream, detector: Detector, history: Sequence[CallRow], context: Context
) -> Alert:
    """The alert of an alarm. `history`: stored calls of the stream by start time, the newest last."""
    signal = detector.signal
    rows = [row for row in history if belongs(stream, row)]
    if detector.resolved_ms is not None:
        rows = [row for row in rows if row.call.start_ns / 1e6 > detector.resolved_ms]
    if detector.scope.startswith("segment:"):
        rows = [row for row in rows if row.call.segment == detector.scope.removeprefix("segment:")]
    known = [(row, v) for row in rows if (v := value(signal, stream, row)) is not None][-LONGEST_WINDOW:]
    rows, y = [row for row, _ in known], np.array([v for _, v in known], dtype=float)
    if signal.form == "mix":
        return _traffic(rang, stream, detector, rows)
    median = _reference_level(signal, detector)
    x = _good(signal, y, median if median is not None else float(np.median(y)) if len(y) else 0.0)
    point = change_point(x)
    start = point.at if point else int(sum(row.call.start_ns / 1e6 < rang.change_ms for row in rows))
    effect = measure(signal, detector, y, start)
    terms = _terms(signal, stream, rows, y, start, rang, detector, context, _span(rows, point, rang))
    return _alert(rang, stream, detector, effect, rows, y, start, _span(rows, point, rang), terms)


def measure(signal: Signal, detector: Detector, y: Floats, start: int) -> Effect:
    """The effect of a change after call `start` of `y` (values in the signal's own unit)."""
    after, earlier = y[start:], y[:start]
    before = _before(signal, detector, earlier)
    n = len(after)
    if n == 0:
        return Effect(before, before, 0.0, 0.0, 0.0, 0)
    if signal.form in ("share", "score"):
        low, high = mean_interval(n, float(after.sum()))
        # Whichever direction is watched, the near end is the one that lies closer to the level before.
        worse_up = signal.form == "share" and not signal.falls
        near = low - before if worse_up else before - high
        return Effect(before, float(after.mean()), low - before, high - before, near, n)
    low, high = _median_interval(after)
    scale = before if before > 0 else 1.0
    near = (before - high) / scale if signal.falls else (low - before) / scale
    return Effect(before, float(np.median(after)), low - before, high - before, near, n)


def _reference_level(signal: Signal, detector: Detector) -> float | None:
    level = detector.reference.level if detector.reference else ()
    if not level:
        return None
    return level[0] / 1e9 if signal.field == "cost" else level[0]


def _before(signal: Signal, detector: Detector, earlier: Floats) -> float:
    if signal.form == "tail" and len(earlier) >= LEAST_BEFORE:
        return float(np.median(earlier))
    level = _reference_level(signal, detector)
    if level is None:
        return float(earlier.mean()) if len(earlier) else 0.0
    return 1 - level if signal.form == "share" and not signal.falls else level


def _median_interval(y: Floats) -> tuple[float, float]:
    """Order statistics around the median that hold it with about 95 %."""
    ordered = np.sort(y)
    n = len(ordered)
    reach = 0.98 * sqrt(n)
    return (
        float(ordered[max(floor(n / 2 - reach), 0)]),
        float(ordered[min(ceil(n / 2 + reach), n - 1)]),
    )


def _span(rows: Sequence[CallRow], point: ChangePoint | None, rang: Rang) -> tuple[int, int, int]:
    """Time of the change and its interval, in ns."""
    if point is None or not rows:
        at = int(rang.change_ms * 1e6)
        return at, at, rang.time_ns
    place = [rows[min(k, len(rows) - 1)].call.start_ns for k in (point.at, point.low, point.high)]
    return place[0], min(place[1], place[0]), max(place[2], place[0])


def _alert(
    rang: Rang,
    stream: Stream,
    detector: Detector,
    effect: Effect,
    rows: Sequence[CallRow],
    y: Floats,
    start: int,
    span: tuple[int, int, int],
    terms: tuple[Mapping[str, Any], ...],
) -> Alert:
    signal = detector.signal
    unit = UNITS.get(signal.field, "share")
    before, after = samples(signal, rows, y, start)
    return Alert(
        id=0,
        kind=signal.kind,
        signal=signal.name,
        scope=detector.scope,
        route=stream.route,
        model=stream.model,
        severity=severity(effect.near_end, signal.page_at, signal.ticket_at),
        state="open",
        opened_ns=rang.time_ns,
        resolved_ns=None,
        change_ns=span[0],
        change_from_ns=span[1],
        change_to_ns=span[2],
        before=effect.before,
        after=effect.after,
        effect_low=effect.low,
        effect_high=effect.high,
        unit=unit,
        calls_since_change=effect.calls,
        log_evidence=rang.log_evidence,
        log_threshold=rang.log_threshold,
        sentence=sentence(signal, stream, detector.scope, effect, unit, span[0], _cause(terms)),
        attribution=terms,
        samples_before=before,
        samples_after=after,
        test_key=test_key(stream, detector),
    )


def samples(
    signal: Signal, rows: Sequence[CallRow], y: Floats, start: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Five typical and five worst calls of each side, as "<trace hex>/<span hex>", typical ones first."""

    def chosen(first: int, last: int) -> tuple[str, ...]:
        places = list(range(first, last))
        if not places:
            return ()
        middle = float(np.median(y[first:last]))
        bad_is_high = signal.form != "score" and not signal.falls
        worst = sorted(places, key=lambda i: (-y[i] if bad_is_high else y[i], -i))[:SAMPLES]
        typical = sorted((i for i in places if i not in worst), key=lambda i: (abs(y[i] - middle), -i))[
            :SAMPLES
        ]
        return tuple(
            f"{rows[i].call.trace_id.hex()}/{rows[i].call.span_id.hex()}" for i in (*typical, *worst)
        )

    return chosen(max(0, start - 500), start), chosen(start, len(rows))


def _traffic(rang: Rang, stream: Stream, detector: Detector, rows: Sequence[CallRow]) -> Alert:
    """A changed mix of traffic, told by the segment (or, without segments, the input size) that moved most."""
    start = int(sum(row.call.start_ns / 1e6 < rang.change_ms for row in rows))
    old, new = rows[:start], rows[start:]
    facts: dict[str, Callable[[CallRow], str]] = {"segment": lambda row: row.call.segment}
    reference = detector.reference
    if reference is not None and not reference.segments:
        edges = reference.edges
        facts = {"input size": lambda row: _size_name(row.call.input_tokens, edges)}
    moved = moved_facts(old, new, facts, least=0.0)
    value_of = next(iter(facts.values()))
    name = moved[0].gained if moved else ""
    before = sum(value_of(row) == name for row in old) / len(old) if old else 0.0
    hits, n = sum(value_of(row) == name for row in new), len(new)
    low, high = mean_interval(n, hits)
    effect = Effect(before, hits / n if n else before, low - before, high - before, 0.0, n)
    what = f"{next(iter(facts))} {name}" if name else "the mix of segments"
    terms: tuple[Mapping[str, Any], ...] = (
        {"kind": "cause", "cause": "traffic", "text": "Traffic changed; quality is judged by segment."},
        _budget_term(rang, stream),
    )
    span = (int(rang.change_ms * 1e6), int(rang.change_ms * 1e6), rang.time_ns)
    y = np.array([float(value_of(row) == name) for row in rows])
    alert = _alert(rang, stream, detector, effect, rows, y, start, span, terms)
    text = (
        f"Traffic changed on {stream.route}: {what} is {percent(effect.after)} of calls, was {percent(before)}"
        f" ({count(n, 'call')} since {_clock(span[0])}). Quality is judged within each segment."
    )
    return replace(alert, sentence=text)


def _size_name(tokens: int | None, edges: Sequence[float]) -> str:
    if tokens is None:
        return "unknown"
    bounds = [0, *(int(edge) for edge in edges)]
    place = sum(tokens > edge for edge in edges)
    return (
        f"{bounds[place] + 1} to {bounds[place + 1]} tokens"
        if place < len(edges)
        else f"over {bounds[-1]} tokens"
    )


# ---- attribution terms ----------------------------------------------------------------------------------


def _terms(
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
    )
    moved = moved_facts(old, new, FACTS)
    if cause == "prompt or traffic" and moved and moved[0].what == "response model":
        cause = "provider changed the model"
    terms: list[Mapping[str, Any]] = [{"kind": "cause", "cause": cause, "text": f"Looks like: {cause}."}]
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
    terms.append(_budget_term(rang, stream))
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


def _budget_term(rang: Rang, stream: Stream) -> Mapping[str, Any]:
    months = exp(rang.log_threshold) / max(stream.calls_a_month, 1.0)
    shown = f"{months:,.0f} months" if months >= 1.5 else "month"
    return {
        "kind": "budget",
        "months": months,
        "text": f"about 1 false alarm per {shown} for this test",
    }


def _cause(terms: Sequence[Mapping[str, Any]]) -> str:
    return next((str(term["cause"]) for term in terms if term["kind"] == "cause"), "")


# ---- the sentence ---------------------------------------------------------------------------------------

_ADVICE = {
    "provider changed the model": "Looks like the provider changed the model: compare a pinned version.",
    "provider": "Several models of this provider moved together: look at the provider first.",
    "traffic": "Mostly other traffic: look at the segments before the model.",
    "prompt or traffic": "Looks like the prompt or the traffic of this route: hold tier moves until it is explained.",
    "the judge moved": "The judge itself moved: check it before the model.",
}


def sentence(
    signal: Signal, stream: Stream, scope: str, effect: Effect, unit: Unit, change_ns: int, cause: str
) -> str:
    """What, how much, how sure, what to do: the same words on page, in messages and in exports."""
    subject = _subject(signal, stream, scope)
    change = effect.after - effect.before
    sure = (
        f"(change {_signed(change, unit)}, 95 % {_signed(effect.low, unit)} to {_signed(effect.high, unit)},"
        f" n = {effect.calls:,} since {_clock(change_ns)})"
    )
    return f"{subject} {_level(effect.after, unit)}, was {_level(effect.before, unit)} {sure}. {_ADVICE.get(cause, '')}".rstrip()


def _subject(signal: Signal, stream: Stream, scope: str) -> str:
    where = stream.route or stream.model
    if scope.startswith("segment:"):
        where += f", segment {scope.removeprefix('segment:') or 'without a name'}"
    elif scope == "launch":
        where += ", against its first weeks"
    elif scope == "model":
        where = f"{stream.model} on all routes"
    elif stream.kind == "calls":
        where += f" ({stream.model})"
    name = {
        "errors": "Error rate",
        "escalation": "Escalation rate",
        "failover": "Share of calls retried or failed over",
        "latency": "Median latency",
        "ttft": "Median time to first token",
        "output_tokens": "Median output tokens",
        "input_tokens": "Median input tokens",
        "cost": "Median cost a call at frozen prices",
    }.get(signal.name, "")
    if signal.kind == "quality":
        name = f"Quality ({signal.name.removeprefix('quality:')})"
    elif signal.name.startswith("errors:"):
        name = f"Rate of {signal.name.removeprefix('errors:').replace('_', ' ')} errors"
    return f"{name} of {where}:"


def _level(level: float, unit: Unit) -> str:
    if unit == "share":
        return percent(level)
    if unit == "usd":
        return money(level * 1e9)
    return f"{level:,.0f} {'ms' if unit == 'ms' else 'tokens'}"


def _signed(change: float, unit: Unit) -> str:
    if unit == "share":
        return points(change)
    sign = "−" if change < 0 else "+"
    return sign + _level(abs(change), unit)


def _clock(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%-d %b %H:%M UTC")
