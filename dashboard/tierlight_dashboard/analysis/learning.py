"""When tests open and references grow: each from the calls of its own stream, never while an alert is open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .drift import RECENT, Floats, amber_threshold
from .reference import FIRST_FIELD, TIME, Learning, build, column, learned, segment_reference
from .signals import (
    CALL_SIGNALS,
    COVERAGE,
    ERROR_CLASSES,
    LAZY,
    ROUTE_SIGNALS,
    Observation,
    Signal,
    error_signal,
    quality_signal,
)
from .streams import Detector, Policy, Stream, new_detector, threshold
from .windows import DAY_NS

CHECK_EVERY = 25  # calls between looks at whether a reference may be built or grow
LAUNCH = "launch"


def signals_of(stream: Stream) -> tuple[Signal, ...]:
    """The tests a stream will open once it has learned enough."""
    if stream.kind == "calls":
        return CALL_SIGNALS
    if stream.kind == "route":
        return ROUTE_SIGNALS
    if stream.kind == "coverage":
        return (COVERAGE,)
    return (quality_signal(stream.key[5]),)


def next_stop(stream: Stream, observations: Sequence[Observation], first: int, learning: Learning) -> int:
    """How far the calls from `first` on may be taken together: to the next one after which a test may open."""
    last = min(first + CHECK_EVERY - stream.seen % CHECK_EVERY, len(observations))
    young = max(0, learning.min_scored - stream.seen - 1)
    for place in range(min(first + young, last), last):
        if any(_lazy(stream, observations[place])):
            return place + 1
    return last


def learn(stream: Stream, observation: Observation, policy: Policy) -> None:
    """Open tests and let references grow, after the stream's newest call."""
    learning = policy.learning
    if stream.seen < learning.min_scored:
        return
    lazy = list(_lazy(stream, observation))
    if lazy and not stream.is_frozen:
        _open_tests(stream, lazy, stream.sample(), policy)
    if stream.seen % CHECK_EVERY == 0 and not stream.is_frozen:
        _look(stream, policy)


def _lazy(stream: Stream, observation: Observation) -> Iterator[Signal]:
    """Tests of what has just happened for the first time, such as one class of error."""
    if stream.kind == "calls":
        code = int(observation.values[0])
        if code and "errors" in stream.detectors and f"errors:{ERROR_CLASSES[code]}" not in stream.detectors:
            yield error_signal(code)
    elif stream.kind == "route" and (observation.values[0] or observation.values[1]):
        for signal in ROUTE_SIGNALS:
            happened = observation.values[column(signal, "route")]
            if signal.name in LAZY and happened and signal.key not in stream.detectors:
                yield signal


def _look(stream: Stream, policy: Policy) -> None:
    learning = policy.learning
    missing = [s for s in signals_of(stream) if s.key not in stream.detectors and s.name not in LAZY]
    growing = [d for d in stream.detectors.values() if d.scope == "route" and _may_grow(stream, d, learning)]
    if not missing and not growing:
        return
    sample = stream.sample()
    kind = stream.kind
    assert kind != "pool"
    _open_tests(stream, [s for s in missing if learned(s, kind, sample, learning)[2]], sample, policy)
    for detector in growing:
        _grow(stream, detector, sample, policy)


def _open_tests(stream: Stream, signals: Sequence[Signal], sample: Floats, policy: Policy) -> None:
    kind = stream.kind
    assert kind != "pool"
    for signal in signals:
        reference = build(signal, kind, sample, stream.names, policy.learning)
        if reference is not None:
            _add(stream, new_detector(signal, "route", 1.0, reference), policy)
            _split_segments(stream, stream.detectors[signal.key], policy)


def _add(stream: Stream, detector: Detector, policy: Policy) -> None:
    detector.grown_at = stream.seen
    detector.threshold = threshold(stream, detector, policy)
    stream.detectors[detector.key] = detector


def _split_segments(stream: Stream, whole: Detector, policy: Policy) -> None:
    """One further test per segment of a quality signal; together they weigh as much as one test."""
    reference = whole.reference
    if whole.signal.form != "score" or reference is None or not reference.index or not reference.segments:
        return
    for code, name in enumerate(reference.segments):
        part = new_detector(
            whole.signal, f"segment:{name}", 1 / len(reference.segments), segment_reference(reference, code)
        )
        old = stream.detectors.get(part.key)
        if old is None:
            _add(stream, part, policy)
        else:
            old.reference, old.units, old.is_stored = part.reference, part.units, False
            old.threshold = threshold(stream, old, policy)


def _may_grow(stream: Stream, detector: Detector, learning: Learning) -> bool:
    reference = detector.reference
    if reference is None:
        return False
    if detector.signal.form in ("share", "score") and reference.n < learning.target_scored:
        is_due = stream.seen - RECENT >= learning.growth * detector.grown_at
    else:
        week = learning.refresh_days * DAY_NS
        grown_days = (reference.until_ns - stream.first_ns) / DAY_NS
        is_due = grown_days < learning.longest_days - 1 and stream.last_ns - reference.until_ns >= week
    return is_due and detector.evidence < amber_threshold(detector.threshold)


def _grow(stream: Stream, detector: Detector, sample: Floats, policy: Policy) -> None:
    """Extend the reference of the same epoch, never by what is too new to be known as steady."""
    learning, old = policy.learning, detector.reference
    kind = stream.kind
    assert kind != "pool"
    assert old is not None
    early = detector.signal.form in ("share", "score") and old.n < learning.target_scored
    if early:
        sample = sample[: max(0, len(sample) - RECENT)]
    else:
        newest = stream.last_ns / 1e6 - learning.quarantine_hours * 3_600_000
        longest = stream.first_ns / 1e6 + learning.longest_days * DAY_NS / 1e6
        sample = sample[sample[:, TIME] <= min(newest, longest)]
    known = len(sample) and int((~np.isnan(sample[:, FIRST_FIELD + column(detector.signal, kind)])).sum())
    reference = build(detector.signal, kind, sample, stream.names, learning) if known else None
    if reference is None or reference.lanes != old.lanes:
        return
    launch = f"{detector.signal.key}@{LAUNCH}"
    if not early and launch not in stream.detectors:
        _add(stream, new_detector(detector.signal, LAUNCH, 0.25, old), policy)
    detector.reference, detector.is_stored = reference, False
    detector.grown_at = stream.seen
    detector.threshold = threshold(stream, detector, policy)
    _split_segments(stream, detector, policy)


def new_normal(stream: Stream) -> Stream:
    """The stream as if it began now: a person said that what the alert showed is how it shall be."""
    return Stream(stream.key, stream.pool, stream.last_ns, stream.last_ns, stream.ordinal)
