"""Which numbers of a call are watched, in which direction, and how large a change deserves which severity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, nan
from typing import Literal

from tierlight_collector.decisions import AlertKind
from tierlight_collector.records import CallEvidence, ScoreEvidence

from .drift import Severity

Form = Literal["share", "score", "tail", "mix"]
Cells = Literal["none", "segment", "time", "output", "input"]
StreamKind = Literal["calls", "route", "scores", "coverage"]

ERROR_CLASSES = (
    "",
    "rate_limit",
    "overloaded",
    "auth",
    "invalid_request",
    "server",
    "timeout",
    "connection",
    "content_filter",
    "unknown",
)
# Not faults of the route: the caller went away, or the SDK refused before sending.
NO_ERROR = frozenset({"", "cancelled", "not_sent"})

FROZEN = "frozen"  # segment of a judge's calls that score the same answers again and again
ALWAYS = -inf  # this severity whatever the size

FIELDS: dict[StreamKind, tuple[str, ...]] = {
    "calls": ("error", "latency", "ttft", "output_tokens", "input_tokens", "cost"),
    "route": ("escalated", "diverted", "input_tokens"),
    "scores": ("score", "input_tokens"),
    "coverage": ("unscored",),
}


@dataclass(frozen=True, slots=True)
class Signal:
    """One watched number. `name` is what an alert is named by; `side` tells two tests of one signal apart.

    `page_at` and `ticket_at` are sizes of the effect: points of a share (.1 = 10 pt) or, for tails, the
    relative move of the median (1.0 = doubles); None = never that severity. `level` is the false-alarm budget the test draws on.
    """

    name: str
    kind: AlertKind
    form: Form
    field: str
    level: Severity
    page_at: float | None
    ticket_at: float | None
    side: str = ""
    cells: Cells = "none"
    falls: bool = False  # tails: watch falls; shares: watch a rise of x
    only: int = 0  # error signals: one class; 0 = all
    error_like: bool = False

    @property
    def key(self) -> str:
        return self.name + self.side


def error_signal(code: int = 0) -> Signal:
    """Errors of one class, or of all with code 0."""
    name = "errors" if code == 0 else f"errors:{ERROR_CLASSES[code]}"
    return Signal(name, "errors", "share", "error", "page", 0.02, ALWAYS, only=code, error_like=True)


def quality_signal(name: str) -> Signal:
    return Signal(f"quality:{name}", "quality", "score", "score", "page", 0.10, ALWAYS, cells="segment")


ESCALATION = Signal(
    "escalation", "escalation", "share", "escalated", "ticket", None, ALWAYS, side="+", error_like=True
)
# A validator that lets everything through looks like savings.
ESCALATION_FALL = Signal(
    "escalation", "escalation", "share", "escalated", "info", None, None, side="-", falls=True
)
FAILOVER = Signal("failover", "failover", "share", "diverted", "ticket", None, ALWAYS, error_like=True)
LATENCY = Signal("latency", "latency", "tail", "latency", "ticket", 1.0, ALWAYS, cells="output")
TTFT = Signal("ttft", "ttft", "tail", "ttft", "ticket", 1.0, ALWAYS, cells="time")
OUTPUT_TOKENS = Signal(
    "output_tokens", "tokens", "tail", "output_tokens", "info", None, 0.25, side="+", cells="input"
)
OUTPUT_TOKENS_FALL = Signal(
    "output_tokens",
    "tokens",
    "tail",
    "output_tokens",
    "info",
    None,
    0.25,
    side="-",
    cells="input",
    falls=True,
)
INPUT_TOKENS = Signal(
    "input_tokens", "tokens", "tail", "input_tokens", "info", None, 0.25, side="+", cells="time"
)
INPUT_TOKENS_FALL = Signal(
    "input_tokens", "tokens", "tail", "input_tokens", "info", None, 0.25, side="-", cells="time", falls=True
)
COST = Signal("cost", "cost", "tail", "cost", "info", None, 0.25, cells="input")
TRAFFIC = Signal("traffic", "traffic", "mix", "input_tokens", "info", None, None, cells="time")
# Scores are often sampled: a share that wanders by a few points is worth knowing, not worth a ticket.
COVERAGE = Signal("coverage", "coverage", "share", "unscored", "ticket", None, 0.10, error_like=True)

CALL_SIGNALS = (
    error_signal(),
    LATENCY,
    TTFT,
    OUTPUT_TOKENS,
    OUTPUT_TOKENS_FALL,
    INPUT_TOKENS,
    INPUT_TOKENS_FALL,
    COST,
)
ROUTE_SIGNALS = (ESCALATION, ESCALATION_FALL, FAILOVER, TRAFFIC)
# Tests that are opened only once what they look for has happened at least once.
LAZY = frozenset({"escalation", "failover"})


# ---- one call's numbers ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observation:
    """What one stream sees of one call or score, in arrival order. Unknown numbers are nan, and no row of a test.

    `stream` is the epoch: a change of model, prompt, tier or evaluator is a new stream with a new reference.
    `pool` names the model-level test that it also feeds.
    """

    stream: tuple[str, ...]
    ordinal: int
    time_ns: int
    values: tuple[float, ...]  # in the order of FIELDS[kind]
    segment: str
    keep_prob: float
    pool: str

    @property
    def kind(self) -> StreamKind:
        return self.stream[0]  # type: ignore[return-value]  # the first part of the key is the kind


def known(value: float | None) -> float:
    return nan if value is None else float(value)


def observe_call(call: CallEvidence, frozen_cost: float | None) -> Iterator[Observation]:
    """The observations of one call: of its model on the route, and of the route. Only production calls count.

    `frozen_cost` is its cost in nano-dollars at the prices of the reference, None = unknown.
    """
    if call.purpose != "production" or call.error_class == "not_sent":
        return
    failed = call.error_class not in NO_ERROR
    classes = ERROR_CLASSES
    code = 0
    if failed:
        code = classes.index(call.error_class) if call.error_class in classes else len(classes) - 1
    # A failed call's time and tokens say nothing of the model's: its latency is the error's.
    nothing = None if failed or call.error_class == "cancelled" else call
    values = (
        float(code),
        known(nothing.latency_ms if nothing else None),
        known(nothing.ttft_ms if nothing else None),
        known(nothing.output_tokens if nothing else None),
        known(call.input_tokens),
        known(frozen_cost if nothing else None),
    )
    keep = call.keep_prob if call.keep_prob else 1.0
    pool = f"{call.provider}/{call.request_model or call.model}"
    stream = ("calls", call.route, call.request_model or call.model, call.tier, call.prompt_version)
    yield Observation(stream, call.seq, call.start_ns, values, call.segment, keep, pool)
    if call.attempt_final:
        reason = call.attempt_reason
        yield Observation(
            ("route", call.route),
            call.seq,
            call.start_ns,
            (float(reason == "escalation"), float(reason in ("retry", "fallback")), known(call.input_tokens)),
            call.segment,
            keep,
            "",
        )


def observe_score(score: ScoreEvidence) -> Iterator[Observation]:
    """The observation of one score; a value outside 0..1 is no quality signal and is left out.

    A score on a judge's call of segment "frozen" is of an answer that never changes: it feeds the judge's own test.
    """
    call = score.call
    is_check = call.purpose == "judge" and call.segment == FROZEN
    if not (call.purpose == "production" or is_check) or not 0.0 <= score.value <= 1.0:
        return
    stream = (
        "scores",
        call.route,
        call.request_model or call.model,
        call.tier,
        call.prompt_version,
        score.name,
        score.source,
        score.evaluator_version,
    )
    yield Observation(
        stream,
        score.seq,
        call.start_ns,
        (score.value, known(call.input_tokens)),
        call.segment,
        call.keep_prob if call.keep_prob else 1.0,
        "" if is_check else f"{call.provider}/{call.request_model or call.model}",
    )
