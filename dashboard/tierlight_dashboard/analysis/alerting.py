"""From an alarm to the alert that people read: its size, its severity, its sentence, its samples.

An alarm says that something changed; how much is estimated here from the calls since the likeliest moment. The
severity comes from the near end of the effect's interval, never from the amount of evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil, floor, sqrt
from typing import Any

import numpy as np

from tierlight_collector.decisions import Alert
from tierlight_collector.records import CallRecord, CallRow

from .attribution import (
    LONGEST_WINDOW,
    ChangePoint,
    change_point,
    moved_facts,
)
from .causes import Context, budget_term, cause_of, terms_of
from .drift import Floats, Severity, mean_interval, severity
from .moving import Rang
from .sentences import Effect, Unit, clock, sentence
from .signals import ERROR_CLASSES, FROZEN, NO_ERROR, Signal
from .state import stream_name
from .streams import WEEK_DAYS, Detector, Stream
from .windows import DAY_NS
from .wording import count, percent

UNITS: dict[str, Unit] = {
    "latency": "ms",
    "ttft": "ms",
    "output_tokens": "tokens",
    "input_tokens": "tokens",
    "cost": "usd",
}
SAMPLES = 5
LEAST_BEFORE = 20


def test_key(stream: Stream, detector: Detector) -> str:
    return f"{stream_name(stream.key)} {detector.key}"


# ---- one call's value -----------------------------------------------------------------------------------


def belongs(stream: Stream, row: CallRow) -> bool:
    """Whether a stored call is one of the stream's epoch (of the model's, for a pool)."""
    call = row.call
    if stream.is_judge_check:
        if call.purpose != "judge" or call.segment != FROZEN:
            return False
    elif call.purpose != "production":
        return False
    model = call.request_model or call.response_model
    if stream.kind == "pool":
        return f"{call.provider}/{model}" == stream.model
    if call.route != stream.route:
        return False
    if stream.kind in ("route", "coverage"):
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
    if signal.field == "unscored":
        return None if call.error_class else float(not row.scores)
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


def describe(
    rang: Rang, stream: Stream, detector: Detector, history: Sequence[CallRow], context: Context
) -> Alert:
    """The alert of an alarm. `history`: stored calls of the stream by start time, the newest last."""
    signal = detector.signal
    rows = [row for row in history if belongs(stream, row)]
    if rang.resolved_ms is not None:
        rows = [row for row in rows if row.call.start_ns / 1e6 > rang.resolved_ms]
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
    terms = terms_of(signal, stream, rows, y, start, rang, detector, context, _span(rows, point, rang))
    level = _severity(signal, stream, detector, effect, context.sizes)
    return _alert(rang, stream, detector, effect, level, rows, y, start, _span(rows, point, rang), terms)


def measure(signal: Signal, detector: Detector, y: Floats, start: int) -> Effect:
    """The effect of a change after call `start` of `y` (values in the signal's own unit)."""
    after, earlier = y[start:], y[:start]
    before = _before(signal, detector, earlier)
    n = len(after)
    if n == 0:
        return Effect(before, before, 0.0, 0.0, 0.0, 0, got_worse=False)
    if signal.form in ("share", "score"):
        low, high = mean_interval(n, float(after.sum()))
        # Whichever direction is watched, the near end is the one that lies closer to the level before.
        worse_up = signal.form == "share" and not signal.falls
        near = low - before if worse_up else before - high
        mean = float(after.mean())
        worse = mean > before if worse_up else mean < before
        return Effect(before, mean, low - before, high - before, near, n, got_worse=worse)
    low, high = _median_interval(after)
    scale = before if before > 0 else 1.0
    near = (before - high) / scale if signal.falls else (low - before) / scale
    # A tail may have moved where the median did not; only a move the other way is none.
    middle = float(np.median(after))
    worse = middle <= before if signal.falls else middle >= before
    return Effect(before, middle, low - before, high - before, near, n, got_worse=worse)


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
    level: Severity,
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
        severity=level,
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
        sentence=sentence(signal, stream, detector.scope, effect, unit, span[0], cause_of(terms)),
        attribution=terms,
        samples_before=before,
        samples_after=after,
        test_key=test_key(stream, detector),
    )


def _severity(
    signal: Signal, stream: Stream, detector: Detector, effect: Effect, sizes: Mapping[str, float]
) -> Severity:
    """By the near end of the effect; tails that were never seen for a week may just follow the hour or the day."""
    reference = detector.reference
    if not effect.got_worse:
        return "info"
    if signal.form == "tail" and reference is not None:
        days = (reference.until_ns - stream.first_ns) / DAY_NS
        if days < WEEK_DAYS:
            return "info"
    return severity(effect.near_end, *sizes_of(signal, sizes))


def sizes_of(signal: Signal, own: Mapping[str, float]) -> tuple[float | None, float | None]:
    """From which size of the effect on a signal pages and asks for a ticket: the user's sizes by "level.kind", else its own.

    A fall that is only told for information stays so.
    """
    if signal.falls:
        return signal.page_at, signal.ticket_at
    page, ticket = (own.get(f"{level}.{signal.kind}") for level in ("page", "ticket"))
    return (signal.page_at if page is None else page, signal.ticket_at if ticket is None else ticket)


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
        budget_term(rang, stream),
    )
    span = (int(rang.change_ms * 1e6), int(rang.change_ms * 1e6), rang.time_ns)
    y = np.array([float(value_of(row) == name) for row in rows])
    alert = _alert(rang, stream, detector, effect, "info", rows, y, start, span, terms)
    text = (
        f"Traffic changed on {stream.route}: {what} is {percent(effect.after)} of calls, was {percent(before)}"
        f" ({count(n, 'call')} since {clock(span[0])}). Quality is judged within each segment."
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
