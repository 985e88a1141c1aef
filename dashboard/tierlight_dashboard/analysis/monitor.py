"""All tests of an installation, moved on by a batch of observations: (streams, batch) -> (streams, events).

A *stream* is one epoch of a route (its model, prompt, tier), of one evaluator's scores there, or of the route
as a whole; it owns the reference sample and the tests of its signals. A *pool* is the model-level test fed by
all routes of one model. Only the order within a stream matters, and cutting a batch anywhere changes nothing.

One step takes the next call of every stream at once, so a tick with one call on each of 3,000 routes is a
single vectorised step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from .drift import (
    MONTH_DAYS,
    RECENT,
    RESOLVED_AT,
    Floats,
    advance,
    bets,
    change_hint,
    lane_evidence,
    new_lanes,
)
from .learning import learn
from .reference import TIME, Cell, resolve
from .signals import Observation
from .streams import Detector, Policy, Stream, StreamKey, new_detector, threshold
from .windows import DAY_NS, LARGEST_NULL, LEAST_NULL, time_bin

REOPEN_MS = 24 * 3_600_000.0


@dataclass(frozen=True, slots=True)
class Rang:
    """A test passed its threshold. `change_ms` is the first estimate of when the change began.

    `resolved_ms` is when the test's alert before this one was resolved, None = it had none.
    """

    stream: StreamKey
    test: str
    ordinal: int
    time_ns: int
    change_ms: float
    log_evidence: float
    log_threshold: float
    reopens: bool
    resolved_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The level is back, by evidence of its own."""

    stream: StreamKey
    test: str
    ordinal: int
    time_ns: int


Event = Rang | Resolved


@dataclass(slots=True)
class _Entry:
    """One row of one test in a step."""

    stream: Stream
    detector: Detector
    ordinal: int
    time_ms: float
    weight: float
    x: tuple[float, ...]
    cell: Cell


def observe(
    streams: Mapping[StreamKey, Stream], observations: Iterable[Observation], policy: Policy
) -> tuple[dict[StreamKey, Stream], list[Event]]:
    """The streams that the batch touched, moved on, and what happened, in order of the calls within a stream.

    `streams` is left as it was. Observations come in arrival order; one whose ordinal a stream has had is
    ignored, so a batch delivered twice changes nothing.
    """
    touched: dict[StreamKey, Stream] = {}
    queues: dict[StreamKey, list[Observation]] = {}
    for observation in observations:
        key = observation.stream
        stream = touched.get(key)
        if stream is None:
            old = streams.get(key)
            stream = touched[key] = old.copy() if old else _opened(observation)
            queues[key] = []
        if observation.ordinal > stream.ordinal:
            stream.ordinal = observation.ordinal
            queues[key].append(observation)
    events: list[Event] = []
    pooled: list[tuple[int, StreamKey, _Entry]] = []
    waiting = sorted((key for key in queues if queues[key]), key=lambda key: -len(queues[key]))
    for turn in range(len(queues[waiting[0]]) if waiting else 0):
        while len(queues[waiting[-1]]) <= turn:
            waiting.pop()
        entries: list[_Entry] = []
        for key in waiting:
            _take(touched[key], queues[key][turn], policy, entries, pooled)
        _run(entries, events)
        for key in waiting:
            learn(touched[key], queues[key][turn], policy)
    _observe_pools(streams, touched, pooled, policy, events)
    for stream in touched.values():
        for detector in stream.detectors.values():
            detector.lanes = detector.lanes.copy()  # a view would keep the whole step's array alive
    return touched, events


def _opened(observation: Observation) -> Stream:
    return Stream(observation.stream, observation.pool, observation.time_ns, observation.time_ns)


def _take(
    stream: Stream,
    observation: Observation,
    policy: Policy,
    entries: list[_Entry],
    pooled: list[tuple[int, StreamKey, _Entry]],
) -> None:
    _count(stream, observation.time_ns)
    if not stream.detectors:
        return
    time_of_day = time_bin(observation.time_ns, policy.learning.zone, weekends=True)
    weight = min(1.0, stream.keep_min / observation.keep_prob)
    time_ms = observation.time_ns / 1e6
    for detector in stream.detectors.values():
        if detector.reference is None:
            continue
        row = resolve(detector.signal, detector.reference, observation, time_of_day)
        if row is None:
            continue
        entry = _Entry(stream, detector, observation.ordinal, time_ms, weight, *row)
        entries.append(entry)
        signal = detector.signal
        if (
            stream.pool
            and detector.scope == "route"
            and signal.kind in ("errors", "quality")
            and not signal.only
        ):
            pooled.append((observation.ordinal, ("pool", stream.pool, signal.name), entry))


def _count(stream: Stream, time_ns: int) -> None:
    stream.seen += 1
    stream.last_ns = max(stream.last_ns, time_ns)
    stream.first_ns = min(stream.first_ns, time_ns)
    day = time_ns // DAY_NS
    stream.days[day] = stream.days.get(day, 0) + 1
    if len(stream.days) > MONTH_DAYS:
        del stream.days[min(stream.days)]


# ---- one step of many tests -----------------------------------------------------------------------------


