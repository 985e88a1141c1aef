"""What the watch keeps between ticks: streams with their reference samples and tests, and the policy they run by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import inf
from typing import Literal

import numpy as np

from .drift import (
    BUDGET,
    MONTH_DAYS,
    RECENT,
    Floats,
    Severity,
    alarm_threshold,
    lane_evidence,
    mean_in_order,
    new_lanes,
)
from .reference import Learning, Reference
from .signals import Observation, Signal
from .windows import DAY_NS

StreamKey = tuple[str, ...]
WEEK_DAYS = 7
CHUNK = 32  # rows of the sample stored as one part; only an unfinished chunk is written again


@dataclass(frozen=True, slots=True)
class Policy:
    """What the installation decided: reference sizes, how long a score may take, false alarms accepted a month.

    `units` are those of all open tests by level; the watch counts them anew every day. The given ones are the
    least that count: tests that still learn will open, and a fleet of two tests would ring at next to nothing.
    """

    learning: Learning = field(default_factory=Learning)
    coverage_lag_hours: float = 24
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
    rows: int = 0  # since its alarm while one is open, else since the last one was resolved
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
        return mean_in_order(lane_evidence(self.lanes).tolist())

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
    def kind(self) -> Literal["calls", "route", "scores", "coverage", "pool"]:
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
        return sum(self.days.values()) / min(max(self._age_days, 1), MONTH_DAYS)

    @property
    def calls_a_month(self) -> float:
        """Calls expected in 28 days at the rate seen; the first days are taken for the whole of a week."""
        return sum(self.days.values()) * MONTH_DAYS / min(max(self._age_days, WEEK_DAYS), MONTH_DAYS)

    @property
    def _age_days(self) -> float:
        return (self.last_ns - self.first_ns) / DAY_NS

    @property
    def is_judge_check(self) -> bool:
        """Whether it holds a judge's scores of frozen answers, which feed no model's test."""
        return self.kind == "scores" and not self.pool

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

    def count(self, times_ns: Sequence[int]) -> None:
        """Count calls, in order of arrival."""
        self.seen += len(times_ns)
        self.last_ns = max(self.last_ns, *times_ns)
        self.first_ns = min(self.first_ns, *times_ns)
        for day, calls in groupby(times_ns, lambda time_ns: time_ns // DAY_NS):
            self.days[day] = self.days.get(day, 0) + len(list(calls))
            if len(self.days) > MONTH_DAYS:
                del self.days[min(self.days)]

    def remember(self, observations: Sequence[Observation], seen: int, learning: Learning) -> None:
        """Add to the sample the calls that follow the first `seen`.

        A full sample is thinned to every second call and goes on at half the rate.
        """
        for number, observation in enumerate(observations, seen + 1):
            if not self.detectors:
                self.keep_min = min(self.keep_min, observation.keep_prob)
            if number % self.stride == 0:
                self._add(observation, learning)

    def _add(self, observation: Observation, learning: Learning) -> None:
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


def threshold(stream: Stream, detector: Detector, policy: Policy) -> float:
    level = detector.signal.level
    return alarm_threshold(policy.units[level], detector.units, stream.calls_a_month, policy.budget[level])
