"""The sentence of an alert: what, how much, how sure, what to do. The same words on page, message and export."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from .signals import Signal
from .streams import Stream
from .wording import money, percent, points

Unit = Literal["share", "ms", "usd", "tokens"]


@dataclass(frozen=True, slots=True)
class Effect:
    """Levels before and after in the signal's unit, with the interval of after minus before."""

    before: float
    after: float
    low: float
    high: float
    near_end: float  # size that the interval allows at least, positive = worse; relative for tails
    calls: int
    got_worse: bool = True  # whether the calls since show what the test looks for


_ADVICE = {
    "provider changed the model": "Looks like the provider changed the model: compare a pinned version.",
    "provider": "Several models of this provider moved together: look at the provider first.",
    "traffic": "Mostly other traffic: look at the segments before the model.",
    "prompt or traffic": "Looks like the prompt or the traffic of this route: hold tier moves until it is explained.",
    "the judge moved": "The judge itself moved: check it before the model.",
}

_PASSED = "The calls since do not show it any more: nothing to do unless it rings again."


def sentence(
    signal: Signal, stream: Stream, scope: str, effect: Effect, unit: Unit, change_ns: int, cause: str
) -> str:
    """What, how much, how sure, what to do: the same words on page, in messages and in exports."""
    subject = _subject(signal, stream, scope)
    change = effect.after - effect.before
    sure = (
        f"(change {_signed(change, unit)}, 95 % {_signed(effect.low, unit)} to {_signed(effect.high, unit)},"
        f" n = {effect.calls:,} since {clock(change_ns)})"
    )
    advice = _ADVICE.get(cause, "") if effect.got_worse else _PASSED
    return (
        f"{subject} {_level(effect.after, unit)}, was {_level(effect.before, unit)} {sure}. {advice}".rstrip()
    )


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
        "coverage": "Share of calls without a score",
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


def clock(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%-d %b %H:%M UTC")
