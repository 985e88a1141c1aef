"""All tests of an installation, moved on by a batch of observations: (streams, batch) -> (streams, events).

A *stream* is one epoch of a route (its model, prompt, tier), of one evaluator's scores there, or of the route
as a whole; it owns the reference sample and the tests of its signals. A *pool* is the model-level test fed by
all routes of one model. Only the order within a stream matters, and cutting a batch anywhere changes nothing.

One step takes the next call of every stream at once, so a tick with one call on each of 3,000 routes is a
single vectorised step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log
from typing import Literal

import numpy as np

from .drift import (
    BUDGET,
    MONTH_DAYS,
    RECENT,
    RESOLVED_AT,
    Floats,
    Severity,
    advance,
    alarm_threshold,
    amber_threshold,
    bets,
    change_hint,
    lane_evidence,
    meter,
    new_lanes,
)
from .reference import (
    FIRST_FIELD,
    TIME,
    Cell,
    Learning,
    Reference,
    build,
    column,
    learned,
    resolve,
    segment_reference,
)
from .signals import (
    CALL_SIGNALS,
    ERROR_CLASSES,
    LAZY,
    ROUTE_SIGNALS,
    Observation,
    Signal,
    error_signal,
    quality_signal,
)
from .windows import DAY_NS, LARGEST_NULL, LEAST_NULL, time_bin

StreamKey = tuple[str, ...]
CHUNK = 32  # rows of the sample stored as one part; only an unfinished chunk is written again
CHECK_EVERY = 25  # calls between looks at whether a reference may be built or grow
REOPEN_MS = 24 * 3_600_000.0
LAUNCH = "launch"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the installation decided: reference sizes, accepted false alarms a month, and open units by level."""

    learning: Learning = field(default_factory=Learning)
    budget: Mapping[Severity, float] = field(default_factory=lambda: dict(BUDGET))
    units: Mapping[Severity, float] = field(
        default_factory=lambda: {"page": 8.0, "ticket": 8.0, "info": 20.0}
    )


@dataclass(slots=True)
class Detector:
    """One test: a signal, its scope ("route", "segment:<name>", "launch", "model"), reference and evidence."""

    signal: Signal
    scope: str
    units: float
    reference: Reference | None
    lanes: Floats
    recent: bytearray
    rows: int = 0
    threshold: float = inf
    grown_at: int = 0  # calls of the stream when the reference was last built
    opened_ms: float | None = None
    resolved_ms: float | None = None
    recovery: Floats | None = None
    recovery_lane: int = 0
    drop: float = 0.0
    is_stored: bool = False  # the reference

    @property
    def key(self) -> str:
        return self.signal.key if self.scope == "route" else f"{self.signal.key}@{self.scope}"

    @property
    def evidence(self) -> float:
        """R of the test: the mean over its lanes."""
        return float(lane_evidence(self.lanes).sum() / self.lanes.shape[2])

    def copy(self) -> Detector:
        # Spelled out: `replace` takes four times as long, and a tick copies every test it touches.
        return Detector(
            self.signal,
            self.scope,
            self.units,
            self.reference,
            self.lanes,
            bytearray(self.recent),
            self.rows,
            self.threshold,
            self.grown_at,
            self.opened_ms,
            self.resolved_ms,
            self.recovery,
            self.recovery_lane,
            self.drop,
            self.is_stored,
        )


def new_detector(
    signal: Signal, scope: str, units: float, reference: Reference | None, lanes: int = 1
) -> Detector:
    count = reference.lanes if reference else lanes
    return Detector(signal, scope, units, reference, new_lanes(count), bytearray([127]) * (RECENT * count))


