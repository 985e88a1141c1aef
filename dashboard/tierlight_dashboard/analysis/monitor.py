"""All tests of an installation, moved on by a batch of observations: (streams, batch) -> (streams, events).

A *stream* is one epoch of a route (its model, prompt, tier), of one evaluator's scores there, or of the route
as a whole; it owns the reference sample and the tests of its signals. A *pool* is the model-level test fed by
all routes of one model. Only the order within a stream matters, and cutting a batch anywhere changes nothing.

A test's rows depend on its reference alone, so they are worked out for the whole batch at once. Then all tests
of all streams move on together, a call of each in one vectorised turn, up to the next call after which a test may
open or a reference grow. A test that rings or resolves on the way goes on from there by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import log

import numpy as np

from .drift import (
    RECENT,
    RESOLVED_AT,
    Floats,
    advance_rows,
    change_hint,
    lane_evidence,
    mean_in_order,
    new_lanes,
    stakes,
)
from .learning import learn, next_stop
from .reference import TIME, Reference
from .rows import Queue, Rows, joined
from .signals import Observation
from .streams import Detector, Policy, Stream, StreamKey, new_detector, threshold
from .windows import LARGEST_NULL, LEAST_NULL

REOPEN_MS = 24 * 3_600_000.0
# Calls times lanes that move on together: few enough that what they need stays in the processor's cache.
TOGETHER = 4096
_NEVER = 2**63 - 1
ALMOST = 1 - 1e-9  # a mean may be rounded up past the largest of its terms


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
class _Feed:
    """A stream, its new calls and how far it has come in them."""

    stream: Stream
    queue: Queue
    place: int = 0
    stop: int = 0
    rows: dict[str, tuple[Reference, Rows, int]] = field(default_factory=dict)

    def next_rows(self, detector: Detector, reference: Reference) -> tuple[Rows, int, int]:
        """The detector's rows, and which of them are those up to the next stop."""
        if len(self.queue) == 1:
            rows = self.queue.rows(detector.signal, reference, 0, self.stream.keep_min)
            return rows, 0, len(rows.x)
        key = detector.key
        known = self.rows.get(key)
        if known is None or known[0] is not reference:
            rows, first = self.queue.rows(detector.signal, reference, self.place, self.stream.keep_min), 0
        else:
            _, rows, first = known
        last = rows.end(self.stop)
        self.rows[key] = reference, rows, last
        return rows, first, last


class _Run:
    """Rows `first` up to `last` of one test, to be moved on by. `order` is the test's among its stream's."""

    __slots__ = ("detector", "first", "lanes", "last", "n", "order", "rows", "stream", "threshold")

    def __init__(
        self, stream: Stream, order: int, detector: Detector, rows: Rows, first: int, last: int
    ) -> None:
        self.stream, self.order, self.detector = stream, order, detector
        self.rows, self.first, self.last = rows, first, last
        self.n = last - first
        is_open = detector.recovery is not None
        self.lanes = 1 if is_open else detector.lanes.shape[2]
        self.threshold = RESOLVED_AT if is_open else detector.threshold

    def part(self, first: int, last: int) -> _Run:
        return _Run(self.stream, self.order, self.detector, self.rows, first, last)


@dataclass(frozen=True, slots=True)
class _Happened:
    """An event with the place of its call and the order of its test."""

    place: int
    order: int
    event: Event


