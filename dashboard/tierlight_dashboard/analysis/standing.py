"""How the tests stand: for pages, for the fleet's budget, and for `tierlight check`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from tierlight_collector.decisions import Alert, AlertMute

from .drift import MONTH_DAYS, SEVERITY_ORDER, Severity, amber_threshold, can_see, lane_evidence, meter
from .learning import CHECK_EVERY, signals_of
from .reference import learned
from .signals import LAZY
from .streams import Policy, Stream, StreamKey
from .windows import DAY_NS
from .wording import count

VISIBLE_DROP = 0.10  # of quality, of which `tierlight check` says how soon it would be seen
RECOVERING_AT = 200.0  # R of the recovery test from which an alert is said to recover; it resolves at 1,000


def units_by_level(streams: Iterable[Stream], now_ns: int) -> dict[Severity, float]:
    """Units of all open tests by level: those with a call in the last 28 days."""
    units: dict[Severity, float] = {"page": 0.0, "ticket": 0.0, "info": 0.0}
    for stream in streams:
        if stream.last_ns >= now_ns - MONTH_DAYS * DAY_NS:
            for detector in stream.detectors.values():
                units[detector.signal.level] += detector.units
    return units


TestState = Literal["learning", "steady", "amber", "alert", "recovering", "silent"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How one test stands, for pages: its state, the meter ln R / ln A in 0..1 and what it has learned."""

    stream: StreamKey
    signal: str
    scope: str
    state: TestState
    meter: float
    learned: int
    needed: int
    null: float | None  # m of the first cell and lane
    level: tuple[float, ...]
    threshold: float
    calls_a_day: float


def standings(stream: Stream, policy: Policy, now_ns: int) -> list[Standing]:
    """How every test of the stream stands at `now_ns`, the ones still learning included."""
    rows: list[Standing] = []
    usual_gap = (stream.last_ns - stream.first_ns) / max(stream.seen - 1, 1)
    silent = stream.seen >= CHECK_EVERY and now_ns - stream.last_ns > max(5 * usual_gap, 3_600_000_000_000)
    for detector in stream.detectors.values():
        evidence = detector.evidence
        state: TestState = "silent" if silent else "steady"
        if detector.recovery is not None:
            state = "recovering" if float(lane_evidence(detector.recovery)[0]) >= RECOVERING_AT else "alert"
        elif not silent and evidence >= amber_threshold(detector.threshold):
            state = "amber"
        reference = detector.reference
        n = reference.n if reference else 0
        rows.append(
            Standing(
                stream.key,
                detector.signal.name,
                detector.scope,
                state,
                meter(evidence, detector.threshold),
                n,
                n,
                float(reference.m[0, 0]) if reference else None,
                reference.level if reference else (),
                detector.threshold,
                stream.calls_a_day,
            )
        )
    kind = stream.kind
    if kind == "pool" or not stream.seen or not (stream.chunks or stream.tail):
        return rows
    sample = stream.sample()
    for signal in signals_of(stream):
        if signal.key in stream.detectors or signal.name in LAZY:
            continue
        n, needed, _ = learned(signal, kind, sample, policy.learning)
        if n:
            rows.append(
                Standing(
                    stream.key,
                    signal.name,
                    "route",
                    "learning",
                    0.0,
                    n,
                    needed,
                    None,
                    (),
                    inf,
                    stream.calls_a_day,
                )
            )
    return rows


# ---- tierlight check ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether a route (or, with route "", every route) may pass, with the alerts that speak against it."""

    route: str
    passes: bool
    alerts: tuple[Alert, ...]
    learning: tuple[Standing, ...]
    sentence: str


def check_result(
    alerts: Sequence[Alert],
    mutes: Sequence[AlertMute],
    standings: Sequence[Standing],
    route: str,
    fail_on: Severity,
    now_ns: int,
) -> CheckResult:
    """The verdict for a pipeline: it fails on an open alert of `fail_on` or graver that nobody muted.

    Tests that still learn do not fail it; they are named, so that no green light rests on nothing.
    """
    against = tuple(
        alert
        for alert in alerts
        if alert.state != "resolved"
        and route in ("", alert.route)
        and SEVERITY_ORDER[alert.severity] >= SEVERITY_ORDER[fail_on]
        and not is_muted(alert, mutes, now_ns)
    )
    mine = [row for row in standings if row.stream[0] != "pool" and route in ("", row.stream[1])]
    learning = tuple(row for row in mine if row.state == "learning")
    where = route or "every route"
    if against:
        text = f"{where} fails: {count(len(against), 'open alert')}. {against[0].sentence}"
    elif not mine:
        text = f"{where} passes for want of evidence: no test has seen a call."
    elif len(learning) == len(mine):
        least = min(learning, key=lambda row: row.learned / max(row.needed, 1))
        text = f"{where} passes for want of evidence: learning, {least.learned} of {least.needed} calls."
    else:
        text = f"{where} passes: {count(len(mine) - len(learning), 'test')} without an open alert"
        text += f", {len(learning)} still learning." if learning else "."
        if route:
            text += _visible(mine)
    return CheckResult(route, not against, against, learning, text)


def _visible(rows: Sequence[Standing]) -> str:
    """How long a drop of quality by ten points would stay unseen; nothing where no quality is watched yet."""
    for row in rows:
        if row.signal.startswith("quality:") and row.null is not None and row.level:
            worse = max(row.level[0] - VISIBLE_DROP, 0.0)
            return f" At this budget {can_see(worse, row.null, row.threshold, row.calls_a_day)}."
    return ""


def is_muted(alert: Alert, mutes: Iterable[AlertMute], now_ns: int) -> bool:
    """Whether a mute (for good) or snooze (until a time) covers the alert; "" stands for every route or signal."""
    return any(
        mute.route in ("", alert.route)
        and mute.signal in ("", alert.signal)
        and (mute.until_ns is None or now_ns < mute.until_ns)
        for mute in mutes
    )