@dataclass(slots=True)
class Stream:
    """One epoch with its counts, reference sample and tests."""

    key: StreamKey
    pool: str = ""
    first_ns: int = 0
    last_ns: int = 0
    ordinal: int = 0
    seen: int = 0
    days: dict[int, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)  # segments by code
    chunks: list[Floats] = field(default_factory=list)
    tail: list[tuple[float, ...]] = field(default_factory=list)
    stride: int = 1
    keep_min: float = 1.0
    detectors: dict[str, Detector] = field(default_factory=dict)
    routes: list[str] = field(default_factory=list)  # pools only
    # What the store holds of the sample: so many chunks, of which the first so many are still as stored.
    stored_chunks: int = 0
    clean_chunks: int = 0

    @property
    def kind(self) -> Literal["calls", "route", "scores", "pool"]:
        return self.key[0]  # type: ignore[return-value]  # the first part of the key is the kind

    @property
    def route(self) -> str:
        return "" if self.kind == "pool" else self.key[1]

    @property
    def model(self) -> str:
        """The requested model; "" for a route as a whole."""
        return self.key[1] if self.kind == "pool" else self.key[2] if len(self.key) > 2 else ""

    @property
    def calls_a_day(self) -> float:
        return self.calls_a_month / MONTH_DAYS

    @property
    def calls_a_month(self) -> float:
        """Calls expected in 28 days at the rate seen; those of the first day are not scaled up."""
        days = min((self.last_ns - self.first_ns) / DAY_NS, MONTH_DAYS)
        seen = sum(self.days.values())
        return seen * MONTH_DAYS / days if days >= 1 else seen

    @property
    def is_frozen(self) -> bool:
        """While an alert is open nothing is learned."""
        return any(detector.opened_ms is not None for detector in self.detectors.values())

    def copy(self) -> Stream:
        return Stream(
            self.key,
            self.pool,
            self.first_ns,
            self.last_ns,
            self.ordinal,
            self.seen,
            self.days.copy(),
            self.names.copy(),
            self.chunks.copy(),
            self.tail.copy(),
            self.stride,
            self.keep_min,
            {key: detector.copy() for key, detector in self.detectors.items()},
            self.routes.copy(),
            self.stored_chunks,
            self.clean_chunks,
        )

    def sample(self) -> Floats:
        """The reference sample, one row a call in arrival order: time in ms, weight, segment, fields."""
        parts = list(self.chunks)
        if self.tail or not parts:
            parts.append(np.array(self.tail, dtype=float).reshape(len(self.tail), -1))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def remember(self, observation: Observation, learning: Learning) -> None:
        """Add the call to the sample; a full sample is thinned to every second call and goes on at half the rate."""
        if self.seen % self.stride:
            return
        if observation.segment in self.names:
            code = self.names.index(observation.segment)
        elif len(self.names) < 200:
            code = len(self.names)
            self.names.append(observation.segment)
        else:
            code = 0
        weight = min(1.0, self.keep_min / observation.keep_prob)
        self.tail.append((observation.time_ns / 1e6, weight, float(code), *observation.values))
        if len(self.tail) == CHUNK:
            self.chunks.append(np.array(self.tail))
            self.tail = []
            if len(self.chunks) * CHUNK >= learning.sample_rows:
                self.keep(self.sample()[::2])
                self.stride *= 2

    def keep(self, sample: Floats) -> None:
        """Replace the sample."""
        full = len(sample) // CHUNK
        self.chunks = [np.array(sample[at * CHUNK : (at + 1) * CHUNK]) for at in range(full)]
        self.tail = [tuple(row) for row in sample[full * CHUNK :].tolist()]
        self.clean_chunks = 0


@dataclass(frozen=True, slots=True)
class Rang:
    """A test passed its threshold. `change_ms` is the first estimate of when the change began."""

    stream: StreamKey
    test: str
    ordinal: int
    time_ns: int
    change_ms: float
    log_evidence: float
    log_threshold: float
    reopens: bool


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
            _learn(touched[key], queues[key][turn], policy)
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
    )


def _resolve(entry: _Entry) -> Resolved:
    close(entry.detector, entry.time_ms)
    return Resolved(entry.stream.key, entry.detector.key, entry.ordinal, int(entry.time_ms * 1e6))


def close(detector: Detector, at_ms: float) -> None:
    """End the detector's open alert and let it start from no evidence."""
    detector.opened_ms = None
    detector.resolved_ms = at_ms
    detector.recovery = None
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


# ---- learning -------------------------------------------------------------------------------------------


def signals_of(stream: Stream) -> tuple[Signal, ...]:
    """The tests a stream will open once it has learned enough."""
    if stream.kind == "calls":
        return CALL_SIGNALS
    if stream.kind == "route":
        return ROUTE_SIGNALS
    return (quality_signal(stream.key[5]),)


def threshold(stream: Stream, detector: Detector, policy: Policy) -> float:
    level = detector.signal.level
    return alarm_threshold(policy.units[level], detector.units, stream.calls_a_month, policy.budget[level])


def _learn(stream: Stream, observation: Observation, policy: Policy) -> None:
    learning = policy.learning
    if not stream.is_frozen:
        if observation.keep_prob < stream.keep_min and not stream.detectors:
            stream.keep_min = observation.keep_prob
        stream.remember(observation, learning)
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
    if reference is None or detector.evidence >= amber_threshold(detector.threshold):
        return False
    if detector.signal.form in ("share", "score") and reference.n < learning.target_scored:
        return stream.seen - RECENT >= learning.growth * detector.grown_at
    week = learning.refresh_days * DAY_NS
    grown_days = (reference.until_ns - stream.first_ns) / DAY_NS
    return grown_days < learning.longest_days - 1 and stream.last_ns - reference.until_ns >= week


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


# ---- the fleet's budget and the state of a test ---------------------------------------------------------


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
            state = "recovering" if float(lane_evidence(detector.recovery)[0]) >= 30 else "alert"
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
                float(reference.cells[0].m[0]) if reference else None,
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