def observe(
    streams: Mapping[StreamKey, Stream], observations: Iterable[Observation], policy: Policy
) -> tuple[dict[StreamKey, Stream], list[Event]]:
    """The streams that the batch touched, moved on, and what happened, in order of the calls within a stream.

    `streams` is left as it was. Observations come in arrival order; one whose ordinal a stream has had is
    ignored, so a batch delivered twice changes nothing.
    """
    touched: dict[StreamKey, Stream] = {}
    new: dict[StreamKey, list[Observation]] = {}
    for observation in observations:
        key = observation.stream
        stream = touched.get(key)
        if stream is None:
            old = streams.get(key)
            stream = touched[key] = old.copy() if old else _opened(observation)
            new[key] = []
        if observation.ordinal > stream.ordinal:
            stream.ordinal = observation.ordinal
            new[key].append(observation)
    events: dict[StreamKey, list[Event]] = {}
    pooled: dict[StreamKey, list[_Run]] = {}
    zone = policy.learning.zone
    feeds = [_Feed(touched[key], Queue(some[0].kind, some, zone)) for key, some in new.items() if some]
    while feeds:
        runs: list[_Run] = []
        for feed in feeds:
            feed.stop = next_stop(feed.stream, feed.queue.observations, feed.place, policy.learning)
            runs += _runs(feed)
        for run in runs:
            if _is_pooled(run):
                pooled.setdefault(("pool", run.stream.pool, run.detector.signal.name), []).append(run)
        were_open = {feed.stream.key: _open_alerts(feed.stream) for feed in feeds}
        happened = _move(runs)
        for feed in feeds:
            some = happened.get(feed.stream.key, [])
            _take_in(feed, some, were_open[feed.stream.key], policy)
            events.setdefault(feed.stream.key, []).extend(one.event for one in some)
        feeds = [feed for feed in feeds if feed.place < len(feed.queue)]
    events |= _observe_pools(streams, touched, pooled, policy)
    return touched, _in_order_of_time(events.values())


def _opened(observation: Observation) -> Stream:
    return Stream(observation.stream, observation.pool, observation.time_ns, observation.time_ns)


def _runs(feed: _Feed) -> Iterator[_Run]:
    """What each test of a stream has to move on by up to the next stop."""
    for order, detector in enumerate(feed.stream.detectors.values()):
        if detector.reference is None:
            continue
        rows, first, last = feed.next_rows(detector, detector.reference)
        if first < last:
            yield _Run(feed.stream, order, detector, rows, first, last)


def _is_pooled(run: _Run) -> bool:
    signal = run.detector.signal
    return (
        bool(run.stream.pool)
        and run.detector.scope == "route"
        and signal.kind in ("errors", "quality")
        and not signal.only
    )


def _open_alerts(stream: Stream) -> int:
    return sum(detector.opened_ms is not None for detector in stream.detectors.values())


def _take_in(feed: _Feed, happened: Sequence[_Happened], open_alerts: int, policy: Policy) -> None:
    """Count and remember the calls up to the feed's stop, none of them while an alert is open, and learn."""
    stream, calls = feed.stream, feed.queue.observations
    before, place = stream.seen - feed.place, feed.place
    for one in happened:
        if open_alerts == 0:
            stream.remember(calls[place : one.place], before + place, policy.learning)
        place = one.place
        if isinstance(one.event, Resolved):
            open_alerts -= 1
            continue
        open_alerts += 1
        if stream.chunks or stream.tail:
            sample = stream.sample()
            stream.keep(sample[sample[:, TIME] < one.event.change_ms])
    if open_alerts == 0:
        stream.remember(calls[place : feed.stop], before + place, policy.learning)
    stream.count([one.time_ns for one in calls[feed.place : feed.stop]])
    feed.place = feed.stop
    learn(stream, calls[feed.stop - 1], policy)


def _in_order_of_time(events: Iterable[Sequence[Event]]) -> list[Event]:
    """The events of all streams by time; within a stream they keep their order."""
    timed = [
        (time_ns, event)
        for some in events
        for time_ns, event in zip(accumulate((e.time_ns for e in some), max), some, strict=True)
    ]
    return [event for _, event in sorted(timed, key=lambda row: row[0])]


# ---- moving tests on ------------------------------------------------------------------------------------


def _move(runs: Sequence[_Run]) -> dict[StreamKey, list[_Happened]]:
    """Move all tests on by their rows; what happened in each stream, in order."""
    found: dict[StreamKey, list[_Happened]] = {}
    while runs:
        rest: list[_Run] = []
        for group in _groups(runs):
            for run, turn in _advanced(group):
                at = run.first + turn
                _advanced([run.part(run.first, at + 1)], whole=True)
                is_over = run.detector.recovery is not None
                event = _resolve(run, at) if is_over else _ring(run, at)
                place = int(run.rows.place[at])
                found.setdefault(run.stream.key, []).append(_Happened(place, run.order, event))
                if at + 1 < run.last:
                    rest.append(run.part(at + 1, run.last))
        runs = rest
    for some in found.values():
        some.sort(key=lambda one: (one.place, one.order))
    return found


