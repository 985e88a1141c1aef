"""Tests moved on by their rows, many at a time, and what happens on the way: alarms and their ends.

Tests of all streams go side by side, a call of each in one vectorised turn. A test that rings or resolves on the way
goes on from there by itself, so it does not matter which tests go together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from .rows import Rows
from .streams import Detector, Stream, StreamKey
from .windows import LARGEST_NULL, LEAST_NULL

REOPEN_MS = 24 * 3_600_000.0
# Calls times lanes that move on together: few enough that what they need stays in the processor's cache.
TOGETHER = 4096
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


class Run:
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

    def part(self, first: int, last: int) -> Run:
        return Run(self.stream, self.order, self.detector, self.rows, first, last)


@dataclass(frozen=True, slots=True)
class Happened:
    """An event with the place of its call and the order of its test."""

    place: int
    order: int
    event: Event


def move(runs: Sequence[Run]) -> dict[StreamKey, list[Happened]]:
    """Move all tests on by their rows; what happened in each stream, in order."""
    found: dict[StreamKey, list[Happened]] = {}
    while runs:
        rest: list[Run] = []
        for group in _groups(runs):
            for run, turn in _advanced(group):
                at = run.first + turn
                _advanced([run.part(run.first, at + 1)], whole=True)
                is_over = run.detector.recovery is not None
                event = _resolve(run, at) if is_over else _ring(run, at)
                place = int(run.rows.place[at])
                found.setdefault(run.stream.key, []).append(Happened(place, run.order, event))
                if at + 1 < run.last:
                    rest.append(run.part(at + 1, run.last))
        runs = rest
    for some in found.values():
        some.sort(key=lambda one: (one.place, one.order))
    return found


def _groups(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The runs in groups that move on together, the longest first."""
    group: list[Run] = []
    lanes = 0
    for run in sorted(runs, key=lambda run: run.n, reverse=True):
        if group and (lanes + run.lanes) * group[0].n > TOGETHER:
            yield group
            group, lanes = [], 0
        group.append(run)
        lanes += run.lanes
    yield group


def _advanced(group: Sequence[Run], *, whole: bool = False) -> list[tuple[Run, int]]:
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


def _block(run: Run) -> tuple[Floats, Floats, Floats, Floats]:
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


def _ring(run: Run, at: int) -> Rang:
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


def _resolve(run: Run, at: int) -> Resolved:
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
