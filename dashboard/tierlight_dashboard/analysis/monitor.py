"""All tests of an installation, moved on by a batch of observations: (streams, batch) -> (streams, events).

A *stream* is one epoch of a route (its model, prompt, tier), of one evaluator's scores there, or of the route
as a whole; it owns the reference sample and the tests of its signals. A *pool* is the model-level test fed by
all routes of one model. Only the order within a stream matters, and cutting a batch anywhere changes nothing.

A test's rows depend on its reference alone, so they are worked out for the whole batch at once. Then all tests
of all streams move on together, up to the next call after which a test may open or a reference grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from .learning import learn, next_stop
from .moving import Event, Happened, Resolved, Run, move
from .reference import TIME, Reference
from .rows import Queue, Rows, joined
from .signals import Observation
from .streams import Detector, Policy, Stream, StreamKey, new_detector, threshold

_NEVER = 2**63 - 1


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
    pooled: dict[StreamKey, list[Run]] = {}
    zone = policy.learning.zone
    feeds = [_Feed(touched[key], Queue(some[0].kind, some, zone)) for key, some in new.items() if some]
    while feeds:
        runs: list[Run] = []
        for feed in feeds:
            feed.stop = next_stop(feed.stream, feed.queue.observations, feed.place, policy.learning)
            runs += _runs(feed)
        for run in runs:
            if _is_pooled(run):
                pooled.setdefault(("pool", run.stream.pool, run.detector.signal.name), []).append(run)
        were_open = {feed.stream.key: _open_alerts(feed.stream) for feed in feeds}
        happened = move(runs)
        for feed in feeds:
            some = happened.get(feed.stream.key, [])
            _take_in(feed, some, were_open[feed.stream.key], policy)
            events.setdefault(feed.stream.key, []).extend(one.event for one in some)
        feeds = [feed for feed in feeds if feed.place < len(feed.queue)]
    events |= _observe_pools(streams, touched, pooled, policy)
    return touched, _in_order_of_time(events.values())


def _opened(observation: Observation) -> Stream:
    return Stream(observation.stream, observation.pool, observation.time_ns, observation.time_ns)


def _runs(feed: _Feed) -> Iterator[Run]:
    """What each test of a stream has to move on by up to the next stop."""
    for order, detector in enumerate(feed.stream.detectors.values()):
        if detector.reference is None:
            continue
        rows, first, last = feed.next_rows(detector, detector.reference)
        if first < last:
            yield Run(feed.stream, order, detector, rows, first, last)


def _is_pooled(run: Run) -> bool:
    signal = run.detector.signal
    return (
        bool(run.stream.pool)
        and run.detector.scope == "route"
        and signal.kind in ("errors", "quality")
        and not signal.only
    )


def _open_alerts(stream: Stream) -> int:
    return sum(detector.opened_ms is not None for detector in stream.detectors.values())


def _take_in(feed: _Feed, happened: Sequence[Happened], open_alerts: int, policy: Policy) -> None:
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


# ---- the model-level tests ------------------------------------------------------------------------------


def _observe_pools(
    streams: Mapping[StreamKey, Stream],
    touched: dict[StreamKey, Stream],
    pooled: Mapping[StreamKey, Sequence[Run]],
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
        runs.append(Run(pool, 0, detector, rows, opens, len(times)))
    return {key: [one.event for one in some] for key, some in move(runs).items()}


def _routes_known(pool: Stream, sources: Sequence[Run]) -> int:
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