def _groups(runs: Sequence[_Run]) -> Iterator[list[_Run]]:
    """The runs in groups that move on together, the longest first."""
    group: list[_Run] = []
    lanes = 0
    for run in sorted(runs, key=lambda run: run.n, reverse=True):
        if group and (lanes + run.lanes) * group[0].n > TOGETHER:
            yield group
            group, lanes = [], 0
        group.append(run)
        lanes += run.lanes
    yield group


def _advanced(group: Sequence[_Run], *, whole: bool = False) -> list[tuple[_Run, int]]:
    """Move the tests of a group on; gives those that reach their threshold, unmoved, with the turn of it.

    `whole`: to the end of their rows whether or not they reach it.
    """
    turns = group[0].n
    widths = [run.lanes for run in group]
    blocks = [_block(run) for run in group]
    x, nulls = (_beside([block[i] for block in blocks], turns) for i in (0, 1))
    at, weight = (_beside([block[i] for block in blocks], turns).repeat(widths, axis=1) for i in (2, 3))
    m, mean, lam = nulls[:, 0], nulls[:, 1], nulls[:, 2:]
    factors = 1 + (weight[:, None, :] * lam) * (m - x)[:, None, :]
    lanes = np.concatenate(
        [run.detector.lanes if run.detector.recovery is None else run.detector.recovery for run in group],
        axis=2,
    )
    starts = [0, *accumulate(widths[:-1])]
    counts = [0] * turns
    for run, end in zip(group, accumulate(widths), strict=True):
        counts[run.n - 1] = end
    counts = list(accumulate(reversed(counts), max))[::-1]
    advance_rows(lanes, factors, at, counts)
    gaps = mean - x
    stored = (np.rint(127 * gaps) + 127).astype(np.uint8)
    highest = np.maximum.reduceat(factors.max(axis=(0, 1)), starts).tolist()
    reached = []
    for run, start, top in zip(group, starts, highest, strict=True):
        end = start + run.lanes
        reach = None
        if top >= run.threshold * ALMOST and not whole:
            reach = _first_reached(factors[: run.n, :, start:end], run.threshold)
        if reach is None:
            _keep(run.detector, lanes[:, :, start:end].copy(), stored[: run.n, start:end])
        else:
            reached.append((run, reach))
    return reached


def _block(run: _Run) -> tuple[Floats, Floats, Floats, Floats]:
    """x and nulls of the run's rows, their times and weights, the lanes last."""
    detector, rows = run.detector, run.rows
    some = slice(run.first, run.last)
    if detector.recovery is None:
        if run.n == len(rows.x):
            return rows.x, rows.nulls, rows.at_ms[:, None], rows.weight[:, None]
        return rows.x[some], rows.nulls[some], rows.at_ms[some, None], rows.weight[some, None]
    lane = detector.recovery_lane
    null = 1 - (rows.nulls[some, 1, lane] - detector.drop / 2)
    null = np.minimum(np.maximum(null, LEAST_NULL), LARGEST_NULL)
    x = 1 - rows.x[some, lane, None]
    nulls = np.concatenate([null[None], x.T, stakes(null)]).T[:, :, None]
    return x, nulls, rows.at_ms[some, None], rows.weight[some, None]


def _beside(blocks: Sequence[Floats], turns: int) -> Floats:
    """Rows of several runs side by side, the shorter ones filled up with zeros, which bet nothing."""
    if len(blocks[-1]) == turns:
        return np.concatenate(blocks, axis=-1)
    whole = np.zeros((turns, *blocks[0].shape[1:-1], sum(block.shape[-1] for block in blocks)))
    start = 0
    for block in blocks:
        end = start + block.shape[-1]
        whole[: len(block), ..., start:end] = block
        start = end
    return whole


def _first_reached(R: Floats, threshold: float) -> int | None:
    """The first turn after which the evidence is at least the threshold; `R` is turns x bets x lanes."""
    for turn in np.flatnonzero(R.max(axis=(1, 2)) >= threshold * ALMOST):
        lanes = [mean_in_order(bets) for bets in R[turn].T.tolist()]
        if mean_in_order(lanes) >= threshold:
            return int(turn)
    return None