def _run(entries: Sequence[_Entry], events: list[Event]) -> None:
    if not entries:
        return
    lanes: list[Floats] = []
    lam: list[Floats] = []
    x: list[float] = []
    m: list[float] = []
    at: list[float] = []
    weight: list[float] = []
    offsets: list[int] = []
    for entry in entries:
        detector, cell = entry.detector, entry.cell
        offsets.append(len(x))
        if detector.recovery is not None:
            lane = detector.recovery_lane
            null = 1 - (float(cell.mean[lane]) - detector.drop / 2)
            null = min(max(null, LEAST_NULL), LARGEST_NULL)
            lanes.append(detector.recovery)
            x.append(1 - entry.x[lane])
            m.append(null)
            lam.append(np.array(bets(null))[:, None])
        else:
            lanes.append(detector.lanes)
            x.extend(entry.x)
            m.extend(cell.m.tolist())
            lam.append(cell.lam)
        count = len(x) - offsets[-1]
        at.extend([entry.time_ms] * count)
        weight.extend([entry.weight] * count)
    after = advance(
        np.concatenate(lanes, axis=2),
        np.array(x),
        np.array(m),
        np.concatenate(lam, axis=1),
        np.array(at),
        np.array(weight),
    )
    ends = [*offsets[1:], len(x)]
    counts = np.array(ends) - np.array(offsets)
    evidence = np.add.reduceat(lane_evidence(after), offsets) / counts
    thresholds = np.array(
        [e.detector.threshold if e.detector.recovery is None else RESOLVED_AT for e in entries]
    )
    for entry, start, end in zip(entries, offsets, ends, strict=True):
        detector = entry.detector
        if detector.recovery is not None:
            detector.recovery = after[:, :, start:end]
            detector.rows += 1
            continue
        detector.lanes = after[:, :, start:end]
        place = (detector.rows % RECENT) * (end - start)
        for lane, value in enumerate(entry.x):
            detector.recent[place + lane] = round(127 * (float(entry.cell.mean[lane]) - value)) + 127
        detector.rows += 1
    for index in np.flatnonzero(evidence >= thresholds):
        entry = entries[int(index)]
        if entry.detector.recovery is None:
            events.append(_ring(entry, float(evidence[index])))
        else:
            events.append(_resolve(entry))


def _ring(entry: _Entry, evidence: float) -> Rang:
    detector = entry.detector
    count = detector.lanes.shape[2]
    change_ms = change_hint(detector.lanes)
    lane = int(np.argmax(lane_evidence(detector.lanes)))
    rows = min(detector.rows, RECENT)
    gaps = [detector.recent[row * count + lane] - 127 for row in range(rows)]
    cell = entry.cell
    detector.recovery_lane = lane
    # Until 50 calls lie behind the change, their mean still holds calls from before it, and the alternative of
    # the largest C overshoots: the middle of both resolves neither late nor early (tests/bench/drift.py).
    m, lam = float(cell.m[lane]), cell.lam[:, lane]
    likeliest = (
        float(lam[int(np.argmax(detector.lanes[1][:, lane]))]) * m * (1 - m) + float(cell.mean[lane]) - m
    )
    recent = sum(gaps) / rows / 127
    detector.drop = max(recent, (recent + likeliest) / 2, float(cell.mean[lane]) - m)
    detector.recovery = new_lanes(1)
    detector.lanes = new_lanes(count)
    detector.rows = 0
    detector.opened_ms = entry.time_ms
    reopens = detector.resolved_ms is not None and entry.time_ms - detector.resolved_ms < REOPEN_MS
    stream = entry.stream
    if stream.chunks or stream.tail:
        sample = stream.sample()
        stream.keep(sample[sample[:, TIME] < change_ms])
    return Rang(
        stream.key,
        detector.key,
        entry.ordinal,
        int(entry.time_ms * 1e6),
        change_ms,
        log(evidence),
        log(detector.threshold),
        reopens,
        detector.resolved_ms,
    )


def _resolve(entry: _Entry) -> Resolved:
    close(entry.detector, entry.time_ms)
    return Resolved(entry.stream.key, entry.detector.key, entry.ordinal, int(entry.time_ms * 1e6))


def close(detector: Detector, at_ms: float) -> None:
    """End the detector's open alert and let it start from no evidence."""
    detector.opened_ms = None
    detector.resolved_ms = at_ms
    detector.recovery = None
    detector.rows = 0
    detector.lanes = new_lanes(detector.lanes.shape[2])


# ---- the model-level tests ------------------------------------------------------------------------------


def _observe_pools(
    streams: Mapping[StreamKey, Stream],
    touched: dict[StreamKey, Stream],
    pooled: list[tuple[int, StreamKey, _Entry]],
    policy: Policy,
    events: list[Event],
) -> None:
    """Feed each model's test the calls of all its routes in arrival order, each with its own route's null."""
    queues: dict[StreamKey, list[_Entry]] = {}
    for ordinal, key, source in sorted(pooled, key=lambda row: row[0]):
        pool = touched.get(key)
        if pool is None:
            old = streams.get(key)
            pool = touched[key] = old.copy() if old else Stream(key, first_ns=int(source.time_ms * 1e6))
        if ordinal <= pool.ordinal:
            continue
        pool.ordinal = ordinal
        _count(pool, int(source.time_ms * 1e6))
        if source.stream.route not in pool.routes and len(pool.routes) < 2:
            pool.routes.append(source.stream.route)
        if len(pool.routes) < 2:
            continue  # one route's own test says the same
        if not pool.detectors:
            detector = new_detector(source.detector.signal, "model", 1.0, None)
            detector.threshold = threshold(pool, detector, policy)
            pool.detectors[detector.key] = detector
        (detector,) = pool.detectors.values()
        entry = _Entry(pool, detector, ordinal, source.time_ms, source.weight, source.x, source.cell)
        queues.setdefault(key, []).append(entry)
    for turn in range(max((len(queue) for queue in queues.values()), default=0)):
        _run([queue[turn] for queue in queues.values() if turn < len(queue)], events)