def _keep(detector: Detector, lanes: Floats, gaps: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    n, width = gaps.shape
    if detector.recovery is not None:
        detector.recovery = lanes
    else:
        detector.lanes = lanes
        kept = gaps[-RECENT:]
        first = (detector.rows + n - len(kept)) % RECENT
        before_end = min(len(kept), RECENT - first)
        detector.recent[first * width : (first + before_end) * width] = kept[:before_end].tobytes()
        detector.recent[: (len(kept) - before_end) * width] = kept[before_end:].tobytes()
    detector.rows += n


def _ring(run: _Run, at: int) -> Rang:
    detector, rows = run.detector, run.rows
    count = detector.lanes.shape[2]
    evidence = detector.evidence
    change_ms = change_hint(detector.lanes)
    lane = int(np.argmax(lane_evidence(detector.lanes)))
    recent_rows = min(detector.rows, RECENT)
    gaps = [detector.recent[row * count + lane] - 127 for row in range(recent_rows)]
    detector.recovery_lane = lane
    # Until 50 calls lie behind the change, their mean still holds calls from before it, and the alternative of
    # the largest C overshoots: the middle of both resolves neither late nor early (tests/bench/drift.py).
    m, mean = float(rows.nulls[at, 0, lane]), float(rows.nulls[at, 1, lane])
    lam = rows.nulls[at, 2:, lane]
    likeliest = float(lam[int(np.argmax(detector.lanes[1][:, lane]))]) * m * (1 - m) + mean - m
    recent = sum(gaps) / recent_rows / 127
    detector.drop = max(recent, (recent + likeliest) / 2, mean - m)
    detector.recovery = new_lanes(1)
    detector.lanes = new_lanes(count)
    detector.rows = 0
    detector.opened_ms = at_ms = float(rows.at_ms[at])
    reopens = detector.resolved_ms is not None and at_ms - detector.resolved_ms < REOPEN_MS
    return Rang(
        run.stream.key,
        detector.key,
        int(rows.ordinal[at]),
        int(rows.time_ns[at]),
        change_ms,
        log(evidence),
        log(detector.threshold),
        reopens,
        detector.resolved_ms,
    )


def _resolve(run: _Run, at: int) -> Resolved:
    rows = run.rows
    close(run.detector, float(rows.at_ms[at]))
    return Resolved(run.stream.key, run.detector.key, int(rows.ordinal[at]), int(rows.time_ns[at]))


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
    pooled: Mapping[StreamKey, Sequence[_Run]],
    policy: Policy,
) -> dict[StreamKey, list[Event]]:
    """Feed each model's test the calls of all its routes in arrival order, each with its own route's null."""
    runs = []
    for key, sources in pooled.items():
        old = streams.get(key)
        start_ns = min(int(source.rows.time_ns[source.first]) for source in sources)
        pool = touched[key] = old.copy() if old else Stream(key, first_ns=start_ns)
        rows = joined([(source.rows, slice(source.first, source.last)) for source in sources], pool.ordinal)
        if not len(rows.place):
            continue
        first = _routes_known(pool, sources)
        times = rows.time_ns.tolist()
        opens = int(np.searchsorted(rows.ordinal, first))
        pool.count(times[: opens + 1])
        pool.ordinal = int(rows.ordinal[-1])
        if opens == len(times):
            continue  # one route's own test says the same
        if not pool.detectors:
            detector = new_detector(sources[0].detector.signal, "model", 1.0, None)
            detector.threshold = threshold(pool, detector, policy)
            pool.detectors[detector.key] = detector
        if times[opens + 1 :]:
            pool.count(times[opens + 1 :])
        (detector,) = pool.detectors.values()
        runs.append(_Run(pool, 0, detector, rows, opens, len(times)))
    return {key: [one.event for one in some] for key, some in _move(runs).items()}


def _routes_known(pool: Stream, sources: Sequence[_Run]) -> int:
    """The ordinal from which calls of two routes are known, past all of the batch while there is but one."""
    begins = []
    for source in sources:
        ordinals = source.rows.ordinal[source.first : source.last]
        ordinals = ordinals[ordinals > pool.ordinal]
        if len(ordinals):
            begins.append((int(ordinals[0]), source.stream.route))
    first = pool.ordinal + 1
    for ordinal, route in sorted(begins):
        if len(pool.routes) < 2 and route not in pool.routes:
            pool.routes.append(route)
            first = ordinal
    return first if len(pool.routes) == 2 else _NEVER
